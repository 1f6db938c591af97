//! The few things that a bundle needs to read out of an unpacked image.
//!
//! The image is hostile: its /etc/passwd may be a link to the host's, a FIFO or a gigabyte, and
//! its /proc may be a link that makes a runtime mount elsewhere. Every path is opened within the
//! root, links included, and nothing is ever written.

use std::fs;
use std::io::Read;
use std::path::Path;

use super::BundleError;
use crate::os::volume_fs;

/// Larger user files are cut; no real image comes near.
const USER_FILE_BYTES_MAX: u64 = 1024 * 1024;

/// Texts of the image's /etc/passwd and /etc/group; empty where there is no readable file.
pub fn user_files(rootfs: &Path) -> (String, String) {
    (
        read_within(rootfs, "etc/passwd"),
        read_within(rootfs, "etc/group"),
    )
}

fn read_within(rootfs: &Path, path: &str) -> String {
    let Ok(file) = volume_fs::open_file_in_root(rootfs, path) else {
        return String::new();
    };
    let mut bytes = Vec::new();
    match file.take(USER_FILE_BYTES_MAX).read_to_end(&mut bytes) {
        Ok(_) => String::from_utf8_lossy(&bytes).into_owned(),
        Err(_) => String::new(),
    }
}

/// Refuses images whose mount points for the kernel's file systems are links: older runtimes
/// follow them (CVE-2019-19921, CVE-2023-27561, CVE-2023-28642), newer ones refuse with a text
/// that names no cause. Nothing runs in the root yet, so nothing can change behind this check.
/// Errors: `Image`, naming the path.
pub fn check_mount_points(rootfs: &Path) -> Result<(), BundleError> {
    for path in ["proc", "sys", "dev"] {
        match fs::symlink_metadata(rootfs.join(path)) {
            Ok(entry) if !entry.is_dir() => {
                return Err(BundleError::Image(format!(
                    "the image's /{path} is not a directory"
                )));
            }
            Ok(_) | Err(_) => {}
        }
    }
    Ok(())
}
