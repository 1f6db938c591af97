//! Waiting for descriptors without a runtime (poll(2)), for the shim.

use std::io;
use std::os::fd::BorrowedFd;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec};

/// What a descriptor is waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wait {
    Readable,
    Writable,
    /// Only that the other end is closed, which the other two bring as well.
    Closed,
}

/// Waits until a descriptor is as wanted, or until the time is up; `None` waits for ever. Fills
/// `ready` with the indices into `descriptors`.
///
/// The time is measured on CLOCK_MONOTONIC: a suspended machine adds to it.
pub fn wait(
    descriptors: &[(BorrowedFd<'_>, Wait)],
    timeout: Option<Duration>,
    ready: &mut Vec<usize>,
) -> io::Result<()> {
    ready.clear();
    let mut entries: Vec<PollFd<'_>> = descriptors
        .iter()
        .map(|(fd, wait)| PollFd::from_borrowed_fd(*fd, flags(*wait)))
        .collect();
    let limit = timeout.map(|span| Timespec {
        tv_sec: i64::try_from(span.as_secs()).unwrap_or(i64::MAX),
        tv_nsec: span.subsec_nanos().into(),
    });
    match rustix::event::poll(&mut entries, limit.as_ref()) {
        Ok(_) | Err(rustix::io::Errno::INTR) => {}
        Err(error) => return Err(error.into()),
    }
    let woken = entries.iter().enumerate();
    ready.extend(
        woken
            .filter(|(_, e)| !e.revents().is_empty())
            .map(|(i, _)| i),
    );
    Ok(())
}

fn flags(wait: Wait) -> PollFlags {
    match wait {
        Wait::Readable => PollFlags::IN,
        Wait::Writable => PollFlags::OUT,
        Wait::Closed => PollFlags::empty(),
    }
}

/// Whether `fd` is readable now.
pub fn is_readable(fd: BorrowedFd<'_>) -> io::Result<bool> {
    let mut ready = Vec::new();
    wait(&[(fd, Wait::Readable)], Some(Duration::ZERO), &mut ready)?;
    Ok(!ready.is_empty())
}
