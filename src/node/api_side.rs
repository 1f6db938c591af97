//! What the API asks of the node, answered by the real parts.

use std::net::TcpStream;
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;

use async_channel::Sender;
use async_executor::LocalExecutor;
use futures_lite::future::zip;

use super::parts::Parts;
use crate::apiserver::backend::{
    AttachSession, AttachStart, ExecExit, ExecIo, ExecSession, ExecStart, NodeSide, NodeStatus,
    PullProgress, Reply,
};
use crate::os::pipe;
use crate::os::task;
use crate::registry::{Health, Registry};
use crate::runtime::host::{AttachStreams, Attachment, ExecStreams, HostRuntime, StreamedExec};
use crate::runtime::images::{ImageStore, Progress};
use crate::world::{
    Call, Detail, Image, Images, LocalFuture, NoAnswer, PullError, PullRequest, Reply as Answer,
    Reviews, RuntimeError, Sample, Stats, Uid,
};

pub struct ApiSide {
    node_name: String,
    runtime: Rc<HostRuntime>,
    images: Rc<ImageStore>,
    stats: Rc<dyn Stats>,
    /// `None`: the node stands alone.
    reviews: Option<Rc<dyn Reviews>>,
    registry: Registry,
    executor: Rc<LocalExecutor<'static>>,
}

/// The ends of one command's stream: ours, and the one the command gets.
struct Ends {
    ours: Option<OwnedFd>,
    theirs: OwnedFd,
}

impl ApiSide {
    pub fn new(
        parts: &Parts,
        node_name: &str,
        reviews: Option<Rc<dyn Reviews>>,
        registry: Registry,
        executor: Rc<LocalExecutor<'static>>,
    ) -> ApiSide {
        ApiSide {
            node_name: node_name.to_owned(),
            runtime: parts.runtime.clone(),
            images: parts.images.clone(),
            stats: parts.world.stats.clone(),
            reviews,
            registry,
            executor,
        }
    }

    /// Waits for the end of a command in a task of its own; a closed reply kills the command.
    fn watch(&self, exec: StreamedExec) -> async_channel::Receiver<ExecExit> {
        let (reply, exit) = async_channel::bounded(1);
        let work = async move {
            let ended = async {
                let exit = match exec.ended().await {
                    Ok(code) => ExecExit::Code(code),
                    Err(error) => ExecExit::Lost(error.to_string()),
                };
                // The asker may have left; then there is nobody to tell.
                let _ = reply.try_send(exit);
            };
            let left = reply.closed();
            futures_lite::future::or(ended, left).await;
        };
        task::spawn(&self.executor, work).detach();
        exit
    }

    /// Keeps an attachment in a task of its own until the client types no more, and then until it
    /// has left.
    fn hold(&self, mut attachment: Attachment, start: &AttachStart) -> AttachSession {
        let (typing, typed) = async_channel::bounded(1);
        let (attached, asked) = async_channel::bounded::<Reply<bool>>(1);
        let watched = attachment.watched();
        let session = AttachSession {
            terminal: attachment.terminal.take(),
            stdin: attachment.stdin.take(),
            stdout: attachment.stdout.take(),
            stderr: attachment.stderr.take(),
            typing: start.stdin.then_some(typing),
            attached,
        };
        let work = async move {
            let input = async {
                // Nothing is ever sent: it is closed.
                let _: Result<(), _> = typed.recv().await;
                attachment.close_input();
            };
            let questions = async {
                while let Ok(reply) = asked.recv().await {
                    // Who asked may have left.
                    let _ = reply.try_send(watched.runs().await);
                }
            };
            zip(input, questions).await;
        };
        task::spawn(&self.executor, work).detach();
        session
    }

    async fn exec_plain(&self, start: &ExecStart) -> Result<ExecSession, RuntimeError> {
        let failed = |error: std::io::Error| RuntimeError::Failed(format!("make pipes: {error}"));
        let stdin = input(start.stdin).map_err(failed)?;
        let stdout = output(start.stdout).map_err(failed)?;
        let stderr = output(start.stderr).map_err(failed)?;
        let theirs = [
            stdin.theirs.as_fd(),
            stdout.theirs.as_fd(),
            stderr.theirs.as_fd(),
        ];
        let streams = ExecStreams::Plain(theirs);
        let runtime = &self.runtime;
        let exec = runtime.exec_stream(&start.uid, &start.container, &start.command, streams);
        let exec = exec.await?;
        Ok(ExecSession {
            io: ExecIo::Pipes {
                stdin: stdin.ours,
                stdout: stdout.ours,
                stderr: stderr.ours,
            },
            exit: self.watch(exec),
        })
    }

    async fn exec_terminal(&self, start: &ExecStart) -> Result<ExecSession, RuntimeError> {
        let runtime = &self.runtime;
        let streams = ExecStreams::Terminal;
        let exec = runtime.exec_stream(&start.uid, &start.container, &start.command, streams);
        let mut exec = exec.await?;
        let terminal = exec.terminal.take();
        let terminal = terminal.ok_or(RuntimeError::Failed("no terminal was made".into()))?;
        Ok(ExecSession {
            io: ExecIo::Terminal(terminal),
            exit: self.watch(exec),
        })
    }
}

impl NodeSide for ApiSide {
    fn exec(&self, start: ExecStart) -> LocalFuture<'_, Result<ExecSession, RuntimeError>> {
        Box::pin(async move {
            if start.tty {
                self.exec_terminal(&start).await
            } else {
                self.exec_plain(&start).await
            }
        })
    }

    fn attach(&self, start: AttachStart) -> LocalFuture<'_, Result<AttachSession, RuntimeError>> {
        Box::pin(async move {
            let streams = AttachStreams {
                stdin: start.stdin,
                stdout: start.stdout,
                stderr: start.stderr,
            };
            let attached = self.runtime.attach(&start.uid, &start.container, streams);
            Ok(self.hold(attached.await?, &start))
        })
    }

    fn connect(&self, uid: Uid, port: u16) -> LocalFuture<'_, Result<TcpStream, RuntimeError>> {
        Box::pin(async move { self.runtime.connect(&uid, port).await })
    }

    fn images(&self) -> Vec<Arc<Image>> {
        self.images.list()
    }

    fn pull(
        &self,
        reference: String,
        progress: Sender<PullProgress>,
    ) -> LocalFuture<'_, Result<Arc<Image>, PullError>> {
        let request = PullRequest {
            reference,
            docker_configs: Vec::new(),
        };
        let (watcher, steps) = async_channel::bounded::<Progress>(PROGRESS_STEPS_MAX);
        let forward = async move {
            while let Ok(step) = steps.recv().await {
                let _ = progress.try_send(PullProgress::Blob {
                    digest: step.layer.to_string(),
                    done_bytes: step.bytes_done,
                    total_bytes: step.bytes_total,
                });
            }
        };
        task::spawn(&self.executor, forward).detach();
        Box::pin(self.images.pull_watched(request, Some(watcher)))
    }

    fn import(&self, path: PathBuf) -> LocalFuture<'_, Result<Vec<String>, String>> {
        Box::pin(async move {
            let images = self.images.import(path, None).await;
            let images = images.map_err(|error| error.to_string())?;
            let names = images.iter().map(|image| {
                let name = image.tags.first().or(image.digests.first());
                name.unwrap_or(&image.id).clone()
            });
            Ok(names.collect())
        })
    }

    fn status(&self) -> NodeStatus {
        NodeStatus {
            node_name: self.node_name.clone(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            problems: self.health().err().into_iter().collect(),
        }
    }

    fn stats(&self, detail: Detail) -> LocalFuture<'_, Sample> {
        self.stats.sample(detail)
    }

    fn review(&self, call: Call) -> LocalFuture<'_, Result<Answer, NoAnswer>> {
        match &self.reviews {
            Some(reviews) => reviews.review(call),
            None => {
                let text = "this node belongs to no cluster".to_owned();
                Box::pin(async { Err(NoAnswer::Unusable(text)) })
            }
        }
    }

    fn health(&self) -> Result<(), String> {
        match self.registry.health() {
            Health::Ok => Ok(()),
            Health::Degraded(text) => Err(text),
        }
    }
}

/// Steps of a pull that may wait to be passed on.
const PROGRESS_STEPS_MAX: usize = 32;

fn input(wanted: bool) -> std::io::Result<Ends> {
    if !wanted {
        return nothing();
    }
    let pipe = pipe::pipe()?;
    Ok(Ends {
        ours: Some(pipe.write),
        theirs: pipe.read,
    })
}

fn output(wanted: bool) -> std::io::Result<Ends> {
    if !wanted {
        return nothing();
    }
    let pipe = pipe::pipe()?;
    Ok(Ends {
        ours: Some(pipe.read),
        theirs: pipe.write,
    })
}

fn nothing() -> std::io::Result<Ends> {
    let null = std::fs::File::options()
        .read(true)
        .write(true)
        .open("/dev/null")?;
    Ok(Ends {
        ours: None,
        theirs: null.into(),
    })
}
