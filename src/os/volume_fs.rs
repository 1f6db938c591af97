//! File operations for volumes: everything relative to an open directory, nothing through links.
//!
//! Volumes are written by containers, so every path in them is hostile: a name that was a
//! directory a moment ago may be a link to `/etc` now. Functions here take a directory descriptor
//! and one name, or ask the kernel to stay within a root (openat2(2), Linux 5.6). No policy.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{
    AtFlags, CWD, FileType, Gid, Mode, OFlags, RawDir, ResolveFlags, StatxFlags, Uid,
};
#[cfg(test)]
use rustix::mount::MountPropagationFlags;
use rustix::mount::{MountFlags, UnmountFlags};
use rustix::path::Arg;

/// openat2(2) answers EAGAIN while somebody renames on the path: tried this often.
const RACE_RETRIES_MAX: u32 = 16;
/// Read buffer for directory entries.
const DIRECTORY_BUFFER_BYTES: usize = 8192;

/// What an entry is, without following it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Directory,
    File,
    Symlink,
    Other,
}

/// Attributes of an entry that volumes care about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Attributes {
    pub kind: Kind,
    /// Permission bits with setuid, setgid and sticky.
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
    /// Number of the mount it is on; equal for all entries of one mount.
    pub mount: u64,
}

/// Opens a directory by path for use as a base. The last component may not be a link.
pub fn open_directory(path: &Path) -> io::Result<OwnedFd> {
    let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::RDONLY;
    Ok(rustix::fs::openat(CWD, path, flags, Mode::empty())?)
}

/// Opens the directory `name` in `parent`; a link is refused (ENOTDIR or ELOOP).
pub fn open_child_directory(parent: BorrowedFd<'_>, name: impl Arg + Copy) -> io::Result<OwnedFd> {
    let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::RDONLY;
    Ok(rustix::fs::openat(parent, name, flags, Mode::empty())?)
}

/// Opens anything that `path` below `base` leads to, as a mere location (O_PATH). Links are
/// followed as long as they stay below `base`; EXDEV if one does not.
pub fn open_beneath(base: BorrowedFd<'_>, path: &str) -> io::Result<OwnedFd> {
    open_resolving(
        base,
        path,
        ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS,
    )
}

/// Like `open_beneath`, and any link on the way is refused (ELOOP).
pub fn open_beneath_without_links(base: BorrowedFd<'_>, path: &str) -> io::Result<OwnedFd> {
    open_resolving(
        base,
        path,
        ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS,
    )
}

fn open_resolving(base: BorrowedFd<'_>, path: &str, how: ResolveFlags) -> io::Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::CLOEXEC;
    for _ in 0..RACE_RETRIES_MAX {
        match rustix::fs::openat2(base, path, flags, Mode::empty(), how) {
            Err(rustix::io::Errno::AGAIN) => {}
            outcome => return Ok(outcome?),
        }
    }
    Err(io::ErrorKind::WouldBlock.into())
}

/// Opens a regular file for reading as a process with root directory `root` would see it.
/// Errors: as open(2); `InvalidInput` if it is no regular file. Never blocks on a FIFO.
pub fn open_file_in_root(root: &Path, path: &str) -> io::Result<File> {
    let base = open_directory(root)?;
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let how = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    // Looked at through O_PATH first: opening a device would already act on it.
    let seen = rustix::fs::openat2(
        &base,
        path,
        OFlags::PATH | OFlags::CLOEXEC,
        Mode::empty(),
        how,
    )?;
    if attributes_of(seen.as_fd())?.kind != Kind::File {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    let file = rustix::fs::openat2(&base, path, flags, Mode::empty(), how)?;
    Ok(file.into())
}

/// Attributes of what `fd` is open on.
pub fn attributes_of(fd: BorrowedFd<'_>) -> io::Result<Attributes> {
    attributes_at(fd, "", AtFlags::EMPTY_PATH)
}

/// Attributes of the entry `name` itself, without following it or mounting anything.
pub fn attributes(parent: BorrowedFd<'_>, name: impl Arg + Copy) -> io::Result<Attributes> {
    attributes_at(
        parent,
        name,
        AtFlags::SYMLINK_NOFOLLOW | AtFlags::NO_AUTOMOUNT,
    )
}

fn attributes_at(at: BorrowedFd<'_>, name: impl Arg, flags: AtFlags) -> io::Result<Attributes> {
    let wanted = StatxFlags::BASIC_STATS | StatxFlags::MNT_ID;
    let found = rustix::fs::statx(at, name, flags, wanted)?;
    let kind = match FileType::from_raw_mode(found.stx_mode.into()) {
        FileType::Directory => Kind::Directory,
        FileType::RegularFile => Kind::File,
        FileType::Symlink => Kind::Symlink,
        _ => Kind::Other,
    };
    // Before Linux 5.8 there is no mount id; the device number tells most mounts apart.
    let has_id = found.stx_mask & StatxFlags::MNT_ID.bits() != 0;
    let device = (u64::from(found.stx_dev_major) << 32) | u64::from(found.stx_dev_minor);
    Ok(Attributes {
        kind,
        mode: u32::from(found.stx_mode) & 0o7777,
        uid: found.stx_uid,
        gid: found.stx_gid,
        mount: if has_id { found.stx_mnt_id } else { device },
    })
}

/// Makes a directory with exactly `mode` (whatever the umask) and opens it.
pub fn make_directory(
    parent: BorrowedFd<'_>,
    name: impl Arg + Copy,
    mode: u32,
) -> io::Result<OwnedFd> {
    rustix::fs::mkdirat(parent, name, Mode::from_raw_mode(mode & 0o777))?;
    let made = open_child_directory(parent, name)?;
    set_mode(made.as_fd(), mode)?;
    Ok(made)
}

/// Makes a new file with these bytes and exactly this mode; EEXIST if there is anything.
pub fn write_new_file(
    parent: BorrowedFd<'_>,
    name: &str,
    bytes: &[u8],
    mode: u32,
) -> io::Result<OwnedFd> {
    let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let made = rustix::fs::openat(parent, name, flags, Mode::from_raw_mode(0o600))?;
    let mut rest = bytes;
    while !rest.is_empty() {
        let written = rustix::io::write(&made, rest)?;
        rest = &rest[written..];
    }
    set_mode(made.as_fd(), mode)?;
    Ok(made)
}

/// Reads a regular file's bytes, at most `bytes_max`; a link or anything else is an error.
pub fn read_child(parent: BorrowedFd<'_>, name: &str, bytes_max: u64) -> io::Result<Vec<u8>> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file = File::from(rustix::fs::openat(parent, name, flags, Mode::empty())?);
    let mut bytes = Vec::new();
    io::Read::read_to_end(&mut io::Read::take(file, bytes_max), &mut bytes)?;
    Ok(bytes)
}

pub fn set_mode(fd: BorrowedFd<'_>, mode: u32) -> io::Result<()> {
    Ok(rustix::fs::fchmod(fd, Mode::from_raw_mode(mode))?)
}

/// Changes an entry's mode by name. Callers know that it is no link (a link has no mode).
pub fn set_mode_of_child(
    parent: BorrowedFd<'_>,
    name: impl Arg + Copy,
    mode: u32,
) -> io::Result<()> {
    // fchmodat(2) follows links, so go through a descriptor that cannot.
    let seen = rustix::fs::openat(
        parent,
        name,
        OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC,
        Mode::empty(),
    )?;
    if attributes_of(seen.as_fd())?.kind == Kind::Symlink {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    let mode = Mode::from_raw_mode(mode);
    Ok(rustix::fs::chmodat(
        CWD,
        descriptor_path(seen.as_fd()),
        mode,
        AtFlags::empty(),
    )?)
}

/// Changes owner and group of the entry itself, never of what a link points to.
pub fn set_owner(
    parent: BorrowedFd<'_>,
    name: impl Arg,
    uid: Option<u32>,
    gid: Option<u32>,
) -> io::Result<()> {
    let (uid, gid) = (uid.map(Uid::from_raw), gid.map(Gid::from_raw));
    Ok(rustix::fs::chownat(
        parent,
        name,
        uid,
        gid,
        AtFlags::SYMLINK_NOFOLLOW,
    )?)
}

pub fn set_owner_of(fd: BorrowedFd<'_>, uid: Option<u32>, gid: Option<u32>) -> io::Result<()> {
    Ok(rustix::fs::fchown(
        fd,
        uid.map(Uid::from_raw),
        gid.map(Gid::from_raw),
    )?)
}

pub fn read_link(parent: BorrowedFd<'_>, name: impl Arg + Copy) -> io::Result<String> {
    let target = rustix::fs::readlinkat(parent, name, Vec::new())?;
    target
        .into_string()
        .map_err(|_| io::ErrorKind::InvalidData.into())
}

pub fn make_link(parent: BorrowedFd<'_>, name: &str, target: &str) -> io::Result<()> {
    Ok(rustix::fs::symlinkat(target, parent, name)?)
}

pub fn rename(parent: BorrowedFd<'_>, from: &str, to: &str) -> io::Result<()> {
    Ok(rustix::fs::renameat(parent, from, parent, to)?)
}

/// Removes one name: a file, a link, never a directory.
pub fn remove_file(parent: BorrowedFd<'_>, name: impl Arg + Copy) -> io::Result<()> {
    Ok(rustix::fs::unlinkat(parent, name, AtFlags::empty())?)
}

pub fn remove_directory(parent: BorrowedFd<'_>, name: impl Arg + Copy) -> io::Result<()> {
    Ok(rustix::fs::unlinkat(parent, name, AtFlags::REMOVEDIR)?)
}

/// Names in a directory as the kernel has them, without `.` and `..`, sorted.
pub fn names(directory: BorrowedFd<'_>) -> io::Result<Vec<std::ffi::CString>> {
    let flags = OFlags::DIRECTORY | OFlags::CLOEXEC | OFlags::RDONLY;
    let own = rustix::fs::openat(directory, ".", flags, Mode::empty())?;
    let mut buffer = Vec::with_capacity(DIRECTORY_BUFFER_BYTES);
    let mut entries = RawDir::new(own, buffer.spare_capacity_mut());
    let mut names = Vec::new();
    while let Some(entry) = entries.next() {
        let name = entry?.file_name().to_owned();
        if name.as_bytes() != b"." && name.as_bytes() != b".." {
            names.push(name);
        }
    }
    names.sort_unstable();
    Ok(names)
}

/// A path that leads to what `fd` is open on, whatever its name has become. Valid while open.
pub fn descriptor_path(fd: BorrowedFd<'_>) -> PathBuf {
    PathBuf::from(format!("/proc/self/fd/{}", fd.as_raw_fd()))
}

/// Mounts an empty tmpfs. `data` are its options: `size=…,mode=…`.
pub fn mount_tmpfs(target: &Path, data: &str) -> io::Result<()> {
    let data = std::ffi::CString::new(data)?;
    let flags = MountFlags::NOSUID | MountFlags::NODEV;
    Ok(rustix::mount::mount(
        "tmpfs",
        target,
        "tmpfs",
        flags,
        data.as_c_str(),
    )?)
}

/// Binds what `source` is open on to `target`. The source's name plays no part.
pub fn bind(source: BorrowedFd<'_>, target: &Path) -> io::Result<()> {
    Ok(rustix::mount::mount_bind(descriptor_path(source), target)?)
}

/// Gives the calling thread a mount namespace of its own, so that a test's mounts end with it.
#[cfg(test)]
pub fn isolate_mounts() -> io::Result<()> {
    nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNS)?;
    let flags = MountPropagationFlags::PRIVATE | MountPropagationFlags::REC;
    Ok(rustix::mount::mount_change("/", flags)?)
}

/// Unmounts what is mounted at `target`, not following a link there. A busy mount is detached:
/// it vanishes when its last user does.
pub fn unmount(target: &Path) -> io::Result<()> {
    match rustix::mount::unmount(target, UnmountFlags::NOFOLLOW) {
        Err(rustix::io::Errno::BUSY) => {
            let lazily = UnmountFlags::NOFOLLOW | UnmountFlags::DETACH;
            Ok(rustix::mount::unmount(target, lazily)?)
        }
        outcome => Ok(outcome?),
    }
}
