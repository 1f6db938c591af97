use proptest::prelude::*;
use serde_json::{Value, json};

use super::json::tests::any_object;
use super::{PatchError, merge_patch, strategic_merge};
use crate::object::Kind;

/// A pod's spec patched.
fn spec(object: Value, patch: Value) -> Result<Value, PatchError> {
    let (object, patch) = (json!({"spec": object}), json!({"spec": patch}));
    strategic_merge(Kind::Pod, object, patch).map(|mut pod| pod["spec"].take())
}

fn named(names: &[&str]) -> Value {
    names.iter().map(|name| json!({"name": name})).collect()
}

#[test]
fn lists_are_merged_by_their_keys() {
    let table = [
        (
            "an element is changed, one is added behind",
            json!({"containers": [{"name": "a", "image": "1", "tty": true}]}),
            json!({"containers": [{"name": "a", "image": "2"}, {"name": "b", "image": "3"}]}),
            json!({"containers": [{"name": "a", "image": "2", "tty": true}, {"name": "b", "image": "3"}]}),
        ),
        (
            "ports by containerPort, whatever the protocol",
            json!({"containers": [{"name": "a", "ports": [{"containerPort": 80, "name": "x"}]}]}),
            json!({"containers": [{"name": "a", "ports": [{"containerPort": 80, "protocol": "UDP"}, {"containerPort": 81}]}]}),
            json!({"containers": [{"name": "a", "ports": [
                {"containerPort": 80, "name": "x", "protocol": "UDP"}, {"containerPort": 81}]}]}),
        ),
        (
            "tolerations and commands are replaced",
            json!({"tolerations": [{"key": "a"}], "containers": [{"name": "a", "command": ["x", "y"]}]}),
            json!({"tolerations": [{"key": "b"}], "containers": [{"name": "a", "command": ["z"]}]}),
            json!({"tolerations": [{"key": "b"}], "containers": [{"name": "a", "command": ["z"]}]}),
        ),
        (
            "a map is merged by member, null removes",
            json!({"nodeSelector": {"a": "1", "b": "2"}, "hostNetwork": true}),
            json!({"nodeSelector": {"a": null, "c": "3"}, "hostNetwork": null}),
            json!({"nodeSelector": {"b": "2", "c": "3"}}),
        ),
        (
            "null in what is new means absence",
            json!({}),
            json!({"securityContext": {"runAsUser": null, "runAsGroup": 1}, "containers": [{"name": "a", "tty": null}]}),
            json!({"securityContext": {"runAsGroup": 1}, "containers": [{"name": "a"}]}),
        ),
        (
            "another type replaces",
            json!({"nodeSelector": {"a": "1"}}),
            json!({"nodeSelector": ["x"]}),
            json!({"nodeSelector": ["x"]}),
        ),
        (
            "an empty list merges nothing",
            json!({"containers": [{"name": "a"}]}),
            json!({"containers": []}),
            json!({"containers": [{"name": "a"}]}),
        ),
    ];
    for (what, object, patch, result) in table {
        assert_eq!(spec(object, patch), Ok(result), "{what}");
    }
}

#[test]
fn directives_are_carried_out_and_leave_no_trace() {
    let table = [
        (
            "delete an element",
            json!({"containers": named(&["a", "b", "c"])}),
            json!({"containers": [{"name": "b", "$patch": "delete"}, {"name": "c", "tty": true}]}),
            json!({"containers": [{"name": "a"}, {"name": "c", "tty": true}]}),
        ),
        (
            "replace a list",
            json!({"containers": named(&["a", "b"])}),
            json!({"containers": [{"$patch": "replace"}, {"name": "x"}]}),
            json!({"containers": named(&["x"])}),
        ),
        (
            "replace a map",
            json!({"securityContext": {"runAsUser": 1}}),
            json!({"securityContext": {"$patch": "replace", "runAsGroup": 2}}),
            json!({"securityContext": {"runAsGroup": 2}}),
        ),
        (
            "delete a map's members",
            json!({"securityContext": {"runAsUser": 1}}),
            json!({"securityContext": {"$patch": "delete"}}),
            json!({"securityContext": {}}),
        ),
        (
            "delete what is not there",
            json!({}),
            json!({"securityContext": {"$patch": "delete"}, "containers": [{"name": "a", "$patch": "delete"}]}),
            json!({"containers": []}),
        ),
        (
            "retain keys: the old source of a volume goes",
            json!({"volumes": [{"name": "v", "emptyDir": {}}]}),
            json!({"volumes": [{"name": "v", "$retainKeys": ["name", "hostPath"], "hostPath": {"path": "/"}}]}),
            json!({"volumes": [{"name": "v", "hostPath": {"path": "/"}}]}),
        ),
        (
            "retain keys of what is new",
            json!({}),
            json!({"volumes": [{"name": "v", "$retainKeys": ["name"]}]}),
            json!({"volumes": named(&["v"])}),
        ),
        (
            "an order without a change",
            json!({"containers": named(&["a", "b", "c"])}),
            json!({"$setElementOrder/containers": named(&["c", "a"])}),
            json!({"containers": named(&["b", "c", "a"])}),
        ),
        (
            "an order with an addition, the server's own stays where it was",
            json!({"containers": named(&["a", "own", "b"])}),
            json!({"$setElementOrder/containers": named(&["n", "b", "a"]), "containers": [{"name": "n"}]}),
            json!({"containers": named(&["n", "own", "b", "a"])}),
        ),
        (
            "an order and a deletion",
            json!({"containers": named(&["a", "b", "c"])}),
            json!({
                "$setElementOrder/containers": named(&["c", "a"]),
                "containers": [{"name": "b", "$patch": "delete"}],
            }),
            json!({"containers": named(&["c", "a"])}),
        ),
    ];
    for (what, object, patch, result) in table {
        assert_eq!(spec(object, patch), Ok(result), "{what}");
    }
}

#[test]
fn lists_of_scalars_are_merged_and_deleted_from() {
    let finalizers = |names: &[&str]| json!({"metadata": {"finalizers": names}});
    let table = [
        (finalizers(&["x", "b"]), &["x", "a", "b"][..]),
        (
            json!({"metadata": {"$deleteFromPrimitiveList/finalizers": ["a"]}}),
            &["b"],
        ),
        (
            json!({"metadata": {
                "$deleteFromPrimitiveList/finalizers": ["a"],
                "$setElementOrder/finalizers": ["n", "b"],
                "finalizers": ["n"],
            }}),
            &["n", "b"],
        ),
    ];
    for (patch, result) in table {
        let patched = strategic_merge(Kind::Secret, finalizers(&["a", "b"]), patch.clone());
        assert_eq!(patched, Ok(finalizers(result)), "{patch}");
    }
}

#[test]
fn what_has_no_sense_is_named_with_its_path() {
    let table = [
        (
            json!({"containers": [{"image": "x"}]}),
            "spec.containers: map: {\"image\":\"x\"} does not contain declared merge key: name",
        ),
        (
            json!({"containers": [{"$patch": "merge"}]}),
            "spec.containers: merging lists cannot yet be specified in the patch",
        ),
        (
            json!({"containers": [{"name": "a", "resources": {"$patch": "spam"}}]}),
            "spec.containers[name=\"a\"].resources: unknown patch type: \"spam\" in map",
        ),
        (
            json!({"containers": [{"name": "a", "env": ["x"]}]}),
            "spec.containers[name=\"a\"].env: list element types are not identical",
        ),
        (
            json!({"volumes": [{"name": "v", "$retainKeys": ["name"], "emptyDir": {"medium": ""}}]}),
            "spec.volumes[name=\"v\"]: invalid patch format of retainKeys",
        ),
        (
            json!({"$setElementOrder/containers": {}}),
            "spec.containers: invalid patch format of setElementOrder list",
        ),
        (
            json!({"$deleteFromPrimitiveList/x": 1}),
            "spec: invalid patch format of primitive list",
        ),
        (
            json!({
                "$setElementOrder/containers": named(&["b"]),
                "containers": named(&["a"]),
            }),
            "spec.containers: the order of the patch's list does not match its $setElementOrder list",
        ),
    ];
    let object = json!({
        "containers": [{"name": "a", "resources": {}, "env": [{"name": "e"}]}],
        "volumes": [{"name": "v"}],
    });
    for (patch, text) in table {
        let refused = spec(object.clone(), patch.clone());
        assert_eq!(
            refused,
            Err(PatchError::Malformed(text.to_owned())),
            "{patch}"
        );
    }
    let lists = spec(object, json!({"containers": [[1]]}));
    assert!(matches!(lists, Err(PatchError::Rejected(_))), "{lists:?}");
}

#[test]
fn long_lists_cost_no_product_of_their_lengths() {
    let names = |range: std::ops::Range<u32>| -> Value {
        range.map(|n| json!({"name": n.to_string()})).collect()
    };
    let patched = spec(
        json!({"containers": names(0..20_000)}),
        json!({"containers": names(10_000..30_000), "$setElementOrder/containers": names(10_000..30_000)}),
    );
    let containers = &patched.expect("a merge")["containers"];
    assert_eq!(containers.as_array().map(Vec::len), Some(30_000));
}

proptest! {
    /// Where no list is merged and no directive stands, it is a merge patch.
    #[test]
    fn without_lists_it_is_a_merge_patch(object in any_object(), patch in any_object()) {
        let merged = strategic_merge(Kind::ConfigMap, object.clone(), patch.clone());
        prop_assert_eq!(without_nulls(merged), without_nulls(merge_patch(object, patch)));
    }
}

/// In lists, a strategic merge drops `null` members and a merge patch keeps them.
fn without_nulls(result: Result<Value, PatchError>) -> Value {
    fn strip(value: &mut Value) {
        match value {
            Value::Object(fields) => {
                fields.retain(|_, value| !value.is_null());
                fields.values_mut().for_each(strip);
            }
            Value::Array(items) => items.iter_mut().for_each(strip),
            _ => {}
        }
    }
    let mut value = result.expect("objects");
    strip(&mut value);
    value
}
