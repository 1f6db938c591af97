//! The status of a pod as Kubernetes prints it: a pure function of what is observed and known.
//!
//! Nothing here is read back: erase every status, restart, and the same comes out again.
//! Source: Kubernetes pkg/kubelet/kubelet_pods.go, pkg/kubelet/status/generate.go.

mod conditions;
mod container;
mod granted;
mod phase;

use std::collections::BTreeMap;
use std::net::IpAddr;

use jiff::Timestamp;
use serde_json::{Value, json};

use super::facts::NodeFacts;
use super::memory::Memory;
use super::plan::Waiting;
use super::view::{PodView, Role};
use crate::world::{PodObserved, QosClass};

pub use phase::Phase;

/// Everything a status is made from.
pub struct Facts<'a> {
    pub view: &'a PodView,
    pub observed: &'a PodObserved,
    pub memory: &'a Memory,
    /// Why containers that should run do not; see [`super::plan::Plan::waiting`].
    pub waiting: &'a BTreeMap<String, Waiting>,
    pub qos: QosClass,
    pub node: &'a NodeFacts,
    /// For conditions that change with this very status.
    pub now: Timestamp,
    /// The pod is deleted, and nothing of it runs or is about to: this is said of it last.
    pub over: bool,
}

impl Facts<'_> {
    /// Since when the pod is here.
    fn start(&self) -> Option<Timestamp> {
        let finals = self.memory.finals.phase.as_ref();
        let start = self.memory.checkpoint.start.map(|start| start.wall);
        finals.and_then(|ended| ended.start).or(start)
    }
}

/// A status and what the next one must know: when each condition last changed.
pub struct Status {
    pub value: Value,
    pub phase: Phase,
    pub transitions: BTreeMap<String, (String, Timestamp)>,
}

/// Times in a status have whole seconds, UTC.
pub fn rfc3339(time: Timestamp) -> String {
    let seconds = Timestamp::from_second(time.as_second()).expect("a rounded time is in range");
    seconds.to_string()
}

pub fn status(facts: &Facts<'_>) -> Status {
    // The view keeps no more of the spec than decides: the rest is for here alone.
    let mut body = facts.view.body();
    let spec = body["spec"].take();
    let mut containers = container::statuses(facts, &spec);
    if facts.over || facts.memory.finals.phase.is_some() {
        container::terminate(facts, &mut containers);
    }
    let phase = phase::phase(facts, &containers);
    let (conditions, transitions) = conditions::conditions(facts, phase, &containers);
    let mut value = json!({
        "phase": phase.name(),
        "conditions": conditions,
        "qosClass": facts.qos.name(),
    });
    put_generation(facts.view.generation, &mut value);
    put_times_and_addresses(facts, &mut value);
    put_reason(facts, &mut value);
    granted::put_pod(facts.view, &spec, phase, &mut value);
    for status in containers {
        let list = match status.role {
            Role::Init | Role::Sidecar => "initContainerStatuses",
            Role::Regular => "containerStatuses",
            Role::Ephemeral => "ephemeralContainerStatuses",
        };
        let list = value[list].take_or_new();
        list.push(status.value);
    }
    Status {
        value,
        phase,
        transitions,
    }
}

/// Of which spec this is the status; absent where the pod counts none.
fn put_generation(generation: i64, value: &mut Value) {
    if generation > 0 {
        value["observedGeneration"] = generation.into();
    }
}

fn put_times_and_addresses(facts: &Facts<'_>, value: &mut Value) {
    let finals = facts.memory.finals.phase.as_ref();
    if let Some(start) = facts.start() {
        value["startTime"] = rfc3339(start).into();
    }
    let host_ips: &[IpAddr] = &facts.node.host_ips;
    if let Some(first) = host_ips.first() {
        value["hostIP"] = first.to_string().into();
        value["hostIPs"] = addresses(host_ips);
    }
    let sandbox = facts.observed.sandbox.as_ref();
    let own = sandbox.map(|sandbox| &sandbox.ips);
    // A finished pod keeps the address that it had.
    let own = finals.and_then(|ended| ended.ips.as_ref()).or(own);
    let ips: &[IpAddr] = match own {
        Some(_) if facts.view.host_network => host_ips,
        Some(own) => own,
        None => &[],
    };
    if let Some(first) = ips.first() {
        value["podIP"] = first.to_string().into();
        value["podIPs"] = addresses(ips);
    }
}

fn addresses(ips: &[IpAddr]) -> Value {
    ips.iter()
        .map(|ip| json!({ "ip": ip.to_string() }))
        .collect()
}

/// `reason` and `message` of the pod: how it ended, or that its manifest is not the newest.
fn put_reason(facts: &Facts<'_>, value: &mut Value) {
    if let Some(ended) = &facts.memory.finals.phase {
        if let Some(reason) = &ended.reason {
            value["reason"] = reason.as_str().into();
        }
        if let Some(message) = &ended.message {
            value["message"] = message.as_str().into();
        }
    } else if let Some(problem) = &facts.view.stale {
        let text = format!("running the last good version; {problem}");
        value["message"] = text.into();
    }
}

trait TakeOrNew {
    fn take_or_new(&mut self) -> &mut Vec<Value>;
}

impl TakeOrNew for Value {
    /// The array in this place, made if the place was empty.
    fn take_or_new(&mut self) -> &mut Vec<Value> {
        if self.is_null() {
            *self = Value::Array(Vec::new());
        }
        self.as_array_mut().expect("statuses are lists")
    }
}

#[cfg(test)]
mod tests;
