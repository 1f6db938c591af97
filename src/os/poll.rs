//! Waiting for descriptors without a runtime (poll(2)), for the shim.

use std::io;
use std::os::fd::BorrowedFd;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec};

/// Waits until a descriptor is readable (or closed at its other end), or until the time is up;
/// `None` waits for ever. Fills `ready` with the indices into `descriptors`.
///
/// The time is measured on CLOCK_MONOTONIC: a suspended machine adds to it.
pub fn wait_readable(
    descriptors: &[BorrowedFd<'_>],
    timeout: Option<Duration>,
    ready: &mut Vec<usize>,
) -> io::Result<()> {
    ready.clear();
    let mut entries: Vec<PollFd<'_>> = descriptors
        .iter()
        .map(|fd| PollFd::from_borrowed_fd(*fd, PollFlags::IN))
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

/// Whether `fd` is readable now.
pub fn is_readable(fd: BorrowedFd<'_>) -> io::Result<bool> {
    let mut ready = Vec::new();
    wait_readable(&[fd], Some(Duration::ZERO), &mut ready)?;
    Ok(!ready.is_empty())
}
