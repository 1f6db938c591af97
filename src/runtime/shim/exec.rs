//! Commands run inside containers: probes, hooks, `kubectl exec`.
//!
//! ```text
//!   Exec ─► runtime `exec --detach` ─► answer: started ─► Ended{code}
//!                  │ cannot start          │ timeout, cancelled, connection gone
//!                  └─► answer: failure     └─► killed with its descendants ─► Ended{…}
//! ```
//! The runtime leaves once the command runs, so the command is our child and its timeout counts
//! from its start, not from the runtime's.

use std::fs;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use super::container::Console;
use super::job::{self, Job, JobFiles, Work};
use super::kill::kill_tree;
use super::server::{Caller, EXECS_MAX, Shim};
use super::wire::{Answer, ExecEnd, ExecRequest, Failure, Started, Terminal};
use crate::os::clock;
use crate::os::process::{Ended, ProcessIdentity};
use crate::world::BootTime;

pub(super) struct Exec {
    pub serial: u64,
    pub caller: Caller,
    /// Once it runs.
    pub pid: Option<i32>,
    timeout: Option<Duration>,
    deadline: Option<BootTime>,
    fate: Fate,
}

/// Why a command is about to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    Own,
    TimedOut,
    Cancelled,
}

impl Exec {
    /// When it has to be killed.
    pub fn deadline(&self) -> Option<BootTime> {
        self.deadline
    }

    pub fn time_out(&mut self) {
        self.end(Fate::TimedOut);
    }

    /// Nobody wants it any more.
    pub fn cancel(&mut self) {
        self.end(Fate::Cancelled);
    }

    fn end(&mut self, fate: Fate) {
        self.fate = fate;
        self.deadline = None;
        if let Some(pid) = self.pid {
            kill_tree(pid);
        }
    }
}

impl Shim {
    pub(super) fn start_exec(
        &mut self,
        request: ExecRequest,
        descriptors: Vec<OwnedFd>,
        caller: Caller,
    ) -> Result<(), Failure> {
        let name = &request.container;
        let container = self.container(name).filter(|c| c.started.is_some());
        let gone = || Failure::NotFound(format!("exec in {name}: not running"));
        let directory = container.ok_or_else(gone)?.directory.clone();
        if self.execs.len() >= EXECS_MAX {
            let text = format!("exec in {name}: {EXECS_MAX} commands run already");
            return Err(Failure::Busy(text));
        }
        let serial = self.next_serial();
        let failed = |error| Failure::Failed(format!("exec in {name}: {error}"));
        let (console, stdio, verb) = match request.terminal {
            Terminal::Yes => {
                let console = Console::in_directory(&directory, serial).map_err(failed)?;
                (Some(console), [None, None, None], &["exec", "--tty"][..])
            }
            Terminal::No => {
                let [stdin, stdout, stderr] = <[OwnedFd; 3]>::try_from(descriptors)
                    .map_err(|_| Failure::Failed(format!("exec in {name}: no descriptors")))?;
                let stdio = [Some(stdin), Some(stdout), Some(stderr)];
                (None, stdio, &["exec"][..])
            }
        };
        let files = JobFiles::prepare(
            directory.file(&format!("exec-{serial}.pid")),
            directory.file(&format!("exec-{serial}.log")),
        );
        let process = request.process_file.to_string_lossy();
        let verb: Vec<&str> = verb
            .iter()
            .copied()
            .chain(["--process", &process])
            .collect();
        let short = console.as_ref().map(|console| console.short.as_path());
        let child = job::start(&request.runtime, &files, &verb, short, &request.id, stdio)
            .map_err(failed)?;
        self.execs.push(Exec {
            serial,
            caller,
            pid: None,
            timeout: request.timeout_ms.map(Duration::from_millis),
            deadline: None,
            fate: Fate::Own,
        });
        let work = Work::Exec {
            container: request.container,
            serial,
        };
        let deadline = Duration::from_millis(request.deadline_ms);
        self.jobs
            .push(Job::own(child, work, files, console, caller, deadline));
        Ok(())
    }

    /// The runtime has left: the command runs, or could not.
    pub(super) fn exec_started(&mut self, job: Job, serial: u64, how: Option<Ended>) {
        let Some(index) = self.execs.iter().position(|exec| exec.serial == serial) else {
            return job.files.remove();
        };
        let result = match how {
            Some(Ended::Exited(0)) => self.take_command(&job),
            Some(_) | None => Err(job::classify(job.files.error())),
        };
        job.files.remove();
        match result {
            Ok((started, terminal)) => {
                let exec = &mut self.execs[index];
                exec.pid = Some(started.process.pid);
                exec.deadline = exec.timeout.map(|timeout| started.at.boot + timeout);
                let (caller, fate) = (exec.caller, exec.fate);
                let passed: Vec<_> = terminal.iter().map(AsFd::as_fd).collect();
                self.answer(caller, Ok(Answer::Started(started)), &passed);
                // Without an identity it has been reaped, and its number may be another's.
                if fate != Fate::Own && started.process.start_ticks != 0 {
                    kill_tree(started.process.pid);
                }
            }
            Err(failure) => {
                let exec = self.execs.swap_remove(index);
                self.answer(exec.caller, Err(failure), &[]);
            }
        }
    }

    fn take_command(&self, job: &Job) -> Result<(Started, Option<OwnedFd>), Failure> {
        let failed = |error| Failure::Failed(format!("take over a command: {error}"));
        let pid = job.files.pid().map_err(failed)?;
        let terminal = match &job.console {
            Some(console) => Some(console.receive().map_err(failed)?),
            None => None,
        };
        // One that has ended and been reaped already has no identity left but its number.
        let process = ProcessIdentity::of(pid).unwrap_or(ProcessIdentity {
            pid,
            start_ticks: 0,
        });
        let at = clock::stamp();
        Ok((Started { process, at }, terminal))
    }

    pub(super) fn exec_ended(&mut self, exec: Exec, how: Ended) {
        let end = match exec.fate {
            Fate::Own => ExecEnd::Exited { code: how.code() },
            Fate::TimedOut => ExecEnd::TimedOut,
            Fate::Cancelled => ExecEnd::Lost,
        };
        self.tell_end(exec.caller, end);
    }

    pub(super) fn exec_late(&mut self, serial: u64, failure: Failure) {
        if let Some(index) = self.execs.iter().position(|exec| exec.serial == serial) {
            let exec = self.execs.swap_remove(index);
            self.answer(exec.caller, Err(failure), &[]);
        }
    }

    /// Removes what a dead shim's execs have left in a container's directory.
    pub(super) fn sweep_execs(directory: &std::path::Path) {
        let Ok(entries) = fs::read_dir(directory) else {
            return;
        };
        for entry in entries.filter_map(Result::ok) {
            let name = entry.file_name();
            let name = name.to_string_lossy();
            let left_over = (name.starts_with("exec-")
                && (name.ends_with(".pid") || name.ends_with(".log")))
                || (name.starts_with("console-") && name.ends_with(".sock"));
            if left_over {
                let _best_effort = fs::remove_file(entry.path());
            }
        }
    }
}
