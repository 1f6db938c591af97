//! Strict decoding: wrong types are errors that name the field, unknown fields are warnings.
//!
//! The known fields are those of k8s-openapi's types, or of upstream's protobuf messages.
//! Unknown fields stay in the body; a newer cluster may mean them.

use k8s_openapi::api::core::v1::Pod;
use serde_json::Value;

use super::{Cause, Kind, shape, view};

/// Unknown fields that are named one by one.
const UNKNOWN_MAX: usize = 16;

/// Unknown fields (`spec.containers[0].imgae`), each with its warning, or the first field of a
/// wrong type.
pub fn decode(kind: Kind, body: &Value) -> Result<Vec<Cause>, Cause> {
    let unknown = match kind {
        Kind::Pod => match view::<Pod>(body) {
            Ok((_, unknown)) => Ok(unknown),
            Err((path, error)) => Err((path, format!("Invalid value: {error}"))),
        },
        // Of nothing else is there a typed view.
        _ => shape::check(kind, body),
    };
    unknown.map(warnings)
}

/// Makes empty texts of nulls where Go reads them so: in maps of texts.
pub fn fill_texts(body: &mut Value) {
    for path in [
        "/data",
        "/stringData",
        "/metadata/annotations",
        "/metadata/labels",
    ] {
        let texts = body.pointer_mut(path).and_then(Value::as_object_mut);
        let texts = texts.into_iter().flat_map(|texts| texts.values_mut());
        texts
            .filter(|text| text.is_null())
            .for_each(|text| *text = "".into());
    }
}

fn warnings(mut unknown: Vec<String>) -> Vec<Cause> {
    let more = unknown.len().saturating_sub(UNKNOWN_MAX);
    unknown.truncate(UNKNOWN_MAX);
    let mut warnings: Vec<Cause> = unknown
        .into_iter()
        .map(|path| {
            let text = format!("unknown field \"{path}\"");
            (path, text)
        })
        .collect();
    if more > 0 {
        warnings.push((String::new(), format!("{more} more unknown fields")));
    }
    warnings
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn unknown_fields_are_named_and_do_not_refuse() {
        let pod = json!({
            "metadata": {"name": "x", "lables": {}},
            "spec": {
                "containers": [{"name": "a"}, {"name": "b", "imgae": "x", "stdin": null}],
                "nodeSelector": {"any": "key"},
                "shiny": null,
            },
        });
        let warnings = decode(Kind::Pod, &pod).expect("types are right");
        let expected = ["metadata.lables", "spec.containers[1].imgae"]
            .map(|path| (path.to_owned(), format!("unknown field \"{path}\"")));
        assert_eq!(warnings, expected);
    }

    #[test]
    fn a_wrong_type_is_named_by_its_path() {
        let container = |field: &str, value: Value| {
            let broken = json!({"name": "b", field: value});
            json!({"metadata": {"name": "x"}, "spec": {"containers": [{"name": "a"}, broken]}})
        };
        for (pod, path) in [
            (container("image", json!(5)), "spec.containers[1].image"),
            (
                container("ports", json!([{"containerPort": "x"}])),
                "spec.containers[1].ports[0].containerPort",
            ),
            (
                container("env", json!({"A": "b"})),
                "spec.containers[1].env",
            ),
            (json!({"spec": []}), "spec"),
            (
                json!({"spec": {"volumes": "x", "containers": 7}}),
                "spec.containers",
            ),
            (
                json!({"metadata": {"labels": {"a": 1}}}),
                "metadata.labels.a",
            ),
            (
                json!({"metadata": {"creationTimestamp": "noon"}}),
                "metadata.creationTimestamp",
            ),
            (json!({"kind": "Node"}), "kind"),
        ] {
            let (found, text) = decode(Kind::Pod, &pod).expect_err(path);
            assert_eq!(found, path);
            assert!(text.starts_with("Invalid value: "), "{text}");
        }
        assert!(decode(Kind::Pod, &json!("text")).is_err());
    }
}
