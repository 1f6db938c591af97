//! The HTTP client as the manifest URL source wants it: one GET, one hop.

use std::rc::Rc;
use std::sync::Arc;

use http::header::{HeaderName, HeaderValue, LOCATION};
use http::{HeaderMap, Method, Uri};
use rustls::ClientConfig;

use crate::manifest::{Answer, Fetch};
use crate::net::client::{Client, Request, Timeouts};
use crate::net::proxy::Proxies;
use crate::net::tls::{self, Trust};
use crate::world::{Clock, LocalFuture};

pub struct HttpFetch {
    client: Client,
    tls: Arc<ClientConfig>,
}

impl HttpFetch {
    /// Errors: the system's certificates cannot be used.
    pub fn new(clock: Rc<dyn Clock>, proxies: Rc<Proxies>) -> Result<HttpFetch, String> {
        Ok(HttpFetch {
            client: Client::new(clock, Timeouts::default()).through(proxies),
            tls: tls::client_config(&Trust::default())?,
        })
    }
}

impl Fetch for HttpFetch {
    fn get<'a>(
        &'a self,
        url: &'a str,
        headers: &'a [(String, String)],
        bytes_max: u64,
    ) -> LocalFuture<'a, Result<Answer, String>> {
        Box::pin(async move {
            let url: Uri = url.parse().map_err(|error| format!("{url:?}: {error}"))?;
            let mut map = HeaderMap::new();
            for (name, value) in headers {
                let text = |error: &dyn std::fmt::Display| format!("header {name:?}: {error}");
                let key = HeaderName::try_from(name.as_str()).map_err(|e| text(&e))?;
                let value = HeaderValue::try_from(value.as_str()).map_err(|e| text(&e))?;
                map.append(key, value);
            }
            let request = Request {
                method: Method::GET,
                url,
                headers: map,
                body: Default::default(),
                tls: self.tls.clone(),
            };
            let mut response = self.client.send(request).await.map_err(|e| e.to_string())?;
            let location = response.header(LOCATION.as_str()).map(str::to_owned);
            let status = response.status.as_u16();
            let body = response.bytes(bytes_max).await.map_err(|e| e.to_string())?;
            Ok(Answer {
                status,
                location,
                body,
            })
        })
    }
}
