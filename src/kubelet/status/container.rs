//! `containerStatuses`: one container's state, last state, counts.

use serde_json::{Value, json};

use super::{Facts, granted, rfc3339};
use crate::kubelet::memory::FinalExit;
use crate::kubelet::plan::{exit_of, is_live, latest, previous};
use crate::kubelet::view::{ContainerView, Role};
use crate::world::{ContainerId, ContainerObserved, ContainerState, Exit};

/// All messages of one pod share this much. Source: Kubernetes MaxPodTerminationMessageLogLength.
const POD_MESSAGES_BYTES_MAX: usize = 12 * 1024;

/// What phase and conditions need to know of a container.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    /// Waiting, and no instance ever ended.
    NeverRan,
    Running,
    /// Ended, or waiting to be restarted.
    Ended,
}

pub(super) struct ContainerStatus {
    pub name: String,
    pub role: Role,
    pub state: State,
    pub ready: bool,
    pub started: bool,
    /// Init: the latest instance ended with 0.
    pub succeeded: bool,
    /// Init: the latest instance failed and must not run again.
    pub failed_for_good: bool,
    pub value: Value,
}

pub(super) fn statuses(facts: &Facts<'_>, spec: &Value) -> Vec<ContainerStatus> {
    let containers = facts.view.containers.iter();
    containers
        .map(|view| container_status(facts, view, &spec[view.role.list()][view.index]))
        .collect()
}

fn container_status(facts: &Facts<'_>, view: &ContainerView, spec: &Value) -> ContainerStatus {
    let instance = latest(facts.observed, &view.name);
    let recorded = facts.memory.finals.exits.get(&view.name);
    let message_max = POD_MESSAGES_BYTES_MAX / facts.view.containers.len().max(1);
    let waiting = facts.waiting.get(&view.name);
    // Of an instance from before a reboot only its log is left.
    let base = facts.memory.containers.get(&view.name);
    let base = base.map_or(0, |known| known.attempt_base);
    let over = facts.memory.finals.phase.is_some();
    let mut value = json!({
        "name": view.name,
        "image": view.image,
        "imageID": "",
        "restartCount": base.saturating_sub(u32::from(over)),
        "ready": false,
        "lastState": {},
    });
    let (state, ready, started) = match (instance, recorded) {
        (Some(instance), _) => observed_state(facts, view, instance, message_max, &mut value),
        (None, Some(exit)) => recorded_state(exit, message_max, &mut value),
        (None, None) => {
            value["state"] = json!({ "waiting": waiting_value(facts, waiting) });
            if base > 0 {
                value["lastState"] = json!({ "terminated": lost() });
            }
            (ended_or_never(base > 0), false, false)
        }
    };
    granted::put_mounts(facts.node, spec, &mut value);
    if instance.is_some() || recorded.is_some() {
        granted::put_resources(spec, &mut value);
        let running = instance.filter(|_| state == State::Running);
        if let Some(given) = running.and_then(|one| one.resources.as_ref()) {
            granted::put_given(&view.resources, given, &mut value);
        }
        let user = instance.map_or_else(
            || recorded.and_then(|r| r.user.as_ref()),
            |i| i.user.as_ref(),
        );
        granted::put_user(user, &mut value);
    }
    let code = instance.map_or(recorded.map(|r| r.exit.code), |i| {
        exit_of(i).map(|e| e.code)
    });
    let done = view.role == Role::Init && code == Some(0);
    let ready = ready || done;
    value["ready"] = ready.into();
    match view.role {
        // Nothing of a pod waits for it.
        Role::Ephemeral => value["ready"] = false.into(),
        Role::Init | Role::Sidecar | Role::Regular => value["started"] = started.into(),
    }
    ContainerStatus {
        name: view.name.clone(),
        role: view.role,
        state,
        ready,
        started,
        succeeded: done,
        failed_for_good: code.is_some_and(|c| c != 0 && !view.restart_policy.restarts(c)),
        value,
    }
}

/// Fills the value from the latest instance and the one before it.
fn observed_state(
    facts: &Facts<'_>,
    view: &ContainerView,
    instance: &ContainerObserved,
    message_max: usize,
    value: &mut Value,
) -> (State, bool, bool) {
    let before = previous(facts.observed, instance);
    let ended_before = before.and_then(|c| exit_of(c).map(|exit| (&c.id, exit)));
    let recorded = facts.memory.finals.exits.get(&view.name);
    let recorded = recorded.filter(|recorded| recorded.id == instance.id);
    let recorded = recorded.and_then(|recorded| recorded.last.as_ref());
    let ended_before = ended_before.or(recorded.map(|last| (&last.id, &last.exit)));
    value["restartCount"] = instance.attempt.into();
    value["image"] = instance.image.as_str().into();
    value["imageID"] = instance.image_shown().into();
    value["containerID"] = container_id(&instance.id).into();
    let live = is_live(instance);
    match ended_before {
        Some((before, exit)) => {
            value["lastState"] = json!({ "terminated": terminated(before, exit, message_max) });
        }
        // The one before was of before a reboot.
        None if live && instance.attempt > 0 => {
            value["lastState"] = json!({ "terminated": lost() });
        }
        None => {}
    }
    let waiting = facts.waiting.get(&view.name);
    match &instance.state {
        ContainerState::Created => {
            value["state"] = json!({ "waiting": waiting_value(facts, waiting) });
            (ended_or_never(instance.attempt > 0), false, false)
        }
        ContainerState::Running { started } => {
            value["state"] = json!({ "running": { "startedAt": rfc3339(started.wall) } });
            let health = facts.memory.health(&view.name, &instance.id);
            let started = health.is_some_and(|h| h.started && h.hook_done);
            let ready = started && view.role != Role::Init && health.is_some_and(|h| h.ready);
            (State::Running, ready, started)
        }
        ContainerState::Exited(exit) => {
            let ended = terminated(&instance.id, exit, message_max);
            match waiting {
                Some(_) => {
                    value["lastState"] = json!({ "terminated": ended });
                    value["state"] = json!({ "waiting": waiting_value(facts, waiting) });
                }
                None => value["state"] = json!({ "terminated": ended }),
            }
            (State::Ended, false, false)
        }
    }
}

fn ended_or_never(ended: bool) -> State {
    match ended {
        true => State::Ended,
        false => State::NeverRan,
    }
}

/// What is not known to have ended, of a pod of which nothing can run any more. Where no init container
/// was ever done the others have not begun, and wait for ever.
/// Source: Kubernetes pkg/kubelet/status/status_manager.go (TerminatePod).
pub(super) fn terminate(facts: &Facts<'_>, all: &mut [ContainerStatus]) {
    let began = |c: &ContainerStatus| c.state != State::NeverRan;
    if !facts.over && !all.iter().any(began) {
        // It was turned away.
        return;
    }
    let is_init = |c: &ContainerStatus| matches!(c.role, Role::Init | Role::Sidecar);
    let init = all.iter().take_while(|c| is_init(c)).count();
    let initialized = match init.checked_sub(1).map(|last| &all[last]) {
        Some(last) if !last.succeeded && !last.started => {
            all.iter().any(|c| c.role == Role::Regular && began(c))
        }
        Some(_) | None => true,
    };
    let begun = all[..init].iter().rposition(began);
    for (index, container) in all.iter_mut().enumerate() {
        let counts = match container.role {
            Role::Init | Role::Sidecar => index <= begun.unwrap_or(0),
            Role::Regular => initialized,
            Role::Ephemeral => false,
        };
        if counts && container.value["state"]["terminated"].is_null() {
            container.value["state"] = json!({ "terminated": lost() });
        }
    }
}

/// The end of an instance that nobody saw.
fn lost() -> Value {
    json!({
        "exitCode": 137,
        "reason": "ContainerStatusUnknown",
        "message": "The container could not be located when the pod was terminated",
        "startedAt": null,
        "finishedAt": null,
    })
}

/// After a reboot only the durable record is left of a container that must not run again.
fn recorded_state(
    record: &FinalExit,
    message_max: usize,
    value: &mut Value,
) -> (State, bool, bool) {
    value["restartCount"] = record.attempt.into();
    value["image"] = record.image.as_str().into();
    value["imageID"] = record.image_id.as_str().into();
    value["containerID"] = container_id(&record.id).into();
    let ended = terminated(&record.id, &record.exit, message_max);
    value["state"] = json!({ "terminated": ended });
    if let Some(last) = &record.last {
        let ended = terminated(&last.id, &last.exit, message_max);
        value["lastState"] = json!({ "terminated": ended });
    }
    (State::Ended, false, false)
}

fn waiting_value(facts: &Facts<'_>, waiting: Option<&crate::kubelet::plan::Waiting>) -> Value {
    let default = if facts.view.has_init() {
        "PodInitializing"
    } else {
        "ContainerCreating"
    };
    let reason = waiting.map_or(default, |w| w.reason.as_str());
    match waiting.map(|w| w.message.as_str()) {
        None | Some("") => json!({ "reason": reason }),
        Some(message) => json!({ "reason": reason, "message": message }),
    }
}

fn terminated(id: &ContainerId, exit: &Exit, message_max: usize) -> Value {
    let started = exit.started.unwrap_or(exit.finished);
    let mut value = json!({
        "exitCode": exit.code,
        "reason": exit.reason,
        "startedAt": rfc3339(started.wall),
        "finishedAt": rfc3339(exit.finished.wall),
        "containerID": container_id(id),
    });
    if let Some(signal) = exit.signal {
        value["signal"] = signal.into();
    }
    if !exit.message.is_empty() {
        value["message"] = head(&exit.message, message_max).into();
    }
    value
}

/// `lowtide://<64 hex>`
fn container_id(id: &ContainerId) -> String {
    format!("lowtide://{id}")
}

/// At most `bytes_max` bytes from the start, whole characters only.
fn head(text: &str, bytes_max: usize) -> &str {
    let mut end = text.len().min(bytes_max);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}
