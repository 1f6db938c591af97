//! What a shim leaves in its pod's directory, for the agent and for the shim that comes after it.
//!
//! ```text
//! RUN/pods/UID/shim.lock  shim.sock  shim.pid
//!              pause.json                        Adopted: who pause is
//!              containers/NAME/shim.json         ContainerRecord, written before the runtime starts
//!              containers/NAME/exit.json         ExitRecord, written before anybody is told
//! ```
//! RUN is a tmpfs: files are replaced by rename and never flushed.

use std::io;
use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::wire::{RunRequest, Started};
use crate::os::file;
use crate::os::process::ProcessIdentity;
use crate::world::{Stamp, Uid};

const RECORD_BYTES_MAX: u64 = 64 * 1024;
/// Upstream's text for a container whose end nobody saw.
/// Source: Kubernetes pkg/kubelet, reason `ContainerStatusUnknown`.
pub const UNKNOWN_MESSAGE: &str = "The container could not be located when the pod was terminated";
/// Exit code that goes with it.
pub const UNKNOWN_CODE: i32 = 137;

/// RUN/pods/UID and the names in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PodDirectory(PathBuf);

impl PodDirectory {
    pub fn new(run_dir: &Path, uid: &Uid) -> PodDirectory {
        PodDirectory(run_dir.join("pods").join(uid.as_str()))
    }

    pub fn path(&self) -> &Path {
        &self.0
    }

    pub fn socket(&self) -> PathBuf {
        self.0.join("shim.sock")
    }

    pub fn lock(&self) -> PathBuf {
        self.0.join("shim.lock")
    }

    pub fn shim_pid(&self) -> PathBuf {
        self.0.join("shim.pid")
    }

    pub fn journal(&self) -> PathBuf {
        self.0.join("shim.log")
    }

    pub fn pause(&self) -> PathBuf {
        self.0.join("pause.json")
    }

    pub fn containers(&self) -> PathBuf {
        self.0.join("containers")
    }

    /// `None` if the name is not one path component.
    pub fn container(&self, name: &str) -> Option<ContainerDirectory> {
        Uid::new(name).map(|checked| ContainerDirectory(self.containers().join(checked.as_str())))
    }
}

/// RUN/pods/UID/containers/NAME and the names in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ContainerDirectory(PathBuf);

impl ContainerDirectory {
    pub fn path(&self) -> &Path {
        &self.0
    }

    pub fn file(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    /// The exit, if there was one. What the agent reads after every `Changed`.
    pub fn exit(&self) -> io::Result<Option<ExitRecord>> {
        read(&self.file("exit.json"))
    }
}

/// A container as its shim knows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContainerRecord {
    pub version: u32,
    pub request: RunRequest,
    /// The OCI runtime at work; a later shim waits for it.
    pub runtime: Option<ProcessIdentity>,
    pub started: Option<Started>,
}

/// How a container ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExitRecord {
    pub version: u32,
    /// 0..=255; 128 + signal; `UNKNOWN_CODE` if nobody saw it.
    pub code: i32,
    pub signal: Option<i32>,
    /// The kernel killed something in the container's cgroup for lack of memory.
    pub oom_killed: bool,
    pub cause: ExitCause,
    pub started: Option<Stamp>,
    pub finished: Stamp,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ExitCause {
    /// Its parent saw it end.
    Seen,
    /// It ended while no shim was there: `ContainerStatusUnknown` with `UNKNOWN_MESSAGE`.
    Unknown,
    /// Its command never ran: `StartError` with this text.
    NeverStarted(String),
}

/// Reads a record; `None` if it does not exist.
pub fn read<T: DeserializeOwned>(path: &Path) -> io::Result<Option<T>> {
    match file::read_bounded(path, RECORD_BYTES_MAX) {
        Ok(bytes) => Ok(Some(serde_json::from_slice(&bytes)?)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Replaces a record.
pub fn write<T: Serialize>(path: &Path, record: &T) -> io::Result<()> {
    file::replace(path, &serde_json::to_vec(record)?, 0o600)
}
