//! Volumes of pods on the real disk.
//!
//! ```text
//!  ROOT/pods/UID/volumes/<plugin>/<name>                          set_up, tear_down
//!  ROOT/pods/UID/volume-subpaths/<volume>/<container>/<index>     resolve_mount, clean_subpaths
//! ```
//!
//! A container may write whatever it likes into its volumes, links and races included. Below a
//! volume's own directory nothing is therefore reached by path: only from descriptors, one name at
//! a time, or through openat2(2). Nothing here is flushed: after a power cut volumes are made anew.
//! Never: deciding what a volume contains (kubelet), mounting into containers (the OCI runtime).

mod atomic;
mod empty_dir;
mod host_path;
mod mounts;
mod ownership;
mod subpath;

use std::fs;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::rc::Rc;

use jiff::Timestamp;

use crate::os::{remove, volume_fs};
use crate::world::{
    Clock, FileMedium, LocalFuture, PodVolumes, RemoveError, Uid, VolumeContent, VolumeError,
    VolumeSetUp, Volumes,
};

pub use subpath::{MountError, clean_subpaths, resolve_mount};

const EMPTY_DIR: &str = "kubernetes.io~empty-dir";

/// Where a pod's emptyDir volumes lie, each by its name.
pub fn empty_dirs(root: &Path, uid: &Uid) -> PathBuf {
    pod_directory(root, uid).join("volumes").join(EMPTY_DIR)
}

/// Plug-ins that have a directory of their own, in the order in which mounts look for a volume.
const PLUGINS: [&str; 5] = [
    EMPTY_DIR,
    "kubernetes.io~configmap",
    "kubernetes.io~secret",
    "kubernetes.io~projected",
    "kubernetes.io~downward-api",
];

/// What of a pod's directory goes with its volumes; the rest is the kubelet's and the runtime's.
const OWN_ENTRIES: [&str; 5] = [
    "volume-subpaths",
    "volumes",
    "plugins",
    "containers",
    "etc-hosts",
];

/// The real `Volumes`: disk work runs on a blocking thread, never on the one that owns the state.
pub struct DiskVolumes {
    root: PathBuf,
    clock: Rc<dyn Clock>,
}

impl DiskVolumes {
    /// `root` is `--root-dir`, canonical.
    pub fn new(root: PathBuf, clock: Rc<dyn Clock>) -> DiskVolumes {
        DiskVolumes { root, clock }
    }
}

impl Volumes for DiskVolumes {
    fn set_up(&self, pod: PodVolumes) -> LocalFuture<'_, Result<(), Vec<VolumeError>>> {
        let (root, now) = (self.root.clone(), self.clock.wall());
        Box::pin(blocking::unblock(move || set_up(&root, &pod, now)))
    }

    fn unmount(&self, uid: &Uid) -> LocalFuture<'_, Result<(), RemoveError>> {
        let pod = pod_directory(&self.root, uid);
        Box::pin(blocking::unblock(move || unmount(&pod)))
    }

    fn tear_down(&self, uid: &Uid) -> LocalFuture<'_, Result<(), RemoveError>> {
        let (root, uid) = (self.root.clone(), uid.clone());
        Box::pin(blocking::unblock(move || tear_down(&root, &uid)))
    }
}

fn pod_directory(root: &Path, uid: &Uid) -> PathBuf {
    root.join("pods").join(uid.as_str())
}

/// Brings all volumes to their content; `now` names new data directories.
fn set_up(root: &Path, pod: &PodVolumes, now: Timestamp) -> Result<(), Vec<VolumeError>> {
    let mut errors = Vec::new();
    for volume in &pod.volumes {
        if let Err(message) = set_up_one(root, pod, volume, now) {
            errors.push(VolumeError {
                volume: volume.name.clone(),
                message,
            });
        }
    }
    if errors.is_empty() {
        Ok(())
    } else {
        Err(errors)
    }
}

fn set_up_one(
    root: &Path,
    pod: &PodVolumes,
    volume: &VolumeSetUp,
    now: Timestamp,
) -> Result<(), String> {
    match &volume.content {
        VolumeContent::HostPath { path, kind } => host_path::check(path, *kind),
        VolumeContent::EmptyDir { medium, size_bytes } => {
            let directory = directory(root, &pod.uid, EMPTY_DIR, &volume.name)?;
            let ready = pod_directory(root, &pod.uid)
                .join("plugins")
                .join(EMPTY_DIR)
                .join(&volume.name)
                .join("ready");
            empty_dir::set_up(&directory, &ready, *medium, *size_bytes, pod.fs_group)
        }
        VolumeContent::Files {
            plugin,
            medium,
            files,
        } => {
            let directory = directory(root, &pod.uid, plugin, &volume.name)?;
            if *medium == FileMedium::Tmpfs {
                mounts::ensure_tmpfs(&directory, "mode=755")
                    .map_err(|e| format!("mount tmpfs on {}: {e}", directory.display()))?;
            }
            atomic::write(&directory, files, pod.fs_group, now)
        }
    }
}

/// Makes the directory of a volume with its parents (all 0750: containers reach a volume through
/// mounts, other users of the host not at all).
fn directory(root: &Path, uid: &Uid, plugin: &str, name: &str) -> Result<PathBuf, String> {
    let path = pod_directory(root, uid)
        .join("volumes")
        .join(plugin)
        .join(name);
    let made = fs::DirBuilder::new()
        .recursive(true)
        .mode(0o750)
        .create(&path);
    made.map_err(|e| format!("make directory {}: {e}", path.display()))?;
    Ok(path)
}

/// Sets a directory's mode whatever the umask was.
fn force_mode(path: &Path, mode: u32) -> io::Result<()> {
    fs::set_permissions(path, fs::Permissions::from_mode(mode))
}

fn unmount(pod: &Path) -> Result<(), RemoveError> {
    let mut mounted = Vec::new();
    for tree in ["volume-subpaths", "volumes"] {
        mounted.extend(mounts::unmount_below(&pod.join(tree)));
    }
    match mounted.is_empty() {
        true => Ok(()),
        false => Err(RemoveError::Held(mounted.join("; "))),
    }
}

/// Unmounts and removes what belongs to the pod's volumes, and its directory if then empty: the
/// kubelet's own records (`pod.json`, `final.json`) are not ours to remove.
fn tear_down(root: &Path, uid: &Uid) -> Result<(), RemoveError> {
    let pods = root.join("pods");
    let pod = pod_directory(root, uid);
    if !pod.exists() {
        return Ok(());
    }
    unmount(&pod)?;
    let mut errors = Vec::new();
    match volume_fs::open_directory(&pod) {
        Ok(directory) => {
            for tree in OWN_ENTRIES {
                if let Err(error) = remove::tree(directory.as_fd(), tree.as_bytes()) {
                    errors.push(format!("remove {}/{tree}: {error}", pod.display()));
                }
            }
        }
        Err(error) => errors.push(format!("open {}: {error}", pod.display())),
    }
    if !errors.is_empty() {
        return Err(RemoveError::Files(errors.join("; ")));
    }
    if let Ok(pods) = volume_fs::open_directory(&pods) {
        // Records of others may still be there: theirs to remove.
        let _ = volume_fs::remove_directory(pods.as_fd(), uid.as_str());
    }
    Ok(())
}

#[cfg(test)]
mod tests;
