//! Visiting another network namespace: the calling thread steps in, does one thing, steps out.
//!
//! A socket belongs to the namespace it was made in, so a visit is short: callers make a socket
//! inside and use it from outside. No thread is left behind in a foreign namespace.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};

use nix::sched::{CloneFlags, setns};

/// Runs `work` with the calling thread inside `target` (a descriptor of `/proc/PID/ns/net`).
///
/// Blocking; call it from a thread that may block. `work` must not spawn threads: they would stay.
/// Errors: the namespace cannot be entered (`CAP_SYS_ADMIN` missing), or `work`'s own.
/// Source: setns(2).
pub fn inside<T>(target: BorrowedFd<'_>, work: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
    let home = File::open("/proc/thread-self/ns/net")?;
    setns(target, CloneFlags::CLONE_NEWNET)?;
    let outcome = work();
    let back = setns(home.as_fd(), CloneFlags::CLONE_NEWNET);
    assert!(
        back.is_ok(),
        "a thread that left its network namespace must be able to return: {back:?}"
    );
    outcome
}
