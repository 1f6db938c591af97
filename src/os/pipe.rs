//! Pipes, FIFOs and wake-up descriptors. All are close-on-exec.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use rustix::event::EventfdFlags;
use rustix::fs::{Mode, OFlags};
use rustix::pipe::PipeFlags;

/// Both ends of a pipe, blocking.
#[derive(Debug)]
pub struct Pipe {
    pub read: OwnedFd,
    pub write: OwnedFd,
}

impl Pipe {
    pub fn into_files(self) -> (File, File) {
        (self.read.into(), self.write.into())
    }
}

pub fn pipe() -> io::Result<Pipe> {
    let (read, write) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC)?;
    Ok(Pipe { read, write })
}

/// Makes a FIFO (mode 0600) unless there is one, and opens it for reading and writing without
/// blocking. Held open that way it never gives end-of-file and never breaks: with the reader gone
/// a writer waits when it is full.
///
/// Errors: `AlreadyExists` if something else has that name.
pub fn open_fifo(path: &Path) -> io::Result<OwnedFd> {
    let mode = Mode::RUSR | Mode::WUSR;
    match rustix::fs::mknodat(rustix::fs::CWD, path, rustix::fs::FileType::Fifo, mode, 0) {
        Ok(()) | Err(rustix::io::Errno::EXIST) => {}
        Err(error) => return Err(error.into()),
    }
    let flags = OFlags::RDWR | OFlags::NONBLOCK | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let fd = rustix::fs::open(path, flags, Mode::empty())?;
    let kind = rustix::fs::FileType::from_raw_mode(rustix::fs::fstat(&fd)?.st_mode);
    if kind != rustix::fs::FileType::Fifo {
        return Err(io::ErrorKind::AlreadyExists.into());
    }
    Ok(fd)
}

/// A second open file of the same FIFO, for a child: reading and writing, blocking, so that the
/// child's flags are its own.
pub fn open_fifo_for_child(path: &Path) -> io::Result<OwnedFd> {
    let flags = OFlags::RDWR | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    Ok(rustix::fs::open(path, flags, Mode::empty())?)
}

/// The same for reading only: the child sees the end once no writer is left, a shim that died
/// included. Held open by a writer of ours, so that the opening does not wait.
pub fn open_fifo_reader_for_child(path: &Path) -> io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    Ok(rustix::fs::open(path, flags, Mode::empty())?)
}

/// A write end of a FIFO that somebody has open, not blocking.
pub fn open_fifo_writer(path: &Path) -> io::Result<OwnedFd> {
    let flags = OFlags::WRONLY | OFlags::NONBLOCK | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    Ok(rustix::fs::open(path, flags, Mode::empty())?)
}

/// A counter that wakes whoever polls it (eventfd(2)).
#[derive(Debug)]
pub struct Wakeup(OwnedFd);

impl Wakeup {
    pub fn new() -> io::Result<Wakeup> {
        let flags = EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK;
        Ok(Wakeup(rustix::event::eventfd(0, flags)?))
    }

    pub fn wake(&self) -> io::Result<()> {
        match rustix::io::write(&self.0, &1u64.to_ne_bytes()) {
            // A full counter is awake already.
            Ok(_) | Err(rustix::io::Errno::AGAIN) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Forgets the wake-ups so far.
    pub fn clear(&self) -> io::Result<()> {
        match rustix::io::read(&self.0, &mut [0u8; 8][..]) {
            Ok(_) | Err(rustix::io::Errno::AGAIN) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }
}

impl AsFd for Wakeup {
    fn as_fd(&self) -> std::os::fd::BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// What a read without waiting gave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Read {
    Bytes(usize),
    /// Nothing there now.
    Empty,
    /// All writers are gone (for a pty master: no process has the terminal open).
    End,
}

/// Reads what is there.
pub fn read_now(fd: &impl AsFd, buffer: &mut [u8]) -> io::Result<Read> {
    match rustix::io::read(fd, buffer) {
        // EIO is how a pty master says end-of-file.
        Ok(0) | Err(rustix::io::Errno::IO) => Ok(Read::End),
        Ok(count) => Ok(Read::Bytes(count)),
        Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => Ok(Read::Empty),
        Err(error) => Err(error.into()),
    }
}

/// What a write without waiting took.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Written {
    Bytes(usize),
    /// No room now.
    Full,
    /// Nobody reads any more.
    Gone,
}

/// Writes what there is room for.
pub fn write_now(fd: &impl AsFd, bytes: &[u8]) -> Written {
    match rustix::io::write(fd, bytes) {
        Ok(count) => Written::Bytes(count),
        Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => Written::Full,
        Err(_) => Written::Gone,
    }
}

/// How many bytes a pipe holds; `None` for what is no pipe. Source: fcntl(2), F_GETPIPE_SZ.
pub fn room(fd: &impl AsFd) -> Option<usize> {
    rustix::pipe::fcntl_getpipe_size(fd).ok()
}

/// Lets reads and writes of this open file return instead of waiting.
pub fn set_nonblocking(fd: &impl AsFd) -> io::Result<()> {
    let flags = rustix::fs::fcntl_getfl(fd)?;
    Ok(rustix::fs::fcntl_setfl(fd, flags | OFlags::NONBLOCK)?)
}
