//! Following a running container's own streams: `kubectl attach`, `kubectl run -it`.
//!
//! The shim reads the container's output for its log and gives an attached client a copy; what the
//! client types goes to the container directly. Nothing is replayed: it hears what is said from
//! now on.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::rc::Rc;

use crate::os::pipe;
use crate::runtime::sandbox::record::ContainerPhase;
use crate::runtime::shim::client::Client;
use crate::runtime::shim::wire::{AttachRequest, Stdin};
use crate::world::{ContainerId, RuntimeError, Uid};

use super::{Host, of_io};

/// Streams that a client wants.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AttachStreams {
    pub stdin: bool,
    pub stdout: bool,
    /// Silent where the container has a terminal.
    pub stderr: bool,
}

/// An attached client. Dropping it detaches; the container goes on.
pub struct Attachment {
    /// The master of the container's terminal: to write and resize, never to read.
    pub terminal: Option<OwnedFd>,
    /// Where to write what is typed, if the container has no terminal and reads its input. To end
    /// it, drop it and call `close_input`.
    pub stdin: Option<OwnedFd>,
    /// Read ends, blocking; they end when the container has, and before it for a reader that takes
    /// nothing for too long.
    pub stdout: Option<OwnedFd>,
    pub stderr: Option<OwnedFd>,
    input: Option<(Client, String)>,
    watched: Watched,
}

/// Tells whether an attached container still runs.
#[derive(Clone)]
pub struct Watched {
    client: Client,
    container: String,
}

impl Watched {
    /// The shim is asked: it has seen the end of a container before it closes what followed it. A shim
    /// that is gone knows of none.
    pub async fn runs(&self) -> bool {
        let listing = self.client.list().await;
        listing.is_ok_and(|all| {
            all.containers
                .iter()
                .any(|one| one.container == self.container)
        })
    }
}

impl Attachment {
    pub fn watched(&self) -> Watched {
        self.watched.clone()
    }

    /// The client types no more: with `stdinOnce` the container sees the end of its input.
    pub fn close_input(&mut self) {
        self.stdin = None;
        if let Some((client, container)) = self.input.take() {
            client.close_input(&container);
        }
    }
}

impl Drop for Attachment {
    fn drop(&mut self) {
        self.close_input();
    }
}

/// Errors: `NotFound` if the container does not run; `Failed` at the shim's bound.
pub async fn attach(
    host: &Rc<Host>,
    uid: &Uid,
    container: &ContainerId,
    wanted: AttachStreams,
) -> Result<Attachment, RuntimeError> {
    let record = host.mirror.container(uid, container)?;
    if !matches!(record.phase, ContainerPhase::Started { .. }) {
        let text = format!("container {} of pod {uid} does not run", record.name);
        return Err(RuntimeError::NotFound(text));
    }
    let failed = |error| of_io("make a pipe", &error);
    let pipe_if = |wanted: bool| wanted.then(pipe::pipe).transpose().map_err(failed);
    let (stdout, stderr) = (pipe_if(wanted.stdout)?, pipe_if(wanted.stderr)?);
    let ends = stdout.iter().chain(&stderr);
    let ends: Vec<BorrowedFd<'_>> = ends.map(|pipe| pipe.write.as_fd()).collect();
    let name = format!("{}.{}", record.name, record.attempt);
    let request = AttachRequest {
        container: name.clone(),
        stdin: wanted.stdin,
        stdout: wanted.stdout,
        stderr: wanted.stderr,
    };
    let client = host.connect(uid).await?;
    let attached = client.attach(request, &ends).await?;
    let types = wanted.stdin && attached.stdin == Stdin::Open;
    Ok(Attachment {
        terminal: attached.terminal,
        stdin: attached.input,
        stdout: stdout.map(|pipe| pipe.read),
        stderr: stderr.map(|pipe| pipe.read),
        input: types.then(|| (client.clone(), name.clone())),
        watched: Watched {
            client,
            container: name,
        },
    })
}
