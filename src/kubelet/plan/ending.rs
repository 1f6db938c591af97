//! The end of a pod: containers stop in order, the outcome is made durable, what the kernel holds
//! is given back.
//!
//! ```text
//!   all that lives: preStop ─► stop signal, to sidecars in their turn ─► nothing live
//!        Deleted, Shutdown: ─► TearDown ─► done
//!        DeadlineExceeded, Evicted, Rejected: ─► Record ─► Release
//! ```

use super::super::memory::{EndCause, Ending, Final, FinalExit, FinalPhase, LastExit, Target};
use super::super::preempt;
use super::super::view::{ContainerView, PodView, RestartPolicy, Role};
use super::living::record_final_exits;
use super::{Plan, Situation, Step, exit_of, is_live, latest, previous};
use crate::world::{BootTime, ContainerObserved, PodObserved};

/// The pod is not wanted any more.
pub(super) fn stop_and_tear_down(situation: &Situation<'_>, ending: &Ending, plan: &mut Plan) {
    let memory = situation.memory;
    plan.untold = comes_back(situation, ending);
    if memory.torn_down {
        plan.done = true;
        return;
    }
    if !stop_all(situation, ending.deadline(), plan) {
        return;
    }
    if ending.overdue && memory.finals.phase.is_none() {
        return begin_record(situation, failed(situation, ending), plan);
    }
    // What does not run again has to be known by then, unless the disk takes nothing.
    let leaves = ending.cause == EndCause::Shutdown && situation.view.runs_once();
    if leaves && memory.record_retry.is_none() {
        record_final_exits(situation, plan);
        if !plan.steps.is_empty() {
            return;
        }
    }
    let hands_on = [Target::Sandbox, Target::Volumes, Target::Record];
    if hands_on.iter().any(|target| memory.is_busy(target)) {
        return;
    }
    match &memory.tear_down_trouble {
        Some(trouble) if situation.now < trouble.retry_at => plan.wake(trouble.retry_at),
        Some(_) | None => {
            let cause = ending.cause;
            plan.begin(memory, Step::TearDown { cause });
        }
    }
}

/// Whether the pod leaves with the agent and its containers run again with the next one, though some of
/// them have ended: a cluster takes no such end back, and would have no status of it from then on. That the
/// node goes down says enough.
/// Source: Kubernetes pkg/apis/core/validation (ValidateContainerStateTransition).
fn comes_back(situation: &Situation<'_>, ending: &Ending) -> bool {
    let view = situation.view;
    let again = view.restart_policy != RestartPolicy::Always && !view.runs_once();
    let stays = ending.overdue || situation.memory.finals.phase.is_some();
    again && ending.cause == EndCause::Shutdown && !stays && view.deletion_grace.is_none()
}

/// The pod's time is up, or the node needs what it has: it stays as a failed one.
pub(super) fn stop_and_record(situation: &Situation<'_>, ending: &Ending, plan: &mut Plan) {
    if !stop_all(situation, ending.deadline(), plan) {
        return record_final_exits(situation, plan);
    }
    begin_record(situation, failed(situation, ending), plan);
}

fn failed(situation: &Situation<'_>, ending: &Ending) -> Final {
    let reason = ending.reason.as_deref();
    // The cause may be by now that the agent leaves.
    let rejected = ending.cause == EndCause::Rejected
        || reason.is_some_and(|reason| reason != preempt::REASON);
    let evicted = reason.unwrap_or("Evicted");
    let (reason, text) = match &ending.eviction {
        // Source: Kubernetes pkg/kubelet/kubelet.go (rejectPod).
        Some(why) if rejected => (evicted, format!("Pod was rejected: {why}")),
        Some(why) => (evicted, why.clone()),
        None => {
            let text = "Pod was active on the node longer than the specified deadline";
            ("DeadlineExceeded", text.to_owned())
        }
    };
    let mut record = with_exits(situation);
    record.phase = Some(FinalPhase {
        reason: Some(reason.to_owned()),
        disrupted: ending.eviction.is_some() && !rejected,
        message: Some(text),
        ..final_phase(situation, "Failed")
    });
    record
}

/// A finished pod keeps its record and its logs, nothing in the kernel.
pub(super) fn release(situation: &Situation<'_>, plan: &mut Plan) {
    let memory = situation.memory;
    if memory.released {
        return;
    }
    let grace = situation.view.grace;
    let mut live = false;
    for (instance, _) in situation.live() {
        live = true;
        situation.kill(plan, instance, "pod has finished", grace);
    }
    if live || situation.is_starting() {
        return;
    }
    match &memory.tear_down_trouble {
        Some(trouble) if situation.now < trouble.retry_at => plan.wake(trouble.retry_at),
        Some(_) | None => plan.begin(memory, Step::Release),
    }
}

/// Kills what lives, all within one grace. True once nothing does.
pub(super) fn stop_all(situation: &Situation<'_>, deadline: BootTime, plan: &mut Plan) -> bool {
    let live = |name: &str| situation.latest(name).is_some_and(is_live);
    // What is just being made may have to go before a sidecar.
    let coming = situation.view.containers.iter().any(|c| {
        let target = Target::Container(c.name.clone());
        situation.memory.is_busy(&target) && !live(&c.name)
    });
    let mut quiet = !situation.is_starting();
    for (instance, view) in situation.live() {
        quiet = false;
        let in_turn = view.is_some_and(|v| v.role == Role::Sidecar);
        if !(in_turn && coming) {
            let message = format!("Stopping container {}", instance.name);
            situation.kill_by(plan, instance, &message, deadline, in_turn);
        }
    }
    quiet
}

/// Whether a sidecar's stop signal may come: regular containers and later sidecars have ended.
/// Source: Kubernetes pkg/kubelet/kuberuntime/kuberuntime_termination_order.go.
pub fn has_its_turn(view: &PodView, sidecar: &ContainerView, observed: &PodObserved) -> bool {
    let live = observed.containers.iter().filter(|c| is_live(c));
    let mut live = live.filter_map(|c| view.container(&c.name));
    !live.any(|c| match c.role {
        Role::Regular => true,
        Role::Sidecar => c.index > sidecar.index,
        Role::Init | Role::Ephemeral => false,
    })
}

/// The end of the pod, with what its status shows of the sandbox that goes with it.
pub(super) fn final_phase(situation: &Situation<'_>, phase: &str) -> FinalPhase {
    let sandbox = situation.observed.sandbox.as_ref();
    FinalPhase {
        phase: phase.to_owned(),
        reason: None,
        message: None,
        start: situation.memory.checkpoint.start.map(|start| start.wall),
        at: Some(situation.wall),
        ips: sandbox.map(|sandbox| sandbox.ips.clone()),
        disrupted: false,
    }
}

/// What is recorded already, and the latest exit of every container.
pub(super) fn with_exits(situation: &Situation<'_>) -> Final {
    let mut record = situation.memory.finals.clone();
    for view in &situation.view.containers {
        let instance = latest(situation.observed, &view.name);
        let ended = instance.and_then(|i| exit_of(i).map(|exit| (i, exit)));
        if let Some((instance, exit)) = ended {
            let known = record.exits.remove(&view.name);
            let known = known.filter(|known| known.id == instance.id);
            let exit = FinalExit {
                id: instance.id.clone(),
                attempt: instance.attempt,
                image: instance.image.clone(),
                image_id: instance.image_shown().to_owned(),
                exit: exit.clone(),
                user: instance.user.clone(),
                // Once there is a newer dead instance the older one is garbage.
                last: last_exit(situation, instance).or(known.and_then(|known| known.last)),
            };
            record.exits.insert(view.name.clone(), exit);
        }
    }
    record
}

fn last_exit(situation: &Situation<'_>, instance: &ContainerObserved) -> Option<LastExit> {
    let before = previous(situation.observed, instance)?;
    let exit = exit_of(before)?.clone();
    let id = before.id.clone();
    Some(LastExit { id, exit })
}

/// Makes `record` durable, unless it is already or a failed try is too fresh.
pub(super) fn begin_record(situation: &Situation<'_>, record: Final, plan: &mut Plan) {
    let memory = situation.memory;
    if record == memory.finals {
        return;
    }
    match memory.record_retry {
        Some(at) if situation.now < at => plan.wake(at),
        Some(_) | None => plan.begin(memory, Step::Record(Box::new(record))),
    }
}
