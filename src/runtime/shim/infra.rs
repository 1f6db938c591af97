//! The shim's dealings with its pause process.

use std::fs;
use std::io::Read;
use std::os::fd::OwnedFd;
use std::time::Duration;

use super::record;
use super::server::{Caller, Shim};
use super::watch::Watched;
use super::wire::{Answer, Failure, Own, PauseConfig, Started};
use crate::os::process::ProcessIdentity;
use crate::os::spawn::{PidNamespace, Spawn};
use crate::os::{clock, pipe};
use crate::runtime::pause;
use crate::world::BootTime;

/// `ready`, or a line with what failed.
const REPORT_BYTES_MAX: u64 = 1024;

pub(super) struct Infra {
    pub process: Watched,
    pub identity: ProcessIdentity,
    /// Until it has said that it is ready.
    pub report: Option<OwnedFd>,
    starter: Option<(Caller, BootTime)>,
    stoppers: Vec<Caller>,
}

impl Infra {
    pub fn adopted(process: Watched, identity: ProcessIdentity) -> Infra {
        Infra {
            process,
            identity,
            report: None,
            starter: None,
            stoppers: Vec::new(),
        }
    }

    /// When it must be ready.
    pub fn deadline(&self) -> Option<BootTime> {
        self.starter.map(|(_, deadline)| deadline)
    }
}

impl Shim {
    pub(super) fn start_infra(
        &mut self,
        config: PauseConfig,
        caller: Caller,
    ) -> Result<(), Failure> {
        if self.infra.is_some() {
            return Err(Failure::Busy("start pause: it runs already".into()));
        }
        let failed = |error| Failure::Failed(format!("start pause: {error}"));
        let ends = pipe::pipe().map_err(failed)?;
        // Our own image, not a path: after an upgrade the path may be another program.
        let child = Spawn::new("/proc/self/exe")
            .called("lowtide")
            .arg("pause")
            .args(pause::arguments(&config, self.directory.path()))
            .descriptor(1, ends.write)
            .cgroup(config.cgroup)
            .pid_namespace(match config.pid {
                Own::Pod => PidNamespace::New,
                Own::Host => PidNamespace::Inherit,
            })
            .start()
            .map_err(failed)?;
        let identity = ProcessIdentity::of(child.pid).map_err(failed)?;
        if let Err(error) = record::write(&self.directory.pause(), &identity) {
            self.note(&format!("record pause: {error}"));
        }
        let deadline = clock::boot_time() + Duration::from_millis(config.deadline_ms);
        self.infra = Some(Infra {
            process: Watched::own(child.pid, child.pidfd),
            identity,
            report: Some(ends.read),
            starter: Some((caller, deadline)),
            stoppers: Vec::new(),
        });
        Ok(())
    }

    /// It is ready, or it has said why not and is about to end.
    pub(super) fn infra_reported(&mut self) {
        let Some(infra) = &mut self.infra else {
            return;
        };
        let (Some(report), Some((caller, _))) = (infra.report.take(), infra.starter.take()) else {
            return;
        };
        let mut text = String::new();
        let mut bounded = fs::File::from(report).take(REPORT_BYTES_MAX);
        // Written in one piece and closed right behind: this does not wait.
        let _what_came_counts = bounded.read_to_string(&mut text);
        let result = if text == "ready\n" {
            Ok(Answer::Started(Started {
                process: infra.identity,
                at: clock::stamp(),
            }))
        } else {
            let _already_gone = infra.process.fd.signal(9);
            let why = match text.trim_end() {
                "" => "it ended before it was ready",
                why => why,
            };
            Err(Failure::Failed(format!("start pause: {why}")))
        };
        self.answer(caller, result, &[]);
    }

    pub(super) fn infra_late(&mut self) {
        if let Some(infra) = &mut self.infra
            && let Some((caller, _)) = infra.starter.take()
        {
            infra.report = None;
            let _already_gone = infra.process.fd.signal(9);
            let text = "start pause: not ready in time".to_owned();
            self.answer(caller, Err(Failure::Timeout(text)), &[]);
        }
    }

    pub(super) fn infra_ended(&mut self) {
        // What it said last is still in the pipe.
        self.infra_reported();
        let Some(infra) = self.infra.take() else {
            return;
        };
        let _best_effort = fs::remove_file(self.directory.pause());
        for caller in infra.stoppers {
            self.answer(caller, Ok(Answer::Done), &[]);
        }
        self.announce();
    }

    /// `None`: the answer comes when it is reaped.
    pub(super) fn stop_infra(&mut self, caller: Caller) -> Option<Result<Answer, Failure>> {
        match &mut self.infra {
            None => Some(Ok(Answer::Done)),
            Some(infra) => {
                let _already_gone = infra.process.fd.signal(9);
                infra.stoppers.push(caller);
                None
            }
        }
    }

    /// Takes over the pause of a shim that died.
    pub(super) fn adopt_infra(&mut self) {
        match record::read::<ProcessIdentity>(&self.directory.pause()) {
            Ok(Some(identity)) => match Watched::adopt(identity) {
                Some(process) => self.infra = Some(Infra::adopted(process, identity)),
                None => {
                    let _best_effort = fs::remove_file(self.directory.pause());
                }
            },
            Ok(None) => {}
            Err(error) => self.note(&format!("read the record of pause: {error}")),
        }
    }
}
