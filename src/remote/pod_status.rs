//! What to send of a pod's status, so that the cluster's becomes what the kubelet says. Pure.
//!
//! Conditions that others keep (readiness gates, the scheduler's) stay. Source: Kubernetes
//! pkg/kubelet/status/status_manager.go (mergePodStatus), pkg/util/pod/pod.go.

use serde_json::{Map, Value, json};

use crate::object::conditions::PASSING;
use crate::object::references::items;

/// Fields that others write.
const FOREIGN: [&str; 5] = [
    "resourceClaimStatuses",
    "extendedResourceClaimStatus",
    "nodeAllocatableResourceClaimStatuses",
    "nominatedNodeName",
    "resize",
];
/// Lists that a strategic merge would add to.
const MERGED: [&str; 2] = ["podIPs", "hostIPs"];

/// The body of a strategic merge patch of `pods/NAME/status`; `None`: the cluster has it right.
pub fn patch(uid: &str, theirs: &Value, ours: &Value) -> Option<Value> {
    let mut changes = Map::new();
    let empty = Map::new();
    let ours_fields = ours.as_object().unwrap_or(&empty);
    let their_fields = theirs.as_object().unwrap_or(&empty);
    for (name, value) in ours_fields {
        let change = match name.as_str() {
            "conditions" => match conditions(theirs, ours) {
                Some(change) => change,
                None => continue,
            },
            _ if theirs[name] == *value => continue,
            _ => whole(name, &theirs[name], value.clone()),
        };
        changes.insert(name.clone(), change);
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
    let more = |sent: &Value, rest: &Value| {
        let mut wanting = rest.as_object().into_iter().flatten();
        wanting.any(|(name, _)| sent.get(name).is_none())
    };
    let (sent, rest) = (&sent["status"], &rest["status"]);
    let mut conditions = items(rest, "conditions");
    more(sent, rest) || conditions.any(|one| more(of_type(sent, &one["type"]), one))
}

/// What `ours` comes to, seen from a cluster that counts the pod as ended, or is about to: it is never taken
/// back, and what has ended is not ready. `now` is when that turned.
/// Source: Kubernetes pkg/kubelet/status/status_manager.go (mergePodStatus), kubelet_pods.go.
pub fn settled(theirs: &Value, mut ours: Value, now: &str) -> Value {
    if has_ended(theirs) {
        for field in ["phase", "reason", "message"] {
            ours[field] = theirs[field].clone();
        }
    }
    let reason = match ours["phase"].as_str() {
        Some("Failed") => "PodFailed",
        Some("Succeeded") => "PodCompleted",
        _ => return ours,
    };
    for kind in ["ContainersReady", "Ready"] {
        let Some(conditions) = ours["conditions"].as_array_mut() else {
            break;
        };
        let known = conditions.iter().position(|one| one["type"] == kind);
        let at = known.unwrap_or(conditions.len());
        if known.is_none() {
            conditions.push(json!({"type": kind}));
        }
        let one = &mut conditions[at];
        if one["status"] != "False" {
            one["status"] = "False".into();
            one["reason"] = reason.into();
            one["message"] = Value::Null;
            turn(one, theirs, now);
        }
    }
    ours
}

pub fn has_ended(status: &Value) -> bool {
    matches!(status["phase"].as_str(), Some("Succeeded" | "Failed"))
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
        turn(ready, theirs, now);
    }
    ours
}

/// `ours` without dates to come, which a clock that was ahead gave: who waits until a pod has been ready for
/// a while would wait for years. `now` has to be no time of a clock that is behind.
pub fn dated(theirs: &Value, mut ours: Value, now: &str) -> Value {
    let conditions = ours["conditions"].as_array_mut().into_iter().flatten();
    for one in conditions.filter(|one| one["lastTransitionTime"].as_str() > Some(now)) {
        turn(one, theirs, now);
    }
    ours
}

/// Dates the condition: `now`, unless the cluster knows it as it is.
fn turn(condition: &mut Value, theirs: &Value, now: &str) {
    let before = of_type(theirs, &condition["type"]);
    condition["lastTransitionTime"] = match before["status"] == condition["status"] {
        true => before["lastTransitionTime"].clone(),
        false => now.into(),
    };
}

/// Why a gate is closed; `None`: it is open.
fn closed(gate: &str, theirs: &Value) -> Option<String> {
    match of_type(theirs, &gate.into()) {
        Value::Null => Some(format!(
            "corresponding condition of pod readiness gate {gate:?} does not exist."
        )),
        one if one["status"] == "True" => None,
        one => Some(format!(
            "the status of pod readiness gate {gate:?} is not \"True\", but {}",
            one["status"].as_str().unwrap_or_default()
        )),
    }
}

/// The condition of this type, or null.
fn of_type<'a>(status: &'a Value, kind: &Value) -> &'a Value {
    let one = items(status, "conditions").find(|one| one["type"] == *kind);
    one.unwrap_or(&Value::Null)
}

/// What a merge by type makes ours of theirs. Those of other types are not named: what was seen of them may
/// be old by now.
fn conditions(theirs: &Value, ours: &Value) -> Option<Value> {
    let mut changes = Vec::new();
    for one in items(ours, "conditions") {
        let known = of_type(theirs, &one["type"]);
        let mut change = one.clone();
        for (name, _) in known.as_object().into_iter().flatten() {
            if one.get(name).is_none() {
                change[name] = Value::Null;
            }
        }
        let mut fields = change.as_object().into_iter().flatten();
        if fields.any(|(name, value)| known[name] != *value) {
            changes.push(change);
        }
    }
    for kind in PASSING.map(Value::from) {
        if of_type(ours, &kind).is_null() && !of_type(theirs, &kind).is_null() {
            changes.push(json!({"$patch": "delete", "type": kind}));
        }
    }
    (!changes.is_empty()).then(|| changes.into())
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
    use crate::object::Kind;
    use crate::object::patch::strategic_merge;

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
        let ours = json!({"conditions": [{"type": "A", "status": "1"}, {"type": "B"}]});
        let patch_of = |theirs: Value| patch("u", &json!({"conditions": theirs}), &ours);
        let sent = patch_of(json!([{"type": "A", "status": "2"}, {"type": "B"}])).expect("a patch");
        for (theirs, beyond) in [
            (json!([{"type": "A", "status": "2"}, {"type": "B"}]), false),
            (json!([{"type": "A", "status": "1"}]), true),
            (
                json!([{"type": "A", "status": "1", "reason": "r"}, {"type": "B"}]),
                true,
            ),
        ] {
            let rest = patch_of(theirs.clone()).expect("a patch");
            assert_eq!(is_beyond(&sent, &rest), beyond, "{theirs}");
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
                {"type": "lowtide.io/ManifestCurrent", "status": "False"},
                {"type": "PodScheduled", "status": "True", "reason": "Old", "lastProbeTime": null},
                {"type": "ContainersReady", "status": "True", "lastProbeTime": null},
            ],
        });
        let ours = json!({
            "phase": "Running", "qosClass": "BestEffort", "resources": {"requests": {"cpu": "1"}},
            "allocatedResources": {"cpu": "1"},
            "conditions": [
                {"type": "Ready", "status": "True"}, {"type": "Initialized", "status": "True"},
                {"type": "PodScheduled", "status": "True"}, {"type": "ContainersReady", "status": "True"},
            ],
        });
        let wanted = json!({
            "metadata": {"uid": "u"},
            "status": {
                "phase": "Running", "reason": null, "allocatedResources": {"cpu": "1"},
                "resources": {"$patch": "replace", "requests": {"cpu": "1"}},
                "conditions": [
                    {"type": "Ready", "status": "True"},
                    {"type": "Initialized", "status": "True"},
                    {"type": "PodScheduled", "status": "True", "reason": null, "lastProbeTime": null},
                    {"$patch": "delete", "type": "PodResizePending"},
                    {"$patch": "delete", "type": "lowtide.io/ManifestCurrent"},
                ],
            },
        });
        let sent = patch("u", &theirs, &ours).expect("a patch");
        assert_eq!(sent, wanted);
        // Somebody was quicker: what is not ours stays all the same.
        let mut later = theirs.clone();
        let target = json!({"type": "DisruptionTarget", "status": "True"});
        later["conditions"].as_array_mut().unwrap().push(target);
        let pod = json!({"metadata": {"uid": "u"}, "status": later});
        let pod = strategic_merge(Kind::Pod, pod, sent).expect("a patch");
        let types = items(&pod["status"], "conditions").map(|one| one["type"].as_str().unwrap());
        let mut types: Vec<&str> = types.collect();
        types.sort_unstable();
        let wanted = [
            "ContainersReady",
            "DisruptionTarget",
            "Initialized",
            "PodScheduled",
            "Ready",
            "gate",
        ];
        assert_eq!(types, wanted);
        assert_eq!(patch("u", &pod["status"], &ours), None);
    }

    #[test]
    fn an_end_is_not_taken_back_and_is_not_ready() {
        let ready = |status: &str| json!({"type": "Ready", "status": status});
        let ours = json!({"phase": "Running", "reason": "mine", "conditions": [ready("True")]});
        let running = json!({"phase": "Pending", "conditions": [ready("False")]});
        assert_eq!(settled(&running, ours.clone(), "3"), ours);
        for (theirs, phase, reason, at) in [
            (
                json!({"phase": "Failed", "reason": "Lost"}),
                "Failed",
                "PodFailed",
                "3",
            ),
            (
                json!({"phase": "Succeeded", "conditions": [
                    {"type": "Ready", "status": "False", "lastTransitionTime": "2"},
                ]}),
                "Succeeded",
                "PodCompleted",
                "2",
            ),
        ] {
            let told = settled(&theirs, ours.clone(), "3");
            assert_eq!(
                (&told["phase"], &told["reason"]),
                (&json!(phase), &theirs["reason"])
            );
            for (kind, at) in [("Ready", at), ("ContainersReady", "3")] {
                let one = of_type(&told, &kind.into());
                let got = (&one["status"], &one["reason"], &one["lastTransitionTime"]);
                assert_eq!(got, (&json!("False"), &json!(reason), &json!(at)), "{kind}");
            }
        }
    }

    #[test]
    fn nothing_has_turned_in_a_time_to_come() {
        let ready = |status: &str, at: &str| {
            let one = json!({"type": "Ready", "status": status, "lastTransitionTime": at});
            json!({"conditions": [one]})
        };
        for (theirs, ours, at) in [
            (Value::Null, "2", "2"),
            (Value::Null, "9", "3"),
            (ready("False", "1"), "9", "3"),
            (ready("True", "1"), "9", "1"),
            (ready("True", "1"), "2", "2"),
            // What the cluster has is not dated anew.
            (ready("True", "9"), "9", "9"),
            (ready("True", "9"), "2", "2"),
        ] {
            let told = dated(&theirs, ready("True", ours), "3");
            assert_eq!(told, ready("True", at), "{theirs} {ours}");
        }
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
