//! Whether a node is one that a pod asks for, and whether the pod bears the node's taints. Pure.
//!
//! Sources: Kubernetes `component-helpers/scheduling/corev1` (nodeaffinity, `toleration.go`).

use serde_json::Value;

use super::LabelSelector;
use super::references::items;

/// Whether `spec.nodeSelector` and the required node affinity of a pod's spec select the Node.
pub fn selects(spec: &Value, node: &Value) -> bool {
    let labels = &node["metadata"]["labels"];
    let mut wanted = spec["nodeSelector"].as_object().into_iter().flatten();
    let required =
        &spec["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"];
    let mut terms = items(required, "nodeSelectorTerms");
    wanted.all(|(name, value)| labels.get(name) == Some(value))
        && (required.is_null() || terms.any(|term| holds(term, node)))
}

/// One term: all of its expressions. An empty term holds for no node, an expression that makes no
/// sense neither.
fn holds(term: &Value, node: &Value) -> bool {
    let (expressions, fields) = (&term["matchExpressions"], &term["matchFields"]);
    let stated = |list: &Value| list.as_array().is_some_and(|list| !list.is_empty());
    let name = &node["metadata"]["name"];
    let labels = LabelSelector::of_expressions(expressions);
    (stated(expressions) || stated(fields))
        && labels.is_some_and(|labels| labels.matches(node))
        && items(term, "matchFields").all(|field| {
            let among = field["values"].as_array().is_some_and(|v| v.contains(name));
            match (field["key"].as_str(), field["operator"].as_str()) {
                (Some("metadata.name"), Some("In")) => among,
                (Some("metadata.name"), Some("NotIn")) => !among,
                _ => false,
            }
        })
}

/// The first taint of the Node with one of `effects` that the pod's spec does not tolerate.
pub fn untolerated<'a>(spec: &Value, node: &'a Value, effects: &[&str]) -> Option<&'a Value> {
    items(&node["spec"], "taints").find(|taint| {
        let counts = effects.iter().any(|effect| taint["effect"] == *effect);
        counts && !items(spec, "tolerations").any(|toleration| tolerates(toleration, taint))
    })
}

fn tolerates(toleration: &Value, taint: &Value) -> bool {
    let text = |of: &Value, field: &str| of[field].as_str().unwrap_or_default().to_owned();
    let same = |field: &str| text(toleration, field) == text(taint, field);
    let any = |field: &str| text(toleration, field).is_empty();
    let value = match text(toleration, "operator").as_str() {
        "" | "Equal" => same("value"),
        "Exists" => true,
        _ => false,
    };
    (any("effect") || same("effect")) && (any("key") || same("key")) && value
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn node() -> Value {
        json!({
            "metadata": {"name": "pi", "labels": {"disk": "ssd", "cores": "4", "zone": "a"}},
            "spec": {"taints": [
                {"key": "quiet", "value": "yes", "effect": "NoSchedule"},
                {"key": "broken", "effect": "NoExecute"},
            ]},
        })
    }

    fn affinity(terms: Value) -> Value {
        let required = json!({"nodeSelectorTerms": terms});
        json!({"affinity": {"nodeAffinity": {
            "requiredDuringSchedulingIgnoredDuringExecution": required,
            "preferredDuringSchedulingIgnoredDuringExecution": [{"weight": 1, "preference": {}}],
        }}})
    }

    #[test]
    fn node_selectors_select_as_upstream() {
        for (wanted, expected) in [
            (json!({}), true),
            (json!({"disk": "ssd"}), true),
            (json!({"disk": "ssd", "zone": "b"}), false),
            (json!({"gpu": "yes"}), false),
        ] {
            let spec = json!({"nodeSelector": wanted});
            assert_eq!(selects(&spec, &node()), expected, "{spec}");
        }
    }

    #[test]
    fn an_expression_holds_as_upstream() {
        for (list, key, operator, values, expected) in [
            (
                "matchExpressions",
                "disk",
                "In",
                json!(["hdd", "ssd"]),
                true,
            ),
            ("matchExpressions", "disk", "NotIn", json!(["ssd"]), false),
            ("matchExpressions", "gpu", "NotIn", json!(["x"]), true),
            ("matchExpressions", "gpu", "Exists", json!(null), false),
            ("matchExpressions", "gpu", "DoesNotExist", json!(null), true),
            ("matchExpressions", "cores", "Gt", json!(["3"]), true),
            ("matchExpressions", "cores", "Lt", json!(["4"]), false),
            ("matchExpressions", "disk", "Near", json!(["ssd"]), false),
            ("matchFields", "metadata.name", "In", json!(["pi"]), true),
            (
                "matchFields",
                "metadata.name",
                "NotIn",
                json!(["pi"]),
                false,
            ),
            ("matchFields", "metadata.uid", "In", json!(["pi"]), false),
        ] {
            let expression = json!({"key": key, "operator": operator, "values": values});
            let spec = affinity(json!([{list: [expression]}]));
            assert_eq!(selects(&spec, &node()), expected, "{spec}");
        }
    }

    #[test]
    fn terms_are_alternatives_and_expressions_of_a_term_are_not() {
        let exists = |key: &str| json!({"key": key, "operator": "Exists"});
        let both = json!({"matchExpressions": [exists("disk"), exists("gpu")]});
        let zone = json!({"matchExpressions": [exists("zone")]});
        for (terms, expected) in [
            (json!([]), false),
            (json!([{}]), false),
            (json!([both]), false),
            (json!([both, zone]), true),
        ] {
            assert_eq!(
                selects(&affinity(terms.clone()), &node()),
                expected,
                "{terms}"
            );
        }
    }

    #[test]
    fn taints_are_tolerated_as_upstream() {
        let (both, node) = (["NoSchedule", "NoExecute"], node());
        for (tolerations, expected) in [
            (json!([]), Some("quiet")),
            (json!([{"operator": "Exists"}]), None),
            (json!([{"key": "quiet", "value": "yes"}]), Some("broken")),
            (json!([{"key": "quiet", "value": "no"}]), Some("quiet")),
            (
                json!([{"key": "quiet", "operator": "Exists", "effect": "NoExecute"}]),
                Some("quiet"),
            ),
            (
                json!([{"key": "quiet", "operator": "Exists"}, {"key": "broken", "effect": "NoExecute"}]),
                None,
            ),
            (
                json!([{"key": "quiet", "operator": "Lt", "value": "yes"}]),
                Some("quiet"),
            ),
        ] {
            let spec = json!({"tolerations": tolerations});
            let found = untolerated(&spec, &node, &both);
            assert_eq!(
                found.map(|taint| taint["key"].as_str().unwrap()),
                expected,
                "{spec}"
            );
        }
        let found = untolerated(&json!({}), &node, &["NoExecute"]);
        assert_eq!(found.unwrap()["key"], "broken");
    }
}
