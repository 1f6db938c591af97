//! Rows of nodes.

use jiff::Timestamp;
use serde_json::Value;

use super::{Column, age, name, plain, text_or, wide};

pub const COLUMNS: &[Column] = &[
    plain("Name"),
    plain("Status"),
    plain("Roles"),
    plain("Age"),
    plain("Version"),
    wide("Internal-IP"),
    wide("External-IP"),
    wide("OS-Image"),
    wide("Kernel-Version"),
    wide("Container-Runtime"),
];

pub fn cells(node: &Value, now: Timestamp) -> Vec<Value> {
    let info = |field: &str| Value::from(text_or(&node["status"]["nodeInfo"][field], "<unknown>"));
    vec![
        name(node),
        status(node).into(),
        roles(node).into(),
        age(node, now),
        text_or(&node["status"]["nodeInfo"]["kubeletVersion"], "").into(),
        address(node, "InternalIP"),
        address(node, "ExternalIP"),
        info("osImage"),
        info("kernelVersion"),
        info("containerRuntimeVersion"),
    ]
}

fn status(node: &Value) -> String {
    let conditions = node["status"]["conditions"].as_array();
    let mut conditions = conditions.into_iter().flatten();
    let ready = conditions.find(|condition| condition["type"] == "Ready");
    let mut text = match ready.map(|condition| condition["status"].as_str()) {
        Some(Some("True")) => "Ready",
        Some(_) => "NotReady",
        None => "Unknown",
    }
    .to_owned();
    if node["spec"]["unschedulable"] == true {
        text.push_str(",SchedulingDisabled");
    }
    text
}

/// From labels `node-role.kubernetes.io/ROLE` and `kubernetes.io/role=ROLE`, sorted.
pub fn roles(node: &Value) -> String {
    let labels = node["metadata"]["labels"].as_object().into_iter().flatten();
    let mut roles: Vec<&str> = labels
        .filter_map(|(label, value)| match label.as_str() {
            "kubernetes.io/role" => value.as_str(),
            other => other.strip_prefix("node-role.kubernetes.io/"),
        })
        .filter(|role| !role.is_empty())
        .collect();
    roles.sort_unstable();
    roles.dedup();
    match roles.is_empty() {
        true => "<none>".to_owned(),
        false => roles.join(","),
    }
}

fn address(node: &Value, kind: &str) -> Value {
    let addresses = node["status"]["addresses"].as_array().into_iter().flatten();
    let found = addresses
        .into_iter()
        .find(|address| address["type"] == kind);
    Value::from(found.map_or("<none>", |found| text_or(&found["address"], "<none>")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn status_and_roles_read_as_in_kubectl() {
        let condition = |status: &str| json!([{"type": "Ready", "status": status}]);
        let table = [
            (json!({}), "Unknown"),
            (
                json!({"status": {"conditions": condition("True")}}),
                "Ready",
            ),
            (
                json!({"status": {"conditions": condition("Unknown")}}),
                "NotReady",
            ),
            (
                json!({"spec": {"unschedulable": true}, "status": {"conditions": condition("True")}}),
                "Ready,SchedulingDisabled",
            ),
        ];
        for (node, text) in table {
            assert_eq!(status(&node), text, "{node}");
        }
        let labels =
            json!({"node-role.kubernetes.io/edge": "", "kubernetes.io/role": "a", "x": "y"});
        assert_eq!(roles(&json!({"metadata": {"labels": labels}})), "a,edge");
        assert_eq!(roles(&json!({})), "<none>");
    }
}
