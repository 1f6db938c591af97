//! Starting programs: everything is prepared before the fork, and after it the child makes only
//! async-signal-safe calls.
//!
//! ```text
//!   parent: strings, descriptors, cgroup files ─► clone ─► read status pipe ─► Child | error
//!   child:  cgroup, session, nice, chdir, dup2, close the rest, signals, execve
//!                                            └─ failed: step and errno into the status pipe
//! ```
//! The child inherits no descriptor but those it was given. `exec` failing is an error of `start`,
//! never an exit code. The environment is a bare PATH unless set: nothing of a service manager's
//! (NOTIFY_SOCKET …) reaches a runtime or a container.
#![allow(unsafe_code)]

use std::ffi::{CString, OsStr, OsString};
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::ptr;

use rustix::fs::{Mode, OFlags};
use serde::{Deserialize, Serialize};

use super::process::{Ended, PidFd};

/// PATH of children, and where programs named without a slash are looked for after our own PATH.
const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Whose process group and session the child is in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Session {
    /// Those of the parent.
    Inherit,
    /// Leads a process group of its own: can be killed with what it starts.
    Group,
    /// Leads a session of its own: no terminal's signals reach it.
    Leader,
}

/// Cgroups that the child is born into or joins itself.
///
/// A parent that writes a child's pid into `cgroup.procs` waits for an RCU grace period (12 ms);
/// a thread moving itself through v1 `tasks`, and CLONE_INTO_CGROUP, do not.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CgroupJoin {
    /// v1 directories, one for each hierarchy.
    pub v1: Vec<PathBuf>,
    /// v2 directory.
    pub v2: Option<PathBuf>,
}

/// Which pid namespace the child is in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PidNamespace {
    Inherit,
    /// The child is PID 1 of a new one.
    New,
}

impl PidNamespace {
    fn clone_flag(self) -> u64 {
        match self {
            PidNamespace::Inherit => 0,
            PidNamespace::New => libc::CLONE_NEWPID as u64,
        }
    }
}

/// A program to start. Standard descriptors are `/dev/null` unless given.
#[derive(Debug)]
pub struct Spawn {
    program: PathBuf,
    arguments: Vec<OsString>,
    environment: Vec<(OsString, OsString)>,
    directory: PathBuf,
    descriptors: Vec<Option<OwnedFd>>,
    session: Session,
    cgroup: CgroupJoin,
    pid_namespace: PidNamespace,
    nice: i32,
    name: Option<OsString>,
}

/// A started program.
#[derive(Debug)]
pub struct Child {
    pub pid: i32,
    pub pidfd: PidFd,
}

impl Child {
    /// Waits for the end and reaps.
    pub async fn wait(&self) -> io::Result<Ended> {
        self.pidfd.wait().await
    }
}

impl Spawn {
    /// `program` without a slash is looked for on PATH when started.
    pub fn new(program: impl AsRef<OsStr>) -> Spawn {
        Spawn {
            program: PathBuf::from(program.as_ref()),
            arguments: Vec::new(),
            environment: Vec::new(),
            directory: PathBuf::from("/"),
            descriptors: vec![None, None, None],
            session: Session::Inherit,
            cgroup: CgroupJoin::default(),
            pid_namespace: PidNamespace::Inherit,
            nice: 0,
            name: None,
        }
    }

    /// What the program sees as its own name; default: the program as given.
    #[must_use]
    pub fn called(mut self, name: impl AsRef<OsStr>) -> Spawn {
        self.name = Some(name.as_ref().to_owned());
        self
    }

    #[must_use]
    pub fn arg(mut self, argument: impl AsRef<OsStr>) -> Spawn {
        self.arguments.push(argument.as_ref().to_owned());
        self
    }

    #[must_use]
    pub fn args<A: AsRef<OsStr>>(mut self, arguments: impl IntoIterator<Item = A>) -> Spawn {
        let more = arguments.into_iter().map(|a| a.as_ref().to_owned());
        self.arguments.extend(more);
        self
    }

    #[must_use]
    pub fn env(mut self, name: impl AsRef<OsStr>, value: impl AsRef<OsStr>) -> Spawn {
        let pair = (name.as_ref().to_owned(), value.as_ref().to_owned());
        self.environment.push(pair);
        self
    }

    /// Working directory; default `/`.
    #[must_use]
    pub fn directory(mut self, path: impl AsRef<Path>) -> Spawn {
        self.directory = path.as_ref().to_owned();
        self
    }

    /// Descriptor `number` of the child (0 to 2: the standard ones; from 3 without gaps).
    #[must_use]
    pub fn descriptor(mut self, number: usize, fd: OwnedFd) -> Spawn {
        if self.descriptors.len() <= number {
            self.descriptors.resize_with(number + 1, || None);
        }
        self.descriptors[number] = Some(fd);
        self
    }

    #[must_use]
    pub fn session(mut self, session: Session) -> Spawn {
        self.session = session;
        self
    }

    #[must_use]
    pub fn cgroup(mut self, cgroup: CgroupJoin) -> Spawn {
        self.cgroup = cgroup;
        self
    }

    #[must_use]
    pub fn pid_namespace(mut self, pid_namespace: PidNamespace) -> Spawn {
        self.pid_namespace = pid_namespace;
        self
    }

    /// Added to our own niceness, 0..=19.
    #[must_use]
    pub fn nice(mut self, nice: i32) -> Spawn {
        self.nice = nice;
        self
    }

    /// Starts the program and returns when it has replaced the child's image.
    /// Errors: what any step in the child or before it gave, the step's name in the text.
    pub fn start(self) -> io::Result<Child> {
        let prepared = Prepared::from(self)?;
        let (mut status, report) = super::pipe::pipe()?.into_files();
        let report_high = high_copy(report.as_fd(), prepared.targets)?;
        drop(report);
        let forked = prepared.fork(report_high.as_raw_fd())?;
        drop(report_high);
        let mut text = [0u8; 8];
        let mut length = 0;
        while length < text.len() {
            match status.read(&mut text[length..]) {
                Ok(0) => break,
                Ok(count) => length += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        if length == 0 {
            return Ok(forked);
        }
        // The child is on its way to _exit: reap it here, nobody else knows of it.
        reap_blocking(forked.pid);
        let errno = i32::from_ne_bytes([text[0], text[1], text[2], text[3]]);
        Err(step_error(text[4], errno, &prepared))
    }
}

/// Where `program` (without a slash) is, executable: on PATH or else where a system has its programs.
/// `su` leaves a PATH without sbin.
pub fn find_program(program: &str) -> Option<PathBuf> {
    find_on(&std::env::var("PATH").unwrap_or_default(), program)
}

fn find_on(path: &str, program: &str) -> Option<PathBuf> {
    let access = rustix::fs::Access::EXEC_OK;
    path.split(':')
        .chain(DEFAULT_PATH.split(':'))
        .filter(|directory| directory.starts_with('/'))
        .map(|directory| Path::new(directory).join(program))
        .find(|file| file.is_file() && rustix::fs::access(file, access).is_ok())
}

/// The steps of the child, for error texts.
const STEPS: [&str; 7] = [
    "join cgroup",
    "lead process group",
    "set nice level",
    "change directory to",
    "place descriptors of",
    "reset signals of",
    "execute",
];

fn step_error(step: u8, errno: i32, prepared: &Prepared) -> io::Error {
    let cause = io::Error::from_raw_os_error(errno);
    let name = STEPS.get(usize::from(step)).unwrap_or(&"start");
    let object = prepared.program.to_string_lossy();
    io::Error::new(cause.kind(), format!("{name} {object}: {cause}"))
}

/// `struct clone_args` of linux/sched.h with the fields of Linux 5.7. The libc crate has none for
/// 32-bit ARM.
#[repr(C)]
#[derive(Default)]
struct CloneArguments {
    flags: u64,
    pidfd: u64,
    child_tid: u64,
    parent_tid: u64,
    exit_signal: u64,
    stack: u64,
    stack_size: u64,
    tls: u64,
    set_tid: u64,
    set_tid_size: u64,
    cgroup: u64,
}

/// A v2 cgroup: the directory to be born into, and the way in where there is no clone3.
struct Unified {
    directory: OwnedFd,
    procs: OwnedFd,
}

/// Who came back from the clone.
enum Cloned {
    Parent(Child),
    Child { in_cgroup: bool },
}

/// All that the child needs, allocated before it exists.
struct Prepared {
    program: CString,
    argv: Vec<CString>,
    argv_pointers: Vec<*const libc::c_char>,
    _environment: Vec<CString>,
    env_pointers: Vec<*const libc::c_char>,
    directory: CString,
    /// One source for each target number, all above the targets.
    sources: Vec<OwnedFd>,
    targets: RawFd,
    /// v1 `tasks`.
    cgroup_files: Vec<OwnedFd>,
    cgroup_v2: Option<Unified>,
    session: Session,
    pid_namespace: PidNamespace,
    nice: i32,
}

impl Prepared {
    fn from(spawn: Spawn) -> io::Result<Prepared> {
        let program = match spawn.program.to_str() {
            Some(name) if !name.contains('/') => {
                find_program(name).ok_or_else(|| not_found(&spawn.program))?
            }
            Some(_) | None => spawn.program.clone(),
        };
        let name = spawn.name.as_deref().unwrap_or(spawn.program.as_os_str());
        let mut argv = vec![c_string(name)?];
        for argument in &spawn.arguments {
            argv.push(c_string(argument)?);
        }
        let mut environment = Vec::new();
        if !spawn.environment.iter().any(|(name, _)| name == "PATH") {
            environment.push(c_string(OsStr::new(&format!("PATH={DEFAULT_PATH}")))?);
        }
        for (name, value) in &spawn.environment {
            let mut pair = name.clone();
            pair.push("=");
            pair.push(value);
            environment.push(c_string(&pair)?);
        }
        let targets = spawn.descriptors.len() as RawFd;
        let mut sources = Vec::new();
        for descriptor in &spawn.descriptors {
            sources.push(match descriptor {
                Some(fd) => high_copy(fd.as_fd(), targets)?,
                None => {
                    let flags = OFlags::RDWR | OFlags::CLOEXEC;
                    let null = rustix::fs::open("/dev/null", flags, Mode::empty())?;
                    high_copy(null.as_fd(), targets)?
                }
            });
        }
        let (cgroup_files, cgroup_v2) = open_cgroups(&spawn.cgroup, targets)?;
        Ok(Prepared {
            program: c_string(program.as_os_str())?,
            argv_pointers: pointers(&argv),
            argv,
            env_pointers: pointers(&environment),
            _environment: environment,
            directory: c_string(spawn.directory.as_os_str())?,
            sources,
            targets,
            cgroup_files,
            cgroup_v2,
            session: spawn.session,
            pid_namespace: spawn.pid_namespace,
            nice: spawn.nice,
        })
    }

    /// Clones; in the child never returns.
    fn fork(&self, report: RawFd) -> io::Result<Child> {
        debug_assert_eq!(self.argv.len() + 1, self.argv_pointers.len());
        let everything = nix::sys::signal::SigSet::all();
        let before = everything.thread_swap_mask(nix::sys::signal::SigmaskHow::SIG_BLOCK)?;
        let cloned = self.clone_process();
        if let Ok(Cloned::Child { in_cgroup }) = cloned {
            self.become_program(report, in_cgroup);
        }
        before.thread_set_mask()?;
        match cloned? {
            Cloned::Parent(child) => Ok(child),
            Cloned::Child { .. } => unreachable!("the child became the program or ended"),
        }
    }

    fn clone_process(&self) -> io::Result<Cloned> {
        let mut pidfd: RawFd = -1;
        let mut pid = -1;
        if let Some(cgroup) = &self.cgroup_v2 {
            pid = self.clone_into(cgroup.directory.as_fd(), &mut pidfd);
        }
        let in_cgroup = pid >= 0;
        if pid < 0 {
            // No v2 cgroup to be born into, or no clone3 (seccomp, emulators): the old call, whose
            // third argument is the pidfd's place on every architecture we build for.
            let flags = self.pid_namespace.clone_flag() as libc::c_long
                | libc::c_long::from(libc::CLONE_PIDFD)
                | libc::c_long::from(libc::SIGCHLD);
            // SAFETY: without CLONE_VM this is fork(2): the child runs on its own copy of the
            // stack; `pidfd` outlives the call. All signals are blocked, so no handler runs in it.
            pid = unsafe {
                libc::syscall(libc::SYS_clone, flags, 0, &raw mut pidfd, 0, 0) as libc::c_long
            };
        }
        match pid {
            0 => Ok(Cloned::Child { in_cgroup }),
            pid if pid > 0 => Ok(Cloned::Parent(Child {
                pid: pid as i32,
                // SAFETY: the kernel just made this descriptor for us (CLONE_PIDFD).
                pidfd: PidFd::from_owned(unsafe { OwnedFd::from_raw_fd(pidfd) }),
            })),
            _ => Err(io::Error::last_os_error()),
        }
    }

    fn clone_into(&self, cgroup: BorrowedFd<'_>, pidfd: &mut RawFd) -> libc::c_long {
        const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;
        let mut arguments = CloneArguments {
            flags: self.pid_namespace.clone_flag() | libc::CLONE_PIDFD as u64 | CLONE_INTO_CGROUP,
            pidfd: ptr::from_mut(pidfd) as u64,
            exit_signal: libc::SIGCHLD as u64,
            cgroup: cgroup.as_raw_fd() as u64,
            ..CloneArguments::default()
        };
        // SAFETY: as in `clone_process`; the structure and its size match and outlive the call.
        unsafe {
            libc::syscall(
                libc::SYS_clone3,
                &raw mut arguments,
                size_of::<CloneArguments>(),
            ) as libc::c_long
        }
    }

    /// The child's whole life before exec. No allocation, no lock, no panic from here on.
    fn become_program(&self, report: RawFd, in_cgroup: bool) -> ! {
        let step = self.run_steps(in_cgroup);
        // SAFETY: __errno_location is valid in every thread; write and _exit are
        // async-signal-safe; the buffer is on the stack.
        unsafe {
            let errno = *libc::__errno_location();
            let mut text = [0u8; 8];
            text[..4].copy_from_slice(&errno.to_ne_bytes());
            text[4] = step;
            libc::write(report, text.as_ptr().cast(), text.len());
            libc::_exit(127)
        }
    }

    /// Returns the index into `STEPS` of what failed; a success does not return.
    fn run_steps(&self, in_cgroup: bool) -> u8 {
        // SAFETY: only async-signal-safe system calls on memory and descriptors that were
        // prepared before the clone and are borrowed by `self`.
        unsafe {
            // Not "once more, to be sure": this write waits for an RCU grace period.
            let unified = self.cgroup_v2.iter().filter(|_| !in_cgroup);
            for file in self.cgroup_files.iter().chain(unified.map(|v2| &v2.procs)) {
                if libc::write(file.as_raw_fd(), c"0".as_ptr().cast(), 1) < 0 {
                    return 0;
                }
            }
            let led = match self.session {
                Session::Inherit => 0,
                Session::Group => libc::setpgid(0, 0),
                Session::Leader => libc::setsid(),
            };
            if led < 0 {
                return 1;
            }
            if self.nice != 0 && libc::setpriority(libc::PRIO_PROCESS, 0, self.nice) < 0 {
                return 2;
            }
            if libc::chdir(self.directory.as_ptr()) < 0 {
                return 3;
            }
            for (target, source) in self.sources.iter().enumerate() {
                if libc::dup2(source.as_raw_fd(), target as RawFd) < 0 {
                    return 4;
                }
            }
            // Before Linux 5.11 this fails: then only our own CLOEXEC habit closes the rest.
            const CLOSE_RANGE_CLOEXEC: libc::c_long = 4;
            libc::syscall(
                libc::SYS_close_range,
                self.targets as libc::c_long,
                libc::c_long::from(i32::MAX),
                CLOSE_RANGE_CLOEXEC,
            );
            // Exec resets handlers but keeps "ignored", which Rust sets for SIGPIPE.
            let mut none: libc::sigset_t = std::mem::zeroed();
            libc::sigemptyset(&raw mut none);
            if libc::signal(libc::SIGPIPE, libc::SIG_DFL) == libc::SIG_ERR
                || libc::sigprocmask(libc::SIG_SETMASK, &raw const none, ptr::null_mut()) < 0
            {
                return 5;
            }
            libc::execve(
                self.program.as_ptr(),
                self.argv_pointers.as_ptr(),
                self.env_pointers.as_ptr(),
            );
        }
        6
    }
}

/// A copy whose number is above all targets, so that placing one never overwrites another.
fn high_copy(fd: BorrowedFd<'_>, above: RawFd) -> io::Result<OwnedFd> {
    Ok(rustix::io::fcntl_dupfd_cloexec(fd, above)?)
}

fn open_cgroups(join: &CgroupJoin, above: RawFd) -> io::Result<(Vec<OwnedFd>, Option<Unified>)> {
    let open = |file: PathBuf| high_copy(File::options().write(true).open(file)?.as_fd(), above);
    let tasks = join
        .v1
        .iter()
        .map(|directory| open(directory.join("tasks")));
    let v2 = join.v2.as_ref().map(|directory| {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let opened = rustix::fs::open(directory, flags, Mode::empty())?;
        Ok::<_, io::Error>(Unified {
            directory: high_copy(opened.as_fd(), above)?,
            procs: open(directory.join("cgroup.procs"))?,
        })
    });
    Ok((tasks.collect::<io::Result<_>>()?, v2.transpose()?))
}

fn c_string(text: &OsStr) -> io::Result<CString> {
    CString::new(text.as_bytes()).map_err(|_| io::ErrorKind::InvalidInput.into())
}

fn pointers(strings: &[CString]) -> Vec<*const libc::c_char> {
    let ends = [ptr::null()];
    strings.iter().map(|s| s.as_ptr()).chain(ends).collect()
}

fn not_found(program: &Path) -> io::Error {
    let text = format!("execute {}: not found on PATH", program.display());
    io::Error::new(io::ErrorKind::NotFound, text)
}

fn reap_blocking(pid: i32) {
    // SAFETY: waitpid on our own child with a null status pointer.
    while unsafe { libc::waitpid(pid, ptr::null_mut(), 0) } < 0 {
        if io::Error::last_os_error().kind() != io::ErrorKind::Interrupted {
            break;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(spawn: Spawn) -> (Ended, String) {
        let (read, write) = crate::os::pipe::pipe().expect("pipe").into_files();
        let child = spawn.descriptor(1, write.into()).start().expect("start");
        let mut read = read;
        let mut text = String::new();
        read.read_to_string(&mut text).expect("output");
        (async_io::block_on(child.wait()).expect("exit"), text)
    }

    #[test]
    fn exit_codes_signals_and_output_come_back() {
        let shell = |script: &str| Spawn::new("sh").args(["-c", script]);
        assert_eq!(
            run(shell("echo hi; exit 7")),
            (Ended::Exited(7), "hi\n".into())
        );
        assert_eq!(run(shell("kill -9 $$")).0, Ended::Signalled(9));
        assert_eq!(run(shell("pwd").directory("/usr")).1, "/usr\n");
        assert_eq!(run(shell("echo $A $NOTIFY_SOCKET").env("A", "b")).1, "b\n");
    }

    #[test]
    fn a_program_that_cannot_start_is_an_error_with_its_name() {
        let missing = Spawn::new("/no/such/program").start().expect_err("missing");
        assert_eq!(missing.kind(), io::ErrorKind::NotFound);
        assert!(missing.to_string().starts_with("execute /no/such/program"));
        let denied = Spawn::new("/etc/passwd").start().expect_err("no program");
        assert_eq!(denied.kind(), io::ErrorKind::PermissionDenied);
    }

    #[test]
    fn programs_are_found_on_path_first_and_beyond_it() {
        let bin = Some(PathBuf::from("/bin/sh"));
        assert_eq!(find_on("/nowhere:/bin", "sh"), bin);
        assert!(find_on("/nowhere", "sh").is_some());
        assert_eq!(find_on("proc:/proc", "cmdline"), None);
    }

    #[test]
    fn a_child_has_only_the_descriptors_it_was_given() {
        let (keep, _other) = crate::os::pipe::pipe().expect("pipe").into_files();
        let list = Spawn::new("sh").args(["-c", "echo /proc/self/fd/*"]);
        let (_, text) = run(list.descriptor(3, keep.into()));
        let numbers = text.matches("/proc/self/fd/").count();
        // 0 to 3, and the one that the shell opened to list them.
        assert!((4..=5).contains(&numbers), "{text}");
    }

    #[test]
    fn a_child_is_born_in_its_unified_cgroup() {
        let mounts = std::fs::read_to_string("/proc/mounts").expect("mounts");
        let mut mounts = mounts.lines().map(|line| line.split(' '));
        let unified = mounts.find_map(|mut line| {
            let place = line.nth(1)?;
            (line.next() == Some("cgroup2")).then_some(place)
        });
        let name = format!("lowtide-spawn-{}", std::process::id());
        let directory = Path::new(unified.unwrap_or("/nowhere")).join(&name);
        if std::fs::create_dir(&directory).is_err() {
            return println!("skipped: no unified cgroup can be made here");
        }
        let join = CgroupJoin {
            v1: Vec::new(),
            v2: Some(directory.clone()),
        };
        let (_, text) = run(Spawn::new("cat").arg("/proc/self/cgroup").cgroup(join));
        std::fs::remove_dir(&directory).expect("an empty cgroup");
        let mut lines = text.lines().filter(|line| line.starts_with("0::"));
        assert!(lines.any(|line| line.ends_with(&name)), "{text}");
    }
}
