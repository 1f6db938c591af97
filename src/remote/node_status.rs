//! What of the Node's status is news to the cluster, and how a patch says it. Pure: when it is sent is
//! `node`'s business, what is true the kubelet's.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::node::seconds;

/// What two statuses are compared by: their heartbeats always differ.
pub fn without_heartbeats(mut status: Value) -> Value {
    for condition in status["conditions"].as_array_mut().into_iter().flatten() {
        condition
            .as_object_mut()
            .map(|fields| fields.remove("lastHeartbeatTime"));
    }
    status
}

/// Fields that changed since `before`, and every condition with the time of now.
pub fn status_patch(
    before: Option<&Value>,
    news: &Value,
    mut status: Value,
    now: Timestamp,
) -> Value {
    for condition in status["conditions"].as_array_mut().into_iter().flatten() {
        condition["lastHeartbeatTime"] = seconds(now).into();
    }
    if let Some(fields) = status.as_object_mut() {
        fields.retain(|name, _| {
            let same = before.is_some_and(|before| before.get(name) == news.get(name));
            name == "conditions" || !same
        });
        // Addresses that are gone would stay.
        if let Some(addresses) = fields.get_mut("addresses").and_then(Value::as_array_mut) {
            addresses.insert(0, json!({"$patch": "replace"}));
        }
    }
    json!({"status": status})
}

fn other<'a>(theirs: &'a Value, ours: &Value) -> Option<&'a Value> {
    let mut theirs = theirs.as_array().into_iter().flatten();
    theirs.find(|theirs| theirs["type"] == ours["type"])
}

/// Whether the cluster says otherwise of a condition: its controllers write Unknown over all of them
/// when the lease has run out, and take nothing back.
pub fn is_overruled(theirs: &Value, ours: &Value) -> bool {
    let mut ours = ours.as_array().into_iter().flatten();
    ours.any(|ours| other(theirs, ours).is_some_and(|theirs| theirs["status"] != ours["status"]))
}

/// Times of transition as the cluster has seen them: they never go back.
pub fn stamp(ours: &mut Value, theirs: &Value) {
    const AT: &str = "lastTransitionTime";
    for ours in ours.as_array_mut().into_iter().flatten() {
        let Some(theirs) = other(theirs, ours) else {
            continue;
        };
        if ours[AT].as_str() < theirs[AT].as_str() {
            let same = ours["status"] == theirs["status"];
            ours[AT] = match same {
                true => theirs[AT].clone(),
                false => ours["lastHeartbeatTime"].clone(),
            };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_transition_is_when_the_cluster_saw_it() {
        let condition = |status: &str, at: &str| {
            let mut one = json!({"type": "Ready", "status": status});
            one["lastTransitionTime"] = at.into();
            json!([one])
        };
        for (theirs, overruled, at) in [
            (condition("Unknown", "2026-01-02"), true, "2026-01-03"),
            (condition("True", "2026-01-02"), false, "2026-01-02"),
            (condition("False", "2025-12-31"), true, "2026-01-01"),
            (
                json!([{"type": "other", "status": "x"}]),
                false,
                "2026-01-01",
            ),
            (Value::Null, false, "2026-01-01"),
        ] {
            let mut ours = condition("True", "2026-01-01");
            assert_eq!(is_overruled(&theirs, &ours), overruled, "{theirs}");
            ours[0]["lastHeartbeatTime"] = "2026-01-03".into();
            stamp(&mut ours, &theirs);
            assert_eq!(ours[0]["lastTransitionTime"], at, "{theirs}");
        }
    }

    #[test]
    fn a_status_that_did_not_change_is_a_heartbeat_and_nothing_else() {
        let status = json!({
            "capacity": {"cpu": "4"}, "addresses": [{"type": "InternalIP", "address": "10.0.0.1"}],
            "conditions": [{"type": "Ready", "status": "True", "lastHeartbeatTime": "old"}],
        });
        let news = without_heartbeats(status.clone());
        let at: Timestamp = "2026-01-02T03:04:05Z".parse().unwrap();
        let same = status_patch(Some(&news), &news, status.clone(), at);
        let beat = json!([{"type": "Ready", "status": "True", "lastHeartbeatTime": "2026-01-02T03:04:05Z"}]);
        assert_eq!(same, json!({"status": {"conditions": beat}}));
        let first = status_patch(None, &news, status, at);
        assert_eq!(first["status"]["capacity"], json!({"cpu": "4"}));
        assert_eq!(
            first["status"]["addresses"][0],
            json!({"$patch": "replace"})
        );
    }
}
