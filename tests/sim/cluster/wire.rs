//! One connection: two pipes of bytes, and what stands between what one end wrote and the other reads.
//!
//! ```text
//!   End ── write ──► sent ── a carrier of the sea takes it, some time later ──► arrived ── read ──► End
//! ```
//! Bytes arrive in order or not at all. No clock and no chance in here.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use futures_lite::{AsyncRead, AsyncWrite};

/// What a sender may have under way: the socket buffers of both ends.
const UNDER_WAY_MAX: usize = 64 << 10;

#[derive(Default)]
struct State {
    sent: VecDeque<u8>,
    arrived: VecDeque<u8>,
    /// The writer has closed; all that it will ever send is in `sent`.
    closed: bool,
    /// The reader has seen that.
    ended: bool,
    /// The reader is gone.
    deaf: bool,
    /// The connection is no more, as far as this pipe's ends know.
    reset: bool,
    waiting: Vec<Waker>,
}

/// Everybody looks again. Whoever is woken may be dropped by that, and with it an end of this pipe.
fn ring(mut state: MutexGuard<'_, State>) {
    let waiting = std::mem::take(&mut state.waiting);
    drop(state);
    waiting.into_iter().for_each(Waker::wake);
}

impl State {
    fn wait<T>(&mut self, context: &mut Context<'_>) -> Poll<T> {
        self.waiting.push(context.waker().clone());
        Poll::Pending
    }
}

/// One direction of a connection. Clones are the same.
#[derive(Clone, Default)]
pub struct Pipe(Arc<Mutex<State>>);

/// What a carrier has to bring over.
#[derive(Debug)]
pub enum Piece {
    Bytes(Vec<u8>),
    End,
}

impl Pipe {
    fn look(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The next `most` bytes that were written, or their end. `None`: nothing will ever come.
    pub async fn take(&self, most: usize) -> Option<Piece> {
        poll_fn(|context| {
            let mut state = self.look();
            if state.reset || state.ended {
                return Poll::Ready(None);
            }
            if !state.sent.is_empty() {
                let count = most.min(state.sent.len());
                let bytes = state.sent.drain(..count).collect();
                ring(state);
                return Poll::Ready(Some(Piece::Bytes(bytes)));
            }
            match state.closed {
                true => Poll::Ready(Some(Piece::End)),
                false => state.wait(context),
            }
        })
        .await
    }

    /// Hands over what has travelled. False if nobody is there to read it.
    pub fn deliver(&self, piece: Piece) -> bool {
        let mut state = self.look();
        match piece {
            Piece::Bytes(bytes) => state.arrived.extend(bytes),
            Piece::End => state.ended = true,
        }
        let heard = !state.deaf;
        ring(state);
        heard
    }

    pub fn reset(&self) {
        let mut state = self.look();
        state.reset = true;
        ring(state);
    }

    pub fn is_reset(&self) -> bool {
        self.look().reset
    }
}

/// One end of a connection. Dropping it closes both directions.
pub struct End {
    pub read: Pipe,
    pub write: Pipe,
}

/// The two ends of a new connection, and its pipes: towards the second end, and back.
pub fn pair() -> (End, End, [Pipe; 2]) {
    let (there, back) = (Pipe::default(), Pipe::default());
    let first = End {
        read: back.clone(),
        write: there.clone(),
    };
    let second = End {
        read: there.clone(),
        write: back.clone(),
    };
    (first, second, [there, back])
}

impl Drop for End {
    fn drop(&mut self) {
        for (pipe, mark) in [(&self.read, true), (&self.write, false)] {
            let mut state = pipe.look();
            match mark {
                true => state.deaf = true,
                false => state.closed = true,
            }
            ring(state);
        }
    }
}

impl AsyncRead for End {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        into: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        let mut state = self.read.look();
        if state.reset {
            return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
        }
        let count = into.len().min(state.arrived.len());
        if count > 0 {
            for (place, byte) in into.iter_mut().zip(state.arrived.drain(..count)) {
                *place = byte;
            }
            return Poll::Ready(Ok(count));
        }
        match state.ended {
            true => Poll::Ready(Ok(0)),
            false => state.wait(context),
        }
    }
}

impl AsyncWrite for End {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let mut state = self.write.look();
        if state.reset || state.closed {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        let room = UNDER_WAY_MAX.saturating_sub(state.sent.len());
        if room == 0 {
            return state.wait(context);
        }
        let count = room.min(bytes.len());
        state.sent.extend(&bytes[..count]);
        ring(state);
        Poll::Ready(Ok(count))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_close(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut state = self.write.look();
        state.closed = true;
        ring(state);
        Poll::Ready(Ok(()))
    }
}
