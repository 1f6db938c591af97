//! Moves bytes between a session and the descriptors of a command until one of them ends.
//!
//! ```text
//!   said ─► stdin, terminal size          drained ─┐
//!   stdout, stderr ─► told                          ├─► Status ─► told, closed
//!                                          exit ────┘
//! ```
//! The client leaving ends the carrier and with it all of this: dropped descriptors and a dropped
//! exit are what ends the command.

use std::cell::Cell;
use std::fs::File;
use std::future::Future;
use std::io;
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::time::Duration;

use async_channel::{Receiver, Sender};
use async_io::Async;
use bytes::Bytes;
use futures_lite::{AsyncReadExt, AsyncWriteExt, FutureExt, future};
use serde_json::Value;

use super::{Idle, Said, Session, Told, answer};
use crate::apiserver::backend::{AttachSession, ExecExit, ExecIo, ExecSession};
use crate::os::{self, terminal};
use crate::world::Clock;

/// One read of the command's output, and so one message.
const CHUNK_BYTES: usize = 32 << 10;

/// How long output is waited for after the command itself has ended. What is there by then is told, however
/// long that takes.
const DRAIN: Duration = Duration::from_secs(2);
/// What may be there where nothing says how much a pipe holds. Source: pipe(7).
const PIPE_BYTES: usize = 64 << 10;

/// What a client hears whose container went on without it.
const TOO_SLOW: &str =
    "detached: the container's output was not read for too long; the container goes on";

/// What is at the other end of a session.
pub struct Running {
    channels: Channels,
    end: End,
    /// Held until the session is over.
    attached: Option<AttachSession>,
}

/// When a session is over.
enum End {
    /// With the command.
    Exit(Receiver<ExecExit>),
    /// With the container's output.
    Output,
    /// With the client's input: nothing else was asked for.
    Input,
}

/// Descriptors, ready to be awaited.
struct Channels {
    stdin: Option<Async<File>>,
    stdout: Option<Async<File>>,
    stderr: Option<Async<File>>,
    /// To be resized.
    terminal: Option<OwnedFd>,
    /// Dropped, it tells the node that the client types no more.
    typing: Option<Sender<()>>,
}

fn open(fd: Option<OwnedFd>) -> io::Result<Option<Async<File>>> {
    fd.map(|fd| Async::new(File::from(fd))).transpose()
}

impl Running {
    pub fn command(session: ExecSession) -> io::Result<Running> {
        let channels = match session.io {
            ExecIo::Pipes {
                stdin,
                stdout,
                stderr,
            } => Channels {
                stdin: open(stdin)?,
                stdout: open(stdout)?,
                stderr: open(stderr)?,
                terminal: None,
                typing: None,
            },
            ExecIo::Terminal(master) => Channels {
                // The reactor takes each descriptor once.
                stdin: open(Some(master.try_clone()?))?,
                stdout: open(Some(master.try_clone()?))?,
                stderr: None,
                terminal: Some(master),
                typing: None,
            },
        };
        Ok(Running {
            channels,
            end: End::Exit(session.exit),
            attached: None,
        })
    }

    pub fn attached(mut session: AttachSession) -> io::Result<Running> {
        let stdin = match (session.stdin.take(), &session.terminal) {
            (Some(stdin), _) => Some(stdin),
            (None, Some(terminal)) if session.typing.is_some() => Some(terminal.try_clone()?),
            (None, _) => None,
        };
        let channels = Channels {
            stdin: open(stdin)?,
            stdout: open(session.stdout.take())?,
            stderr: open(session.stderr.take())?,
            terminal: session.terminal.take(),
            typing: session.typing.take(),
        };
        let end = match (&channels.stdout, &channels.stderr) {
            (None, None) => End::Input,
            _ => End::Output,
        };
        Ok(Running {
            channels,
            end,
            attached: Some(session),
        })
    }
}

/// Runs a session to its end. `start` makes what is at the other end; its error is the Status.
pub async fn run(
    session: Session,
    start: impl Future<Output = Result<Running, Value>>,
    clock: Rc<dyn Clock>,
    idle_timeout: Duration,
) {
    let Session {
        said,
        told,
        carrier,
    } = session;
    let idle = Idle::new(clock, idle_timeout);
    let work = async {
        let status = match start.await {
            Ok(running) => move_all(running, &said, &told, &idle).await,
            Err(status) => status,
        };
        // Whatever else is said, nobody hears.
        said.close();
        // A client that has gone misses nothing.
        let _ = told.send(Told::Status(status)).await;
        told.close();
        future::pending().await
    };
    let quiet = async {
        idle.ended().await;
        log::info!("a stream was idle for {idle_timeout:?}: closed");
    };
    carrier.or(work).or(quiet).await;
}

async fn move_all(
    running: Running,
    said: &Receiver<Said>,
    told: &Sender<Told>,
    idle: &Idle,
) -> Value {
    let Running {
        channels,
        end,
        attached,
    } = running;
    // Closed when nothing more is waited for.
    let (more, enough) = async_channel::bounded(1);
    let stdout = copy_out(channels.stdout, told, idle, &enough, Told::Stdout);
    let stderr = copy_out(channels.stderr, told, idle, &enough, Told::Stderr);
    let drained = async {
        future::zip(stdout, stderr).await;
    };
    let input = Input {
        stdin: channels.stdin,
        terminal: channels.terminal,
        _typing: channels.typing,
    };
    match end {
        End::Exit(exit) => {
            let ended = exit_after(drained, more, &exit, &*idle.clock);
            let input = async {
                input.copy(said, idle).await;
                future::pending().await
            };
            answer::of_exit(&ended.or(input).await)
        }
        End::Output => {
            let input = async {
                input.copy(said, idle).await;
                future::pending().await
            };
            drained.or(input).await;
            match still_runs(attached.as_ref()).await {
                true => answer::failure(TOO_SLOW),
                false => answer::success(),
            }
        }
        End::Input => {
            input.copy(said, idle).await;
            answer::success()
        }
    }
}

/// Whether the container goes on without the client that was attached to it.
async fn still_runs(attached: Option<&AttachSession>) -> bool {
    let Some(session) = attached else {
        return false;
    };
    let (reply, answer) = async_channel::bounded(1);
    session.attached.send(reply).await.is_ok() && answer.recv().await.unwrap_or(false)
}

/// The command's exit, once its output is told.
async fn exit_after(
    drained: impl Future<Output = ()>,
    more: Sender<()>,
    exit: &Receiver<ExecExit>,
    clock: &dyn Clock,
) -> ExecExit {
    let lost = |_| ExecExit::Lost("the command's end is not known".to_owned());
    let exited = Cell::new(None);
    // Something that the command left behind may hold its output open for ever.
    let given_up = async {
        exited.set(Some(exit.recv().await.unwrap_or_else(lost)));
        clock.sleep_until(clock.now() + DRAIN).await;
        drop(more);
        future::pending().await
    };
    drained.or(given_up).await;
    match exited.take() {
        Some(exit) => exit,
        None => exit.recv().await.unwrap_or_else(lost),
    }
}

/// Reads to the end. A terminal whose last user is gone says EIO: that is an end as well.
async fn copy_out(
    from: Option<Async<File>>,
    told: &Sender<Told>,
    idle: &Idle,
    enough: &Receiver<()>,
    tell: fn(Bytes) -> Told,
) {
    let Some(mut from) = from else { return };
    let mut buffer = vec![0; CHUNK_BYTES];
    // What is there at the end, a pipe's whole room at most.
    let mut left = os::pipe::room(&from).unwrap_or(PIPE_BYTES);
    while left > 0 {
        // What is there goes first.
        let ended = async {
            let _closed = enough.recv().await;
            Ok(0)
        };
        let Ok(read @ 1..) = from.read(&mut buffer).or(ended).await else {
            return;
        };
        if enough.is_closed() {
            left = left.saturating_sub(read);
        }
        idle.moved();
        let bytes = Bytes::copy_from_slice(&buffer[..read]);
        if told.send(tell(bytes)).await.is_err() {
            return;
        }
    }
}

/// Dropped in this order: the descriptor is closed before the node hears of it.
struct Input {
    stdin: Option<Async<File>>,
    terminal: Option<OwnedFd>,
    _typing: Option<Sender<()>>,
}

impl Input {
    /// Feeds the command. Ends when the client types no more and there is no terminal, or when the
    /// client has left.
    async fn copy(mut self, said: &Receiver<Said>, idle: &Idle) {
        while let Ok(said) = said.recv().await {
            idle.moved();
            match said {
                Said::Stdin(bytes) => {
                    let written = match &mut self.stdin {
                        Some(stdin) => stdin.write_all(&bytes).await,
                        None => Ok(()),
                    };
                    if written.is_err() {
                        // It reads no more; it may still write.
                        self.stdin = None;
                    }
                }
                // The end of a terminal's input is a character that the client sends.
                Said::StdinEnded if self.terminal.is_none() => return,
                Said::StdinEnded => {}
                Said::Resize(size) => self.resize(terminal::Size {
                    rows: size.rows,
                    columns: size.columns,
                }),
            }
        }
    }

    fn resize(&self, size: terminal::Size) {
        if let Some(terminal) = &self.terminal
            && let Err(error) = terminal::resize(terminal, size)
        {
            log::debug!("resize the terminal of a stream: {error}");
        }
    }
}

#[cfg(test)]
#[path = "pump_tests.rs"]
mod tests;
