//! A container's root file system: the image's layers below, a directory of its own on top.
//!
//! Mounted `volatile` where the kernel can (Linux 5.10): the upper directory belongs to one
//! instance, which no reboot survives, so waiting for flash on its behalf would buy nothing.

use std::ffi::CString;
use std::fs;
use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use crate::os::mount::{self, Flags};

/// mount(2) takes one page of options; a little of it is the other options'.
const LOWER_BYTES_MAX: usize = 3 * 1024;

/// Makes upper and work directory below `writable` and mounts at `target`.
/// `layers`: directories, topmost first, as overlay wants them. Blocking: touches the disk.
pub fn mount(layers: &[PathBuf], writable: &Path, target: &Path) -> io::Result<()> {
    let upper = writable.join("upper");
    let work = writable.join("work");
    fs::create_dir_all(&upper)?;
    fs::create_dir_all(&work)?;
    fs::create_dir_all(target)?;
    let mut lower = joined(layers.iter().map(PathBuf::as_path));
    let mut held: Vec<File> = Vec::new();
    if lower.len() > LOWER_BYTES_MAX {
        // Very many layers: name them by descriptor. Only the mount call looks them up.
        held = layers
            .iter()
            .rev()
            .map(File::open)
            .collect::<Result<_, _>>()?;
        let short: Vec<PathBuf> = held
            .iter()
            .map(|file| PathBuf::from(format!("/proc/self/fd/{}", file.as_raw_fd())))
            .collect();
        lower = joined(short.iter().map(PathBuf::as_path));
    }
    let mut options = b"lowerdir=".to_vec();
    options.extend(lower);
    options.extend(b",upperdir=");
    options.extend(escaped(&upper));
    options.extend(b",workdir=");
    options.extend(escaped(&work));
    let mut volatile = options.clone();
    volatile.extend(b",volatile");
    let outcome = match attempt(target, volatile) {
        Err(error) if error.kind() == io::ErrorKind::InvalidInput => attempt(target, options),
        outcome => outcome,
    };
    drop(held);
    outcome.map_err(|error| {
        io::Error::new(
            error.kind(),
            format!("mount overlay on {}: {error}", target.display()),
        )
    })
}

fn attempt(target: &Path, options: Vec<u8>) -> io::Result<()> {
    let options = CString::new(options)?;
    mount::mount("overlay", target, "overlay", Flags::empty(), &options)
}

/// Takes the mount at `target` away; success if there is none.
pub fn unmount(target: &Path) -> io::Result<()> {
    match mount::unmount_lazily(target) {
        Err(error)
            if matches!(
                error.kind(),
                // No mount point; no such path.
                io::ErrorKind::InvalidInput | io::ErrorKind::NotFound
            ) =>
        {
            Ok(())
        }
        outcome => outcome.map_err(|error| {
            io::Error::new(
                error.kind(),
                format!("unmount {}: {error}", target.display()),
            )
        }),
    }
}

fn joined<'a>(paths: impl Iterator<Item = &'a Path>) -> Vec<u8> {
    let escaped: Vec<Vec<u8>> = paths.map(escaped).collect();
    escaped.join(&b':')
}

/// Colons separate layers, commas options; overlay takes a backslash before either.
fn escaped(path: &Path) -> Vec<u8> {
    let mut bytes = Vec::new();
    for byte in path.as_os_str().as_bytes() {
        if matches!(byte, b':' | b',' | b'\\') {
            bytes.push(b'\\');
        }
        bytes.push(*byte);
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn separators_in_paths_are_escaped() {
        for (path, expected) in [
            ("/a/b", "/a/b"),
            ("/a:b,c", "/a\\:b\\,c"),
            ("/a\\", "/a\\\\"),
        ] {
            assert_eq!(escaped(Path::new(path)), expected.as_bytes());
        }
        let layers = [Path::new("/x"), Path::new("/y")];
        assert_eq!(joined(layers.into_iter()), b"/x:/y");
    }
}
