//! What the author of a new pod is warned of: legal, and probably not what was meant. Pure.
//!
//! Source: Kubernetes pkg/api/pod/warnings.go, pkg/registry/core/pod/strategy.go (WarningsOnCreate).

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use crate::object::names::label_problem;
use crate::object::references::items;
use crate::object::resources::quantity;

/// Annotations that mean nothing any more, and why.
const DEAD_ANNOTATIONS: [(&str, &str); 4] = [
    (
        "scheduler.alpha.kubernetes.io/critical-pod",
        "non-functional in v1.16+; use the \"priorityClassName\" field instead",
    ),
    (
        "security.alpha.kubernetes.io/sysctls",
        "non-functional in v1.11+; use the \"sysctls\" field instead",
    ),
    (
        "security.alpha.kubernetes.io/unsafe-sysctls",
        "non-functional in v1.11+; use the \"sysctls\" field instead",
    ),
    (
        "seccomp.security.alpha.kubernetes.io/pod",
        "non-functional in v1.27+; use the \"seccompProfile\" field instead",
    ),
];

pub fn remarks(pod: &Value) -> Vec<String> {
    let (metadata, spec) = (&pod["metadata"], &pod["spec"]);
    let mut told = Vec::new();
    // One that is to be generated is not known yet.
    let name = text(metadata, "name");
    if !name.is_empty()
        && let Some(problem) = label_problem(name)
    {
        told.push(format!(
            "metadata.name: this is used in the Pod's hostname, which can result in surprising \
             behavior; a DNS label is recommended: [{problem}]"
        ));
    }
    for (name, why) in DEAD_ANNOTATIONS {
        if metadata["annotations"].get(name).is_some() {
            told.push(format!("metadata.annotations[{name}]: {why}"));
        }
    }
    for (list, field, what) in [
        ("hostAliases", "ip", "ip"),
        ("imagePullSecrets", "name", "name"),
    ] {
        let mut seen = BTreeSet::new();
        for (at, item) in items(spec, list).enumerate() {
            let value = text(item, field);
            let path = format!("spec.{list}[{at}].{field}");
            if value.is_empty() && list == "imagePullSecrets" {
                told.push(format!("{path}: invalid empty name \"\""));
            } else if !seen.insert(value) {
                told.push(format!("{path}: duplicate {what} {value:?}"));
            }
        }
    }
    let mut ports = Ports::default();
    for list in ["initContainers", "containers"] {
        for (at, container) in items(spec, list).enumerate() {
            let path = format!("spec.{list}[{at}]");
            fractions(container, &path, &mut told);
            hidden_variables(container, &path, &mut told);
            ports.visit(container, &path, &mut told);
        }
    }
    if spec["terminationGracePeriodSeconds"].as_i64() < Some(0)
        && spec["terminationGracePeriodSeconds"].is_i64()
    {
        let why = "must be >= 0; negative values are invalid and will be treated as 1";
        told.push(format!("spec.terminationGracePeriodSeconds: {why}"));
    }
    told
}

fn text<'a>(value: &'a Value, field: &str) -> &'a str {
    value[field].as_str().unwrap_or_default()
}

fn fractions(container: &Value, path: &str, told: &mut Vec<String>) {
    for list in ["limits", "requests"] {
        for name in ["memory", "ephemeral-storage"] {
            let stated = &container["resources"][list][name];
            if quantity(stated).is_some_and(|amount| amount.millis() % 1000 != 0) {
                let stated = stated.as_str().unwrap_or_default();
                told.push(format!(
                    "{path}.resources.{list}[{name}]: fractional byte value {stated:?} is invalid, \
                     must be an integer"
                ));
            }
        }
    }
}

fn hidden_variables(container: &Value, path: &str, told: &mut Vec<String>) {
    let mut seen = BTreeSet::new();
    for (at, variable) in items(container, "env").enumerate() {
        let (name, value) = (text(variable, "name"), text(variable, "value"));
        let earlier = format!("$({name})");
        // One that is made of the one before hides nothing.
        let builds_on = value != earlier && value.contains(&earlier);
        if !seen.insert(name) && (!variable["valueFrom"].is_null() || !builds_on) {
            told.push(format!(
                "{path}.env[{at}]: hides previous definition of {name:?}, which may be dropped when \
                 using apply"
            ));
        }
    }
}

/// Ports of all containers so far.
#[derive(Default)]
struct Ports<'a> {
    by_number: BTreeMap<(i64, &'a str), Vec<(String, &'a Value)>>,
    by_name: BTreeMap<&'a str, String>,
}

impl<'a> Ports<'a> {
    fn visit(&mut self, container: &'a Value, path: &str, told: &mut Vec<String>) {
        for (at, port) in items(container, "ports").enumerate() {
            let path = format!("{path}.ports[{at}]");
            let protocol = port["protocol"].as_str().unwrap_or("TCP");
            let number = port["containerPort"].as_i64().unwrap_or(0);
            let others = self.by_number.entry((number, protocol)).or_default();
            for (other_path, other) in others.iter() {
                if let Some(how) = clash(port, other) {
                    told.push(format!("{path}: {how} port definition with {other_path}"));
                }
            }
            others.push((path.clone(), port));
            let name = text(port, "name");
            if let Some(other) = self.by_name.get(name) {
                told.push(format!(
                    "{path}: duplicate port name {name:?} with {other}, services and probes that \
                     select ports by name will use {other}"
                ));
            } else if !name.is_empty() {
                self.by_name.insert(name, path);
            }
        }
    }
}

fn clash(port: &Value, other: &Value) -> Option<&'static str> {
    let host = |port: &Value| port["hostPort"].as_i64().unwrap_or(0);
    let (ours, theirs) = (text(port, "hostIP"), text(other, "hostIP"));
    if ours == theirs && host(port) == host(other) {
        Some("duplicate")
    } else if host(port) == 0 || host(other) == 0 {
        Some("overlapping")
    } else if host(port) == host(other) && ours.is_empty() != theirs.is_empty() {
        Some("dangerously ambiguous")
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn pod(spec: Value) -> Value {
        json!({"metadata": {"name": "web"}, "spec": spec})
    }

    #[test]
    fn what_is_probably_a_mistake_is_told() {
        let container = |fields: Value| pod(json!({"containers": [fields]}));
        let env = |first: Value, second: Value| {
            let (mut one, mut two) = (first, second);
            (one["name"], two["name"]) = (json!("A"), json!("A"));
            container(json!({"env": [one, two]}))
        };
        let ports = |first: Value, second: Value| container(json!({"ports": [first, second]}));
        let hides = "spec.containers[0].env[1]: hides previous definition of \"A\", which may be \
                     dropped when using apply";
        let port = |how: &str| {
            format!(
                "spec.containers[0].ports[1]: {how} port definition with spec.containers[0].ports[0]"
            )
        };
        let table = [
            (env(json!({"value": "1"}), json!({"value": "2"})), hides.to_owned()),
            (env(json!({"value": "1"}), json!({"value": "$(A)"})), hides.to_owned()),
            (env(json!({"value": "1"}), json!({"value": "$(A)2"})), String::new()),
            (
                ports(json!({"containerPort": 80}), json!({"containerPort": 80, "protocol": "TCP"})),
                port("duplicate"),
            ),
            (
                ports(json!({"containerPort": 80}), json!({"containerPort": 80, "hostPort": 1})),
                port("overlapping"),
            ),
            (
                ports(
                    json!({"containerPort": 80, "hostPort": 1}),
                    json!({"containerPort": 80, "hostPort": 1, "hostIP": "10.0.0.1"}),
                ),
                port("dangerously ambiguous"),
            ),
            (
                ports(json!({"containerPort": 80}), json!({"containerPort": 80, "protocol": "UDP"})),
                String::new(),
            ),
            (
                ports(
                    json!({"containerPort": 80, "name": "a"}),
                    json!({"containerPort": 81, "name": "a"}),
                ),
                "spec.containers[0].ports[1]: duplicate port name \"a\" with \
                 spec.containers[0].ports[0], services and probes that select ports by name will use \
                 spec.containers[0].ports[0]"
                    .to_owned(),
            ),
        ];
        for (pod, told) in table {
            assert_eq!(remarks(&pod).join("\n"), told, "{pod}");
        }
    }

    #[test]
    fn what_a_pod_as_a_whole_says_twice_or_in_vain_is_told() {
        let sized = json!({"resources": {"limits": {"memory": "1m", "cpu": "1m"}}});
        let table = [
            (
                pod(json!({"containers": [sized]})),
                "spec.containers[0].resources.limits[memory]: fractional byte value \"1m\" is invalid, \
                 must be an integer"
                    .to_owned(),
            ),
            (
                pod(json!({"imagePullSecrets": [{"name": "a"}, {"name": "a"}]})),
                "spec.imagePullSecrets[1].name: duplicate name \"a\"".to_owned(),
            ),
            (
                pod(json!({"imagePullSecrets": [{}]})),
                "spec.imagePullSecrets[0].name: invalid empty name \"\"".to_owned(),
            ),
            (
                pod(json!({"hostAliases": [{"ip": "1.1.1.1"}, {"ip": "1.1.1.1"}]})),
                "spec.hostAliases[1].ip: duplicate ip \"1.1.1.1\"".to_owned(),
            ),
            (
                pod(json!({"terminationGracePeriodSeconds": -1})),
                "spec.terminationGracePeriodSeconds: must be >= 0; negative values are invalid and \
                 will be treated as 1"
                    .to_owned(),
            ),
        ];
        for (pod, told) in table {
            let all = remarks(&pod);
            assert_eq!(all.join("\n"), told, "{pod}");
        }
        let mut named = pod(json!({}));
        named["metadata"] = json!({
            "name": "a.b",
            "annotations": {"security.alpha.kubernetes.io/sysctls": "x"},
        });
        let all = remarks(&named);
        assert!(all[0].starts_with("metadata.name: this is used in the Pod's hostname"));
        assert!(all[1].starts_with("metadata.annotations[security.alpha.kubernetes.io/sysctls]: "));
    }
}
