//! Signals as descriptors (signalfd(2)): nothing here runs in a handler.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};

use async_io::Async;
use nix::sys::signal::SigSet;
pub use nix::sys::signal::Signal;
use nix::sys::signalfd::{SfdFlags, SignalFd};

/// Signals that are blocked for this thread and read from a descriptor instead.
///
/// Blocking is inherited by threads, so make this before the first one is started.
#[derive(Debug)]
pub struct Signals(SignalFd);

impl Signals {
    pub fn block(signals: &[Signal]) -> io::Result<Signals> {
        let set = set_of(signals);
        set.thread_block()?;
        let flags = SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK;
        Ok(Signals(SignalFd::with_flags(&set, flags)?))
    }

    /// One waiting signal's number, or `None`.
    pub fn take(&self) -> io::Result<Option<i32>> {
        let info = self.0.read_signal()?;
        Ok(info.and_then(|info| i32::try_from(info.ssi_signo).ok()))
    }

    /// Waits for the next signal.
    pub async fn next(&self) -> io::Result<i32> {
        let ready = Async::new_nonblocking(self.0.as_fd())?;
        loop {
            if let Some(number) = self.take()? {
                return Ok(number);
            }
            ready.readable().await?;
        }
    }
}

impl AsFd for Signals {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// Blocks signals and waits for one of them, for a process that does nothing else.
#[derive(Debug)]
pub struct SignalWait(SigSet);

impl SignalWait {
    pub fn block(signals: &[Signal]) -> io::Result<SignalWait> {
        let set = set_of(signals);
        set.thread_block()?;
        Ok(SignalWait(set))
    }

    pub fn wait(&self) -> io::Result<Signal> {
        Ok(self.0.wait()?)
    }
}

/// Blocks SIGPIPE: a broken pipe is an error of the write that met it.
pub fn block_broken_pipe() -> io::Result<()> {
    Ok(set_of(&[Signal::SIGPIPE]).thread_block()?)
}

fn set_of(signals: &[Signal]) -> SigSet {
    let mut set = SigSet::empty();
    for signal in signals {
        set.add(*signal);
    }
    set
}
