//! What agent and shim say to each other: one JSON document in each message of a seqpacket socket.
//!
//! ```text
//!   agent ── Request{number, call} (+ descriptors) ──► shim
//!   agent ◄── Answer{number, result} (+ a descriptor) ─ shim    exactly one for each request
//!   agent ◄── Ended{number, …} ─────────────────────── shim     after an exec's answer
//!   agent ◄── Changed ──────────────────────────────── shim     look again; carries nothing
//! ```
//! An exec and an attachment live as long as the connection they came over. Containers and pause do not care.
//! Fields may be added; a reader ignores those it does not know. `VERSION` grows when meaning
//! changes; both sides speak one version below their own, too.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::os::process::ProcessIdentity;
use crate::os::spawn::CgroupJoin;
use crate::world::Stamp;

pub const VERSION: u32 = 1;

/// Whether a side of version `own` and one of version `other` understand each other.
pub fn is_understood(own: u32, other: u32) -> bool {
    own.abs_diff(other) <= 1
}

/// One message, both ways. Well below a socket's default buffer (212,992 B).
pub const MESSAGE_BYTES_MAX: usize = 32 * 1024;

#[derive(Debug, Serialize, Deserialize)]
pub struct Request {
    /// Chosen by the agent, unique on its connection.
    pub number: u64,
    pub call: Call,
}

#[derive(Debug, Serialize, Deserialize)]
pub enum Call {
    Hello {
        version: u32,
    },
    StartPause(PauseConfig),
    StopPause,
    Run(RunRequest),
    /// Descriptors 0, 1, 2 come along, unless `terminal` is wanted: then none do, and the answer
    /// brings the terminal's master.
    Exec(ExecRequest),
    /// Follows a running container. Write ends for stdout and stderr come along, those that are
    /// wanted in this order; `Attached` may bring the container's input.
    Attach(AttachRequest),
    /// The attached client will type no more.
    CloseInput {
        container: String,
    },
    /// Kills the exec that was request `exec`, if it still runs.
    CancelExec {
        exec: u64,
    },
    /// Sends a signal to the init of a container.
    Signal {
        container: String,
        signal: i32,
    },
    List,
    /// Ends pause and then the shim. Refused with `Busy` while a container runs.
    Shutdown,
}

/// The pod's infra process. Namespaces not named here are the host's.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PauseConfig {
    pub network: Own,
    pub ipc: Own,
    pub uts: Own,
    /// Pause is PID 1 of it (`shareProcessNamespace`).
    pub pid: Own,
    /// Set when `uts` is the pod's.
    pub hostname: String,
    /// Names with dots; written inside the namespaces, in order.
    pub sysctls: Vec<(String, String)>,
    pub cgroup: CgroupJoin,
    /// -998 upstream; clamped to what we may set.
    pub oom_score_adj: Option<i32>,
    /// How long it may take to be ready.
    pub deadline_ms: u64,
}

/// Whose a namespace is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Own {
    #[default]
    Host,
    Pod,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Terminal {
    No,
    Yes,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Stdin {
    /// `/dev/null`
    Closed,
    /// The FIFO `stdin` in the container's directory: a reader waits for what is written there.
    Open,
}

/// A container to create and start from a finished bundle.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunRequest {
    /// Directory name below RUN/pods/UID/containers; the bundle: `config.json`, `rootfs`.
    pub container: String,
    /// The OCI runtime's id.
    pub id: String,
    /// `["/usr/sbin/runc", "--root", "/run/lowtide/runc"]`
    pub runtime: Vec<String>,
    pub terminal: Terminal,
    pub stdin: Stdin,
    /// `stdinOnce`: the input ends with the first attached client that types.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub stdin_once: bool,
    /// `None`: output is read and dropped.
    pub log: Option<LogConfig>,
    /// `memory.events` (v2) or `memory.oom_control` (v1) of the container's cgroup.
    pub oom_events: Option<PathBuf>,
    /// How long the runtime may take; then it is killed and the answer is `Timeout`.
    pub deadline_ms: u64,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogConfig {
    /// `…/<container>/<attempt>.log`; the directory must exist.
    pub path: PathBuf,
    /// Rotated before it would grow beyond.
    pub bytes_max: u64,
    /// The current one counted; at least 2.
    pub files_max: u32,
}

/// Which streams of a container to follow.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AttachRequest {
    pub container: String,
    pub stdin: bool,
    pub stdout: bool,
    /// Silent with a terminal: it has one stream.
    pub stderr: bool,
}

/// A command to run inside a running container.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExecRequest {
    pub container: String,
    pub id: String,
    pub runtime: Vec<String>,
    /// OCI `process` document (config.md); stays the caller's to remove.
    pub process_file: PathBuf,
    pub terminal: Terminal,
    /// Counted from the command's start; then it and its descendants are killed.
    pub timeout_ms: Option<u64>,
    /// How long the runtime may take to start the command.
    pub deadline_ms: u64,
}

#[derive(Debug, Serialize, Deserialize)]
pub enum Message {
    Answer {
        number: u64,
        result: Result<Answer, Failure>,
    },
    Ended {
        number: u64,
        end: ExecEnd,
    },
    Changed,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Answer {
    Hello {
        version: u32,
        shim: ProcessIdentity,
    },
    Done,
    /// Pause is ready, a container's or an exec's command runs.
    Started(Started),
    Listing(Listing),
    /// With a descriptor: the terminal's master for writing and resizing (never to be read: the
    /// shim does), or a write end of the input. None if the container's input is closed.
    Attached {
        terminal: Terminal,
        stdin: Stdin,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Started {
    pub process: ProcessIdentity,
    pub at: Stamp,
}

/// How an exec'd command ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ExecEnd {
    /// 0..=255; 128 + signal.
    Exited {
        code: i32,
    },
    TimedOut,
    /// The shim that ran it is gone, or it was cancelled.
    Lost,
}

/// What lives below a shim. Of what has ended, the records in its directory tell.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Listing {
    pub pause: Option<ProcessIdentity>,
    pub containers: Vec<Listed>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Listed {
    pub container: String,
    pub id: String,
    pub state: ListedState,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ListedState {
    /// The OCI runtime is at work.
    Starting,
    Running(Started),
}

/// Why a request was not done, by what the agent does next.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Failure {
    /// No such container, or it has ended.
    NotFound(String),
    /// Exists already, still runs, or a bound is reached: try again later.
    Busy(String),
    /// The command could not be started: 126 not executable, 127 not found, 128 anything else.
    Start { code: i32, message: String },
    /// The runtime or pause did not get ready in time and was killed.
    Timeout(String),
    /// The two do not speak a common version.
    Version(String),
    /// Anything else, with operation, object, cause.
    Failed(String),
}

#[cfg(test)]
#[path = "wire_tests.rs"]
mod tests;
