//! Who has ended: reaping our own children, looking at adopted ones, telling whose they were.

use super::container::{CHUNK_BYTES, Container};
use super::job::Job;
use super::server::Shim;
use super::watch::Look;
use super::wire::MESSAGE_BYTES_MAX;
use crate::os::process::{self, Ended};
use crate::world::BootTime;

/// Children that ended before their runtime told us who they are.
const STRAYS_MAX: usize = 256;

impl Shim {
    /// All our children are the shim's affair: it is a subreaper, so orphans come here, too.
    pub(super) fn reap(&mut self) {
        let mut ended = Vec::new();
        while let Some(child) = process::reap_any() {
            ended.push(child);
        }
        // Runtimes first: they say which of the others is whose.
        let is_job = |jobs: &[Job], pid: i32| jobs.iter().position(|j| j.process.pid == pid);
        for (pid, how) in &ended {
            if is_job(&self.jobs, *pid).is_none() {
                self.strays.push((*pid, *how));
            }
        }
        for (pid, how) in &ended {
            if let Some(index) = is_job(&self.jobs, *pid) {
                let job = self.jobs.swap_remove(index);
                self.job_ended(job, Some(*how));
            }
        }
        self.settle_strays();
    }

    /// Gives ended children to those who wait for them. What nobody knows is kept only while a
    /// runtime is at work that may yet name it.
    pub(super) fn settle_strays(&mut self) {
        for (pid, how) in std::mem::take(&mut self.strays) {
            if !self.child_ended(pid, how) && !self.jobs.is_empty() {
                self.strays.push((pid, how));
            }
        }
        let surplus = self.strays.len().saturating_sub(STRAYS_MAX);
        self.strays.drain(..surplus);
    }

    /// Whether somebody knew the child.
    fn child_ended(&mut self, pid: i32, how: Ended) -> bool {
        if let Some(exec) = self.execs.iter().position(|exec| exec.pid == Some(pid)) {
            let exec = self.execs.swap_remove(exec);
            self.exec_ended(exec, how);
            return true;
        }
        if self
            .infra
            .as_ref()
            .is_some_and(|infra| infra.process.pid == pid)
        {
            self.infra_ended();
            return true;
        }
        let same = |c: &Container| c.init.as_ref().is_some_and(|i| i.is_own() && i.pid == pid);
        match self.containers.iter().position(same) {
            Some(index) => {
                self.container_ended(index, Some(how));
                true
            }
            None => false,
        }
    }

    pub(super) fn container_ended(&mut self, index: usize, how: Option<Ended>) {
        let mut container = self.containers.remove(index);
        let (_, chunk) = self.scratch.split_at_mut(MESSAGE_BYTES_MAX);
        if let Err(error) = container.finish(how, &mut chunk[..CHUNK_BYTES]) {
            let name = &container.request.container;
            self.note(&format!("record the exit of {name}: {error}"));
        }
        self.part(&mut container);
        self.announce();
    }

    pub(super) fn look_at_adopted(&mut self, now: BootTime) {
        let mut index = 0;
        while index < self.containers.len() {
            let init = self.containers[index].init.as_mut();
            match init.map_or(Look::Lives, |init| init.look(now)) {
                Look::Lives | Look::Undecided => index += 1,
                Look::Ended(how) => self.container_ended(index, how),
            }
        }
        let infra = self.infra.as_mut();
        if let Some(Look::Ended(_)) = infra.map(|infra| infra.process.look(now)) {
            self.infra_ended();
        }
        let mut index = 0;
        while index < self.jobs.len() {
            match self.jobs[index].process.look(now) {
                Look::Lives | Look::Undecided => index += 1,
                Look::Ended(how) => {
                    let job = self.jobs.swap_remove(index);
                    self.job_ended(job, how);
                }
            }
        }
    }
}
