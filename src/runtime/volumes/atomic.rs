//! The atomic writer: a container sees all files of one version or all of the next.
//!
//! ```text
//!  VOLUME/..2026_11_23_10_00_00.1234567890/{a,dir/b}    one version
//!  VOLUME/..data -> ..2026_11_23_10_00_00.1234567890    renamed over: the one moment of change
//!  VOLUME/a -> ..data/a      VOLUME/dir -> ..data/dir   what users open
//! ```
//!
//! Nothing is written if content, names and modes are the same. Whatever else is in the directory
//! is removed without following links. Source: k8s.io/kubernetes pkg/volume/util/atomic_writer.go.

use std::collections::BTreeSet;
use std::ffi::CString;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use jiff::Timestamp;
use jiff::tz::TimeZone;

use crate::object::gather::Gather;
use crate::os::remove;
use crate::os::volume_fs::{self, Kind};
use crate::world::ProjectedFile;

const DATA: &str = "..data";
const DATA_NEXT: &str = "..data_tmp";
/// Everybody may enter: the files' own modes decide who reads.
const DIRECTORY_MODE: u32 = 0o755;
/// What fsGroup adds to files that are never written to from inside.
const GROUP_READ: u32 = 0o440;
/// Names tried for a data directory before giving up.
const NAMES_MAX: u32 = 100;

/// Writes `files` as the volume's whole content, readable by `group` if there is one.
/// Errors: operation, path and cause.
pub(super) fn write(
    directory: &Path,
    files: &[ProjectedFile],
    group: Option<u32>,
    now: Timestamp,
) -> Result<(), String> {
    let error = |what: &str, cause: io::Error| format!("{what} {}: {cause}", directory.display());
    let volume = volume_fs::open_directory(directory).map_err(|e| error("open", e))?;
    let volume = volume.as_fd();
    own(volume, DIRECTORY_MODE, group).map_err(|e| error("set mode of", e))?;
    let current = current_version(volume);
    let stands = current
        .as_ref()
        .is_some_and(|name| is_same(volume, name, files, group));
    if !stands {
        let name = write_version(volume, files, group, now).map_err(|e| error("write", e))?;
        publish(volume, &name).map_err(|e| error("publish", e))?;
    }
    link_and_sweep(volume, files).map_err(|e| error("clean", e))
}

/// Name of the directory that `..data` leads to, if it is one of ours.
fn current_version(volume: BorrowedFd<'_>) -> Option<String> {
    let target = volume_fs::read_link(volume, DATA).ok()?;
    let ours = target.starts_with("..") && !target.contains('/') && target.len() > 2;
    ours.then_some(target)
}

/// Whether a version holds exactly these files.
fn is_same(
    volume: BorrowedFd<'_>,
    version: &str,
    files: &[ProjectedFile],
    group: Option<u32>,
) -> bool {
    let Ok(data) = volume_fs::open_child_directory(volume, version) else {
        return false;
    };
    let mut present = BTreeSet::new();
    if list_files(data.as_fd(), "", &mut present).is_err() {
        return false;
    }
    let wanted: BTreeSet<&str> = files.iter().map(|file| file.path.as_str()).gathered();
    present
        .iter()
        .map(String::as_str)
        .eq(wanted.iter().copied())
        && files
            .iter()
            .all(|file| is_same_file(data.as_fd(), file, group))
}

fn is_same_file(data: BorrowedFd<'_>, file: &ProjectedFile, group: Option<u32>) -> bool {
    let same = || -> io::Result<bool> {
        let (parent, name) = open_parent(data, &file.path, Missing::Error)?;
        let found = volume_fs::attributes(parent.as_fd(), name)?;
        let fits = found.kind == Kind::File
            && found.mode == mode_of(file, group)
            && found.uid == file.uid.unwrap_or(0)
            && group.is_none_or(|group| found.gid == group);
        let limit = file.bytes.len() as u64 + 1;
        Ok(fits && volume_fs::read_child(parent.as_fd(), name, limit)? == file.bytes)
    };
    same().unwrap_or(false)
}

fn mode_of(file: &ProjectedFile, group: Option<u32>) -> u32 {
    match group {
        Some(_) => file.mode | GROUP_READ,
        None => file.mode,
    }
}

/// Paths of all entries that are no directories, relative to the version.
fn list_files(
    directory: BorrowedFd<'_>,
    prefix: &str,
    found: &mut BTreeSet<String>,
) -> io::Result<()> {
    for name in volume_fs::names(directory)? {
        let text = name.to_str().map_err(|_| io::ErrorKind::InvalidData)?;
        let path = format!("{prefix}{text}");
        if volume_fs::attributes(directory, &name)?.kind == Kind::Directory {
            let child = volume_fs::open_child_directory(directory, &name)?;
            list_files(child.as_fd(), &format!("{path}/"), found)?;
        } else {
            found.insert(path);
        }
    }
    Ok(())
}

/// Writes a new version beside the current one and returns its name.
fn write_version(
    volume: BorrowedFd<'_>,
    files: &[ProjectedFile],
    group: Option<u32>,
    now: Timestamp,
) -> io::Result<String> {
    let (name, data) = make_version(volume, now)?;
    own(data.as_fd(), DIRECTORY_MODE, group)?;
    for file in files {
        let (parent, file_name) = open_parent(data.as_fd(), &file.path, Missing::Make(group))?;
        let mode = mode_of(file, group);
        let made = volume_fs::write_new_file(parent.as_fd(), file_name, &file.bytes, mode)?;
        if file.uid.is_some() || group.is_some() {
            volume_fs::set_owner_of(made.as_fd(), file.uid, group)?;
            volume_fs::set_mode(made.as_fd(), mode)?;
        }
    }
    Ok(name)
}

fn make_version(volume: BorrowedFd<'_>, now: Timestamp) -> io::Result<(String, OwnedFd)> {
    let stamp = now
        .to_zoned(TimeZone::UTC)
        .strftime("%Y_%m_%d_%H_%M_%S")
        .to_string();
    let digits = u64::from(now.subsec_nanosecond().unsigned_abs());
    for attempt in 0..u64::from(NAMES_MAX) {
        let name = format!("..{stamp}.{}", digits + attempt);
        match volume_fs::make_directory(volume, name.as_str(), DIRECTORY_MODE) {
            Ok(made) => return Ok((name, made)),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(error),
        }
    }
    Err(io::ErrorKind::AlreadyExists.into())
}

fn own(directory: BorrowedFd<'_>, mode: u32, group: Option<u32>) -> io::Result<()> {
    let found = volume_fs::attributes_of(directory)?;
    if group.is_some_and(|group| group != found.gid) {
        volume_fs::set_owner_of(directory, None, group)?;
    }
    if found.mode & 0o777 != mode {
        volume_fs::set_mode(directory, mode)?;
    }
    Ok(())
}

#[derive(Clone, Copy)]
enum Missing {
    Error,
    Make(Option<u32>),
}

/// Opens the directory that `path` (checked: relative, no `..`) lies in, and its last component.
fn open_parent<'a>(
    base: BorrowedFd<'_>,
    path: &'a str,
    missing: Missing,
) -> io::Result<(OwnedFd, &'a str)> {
    let mut parent = base.try_clone_to_owned()?;
    let (above, name) = path.rsplit_once('/').unwrap_or(("", path));
    for component in above.split('/').filter(|c| !c.is_empty()) {
        let opened = volume_fs::open_child_directory(parent.as_fd(), component);
        parent = match (opened, missing) {
            (Err(error), Missing::Make(group)) if error.kind() == io::ErrorKind::NotFound => {
                let made = volume_fs::make_directory(parent.as_fd(), component, DIRECTORY_MODE)?;
                own(made.as_fd(), DIRECTORY_MODE, group)?;
                made
            }
            (outcome, Missing::Error | Missing::Make(_)) => outcome?,
        };
    }
    Ok((parent, name))
}

/// Makes `..data` lead to `version`: one rename.
fn publish(volume: BorrowedFd<'_>, version: &str) -> io::Result<()> {
    // Left over if the agent died between the two calls below.
    remove::tree(volume, DATA_NEXT.as_bytes())?;
    volume_fs::make_link(volume, DATA_NEXT, version)?;
    if volume_fs::attributes(volume, DATA).is_ok_and(|found| found.kind == Kind::Directory) {
        remove::tree(volume, DATA.as_bytes())?;
    }
    volume_fs::rename(volume, DATA_NEXT, DATA)
}

/// Links every top-level name into `..data` and removes all that belongs to no file.
fn link_and_sweep(volume: BorrowedFd<'_>, files: &[ProjectedFile]) -> io::Result<()> {
    let version = volume_fs::read_link(volume, DATA)?;
    let top = |path: &str| path.split('/').next().unwrap_or_default().to_owned();
    let wanted: BTreeSet<String> = files.iter().map(|file| top(&file.path)).gathered();
    for name in &wanted {
        let target = format!("{DATA}/{name}");
        if volume_fs::read_link(volume, name.as_str()).is_ok_and(|found| found == target) {
            continue;
        }
        remove::tree(volume, name.as_bytes())?;
        volume_fs::make_link(volume, name, &target)?;
    }
    let keep = |name: &CString| {
        let name = name.to_str().unwrap_or_default();
        name == DATA || name == version || wanted.contains(name)
    };
    for name in volume_fs::names(volume)?.iter().filter(|name| !keep(name)) {
        remove::tree(volume, name.to_bytes())?;
    }
    Ok(())
}
