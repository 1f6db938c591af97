//! A terminal as a remote command's window: raw mode, size, and the signals that concern it.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use rustix::termios::{self, OptionalActions, Termios, Winsize};

/// Raw mode until dropped: bytes pass unchanged, Ctrl-C is a byte.
pub struct RawMode {
    terminal: OwnedFd,
    saved: Termios,
}

impl RawMode {
    /// Errors: `terminal` is none (ENOTTY).
    pub fn enter(terminal: BorrowedFd<'_>) -> io::Result<RawMode> {
        let terminal = terminal.try_clone_to_owned()?;
        let saved = termios::tcgetattr(&terminal)?;
        let mut raw = saved.clone();
        raw.make_raw();
        termios::tcsetattr(&terminal, OptionalActions::Flush, &raw)?;
        Ok(RawMode { terminal, saved })
    }
}

impl Drop for RawMode {
    fn drop(&mut self) {
        // Nothing is left to try if the terminal itself has gone away.
        let _ = termios::tcsetattr(&self.terminal, OptionalActions::Now, &self.saved);
    }
}

/// Columns and rows.
pub fn size(terminal: impl AsFd) -> io::Result<(u16, u16)> {
    let size = termios::tcgetwinsize(terminal)?;
    Ok((size.ws_col, size.ws_row))
}

/// Sets the size; the foreground process group behind it gets SIGWINCH.
pub fn set_size(terminal: impl AsFd, columns: u16, rows: u16) -> io::Result<()> {
    let size = Winsize {
        ws_row: rows,
        ws_col: columns,
        ws_xpixel: 0,
        ws_ypixel: 0,
    };
    Ok(termios::tcsetwinsize(terminal, size)?)
}

/// A signal that a client in raw mode must know of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TerminalSignal {
    /// SIGWINCH
    Resized,
    /// SIGHUP, SIGINT, SIGQUIT, SIGTERM: leave, with the terminal put back.
    Leave { signal: i32 },
}

/// Those signals as something to read. Must be made before any other thread starts, which would
/// otherwise take (and for SIGWINCH ignore) them.
pub struct TerminalSignals(async_io::Async<SignalFd>);

impl TerminalSignals {
    pub fn listen() -> io::Result<TerminalSignals> {
        let mut set = SigSet::empty();
        let signals = [
            Signal::SIGWINCH,
            Signal::SIGHUP,
            Signal::SIGINT,
            Signal::SIGQUIT,
            Signal::SIGTERM,
        ];
        signals.into_iter().for_each(|signal| set.add(signal));
        set.thread_block()?;
        let flags = SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC;
        let fd = SignalFd::with_flags(&set, flags)?;
        async_io::Async::new(fd).map(TerminalSignals)
    }

    pub async fn next(&self) -> io::Result<TerminalSignal> {
        let read = |fd: &SignalFd| match fd.read_signal()? {
            Some(info) => Ok(info.ssi_signo as i32),
            None => Err(io::ErrorKind::WouldBlock.into()),
        };
        match self.0.read_with(read).await? {
            signal if signal == Signal::SIGWINCH as i32 => Ok(TerminalSignal::Resized),
            signal => Ok(TerminalSignal::Leave { signal }),
        }
    }
}
