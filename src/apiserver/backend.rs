//! The door from the serve thread to the node thread: typed requests over one bounded channel.
//!
//! ```text
//!   serve thread ── Request ──► channel (REQUESTS_QUEUED_MAX) ──► run() on the node thread ──► NodeSide
//!        ▲                                                                                │
//!        └────────────── reply channel of each request ◄──────────────────────────────────┘
//! ```
//!
//! What can be answered from a registry snapshot never comes here. The node thread does no HTTP
//! and no JSON, and no flood of requests can make its queue longer than the bound.

use std::net::TcpStream;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;

use async_channel::{Receiver, Sender, TrySendError};
use async_executor::LocalExecutor;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::status::Refusal;
use crate::object::{Key, Object};
use crate::os::task;
use crate::registry::{self, Actor, Deletion, Precondition, Registry};
use crate::world::{
    self, Call, ContainerId, Detail, Image, LocalFuture, NoAnswer, PullError, RuntimeError, Sample,
    Uid,
};

/// Requests waiting for the node thread; the next one is answered 429.
const REQUESTS_QUEUED_MAX: usize = 64;

/// Requests that the node thread has under way at once (pulls and execs mostly wait).
const REQUESTS_UNDER_WAY_MAX: usize = 64;

/// Progress reports of one pull that may wait for a slow reader; newer ones are dropped.
pub const PROGRESS_QUEUED_MAX: usize = 32;

/// A command to run in a running container, with streams.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExecStart {
    pub uid: Uid,
    pub container: ContainerId,
    pub command: Vec<String>,
    pub stdin: bool,
    pub stdout: bool,
    /// Never together with `tty`.
    pub stderr: bool,
    pub tty: bool,
}

/// The descriptors of a running command, ours to read and write. All can be polled.
#[derive(Debug)]
pub enum ExecIo {
    /// The command's own pipes or sockets; closing `stdin` is its end of file.
    Pipes {
        stdin: Option<OwnedFd>,
        stdout: Option<OwnedFd>,
        stderr: Option<OwnedFd>,
    },
    /// The master side of its terminal.
    Terminal(OwnedFd),
}

/// How a command ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ExecExit {
    /// 0..=255; 128 + signal if a signal ended it.
    Code(i32),
    /// Nobody knows, with the reason: the shim died, the container ended.
    Lost(String),
}

/// A command under way. Dropping `exit` asks the node to kill the command's process group.
#[derive(Debug)]
pub struct ExecSession {
    pub io: ExecIo,
    pub exit: Receiver<ExecExit>,
}

/// A running container whose own streams a client follows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AttachStart {
    pub uid: Uid,
    pub container: ContainerId,
    pub stdin: bool,
    pub stdout: bool,
    /// Silent where the container has a terminal.
    pub stderr: bool,
}

/// A client attached to a container. Dropping it detaches; the container goes on.
#[derive(Debug)]
pub struct AttachSession {
    /// The master of the container's terminal: to write and resize, never to read.
    pub terminal: Option<OwnedFd>,
    /// Where to write what is typed, if there is no terminal.
    pub stdin: Option<OwnedFd>,
    /// They end when the container has, or when they were not read for too long.
    pub stdout: Option<OwnedFd>,
    pub stderr: Option<OwnedFd>,
    /// Whether the client may type. Dropped, it types no more: with `stdinOnce` the container's
    /// input ends.
    pub typing: Option<Sender<()>>,
    /// Asks whether the container still runs; dropped with the session.
    pub attached: Sender<Reply<bool>>,
}

/// One step of a pull, as a JSON line.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", tag = "type")]
pub enum PullProgress {
    /// A layer or the configuration: bytes taken so far out of how many.
    #[serde(rename_all = "camelCase")]
    Blob {
        digest: String,
        done_bytes: u64,
        total_bytes: u64,
    },
    /// The image is here.
    #[serde(rename_all = "camelCase")]
    Done {
        id: String,
        size_bytes: u64,
    },
    Failed {
        message: String,
    },
}

/// How the node is, for `lowtide describe node`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct NodeStatus {
    pub node_name: String,
    pub version: String,
    /// What is wrong and since when it matters; empty when all is well.
    pub problems: Vec<String>,
}

/// What the node does for the API. Implemented by the composition root over the real parts, by
/// simulation and tests over fakes. All on the node thread.
pub trait NodeSide {
    /// Starts a command; resolves when it runs or could not be started.
    fn exec(&self, start: ExecStart) -> LocalFuture<'_, Result<ExecSession, RuntimeError>>;

    /// Joins the streams of a running container. Errors: it does not run, or has too many clients.
    fn attach(&self, start: AttachStart) -> LocalFuture<'_, Result<AttachSession, RuntimeError>>;

    /// Connects to a port of `localhost` as seen inside of the pod.
    fn connect(&self, uid: Uid, port: u16) -> LocalFuture<'_, Result<TcpStream, RuntimeError>>;

    fn images(&self) -> Vec<Arc<Image>>;

    /// Pulls by reference. Progress is sent without waiting (`try_send`).
    fn pull(
        &self,
        reference: String,
        progress: Sender<PullProgress>,
    ) -> LocalFuture<'_, Result<Arc<Image>, PullError>>;

    /// Imports an archive or layout by its path on the node: the references that it brought.
    fn import(&self, path: PathBuf) -> LocalFuture<'_, Result<Vec<String>, String>>;

    fn status(&self) -> NodeStatus;

    /// What everything uses now. May take a second.
    fn stats(&self, detail: Detail) -> LocalFuture<'_, Sample>;

    /// Asks the remote cluster about somebody. Errors: it does not answer, or there is none.
    fn review(&self, call: Call) -> LocalFuture<'_, Result<world::Reply, NoAnswer>>;

    /// Whether the loop runs and the store accepts writes: name of the check that fails.
    fn health(&self) -> Result<(), String>;
}

/// A write, for the registry. The door's checks are behind it; those of the registry are not.
#[derive(Clone, Debug)]
pub struct WriteRequest {
    pub actor: Actor,
    pub key: Key,
    pub write: Write,
}

#[derive(Clone, Debug)]
pub enum Write {
    /// A key without a name is given one.
    Create(Value),
    Update(Value, Precondition),
    Delete(Deletion),
    /// Admits what is posted to a subresource that is an act; changes nothing.
    Act(Value),
}

/// What a write left.
#[derive(Clone, Debug, PartialEq)]
pub struct Written {
    /// As it is now; for what is gone, as it was.
    pub object: Arc<Object>,
    pub gone: bool,
    /// What admission has to say to the user.
    pub remarks: Vec<String>,
}

impl Written {
    fn there((object, remarks): (Arc<Object>, Vec<String>)) -> Written {
        let gone = false;
        Written {
            object,
            gone,
            remarks,
        }
    }
}

/// The way back; holds one answer.
pub type Reply<T> = Sender<T>;

/// What the serve thread asks of the node thread.
pub enum Request {
    Exec(ExecStart, Reply<Result<ExecSession, RuntimeError>>),
    Attach(AttachStart, Reply<Result<AttachSession, RuntimeError>>),
    Connect(Uid, u16, Reply<Result<TcpStream, RuntimeError>>),
    Images(Reply<Vec<Arc<Image>>>),
    Pull {
        reference: String,
        progress: Sender<PullProgress>,
    },
    Import(PathBuf, Reply<Result<Vec<String>, String>>),
    Status(Reply<NodeStatus>),
    Stats(Detail, Reply<Sample>),
    Health(Reply<Result<(), String>>),
    Review(Call, Reply<Result<world::Reply, NoAnswer>>),
    Write(WriteRequest, Reply<Result<Written, registry::Error>>),
}

/// Both ends of a new queue.
pub fn channel() -> (Backend, Receiver<Request>) {
    let (sender, receiver) = async_channel::bounded(REQUESTS_QUEUED_MAX);
    (Backend(sender), receiver)
}

/// The serve thread's end.
#[derive(Clone)]
pub struct Backend(Sender<Request>);

impl Backend {
    /// Queues a request. Errors: 429 when the node has too many, 503 when it is stopping.
    pub fn send(&self, request: Request) -> Result<(), Refusal> {
        self.0.try_send(request).map_err(|error| match error {
            TrySendError::Full(_) => Refusal::too_many("requests"),
            TrySendError::Closed(_) => Refusal::unavailable("the node is stopping"),
        })
    }

    /// Queues what `make` builds around a reply sender, and waits for the answer.
    pub async fn ask<T>(&self, make: impl FnOnce(Reply<T>) -> Request) -> Result<T, Refusal> {
        let (reply, answer) = async_channel::bounded(1);
        self.send(make(reply))?;
        let gone = |_| Refusal::unavailable("the node is stopping");
        answer.recv().await.map_err(gone)
    }
}

/// Answers requests until the serve side is gone. Runs on the node thread.
pub async fn run(
    requests: Receiver<Request>,
    node: Rc<dyn NodeSide>,
    registry: Registry,
    executor: Rc<LocalExecutor<'static>>,
) {
    // Every task holds a slot of this channel while it works.
    let (slots, used) = async_channel::bounded::<()>(REQUESTS_UNDER_WAY_MAX);
    while let Ok(request) = requests.recv().await {
        if slots.send(()).await.is_err() {
            return;
        }
        let (node, registry, used) = (node.clone(), registry.clone(), used.clone());
        let work = async move {
            answer(request, &*node, &registry).await;
            let _ = used.try_recv();
        };
        task::spawn(&executor, work).detach();
    }
}

/// A reply whose asker has gone is dropped, and with it what it holds (an exec session ends).
async fn answer(request: Request, node: &dyn NodeSide, registry: &Registry) {
    match request {
        Request::Write(request, reply) => {
            let _ = reply.try_send(write(request, registry).await);
        }
        Request::Exec(start, reply) => {
            let _ = reply.try_send(node.exec(start).await);
        }
        Request::Attach(start, reply) => {
            let _ = reply.try_send(node.attach(start).await);
        }
        Request::Connect(uid, port, reply) => {
            let _ = reply.try_send(node.connect(uid, port).await);
        }
        Request::Images(reply) => {
            let _ = reply.try_send(node.images());
        }
        Request::Pull {
            reference,
            progress,
        } => {
            let last = match node.pull(reference, progress.clone()).await {
                Ok(image) => PullProgress::Done {
                    id: image.id.clone(),
                    size_bytes: image.size_bytes,
                },
                Err(error) => PullProgress::Failed {
                    message: error.to_string(),
                },
            };
            let _ = progress.send(last).await;
        }
        Request::Import(path, reply) => {
            let _ = reply.try_send(node.import(path).await);
        }
        Request::Status(reply) => {
            let _ = reply.try_send(node.status());
        }
        Request::Stats(detail, reply) => {
            let _ = reply.try_send(node.stats(detail).await);
        }
        Request::Review(call, reply) => {
            // Who asked waits for a while only.
            let left = reply.closed();
            let asked = async {
                let _ = reply.try_send(node.review(call).await);
            };
            futures_lite::future::or(asked, left).await;
        }
        Request::Health(reply) => {
            let _ = reply.try_send(node.health());
        }
    }
}

async fn write(request: WriteRequest, registry: &Registry) -> Result<Written, registry::Error> {
    let WriteRequest { actor, key, write } = request;
    match write {
        Write::Create(body) => {
            let created = registry.create_with_remarks(actor, key, body);
            Ok(Written::there(created.await?))
        }
        Write::Update(body, precondition) => {
            let updated = registry.update_with_remarks(actor, key, body, precondition);
            Ok(Written::there(updated.await?))
        }
        Write::Delete(deletion) => {
            let deleted = registry.delete(actor, key, deletion).await?;
            Ok(Written {
                object: deleted.object,
                gone: deleted.gone,
                remarks: Vec::new(),
            })
        }
        Write::Act(act) => {
            let object = registry.admit_act(&actor, &key, act)?;
            Ok(Written::there((object, Vec::new())))
        }
    }
}
