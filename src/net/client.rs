//! One HTTP/1.1 request over a connection of its own, every wait bounded by the world's clock.
//!
//! No pool, no redirects, no retries: callers decide those, since each of them is a question of
//! whom a credential may reach. The connection is driven by whoever reads the answer, so dropping
//! the answer closes it and no task is left behind.

use std::fmt;
use std::future::{Future, poll_fn};
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use futures_lite::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use futures_rustls::TlsConnector;
use http::{HeaderMap, Method, StatusCode, Uri, header};
use http_body::Body as _;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::client::conn::http1;
use rustls::ClientConfig;
use rustls_pki_types::ServerName;
use smol_hyper::rt::FuturesIo;

use super::dial::{self, Stream, within};
use super::proxy::{Proxies, Proxy};
use crate::world::Clock;

/// Bytes of an answer's head, and the read buffer of its body.
const HEAD_BYTES_MAX: usize = 64 * 1024;
/// Header lines of an answer.
const HEADERS_MAX: usize = 100;

/// Why there is no (whole) answer, by what callers do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Error {
    Timeout(String),
    /// Refused, reset, unreachable, no such name, or ended in the middle.
    Broken(String),
    /// The peer speaks something else than HTTP or TLS, or its certificate is not trusted.
    Protocol(String),
    /// The request itself cannot be sent (no host, unknown scheme).
    Request(String),
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::Timeout(text)
            | Error::Broken(text)
            | Error::Protocol(text)
            | Error::Request(text) => f.write_str(text),
        }
    }
}

impl std::error::Error for Error {}

/// How long each stage may take.
#[derive(Clone, Copy, Debug)]
pub struct Timeouts {
    /// Name look-up, TCP and TLS.
    pub connect: Duration,
    /// From the request to the answer's head.
    pub first_byte: Duration,
    /// Between two pieces of the body.
    pub idle: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        Timeouts {
            connect: Duration::from_secs(30),
            first_byte: Duration::from_secs(60),
            idle: Duration::from_secs(60),
        }
    }
}

/// A request to an absolute `http` or `https` URL.
#[derive(Clone, Debug)]
pub struct Request {
    pub method: Method,
    pub url: Uri,
    /// `Host` is added if it is missing.
    pub headers: HeaderMap,
    pub body: Bytes,
    pub tls: Arc<ClientConfig>,
}

#[derive(Clone)]
pub struct Client {
    clock: Rc<dyn Clock>,
    timeouts: Timeouts,
    proxies: Rc<Proxies>,
}

type Connection = Pin<Box<dyn Future<Output = hyper::Result<()>>>>;

/// An answer whose body is still on its way.
pub struct Response {
    pub status: StatusCode,
    pub headers: HeaderMap,
    incoming: Incoming,
    connection: Option<Connection>,
    clock: Rc<dyn Clock>,
    idle: Duration,
}

impl Client {
    /// Goes everywhere directly.
    pub fn new(clock: Rc<dyn Clock>, timeouts: Timeouts) -> Client {
        Client {
            clock,
            timeouts,
            proxies: Rc::default(),
        }
    }

    pub fn through(self, proxies: Rc<Proxies>) -> Client {
        Client { proxies, ..self }
    }

    /// Sends the request and resolves with the head of the answer.
    pub async fn send(&self, request: Request) -> Result<Response, Error> {
        let host = request.url.host().unwrap_or_default().to_owned();
        let proxy = self.proxies.for_url(&request.url).map_err(Error::Request)?;
        let late = |stage: &str| Error::Timeout(format!("{stage} {host}: timeout"));
        let stream = within(
            &*self.clock,
            self.timeouts.connect,
            self.connect(&request, proxy),
        )
        .await
        .ok_or_else(|| late("connect to"))??;
        let mut builder = http1::Builder::new();
        builder
            .max_headers(HEADERS_MAX)
            .max_buf_size(HEAD_BYTES_MAX);
        let (mut sender, connection) = builder
            .handshake(FuturesIo::new(stream))
            .await
            .map_err(|error| broken(&host, &error))?;
        let mut connection: Option<Connection> = Some(Box::pin(connection));
        let mut answer = Box::pin(sender.send_request(assemble(request, proxy)?));
        let driven = poll_fn(|context| {
            drive(&mut connection, context);
            answer.as_mut().poll(context)
        });
        let answer = within(&*self.clock, self.timeouts.first_byte, driven)
            .await
            .ok_or_else(|| late("wait for the answer of"))?
            .map_err(|error| broken(&host, &error))?;
        let (head, incoming) = answer.into_parts();
        Ok(Response {
            status: head.status,
            headers: head.headers,
            incoming,
            connection,
            clock: self.clock.clone(),
            idle: self.timeouts.idle,
        })
    }

    async fn connect(&self, request: &Request, proxy: Option<&Proxy>) -> Result<Stream, Error> {
        let host = request.url.host().unwrap_or_default();
        if host.is_empty() {
            return Err(Error::Request(format!("{} names no host", request.url)));
        }
        let secure = match request.url.scheme_str() {
            Some("https") => true,
            Some("http") => false,
            _ => {
                return Err(Error::Request(format!(
                    "{} is neither http nor https",
                    request.url
                )));
            }
        };
        let port = request
            .url
            .port_u16()
            .unwrap_or(if secure { 443 } else { 80 });
        let (what, dialled, at) = match proxy {
            None => ("", host, port),
            Some(proxy) => ("proxy ", proxy.host.as_str(), proxy.port),
        };
        let stream = dial::connect(&*self.clock, dialled, at).await;
        let mut stream = stream
            .map_err(|error| Error::Broken(format!("connect to {what}{dialled}: {error}")))?;
        if secure && let Some(proxy) = proxy {
            open_tunnel(&mut stream, proxy, host, port).await?;
        }
        if !secure {
            return Ok(Stream::Plain(stream));
        }
        let name = host
            .trim_start_matches('[')
            .trim_end_matches(']')
            .to_owned();
        let name = ServerName::try_from(name)
            .map_err(|_| Error::Request(format!("{host} is no valid host name")))?;
        let connector = TlsConnector::from(request.tls.clone());
        let stream = connector
            .connect(name, stream)
            .await
            .map_err(|error| tls_failed(host, &error))?;
        Ok(Stream::Tls(Box::new(stream)))
    }
}

impl Response {
    /// The next piece of the body; `None` at its proper end.
    pub async fn chunk(&mut self) -> Result<Option<Bytes>, Error> {
        let (connection, incoming) = (&mut self.connection, &mut self.incoming);
        let next = poll_fn(|context| {
            drive(connection, context);
            loop {
                return match Pin::new(&mut *incoming).poll_frame(context) {
                    Poll::Ready(Some(Ok(frame))) => match frame.into_data() {
                        Ok(data) => Poll::Ready(Ok(Some(data))),
                        // Trailers are of no interest.
                        Err(_) => continue,
                    },
                    Poll::Ready(Some(Err(error))) => Poll::Ready(Err(error)),
                    Poll::Ready(None) => Poll::Ready(Ok(None)),
                    Poll::Pending => Poll::Pending,
                };
            }
        });
        match within(&*self.clock, self.idle, next).await {
            None => Err(Error::Timeout("read the answer: timeout".into())),
            Some(read) => read.map_err(|error| broken("the server", &error)),
        }
    }

    /// The whole body. Errors: `Protocol` if it is larger than `bytes_max`.
    pub async fn bytes(&mut self, bytes_max: u64) -> Result<Vec<u8>, Error> {
        let mut bytes = Vec::new();
        while let Some(chunk) = self.chunk().await? {
            bytes.extend_from_slice(&chunk);
            if bytes.len() as u64 > bytes_max {
                let text = format!("the answer is larger than {bytes_max} bytes");
                return Err(Error::Protocol(text));
            }
        }
        Ok(bytes)
    }

    /// A header as text, if it is there and is text.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }
}

/// Moves the connection on; its own failure shows in the request or the body that it carries.
fn drive(connection: &mut Option<Connection>, context: &mut std::task::Context<'_>) {
    if let Some(running) = connection
        && running.as_mut().poll(context).is_ready()
    {
        *connection = None;
    }
}

/// CONNECT (RFC 9110 section 9.3.6): what is written from now on goes to `host`.
async fn open_tunnel(
    stream: &mut (impl AsyncRead + AsyncWrite + Unpin),
    proxy: &Proxy,
    host: &str,
    port: u16,
) -> Result<(), Error> {
    let at = format!("proxy {}:{}", proxy.host, proxy.port);
    let broken = |error: io::Error| Error::Broken(format!("talk to {at}: {error}"));
    let mut head =
        format!("CONNECT {host}:{port} HTTP/1.1\r\nHost: {host}:{port}\r\n").into_bytes();
    if let Some(authorization) = &proxy.authorization {
        head.extend_from_slice(b"Proxy-Authorization: ");
        head.extend_from_slice(authorization.as_bytes());
        head.extend_from_slice(b"\r\n");
    }
    head.extend_from_slice(b"\r\n");
    stream.write_all(&head).await.map_err(broken)?;
    let mut answer = Vec::new();
    // The peer is silent until we have said hello: nothing of it can be read here by mistake.
    while !answer.ends_with(b"\r\n\r\n") {
        let mut piece = [0; 1024];
        let count = stream.read(&mut piece).await.map_err(broken)?;
        if count == 0 || answer.len() > HEAD_BYTES_MAX {
            return Err(Error::Broken(format!("{at}: no whole answer to CONNECT")));
        }
        answer.extend_from_slice(&piece[..count]);
    }
    let line = String::from_utf8_lossy(&answer);
    let status = line.split(' ').nth(1).and_then(|code| code.parse().ok());
    match status {
        Some(200..=299) => Ok(()),
        Some(407) => Err(Error::Protocol(format!("{at}: authorization failed"))),
        Some(code @ 400..=499) => Err(Error::Protocol(format!(
            "{at}: refused {host}:{port} (HTTP status {code})"
        ))),
        Some(code) => Err(Error::Broken(format!(
            "{at}: cannot reach {host}:{port} (HTTP status {code})"
        ))),
        None => Err(Error::Protocol(format!("{at}: its answer is not HTTP"))),
    }
}

/// Through a proxy, a request in the clear names the whole URL.
fn assemble(request: Request, proxy: Option<&Proxy>) -> Result<http::Request<Full<Bytes>>, Error> {
    let invalid = |error: http::Error| Error::Request(format!("send request: {error}"));
    let path = request
        .url
        .path_and_query()
        .map_or("/", |path| path.as_str());
    let in_clear = proxy.filter(|_| request.url.scheme_str() == Some("http"));
    let target = match in_clear {
        None => path.to_owned(),
        Some(_) => request.url.to_string(),
    };
    let mut assembled = http::Request::builder()
        .method(request.method)
        .uri(target)
        .body(Full::new(request.body))
        .map_err(invalid)?;
    *assembled.headers_mut() = request.headers;
    let headers = assembled.headers_mut();
    if !headers.contains_key(header::HOST) {
        let authority = request
            .url
            .authority()
            .map_or("", |authority| authority.as_str());
        let host = authority.rsplit('@').next().unwrap_or_default();
        let host = host
            .parse()
            .map_err(|_| Error::Request("send request: bad host".into()))?;
        headers.insert(header::HOST, host);
    }
    if let Some(authorization) = in_clear.and_then(|proxy| proxy.authorization.clone()) {
        headers.insert(header::PROXY_AUTHORIZATION, authorization);
    }
    let close = header::HeaderValue::from_static("close");
    headers.insert(header::CONNECTION, close);
    Ok(assembled)
}

fn broken(host: &str, error: &hyper::Error) -> Error {
    let mut text = format!("talk to {host}: {error}");
    if let Some(cause) = std::error::Error::source(error) {
        text = format!("{text}: {cause}");
    }
    match error.is_parse() || error.is_user() {
        true => Error::Protocol(text),
        false => Error::Broken(text),
    }
}

fn tls_failed(host: &str, error: &io::Error) -> Error {
    let cause = error
        .get_ref()
        .and_then(|inner| inner.downcast_ref::<rustls::Error>());
    match cause {
        // What Go's client says, since people search for it.
        Some(rustls::Error::InvalidMessage(_)) => {
            Error::Protocol("http: server gave HTTP response to HTTPS client".into())
        }
        Some(cause) => Error::Protocol(format!("tls with {host}: {cause}")),
        None => Error::Broken(format!("tls with {host}: {error}")),
    }
}

/// Resolves a `Location` against the URL it came from (RFC 3986 section 5.2, without dot segments).
pub fn join(base: &Uri, location: &str) -> Option<Uri> {
    if let Ok(url) = location.parse::<Uri>()
        && url.scheme().is_some()
    {
        return Some(url);
    }
    let scheme = base.scheme_str()?;
    if let Some(rest) = location.strip_prefix("//") {
        return format!("{scheme}://{rest}").parse().ok();
    }
    let authority = base.authority()?;
    let path = base.path();
    let path = match location {
        _ if location.starts_with('/') => location.to_owned(),
        _ if location.starts_with('?') => format!("{path}{location}"),
        _ => format!("{}{location}", &path[..=path.rfind('/').unwrap_or(0)]),
    };
    format!("{scheme}://{authority}{path}").parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn locations_are_resolved_against_their_origin() {
        let base: Uri = "https://a:1/v2/x/blob?q=1".parse().unwrap();
        let table = [
            ("http://b/y", "http://b/y"),
            ("//b/y", "https://b/y"),
            ("/y?z=1", "https://a:1/y?z=1"),
            ("y", "https://a:1/v2/x/y"),
            ("?z", "https://a:1/v2/x/blob?z"),
        ];
        for (location, joined) in table {
            assert_eq!(join(&base, location).unwrap().to_string(), joined);
        }
    }
}
