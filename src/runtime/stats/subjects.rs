//! Whom a look is about: what runs, as the runtime has it on record.

use std::path::PathBuf;

use crate::os::process::ProcessIdentity;
use crate::world::{ContainerId, Stamp, Uid};

#[derive(Clone, Debug)]
pub struct PodSubject {
    pub uid: Uid,
    pub namespace: String,
    pub name: String,
    /// Within every hierarchy.
    pub cgroup: String,
    pub started: Stamp,
    /// Whose network namespace is the pod's own.
    pub pause: Option<ProcessIdentity>,
    /// Those that run.
    pub containers: Vec<Subject>,
    /// All writable layers, all logs, all emptyDir volumes.
    pub layers: PathBuf,
    pub logs: PathBuf,
    pub empty_dirs: PathBuf,
}

#[derive(Clone, Debug)]
pub struct Subject {
    pub name: String,
    pub id: ContainerId,
    pub image: String,
    pub cgroup: String,
    pub started: Stamp,
    pub layer: PathBuf,
    pub logs: PathBuf,
}
