//! hostPath: is there what the pod says there is? Never changes owner or mode of what it finds.
//! Source for texts: k8s.io/kubernetes pkg/volume/hostpath.

use std::fs::{self, DirBuilder, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, OpenOptionsExt};

use super::force_mode;
use crate::world::HostPathType;

/// Checks the type, making directory or file where the type says so.
pub(super) fn check(path: &str, kind: HostPathType) -> Result<(), String> {
    if path.split('/').any(|part| part == "..") {
        return Err(format!("hostPath {path:?} must not contain '..'"));
    }
    let found = match fs::metadata(path) {
        Ok(found) => Some(found.file_type()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        Err(error) => return Err(format!("hostPath type check failed: stat {path}: {error}")),
    };
    let fail = |what: &str| Err(format!("hostPath type check failed: {path} is not {what}"));
    let is = |test: fn(&fs::FileType) -> bool| found.as_ref().is_some_and(test);
    match kind {
        HostPathType::Unset => Ok(()),
        HostPathType::DirectoryOrCreate if found.is_none() => make_directory(path),
        HostPathType::DirectoryOrCreate | HostPathType::Directory => {
            if is(fs::FileType::is_dir) {
                Ok(())
            } else {
                fail("a directory")
            }
        }
        HostPathType::FileOrCreate if found.is_none() => make_file(path),
        HostPathType::FileOrCreate | HostPathType::File => {
            if is(fs::FileType::is_file) {
                Ok(())
            } else {
                fail("a file")
            }
        }
        HostPathType::Socket => {
            if is(FileTypeExt::is_socket) {
                Ok(())
            } else {
                fail("a socket file")
            }
        }
        HostPathType::CharDevice => {
            if is(FileTypeExt::is_char_device) {
                Ok(())
            } else {
                fail("a character device")
            }
        }
        HostPathType::BlockDevice => {
            if is(FileTypeExt::is_block_device) {
                Ok(())
            } else {
                fail("a block device")
            }
        }
    }
}

/// With parents, mode 0755: also what a mount of an untyped path that is not there becomes.
pub(super) fn make_directory(path: &str) -> Result<(), String> {
    let made = DirBuilder::new().recursive(true).mode(0o755).create(path);
    let made = made.and_then(|()| force_mode(path.as_ref(), 0o755));
    made.map_err(|error| format!("make directory {path}: {error}"))
}

/// The parent must be there. Mode 0644.
fn make_file(path: &str) -> Result<(), String> {
    let made = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o644)
        .open(path);
    made.and_then(|_| force_mode(path.as_ref(), 0o644))
        .map_err(|error| format!("make file {path}: {error}"))
}
