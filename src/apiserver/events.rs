//! `events.k8s.io/v1`: the same events as core/v1 shows, under other names of fields, and with
//! stricter rules for what is written. Pure.
//!
//! Source: Kubernetes pkg/apis/events/v1/conversion.go, pkg/apis/core/validation/events.go.

use serde_json::{Value, json};

use super::write::body::Sent;

pub const GROUP: &str = "events.k8s.io";
pub const API_VERSION: &str = "events.k8s.io/v1";

/// What core/v1 calls a field, and what it is here.
const NAMES: [(&str, &str); 7] = [
    ("involvedObject", "regarding"),
    ("message", "note"),
    ("reportingComponent", "reportingController"),
    ("source", "deprecatedSource"),
    ("firstTimestamp", "deprecatedFirstTimestamp"),
    ("lastTimestamp", "deprecatedLastTimestamp"),
    ("count", "deprecatedCount"),
];

/// What stays as it was written, by core's names. Series may change.
const IMMUTABLE: [&str; 13] = [
    "involvedObject",
    "reason",
    "message",
    "source",
    "firstTimestamp",
    "lastTimestamp",
    "count",
    "reportingComponent",
    "reportingInstance",
    "action",
    "type",
    "eventTime",
    "related",
];

const TEXT_BYTES_MAX: usize = 128;
const NOTE_BYTES_MAX: usize = 1024;

/// From the stored form.
pub fn to_view(mut event: Value) -> Value {
    rename(&mut event, |(core, here)| (core, here));
    event["apiVersion"] = json!(API_VERSION);
    event
}

/// To the stored form.
pub fn to_stored(mut event: Value) -> Value {
    rename(&mut event, |(core, here)| (here, core));
    if matches!(event["apiVersion"].as_str(), Some(API_VERSION) | None) && event.is_object() {
        event["apiVersion"] = json!("v1");
    }
    event
}

/// The stored field that a label of a field selector names here. Errors: upstream's words for others.
pub fn stored_label(label: &str) -> Result<String, String> {
    let regarding = [
        "kind",
        "namespace",
        "name",
        "uid",
        "apiVersion",
        "resourceVersion",
        "fieldPath",
    ];
    match (label, label.strip_prefix("regarding.")) {
        ("metadata.name" | "metadata.namespace" | "reason" | "type", _) => Ok(label.to_owned()),
        ("reportingController", _) => Ok("reportingComponent".to_owned()),
        (_, Some(field)) if regarding.contains(&field) => Ok(format!("involvedObject.{field}")),
        _ => Err(format!("field label not supported: {label}")),
    }
}

/// What a client sent in this form, as the stored one. Core's names mean nothing here.
pub fn sent(mut sent: Sent) -> Sent {
    if let Some(fields) = sent.value.as_object_mut() {
        for (core, _) in NAMES {
            if fields.remove(core).is_some() {
                sent.unknown.push(core.to_owned());
            }
        }
    }
    sent.value = to_stored(sent.value);
    sent
}

fn rename(
    event: &mut Value,
    order: fn((&'static str, &'static str)) -> (&'static str, &'static str),
) {
    let Some(fields) = event.as_object_mut() else {
        return;
    };
    for (from, to) in NAMES.map(order) {
        if let Some(value) = fields.remove(from) {
            fields.insert(to.to_owned(), value);
        }
    }
}

/// What is wrong with a new event in stored form: field and text.
pub fn check_new(event: &Value) -> Vec<(String, String)> {
    let mut causes = Vec::new();
    let mut wrong = |field: &str, why: String| causes.push((field.to_owned(), why));
    let required = || "Required value".to_owned();
    if event["eventTime"].is_null() {
        wrong("eventTime", required());
    }
    let series = &event["series"];
    if series.is_object() {
        if series["count"].as_i64().unwrap_or(0) < 2 {
            let why = "Invalid value: \"\": should be at least 2".to_owned();
            wrong("series.count", why);
        }
        if series["lastObservedTime"].is_null() {
            wrong("series.lastObservedTime", required());
        }
    }
    let texts = [
        ("reportingComponent", "reportingController"),
        ("reportingInstance", "reportingInstance"),
        ("action", "action"),
        ("reason", "reason"),
    ];
    for (field, shown) in texts {
        match event[field].as_str().unwrap_or_default() {
            "" => wrong(shown, required()),
            text if text.len() > TEXT_BYTES_MAX && field != "reportingComponent" => {
                let why =
                    format!("Invalid value: \"\": can have at most {TEXT_BYTES_MAX} characters");
                wrong(shown, why);
            }
            _ => {}
        }
    }
    if event["message"].as_str().unwrap_or_default().len() > NOTE_BYTES_MAX {
        let why = format!("Invalid value: \"\": can have at most {NOTE_BYTES_MAX} characters");
        wrong("message", why);
    }
    if !matches!(event["type"].as_str(), Some("Normal" | "Warning")) {
        let why = "Invalid value: \"\": has invalid value: must be Normal or Warning".to_owned();
        wrong("type", why);
    }
    for field in ["firstTimestamp", "lastTimestamp", "count", "source"] {
        let value = &event[field];
        let unset = value.is_null() || *value == 0 || *value == json!({});
        if !unset {
            wrong(field, "Invalid value: \"\": needs to be unset".to_owned());
        }
    }
    causes
}

/// What an update may not do, both in stored form.
pub fn check_update(before: &Value, after: &Value) -> Vec<(String, String)> {
    let empty =
        |value: &Value| value.is_null() || *value == json!({}) || *value == "" || *value == 0;
    let changed = IMMUTABLE.into_iter().filter(|field| {
        let (before, after) = (&before[*field], &after[*field]);
        before != after && !(empty(before) && empty(after))
    });
    let cause = |field: &str| {
        let why = format!("Invalid value: {}: field is immutable", after[field]);
        (field.to_owned(), why)
    };
    changed.map(cause).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event() -> Value {
        json!({
            "apiVersion": API_VERSION,
            "kind": "Event",
            "metadata": {"name": "e", "namespace": "default"},
            "regarding": {"kind": "Pod", "name": "p", "namespace": "default"},
            "note": "text",
            "reason": "Because",
            "action": "Doing",
            "type": "Normal",
            "reportingController": "example.com/c",
            "reportingInstance": "c-1",
            "eventTime": "2026-01-01T00:00:00.000000Z",
        })
    }

    #[test]
    fn both_forms_are_the_same_event() {
        let stored = to_stored(event());
        assert_eq!(stored["involvedObject"]["name"], "p");
        assert_eq!(
            (&stored["message"], &stored["apiVersion"]),
            (&json!("text"), &json!("v1"))
        );
        assert_eq!(to_view(stored), event());
    }

    #[test]
    fn names_of_the_other_form_are_unknown() {
        let mut value = event();
        value["message"] = json!("x");
        let sent = sent(Sent {
            value,
            ..Sent::default()
        });
        assert_eq!(sent.unknown, ["message"]);
        assert_eq!(sent.value["message"], "text");
    }

    #[test]
    fn a_new_event_says_who_what_and_when() {
        assert!(check_new(&to_stored(event())).is_empty());
        let table = [
            ("eventTime", Value::Null, "eventTime"),
            ("reportingController", json!(""), "reportingController"),
            ("action", Value::Null, "action"),
            ("type", json!("Bad"), "type"),
            ("note", json!("x".repeat(1025)), "message"),
            ("deprecatedCount", json!(1), "count"),
            (
                "series",
                json!({"count": 1, "lastObservedTime": "x"}),
                "series.count",
            ),
        ];
        for (field, value, named) in table {
            let mut event = event();
            event[field] = value;
            let causes = check_new(&to_stored(event));
            assert_eq!(causes.len(), 1, "{field}: {causes:?}");
            assert_eq!(causes[0].0, named);
        }
    }

    #[test]
    fn only_the_series_moves_on() {
        let before = to_stored(event());
        let mut after = before.clone();
        after["series"] = json!({"count": 2, "lastObservedTime": "2026-01-01T00:00:01.000000Z"});
        assert!(check_update(&before, &after).is_empty());
        after["reason"] = json!("Other");
        assert_eq!(check_update(&before, &after)[0].0, "reason");
    }
}
