//! SPDY/3.1 on an upgraded connection: many byte streams over one. Kubernetes carries commands and
//! forwarded ports in it.
//!
//! ```text
//!   peer ─► read ─┬─ head, headers ─► accepted streams (bounded in number)
//!                 └─ data ─► inbox of its stream ─► Stream::next
//!   Stream::send ─► data ─┐
//!   replies, resets, pings ─► write (these first) ─► peer
//! ```
//!
//! The protocol has windows and nobody uses them, so a stream that is not read holds up the whole
//! connection once [`BUFFERED_BYTES_MAX`] wait for their readers: memory is bounded, and the rest
//! is between the two kernels.
//!
//! Source: SPDY Protocol Draft 3.1; the subset that github.com/moby/spdystream speaks. Knows
//! nothing of commands or ports.

pub mod frame;
pub mod headers;
mod link;
mod stream;
#[cfg(test)]
mod tests;

use std::fmt;
use std::rc::Rc;
use std::time::Duration;

use async_channel::Receiver;
use futures_lite::{AsyncRead, AsyncWrite};

pub use self::headers::Headers;
use self::link::Link;
pub use self::stream::{Closed, Stream};
use crate::world::{Clock, LocalFuture};

/// Streams of one connection at the same time; one more is refused.
pub const STREAMS_MAX: usize = 128;

/// Bytes of one connection that may wait for those who read its streams.
pub const BUFFERED_BYTES_MAX: usize = 256 << 10;

/// Replies, resets and pongs that may wait for a peer that does not read. One that asks for more
/// meanwhile loses the connection.
const CONTROL_QUEUED_MAX: usize = 2 * STREAMS_MAX;

/// Data frames that may wait to be written.
const DATA_QUEUED_MAX: usize = 2;

/// One piece of a stream's bytes, in either direction.
const CHUNK_BYTES: usize = 32 << 10;

/// A connection on which nothing was written for so long gets a ping: a peer that has gone shows
/// by it even while its own bytes wait unread.
const PING_AFTER: Duration = Duration::from_secs(30);

/// How long the peer may take to hang up after all was said: on a slow link the last bytes are still on
/// their way.
const LINGER: Duration = Duration::from_secs(60);

/// Which end of a connection this is. Clients count their streams 1, 3, …, servers 2, 4, ….
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    Client,
    Server,
}

/// What breaks a connection: the peer's bytes make no sense, or it asks for too much.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Error {
    Version(u16),
    Kind(u16),
    /// A frame ends before its fixed part does.
    Short,
    TooLarge,
    Headers,
    Compression,
    /// A stream id of the wrong parity, or one that does not rise.
    StreamId(u32),
    /// Answers pile up because the peer does not read.
    Unread,
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::Version(version) => write!(f, "SPDY version {version} is not spoken here"),
            Error::Kind(kind) => write!(f, "no SPDY frame has the type {kind}"),
            Error::Short => f.write_str("a SPDY frame is too short"),
            Error::TooLarge => f.write_str("a SPDY frame is too large"),
            Error::Headers => f.write_str("SPDY headers are malformed"),
            Error::Compression => f.write_str("SPDY headers cannot be inflated"),
            Error::StreamId(id) => write!(f, "SPDY stream id {id} is out of order"),
            Error::Unread => f.write_str("the SPDY peer reads no answers"),
        }
    }
}

impl std::error::Error for Error {}

impl From<Error> for std::io::Error {
    fn from(error: Error) -> std::io::Error {
        std::io::Error::new(std::io::ErrorKind::InvalidData, error)
    }
}

/// One end of a connection. Streams hold on to it.
pub struct Connection {
    link: Rc<Link>,
    /// Streams that the peer has opened, each to be answered with [`Stream::reply`].
    pub accepted: Receiver<Stream>,
}

impl Connection {
    /// Takes over both halves of an open connection. The future moves all bytes: it ends when the
    /// connection has, and nothing happens unless it is polled.
    pub fn new(
        reader: impl AsyncRead + Unpin + 'static,
        writer: impl AsyncWrite + Unpin + 'static,
        role: Role,
        clock: Rc<dyn Clock>,
    ) -> (Connection, LocalFuture<'static, std::io::Result<()>>) {
        let (link, accepted, queues) = Link::new(role);
        let driver = link::drive(link.clone(), reader, writer, queues, clock);
        (Connection { link, accepted }, Box::pin(driver))
    }

    /// A new stream of our own. Errors: the connection has ended, or has too many.
    pub fn open(&self, headers: Headers) -> Result<Stream, Closed> {
        Link::open(&self.link, headers)
    }

    /// Says goodbye once all that was sent before is written. The driver ends when the peer hangs
    /// up, or soon after.
    pub fn finish(&self) {
        self.link.finish();
    }
}

impl Drop for Connection {
    /// Streams that nobody took hold the link, and the link's queue holds them.
    fn drop(&mut self) {
        self.link.finish();
        while self.accepted.try_recv().is_ok() {}
    }
}
