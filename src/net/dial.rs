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

/// What one of several addresses gets.
const ADDRESS_TIMEOUT_MAX: Duration = Duration::from_secs(5);
/// Without a word from one address the next is tried beside it: a dead IPv6 route must not eat the whole
/// time. Source: RFC 8305 section 5.
const STAGGER: Duration = Duration::from_millis(300);

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
    let dial = |address: SocketAddr| async move {
        let connecting = Async::<TcpStream>::connect(address);
        let connected = match alone {
            true => Some(connecting.await),
            false => within(clock, ADDRESS_TIMEOUT_MAX, connecting).await,
        };
        let connected = connected.unwrap_or_else(|| Err(io::ErrorKind::TimedOut.into()));
        connected.map_err(|error| {
            let text = format!("dial tcp {address}: {}", cause(&error));
            io::Error::new(error.kind(), text)
        })
    };
    let stream = first(clock, by_turns(addresses).map(dial)).await?;
    stream.get_ref().set_nodelay(true)?;
    Ok(stream)
}

/// IPv6 and IPv4 by turns, in the order that they have, beginning with the first one's.
fn by_turns(addresses: Vec<SocketAddr>) -> impl Iterator<Item = SocketAddr> {
    let v6 = addresses.first().is_some_and(SocketAddr::is_ipv6);
    let (one, other): (Vec<_>, Vec<_>) = addresses.into_iter().partition(|a| a.is_ipv6() == v6);
    let (mut one, mut other) = (one.into_iter(), other.into_iter());
    let mut turn = false;
    std::iter::from_fn(move || {
        turn = !turn;
        match turn {
            true => one.next().or_else(|| other.next()),
            false => other.next().or_else(|| one.next()),
        }
    })
}

/// What succeeds first. The next is begun when one has failed, or none has said anything for a while.
async fn first<T>(
    clock: &dyn Clock,
    tries: impl Iterator<Item = impl Future<Output = io::Result<T>>>,
) -> io::Result<T> {
    let mut waiting = tries.fuse().peekable();
    let mut trying = Vec::new();
    let mut failed = io::Error::from(io::ErrorKind::NotFound);
    loop {
        match waiting.next() {
            Some(next) => trying.push(Box::pin(next)),
            None if trying.is_empty() => return Err(failed),
            None => {}
        }
        let decided = future::poll_fn(|context| {
            let mut each = trying.iter_mut().enumerate();
            let done = each.find_map(|(at, one)| match one.as_mut().poll(context) {
                Poll::Ready(outcome) => Some((at, outcome)),
                Poll::Pending => None,
            });
            done.map_or(Poll::Pending, Poll::Ready)
        });
        let decided = match waiting.peek() {
            Some(_) => within(clock, STAGGER, decided).await,
            None => Some(decided.await),
        };
        match decided {
            Some((_, Ok(value))) => return Ok(value),
            Some((at, Err(error))) => {
                drop(trying.swap_remove(at));
                failed = error;
            }
            None => {}
        }
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    /// Every sleep is over at once.
    struct Hasty;

    impl Clock for Hasty {
        fn now(&self) -> crate::world::BootTime {
            crate::world::BootTime::default()
        }

        fn wall(&self) -> Timestamp {
            Timestamp::UNIX_EPOCH
        }

        fn sleep_until(&self, _: crate::world::BootTime) -> crate::world::LocalFuture<'static, ()> {
            Box::pin(future::ready(()))
        }
    }

    #[test]
    fn who_says_nothing_and_who_refuses_is_passed_by() {
        let attempt = |kind: usize| async move {
            match kind {
                0 => future::pending().await,
                1 => Err(io::Error::from(io::ErrorKind::ConnectionRefused)),
                kind => Ok(kind),
            }
        };
        for (kinds, wanted) in [
            (vec![0, 0, 2], Some(2)),
            (vec![1, 1, 3], Some(3)),
            (vec![2, 3], Some(2)),
            (vec![1, 1], None),
            (vec![], None),
        ] {
            let told = format!("{kinds:?}");
            let found = future::block_on(first(&Hasty, kinds.into_iter().map(attempt)));
            assert_eq!(found.ok(), wanted, "{told}");
        }
    }

    #[test]
    fn families_take_turns() {
        let told = |list: &[&str]| {
            let addresses = list
                .iter()
                .map(|a| SocketAddr::new(a.parse().expect("one"), 1));
            let turns = by_turns(addresses.collect());
            turns.map(|a| a.ip().to_string()).collect::<Vec<_>>()
        };
        assert_eq!(
            told(&["::1", "::2", "1.1.1.1", "::3"]),
            ["::1", "1.1.1.1", "::2", "::3"]
        );
        assert_eq!(
            told(&["1.1.1.1", "1.1.1.2", "::1"]),
            ["1.1.1.1", "::1", "1.1.1.2"]
        );
        assert!(told(&[]).is_empty());
    }
}
