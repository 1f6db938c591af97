//! What is the same to Go, written in two ways. Its clients leave zero values out of what they write
//! back; that is no change of what somebody wrote in full. Pure.

use serde_json::Value;

/// Fields of which a zero says something else than none: Go tells them apart, too.
const TELLING: [&str; 14] = [
    "activeDeadlineSeconds",
    "allowPrivilegeEscalation",
    "automountServiceAccountToken",
    "fsGroup",
    "hostUsers",
    "labelSelector",
    "mode",
    "namespaceSelector",
    "privileged",
    "runAsGroup",
    "runAsNonRoot",
    "runAsUser",
    "sizeLimit",
    "tolerationSeconds",
];

/// Gives what is the same in both the spelling of `old`.
pub fn keep_spelling(new: &mut Value, old: &Value) {
    match (new, old) {
        (Value::Object(new), Value::Object(old)) => {
            new.retain(|name, value| old.contains_key(name) || !is_blank(name, value));
            for (name, before) in old {
                let after = new.get(name).unwrap_or(&Value::Null);
                if is_blank(name, before) && is_blank(name, after) {
                    new.insert(name.clone(), before.clone());
                } else if let Some(after) = new.get_mut(name) {
                    keep_spelling(after, before);
                }
            }
        }
        (Value::Array(new), Value::Array(old)) => {
            let pairs = new.iter_mut().zip(old);
            for (after, before) in pairs.filter(|(a, b)| a.get("name") == b.get("name")) {
                keep_spelling(after, before);
            }
        }
        _ => {}
    }
}

/// Whether Go leaves it out, or might as well.
fn is_blank(name: &str, value: &Value) -> bool {
    let telling = TELLING.contains(&name);
    match value {
        Value::Null => true,
        _ if telling => false,
        Value::Bool(value) => !value,
        Value::Number(number) => number.as_i64() == Some(0),
        Value::String(text) => text.is_empty(),
        Value::Array(items) => items.is_empty(),
        Value::Object(fields) => fields.iter().all(|(name, value)| is_blank(name, value)),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn zero_values_stay_as_they_were_written() {
        let old = json!({
            "hostNetwork": false, "nodeSelector": null, "serviceAccount": "a",
            "automountServiceAccountToken": false,
            "containers": [{
                "name": "a", "image": "i", "args": [], "env": [{"name": "X", "value": ""}],
                "volumeMounts": [{"name": "v", "readOnly": false}], "resources": {"limits": {}},
            }, {"name": "b"}],
            "tolerations": [{"key": "k", "value": "", "tolerationSeconds": 0}],
        });
        let as_go_writes_it = json!({
            "automountServiceAccountToken": false, "hostname": "", "serviceAccount": "a",
            "containers": [{
                "name": "a", "image": "i", "env": [{"name": "X"}],
                "volumeMounts": [{"name": "v"}], "resources": {}, "stdin": false,
            }, {"name": "b", "securityContext": {"privileged": null}}],
            "tolerations": [{"key": "k", "tolerationSeconds": 0}],
        });
        let mut new = as_go_writes_it.clone();
        keep_spelling(&mut new, &old);
        assert_eq!(new, old);
        // What says something else differs as it did.
        let containers = |container: Value| json!({"containers": [container]});
        for (mut new, old) in [
            (json!({}), json!({"automountServiceAccountToken": false})),
            (json!({"securityContext": {"runAsUser": 0}}), json!({})),
            (
                json!({"tolerations": [{"key": "k"}]}),
                json!({"tolerations": [{"key": "k", "tolerationSeconds": 0}]}),
            ),
            (json!({"hostNetwork": true}), json!({"hostNetwork": false})),
            (
                containers(json!({"name": "a", "args": [""]})),
                containers(json!({"name": "a"})),
            ),
            (
                containers(json!({"name": "a"})),
                containers(json!({"name": "b", "tty": false})),
            ),
        ] {
            let given = new.clone();
            keep_spelling(&mut new, &old);
            assert_eq!(new, given);
        }
    }
}
