//! Merge patch: maps are merged, `null` removes, everything else replaces. RFC 7386.

use serde_json::{Map, Value};

use super::PatchError;

/// Applies `patch` to `object`. Errors: `Malformed` if either is not an object: no resource is
/// anything else.
pub fn merge_patch(object: Value, patch: Value) -> Result<Value, PatchError> {
    let (Value::Object(mut object), Value::Object(patch)) = (object, patch) else {
        return Err(PatchError::Malformed("Invalid JSON Patch".to_owned()));
    };
    merge(&mut object, patch);
    Ok(Value::Object(object))
}

fn merge(object: &mut Map<String, Value>, patch: Map<String, Value>) {
    for (name, wanted) in patch {
        match (object.get_mut(&name), wanted) {
            (_, Value::Null) => {
                object.remove(&name);
            }
            (Some(Value::Object(present)), Value::Object(wanted)) => merge(present, wanted),
            (_, Value::Object(wanted)) => {
                // Even where nothing is to be merged with, `null` means absence.
                let mut fresh = Map::new();
                merge(&mut fresh, wanted);
                object.insert(name, Value::Object(fresh));
            }
            (_, wanted) => {
                object.insert(name, wanted);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::super::json::tests::any_object;
    use super::*;

    #[test]
    fn the_examples_of_the_rfc_hold() {
        let table = [
            (json!({"a": "b"}), json!({"a": "c"}), json!({"a": "c"})),
            (
                json!({"a": "b"}),
                json!({"b": "c"}),
                json!({"a": "b", "b": "c"}),
            ),
            (json!({"a": "b"}), json!({"a": null}), json!({})),
            (
                json!({"a": "b", "b": "c"}),
                json!({"a": null}),
                json!({"b": "c"}),
            ),
            (json!({"a": ["b"]}), json!({"a": "c"}), json!({"a": "c"})),
            (json!({"a": "c"}), json!({"a": ["b"]}), json!({"a": ["b"]})),
            (
                json!({"a": {"b": "c"}}),
                json!({"a": {"b": "d", "c": null}}),
                json!({"a": {"b": "d"}}),
            ),
            (
                json!({"a": [{"b": "c"}]}),
                json!({"a": [1]}),
                json!({"a": [1]}),
            ),
            (
                json!({"e": null}),
                json!({"a": 1}),
                json!({"e": null, "a": 1}),
            ),
            (
                json!({}),
                json!({"a": {"bb": {"ccc": null}}}),
                json!({"a": {"bb": {}}}),
            ),
        ];
        for (object, patch, result) in table {
            assert_eq!(merge_patch(object, patch.clone()), Ok(result), "{patch}");
        }
    }

    #[test]
    fn what_is_no_object_is_no_patch() {
        for patch in [json!(["a"]), json!(null), json!("x")] {
            let refused = merge_patch(json!({"a": 1}), patch);
            assert!(matches!(refused, Err(PatchError::Malformed(_))));
        }
    }

    proptest! {
        #[test]
        fn it_does_what_the_json_patch_crate_does(object in any_object(), patch in any_object()) {
            let mut expected = object.clone();
            json_patch::merge(&mut expected, &patch);
            prop_assert_eq!(merge_patch(object, patch), Ok(expected));
        }

        #[test]
        fn a_second_time_changes_nothing(object in any_object(), patch in any_object()) {
            let once = merge_patch(object, patch.clone()).expect("objects");
            prop_assert_eq!(merge_patch(once.clone(), patch), Ok(once));
        }
    }
}
