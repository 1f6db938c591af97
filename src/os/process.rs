//! Processes: who a pid is, pidfds, how a process ended, which processes belong together.
//!
//! A pid alone names nobody, since numbers are reused; pid and start time together do, within one
//! boot. Signals go through pidfds, so that they cannot hit a stranger.
#![allow(unsafe_code)]

use std::ffi::{CString, OsStr};
use std::fs;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use async_io::Async;
use rustix::process::{Pid, WaitId, WaitIdOptions, WaitOptions};
use serde::{Deserialize, Serialize};

/// A process, unmistakably: pid and start time (clock ticks since boot, field 22 of
/// `/proc/PID/stat`, see proc_pid_stat(5)). Comparable only within one boot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct ProcessIdentity {
    pub pid: i32,
    pub start_ticks: u64,
}

impl ProcessIdentity {
    /// Who `pid` is now. Errors: `NotFound` if there is no such process.
    pub fn of(pid: i32) -> io::Result<ProcessIdentity> {
        let stat = Stat::of(pid)?;
        Ok(ProcessIdentity {
            pid,
            start_ticks: stat.start_ticks,
        })
    }

    /// Whether this very process still runs; a zombie does not.
    pub fn is_alive(&self) -> bool {
        Stat::of(self.pid).is_ok_and(|stat| stat.start_ticks == self.start_ticks && !stat.is_dead())
    }

    /// A descriptor of this very process. Errors: `NotFound` if it is gone.
    pub fn open(&self) -> io::Result<PidFd> {
        let fd = PidFd::open(self.pid).map_err(|error| match error.raw_os_error() {
            Some(libc::ESRCH) => io::Error::from(io::ErrorKind::NotFound),
            _ => error,
        })?;
        // Checked after opening: the descriptor pins the process that the check is about.
        if self.is_alive() {
            Ok(fd)
        } else {
            Err(io::ErrorKind::NotFound.into())
        }
    }
}

/// The fields of `/proc/PID/stat` that somebody here reads. Pids are of our own pid namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stat {
    pub pid: i32,
    pub state: u8,
    pub parent: i32,
    pub group: i32,
    pub session: i32,
    pub start_ticks: u64,
}

impl Stat {
    /// Errors: `NotFound` if there is no such process.
    pub fn of(pid: i32) -> io::Result<Stat> {
        let text = fs::read(format!("/proc/{pid}/stat")).map_err(|error| {
            match error.raw_os_error() {
                // The process ended between open and read.
                Some(libc::ESRCH) => io::Error::from(io::ErrorKind::NotFound),
                _ => error,
            }
        })?;
        Stat::parse(pid, &text).ok_or_else(|| io::Error::from(io::ErrorKind::InvalidData))
    }

    fn is_dead(&self) -> bool {
        matches!(self.state, b'Z' | b'X')
    }

    /// The command name may hold blanks and parentheses: fields count from the last `)`.
    fn parse(pid: i32, text: &[u8]) -> Option<Stat> {
        let close = text.iter().rposition(|byte| *byte == b')')?;
        let rest = str::from_utf8(&text[close + 1..]).ok()?;
        let mut fields = rest.split_ascii_whitespace();
        let state = *fields.next()?.as_bytes().first()?;
        let parent = fields.next()?.parse().ok()?;
        let group = fields.next()?.parse().ok()?;
        let session = fields.next()?.parse().ok()?;
        // Field 22 of the line; the four above were 3 to 6.
        let start_ticks = fields.nth(22 - 7)?.parse().ok()?;
        Some(Stat {
            pid,
            state,
            parent,
            group,
            session,
            start_ticks,
        })
    }
}

/// All processes that `/proc` shows now, zombies left out.
pub fn living() -> io::Result<Vec<Stat>> {
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc")? {
        let Some(pid) = entry?.file_name().to_str().and_then(|n| n.parse().ok()) else {
            continue;
        };
        // Gone between listing and reading is no error.
        if let Ok(stat) = Stat::of(pid)
            && !stat.is_dead()
        {
            found.push(stat);
        }
    }
    Ok(found)
}

/// How a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// 0..=255
    Exited(i32),
    Signalled(i32),
}

impl Ended {
    /// 0..=255 as a shell shows it: 128 + signal if a signal ended it.
    pub fn code(self) -> i32 {
        match self {
            Ended::Exited(code) => code,
            Ended::Signalled(signal) => 128 + signal,
        }
    }

    pub fn signal(self) -> Option<i32> {
        match self {
            Ended::Exited(_) => None,
            Ended::Signalled(signal) => Some(signal),
        }
    }

    /// From the 16 bits of wait(2).
    fn from_wait_status(status: i32) -> Ended {
        match status & 0x7f {
            0 => Ended::Exited((status >> 8) & 0xff),
            signal => Ended::Signalled(signal),
        }
    }
}

/// A descriptor of one process: readable once it has ended (pidfd_open(2)).
#[derive(Debug)]
pub struct PidFd(OwnedFd);

impl PidFd {
    pub fn open(pid: i32) -> io::Result<PidFd> {
        let pid = Pid::from_raw(pid).ok_or(io::ErrorKind::InvalidInput)?;
        let flags = rustix::process::PidfdFlags::empty();
        Ok(PidFd(rustix::process::pidfd_open(pid, flags)?))
    }

    pub(super) fn from_owned(fd: OwnedFd) -> PidFd {
        PidFd(fd)
    }

    /// Sends any signal number, real-time ones too. Errors: `NotFound` if the process has ended.
    pub fn signal(&self, number: i32) -> io::Result<()> {
        // SAFETY: pidfd_send_signal takes plain integers and an optional siginfo pointer, null
        // here; the descriptor is owned and open.
        let result = unsafe {
            libc::syscall(
                libc::SYS_pidfd_send_signal,
                self.0.as_raw_fd(),
                number,
                std::ptr::null::<libc::siginfo_t>(),
                0,
            )
        };
        if result == 0 {
            return Ok(());
        }
        let error = io::Error::last_os_error();
        match error.raw_os_error() {
            Some(libc::ESRCH) => Err(io::ErrorKind::NotFound.into()),
            _ => Err(error),
        }
    }

    /// A second descriptor of the same process.
    pub fn try_clone(&self) -> io::Result<PidFd> {
        Ok(PidFd(self.0.try_clone()?))
    }

    /// Reaps our child if it has ended; `None` while it runs.
    /// Errors: `ECHILD` if it is no child of ours or was reaped already.
    pub fn reap(&self) -> io::Result<Option<Ended>> {
        let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG;
        let status = rustix::process::waitid(WaitId::PidFd(self.0.as_fd()), options)?;
        Ok(status.map(|status| match status.terminating_signal() {
            Some(signal) => Ended::Signalled(signal),
            None => Ended::Exited(status.exit_status().unwrap_or(0)),
        }))
    }

    /// How a process that is *not* our child ended: `None` until its parent has reaped it.
    /// Errors: kernels before Linux 6.15 do not tell (`PIDFD_INFO_EXIT`).
    pub fn exit_of_stranger(&self) -> io::Result<Option<Ended>> {
        let mut info = PidFdInfo {
            mask: PIDFD_INFO_EXIT,
            ..PidFdInfo::default()
        };
        // SAFETY: the ioctl writes at most as many bytes as its request number encodes, which is
        // the size of `PidFdInfo`; the descriptor is owned and open.
        let result = unsafe { libc::ioctl(self.0.as_raw_fd(), PIDFD_GET_INFO as _, &mut info) };
        if result < 0 {
            return Err(io::Error::last_os_error());
        }
        let told = info.mask & PIDFD_INFO_EXIT != 0;
        Ok(told.then(|| Ended::from_wait_status(info.exit_code)))
    }

    /// Resolves when the process has ended; reaps nothing.
    pub async fn ended(&self) -> io::Result<()> {
        Async::new_nonblocking(self.0.as_fd())?.readable().await
    }

    /// Waits for our child and reaps it.
    pub async fn wait(&self) -> io::Result<Ended> {
        loop {
            self.ended().await?;
            if let Some(ended) = self.reap()? {
                return Ok(ended);
            }
        }
    }
}

impl AsFd for PidFd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// `struct pidfd_info` of linux/pidfd.h, first version (64 bytes).
#[repr(C)]
#[derive(Default)]
struct PidFdInfo {
    mask: u64,
    cgroup_id: u64,
    ids: [u32; 11],
    exit_code: i32,
}

const PIDFD_INFO_EXIT: u64 = 1 << 3;
/// `_IOWR(0xFF, 11, struct pidfd_info)`
const PIDFD_GET_INFO: u64 = (3 << 30) | (64 << 16) | (0xff << 8) | 11;
const _: () = assert!(size_of::<PidFdInfo>() == 64);

/// Reaps one ended child of this process, whichever; `None` if none has ended.
///
/// Only for a process whose children are all its own affair (the shim, pause): elsewhere it would
/// steal another part's child, which waits by pidfd.
pub fn reap_any() -> Option<(i32, Ended)> {
    let (pid, status) = rustix::process::wait(WaitOptions::NOHANG).ok()??;
    let ended = Ended::from_wait_status(status.as_raw());
    Some((pid.as_raw_nonzero().get(), ended))
}

/// Makes orphaned descendants children of this process (PR_SET_CHILD_SUBREAPER, prctl(2)).
pub fn become_subreaper() -> io::Result<()> {
    // rustix spells "on" as any pid.
    rustix::process::set_child_subreaper(Some(rustix::process::getpid()))?;
    Ok(())
}

/// Sends SIGKILL to a process group of our own children.
pub fn kill_group(leader: i32) -> io::Result<()> {
    let leader = Pid::from_raw(leader).ok_or(io::ErrorKind::InvalidInput)?;
    Ok(rustix::process::kill_process_group(
        leader,
        rustix::process::Signal::KILL,
    )?)
}

/// Makes this process leader of a session without a terminal.
pub fn new_session() -> io::Result<()> {
    rustix::process::setsid()?;
    Ok(())
}

pub fn own_pid() -> i32 {
    rustix::process::getpid().as_raw_nonzero().get()
}

pub fn effective_uid() -> u32 {
    rustix::process::geteuid().as_raw()
}

/// This process becomes another program, with the same arguments and environment. Returns only why
/// it could not.
pub fn become_program(program: &Path) -> io::Error {
    let text = |bytes: &OsStr| CString::new(bytes.as_bytes());
    let program = text(program.as_os_str());
    let arguments: Result<Vec<CString>, _> = std::env::args_os().map(|word| text(&word)).collect();
    let (Ok(program), Ok(arguments)) = (program, arguments) else {
        return io::ErrorKind::InvalidInput.into();
    };
    let mut pointers: Vec<_> = arguments.iter().map(|word| word.as_ptr()).collect();
    pointers.push(std::ptr::null());
    // SAFETY: the program's name and all arguments end with NUL and outlive the call; the list ends
    // with null. It returns only if this process goes on.
    unsafe { libc::execv(program.as_ptr(), pointers.as_ptr()) };
    io::Error::last_os_error()
}

/// Ends this process at once: no destructors, no exit handlers.
pub fn exit_now(code: i32) -> ! {
    // SAFETY: _exit takes an integer and does not return.
    unsafe { libc::_exit(code) }
}

/// Puts `fd` in the place of the descriptor `number` of this process.
pub fn redirect(fd: &OwnedFd, number: RawFd) -> io::Result<()> {
    // SAFETY: dup2 takes integers; `number` is a standard descriptor, which nothing owns.
    match unsafe { libc::dup2(fd.as_raw_fd(), number) } {
        -1 => Err(io::Error::last_os_error()),
        _ => Ok(()),
    }
}

/// Takes ownership of a descriptor number that this process was started with, checked to be open.
pub fn inherited_descriptor(number: RawFd) -> io::Result<OwnedFd> {
    // SAFETY: fcntl(F_GETFD) reads flags and has no effect on a closed number but EBADF.
    if unsafe { libc::fcntl(number, libc::F_GETFD) } < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: open, as just checked, and handed over by our parent: nothing else here owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(number) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stat_is_read_past_any_command_name() {
        let tail = "S 7 8 9 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 4242 9999";
        for name in ["sh", "a b", ") (", "x)"] {
            let line = format!("12 ({name}) {tail}");
            let stat = Stat::parse(12, line.as_bytes()).expect("parses");
            assert_eq!(
                (stat.parent, stat.group, stat.session, stat.start_ticks),
                (7, 8, 9, 4242),
                "{name}"
            );
        }
        assert_eq!(Stat::parse(12, b"12 (sh) S 7"), None);
    }

    #[test]
    fn identity_of_this_process_is_alive_and_of_another_start_is_not() {
        let own = ProcessIdentity::of(own_pid()).expect("own stat");
        assert!(own.is_alive());
        let other = ProcessIdentity {
            start_ticks: own.start_ticks + 1,
            ..own
        };
        assert!(!other.is_alive());
        assert!(other.open().is_err());
    }
}
