//! HTTP/1.1 on one accepted connection: hyper, with time limits of our own.
//!
//! hyper asks for timers that may move between threads; the node's clock may not. So the
//! connection is polled beside one timer that follows what the connection is doing:
//!
//! ```text
//!   idle ──first byte──► head ──whole head──► busy ──last byte sent──► idle
//!    │ idle_timeout       │ head_timeout        │ (no limit: watches)
//!    ▼                    ▼                     ├── peer does not read ──► stalled
//!  close                close                   │                          │ stall_timeout
//!                                               ▼ last answer              ▼ close
//!                                            leaving: reads what still comes, until the peer
//!                                            closes too, LINGER_BYTES_MAX or linger_timeout
//! ```
//!
//! A socket that is closed with bytes unread takes back what was written: who still sends a body that
//! was refused would not see why.
//!
//! A quiet watch arms no timer. Nothing here knows of Kubernetes, users or routes.

use std::convert::Infallible;
use std::future::{Future, poll_fn};
use std::io;
use std::os::fd::AsFd;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use futures_lite::{AsyncRead, AsyncWrite, Stream};
use http::StatusCode;
use http::header::{CONNECTION, CONTENT_LENGTH, HeaderValue, TRANSFER_ENCODING};
use http_body::Frame;
use hyper::body::Incoming;
use hyper::server::conn::http1;

use crate::os::socket;
use crate::world::{BootTime, Clock, LocalFuture};

pub type Request = http::Request<Incoming>;
pub type Response = http::Response<Body>;

/// What a connection may take.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Request line and headers together; more is answered 431.
    pub head_bytes_max: usize,
    pub headers_max: usize,
    /// From the first byte of a request to the end of its headers.
    pub head_timeout: Duration,
    /// Between two requests.
    pub idle_timeout: Duration,
    /// How long the peer may leave our bytes unread.
    pub stall_timeout: Duration,
    /// Between our end of a connection and the peer's.
    pub linger_timeout: Duration,
}

impl Default for Limits {
    /// `kubectl exec` sends its command in the head, percent-encoded; a URL has 64 KiB at most (crate http).
    /// Who reads a log in a pager, or behind a link that is gone for a while, leaves bytes unread.
    fn default() -> Limits {
        Limits {
            head_bytes_max: 72 << 10,
            headers_max: 64,
            head_timeout: Duration::from_secs(10),
            idle_timeout: Duration::from_secs(90),
            stall_timeout: Duration::from_secs(600),
            linger_timeout: Duration::from_secs(2),
        }
    }
}

/// Bytes both ways: a unix socket, a TLS session.
pub trait Duplex: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Duplex for T {}

/// A socket whose peer sees the end as soon as it is closed for writing; an `Async` only flushes then.
pub struct Ending<S>(pub S);

impl<S: AsyncRead + Unpin> AsyncRead for Ending<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_read(cx, buf)
    }
}

impl<S: AsyncWrite + AsFd + Unpin> AsyncWrite for Ending<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write_vectored(cx, bufs)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_close(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        // A peer that is gone needs no end.
        let _ = socket::end_writing(self.0.as_fd());
        Poll::Ready(Ok(()))
    }
}

/// A response body: nothing, bytes, or a stream that is dropped when the peer goes away.
pub struct Body {
    content: Content,
    /// Held until the body was handed over, so that the connection counts as busy.
    _busy: Option<Busy>,
}

enum Content {
    Bytes(Option<Bytes>),
    Stream(Pin<Box<dyn Stream<Item = Bytes>>>),
}

impl Body {
    pub fn empty() -> Body {
        Body::bytes(Bytes::new())
    }

    pub fn bytes(bytes: impl Into<Bytes>) -> Body {
        let bytes = Some(bytes.into()).filter(|bytes| !bytes.is_empty());
        Body {
            content: Content::Bytes(bytes),
            _busy: None,
        }
    }

    /// Polled only as fast as the peer reads.
    pub fn stream(stream: impl Stream<Item = Bytes> + 'static) -> Body {
        Body {
            content: Content::Stream(Box::pin(stream)),
            _busy: None,
        }
    }
}

impl http_body::Body for Body {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let next = match &mut self.content {
            Content::Bytes(bytes) => bytes.take(),
            Content::Stream(stream) => ready!(stream.as_mut().poll_next(cx)),
        };
        Poll::Ready(next.map(|bytes| Ok(Frame::data(bytes))))
    }

    fn is_end_stream(&self) -> bool {
        matches!(self.content, Content::Bytes(None))
    }

    fn size_hint(&self) -> http_body::SizeHint {
        match &self.content {
            Content::Bytes(bytes) => {
                http_body::SizeHint::with_exact(bytes.as_ref().map_or(0, Bytes::len) as u64)
            }
            Content::Stream(_) => http_body::SizeHint::default(),
        }
    }
}

/// What a connection is doing, told by the socket wrapper and the handler. Atomics only because an
/// upgraded connection must be `Send`; all of it stays on one thread.
#[derive(Default)]
struct Pace {
    requests: AtomicUsize,
    read_bytes: AtomicU64,
    /// `read_bytes` when the last request began or ended.
    seen_bytes: AtomicU64,
    written_bytes: AtomicU64,
    blocked: AtomicBool,
    leaving: AtomicBool,
}

/// One request under way.
struct Busy(Arc<Pace>);

impl Busy {
    fn begin(pace: &Arc<Pace>) -> Busy {
        pace.requests.fetch_add(1, Ordering::Relaxed);
        Busy(pace.clone())
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        let pace = &self.0;
        let read = pace.read_bytes.load(Ordering::Relaxed);
        pace.seen_bytes.store(read, Ordering::Relaxed);
        pace.requests.fetch_sub(1, Ordering::Relaxed);
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Doing {
    Idle { request: u64 },
    Head { request: u64 },
    Busy,
    Stalled { written: u64 },
    Leaving,
}

impl Pace {
    fn doing(&self) -> Doing {
        let seen = self.seen_bytes.load(Ordering::Relaxed);
        if self.leaving.load(Ordering::Relaxed) {
            Doing::Leaving
        } else if self.blocked.load(Ordering::Relaxed) {
            let written = self.written_bytes.load(Ordering::Relaxed);
            Doing::Stalled { written }
        } else if self.requests.load(Ordering::Relaxed) > 0 {
            Doing::Busy
        } else if self.read_bytes.load(Ordering::Relaxed) > seen {
            Doing::Head { request: seen }
        } else {
            Doing::Idle { request: seen }
        }
    }
}

impl Doing {
    fn deadline(self, now: BootTime, limits: &Limits) -> Option<BootTime> {
        match self {
            Doing::Idle { .. } => Some(now + limits.idle_timeout),
            Doing::Head { .. } => Some(now + limits.head_timeout),
            Doing::Stalled { .. } => Some(now + limits.stall_timeout),
            Doing::Leaving => Some(now + limits.linger_timeout),
            Doing::Busy => None,
        }
    }
}

/// The socket, with what passes through it counted.
pub struct Paced {
    inner: Box<dyn Duplex>,
    pace: Arc<Pace>,
}

impl AsyncRead for Paced {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        let read = ready!(Pin::new(&mut self.inner).poll_read(cx, buf))?;
        self.pace
            .read_bytes
            .fetch_add(read as u64, Ordering::Relaxed);
        Poll::Ready(Ok(read))
    }
}

impl Paced {
    fn note(&self, result: &Poll<io::Result<usize>>) {
        self.pace
            .blocked
            .store(result.is_pending(), Ordering::Relaxed);
        if let Poll::Ready(Ok(written)) = result {
            let written = *written as u64;
            self.pace
                .written_bytes
                .fetch_add(written, Ordering::Relaxed);
        }
    }
}

impl AsyncWrite for Paced {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let result = Pin::new(&mut self.inner).poll_write(cx, buf);
        self.note(&result);
        result
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let result = Pin::new(&mut self.inner).poll_write_vectored(cx, bufs);
        self.note(&result);
        result
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_close(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_close(cx)
    }
}

/// Read at once, in bytes: most requests whole, and a part of a large one.
const READ_BYTES: usize = 4096;

/// So much is read and forgotten of a peer that is told to go.
const LINGER_BYTES_MAX: usize = 16 << 20;
/// Reads in a row before others have their turn.
const LINGER_READS: usize = 64;

/// A socket as hyper wants it. Reads go over the stack: hyper's own buffer, of which most connections
/// never use more than a little, is not filled with zeros first, so that the rest of it stays memory
/// that nobody has touched.
struct HyperIo {
    socket: Paced,
    /// Read since our end was closed.
    lingered: usize,
}

impl hyper::rt::Read for HyperIo {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        mut into: hyper::rt::ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        let mut bytes = [0; READ_BYTES];
        let most = into.remaining().min(READ_BYTES);
        let read = ready!(Pin::new(&mut self.socket).poll_read(cx, &mut bytes[..most]))?;
        into.put_slice(&bytes[..read]);
        Poll::Ready(Ok(()))
    }
}

impl hyper::rt::Write for HyperIo {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.socket).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let leaving = &self.socket.pace.leaving;
        if !leaving.load(Ordering::Relaxed) {
            ready!(Pin::new(&mut self.socket).poll_close(cx))?;
            self.socket.pace.leaving.store(true, Ordering::Relaxed);
        }
        let mut bytes = [0; READ_BYTES];
        for _ in 0..LINGER_READS {
            let read = ready!(Pin::new(&mut self.socket).poll_read(cx, &mut bytes));
            match read {
                Ok(read) if read > 0 && self.lingered < LINGER_BYTES_MAX => self.lingered += read,
                _ => return Poll::Ready(Ok(())),
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.socket).poll_write_vectored(cx, parts)
    }
}

/// Serves requests on `io` one after the other until either side ends it, a limit is passed or
/// the connection is upgraded (see [`take_upgraded`]). Errors are the peer's and only of interest
/// to a debug log.
pub async fn connection<H>(
    io: Box<dyn Duplex>,
    limits: Limits,
    clock: Rc<dyn Clock>,
    handler: H,
) -> Result<(), String>
where
    H: Fn(Request) -> LocalFuture<'static, Response>,
{
    let pace = Arc::new(Pace::default());
    let service = hyper::service::service_fn(|request: Request| {
        let busy = Busy::begin(&pace);
        let answer = match is_ambiguous(&request) {
            true => None,
            false => Some(handler(request)),
        };
        async move {
            let mut response = match answer {
                Some(answer) => answer.await,
                None => bad_request(),
            };
            response.body_mut()._busy = Some(busy);
            Ok::<_, Infallible>(response)
        }
    });
    let socket = Paced {
        inner: io,
        pace: pace.clone(),
    };
    let io = HyperIo {
        socket,
        lingered: 0,
    };
    let serving = http1::Builder::new()
        .auto_date_header(false)
        .header_read_timeout(None)
        .max_buf_size(limits.head_bytes_max.max(8 << 10))
        .max_header_size(limits.head_bytes_max)
        .max_headers(limits.headers_max)
        .serve_connection(io, service)
        .with_upgrades();
    watched(serving, &pace, &limits, clock).await
}

/// Two lengths of one body: what is the next request to one reader is part of this one to another.
/// Source: RFC 9112, section 6.1.
fn is_ambiguous(request: &Request) -> bool {
    let headers = request.headers();
    headers.contains_key(TRANSFER_ENCODING) && headers.contains_key(CONTENT_LENGTH)
}

/// The answer to it, and the end of the connection.
fn bad_request() -> Response {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::BAD_REQUEST;
    let close = HeaderValue::from_static("close");
    response.headers_mut().insert(CONNECTION, close);
    response
}

/// Polls `serving` beside the timer that fits what the connection is doing.
async fn watched<F>(
    serving: F,
    pace: &Pace,
    limits: &Limits,
    clock: Rc<dyn Clock>,
) -> Result<(), String>
where
    F: Future<Output = hyper::Result<()>>,
{
    let mut serving = pin!(serving);
    let mut doing = None;
    let mut timer: Option<LocalFuture<'static, ()>> = None;
    poll_fn(|cx| {
        if let Poll::Ready(end) = serving.as_mut().poll(cx) {
            return Poll::Ready(end.map_err(|error| error.to_string()));
        }
        let observed = pace.doing();
        if doing != Some(observed) {
            doing = Some(observed);
            let deadline = observed.deadline(clock.now(), limits);
            timer = deadline.map(|deadline| clock.sleep_until(deadline));
        }
        let late = timer
            .as_mut()
            .is_some_and(|timer| timer.as_mut().poll(cx).is_ready());
        if late {
            return Poll::Ready(Err("closed: the peer is too slow".to_owned()));
        }
        Poll::Pending
    })
    .await
}

/// After a 101: the socket and the bytes that the client sent right behind its request.
pub async fn take_upgraded(on: hyper::upgrade::OnUpgrade) -> Result<(Paced, Bytes), String> {
    let upgraded = on.await.map_err(|error| format!("upgrade: {error}"))?;
    let parts = upgraded
        .downcast::<HyperIo>()
        .expect("every connection served here is a paced one");
    Ok((parts.io.socket, parts.read_buf))
}
