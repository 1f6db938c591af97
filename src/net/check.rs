//! The HTTP, TCP and gRPC checks of probes and hooks, as the kubelet makes them.
//!
//! A fresh connection each time, no proxy, no compression, no certificate checks. Redirects are
//! followed within one host name only. Source: Kubernetes pkg/probe.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Uri, header};
use rustls::ClientConfig;

use super::client::{Client, Error, Request, Response, Timeouts};
use super::dial::{self, within};
use super::grpc;
use super::tls::{self, Trust, Verification};
use crate::world::{Clock, HttpAnswer, HttpCheck, LocalFuture, Net, NetError, Scheme};

const USER_AGENT: &str = "kube-probe/1.36";
const BODY_BYTES_MAX: usize = 10 * 1024;
const REDIRECTS_MAX: u32 = 10;

/// The real network.
pub struct RealNet {
    clock: Rc<dyn Clock>,
    tls: Arc<ClientConfig>,
}

impl RealNet {
    /// Errors: TLS cannot be set up at all.
    pub fn new(clock: Rc<dyn Clock>) -> Result<RealNet, String> {
        let trust = Trust {
            verification: Verification::Skip,
            ..Trust::default()
        };
        let tls = tls::client_config(&trust)?;
        Ok(RealNet { clock, tls })
    }

    async fn check(&self, check: HttpCheck) -> Result<HttpAnswer, NetError> {
        let unbounded = Timeouts {
            connect: check.timeout,
            first_byte: check.timeout,
            idle: check.timeout,
        };
        let client = Client::new(self.clock.clone(), unbounded);
        let mut url = url(&check)?;
        let headers = headers(&check)?;
        let host_name = url.host().unwrap_or_default().to_owned();
        for _ in 0..=REDIRECTS_MAX {
            let request = Request {
                method: Method::GET,
                url: url.clone(),
                headers: headers.clone(),
                body: Bytes::new(),
                tls: self.tls.clone(),
            };
            let mut response = client.send(request).await.map_err(failed)?;
            let Some(target) = redirect(&response, &url) else {
                return answer(&mut response, false).await;
            };
            if target.host() != Some(host_name.as_str()) {
                return answer(&mut response, true).await;
            }
            url = target;
        }
        Err(NetError::Failed(format!(
            "stopped after {REDIRECTS_MAX} redirects"
        )))
    }
}

impl Net for RealNet {
    fn tcp_check(
        &self,
        host: &str,
        port: u16,
        timeout: Duration,
    ) -> LocalFuture<'_, Result<(), NetError>> {
        let host = host.to_owned();
        Box::pin(async move {
            match within(
                &*self.clock,
                timeout,
                dial::connect(&*self.clock, &host, port),
            )
            .await
            {
                None => Err(NetError::Timeout),
                Some(Ok(_)) => Ok(()),
                Some(Err(error)) => Err(NetError::Failed(error.to_string())),
            }
        })
    }

    fn http_check(&self, check: HttpCheck) -> LocalFuture<'_, Result<HttpAnswer, NetError>> {
        Box::pin(async move {
            let timeout = check.timeout;
            let checked = within(&*self.clock, timeout, self.check(check)).await;
            checked.unwrap_or(Err(NetError::Timeout))
        })
    }

    fn grpc_check(
        &self,
        host: &str,
        port: u16,
        service: &str,
        timeout: Duration,
    ) -> LocalFuture<'_, Result<u64, NetError>> {
        let (host, service) = (host.to_owned(), service.to_owned());
        Box::pin(async move {
            let asked = within(&*self.clock, timeout, async {
                let stream = dial::connect(&*self.clock, &host, port).await;
                let stream = stream.map_err(|error| NetError::Failed(error.to_string()))?;
                grpc::status(stream, &format!("{host}:{port}"), &service).await
            });
            asked.await.unwrap_or(Err(NetError::Timeout))
        })
    }
}

fn url(check: &HttpCheck) -> Result<Uri, NetError> {
    let scheme = match check.scheme {
        Scheme::Http => "http",
        Scheme::Https => "https",
    };
    let host = match check.host.contains(':') && !check.host.starts_with('[') {
        true => format!("[{}]", check.host),
        false => check.host.clone(),
    };
    format!("{scheme}://{host}:{}{}", check.port, check.path)
        .parse()
        .map_err(|error| NetError::Failed(format!("parse the probe's URL: {error}")))
}

fn headers(check: &HttpCheck) -> Result<HeaderMap, NetError> {
    let mut headers = HeaderMap::new();
    for (name, value) in &check.headers {
        let invalid = || NetError::Failed(format!("header {name:?} of the probe is invalid"));
        let name = HeaderName::from_bytes(name.as_bytes()).map_err(|_| invalid())?;
        let value = HeaderValue::from_str(value).map_err(|_| invalid())?;
        headers.append(name, value);
    }
    let user_agent = HeaderValue::from_static(USER_AGENT);
    headers.entry(header::USER_AGENT).or_insert(user_agent);
    match headers.get(header::ACCEPT) {
        None => drop(headers.insert(header::ACCEPT, HeaderValue::from_static("*/*"))),
        // An empty one asks for none at all.
        Some(value) if value.is_empty() => drop(headers.remove(header::ACCEPT)),
        Some(_) => {}
    }
    Ok(headers)
}

/// Where a 3xx answer with a usable `Location` points to.
fn redirect(response: &Response, from: &Uri) -> Option<Uri> {
    if !matches!(response.status.as_u16(), 301 | 302 | 303 | 307 | 308) {
        return None;
    }
    super::client::join(from, response.header("location")?)
}

async fn answer(response: &mut Response, elsewhere: bool) -> Result<HttpAnswer, NetError> {
    let mut body = Vec::new();
    while body.len() < BODY_BYTES_MAX {
        match response.chunk().await.map_err(failed)? {
            Some(chunk) => body.extend_from_slice(&chunk),
            None => break,
        }
    }
    body.truncate(BODY_BYTES_MAX);
    Ok(HttpAnswer {
        status: response.status.as_u16(),
        body,
        redirected_elsewhere: elsewhere,
    })
}

fn failed(error: Error) -> NetError {
    match error {
        Error::Timeout(_) => NetError::Timeout,
        Error::Protocol(text) => NetError::Protocol(text),
        Error::Broken(text) | Error::Request(text) => {
            // Upstream says who was dialled, not why.
            let at = text.find("dial tcp ").unwrap_or(0);
            NetError::Failed(text[at..].to_owned())
        }
    }
}
