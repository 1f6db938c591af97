//! Streams of pods: commands (`exec`), the container's own input and output (`attach`), ports.
//!
//! ```text
//!   request ─► upgrade: WebSocket or SPDY? ─► 101
//!   client ◄─► carrier: web_socket | spdy ◄─ Said, Told ─► pump ◄─ descriptors ─► the command
//! ```
//!
//! A carrier knows the wire and nothing of commands; the pump knows commands and nothing of the
//! wire. Between them are two channels that hold one item each: who does not read holds up who
//! writes, and nothing piles up. The bytes never cross the node thread: it hands over descriptors
//! and later the exit.

mod answer;
pub mod collect;
pub mod command;
pub mod forward;
mod forward_channels;
mod pump;
mod spdy;
mod upgrade;
mod web_socket;

use std::rc::Rc;
use std::time::Duration;

use async_channel::{Receiver, Sender};
use bytes::Bytes;
use serde_json::Value;

use crate::net::websocket::TerminalSize;
use crate::world::{Clock, LocalFuture};

/// How long a client may take to open the streams that it asked for.
/// Source: Kubernetes kubelet, `DefaultStreamCreationTimeout`.
const CREATION_TIMEOUT: Duration = Duration::from_secs(30);

/// How long a client may take to hang up after all was said: on a slow link it is still on its way.
const LINGER: Duration = Duration::from_secs(60);

/// A carrier that has said nothing for so long pings: a client that has gone shows by it even
/// while its bytes wait for a command that does not read.
const PING_AFTER: Duration = Duration::from_secs(30);

/// What a client says in a session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Said {
    Stdin(Bytes),
    StdinEnded,
    Resize(TerminalSize),
}

/// What it is told.
#[derive(Clone, Debug, PartialEq)]
pub enum Told {
    Stdout(Bytes),
    Stderr(Bytes),
    /// How the session ended; the last thing.
    Status(Value),
}

/// A client's end of a session, whatever carries it.
pub struct Session {
    pub said: Receiver<Said>,
    pub told: Sender<Told>,
    /// Moves what is said and told. It ends when the client has left, or soon after all was told
    /// and `told` closed.
    pub carrier: LocalFuture<'static, ()>,
}

impl Session {
    /// A session that `carry` moves.
    fn carried<F>(carry: impl FnOnce(Sender<Said>, Receiver<Told>) -> F) -> Session
    where
        F: Future<Output = ()> + 'static,
    {
        let (say, said) = async_channel::bounded(1);
        let (told, tell) = async_channel::bounded(1);
        Session {
            said,
            told,
            carrier: Box::pin(carry(say, tell)),
        }
    }
}

/// The streams that a client asks for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Wanted {
    pub stdin: bool,
    pub stdout: bool,
    /// Never together with `tty`.
    pub stderr: bool,
    pub tty: bool,
}

/// Ends when nothing has moved for `span`: neither way, pings aside.
struct Idle {
    clock: Rc<dyn Clock>,
    span: Duration,
    moved: std::cell::Cell<crate::world::BootTime>,
}

impl Idle {
    fn new(clock: Rc<dyn Clock>, span: Duration) -> Idle {
        let moved = std::cell::Cell::new(clock.now());
        Idle { clock, span, moved }
    }

    fn moved(&self) {
        self.moved.set(self.clock.now());
    }

    async fn ended(&self) {
        loop {
            let last = self.moved.get();
            self.clock.sleep_until(last + self.span).await;
            if self.moved.get() == last {
                return;
            }
        }
    }
}
