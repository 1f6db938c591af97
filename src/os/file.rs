//! Files that must not be links, must not be torn, must not be taken twice.

use std::fs::File;
use std::io::{self, Read, Seek, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use rustix::fs::{FlockOperation, Mode, OFlags, RenameFlags};

use super::thread;

/// Opens for reading, never through a symlink at the last component, never blocking on a FIFO.
pub fn open_nofollow(path: &Path) -> io::Result<File> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    regular(rustix::fs::open(path, flags, Mode::empty())?)
}

/// Opens for appending, making the file with `mode`; never through a symlink.
pub fn append_nofollow(path: &Path, mode: u32) -> io::Result<File> {
    let flags = OFlags::WRONLY
        | OFlags::CREATE
        | OFlags::APPEND
        | OFlags::NOFOLLOW
        | OFlags::NONBLOCK
        | OFlags::CLOEXEC;
    regular(rustix::fs::open(path, flags, Mode::from_raw_mode(mode))?)
}

/// Anything but a regular file is refused.
fn regular(fd: OwnedFd) -> io::Result<File> {
    let kind = rustix::fs::FileType::from_raw_mode(rustix::fs::fstat(&fd)?.st_mode);
    match kind {
        rustix::fs::FileType::RegularFile => Ok(fd.into()),
        _ => Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            "not a regular file",
        )),
    }
}

/// At most `limit` bytes of a file that is no symlink.
pub fn read_bounded(path: &Path, limit: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    open_nofollow(path)?.take(limit).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// Replaces `path`: a reader sees the old or the new bytes. Not flushed to stable storage.
/// One writer for each path at a time.
pub fn replace(path: &Path, bytes: &[u8], mode: u32) -> io::Result<()> {
    replace_when(path, bytes, mode, |_| Ok(()))
}

/// As [`replace`], and after a power cut too it is the old or the new; when this returns, the new.
pub fn replace_durably(path: &Path, bytes: &[u8], mode: u32) -> io::Result<()> {
    replace_when(path, bytes, mode, |file| thread::flush(file))?;
    thread::flush_directory(path.parent().unwrap_or(Path::new("/")))
}

fn replace_when(
    path: &Path,
    bytes: &[u8],
    mode: u32,
    ready: fn(&File) -> io::Result<()>,
) -> io::Result<()> {
    let mut name = path
        .file_name()
        .ok_or(io::ErrorKind::InvalidInput)?
        .to_owned();
    name.push(".tmp");
    let temporary = path.with_file_name(name);
    match std::fs::remove_file(&temporary) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        Ok(()) | Err(_) => {}
    }
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
    let fd = rustix::fs::open(&temporary, flags, Mode::from_raw_mode(mode))?;
    let mut file = File::from(fd);
    // Whatever the umask says.
    let moded = rustix::fs::fchmod(&file, Mode::from_raw_mode(mode));
    let written = moded.map_err(io::Error::from);
    let written = written.and_then(|()| file.write_all(bytes));
    let written = written.and_then(|()| ready(&file));
    let replaced = written.and_then(|()| std::fs::rename(&temporary, path));
    if replaced.is_err() {
        let _best_effort = std::fs::remove_file(&temporary);
    }
    replaced
}

/// Renames, but never onto something. Errors: `AlreadyExists`.
pub fn rename_new(from: &Path, to: &Path) -> io::Result<()> {
    let cwd = rustix::fs::CWD;
    match rustix::fs::renameat_with(cwd, from, cwd, to, RenameFlags::NOREPLACE) {
        // A file system without the flag (old NFS, FUSE): the window is ours to accept.
        Err(rustix::io::Errno::INVAL) if std::fs::symlink_metadata(to).is_err() => {
            std::fs::rename(from, to)
        }
        Err(error) => Err(error.into()),
        Ok(()) => Ok(()),
    }
}

/// Takes the lock of `path` for as long as the file is held open.
/// Errors: `WouldBlock` if another process has it.
pub fn lock(path: &Path) -> io::Result<File> {
    let flags = OFlags::RDWR | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let mode = Mode::RUSR | Mode::WUSR;
    let fd = rustix::fs::open(path, flags, mode)?;
    rustix::fs::flock(fd.as_fd(), FlockOperation::NonBlockingLockExclusive)?;
    Ok(fd.into())
}

/// A file in memory, to be read from its start.
pub fn in_memory(bytes: &[u8]) -> io::Result<OwnedFd> {
    let fd = rustix::fs::memfd_create(c"lowtide", rustix::fs::MemfdFlags::CLOEXEC)?;
    let mut file = File::from(fd);
    file.write_all(bytes)?;
    file.rewind()?;
    Ok(file.into())
}

/// `/dev/null` for reading and writing.
pub fn null() -> io::Result<OwnedFd> {
    let flags = OFlags::RDWR | OFlags::CLOEXEC;
    Ok(rustix::fs::open("/dev/null", flags, Mode::empty())?)
}
