//! Removing a directory tree that a container has had its hands on.
//!
//! Links are removed, never followed (CVE-2017-1002102). A place where something is still mounted
//! is an error, not something to empty: it may be the host's.

use std::ffi::CStr;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};

use crate::os::volume_fs::{self, Kind};

/// Deeper trees are refused: each level holds a descriptor.
const DEPTH_MAX: u32 = 512;

/// Removes the entry `name` of `parent` with all that is below it. Success if it is not there.
pub(super) fn tree(parent: BorrowedFd<'_>, name: &str) -> io::Result<()> {
    let mount = volume_fs::attributes_of(parent)?.mount;
    let name = std::ffi::CString::new(name)?;
    match entry(parent, &name, mount, DEPTH_MAX) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        outcome => outcome,
    }
}

fn entry(parent: BorrowedFd<'_>, name: &CStr, mount: u64, depth: u32) -> io::Result<()> {
    let found = volume_fs::attributes(parent, name)?;
    if found.mount != mount {
        let name = name.to_string_lossy();
        return Err(io::Error::other(format!("something is mounted on {name}")));
    }
    match found.kind {
        Kind::Directory if depth == 0 => Err(io::Error::other("directories are nested too deeply")),
        Kind::Directory => {
            let child = volume_fs::open_child_directory(parent, name)?;
            for below in volume_fs::names(child.as_fd())? {
                entry(child.as_fd(), &below, mount, depth - 1)?;
            }
            volume_fs::remove_directory(parent, name)
        }
        Kind::File | Kind::Symlink | Kind::Other => volume_fs::remove_file(parent, name),
    }
}
