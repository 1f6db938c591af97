//! Starting containers, and taking over those of a shim that died.

use std::fs;
use std::io;
use std::time::Duration;

use super::container::{Console, Container};
use super::job::{self, Job, JobFiles, Work};
use super::record::{self, ContainerDirectory, ContainerRecord};
use super::server::{CONTAINERS_MAX, Caller, Shim};
use super::watch::Watched;
use super::wire::{Answer, Failure, RunRequest, Started, Terminal};
use crate::os::clock;
use crate::os::process::{self, Ended, PidFd, ProcessIdentity};

/// Directories looked at by an adopting shim.
const ADOPTED_MAX: usize = 1024;

fn run_files(directory: &ContainerDirectory) -> JobFiles {
    JobFiles {
        pid_file: directory.file("pid"),
        log: directory.file("runtime.log"),
    }
}

impl Shim {
    pub(super) fn start_container(
        &mut self,
        request: RunRequest,
        caller: Caller,
    ) -> Result<(), Failure> {
        let name = request.container.clone();
        let malformed = || Failure::Failed(format!("run {name}: not a directory name"));
        let directory = self.directory.container(&name).ok_or_else(malformed)?;
        let ended = matches!(directory.exit(), Ok(Some(_)));
        if ended || self.container(&name).is_some() {
            let text = format!("run {name}: started before; an instance runs once");
            return Err(Failure::Busy(text));
        }
        if self.containers.len() >= CONTAINERS_MAX {
            let text = format!("run {name}: {CONTAINERS_MAX} containers run already");
            return Err(Failure::Busy(text));
        }
        let deadline = Duration::from_millis(request.deadline_ms);
        let serial = self.next_serial();
        let (container, job) = launch(request, directory, serial, caller, deadline)
            .map_err(|error| Failure::Failed(format!("run {name}: {error}")))?;
        self.containers.push(container);
        self.jobs.push(job);
        Ok(())
    }

    /// The runtime has left. `how` is `None` if that was not seen (an adopted one).
    pub(super) fn job_ended(&mut self, job: Job, how: Option<Ended>) {
        match &job.work {
            Work::Exec { serial, .. } => {
                let serial = *serial;
                self.exec_started(job, serial, how);
            }
            Work::Run { container } => {
                if let Some(index) = self.container_index(container) {
                    self.run_ended(index, job, how);
                }
            }
        }
        self.settle_strays();
    }

    fn run_ended(&mut self, index: usize, job: Job, how: Option<Ended>) {
        let taken = match how {
            Some(Ended::Exited(0)) => self.take_init(index, &job),
            // Of a runtime taken over only its traces tell.
            None if job.files.pid_file.exists() => self.take_init(index, &job),
            Some(_) | None => Err(job::classify(job.files.error())),
        };
        let result = match taken {
            Ok(started) => Ok(Answer::Started(started)),
            Err(failure) => {
                self.abandon(index, &failure);
                Err(failure)
            }
        };
        if let Some(caller) = job.caller {
            self.answer(caller, result, &[]);
        }
        self.announce();
    }

    fn take_init(&mut self, index: usize, job: &Job) -> Result<Started, Failure> {
        let container = &mut self.containers[index];
        let name = container.request.container.clone();
        let failed = |error: io::Error| Failure::Failed(format!("take over {name}: {error}"));
        let pid = job.files.pid().map_err(failed)?;
        if let Some(console) = &job.console {
            let master = console.receive().map_err(failed)?;
            container.attach_terminal(master).map_err(failed)?;
        }
        let gone = ProcessIdentity {
            pid,
            start_ticks: 0,
        };
        let identity = ProcessIdentity::of(pid).unwrap_or(gone);
        let started = Started {
            process: identity,
            at: clock::stamp(),
        };
        container.started = Some(started);
        container.init = match (job.process.is_own(), PidFd::open(pid)) {
            (true, Ok(fd)) => Some(Watched::own(pid, fd)),
            // Reaped already: the stray with this number is it, and is settled next. The runtime's
            // own descriptor stands in, which takes no signals any more.
            (true, Err(_)) if self.strays.iter().any(|(stray, _)| *stray == pid) => {
                let dead = job.process.fd.try_clone().map_err(failed)?;
                Some(Watched::own(pid, dead))
            }
            (true, Err(_)) => None,
            (false, _) => Watched::adopt(identity),
        };
        let saved = container.save(None);
        let vanished = container.init.is_none();
        if let Err(error) = saved {
            self.note(&format!("record {name}: {error}"));
        }
        if vanished {
            self.container_ended(index, None);
        }
        Ok(started)
    }

    /// A container whose command will never run.
    fn abandon(&mut self, index: usize, failure: &Failure) {
        let mut container = self.containers.remove(index);
        let (code, text) = match failure {
            Failure::Start { code, message } => (*code, message.as_str()),
            Failure::NotFound(text)
            | Failure::Busy(text)
            | Failure::Timeout(text)
            | Failure::Version(text)
            | Failure::Failed(text) => (128, text.as_str()),
        };
        if let Err(error) = container.finish_unstarted(code, text) {
            let name = &container.request.container;
            self.note(&format!("record that {name} did not start: {error}"));
        }
    }

    /// A runtime that hangs is killed with its process group; what it had begun is the agent's to
    /// clean (`delete --force`, the cgroup).
    pub(super) fn job_late(&mut self, index: usize) {
        let job = self.jobs.swap_remove(index);
        match job.process.is_own() {
            true => {
                let _already_gone = process::kill_group(job.process.pid);
            }
            false => {
                let _already_gone = job.process.fd.signal(9);
            }
        }
        if let Ok(pid) = job.files.pid()
            && let Ok(init) = PidFd::open(pid)
        {
            let _already_gone = init.signal(9);
        }
        let name = job.work.container().to_owned();
        let failure = Failure::Timeout(format!("the runtime of {name} did not finish in time"));
        match job.work {
            Work::Exec { serial, .. } => {
                self.exec_late(serial, failure);
                job.files.remove();
            }
            Work::Run { container } => {
                if let Some(index) = self.container_index(&container) {
                    self.abandon(index, &failure);
                }
                if let Some(caller) = job.caller {
                    self.answer(caller, Err(failure), &[]);
                }
                self.announce();
            }
        }
    }

    /// Takes over what a dead shim has left: pause, living containers, a runtime at work, exits
    /// that nobody saw.
    pub(super) fn adopt(&mut self) {
        self.adopt_infra();
        let Ok(entries) = fs::read_dir(self.directory.containers()) else {
            return;
        };
        for entry in entries.filter_map(Result::ok).take(ADOPTED_MAX) {
            let name = entry.file_name();
            let Some(directory) = name.to_str().and_then(|n| self.directory.container(n)) else {
                continue;
            };
            if matches!(directory.exit(), Ok(Some(_))) {
                continue;
            }
            match record::read::<ContainerRecord>(&directory.file("shim.json")) {
                Ok(Some(record)) => self.adopt_container(directory, record),
                Ok(None) => {}
                Err(error) => self.note(&format!("read record of {name:?}: {error}")),
            }
        }
    }

    fn adopt_container(&mut self, directory: ContainerDirectory, record: ContainerRecord) {
        Shim::sweep_execs(directory.path());
        let files = run_files(&directory);
        let name = record.request.container.clone();
        let deadline = Duration::from_millis(record.request.deadline_ms);
        let mut container = match Container::open(record.request, directory) {
            Ok(container) => container,
            Err(error) => return self.note(&format!("adopt {name}: {error}")),
        };
        container.started = record.started;
        container.init = record
            .started
            .and_then(|started| Watched::adopt(started.process));
        let lives = container.init.is_some();
        self.containers.push(container);
        if lives {
            return;
        }
        let index = self.containers.len() - 1;
        match (record.started, record.runtime.and_then(Watched::adopt)) {
            (None, Some(runtime)) => {
                let work = Work::Run { container: name };
                self.jobs.push(Job::adopted(runtime, work, files, deadline));
            }
            // The runtime has ended, too: its traces tell how far it got.
            (None, None) => match self.take_unwatched(index, &files) {
                Ok(()) => {}
                Err(_never_ran) => self.container_ended(index, None),
            },
            (Some(_), _) => self.container_ended(index, None),
        }
    }

    fn take_unwatched(&mut self, index: usize, files: &JobFiles) -> io::Result<()> {
        let identity = ProcessIdentity::of(files.pid()?)?;
        let init = Watched::adopt(identity).ok_or(io::ErrorKind::NotFound)?;
        let container = &mut self.containers[index];
        container.init = Some(init);
        container.started = Some(Started {
            process: identity,
            at: clock::stamp(),
        });
        container.save(None)
    }
}

/// Opens everything and starts the runtime; the record is on disk before the runtime can have
/// made anything, and again with the runtime's identity.
fn launch(
    request: RunRequest,
    directory: ContainerDirectory,
    serial: u64,
    caller: Caller,
    deadline: Duration,
) -> io::Result<(Container, Job)> {
    let files = run_files(&directory);
    files.remove();
    let container = Container::open(request, directory)?;
    let console = match container.request.terminal {
        Terminal::Yes => Some(Console::in_directory(&container.directory, serial)?),
        Terminal::No => None,
    };
    container.save(None)?;
    let bundle = container.directory.path().to_string_lossy().into_owned();
    let request = &container.request;
    let child = job::start(
        &request.runtime,
        &files,
        &["run", "--bundle", &bundle],
        console.as_ref().map(|console| console.short.as_path()),
        &request.id,
        container.stdio()?,
    )?;
    container.save(ProcessIdentity::of(child.pid).ok())?;
    let work = Work::Run {
        container: request.container.clone(),
    };
    let job = Job::own(child, work, files, console, caller, deadline);
    Ok((container, job))
}
