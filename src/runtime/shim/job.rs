//! The OCI runtime at work: its command line, its output, what its failure means.
//!
//! The runtime's own errors go to a `--log` file, since its standard error is the container's.
//! runc, crun and youki share these flags.

use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Deserialize;

use super::container::Console;
use super::server::Caller;
use super::watch::Watched;
use super::wire::Failure;
use crate::os::spawn::{Child, Session, Spawn};
use crate::os::{clock, file};
use crate::world::BootTime;

/// The end of a log is where the cause is; the rest is not read.
const LOG_BYTES_MAX: u64 = 16 * 1024;
/// Longest message handed to the agent.
const MESSAGE_BYTES_MAX: usize = 2048;

/// A call of the runtime that has not ended yet.
#[derive(Debug)]
pub(super) struct Job {
    pub process: Watched,
    pub work: Work,
    pub files: JobFiles,
    pub console: Option<Console>,
    /// `None` if the request came to a shim that is dead.
    pub caller: Option<Caller>,
    deadline: BootTime,
}

/// What a job is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Work {
    Run { container: String },
    Exec { container: String, serial: u64 },
}

impl Work {
    /// The container that a job is about.
    pub fn container(&self) -> &str {
        match self {
            Work::Run { container } | Work::Exec { container, .. } => container,
        }
    }
}

impl Job {
    pub fn own(
        child: Child,
        work: Work,
        files: JobFiles,
        console: Option<Console>,
        caller: Caller,
        time: Duration,
    ) -> Job {
        Job {
            process: Watched::own(child.pid, child.pidfd),
            work,
            files,
            console,
            caller: Some(caller),
            deadline: clock::boot_time() + time,
        }
    }

    /// One that a dead shim had started. Its terminal, if it makes one, is lost with that shim.
    pub fn adopted(process: Watched, work: Work, files: JobFiles, time: Duration) -> Job {
        Job {
            process,
            work,
            files,
            console: None,
            caller: None,
            deadline: clock::boot_time() + time,
        }
    }

    /// When the runtime is killed.
    pub fn deadline(&self) -> Option<BootTime> {
        Some(self.deadline)
    }
}

/// Files of one call of the runtime.
#[derive(Debug)]
pub struct JobFiles {
    pub pid_file: PathBuf,
    pub log: PathBuf,
}

impl JobFiles {
    /// `<stem>.pid` and `<stem>.log` in `directory`, removed if they are left over.
    pub fn prepare(pid_file: PathBuf, log: PathBuf) -> JobFiles {
        let files = JobFiles { pid_file, log };
        files.remove();
        files
    }

    pub fn remove(&self) {
        for path in [&self.pid_file, &self.log] {
            let _not_there = fs::remove_file(path);
        }
    }

    /// The pid that the runtime wrote.
    pub fn pid(&self) -> io::Result<i32> {
        let text = file::read_bounded(&self.pid_file, 32)?;
        str::from_utf8(&text)
            .ok()
            .and_then(|text| text.trim().parse().ok())
            .ok_or_else(|| io::ErrorKind::InvalidData.into())
    }

    /// Why the runtime failed: its last error, shortened.
    pub fn error(&self) -> String {
        let bytes = file::read_bounded(&self.log, LOG_BYTES_MAX).unwrap_or_default();
        last_error(&String::from_utf8_lossy(&bytes))
    }
}

/// Starts `runtime… --log … <verb…>` as leader of a process group of its own.
pub fn start(
    runtime: &[String],
    files: &JobFiles,
    verb: &[&str],
    console: Option<&Path>,
    id: &str,
    stdio: [Option<OwnedFd>; 3],
) -> io::Result<Child> {
    let (program, prefix) = runtime.split_first().ok_or(io::ErrorKind::InvalidInput)?;
    let mut spawn = Spawn::new(program)
        .args(prefix)
        .arg("--log")
        .arg(&files.log)
        .args(["--log-format", "json"])
        .args(verb)
        .args(["--detach", "--pid-file"])
        .arg(&files.pid_file)
        .session(Session::Group);
    if let Some(console) = console {
        spawn = spawn.arg("--console-socket").arg(console);
    }
    for (number, descriptor) in stdio.into_iter().enumerate() {
        if let Some(descriptor) = descriptor {
            spawn = spawn.descriptor(number, descriptor);
        }
    }
    spawn.arg(id).start()
}

/// A line of the runtime's log.
#[derive(Deserialize)]
struct LogLine {
    #[serde(default)]
    level: String,
    #[serde(default)]
    msg: String,
}

fn last_error(log: &str) -> String {
    let lines = log
        .lines()
        .filter_map(|line| serde_json::from_str(line).ok());
    let mut errors =
        lines.filter(|line: &LogLine| matches!(line.level.as_str(), "error" | "fatal"));
    let mut message = errors.next_back().map(|line| line.msg).unwrap_or_default();
    if message.is_empty() {
        message = log.lines().last().unwrap_or_default().to_owned();
    }
    let mut end = message.len().min(MESSAGE_BYTES_MAX);
    while !message.is_char_boundary(end) {
        end -= 1;
    }
    message.truncate(end);
    message
}

/// What a runtime's message means: as shells have it, 127 for a command that is not there, 126 for
/// one that cannot be executed, 128 for everything else.
pub fn classify(message: String) -> Failure {
    let about_command = message.contains("exec: \"")
        || message.contains("exec failed")
        || message.contains("executable file")
        || message.contains("open executable")
        || message.contains("exec /");
    let missing = [
        "executable file not found",
        "no such file or directory",
        "not found in $PATH",
    ];
    let refused = ["permission denied", "exec format error", "is a directory"];
    let lower = message.to_lowercase();
    let any = |needles: &[&str]| needles.iter().any(|n| lower.contains(&n.to_lowercase()));
    let code = match about_command {
        true if any(&missing) => 127,
        true if any(&refused) => 126,
        true | false => 128,
    };
    Failure::Start { code, message }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_of_the_command_are_told_from_those_of_the_container() {
        for (text, code) in [
            (
                "runc run failed: unable to start container process: exec: \"nope\": executable \
                 file not found in $PATH",
                127,
            ),
            (
                "unable to start container process: exec: \"/nope\": stat /nope: no such file or \
                 directory",
                127,
            ),
            (
                "unable to start container process: exec: \"/etc/passwd\": permission denied",
                126,
            ),
            (
                "unable to start container process: exec: \"/bin\": is a directory: unknown",
                126,
            ),
            (
                "executable file `nope` not found in $PATH: No such file or directory",
                127,
            ),
            ("open executable: Permission denied", 126),
            (
                "error during container init: error mounting \"/x\" to rootfs at \"/y\": stat /x: \
                 no such file or directory",
                128,
            ),
            ("container with given ID already exists", 128),
        ] {
            let failure = classify(text.to_owned());
            assert!(
                matches!(failure, Failure::Start { code: c, .. } if c == code),
                "{text}"
            );
        }
    }

    #[test]
    fn the_last_error_of_a_log_is_the_message() {
        let log = "{\"level\":\"warning\",\"msg\":\"w\"}\n{\"level\":\"error\",\"msg\":\"first\"}\n\
                   {\"level\":\"error\",\"msg\":\"last\",\"time\":\"t\"}\n";
        assert_eq!(last_error(log), "last");
        assert_eq!(last_error("plain text\n"), "plain text");
        assert_eq!(last_error(""), "");
    }
}
