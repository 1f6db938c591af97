//! Terminals: pseudo-terminal pairs, window sizes, raw mode.

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use rustix::pty::OpenptFlags;
use rustix::termios::{OptionalActions, Termios, Winsize};

/// Both ends of a pseudo-terminal.
#[derive(Debug)]
pub struct Pty {
    pub master: OwnedFd,
    pub slave: OwnedFd,
}

pub fn open_pty() -> io::Result<Pty> {
    let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
    let master = rustix::pty::openpt(flags)?;
    rustix::pty::grantpt(&master)?;
    rustix::pty::unlockpt(&master)?;
    let slave = rustix::pty::ioctl_tiocgptpeer(&master, flags)?;
    Ok(Pty { master, slave })
}

/// Rows and columns of characters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Size {
    pub rows: u16,
    pub columns: u16,
}

/// Sets the size on either end; the foreground processes get SIGWINCH if it changed.
pub fn resize(terminal: &impl AsFd, size: Size) -> io::Result<()> {
    let winsize = Winsize {
        ws_row: size.rows,
        ws_col: size.columns,
        ws_xpixel: 0,
        ws_ypixel: 0,
    };
    Ok(rustix::termios::tcsetwinsize(terminal, winsize)?)
}

pub fn size(terminal: &impl AsFd) -> io::Result<Size> {
    let winsize = rustix::termios::tcgetwinsize(terminal)?;
    Ok(Size {
        rows: winsize.ws_row,
        columns: winsize.ws_col,
    })
}

pub fn is_terminal(fd: &impl AsFd) -> bool {
    rustix::termios::isatty(fd)
}

/// A terminal in raw mode for as long as this lives.
#[derive(Debug)]
pub struct RawMode<T: AsFd> {
    terminal: T,
    before: Termios,
}

impl<T: AsFd> RawMode<T> {
    pub fn enter(terminal: T) -> io::Result<RawMode<T>> {
        let before = rustix::termios::tcgetattr(&terminal)?;
        let mut raw = before.clone();
        raw.make_raw();
        rustix::termios::tcsetattr(&terminal, OptionalActions::Now, &raw)?;
        Ok(RawMode { terminal, before })
    }
}

impl<T: AsFd> Drop for RawMode<T> {
    fn drop(&mut self) {
        // A terminal that is gone needs no restoring.
        let _best_effort =
            rustix::termios::tcsetattr(&self.terminal, OptionalActions::Now, &self.before);
    }
}
