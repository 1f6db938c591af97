//! Small files that the node keeps for itself: pod records under ROOT, checkpoints under RUN.
//!
//! The registry's store is not behind this trait: it has a seam of its own (a block-level backend)
//! so that the simulation can lose its unsynced writes too.

use std::fmt;
use std::io;

use super::LocalFuture;

/// Which of the node's two directories a path is relative to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Area {
    /// `--root-dir`: flash or disk, survives power cuts.
    Root,
    /// `--run-dir`: tmpfs, gone after a reboot.
    Run,
}

/// Why a file operation failed, by what the caller does about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DiskError {
    /// No space or quota left: retry later, tell the user.
    Full(String),
    /// The file system is read-only: go on without this file, tell the user.
    ReadOnly(String),
    /// Anything else, with operation, path and cause.
    Other(String),
}

impl DiskError {
    /// Sorts an I/O error; `what` names the operation and the path (`write /x/y`).
    pub fn from_io(what: &str, error: &io::Error) -> DiskError {
        let text = format!("{what}: {error}");
        match error.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => DiskError::Full(text),
            io::ErrorKind::ReadOnlyFilesystem => DiskError::ReadOnly(text),
            _ => DiskError::Other(text),
        }
    }
}

impl fmt::Display for DiskError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            DiskError::Full(text) | DiskError::ReadOnly(text) | DiskError::Other(text) => {
                f.write_str(text)
            }
        }
    }
}

impl std::error::Error for DiskError {}

/// Whole-file operations; paths are relative to the area, `/`-separated, without `..`.
pub trait Disk {
    /// The file's bytes, or `None` if it does not exist. Never follows a symlink at the last
    /// component.
    fn read(&self, area: Area, path: &str) -> LocalFuture<'_, Result<Option<Vec<u8>>, DiskError>>;

    /// Replaces the file atomically (a reader sees the old or the new bytes) and makes parent
    /// directories. Not flushed: after a power cut the file may be old, new or missing.
    fn write(
        &self,
        area: Area,
        path: &str,
        bytes: Vec<u8>,
    ) -> LocalFuture<'_, Result<(), DiskError>>;

    /// Like `write`, and on stable storage (file and directory entry) before it resolves.
    fn write_durable(
        &self,
        area: Area,
        path: &str,
        bytes: Vec<u8>,
    ) -> LocalFuture<'_, Result<(), DiskError>>;

    /// Removes one file; success if it does not exist.
    fn remove(&self, area: Area, path: &str) -> LocalFuture<'_, Result<(), DiskError>>;

    /// Whether the area takes a small file, in one act: who stops waiting leaves none behind.
    fn try_write(&self, area: Area) -> LocalFuture<'_, Result<(), DiskError>>;

    /// Names in a directory, sorted; empty if it does not exist.
    fn list(&self, area: Area, directory: &str) -> LocalFuture<'_, Result<Vec<String>, DiskError>>;
}
