//! HTTP/1.1 requests over a connection each, or several over one; every wait bounded by the
//! world's clock.
//!
//! ```text
//!   Client ── open ──► Session ── send ──► Response ── into_session ──► Session …
//! ```
//! No pool, no redirects, no retries: callers decide those, since each of them is a question of
//! whom a credential may reach. The connection is driven by whoever reads the answer, so dropping
//! the answer closes it and no task is left behind.

use std::fmt;
use std::future::{Future, poll_fn};
use std::io;
use std::net::{SocketAddr, TcpStream};
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use async_io::Async;
use bytes::Bytes;
use futures_lite::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use futures_rustls::TlsConnector;
use http::{HeaderMap, Method, StatusCode, Uri, header};
use http_body::Body as _;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::client::conn::http1;
use jiff::Timestamp;
use rustls::ClientConfig;
use rustls_pki_types::ServerName;
use smol_hyper::rt::FuturesIo;

use super::dial::{self, Stream, within};
use super::proxy::{Proxies, Proxy};
use crate::os::tcp;
use crate::world::{BootTime, Clock, Knock};

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

/// An open connection to one server, with no request under way.
///
/// Nobody reads it meanwhile: that the peer has closed it shows when it is used again.
pub struct Session {
    sender: http1::SendRequest<Full<Bytes>>,
    connection: Option<Connection>,
    clock: Rc<dyn Clock>,
    timeouts: Timeouts,
    host: String,
    /// The server, or the proxy on the way to it.
    peer: Option<SocketAddr>,
    peer_until: Option<Timestamp>,
}

/// How much of a request that has no answer the peer may have seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sent {
    Nothing,
    /// All of it, perhaps: it may have been carried out.
    Perhaps,
}

/// A request that has no answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unanswered {
    pub error: Error,
    pub sent: Sent,
}

/// An answer whose body is still on its way.
pub struct Response {
    pub status: StatusCode,
    pub headers: HeaderMap,
    incoming: Incoming,
    /// The body is read to its proper end.
    ended: bool,
    session: Session,
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

    /// Sends the request over a connection of its own and resolves with the head of the answer.
    pub async fn send(&self, mut request: Request) -> Result<Response, Error> {
        let session = self.open(&request.url, &request.tls, None).await?;
        let close = header::HeaderValue::from_static("close");
        request.headers.insert(header::CONNECTION, close);
        let request = self.assemble(request)?;
        session.send(request).await.map_err(|lost| lost.error)
    }

    /// Connects to the server of `url`. `name`: what its certificate has to be for, if not for the
    /// host of the URL.
    pub async fn open(
        &self,
        url: &Uri,
        tls: &Arc<ClientConfig>,
        name: Option<&str>,
    ) -> Result<Session, Error> {
        let host = url.host().unwrap_or_default().to_owned();
        let span = self.timeouts.connect;
        let stream = within(&*self.clock, span, self.connect(url, tls, name))
            .await
            .ok_or_else(|| Error::Timeout(format!("connect to {host}: timeout")))??;
        let (peer, peer_until) = (stream.peer(), stream.peer_until());
        let mut builder = http1::Builder::new();
        builder
            .max_headers(HEADERS_MAX)
            .max_buf_size(HEAD_BYTES_MAX);
        let (sender, connection) = builder
            .handshake(FuturesIo::new(stream))
            .await
            .map_err(|error| broken(&host, &error))?;
        Ok(Session {
            sender,
            connection: Some(Box::pin(connection)),
            clock: self.clock.clone(),
            timeouts: self.timeouts,
            host,
            peer,
            peer_until,
        })
    }

    /// Who opens within `span` at the address, where the server of `url` is or the proxy on the way to it.
    pub async fn knock(
        &self,
        address: SocketAddr,
        url: &Uri,
        tls: &Arc<ClientConfig>,
        name: Option<&str>,
        span: Duration,
    ) -> Knock {
        let direct = matches!(self.proxies.for_url(url), Ok(None));
        let begun = self.clock.now();
        let connecting = Async::<TcpStream>::connect(address);
        let Some(Ok(stream)) = within(&*self.clock, span, connecting).await else {
            return Knock::Shut;
        };
        if !direct || url.scheme_str() != Some("https") {
            return Knock::Open;
        }
        let left = span.saturating_sub(self.clock.now().since(begun));
        match within(&*self.clock, left, secure(stream, url, tls, name)).await {
            Some(Ok(_)) => Knock::Open,
            Some(Err(_)) | None => Knock::Mute,
        }
    }

    /// The request as it goes over the wire: through a proxy, one in the clear names the whole URL.
    /// Errors: `Request`.
    pub fn assemble(&self, request: Request) -> Result<http::Request<Full<Bytes>>, Error> {
        let proxy = self.proxies.for_url(&request.url).map_err(Error::Request)?;
        assemble(request, proxy)
    }

    async fn connect(
        &self,
        url: &Uri,
        tls: &Arc<ClientConfig>,
        name: Option<&str>,
    ) -> Result<Stream, Error> {
        let proxy = self.proxies.for_url(url).map_err(Error::Request)?;
        let host = url.host().unwrap_or_default();
        if host.is_empty() {
            return Err(Error::Request(format!("{url} names no host")));
        }
        let encrypted = match url.scheme_str() {
            Some("https") => true,
            Some("http") => false,
            _ => return Err(Error::Request(format!("{url} is neither http nor https"))),
        };
        let port = url.port_u16().unwrap_or(if encrypted { 443 } else { 80 });
        let (what, dialled, at) = match proxy {
            None => ("", host, port),
            Some(proxy) => ("proxy ", proxy.host.as_str(), proxy.port),
        };
        let stream = dial::connect(&*self.clock, dialled, at).await;
        let mut stream = stream
            .map_err(|error| Error::Broken(format!("connect to {what}{dialled}: {error}")))?;
        tcp::prepare_client(stream.get_ref())
            .map_err(|error| Error::Broken(format!("connect to {what}{dialled}: {error}")))?;
        if encrypted && let Some(proxy) = proxy {
            open_tunnel(&mut stream, proxy, host, port).await?;
        }
        if !encrypted {
            return Ok(Stream::Plain(stream));
        }
        secure(stream, url, tls, name).await
    }
}

/// `name`: what the certificate has to be for, if not for the host of the URL.
async fn secure(
    stream: Async<TcpStream>,
    url: &Uri,
    tls: &Arc<ClientConfig>,
    name: Option<&str>,
) -> Result<Stream, Error> {
    let host = url.host().unwrap_or_default();
    let name = name.unwrap_or(host.trim_start_matches('[').trim_end_matches(']'));
    let name = ServerName::try_from(name.to_owned())
        .map_err(|_| Error::Request(format!("{name} is no valid host name")))?;
    let connector = TlsConnector::from(tls.clone());
    let stream = connector
        .connect(name, stream)
        .await
        .map_err(|error| tls_failed(host, &error))?;
    Ok(Stream::Tls(Box::new(stream)))
}

impl Session {
    /// Who took the connection.
    pub fn peer(&self) -> Option<SocketAddr> {
        self.peer
    }

    /// Sends what `assemble` made and resolves with the head of the answer.
    pub async fn send(
        mut self,
        request: http::Request<Full<Bytes>>,
    ) -> Result<Response, Unanswered> {
        let (connection, sender) = (&mut self.connection, &mut self.sender);
        // Also notices that the peer closed the connection while nobody looked.
        let ready = poll_fn(|context| {
            drive(connection, context);
            match connection {
                None => Poll::Ready(false),
                Some(_) => sender.poll_ready(context).map(|ready| ready.is_ok()),
            }
        });
        let span = self.timeouts.first_byte;
        if !within(&*self.clock, span, ready).await.unwrap_or_default() {
            let text = format!("talk to {}: the connection is closed", self.host);
            return Err(Unanswered {
                error: Error::Broken(text),
                sent: Sent::Nothing,
            });
        }
        let mut answer = Box::pin(sender.try_send_request(request));
        let driven = poll_fn(|context| {
            drive(connection, context);
            answer.as_mut().poll(context)
        });
        let answer = within(&*self.clock, span, driven).await;
        let answer = answer.ok_or_else(|| Unanswered {
            error: Error::Timeout(format!("wait for the answer of {}: timeout", self.host)),
            sent: Sent::Perhaps,
        })?;
        let (head, incoming) = match answer {
            Ok(answer) => answer.into_parts(),
            Err(lost) => {
                return Err(Unanswered {
                    error: broken(&self.host, lost.error()),
                    sent: match lost.message() {
                        Some(_) => Sent::Nothing,
                        None => Sent::Perhaps,
                    },
                });
            }
        };
        Ok(Response {
            status: head.status,
            headers: head.headers,
            incoming,
            ended: false,
            session: self,
        })
    }
}

impl Response {
    /// The next piece of the body; `None` at its proper end.
    pub async fn chunk(&mut self) -> Result<Option<Bytes>, Error> {
        let idle = self.session.clock.now() + self.session.timeouts.idle;
        self.chunk_until(idle).await
    }

    /// The same with a deadline of the caller's. Dropping the future loses nothing.
    pub async fn chunk_until(&mut self, deadline: BootTime) -> Result<Option<Bytes>, Error> {
        let (connection, incoming) = (&mut self.session.connection, &mut self.incoming);
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
        let clock = &*self.session.clock;
        match within(clock, deadline.since(clock.now()), next).await {
            None => Err(Error::Timeout("read the answer: timeout".into())),
            Some(Ok(read)) => {
                self.ended = read.is_none();
                Ok(read)
            }
            Some(Err(error)) => Err(broken("the server", &error)),
        }
    }

    /// The connection, for another request; `None` before the end of the body, or if it is closed.
    pub fn into_session(self) -> Option<Session> {
        let open = self.ended && self.session.connection.is_some();
        open.then_some(self.session)
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

    /// When the certificate ends that the server has shown, trusted or not; `None` without TLS.
    pub fn peer_until(&self) -> Option<Timestamp> {
        self.session.peer_until
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
    let rest = loop {
        if let Some(end) = answer.windows(4).position(|four| four == b"\r\n\r\n") {
            break answer.len() - end - 4;
        }
        let mut piece = [0; 1024];
        let count = stream.read(&mut piece).await.map_err(broken)?;
        if count == 0 || answer.len() > HEAD_BYTES_MAX {
            return Err(Error::Broken(format!("{at}: no whole answer to CONNECT")));
        }
        answer.extend_from_slice(&piece[..count]);
    };
    let line = String::from_utf8_lossy(&answer);
    let status = line.split(' ').nth(1).and_then(|code| code.parse().ok());
    match status {
        Some(200..=299) if rest == 0 => Ok(()),
        Some(200..=299) => Err(Error::Protocol(format!("{at}: speaks before it is asked"))),
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
    use std::net::Shutdown;
    use std::os::unix::net::UnixStream;

    use super::*;

    #[test]
    fn a_proxys_refusal_is_told_with_a_body_too() {
        let proxy = Proxy {
            host: "p".into(),
            port: 3128,
            authorization: None,
        };
        for (answer, expected) in [
            ("200 OK\r\n\r\n", ""),
            ("200 OK\r\n\r\nhello", "before"),
            ("403 No\r\nContent-Length: 5\r\n\r\nhello", "refused h:443"),
            ("502 Bad\r\n\r\nhello", "cannot reach h:443"),
            ("200 OK\r\n", "no whole answer"),
        ] {
            let (mut stream, mut peer) = Async::<UnixStream>::pair().expect("a pair");
            let told = async_io::block_on(async {
                let answer = format!("HTTP/1.1 {answer}");
                peer.write_all(answer.as_bytes()).await.expect("write");
                peer.get_ref().shutdown(Shutdown::Write).expect("shut");
                open_tunnel(&mut stream, &proxy, "h", 443).await
            });
            let text = told.err().map_or(String::new(), |error| error.to_string());
            assert!(
                text.contains(expected) && text.is_empty() == expected.is_empty(),
                "{text}"
            );
        }
    }

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
