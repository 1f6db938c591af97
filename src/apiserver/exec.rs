//! `pods/exec`: a command in a container, its streams multiplexed on a WebSocket.
//!
//! ```text
//!   client ◄─ WebSocket frames ─► pump (here) ◄─ pipes or a terminal ─► the command
//!                                   └── at the end: Status with the exit code on channel 3
//! ```
//!
//! The bytes never cross the node thread: it hands over descriptors and later the exit.

use std::cell::Cell;
use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::time::Duration;

use async_io::Async;
use async_tungstenite::{WebSocketReceiver, WebSocketSender};
use bytes::Bytes;
use futures_lite::{AsyncReadExt, AsyncWriteExt, FutureExt, StreamExt, future};
use serde_json::{Value, json};

use super::backend::{self, ExecExit, ExecIo, ExecSession, ExecStart};
use super::query::Query;
use super::route::Place;
use super::status::Refusal;
use super::{Counted, Shared, logs, view};
use crate::net::serve::{Body, Paced, Request, Response};
use crate::net::websocket::{self, Frame, HandshakeError, Message};
use crate::os::task;
use crate::os::terminal;
use crate::world::{Clock, ContainerId, Uid};

/// One read of the command's output, and so one message.
const CHUNK_BYTES: usize = 32 << 10;

/// Most words of a command.
const COMMAND_WORDS_MAX: usize = 1024;

/// How long output is still taken after the command itself has ended.
const DRAIN: Duration = Duration::from_secs(2);

type Sender = WebSocketSender<Paced>;

/// Answers the handshake; the session goes on by itself after the 101.
pub async fn start(
    shared: Rc<Shared>,
    mut request: Request,
    place: &Place,
    query: &Query,
) -> Result<Response, Refusal> {
    let start = parse(&shared, place, query)?;
    let agreed = websocket::agree(request.headers(), &[websocket::V5, websocket::V4]);
    let agreed = agreed.map_err(|error| match error {
        HandshakeError::NotAWebSocket => Refusal::bad_request("you must upgrade to a WebSocket"),
        HandshakeError::NoProtocol => Refusal::bad_request(
            "no common protocol: supported are v5.channel.k8s.io and v4.channel.k8s.io",
        ),
    })?;
    let slot = shared.execs.take(shared.options.limits.execs);
    let slot = slot.ok_or_else(|| Refusal::too_many("commands"))?;
    let upgrade = hyper::upgrade::on(&mut request);
    let work = session(shared.clone(), upgrade, start, slot);
    task::spawn(&shared.executor, work).detach();
    Ok(agreed.response(Body::empty()))
}

fn parse(shared: &Shared, place: &Place, query: &Query) -> Result<ExecStart, Refusal> {
    let object = view::get(&shared.reader, place)?;
    let body = &object.body;
    let container = logs::container_named(body, query.get("container"))?;
    let command: Vec<String> = query.all("command").map(str::to_owned).collect();
    if command.is_empty() {
        return Err(Refusal::bad_request(
            "you must specify at least 1 command for exec",
        ));
    }
    if command.len() > COMMAND_WORDS_MAX {
        return Err(Refusal::bad_request("the command has too many words"));
    }
    let tty = query.is_set("tty");
    let start = ExecStart {
        uid: Uid::new(object.uid())
            .ok_or_else(|| Refusal::internal("the pod's uid is unusable"))?,
        container: running_id(body, &container, &place.name)?,
        command,
        stdin: query.is_set("stdin"),
        stdout: query.is_set("stdout"),
        stderr: query.is_set("stderr") && !tty,
        tty,
    };
    if !(start.stdin || start.stdout || start.stderr) {
        return Err(Refusal::bad_request(
            "you must specify at least 1 of stdin, stdout, stderr",
        ));
    }
    Ok(start)
}

/// The id of the container's running instance. Errors: 400 as kubelet words it.
fn running_id(pod: &Value, container: &str, pod_name: &str) -> Result<ContainerId, Refusal> {
    let status = logs::container_status(pod, container);
    let running = status["state"]["running"].is_object();
    let id = status["containerID"].as_str().filter(|_| running);
    // `lowtide://<64 hex>`
    let id = id.map(|id| id.split_once("://").map_or(id, |(_, id)| id));
    id.map(|id| ContainerId(id.into())).ok_or_else(|| {
        Refusal::bad_request(format!(
            "container {container:?} in pod {pod_name:?} is not running"
        ))
    })
}

async fn session(
    shared: Rc<Shared>,
    upgrade: hyper::upgrade::OnUpgrade,
    start: ExecStart,
    _slot: Counted,
) {
    let socket = match websocket::accept(upgrade).await {
        Ok(socket) => socket,
        Err(error) => return log::debug!("exec: {error}"),
    };
    let (mut sender, receiver) = socket.split();
    // Tells the client that the channels are there. Source: kubelet's wsstream.
    let greeted = sender
        .send(Frame::Stdout(Bytes::new()).encode().into())
        .await;
    let make = |reply| backend::Request::Exec(start, reply);
    let status = match (greeted, shared.backend.ask(make).await) {
        (Err(_), _) => return,
        (Ok(()), Err(refusal)) => refusal.status(),
        (Ok(()), Ok(Err(error))) => failure(&format!("error executing command: {error}")),
        (Ok(()), Ok(Ok(session))) => {
            match pump(session, &mut sender, receiver, &*shared.clock).await {
                Some(exit) => exit_status(&exit),
                // The client left; dropping the session ended the command.
                None => return,
            }
        }
    };
    let frame = Frame::Error(Bytes::from(status.to_string()));
    // A client that has gone misses nothing.
    let _ = sender.send(frame.encode().into()).await;
    let _ = sender.close(None).await;
}

/// The Status on the error channel. Source: Kubernetes kubelet, cri/streaming/remotecommand.
fn exit_status(exit: &ExecExit) -> Value {
    match exit {
        ExecExit::Code(0) => json!({"metadata": {}, "status": "Success"}),
        ExecExit::Code(code) => json!({
            "metadata": {},
            "status": "Failure",
            "message": format!("command terminated with non-zero exit code: exit status {code}"),
            "reason": "NonZeroExitCode",
            "details": {"causes": [{"reason": "ExitCode", "message": code.to_string()}]},
        }),
        ExecExit::Lost(why) => failure(why),
    }
}

fn failure(why: &str) -> Value {
    json!({
        "metadata": {},
        "status": "Failure",
        "message": why,
        "reason": "InternalError",
        "details": {"causes": [{"message": why}]},
        "code": 500,
    })
}

/// Moves bytes until the command has ended and its output is sent; `None` if the client left.
async fn pump(
    session: ExecSession,
    sender: &mut Sender,
    receiver: WebSocketReceiver<Paced>,
    clock: &dyn Clock,
) -> Option<ExecExit> {
    let ExecSession { io, exit } = session;
    let channels = match Channels::open(io) {
        Ok(channels) => channels,
        Err(error) => return Some(ExecExit::Lost(format!("prepare streams: {error}"))),
    };
    let (out, frames) = async_channel::bounded::<Frame>(1);
    let stdout = copy_out(channels.stdout, out.clone(), Frame::Stdout);
    let stderr = copy_out(channels.stderr, out, Frame::Stderr);
    let reading = future::zip(stdout, stderr);
    let writing = async {
        while let Ok(frame) = frames.recv().await {
            if sender.send(frame.encode().into()).await.is_err() {
                return false;
            }
        }
        true
    };
    let exited = Cell::new(None);
    let lost = |_| ExecExit::Lost("the command's end is not known".to_owned());
    let drained = async {
        let (((), ()), sent) = future::zip(reading, writing).await;
        sent
    };
    // Something that the command left behind may hold its output open for ever.
    let given_up = async {
        exited.set(Some(exit.recv().await.unwrap_or_else(lost)));
        clock.sleep_until(clock.now() + DRAIN).await;
        true
    };
    let command = async {
        match (drained.or(given_up).await, exited.take()) {
            (false, _) => None,
            (true, Some(exit)) => Some(exit),
            (true, None) => Some(exit.recv().await.unwrap_or_else(lost)),
        }
    };
    let client = copy_in(receiver, channels.stdin, channels.terminal);
    command.or(client).await
}

/// The command's descriptors, ready to be awaited.
struct Channels {
    stdin: Option<Async<File>>,
    stdout: Option<Async<File>>,
    stderr: Option<Async<File>>,
    /// To be resized.
    terminal: Option<OwnedFd>,
}

impl Channels {
    fn open(io: ExecIo) -> io::Result<Channels> {
        let open = |fd: Option<OwnedFd>| fd.map(|fd| Async::new(File::from(fd))).transpose();
        Ok(match io {
            ExecIo::Pipes {
                stdin,
                stdout,
                stderr,
            } => Channels {
                stdin: open(stdin)?,
                stdout: open(stdout)?,
                stderr: open(stderr)?,
                terminal: None,
            },
            ExecIo::Terminal(master) => Channels {
                // The reactor takes each descriptor once.
                stdin: open(Some(master.try_clone()?))?,
                stdout: open(Some(master.try_clone()?))?,
                stderr: None,
                terminal: Some(master),
            },
        })
    }
}

/// Reads to the end. A terminal whose last user is gone says EIO: that is an end as well.
async fn copy_out(
    from: Option<Async<File>>,
    to: async_channel::Sender<Frame>,
    frame: fn(Bytes) -> Frame,
) {
    let Some(mut from) = from else { return };
    let mut buffer = vec![0; CHUNK_BYTES];
    while let Ok(read @ 1..) = from.read(&mut buffer).await {
        if to
            .send(frame(Bytes::copy_from_slice(&buffer[..read])))
            .await
            .is_err()
        {
            return;
        }
    }
}

/// Feeds the command from the client. Ends, with `None`, only when the client has left.
async fn copy_in(
    mut receiver: WebSocketReceiver<Paced>,
    mut stdin: Option<Async<File>>,
    tty: Option<OwnedFd>,
) -> Option<ExecExit> {
    while let Some(Ok(message)) = receiver.next().await {
        let bytes = match message {
            Message::Binary(bytes) => bytes,
            Message::Text(text) => Bytes::copy_from_slice(text.as_bytes()),
            Message::Close(_) => return None,
            Message::Ping(_) | Message::Pong(_) | Message::Frame(_) => continue,
        };
        match Frame::decode(&bytes) {
            Some(Frame::Stdin(bytes)) => {
                let written = match &mut stdin {
                    Some(stdin) => stdin.write_all(&bytes).await,
                    None => Ok(()),
                };
                if written.is_err() {
                    // The command reads no more; it may still write.
                    stdin = None;
                }
            }
            // The end of a terminal's input is a character that the client sends.
            Some(Frame::StdinClosed) if tty.is_none() => stdin = None,
            Some(Frame::Resize(size)) => {
                if let Some(tty) = &tty {
                    let (rows, columns) = (size.rows, size.columns);
                    if let Err(error) = terminal::resize(tty, terminal::Size { rows, columns }) {
                        log::debug!("resize exec terminal: {error}");
                    }
                }
            }
            _ => {}
        }
    }
    None
}
