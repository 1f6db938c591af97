//! fsGroup: gives a writable volume to a group, so that every user of the pod may use it.
//!
//! Children before their directory, so that a root directory with the right bits means that all of
//! it is done. Links are given to the group and never followed; other mounts are not entered.
//! `fsGroupChangePolicy` bears on no volume that is here: emptyDir is walked once, when it is made.
//! Source: k8s.io/kubernetes pkg/volume/volume_linux.go.

use std::ffi::CStr;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;

use crate::os::volume_fs::{self, Attributes, Kind};

const FILE_BITS: u32 = 0o660;
/// Directories can be entered, and new entries get the directory's group.
const DIRECTORY_BITS: u32 = 0o2770;
/// Deeper trees are refused: each level holds a descriptor.
const DEPTH_MAX: u32 = 256;

/// Walks the whole volume. Errors: the volume's path and the cause.
pub(super) fn apply(directory: &Path, group: u32) -> Result<(), String> {
    let outcome = (|| {
        let root = volume_fs::open_directory(directory)?;
        let found = volume_fs::attributes_of(root.as_fd())?;
        walk(root.as_fd(), found.mount, group, DEPTH_MAX)?;
        own_directory(root.as_fd(), &found, group)
    })();
    outcome.map_err(|error: io::Error| {
        format!("give {} to group {group}: {error}", directory.display())
    })
}

fn walk(directory: BorrowedFd<'_>, mount: u64, group: u32, depth: u32) -> io::Result<()> {
    if depth == 0 {
        return Err(io::Error::other("directories are nested too deeply"));
    }
    for name in volume_fs::names(directory)? {
        match own_entry(directory, &name, mount, group, depth) {
            // Containers may remove entries while we walk.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            outcome => outcome?,
        }
    }
    Ok(())
}

fn own_entry(
    parent: BorrowedFd<'_>,
    name: &CStr,
    mount: u64,
    group: u32,
    depth: u32,
) -> io::Result<()> {
    let found = volume_fs::attributes(parent, name)?;
    if found.mount != mount {
        return Ok(());
    }
    match found.kind {
        Kind::Directory => {
            let child = volume_fs::open_child_directory(parent, name)?;
            walk(child.as_fd(), mount, group, depth - 1)?;
            own_directory(child.as_fd(), &found, group)
        }
        Kind::Symlink => volume_fs::set_owner(parent, name, None, Some(group)),
        Kind::File | Kind::Other => {
            volume_fs::set_owner(parent, name, None, Some(group))?;
            // chown drops setuid and setgid; they are put back as they were.
            volume_fs::set_mode_of_child(parent, name, found.mode | FILE_BITS)
        }
    }
}

fn own_directory(directory: BorrowedFd<'_>, found: &Attributes, group: u32) -> io::Result<()> {
    volume_fs::set_owner_of(directory, None, Some(group))?;
    volume_fs::set_mode(directory, found.mode | DIRECTORY_BITS)
}
