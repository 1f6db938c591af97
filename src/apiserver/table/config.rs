//! Rows of the small kinds: Secret, ConfigMap, Namespace, ServiceAccount.

use jiff::Timestamp;
use serde_json::Value;

use super::{Column, age, name, plain as column, text_or};

pub const SECRET_COLUMNS: &[Column] = &[
    column("Name"),
    column("Type"),
    column("Data"),
    column("Age"),
];
pub const CONFIG_MAP_COLUMNS: &[Column] = &[column("Name"), column("Data"), column("Age")];
pub const NAMESPACE_COLUMNS: &[Column] = &[column("Name"), column("Status"), column("Age")];
pub const SERVICE_ACCOUNT_COLUMNS: &[Column] = &[column("Name"), column("Age")];

pub fn secret(object: &Value, now: Timestamp) -> Vec<Value> {
    let kind = text_or(&object["type"], "Opaque").into();
    vec![
        name(object),
        kind,
        entries(&object["data"]).into(),
        age(object, now),
    ]
}

pub fn config_map(object: &Value, now: Timestamp) -> Vec<Value> {
    let data = entries(&object["data"]) + entries(&object["binaryData"]);
    vec![name(object), data.into(), age(object, now)]
}

pub fn namespace(object: &Value, now: Timestamp) -> Vec<Value> {
    let phase = text_or(&object["status"]["phase"], "").into();
    vec![name(object), phase, age(object, now)]
}

pub fn service_account(object: &Value, now: Timestamp) -> Vec<Value> {
    vec![name(object), age(object, now)]
}

fn entries(map: &Value) -> usize {
    map.as_object().map_or(0, serde_json::Map::len)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn data_is_counted_and_never_shown() {
        let now = "2026-01-01T01:00:00Z".parse().expect("time");
        let metadata = json!({"name": "x", "creationTimestamp": "2026-01-01T00:00:00Z"});
        let data =
            json!({"metadata": metadata, "type": "Opaque", "data": {"password": "c2VjcmV0"}});
        assert_eq!(
            secret(&data, now),
            [json!("x"), json!("Opaque"), json!(1), json!("60m")]
        );
        let data =
            json!({"metadata": metadata, "data": {"a": "", "b": ""}, "binaryData": {"c": ""}});
        assert_eq!(config_map(&data, now), [json!("x"), json!(3), json!("60m")]);
    }
}
