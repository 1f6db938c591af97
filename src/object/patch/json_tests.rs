use proptest::prelude::*;
use serde_json::json;

use super::*;

fn any_value(depth: u32) -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        (-2i64..3).prop_map(Value::from),
        "[a-c]{0,2}".prop_map(Value::from),
    ];
    leaf.prop_recursive(depth, 24, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::btree_map("[a-c~/]{1,2}", inner, 0..4)
                .prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
}

/// Small objects with few names, so that two of them often meet.
pub fn any_object() -> impl Strategy<Value = Value> {
    prop::collection::btree_map("[a-c~/]{1,2}", any_value(3), 0..4)
        .prop_map(|map| Value::Object(map.into_iter().collect()))
}

fn any_operation() -> impl Strategy<Value = Value> {
    let pointer = || "(/(a|b|c|ab|0|1|2|-|~0|~1)){1,3}";
    let op = prop::sample::select(&["add", "remove", "replace", "move", "copy", "test"][..]);
    (op, pointer(), pointer(), any_value(2)).prop_map(
        |(op, path, from, value)| json!({"op": op, "path": path, "from": from, "value": value}),
    )
}

fn oracle(mut object: Value, patch: &Value) -> Option<Value> {
    let patch: json_patch::Patch = serde_json::from_value(patch.clone()).ok()?;
    // Its undo after a failure can panic; what failed is thrown away here.
    json_patch::patch_unsafe(&mut object, &patch).ok()?;
    Some(object)
}

/// Object, patch, result.
fn rfc_table() -> Vec<(Value, Value, Value)> {
    vec![
        (
            json!({"a": 1}),
            json!([{"op": "add", "path": "/b", "value": 2}]),
            json!({"a": 1, "b": 2}),
        ),
        (
            json!({"a": [1, 2]}),
            json!([{"op": "add", "path": "/a/1", "value": 9}]),
            json!({"a": [1, 9, 2]}),
        ),
        (
            json!({"a": [1]}),
            json!([{"op": "add", "path": "/a/-", "value": [2]}]),
            json!({"a": [1, [2]]}),
        ),
        (
            json!({"a": [1]}),
            json!([{"op": "add", "path": "/a/1", "value": 2}]),
            json!({"a": [1, 2]}),
        ),
        (
            json!({"a": 1, "b": 2}),
            json!([{"op": "remove", "path": "/b"}]),
            json!({"a": 1}),
        ),
        (
            json!({"a": [1, 2]}),
            json!([{"op": "remove", "path": "/a/0"}]),
            json!({"a": [2]}),
        ),
        (
            json!({"a": 1}),
            json!([{"op": "replace", "path": "/a", "value": null}]),
            json!({"a": null}),
        ),
        (
            json!({"a": {"b": 1}}),
            json!([{"op": "move", "from": "/a/b", "path": "/c"}]),
            json!({"a": {}, "c": 1}),
        ),
        (
            json!({"a": [1, 2, 3]}),
            json!([{"op": "move", "from": "/a/0", "path": "/a/2"}]),
            json!({"a": [2, 3, 1]}),
        ),
        (
            json!({"a": [1]}),
            json!([{"op": "copy", "from": "/a", "path": "/b"}]),
            json!({"a": [1], "b": [1]}),
        ),
        (
            json!({"x/y": 1, "m~n": 2}),
            json!([
                {"op": "test", "path": "/x~1y", "value": 1},
                {"op": "test", "path": "/m~0n", "value": 2},
                {"op": "remove", "path": "/m~0n"},
            ]),
            json!({"x/y": 1}),
        ),
        (
            json!({"": 1}),
            json!([{"op": "replace", "path": "/", "value": 2}]),
            json!({"": 2}),
        ),
    ]
}

#[test]
fn operations_do_what_the_rfc_says() {
    for (object, patch, result) in rfc_table() {
        assert_eq!(json_patch(object, &patch), Ok(result), "{patch}");
    }
    let whole = json!([{"op": "replace", "path": "", "value": {"b": 2}}]);
    assert_eq!(json_patch(json!({"a": 1}), &whole), Ok(json!({"b": 2})));
}

#[test]
fn what_upstream_allows_beyond_the_rfc_is_allowed() {
    let table = [
        (
            json!({"a": [1, 2]}),
            json!([{"op": "remove", "path": "/a/-1"}]),
            json!({"a": [1]}),
        ),
        (
            json!({"a": [1, 2]}),
            json!([{"op": "replace", "path": "/a/-2", "value": 0}]),
            json!({"a": [0, 2]}),
        ),
        (
            json!({"a": {}}),
            json!([{"op": "replace", "path": "/a/b", "value": 1}]),
            json!({"a": {"b": 1}}),
        ),
        (
            json!({}),
            json!([{"op": "add", "path": "/a"}]),
            json!({"a": null}),
        ),
        (
            json!({}),
            json!([{"op": "test", "path": "/a", "value": null}]),
            json!({}),
        ),
    ];
    for (object, patch, result) in table {
        assert_eq!(json_patch(object, &patch), Ok(result), "{patch}");
    }
}

#[test]
fn what_does_not_fit_is_rejected_with_its_path() {
    let table = [
        (
            json!([{"op": "test", "path": "/a", "value": 2}]),
            "testing value /a failed: test failed",
        ),
        (
            json!([{"op": "test", "path": "/x", "value": 2}]),
            "testing value /x failed: test failed",
        ),
        (
            json!([{"op": "add", "path": "/x/y", "value": 2}]),
            "add operation does not apply: doc is missing path: \"/x/y\"",
        ),
        (
            json!([{"op": "remove", "path": "/x"}]),
            "error in remove for path: '/x': Unable to remove nonexistent key: x",
        ),
        (
            json!([{"op": "add", "path": "/l/4", "value": 2}]),
            "error in add for path: '/l/4': Unable to access invalid index: 4",
        ),
        (
            json!([{"op": "remove", "path": "/l/-"}]),
            "error in remove for path: '/l/-': Unable to access invalid index: -",
        ),
        (
            json!([{"op": "add", "value": 2}]),
            "add operation: missing path field",
        ),
        (
            json!([{"op": "move", "path": "/a"}]),
            "move operation: missing from field",
        ),
        (
            json!([{"op": "move", "from": "/l", "path": "/l/0"}]),
            "move operation does not apply: doc is missing path: \"/l/0\"",
        ),
        (
            json!([{"op": "copy", "from": "/x", "path": "/y"}]),
            "copy operation does not apply: doc is missing path: \"/x\"",
        ),
        (
            json!([{"op": "add", "path": "a", "value": 2}]),
            "add operation does not apply: doc is missing path: \"a\"",
        ),
        (
            json!([{"op": "replace", "path": "", "value": 1}]),
            "replace operation: value must be an object",
        ),
        (
            json!([{"op": "spam", "path": "/a"}]),
            "Unexpected kind: spam",
        ),
    ];
    for (patch, text) in table {
        let refused = json_patch(json!({"a": 1, "l": [1, 2]}), &patch);
        assert_eq!(
            refused,
            Err(PatchError::Rejected(text.to_owned())),
            "{patch}"
        );
    }
    for patch in [json!({"op": "add"}), json!([1])] {
        assert!(matches!(
            json_patch(json!({}), &patch),
            Err(PatchError::Malformed(_))
        ));
    }
}

#[test]
fn a_patch_is_bounded() {
    let operation = json!({"op": "test", "path": "/x", "value": null});
    let at = |n: usize| json_patch(json!({}), &Value::from(vec![operation.clone(); n]));
    assert!(at(OPERATIONS_MAX).is_ok());
    let text = "The allowed maximum operations in a JSON patch is 10000, got 10001";
    assert_eq!(
        at(OPERATIONS_MAX + 1),
        Err(PatchError::TooLarge(text.to_owned()))
    );

    // Each copy doubles the text.
    let copy = json!({"op": "copy", "from": "/a", "path": "/a/-"});
    let refused = json_patch(
        json!({"a": ["x".repeat(1000)]}),
        &Value::from(vec![copy; 100]),
    );
    let text = refused.expect_err("a flood of bytes").to_string();
    assert!(text.starts_with("Unable to complete the copy"), "{text}");

    let insert = json!({"op": "add", "path": "/a/0", "value": 1});
    let long = json!({"a": vec![0; 100_000]});
    let refused = json_patch(long, &Value::from(vec![insert; 300]));
    let text = refused.expect_err("too much pushing").to_string();
    assert_eq!(
        text,
        "Unable to push aside more than 20000000 list elements"
    );
}

#[test]
fn no_patch_nests_deeper_than_a_parser_reads() {
    let doubling = json!({"op": "copy", "from": "/a", "path": "/a/a"});
    let refused = json_patch(json!({"a": {}}), &Value::from(vec![doubling; 1000]));
    assert!(
        refused
            .expect_err("too deep")
            .to_string()
            .ends_with("nested deeper than 127")
    );

    let mut moves = Vec::new();
    for _ in 0..200 {
        moves.push(json!({"op": "add", "path": "/b", "value": {}}));
        moves.push(json!({"op": "move", "from": "/a", "path": "/b/a"}));
        moves.push(json!({"op": "move", "from": "/b", "path": "/a"}));
    }
    let refused = json_patch(json!({"a": {}}), &Value::from(moves));
    assert!(
        refused
            .expect_err("too deep")
            .to_string()
            .ends_with("nested deeper than 127")
    );
}

proptest! {
    #[test]
    fn it_does_what_the_json_patch_crate_does(
        object in any_object(),
        operations in prop::collection::vec(any_operation(), 1..4),
    ) {
        let patch = Value::from(operations);
        // Where the oracle refuses we may be wider, but only as the file's head says.
        if let Some(expected) = oracle(object.clone(), &patch) && expected.is_object() {
            prop_assert_eq!(json_patch(object, &patch), Ok(expected));
        }
    }

    #[test]
    fn a_difference_applied_gives_the_other(left in any_object(), right in any_object()) {
        let difference = serde_json::to_value(json_patch::diff(&left, &right)).expect("JSON");
        prop_assert_eq!(json_patch(left, &difference), Ok(right));
    }
}
