//! Volumes as the node loop sees them: contents already resolved, directories not yet made.
//!
//! The kubelet turns configMap, secret, downwardAPI and projected sources into files (pure); the
//! implementation writes them with the atomic writer, mounts tmpfs, checks host paths.

use std::fmt;

use super::LocalFuture;
use super::runtime::{RemoveError, Uid};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FileMedium {
    Disk,
    Tmpfs,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProjectedFile {
    /// Relative to the volume, checked: no `..` component, no leading `/`.
    pub path: String,
    pub mode: u32,
    /// Owner, if it must differ from root (projected tokens).
    pub uid: Option<u32>,
    pub bytes: Vec<u8>,
}

/// `hostPath.type`. Source: Kubernetes pkg/volume/hostpath.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HostPathType {
    Unset,
    DirectoryOrCreate,
    Directory,
    FileOrCreate,
    File,
    Socket,
    CharDevice,
    BlockDevice,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum VolumeContent {
    EmptyDir {
        medium: FileMedium,
        /// tmpfs only; the disk limit is eviction's affair.
        size_bytes: Option<u64>,
    },
    HostPath {
        path: String,
        kind: HostPathType,
    },
    /// configMap, secret, downwardAPI, projected: written atomically, always mounted read-only.
    Files {
        /// Directory name of the plug-in: `kubernetes.io~secret` …
        plugin: &'static str,
        medium: FileMedium,
        files: Vec<ProjectedFile>,
    },
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VolumeSetUp {
    pub name: String,
    pub content: VolumeContent,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PodVolumes {
    pub uid: Uid,
    pub fs_group: Option<u32>,
    /// `fsGroupChangePolicy: OnRootMismatch`
    pub skip_matching_root: bool,
    pub volumes: Vec<VolumeSetUp>,
}

/// A volume that could not be set up; the text goes into a `FailedMount` event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VolumeError {
    pub volume: String,
    pub message: String,
}

impl fmt::Display for VolumeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "MountVolume.SetUp failed for volume {:?} : {}",
            self.volume, self.message
        )
    }
}

impl std::error::Error for VolumeError {}

pub trait Volumes {
    /// Brings every listed volume to the given content. Idempotent; also the refresh of a running
    /// pod: unchanged content writes nothing. All errors, one for each volume that failed.
    fn set_up(&self, pod: PodVolumes) -> LocalFuture<'_, Result<(), Vec<VolumeError>>>;

    /// Unmounts the pod's volumes and leaves what lies on the disk, as a power cut does.
    fn unmount(&self, uid: &Uid) -> LocalFuture<'_, Result<(), RemoveError>>;

    /// Unmounts and removes the pod's volumes and its directory under ROOT. Follows no symlink out
    /// of it, never touches what a hostPath points to. Success if nothing is there.
    fn tear_down(&self, uid: &Uid) -> LocalFuture<'_, Result<(), RemoveError>>;
}
