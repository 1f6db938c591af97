//! The pod's conditions, in upstream's words.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde_json::{Value, json};

use super::container::{ContainerStatus, State};
use super::phase::Phase;
use super::{Facts, put_generation, rfc3339};
use crate::kubelet::memory::Volumes;
use crate::kubelet::preempt;
use crate::kubelet::view::Role;
use crate::world::SandboxState;

struct Condition {
    kind: &'static str,
    holds: bool,
    reason: Option<&'static str>,
    message: Option<String>,
    /// Of the spec that it is about, if that is not the pod's own.
    generation: Option<i64>,
}

impl Condition {
    fn holds(kind: &'static str) -> Condition {
        Condition {
            kind,
            holds: true,
            reason: None,
            message: None,
            generation: None,
        }
    }

    fn fails(kind: &'static str, reason: &'static str, message: Option<String>) -> Condition {
        Condition {
            kind,
            holds: false,
            reason: Some(reason),
            message,
            generation: None,
        }
    }
}

/// The conditions, and when each last changed.
pub(super) fn conditions(
    facts: &Facts<'_>,
    phase: Phase,
    containers: &[ContainerStatus],
) -> (Value, BTreeMap<String, (String, Timestamp)>) {
    let ready = containers_ready(phase, containers);
    let mut all = vec![
        sandbox_ready(facts),
        initialized(phase, containers),
        Condition {
            kind: "Ready",
            holds: ready.holds,
            reason: ready.reason,
            message: ready.message.clone(),
            generation: None,
        },
        ready,
        Condition::holds("PodScheduled"),
    ];
    resize(facts, &mut all);
    let ended = facts.memory.finals.phase.as_ref();
    if let Some(ended) = ended.filter(|ended| ended.disrupted) {
        all.push(Condition {
            reason: Some("TerminationByKubelet"),
            message: match ended.reason.as_deref() {
                Some(preempt::REASON) => Some(preempt::DISRUPTION.to_owned()),
                _ => ended.message.clone(),
            },
            ..Condition::holds("DisruptionTarget")
        });
    }
    if let Some(problem) = &facts.view.stale {
        let message = Some(problem.to_string());
        all.push(Condition::fails(
            "lowtide.io/ManifestCurrent",
            "InvalidManifest",
            message,
        ));
    }
    // What is not known, after a reboot, was so from the begin or from the end.
    let turned = |condition: &Condition| match condition.kind {
        "PodScheduled" | "Initialized" if condition.holds => facts.start(),
        _ => ended.and_then(|ended| ended.at),
    };
    let mut transitions = BTreeMap::new();
    let values = all.into_iter().map(|condition| {
        let status = if condition.holds { "True" } else { "False" };
        let known = facts.memory.checkpoint.transitions.get(condition.kind);
        let since = match known {
            Some((known, since)) if known == status => *since,
            Some(_) => facts.now,
            None => turned(&condition).unwrap_or(facts.now),
        };
        transitions.insert(condition.kind.to_owned(), (status.to_owned(), since));
        let mut value = json!({
            "type": condition.kind,
            "status": status,
            "lastProbeTime": null,
            "lastTransitionTime": rfc3339(since),
        });
        let generation = condition.generation.unwrap_or(facts.view.generation);
        put_generation(generation, &mut value);
        if let Some(reason) = condition.reason {
            value["reason"] = reason.into();
        }
        if let Some(message) = condition.message {
            value["message"] = message.into();
        }
        value
    });
    (values.collect(), transitions)
}

/// What the pod waits for that it has asked for while it ran.
fn resize(facts: &Facts<'_>, all: &mut Vec<Condition>) {
    if facts.memory.finals.phase.is_some() {
        return;
    }
    if let Some(pending) = &facts.view.pending {
        all.push(Condition {
            reason: Some("Deferred"),
            message: Some(pending.message.clone()),
            ..Condition::holds("PodResizePending")
        });
    }
    if let Some(resizing) = &facts.memory.resizing {
        let trouble = resizing.trouble.as_ref();
        all.push(Condition {
            reason: trouble.map(|_| "Error"),
            message: trouble.map(|trouble| trouble.message.clone()),
            generation: Some(resizing.generation),
            ..Condition::holds("PodResizeInProgress")
        });
    }
}

/// Upstream makes the sandbox after the volumes, here it is made beside them.
fn sandbox_ready(facts: &Facts<'_>) -> Condition {
    let sandbox = facts.observed.sandbox.as_ref();
    let failed = matches!(facts.memory.volumes, Volumes::Failed(..));
    let lacks_volumes = failed && facts.observed.containers.is_empty();
    let holds = sandbox.filter(|_| !lacks_volumes).is_some_and(|s| {
        s.state == SandboxState::Ready && (facts.view.host_network || !s.ips.is_empty())
    });
    Condition {
        kind: "PodReadyToStartContainers",
        holds,
        reason: None,
        message: None,
        generation: None,
    }
}

fn initialized(phase: Phase, containers: &[ContainerStatus]) -> Condition {
    const KIND: &str = "Initialized";
    if phase == Phase::Succeeded {
        return Condition {
            reason: Some("PodCompleted"),
            ..Condition::holds(KIND)
        };
    }
    let regular_ran = containers
        .iter()
        .any(|c| c.role == Role::Regular && c.state != State::NeverRan);
    let incomplete = containers.iter().filter(|c| match c.role {
        Role::Init => !c.succeeded,
        Role::Sidecar => !c.started,
        Role::Regular | Role::Ephemeral => false,
    });
    let names: Vec<&str> = incomplete.map(|c| c.name.as_str()).collect();
    if regular_ran || names.is_empty() {
        return Condition::holds(KIND);
    }
    let text = format!("containers with incomplete status: [{}]", names.join(" "));
    Condition::fails(KIND, "ContainersNotInitialized", Some(text))
}

fn containers_ready(phase: Phase, containers: &[ContainerStatus]) -> Condition {
    const KIND: &str = "ContainersReady";
    match phase {
        Phase::Succeeded => return Condition::fails(KIND, "PodCompleted", None),
        Phase::Failed => return Condition::fails(KIND, "PodFailed", None),
        Phase::Pending | Phase::Running => {}
    }
    let unready = containers
        .iter()
        .filter(|c| matches!(c.role, Role::Sidecar | Role::Regular) && !c.ready);
    let names: Vec<&str> = unready.map(|c| c.name.as_str()).collect();
    if names.is_empty() {
        return Condition::holds(KIND);
    }
    let text = format!("containers with unready status: [{}]", names.join(" "));
    Condition::fails(KIND, "ContainersNotReady", Some(text))
}
