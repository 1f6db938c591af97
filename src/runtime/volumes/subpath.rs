//! From a container's mount to a path that is safe to bind, and sub-paths of volumes.
//!
//! ```text
//!  volume directory (fd) ─► missing directories, one name at a time ─► openat2 BENEATH (fd)
//!        └─► bind /proc/self/fd/N to ROOT/pods/UID/volume-subpaths/<volume>/<container>/<index>
//! ```
//!
//! A container can replace any part of its sub-path by a link at any moment (CVE-2017-1002101,
//! CVE-2021-25741). So the path is walked by the kernel, which refuses to leave the volume, and
//! what was reached is bound by descriptor: its name is never looked up again.

use std::fmt;
use std::fs::{self, DirBuilder, OpenOptions};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use super::{EMPTY_DIR, PLUGINS, host_path, mounts, pod_directory};
use crate::os::remove;
use crate::os::volume_fs::{self, Kind};
use crate::runtime::bundle::{Access, ResolvedMount};
use crate::world::{Mount, MountSource, Propagation, RemoveError, Uid};

/// Targets of sub-paths are the node's own.
const TARGET_DIRECTORY_MODE: u32 = 0o750;

/// Why a mount cannot be made, by what has to change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MountError {
    /// The pod or its volume's content: `CreateContainerConfigError`. Names no path of the host.
    Config(String),
    /// The node (mount refused, no space): retried.
    Failed(String),
}

impl fmt::Display for MountError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            MountError::Config(text) | MountError::Failed(text) => f.write_str(text),
        }
    }
}

impl std::error::Error for MountError {}

/// Makes the mount's source ready and says where it is. Blocks on the disk.
///
/// `index` is the mount's place in the container's list. A sub-path is bound anew each time: the
/// directory may have been replaced since the last instance (kubernetes#56625). The container
/// must not be running.
pub fn resolve_mount(
    root: &Path,
    uid: &Uid,
    container: &str,
    index: usize,
    mount: &Mount,
) -> Result<ResolvedMount, MountError> {
    let (base, sub_path, plugin) = match &mount.source {
        MountSource::HostPath { path, sub_path } => {
            if !Path::new(path).exists() {
                // What an untyped hostPath becomes; the typed ones were checked at set-up.
                host_path::make_directory(path).map_err(MountError::Failed)?;
            }
            (PathBuf::from(path), sub_path, None)
        }
        MountSource::Volume { name, sub_path } => {
            let (path, plugin) = volume_directory(root, uid, name)
                .ok_or_else(|| MountError::Failed(format!("volume {name:?} is not set up")))?;
            (path, sub_path, Some(plugin))
        }
    };
    let source = match sub_path.as_deref().filter(|path| !path.is_empty()) {
        None => base,
        Some(sub_path) => {
            let target = pod_directory(root, uid)
                .join("volume-subpaths")
                .join(&mount.volume)
                .join(container)
                .join(index.to_string());
            bind_sub_path(&base, sub_path, &target)
                .map_err(|failure| failure.into_error(&mount.volume, container))?;
            target
        }
    };
    check_propagation(&source, mount.propagation)?;
    // Files that the node writes stay the node's, whatever the mount says.
    let node_writes = plugin.is_some_and(|plugin| plugin != EMPTY_DIR);
    let access = match (mount.recursive_read_only, mount.read_only || node_writes) {
        (true, _) => Access::RecursiveReadOnly,
        (false, true) => Access::ReadOnly,
        (false, false) => Access::ReadWrite,
    };
    Ok(ResolvedMount {
        source,
        container_path: mount.container_path.clone(),
        access,
        propagation: mount.propagation,
    })
}

/// Where a volume is, and whose it is.
fn volume_directory(root: &Path, uid: &Uid, name: &str) -> Option<(PathBuf, &'static str)> {
    let volumes = pod_directory(root, uid).join("volumes");
    let places = PLUGINS
        .into_iter()
        .map(|plugin| (volumes.join(plugin).join(name), plugin));
    places
        .into_iter()
        .find(|(path, _)| fs::symlink_metadata(path).is_ok_and(|m| m.is_dir()))
}

/// The runtime binds recursively and would fail with a text about its own insides.
fn check_propagation(source: &Path, wanted: Propagation) -> Result<(), MountError> {
    if wanted == Propagation::Private {
        return Ok(());
    }
    let failed = |e: io::Error| MountError::Failed(format!("look up {}: {e}", source.display()));
    let path = source.canonicalize().map_err(failed)?;
    let Some(mount) = mounts::containing(&path).map_err(failed)? else {
        return Ok(());
    };
    let complain = |what: &str| {
        let (path, target) = (path.display(), mount.target.display());
        Err(MountError::Failed(format!(
            "path {path:?} is mounted on {target:?} but it is not a {what} mount"
        )))
    };
    match wanted {
        Propagation::Private => Ok(()),
        Propagation::Bidirectional if !mount.shared => complain("shared"),
        Propagation::HostToContainer if !mount.shared && !mount.slave => {
            complain("shared or slave")
        }
        Propagation::Bidirectional | Propagation::HostToContainer => Ok(()),
    }
}

/// Which step failed: the user sees no path of the host (upstream's rule).
enum Failure {
    Prepare(io::Error),
    MakeDirectory(io::Error),
    Bind(io::Error),
}

impl Failure {
    fn into_error(self, volume: &str, container: &str) -> MountError {
        let text = |what: &str| {
            format!("failed to {what} for volumeMount {volume:?} of container {container:?}")
        };
        match self {
            Failure::Prepare(error) => {
                MountError::Config(format!("{}: {error}", text("prepare subPath")))
            }
            Failure::MakeDirectory(error) => {
                MountError::Config(format!("{}: {error}", text("create subPath directory")))
            }
            Failure::Bind(error) => {
                MountError::Failed(format!("{}: {error}", text("bind subPath")))
            }
        }
    }
}

fn bind_sub_path(base: &Path, sub_path: &str, target: &Path) -> Result<(), Failure> {
    // A hostPath may itself be a link; from here on nothing of it is looked up by name again.
    let base = base.canonicalize().map_err(Failure::Prepare)?;
    let volume = volume_fs::open_directory(&base).map_err(Failure::Prepare)?;
    make_missing(volume.as_fd(), sub_path).map_err(Failure::MakeDirectory)?;
    let source = open_within(volume.as_fd(), &base, sub_path).map_err(Failure::Prepare)?;
    let kind = volume_fs::attributes_of(source.as_fd())
        .map_err(Failure::Prepare)?
        .kind;
    make_target(target, kind).map_err(Failure::Bind)?;
    volume_fs::bind(source.as_fd(), target).map_err(Failure::Bind)
}

fn components(path: &str) -> Result<Vec<&str>, io::Error> {
    let parts: Vec<&str> = path
        .split('/')
        .filter(|c| !c.is_empty() && *c != ".")
        .collect();
    if path.starts_with('/') || parts.contains(&"..") || path.contains('\0') {
        return Err(io::Error::other(
            "subPath must be relative and must not contain '..'",
        ));
    }
    Ok(parts)
}

/// Makes the directories of the path that are not there, with the volume's own mode and group.
fn make_missing(volume: BorrowedFd<'_>, sub_path: &str) -> io::Result<()> {
    let like = volume_fs::attributes_of(volume)?;
    let mut parent = volume.try_clone_to_owned()?;
    let mut reached = String::new();
    for component in components(sub_path)? {
        reached = if reached.is_empty() {
            component.into()
        } else {
            format!("{reached}/{component}")
        };
        parent = match volume_fs::open_beneath(volume, &reached) {
            Ok(found) => found,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                // A dangling link answers "exists" here, and that is the end of it.
                let made = volume_fs::make_directory(parent.as_fd(), component, like.mode & 0o777)?;
                volume_fs::set_owner_of(made.as_fd(), Some(like.uid), Some(like.gid))?;
                volume_fs::set_mode(made.as_fd(), like.mode)?;
                made
            }
            // Absolute links leave the volume as far as the kernel can tell: sorted out later.
            Err(error) if error.kind() == io::ErrorKind::CrossesDevices => return Ok(()),
            Err(error) => return Err(error),
        };
    }
    Ok(())
}

/// Opens what the path leads to, or fails if that is not within the volume.
fn open_within(volume: BorrowedFd<'_>, base: &Path, sub_path: &str) -> io::Result<OwnedFd> {
    let path = components(sub_path)?.join("/");
    let path = if path.is_empty() { "." } else { &path };
    match volume_fs::open_beneath(volume, path) {
        // An absolute link: allowed if it ends within the volume. What it means now is walked
        // again without any link, so a change in between fails and leads nowhere else.
        Err(error) if error.kind() == io::ErrorKind::CrossesDevices => {
            let outside = || io::Error::other("subPath leads out of the volume");
            let real = base.join(path).canonicalize().map_err(|_| outside())?;
            let within = real.strip_prefix(base).map_err(|_| outside())?;
            let within = within.to_str().ok_or_else(outside)?;
            let within = if within.is_empty() { "." } else { within };
            volume_fs::open_beneath_without_links(volume, within)
        }
        outcome => outcome,
    }
}

/// Makes an empty directory or file to bind over, ending what was bound there before.
fn make_target(target: &Path, kind: Kind) -> io::Result<()> {
    if let Some(error) = mounts::unmount_below(target).into_iter().next() {
        return Err(io::Error::other(error));
    }
    let parent = target.parent().ok_or(io::ErrorKind::InvalidInput)?;
    let mut directories = DirBuilder::new();
    directories.recursive(true).mode(TARGET_DIRECTORY_MODE);
    directories.create(parent)?;
    let opened = volume_fs::open_directory(parent)?;
    let name = target.file_name().ok_or(io::ErrorKind::InvalidInput)?;
    remove::tree(opened.as_fd(), name.as_bytes())?;
    match kind {
        Kind::Directory => directories.create(target),
        Kind::File | Kind::Other => OpenOptions::new()
            .write(true)
            .create_new(true)
            .open(target)
            .map(drop),
        Kind::Symlink => Err(io::Error::other("subPath is a link")),
    }
}

/// Ends and removes the sub-path binds of one container. Success if there are none.
pub fn clean_subpaths(root: &Path, uid: &Uid, container: &str) -> Result<(), RemoveError> {
    let all = pod_directory(root, uid).join("volume-subpaths");
    let Ok(volumes) = fs::read_dir(&all) else {
        return Ok(());
    };
    let (mut mounted, mut files) = (Vec::new(), Vec::new());
    for volume in volumes.flatten() {
        let mounted_here = mounts::unmount_below(&volume.path().join(container));
        if mounted_here.is_empty() {
            let removed = volume_fs::open_directory(&volume.path())
                .and_then(|directory| remove::tree(directory.as_fd(), container.as_bytes()));
            let named = |error| format!("remove {:?}: {error}", volume.path());
            files.extend(removed.err().map(named));
        }
        mounted.extend(mounted_here);
    }
    match (mounted.is_empty(), files.is_empty()) {
        (true, true) => Ok(()),
        (true, false) => Err(RemoveError::Files(files.join("; "))),
        (false, _) => Err(RemoveError::Held(mounted.join("; "))),
    }
}
