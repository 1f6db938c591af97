//! Processes that the shim waits for: its own children, and those it took over from a dead shim.
//!
//! An own child is reaped, so its end is known. A process taken over belongs to another parent by
//! now (init); its pidfd tells when it ends, and newer kernels tell how.

use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;

use crate::os::poll;
use crate::os::process::{Ended, PidFd, ProcessIdentity};
use crate::world::BootTime;

/// How long a kernel that can tell is given to do so: until the process's parent has reaped it.
const TELL_TIME: Duration = Duration::from_millis(200);
/// Between two looks during that time.
pub const LOOK_AGAIN: Duration = Duration::from_millis(20);

/// Who reaps a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Parentage {
    Own,
    Adopted { gone_since: Option<BootTime> },
}

#[derive(Debug)]
pub struct Watched {
    pub pid: i32,
    pub fd: PidFd,
    parentage: Parentage,
}

/// What is known of an adopted process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Look {
    Lives,
    /// Ended; how, may be known soon.
    Undecided,
    /// `None`: nobody can tell how.
    Ended(Option<Ended>),
}

impl Watched {
    pub fn own(pid: i32, fd: PidFd) -> Watched {
        Watched {
            pid,
            fd,
            parentage: Parentage::Own,
        }
    }

    /// `None` if that process is gone.
    pub fn adopt(identity: ProcessIdentity) -> Option<Watched> {
        Some(Watched {
            pid: identity.pid,
            fd: identity.open().ok()?,
            parentage: Parentage::Adopted { gone_since: None },
        })
    }

    /// What to poll: nothing for own children (SIGCHLD), nothing once the end has been noticed.
    pub fn pollable(&self) -> Option<BorrowedFd<'_>> {
        match self.parentage {
            Parentage::Adopted { gone_since: None } => Some(self.fd.as_fd()),
            Parentage::Adopted {
                gone_since: Some(_),
            }
            | Parentage::Own => None,
        }
    }

    pub fn is_own(&self) -> bool {
        self.parentage == Parentage::Own
    }

    /// Whether `look` wants to be called again soon.
    pub fn is_undecided(&self) -> bool {
        matches!(
            self.parentage,
            Parentage::Adopted {
                gone_since: Some(_)
            }
        )
    }

    /// Looks at an adopted process; an own child always "lives" until it is reaped.
    pub fn look(&mut self, now: BootTime) -> Look {
        let Parentage::Adopted { gone_since } = &mut self.parentage else {
            return Look::Lives;
        };
        if gone_since.is_none() && !poll::is_readable(self.fd.as_fd()).unwrap_or(true) {
            return Look::Lives;
        }
        match self.fd.exit_of_stranger() {
            Ok(Some(ended)) => Look::Ended(Some(ended)),
            Err(_unsupported) => Look::Ended(None),
            Ok(None) => {
                let since = *gone_since.get_or_insert(now);
                match now.since(since) >= TELL_TIME {
                    true => Look::Ended(None),
                    false => Look::Undecided,
                }
            }
        }
    }
}
