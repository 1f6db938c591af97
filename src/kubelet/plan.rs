//! What to do next for one pod: a pure function from desired, observed, remembered and now.
//!
//! ```text
//!                     ┌── ending: Deleted, Shutdown ──► stop all, tear down, done
//!   plan(situation) ──┼── final phase recorded ───────► release what the kernel still holds
//!                     └── living ──► sandbox ─► init 1..n ─► sidecars and regular 1..n
//! ```
//!
//! It is asked again after every step, every change and every deadline, so it never plans ahead:
//! each call gives the steps that can begin now, none for a target that is busy, and the time at
//! which waiting alone would change the answer.

mod ending;
mod living;
mod order;

pub use ending::has_its_turn;

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;

use super::memory::{EndCause, Final, Memory, Target};
use super::view::{ContainerView, PodView, Role};
use crate::world::{
    BootTime, ContainerId, ContainerObserved, ContainerState, Exit, PodObserved, SandboxState,
};

/// Everything that decides.
pub struct Situation<'a> {
    pub view: &'a PodView,
    pub observed: &'a PodObserved,
    pub memory: &'a Memory,
    pub now: BootTime,
    /// For what is recorded.
    pub wall: Timestamp,
    /// Why the pod may not start: a predecessor of its name is still ending, or its spec asks for
    /// something that is not honoured yet. What runs goes on.
    pub held: Option<&'a Waiting>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Waiting {
    pub reason: String,
    pub message: String,
}

impl Waiting {
    pub fn new(reason: &str, message: impl Into<String>) -> Waiting {
        Waiting {
            reason: reason.to_owned(),
            message: message.into(),
        }
    }
}

/// One thing to begin now.
#[derive(Clone, Debug, PartialEq)]
pub enum Step {
    SetUpVolumes,
    StartSandbox {
        attempt: u32,
    },
    EnsureImage {
        container: String,
    },
    StartContainer {
        container: String,
        attempt: u32,
        /// The exit that this start answers, for the back-off.
        after: Option<BootTime>,
    },
    PostStart {
        container: String,
        id: ContainerId,
    },
    /// preStop, stop signal, and at `deadline` the kill.
    Kill {
        container: String,
        id: ContainerId,
        message: String,
        deadline: BootTime,
        /// The signal comes after the end of those that go before: [`has_its_turn`].
        in_turn: bool,
    },
    RemoveContainer {
        id: ContainerId,
    },
    /// Other limits for what runs.
    Resize,
    /// Make final exits and the final phase durable before anybody is told.
    Record(Box<Final>),
    /// The pod is finished: give back sandbox, shim and volumes, keep the record.
    Release,
    /// The pod is no longer wanted: remove everything that is its own.
    TearDown {
        cause: EndCause,
    },
    /// `activeDeadlineSeconds` is over.
    End {
        cause: EndCause,
    },
}

impl Step {
    pub fn target(&self) -> Target {
        match self {
            Step::SetUpVolumes => Target::Volumes,
            Step::StartSandbox { .. } => Target::Sandbox,
            Step::EnsureImage { container } => Target::Image(container.clone()),
            Step::StartContainer { container, .. } | Step::Kill { container, .. } => {
                Target::Container(container.clone())
            }
            Step::PostStart { container, .. } => Target::Hook(container.clone()),
            Step::RemoveContainer { id } => Target::Garbage(id.clone()),
            Step::Resize => Target::Resize,
            Step::Record(_) => Target::Record,
            Step::Release | Step::TearDown { .. } | Step::End { .. } => Target::TearDown,
        }
    }
}

#[derive(Clone, Debug, Default, PartialEq)]
pub struct Plan {
    pub steps: Vec<Step>,
    /// Ask again then, even if nothing happens.
    pub wake_at: Option<BootTime>,
    /// Why containers that should run do not, for their status.
    pub waiting: BTreeMap<String, Waiting>,
    /// Nothing of the pod is left: the worker ends.
    pub done: bool,
    /// How the pod is now is nobody's business.
    pub untold: bool,
}

impl Plan {
    fn wake(&mut self, at: BootTime) {
        self.wake_at = Some(self.wake_at.map_or(at, |known| known.min(at)));
    }

    fn wait(&mut self, container: &str, waiting: Waiting) {
        self.waiting.insert(container.to_owned(), waiting);
    }

    /// Adds a step unless its target is busy, in memory or in this very plan.
    fn begin(&mut self, memory: &Memory, step: Step) {
        let target = step.target();
        if !memory.is_busy(&target) && !self.steps.iter().any(|s| s.target() == target) {
            self.steps.push(step);
        }
    }
}

/// The steps to begin now. Never blocks, never asks anybody.
pub fn plan(situation: &Situation<'_>) -> Plan {
    let mut plan = Plan::default();
    let memory = situation.memory;
    match (&memory.checkpoint.ending, &memory.finals.phase) {
        (Some(ending), _) if !ending.is_failure() => {
            ending::stop_and_tear_down(situation, ending, &mut plan);
        }
        (_, Some(_)) => ending::release(situation, &mut plan),
        (Some(ending), None) => ending::stop_and_record(situation, ending, &mut plan),
        (None, None) => living::advance(situation, &mut plan),
    }
    plan
}

impl Situation<'_> {
    /// Of a pod that never restarts anything something ran before the machine was started anew, or the
    /// agent left with its pods, and nobody knows how it ended: it does not run a second time. That of a
    /// manifest does: nobody would make another in its place.
    fn was_cut_off(&self) -> bool {
        let ran = |c: &ContainerView| {
            let memory = self.memory.containers.get(&c.name);
            c.role != Role::Ephemeral
                && memory.is_some_and(|known| known.attempt_base > 0)
                && !self.memory.finals.exits.contains_key(&c.name)
        };
        self.view.runs_once()
            && self.observed.containers.is_empty()
            && self.view.containers.iter().any(ran)
    }

    /// The instance with the highest number, whatever sandbox it belonged to.
    pub(super) fn latest(&self, name: &str) -> Option<&ContainerObserved> {
        latest(self.observed, name)
    }

    /// The latest instance if it was made in the present sandbox.
    fn current(&self, name: &str) -> Option<&ContainerObserved> {
        let sandbox = self.observed.sandbox.as_ref()?;
        self.latest(name)
            .filter(|c| c.created.boot >= sandbox.created.boot)
    }

    fn sandbox_ready(&self) -> bool {
        let sandbox = self.observed.sandbox.as_ref();
        sandbox.is_some_and(|s| s.state == SandboxState::Ready)
    }

    /// Running instances with their views; instances of containers that the spec no longer has
    /// are orphans and come with no view.
    fn live(&self) -> impl Iterator<Item = (&ContainerObserved, Option<&ContainerView>)> {
        let live = self.observed.containers.iter().filter(|c| is_live(c));
        live.map(|c| (c, self.view.container(&c.name)))
    }

    /// Whether a start is under way, so that a live instance may appear any moment.
    fn is_starting(&self) -> bool {
        let mut containers = self.view.containers.iter();
        containers.any(|c| self.memory.is_busy(&Target::Container(c.name.clone())))
    }

    fn kill(&self, plan: &mut Plan, target: &ContainerObserved, message: &str, grace: Duration) {
        self.kill_by(plan, target, message, self.now + grace, false);
    }

    fn kill_by(
        &self,
        plan: &mut Plan,
        target: &ContainerObserved,
        message: &str,
        deadline: BootTime,
        in_turn: bool,
    ) {
        self.try_again(
            plan,
            Step::Kill {
                container: target.name.clone(),
                id: target.id.clone(),
                message: message.to_owned(),
                deadline,
                in_turn,
            },
        );
    }

    /// Removes dead instances but the newest of each container: it is the last state, and its log
    /// is `--previous`. Source: Kubernetes container GC, maximum-dead-containers-per-container 1.
    fn remove_garbage(&self, plan: &mut Plan) {
        for (index, instance) in self.observed.containers.iter().enumerate() {
            let mut later = self.observed.containers[index + 1..].iter();
            let newer_dead = later.any(|c| c.name == instance.name && !is_live(c));
            if !is_live(instance) && newer_dead {
                let id = instance.id.clone();
                self.try_again(plan, Step::RemoveContainer { id });
            }
        }
    }

    /// Begins a step, unless its last try failed just now.
    fn try_again(&self, plan: &mut Plan, step: Step) {
        match self.memory.retries.get(&step.target()) {
            Some(at) if self.now < *at => plan.wake(*at),
            Some(_) | None => plan.begin(self.memory, step),
        }
    }
}

/// The instance of `name` with the highest number.
pub fn latest<'a>(observed: &'a PodObserved, name: &str) -> Option<&'a ContainerObserved> {
    let instances = observed.containers.iter().filter(|c| c.name == name);
    instances.max_by_key(|c| c.attempt)
}

/// The instance before this one, if it is still there.
pub fn previous<'a>(
    observed: &'a PodObserved,
    instance: &ContainerObserved,
) -> Option<&'a ContainerObserved> {
    let all = observed.containers.iter();
    let before = all.filter(|c| c.name == instance.name && c.attempt < instance.attempt);
    before.max_by_key(|c| c.attempt)
}

/// Created or running: it can still do something.
pub fn is_live(container: &ContainerObserved) -> bool {
    match container.state {
        ContainerState::Created | ContainerState::Running { .. } => true,
        ContainerState::Exited(_) => false,
    }
}

pub fn exit_of(container: &ContainerObserved) -> Option<&Exit> {
    match &container.state {
        ContainerState::Exited(exit) => Some(exit),
        ContainerState::Created | ContainerState::Running { .. } => None,
    }
}

#[cfg(test)]
mod ending_tests;
#[cfg(test)]
mod ephemeral_tests;
#[cfg(test)]
mod order_tests;
#[cfg(test)]
mod reboot_tests;
#[cfg(test)]
mod resize_tests;
#[cfg(test)]
mod tests;
