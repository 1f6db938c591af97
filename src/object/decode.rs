//! Strict decoding: wrong types are errors that name the field, unknown fields are warnings.
//!
//! The known fields are those of k8s-openapi's types: what is in the input and not in its
//! re-serialised view is unknown. Unknown fields stay in the body; a newer cluster may mean them.

use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1;
use k8s_openapi::api::scheduling::v1::PriorityClass;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use super::{Cause, Kind};

/// Unknown fields that are named one by one.
const UNKNOWN_MAX: usize = 16;

/// Unknown fields (`spec.containers[0].imgae`), each with its warning, or the first field of a
/// wrong type.
pub fn decode(kind: Kind, body: &Value) -> Result<Vec<Cause>, Cause> {
    match kind {
        Kind::Pod => decode_as::<v1::Pod>(body),
        Kind::ConfigMap => decode_as::<v1::ConfigMap>(body),
        Kind::Secret => decode_as::<v1::Secret>(body),
        Kind::ServiceAccount => decode_as::<v1::ServiceAccount>(body),
        Kind::Namespace => decode_as::<v1::Namespace>(body),
        Kind::Service => decode_as::<v1::Service>(body),
        Kind::Endpoints => decode_as::<v1::Endpoints>(body),
        Kind::LimitRange => decode_as::<v1::LimitRange>(body),
        Kind::ResourceQuota => decode_as::<v1::ResourceQuota>(body),
        Kind::Lease => decode_as::<Lease>(body),
        Kind::PriorityClass => decode_as::<PriorityClass>(body),
        // Written by the node itself.
        Kind::Node | Kind::Event => Ok(Vec::new()),
    }
}

fn decode_as<T: DeserializeOwned + Serialize>(body: &Value) -> Result<Vec<Cause>, Cause> {
    let typed = match T::deserialize(body) {
        Ok(typed) => typed,
        Err(error) => {
            let fits = |value: &Value| T::deserialize(value).is_ok();
            let path = culprit(body, &fits);
            return Err((path, format!("Invalid value: {error}")));
        }
    };
    let mut unknown = Vec::new();
    if let Ok(known) = serde_json::to_value(&typed) {
        compare(body, &known, "", &mut unknown);
    }
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
    Ok(warnings)
}

fn child(path: &str, name: &str) -> String {
    match path {
        "" => name.to_owned(),
        path => format!("{path}.{name}"),
    }
}

fn compare(given: &Value, known: &Value, path: &str, unknown: &mut Vec<String>) {
    match (given, known) {
        (Value::Object(given), Value::Object(known)) => {
            for (name, value) in given {
                let path = child(path, name);
                match known.get(name) {
                    Some(known) => compare(value, known, &path, unknown),
                    None if value.is_null() => {}
                    None => unknown.push(path),
                }
            }
        }
        (Value::Array(given), Value::Array(known)) => {
            for (n, (given, known)) in given.iter().zip(known).enumerate() {
                compare(given, known, &format!("{path}[{n}]"), unknown);
            }
        }
        _ => {}
    }
}

/// The path of the first value that does not fit: fields are added one by one, in order, until it
/// fails, and then the same inside the field that made it fail.
fn culprit(body: &Value, fits: &dyn Fn(&Value) -> bool) -> String {
    let empty = match body {
        Value::Object(_) => Value::Object(Map::new()),
        Value::Array(_) => Value::Array(Vec::new()),
        _ => return String::new(),
    };
    // If not even an empty one fits, it is the map or list that is wrong here.
    if !fits(&empty) {
        return String::new();
    }
    let (step, inside): (String, &Value) = match body {
        Value::Object(fields) => {
            let mut grown = Map::new();
            let first = fields.iter().find(|(name, value)| {
                grown.insert((*name).clone(), (*value).clone());
                !fits(&Value::Object(grown.clone()))
            });
            match first {
                Some((name, value)) => (name.clone(), value),
                None => return String::new(),
            }
        }
        Value::Array(items) => {
            // Elements fail or fit by themselves.
            let first = items
                .iter()
                .enumerate()
                .find(|(_, item)| !fits(&Value::Array(vec![(*item).clone()])));
            match first {
                Some((n, value)) => (format!("[{n}]"), value),
                None => return String::new(),
            }
        }
        _ => return String::new(),
    };
    let wrap = |value: &Value| match body {
        Value::Array(_) => Value::Array(vec![value.clone()]),
        _ => Value::Object(Map::from_iter([(step.clone(), value.clone())])),
    };
    let rest = culprit(inside, &|value| fits(&wrap(value)));
    if rest.is_empty() || rest.starts_with('[') {
        step + &rest
    } else {
        child(&step, &rest)
    }
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
        ] {
            let (found, text) = decode(Kind::Pod, &pod).expect_err(path);
            assert_eq!(found, path);
            assert!(text.starts_with("Invalid value: "), "{text}");
        }
        assert!(decode(Kind::Pod, &json!("text")).is_err());
    }
}
