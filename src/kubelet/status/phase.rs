//! The pod's phase, counted over its containers.
//! Source: Kubernetes pkg/kubelet/kubelet_pods.go (getPhase).

use super::Facts;
use super::container::{ContainerStatus, State};
use crate::kubelet::memory::Target;
use crate::kubelet::plan::is_live;
use crate::kubelet::view::Role;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    Pending,
    Running,
    Succeeded,
    Failed,
}

impl Phase {
    pub fn name(self) -> &'static str {
        match self {
            Phase::Pending => "Pending",
            Phase::Running => "Running",
            Phase::Succeeded => "Succeeded",
            Phase::Failed => "Failed",
        }
    }

    /// Succeeded and Failed never change again.
    pub fn is_final(self) -> bool {
        matches!(self, Phase::Succeeded | Phase::Failed)
    }
}

pub(super) fn phase(facts: &Facts<'_>, containers: &[ContainerStatus]) -> Phase {
    if let Some(ended) = &facts.memory.finals.phase {
        return if ended.phase == "Succeeded" {
            Phase::Succeeded
        } else {
            Phase::Failed
        };
    }
    let role = |role: Role| containers.iter().filter(move |c| c.role == role);
    // Nothing of a pod that goes runs again, whatever its policy: controllers count how it ended. A start
    // that is under way may still show.
    if facts.view.deletion_grace.is_some() && !facts.view.is_static && is_quiet(facts) {
        let mut codes =
            role(Role::Regular).map(|c| c.value["state"]["terminated"]["exitCode"].as_i64());
        match codes.try_fold(0, |worst, code| code.map(|code| worst | code)) {
            Some(0) => return Phase::Succeeded,
            Some(_) => return Phase::Failed,
            None if facts.over => return Phase::Failed,
            None => {}
        }
    }
    if role(Role::Init).any(|c| c.failed_for_good) {
        // Sidecars may still be stopping; the record decides when that is over.
        return Phase::Pending;
    }
    let ran_before = role(Role::Regular).any(|c| c.state != State::NeverRan);
    let init_pending = role(Role::Init).any(|c| !c.succeeded);
    if init_pending && !ran_before {
        return Phase::Pending;
    }
    if role(Role::Regular).any(|c| c.state == State::NeverRan) {
        return Phase::Pending;
    }
    // All run or have ended at least once: some run again, or the end is about to be recorded.
    Phase::Running
}

/// Whether nothing lives, and nothing is being started or stopped.
fn is_quiet(facts: &Facts<'_>) -> bool {
    let mut busy = facts.memory.busy.iter();
    !facts.observed.containers.iter().any(is_live)
        && !busy.any(|target| matches!(target, Target::Container(_)))
}
