//! Records under RUN: what was made, written before it is made.
//!
//! ```text
//! sandbox.json     Making ──► Ready ──► Stopped        missing: nothing was ever made
//! container.json   Making ──► Started ──► Ended        (a crash between any two is cleaned
//!                     └────────────────►   by the next agent from what the record says)
//! ```
//!
//! RUN is a tmpfs: files are replaced by rename so that a reader never sees half of one, and never
//! flushed. The format carries a version and stays readable for one release both ways.

use std::fs;
use std::io;
use std::net::IpAddr;
use std::path::Path;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::os::process::ProcessIdentity;
use crate::runtime::network::Lease;
use crate::world::{
    CgroupResources, ContainerId, ContainerUser, Exit, SandboxConfig, Stamp,
    TerminationMessagePolicy,
};

/// Format of both records. A reader refuses what is newer than it knows by more than one.
pub const VERSION: u32 = 1;
/// A record is a few kilobytes; a pod with hundreds of aliases and sysctls stays below.
const RECORD_BYTES_MAX: u64 = 4 << 20;

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum SandboxPhase {
    /// Cgroup, shim, pause and network are being made: not ready, to be cleaned if found.
    Making,
    Ready {
        pause: ProcessIdentity,
    },
    /// Given back; containers' records may still be read.
    Stopped,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SandboxRecord {
    pub version: u32,
    pub config: SandboxConfig,
    pub created: Stamp,
    pub phase: SandboxPhase,
    /// `None` for hostNetwork, of CNI plugins, and once it was given back.
    pub lease: Option<Lease>,
    /// Those that no lease names: of CNI plugins.
    #[serde(default)]
    pub addresses: Vec<IpAddr>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ContainerPhase {
    /// Mounts and bundle are being made, or the OCI runtime is at work.
    Making,
    Started {
        started: Stamp,
    },
    Ended(Exit),
}

/// One container instance. Environment and command are in its bundle's config.json only.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContainerRecord {
    pub version: u32,
    pub id: ContainerId,
    pub name: String,
    pub attempt: u32,
    pub pod_name: String,
    pub namespace: String,
    pub hash: String,
    pub image: String,
    pub image_id: String,
    #[serde(default)]
    pub image_shown: String,
    pub created: Stamp,
    /// Number of the signal that asks it to end.
    pub stop_signal: i32,
    /// Within every cgroup hierarchy.
    pub cgroup: String,
    /// File that the container sees at its terminationMessagePath.
    pub termination_log: std::path::PathBuf,
    pub termination_message_policy: TerminationMessagePolicy,
    pub log: std::path::PathBuf,
    pub phase: ContainerPhase,
    /// The OCI runtime's state of an ended instance was deleted.
    pub runtime_state_deleted: bool,
    /// Known once its bundle is made.
    #[serde(default)]
    pub user: Option<ContainerUser>,
    /// What its cgroup was given last.
    #[serde(default)]
    pub resources: Option<CgroupResources>,
}

/// Replaces the record; a reader sees the old or the new one.
pub fn write<T: Serialize>(path: &Path, record: &T) -> io::Result<()> {
    let bytes = serde_json::to_vec(record).map_err(io::Error::other)?;
    let next = path.with_extension("next");
    let outcome = fs::write(&next, bytes).and_then(|()| fs::rename(&next, path));
    outcome
        .map_err(|error| io::Error::new(error.kind(), format!("write {}: {error}", path.display())))
}

/// The record, or `None` if there is none.
/// Errors: unreadable, too large, no JSON of this format.
pub fn read<T: DeserializeOwned>(path: &Path) -> io::Result<Option<T>> {
    let named = |error: &dyn std::fmt::Display, kind| {
        io::Error::new(kind, format!("read {}: {error}", path.display()))
    };
    let length = match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        outcome => outcome.map_err(|error| named(&error, error.kind()))?.len(),
    };
    if length > RECORD_BYTES_MAX {
        return Err(named(&"too large", io::ErrorKind::InvalidData));
    }
    let bytes = fs::read(path).map_err(|error| named(&error, error.kind()))?;
    let record = serde_json::from_slice(&bytes);
    record
        .map(Some)
        .map_err(|error| named(&error, io::ErrorKind::InvalidData))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_is_replaced_whole_and_a_broken_one_is_named() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("sandbox.json");
        assert_eq!(read::<Vec<u8>>(&path).expect("no file is fine"), None);
        write(&path, &vec![1u8, 2]).expect("written");
        write(&path, &vec![3u8]).expect("replaced");
        assert_eq!(read::<Vec<u8>>(&path).expect("read"), Some(vec![3]));
        assert_eq!(fs::read_dir(directory.path()).expect("list").count(), 1);
        fs::write(&path, "{").expect("broken");
        let error = read::<Vec<u8>>(&path).expect_err("no JSON").to_string();
        assert!(error.contains("sandbox.json"), "{error}");
    }
}
