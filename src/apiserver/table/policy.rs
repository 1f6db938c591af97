//! Rows of what sets bounds and order: limit ranges, quotas, priority classes, leases.

use jiff::Timestamp;
use serde_json::Value;

use super::{Column, age, name, plain, text_or};

pub const LIMIT_RANGE_COLUMNS: &[Column] = &[plain("Name"), plain("Created At")];
pub const RESOURCE_QUOTA_COLUMNS: &[Column] = &[
    plain("Name"),
    plain("Request"),
    plain("Limit"),
    plain("Age"),
];
pub const LEASE_COLUMNS: &[Column] = &[plain("Name"), plain("Holder"), plain("Age")];
pub const PRIORITY_CLASS_COLUMNS: &[Column] = &[
    plain("Name"),
    plain("Value"),
    plain("Global-Default"),
    plain("Age"),
    plain("PreemptionPolicy"),
];

pub fn limit_range(object: &Value, _now: Timestamp) -> Vec<Value> {
    vec![
        name(object),
        object["metadata"]["creationTimestamp"].clone(),
    ]
}

/// `pods: 1/5`, with limits in a column of their own.
pub fn resource_quota(object: &Value, now: Timestamp) -> Vec<Value> {
    let (mut requests, mut limits) = (Vec::new(), Vec::new());
    let status = &object["status"];
    for (resource, hard) in status["hard"].as_object().into_iter().flatten() {
        let used = text_or(&status["used"][resource], "0");
        let text = format!("{resource}: {used}/{}", hard.as_str().unwrap_or_default());
        match resource.starts_with("limits") {
            true => limits.push(text),
            false => requests.push(text),
        }
    }
    vec![
        name(object),
        requests.join(", ").into(),
        limits.join(", ").into(),
        age(object, now),
    ]
}

pub fn lease(object: &Value, now: Timestamp) -> Vec<Value> {
    let holder = text_or(&object["spec"]["holderIdentity"], "").into();
    vec![name(object), holder, age(object, now)]
}

pub fn priority_class(object: &Value, now: Timestamp) -> Vec<Value> {
    vec![
        name(object),
        object["value"].as_i64().unwrap_or(0).into(),
        object["globalDefault"].as_bool().unwrap_or(false).into(),
        age(object, now),
        text_or(&object["preemptionPolicy"], "PreemptLowerPriority").into(),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_quota_shows_what_is_used_of_what() {
        let quota = json!({
            "metadata": {"name": "q"},
            "status": {
                "hard": {"pods": "5", "requests.cpu": "1", "limits.cpu": "2"},
                "used": {"pods": "1", "limits.cpu": "500m"},
            },
        });
        let cells = resource_quota(&quota, Timestamp::UNIX_EPOCH);
        assert_eq!(cells[1], "pods: 1/5, requests.cpu: 0/1");
        assert_eq!(cells[2], "limits.cpu: 500m/2");
    }
}
