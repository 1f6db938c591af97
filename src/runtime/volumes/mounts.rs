//! Which mounts exist below a directory, and making or ending them.

use std::fs;
use std::io;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use crate::object::order;
use crate::os::volume_fs;

/// Layers of mounts over one place that are ended in one go.
const ROUNDS_MAX: u32 = 8;

/// One line of mountinfo. Source: proc_pid_mountinfo(5).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct MountInfo {
    pub target: PathBuf,
    pub shared: bool,
    pub slave: bool,
}

/// Mounts in the order in which they were made.
pub(super) fn parse(text: &str) -> Vec<MountInfo> {
    text.lines().filter_map(parse_line).collect()
}

fn parse_line(line: &str) -> Option<MountInfo> {
    let mut fields = line.split(' ');
    let target = unescape(fields.nth(4)?);
    fields.next()?;
    let optional: Vec<&str> = fields.take_while(|field| *field != "-").collect();
    let has = |prefix: &str| optional.iter().any(|field| field.starts_with(prefix));
    Some(MountInfo {
        target,
        shared: has("shared:"),
        slave: has("master:"),
    })
}

/// Blank, tab, newline and backslash are written as three octal digits.
fn unescape(text: &str) -> PathBuf {
    use std::os::unix::ffi::OsStringExt;
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let octal = bytes.get(at + 1..at + 4).and_then(|digits| {
            let text = std::str::from_utf8(digits).ok()?;
            u8::from_str_radix(text, 8).ok()
        });
        match (bytes[at], octal) {
            (b'\\', Some(byte)) => {
                out.push(byte);
                at += 4;
            }
            (byte, _) => {
                out.push(byte);
                at += 1;
            }
        }
    }
    std::ffi::OsString::from_vec(out).into()
}

pub(super) fn read() -> io::Result<Vec<MountInfo>> {
    Ok(parse(&String::from_utf8_lossy(&fs::read(
        "/proc/thread-self/mountinfo",
    )?)))
}

/// The mount that `path` (canonical) is on.
pub(super) fn containing(path: &Path) -> io::Result<Option<MountInfo>> {
    let mounts = read()?;
    let candidates = mounts
        .into_iter()
        .filter(|mount| path.starts_with(&mount.target));
    // Of equal targets the later one covers the earlier.
    Ok(candidates.max_by_key(|mount| mount.target.as_os_str().len()))
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ensured {
    Present,
    Made,
}

/// Mounts a tmpfs unless there is a mount already. The directory is the node's own.
pub(super) fn ensure_tmpfs(directory: &Path, options: &str) -> io::Result<Ensured> {
    let own = volume_fs::open_directory(directory)?;
    let parent = directory.parent().ok_or(io::ErrorKind::InvalidInput)?;
    let parent = volume_fs::open_directory(parent)?;
    let mount_of = |fd| volume_fs::attributes_of(fd).map(|found| found.mount);
    if mount_of(own.as_fd())? != mount_of(parent.as_fd())? {
        return Ok(Ensured::Present);
    }
    volume_fs::mount_tmpfs(directory, options)?;
    Ok(Ensured::Made)
}

/// Ends every mount at or below `directory`, innermost first; returns what could not be ended.
/// What a container mounted there itself (Bidirectional) is ended too, never what it shows.
pub(super) fn unmount_below(directory: &Path) -> Vec<String> {
    let mut errors = Vec::new();
    for _ in 0..ROUNDS_MAX {
        let mut targets: Vec<PathBuf> = match read() {
            Ok(mounts) => mounts.into_iter().map(|mount| mount.target).collect(),
            Err(error) => return vec![format!("read mounts: {error}")],
        };
        targets.retain(|target| target.starts_with(directory));
        if targets.is_empty() {
            return Vec::new();
        }
        targets.reverse();
        order::sort_by_key(&mut targets, |target| {
            std::cmp::Reverse(target.components().count())
        });
        errors.clear();
        for target in targets {
            if let Err(error) = volume_fs::unmount(&target) {
                errors.push(format!("unmount {}: {error}", target.display()));
            }
        }
    }
    errors
}
