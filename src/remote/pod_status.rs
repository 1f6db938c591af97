//! What to send of a pod's status, so that the cluster's becomes what the kubelet says. Pure.
//!
//! Conditions that others keep (readiness gates, the scheduler's) stay. Source: Kubernetes
//! pkg/kubelet/status/status_manager.go (mergePodStatus), pkg/util/pod/pod.go.

use serde_json::{Map, Value, json};

use crate::object::references::items;

/// Fields that others write.
const FOREIGN: [&str; 3] = ["resourceClaimStatuses", "nominatedNodeName", "resize"];
/// Lists that a strategic merge would add to.
const MERGED: [&str; 3] = ["conditions", "podIPs", "hostIPs"];

/// The body of a strategic merge patch of `pods/NAME/status`; `None`: the cluster has it right.
pub fn patch(uid: &str, theirs: &Value, ours: &Value) -> Option<Value> {
    let mut changes = Map::new();
    let empty = Map::new();
    let ours_fields = ours.as_object().unwrap_or(&empty);
    let their_fields = theirs.as_object().unwrap_or(&empty);
    for (name, value) in ours_fields {
        let value = match name.as_str() {
            "conditions" => conditions(&theirs["conditions"], value),
            _ => value.clone(),
        };
        if theirs.get(name) != Some(&value) {
            changes.insert(name.clone(), whole(name, &theirs[name], value));
        }
    }
    for name in their_fields.keys() {
        if !ours_fields.contains_key(name) && !FOREIGN.contains(&name.as_str()) {
            changes.insert(name.clone(), Value::Null);
        }
    }
    (!changes.is_empty()).then(|| json!({"metadata": {"uid": uid}, "status": changes}))
}

/// Whether `rest`, which is wanting after `sent` was taken, says more than the cluster's having its own mind
/// about what was sent: it had lost other fields, as one that was put back to an earlier state has.
pub fn is_beyond(sent: &Value, rest: &Value) -> bool {
    let mut wanting = rest["status"].as_object().into_iter().flatten();
    wanting.any(|(name, _)| sent["status"].get(name).is_none())
}

/// What the kubelet says, and then the readiness gates of the spec: who opens them writes to the
/// cluster alone, so this node's own API does not show them. `now` is when they last turned the pod.
/// Source: Kubernetes pkg/kubelet/status/generate.go (GeneratePodReadyCondition).
pub fn gated(spec: &Value, theirs: &Value, mut ours: Value, now: &str) -> Value {
    let gates = items(spec, "readinessGates").filter_map(|gate| gate["conditionType"].as_str());
    let gates: Vec<&str> = gates.collect();
    let conditions = ours["conditions"].as_array_mut().into_iter().flatten();
    let ready = conditions.filter(|one| one["type"] == "Ready" && one["status"] == "True");
    for ready in ready.filter(|_| !gates.is_empty()) {
        let closed: Vec<String> = gates
            .iter()
            .filter_map(|gate| closed(gate, theirs))
            .collect();
        if !closed.is_empty() {
            ready["status"] = "False".into();
            ready["reason"] = "ReadinessGatesNotReady".into();
            ready["message"] = closed.join(", ").into();
        }
        let before = of_type(theirs, "Ready");
        ready["lastTransitionTime"] = match before.filter(|one| one["status"] == ready["status"]) {
            Some(same) => same["lastTransitionTime"].clone(),
            None => now.into(),
        };
    }
    ours
}

/// Why a gate is closed; `None`: it is open.
fn closed(gate: &str, theirs: &Value) -> Option<String> {
    match of_type(theirs, gate).map(|one| one["status"].as_str().unwrap_or_default()) {
        Some("True") => None,
        Some(status) => Some(format!(
            "the status of pod readiness gate {gate:?} is not \"True\", but {status}"
        )),
        None => Some(format!(
            "corresponding condition of pod readiness gate {gate:?} does not exist."
        )),
    }
}

fn of_type<'a>(status: &'a Value, kind: &str) -> Option<&'a Value> {
    items(status, "conditions").find(|one| one["type"] == kind)
}

/// Conditions of the kubelet that go when they no longer hold.
const PASSING: [&str; 2] = ["PodResizePending", "PodResizeInProgress"];

/// Ours, and after them those of types that we do not know.
fn conditions(theirs: &Value, ours: &Value) -> Value {
    let known = |theirs: &Value| {
        let mut ours = ours.as_array().into_iter().flatten();
        let passing = || PASSING.iter().any(|one| theirs["type"] == *one);
        ours.any(|ours| ours["type"] == theirs["type"]) || passing()
    };
    let foreign = theirs.as_array().into_iter().flatten();
    let foreign = foreign.filter(|theirs| !known(theirs));
    let mut merged = ours.as_array().cloned().unwrap_or_default();
    merged.extend(foreign.cloned());
    // In the cluster's order, as far as there is one: a mere change of order is none.
    let place = |one: &Value| {
        let mut places = theirs.as_array().into_iter().flatten();
        places
            .position(|theirs| theirs["type"] == one["type"])
            .unwrap_or(usize::MAX)
    };
    merged.sort_by_key(place);
    merged.into()
}

/// The whole value in place of what is there.
fn whole(name: &str, theirs: &Value, mut value: Value) -> Value {
    match &mut value {
        Value::Array(items) if MERGED.contains(&name) => {
            items.insert(0, json!({"$patch": "replace"}));
        }
        Value::Object(fields) if theirs.is_object() => {
            fields.insert("$patch".to_owned(), "replace".into());
        }
        _ => {}
    }
    value
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_not_sent_and_is_wanting_was_lost() {
        let patch_of =
            |theirs: Value| patch("u", &theirs, &json!({"phase": "Running", "hostIP": "a"}));
        let sent = patch_of(json!({"phase": "Pending", "hostIP": "a"})).expect("a patch");
        for (theirs, beyond) in [
            (json!({"phase": "Running", "hostIP": "a"}), None),
            (json!({"phase": "Unknown", "hostIP": "a"}), Some(false)),
            (json!({"phase": "Running"}), Some(true)),
        ] {
            let rest = patch_of(theirs.clone());
            assert_eq!(rest.map(|rest| is_beyond(&sent, &rest)), beyond, "{theirs}");
        }
    }

    #[test]
    fn only_what_differs_is_sent_and_foreign_conditions_stay() {
        let theirs = json!({
            "phase": "Pending", "qosClass": "BestEffort", "reason": "Old",
            "resourceClaimStatuses": [], "resources": {"requests": {"cpu": "1"}, "limits": {"cpu": "2"}},
            "conditions": [
                {"type": "gate", "status": "True"}, {"type": "Ready", "status": "False"},
                {"type": "PodResizePending", "status": "True"},
            ],
        });
        let ours = json!({
            "phase": "Running", "qosClass": "BestEffort", "resources": {"requests": {"cpu": "1"}},
            "allocatedResources": {"cpu": "1"},
            "conditions": [{"type": "Ready", "status": "True"}, {"type": "Initialized", "status": "True"}],
        });
        let wanted = json!({
            "metadata": {"uid": "u"},
            "status": {
                "phase": "Running", "reason": null, "allocatedResources": {"cpu": "1"},
                "resources": {"$patch": "replace", "requests": {"cpu": "1"}},
                "conditions": [
                    {"$patch": "replace"},
                    {"type": "gate", "status": "True"},
                    {"type": "Ready", "status": "True"},
                    {"type": "Initialized", "status": "True"},
                ],
            },
        });
        assert_eq!(patch("u", &theirs, &ours), Some(wanted));
    }

    #[test]
    fn a_pod_is_ready_when_its_gates_are_open() {
        let spec = json!({"readinessGates": [{"conditionType": "a/x"}, {"conditionType": "b"}]});
        let ours =
            json!({"conditions": [{"type": "Ready", "status": "True", "lastTransitionTime": "1"}]});
        let ready =
            |status: &str| json!({"type": "Ready", "status": status, "lastTransitionTime": "2"});
        let gate = |name: &str, status: &str| json!({"type": name, "status": status});
        let missing = "corresponding condition of pod readiness gate \"a/x\" does not exist., ";
        let shut = "the status of pod readiness gate \"b\" is not \"True\", but False";
        for (theirs, status, message, at) in [
            (
                json!([gate("b", "False")]),
                "False",
                format!("{missing}{shut}"),
                "3",
            ),
            (
                json!([ready("False"), gate("a/x", "True"), gate("b", "False")]),
                "False",
                shut.to_owned(),
                "2",
            ),
            (
                json!([ready("False"), gate("a/x", "True"), gate("b", "True")]),
                "True",
                String::new(),
                "3",
            ),
            (
                json!([ready("True"), gate("a/x", "True"), gate("b", "True")]),
                "True",
                String::new(),
                "2",
            ),
        ] {
            let theirs = json!({"conditions": theirs});
            let told = &gated(&spec, &theirs, ours.clone(), "3")["conditions"][0];
            let got = (
                &told["status"],
                told["message"].as_str().unwrap_or(""),
                &told["lastTransitionTime"],
            );
            assert_eq!(got, (&json!(status), &*message, &json!(at)));
        }
        assert_eq!(gated(&json!({}), &Value::Null, ours.clone(), "3"), ours);
        let unready = json!({"conditions": [ready("False")]});
        assert_eq!(gated(&spec, &Value::Null, unready.clone(), "3"), unready);
    }

    #[test]
    fn what_is_the_same_but_for_order_is_not_sent() {
        let theirs = json!({"phase": "Running", "conditions": [{"type": "B"}, {"type": "x"}, {"type": "A"}]});
        let ours = json!({"phase": "Running", "conditions": [{"type": "A"}, {"type": "B"}]});
        assert_eq!(patch("u", &theirs, &ours), None);
    }
}
