//! Conditions of a pod: the kubelet's, and those that others keep on it. Pure.

use serde_json::{Value, json};

use super::references::items;

/// Conditions of the kubelet that it always tells of.
const LASTING: [&str; 5] = [
    "PodReadyToStartContainers",
    "Initialized",
    "Ready",
    "ContainersReady",
    "PodScheduled",
];
/// Conditions of the kubelet that go when they no longer hold.
pub const PASSING: [&str; 3] = [
    "PodResizePending",
    "PodResizeInProgress",
    "lowtide.io/ManifestCurrent",
];

/// Puts a condition in the place of the one of its type, or beside the others.
pub fn put(status: &mut Value, condition: Value) {
    let conditions = &mut status["conditions"];
    if !conditions.is_array() {
        *conditions = json!([]);
    }
    if let Some(conditions) = conditions.as_array_mut() {
        conditions.retain(|other| other["type"] != condition["type"]);
        conditions.push(condition);
    }
}

/// Adds what others have put on `before`, where the status has nothing of that type.
pub fn keep(status: &mut Value, before: &Value) {
    for one in of_others(before) {
        if items(status, "conditions").all(|known| known["type"] != one["type"]) {
            put(status, one.clone());
        }
    }
}

/// Leaves of the conditions of others those that `named` has too; the kubelet itself may have said that it
/// disrupts the pod.
pub fn keep_named(status: &mut Value, named: &Value) {
    let goes = |one: &Value| {
        one["type"] != "DisruptionTarget"
            && !items(named, "conditions").any(|other| other["type"] == one["type"])
    };
    let gone: Vec<Value> = of_others(status).filter(|one| goes(one)).cloned().collect();
    if let Some(conditions) = status["conditions"].as_array_mut() {
        conditions.retain(|one| !gone.contains(one));
    }
}

/// What is not the kubelet's; an eviction's it may be, too.
pub fn of_others(status: &Value) -> impl Iterator<Item = &Value> {
    items(status, "conditions").filter(|one| {
        let kind = one["type"].as_str().unwrap_or_default();
        !LASTING.contains(&kind) && !PASSING.contains(&kind)
    })
}
