//! Mounts.

use std::ffi::CStr;
use std::io;
use std::path::Path;

use rustix::mount::{MountFlags, MountPropagationFlags, UnmountFlags};

/// Flags of a mount, by mount(2)'s names.
pub use rustix::mount::MountFlags as Flags;

/// Mounts a file system. `data` is its own option text (`size=64k,mode=0755`).
pub fn mount(source: &str, target: &Path, kind: &str, flags: Flags, data: &CStr) -> io::Result<()> {
    Ok(rustix::mount::mount(source, target, kind, flags, data)?)
}

/// Binds `source` over `target` (a directory over a directory, a file over a file).
pub fn bind(source: &Path, target: &Path) -> io::Result<()> {
    Ok(rustix::mount::mount_bind(source, target)?)
}

/// Binds with all mounts below.
pub fn bind_recursive(source: &Path, target: &Path) -> io::Result<()> {
    Ok(rustix::mount::mount_bind_recursive(source, target)?)
}

/// Binds so that nothing can be written through `target`. Between the two system calls it can,
/// so do it where nobody else looks yet.
pub fn bind_read_only(source: &Path, target: &Path) -> io::Result<()> {
    bind(source, target)?;
    let flags = MountFlags::BIND | MountFlags::RDONLY | MountFlags::NOSUID | MountFlags::NODEV;
    let remounted = rustix::mount::mount_remount(target, flags, c"");
    if remounted.is_err() {
        let _best_effort = unmount_lazily(target);
    }
    Ok(remounted?)
}

/// Which way mounts and unmounts below a mount spread.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Spread {
    Private,
    Downstream,
    Shared,
}

/// Sets the propagation of the mount at `target` and of all below it.
pub fn set_propagation(target: &Path, spread: Spread) -> io::Result<()> {
    let flags = match spread {
        Spread::Private => MountPropagationFlags::PRIVATE,
        Spread::Downstream => MountPropagationFlags::DOWNSTREAM,
        Spread::Shared => MountPropagationFlags::SHARED,
    };
    let flags = flags | MountPropagationFlags::REC;
    Ok(rustix::mount::mount_change(target, flags)?)
}

/// Unmounts if nobody uses it. Errors: `ResourceBusy`; `InvalidInput` if it is no mount point.
pub fn unmount(target: &Path) -> io::Result<()> {
    Ok(rustix::mount::unmount(target, UnmountFlags::NOFOLLOW)?)
}

/// Takes the mount out of the tree now; it ends when its last user does.
pub fn unmount_lazily(target: &Path) -> io::Result<()> {
    let flags = UnmountFlags::DETACH | UnmountFlags::NOFOLLOW;
    Ok(rustix::mount::unmount(target, flags)?)
}
