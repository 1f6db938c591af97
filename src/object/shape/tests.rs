//! Each kind as the table has it, against what its typed view says of the same bodies.

use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1;
use k8s_openapi::api::scheduling::v1::PriorityClass;
use serde_json::json;

use super::*;
use crate::object::view;

fn by_view(kind: Kind, body: &Value) -> Result<Vec<String>, String> {
    fn verdict<T: serde::de::DeserializeOwned>(body: &Value) -> Result<Vec<String>, String> {
        view::<T>(body)
            .map(|(_, unknown)| unknown)
            .map_err(|(path, _)| path)
    }
    match kind {
        Kind::Pod => verdict::<v1::Pod>(body),
        Kind::ConfigMap => verdict::<v1::ConfigMap>(body),
        Kind::Secret => verdict::<v1::Secret>(body),
        Kind::ServiceAccount => verdict::<v1::ServiceAccount>(body),
        Kind::Namespace => verdict::<v1::Namespace>(body),
        Kind::Service => verdict::<v1::Service>(body),
        Kind::Endpoints => verdict::<v1::Endpoints>(body),
        Kind::LimitRange => verdict::<v1::LimitRange>(body),
        Kind::ResourceQuota => verdict::<v1::ResourceQuota>(body),
        Kind::Lease => verdict::<Lease>(body),
        Kind::PriorityClass => verdict::<PriorityClass>(body),
        Kind::Node => verdict::<v1::Node>(body),
        Kind::Event => verdict::<v1::Event>(body),
    }
}

/// A value of this type.
fn sample(table: &mut Table, of: Type) -> Value {
    match of {
        Type::Text => json!("text"),
        Type::Bool => json!(true),
        Type::Integer => json!(7),
        Type::Bytes => json!("AP8="),
        Type::Quantity => json!("100m"),
        Type::Time => json!("2026-01-02T03:04:05Z"),
        Type::MicroTime => json!("2026-01-02T03:04:05.000006Z"),
        Type::IntOrString => json!("http"),
        Type::Texts => json!(["text"]),
        Type::Raw => json!({"f:data": {}}),
        Type::Message(name) => {
            let mut fields = Map::new();
            for field in table.message(name).expect("in the table").iter() {
                let value = sample(table, field.of);
                match (field.repeat, value) {
                    (Repeat::No, Value::Object(inlined)) if field.name.is_empty() => {
                        fields.extend(inlined);
                    }
                    (Repeat::No, value) => drop(fields.insert(field.name.into(), value)),
                    (Repeat::List, value) => drop(fields.insert(field.name.into(), json!([value]))),
                    (Repeat::Map, value) => {
                        drop(fields.insert(field.name.into(), json!({"key": value})));
                    }
                }
            }
            Value::Object(fields)
        }
    }
}

/// Pointers to everything below a value.
fn pointers(value: &Value, at: &str, all: &mut Vec<String>) {
    let below: Vec<(String, &Value)> = match value {
        Value::Object(fields) => fields
            .iter()
            .map(|(k, v)| (k.replace('/', "~1"), v))
            .collect(),
        Value::Array(items) => items
            .iter()
            .enumerate()
            .map(|(i, v)| (i.to_string(), v))
            .collect(),
        _ => Vec::new(),
    };
    for (step, value) in below {
        let at = format!("{at}/{step}");
        pointers(value, &at, all);
        all.push(at);
    }
}

#[test]
fn every_field_of_every_kind_is_known_and_a_wrong_one_is_named_as_by_its_typed_view() {
    let mut table = Table::default();
    let (mut wrong, mut unlike) = (0, Vec::new());
    for kind in Kind::ALL.into_iter().filter(|kind| *kind != Kind::Pod) {
        let message = message_name(&kind.api_version(), kind.name());
        let name: &'static str = message.leak();
        let mut body = sample(&mut table, Type::Message(name));
        body["apiVersion"] = json!(kind.api_version());
        body["kind"] = json!(kind.name());
        assert_eq!(check(kind, &body), Ok(Vec::new()), "{kind}");
        // Fields of later releases, which the table has and the types have not.
        for path in by_view(kind, &body).expect("all fits") {
            let pointer = path.replace('[', ".").replace(']', "").replace('.', "/");
            let (above, name) = pointer.rsplit_once('/').expect("not the whole");
            let above = body.pointer_mut(&format!("/{above}")).expect("there");
            above.as_object_mut().expect("fields").remove(name);
        }
        assert_eq!(by_view(kind, &body), Ok(Vec::new()), "{kind}");

        let mut all = Vec::new();
        pointers(&body, "", &mut all);
        // Of which the type wants all fields; the server writes them.
        all.retain(|pointer| !pointer.starts_with("/status/conditions/0") || kind == Kind::Node);
        for pointer in all {
            for other in [
                json!(null),
                json!("x"),
                json!(-1),
                json!([]),
                json!({"zzz": 1}),
                json!(1.5),
            ] {
                let mut changed = body.clone();
                *changed.pointer_mut(&pointer).expect("there") = other.clone();
                let verdict = check(kind, &changed).map_err(|(path, _)| path);
                wrong += usize::from(verdict.is_err());
                let typed = by_view(kind, &changed);
                if verdict != typed {
                    unlike.push(format!(
                        "{kind} {pointer} {other}: {verdict:?}, not {typed:?}"
                    ));
                }
            }
        }
    }
    assert_eq!(unlike, Vec::<String>::new());
    assert!(wrong > 1000, "{wrong}");
}

#[test]
fn what_is_wrong_is_said_in_the_words_of_typed_views() {
    for (body, path, text) in [
        (
            json!({"data": {"a": 1}}),
            "data.a",
            "invalid type: integer `1`, expected a string",
        ),
        (
            json!({"data": []}),
            "data",
            "invalid type: sequence, expected a map",
        ),
        (
            json!({"kind": "Pod"}),
            "kind",
            "invalid type: string \"Pod\", expected ConfigMap",
        ),
        (
            json!({"binaryData": {"a": "%"}}),
            "binaryData.a",
            "invalid type: string \"%\", expected base64",
        ),
        (
            json!("text"),
            "",
            "invalid type: string \"text\", expected ConfigMap",
        ),
    ] {
        let cause = (path.to_owned(), format!("Invalid value: {text}"));
        assert_eq!(check(Kind::ConfigMap, &body), Err(cause));
    }
}
