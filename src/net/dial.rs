//! TCP connections by host name.

use std::future::Future;
use std::io;
use std::net::{SocketAddr, TcpStream};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use async_io::Async;
use futures_lite::{AsyncRead, AsyncWrite, future};
use futures_rustls::client::TlsStream;
use jiff::Timestamp;

use super::certificates;
use crate::os::resolve;
use crate::world::Clock;

/// Share of the whole time that one of several addresses gets: a dead IPv6 route must not eat all.
const ADDRESS_TIMEOUT_MAX: Duration = Duration::from_secs(5);

/// A plain or TLS connection.
pub(super) enum Stream {
    Plain(Async<TcpStream>),
    Tls(Box<TlsStream<Async<TcpStream>>>),
}

impl Stream {
    pub(super) fn peer(&self) -> Option<SocketAddr> {
        let socket = match self {
            Stream::Plain(stream) => stream,
            Stream::Tls(stream) => stream.get_ref().0,
        };
        socket.get_ref().peer_addr().ok()
    }

    /// When the certificate that the peer has shown ends.
    pub(super) fn peer_until(&self) -> Option<Timestamp> {
        let Stream::Tls(stream) = self else {
            return None;
        };
        let chain = stream.get_ref().1.peer_certificates()?;
        Some(certificates::facts(chain.first()?).ok()?.validity.until)
    }
}

/// `future`'s result, or `None` once `span` has passed.
pub(super) async fn within<T>(
    clock: &dyn Clock,
    span: Duration,
    future: impl Future<Output = T>,
) -> Option<T> {
    let late = clock.sleep_until(clock.now() + span);
    future::or(async { Some(future.await) }, async {
        late.await;
        None
    })
    .await
}

/// Connects to the first address of `host` that answers. The caller bounds the whole.
pub(super) async fn connect(
    clock: &dyn Clock,
    host: &str,
    port: u16,
) -> io::Result<Async<TcpStream>> {
    let name = host
        .trim_start_matches('[')
        .trim_end_matches(']')
        .to_owned();
    let addresses = match name.parse() {
        Ok(address) => vec![SocketAddr::new(address, port)],
        Err(_) => blocking::unblock(move || resolve::addresses(&name, port)).await?,
    };
    let alone = addresses.len() == 1;
    let mut failed = io::Error::from(io::ErrorKind::NotFound);
    for address in addresses {
        let connecting = Async::<TcpStream>::connect(address);
        let connected = match alone {
            true => Some(connecting.await),
            false => within(clock, ADDRESS_TIMEOUT_MAX, connecting).await,
        };
        let connected = connected.unwrap_or_else(|| Err(io::ErrorKind::TimedOut.into()));
        match connected {
            Ok(stream) => {
                stream.get_ref().set_nodelay(true)?;
                return Ok(stream);
            }
            Err(error) => {
                let text = format!("dial tcp {address}: {}", cause(&error));
                failed = io::Error::new(error.kind(), text);
            }
        }
    }
    Err(failed)
}

/// As Go's programs say it: `connect: connection refused`.
fn cause(error: &io::Error) -> String {
    if error.kind() == io::ErrorKind::TimedOut {
        return "i/o timeout".to_owned();
    }
    let text = error.to_string().to_lowercase();
    let named = text.split(" (os error").next().unwrap_or_default();
    format!("connect: {named}")
}

impl AsyncRead for Stream {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Stream::Plain(stream) => Pin::new(stream).poll_read(context, buffer),
            Stream::Tls(stream) => Pin::new(stream).poll_read(context, buffer),
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Stream::Plain(stream) => Pin::new(stream).poll_write(context, buffer),
            Stream::Tls(stream) => Pin::new(stream).poll_write(context, buffer),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Stream::Plain(stream) => Pin::new(stream).poll_flush(context),
            Stream::Tls(stream) => Pin::new(stream).poll_flush(context),
        }
    }

    fn poll_close(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Stream::Plain(stream) => Pin::new(stream).poll_close(context),
            Stream::Tls(stream) => Pin::new(stream).poll_close(context),
        }
    }
}
