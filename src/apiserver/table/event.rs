//! Rows of events, old and new form alike (`lastTimestamp` or `series`).

use jiff::Timestamp;
use serde_json::Value;

use super::{Column, duration, name, plain, text_or, wide};

pub const COLUMNS: &[Column] = &[
    plain("Last Seen"),
    plain("Type"),
    plain("Reason"),
    plain("Object"),
    wide("Subobject"),
    wide("Source"),
    plain("Message"),
    wide("First Seen"),
    wide("Count"),
    wide("Name"),
];

pub fn cells(event: &Value, now: Timestamp) -> Vec<Value> {
    let text = |value: &Value| Value::from(text_or(value, "").trim());
    vec![
        last_seen(event, now).into(),
        text(&event["type"]),
        text(&event["reason"]),
        object(&event["involvedObject"]).into(),
        text(&event["involvedObject"]["fieldPath"]),
        source(event).into(),
        text(&event["message"]),
        duration::since(first(event), now).into(),
        count(event).into(),
        name(event),
    ]
}

/// When it began.
pub fn first(event: &Value) -> &Value {
    match &event["firstTimestamp"] {
        Value::Null => &event["eventTime"],
        time => time,
    }
}

/// When it happened last.
pub fn last(event: &Value) -> &Value {
    let (series, last) = (
        &event["series"]["lastObservedTime"],
        &event["lastTimestamp"],
    );
    match (series, last) {
        (Value::Null, Value::Null) => first(event),
        (Value::Null, time) | (time, _) => time,
    }
}

/// How often it happened.
pub fn count(event: &Value) -> i64 {
    let counted = event["series"]["count"].as_i64();
    counted.or(event["count"].as_i64()).unwrap_or(0).max(1)
}

fn last_seen(event: &Value, now: Timestamp) -> String {
    duration::since(last(event), now)
}

/// `pod/web`
fn object(involved: &Value) -> String {
    let kind = text_or(&involved["kind"], "").to_ascii_lowercase();
    match text_or(&involved["name"], "") {
        "" => kind,
        name => format!("{kind}/{name}"),
    }
}

/// `kubelet, pi-4`
fn source(event: &Value) -> String {
    let newer = text_or(&event["reportingComponent"], "");
    let component = text_or(&event["source"]["component"], newer);
    let instance = text_or(&event["reportingInstance"], "");
    match text_or(&event["source"]["host"], instance) {
        "" => component.to_owned(),
        host => format!("{component}, {host}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn old_and_new_events_show_the_same_cells() {
        let now = "2026-01-01T00:10:00Z".parse().expect("time");
        let mut event = json!({
            "metadata": {"name": "web.1"}, "type": "Warning", "reason": "BackOff",
            "message": "Back-off restarting\n", "count": 3,
            "involvedObject": {"kind": "Pod", "name": "web", "fieldPath": "spec.containers{web}"},
            "source": {"component": "kubelet", "host": "pi"},
            "firstTimestamp": "2026-01-01T00:00:00Z", "lastTimestamp": "2026-01-01T00:09:00Z",
        });
        let expected = [
            json!("60s"),
            json!("Warning"),
            json!("BackOff"),
            json!("pod/web"),
            json!("spec.containers{web}"),
            json!("kubelet, pi"),
            json!("Back-off restarting"),
            json!("10m"),
            json!(3),
            json!("web.1"),
        ];
        assert_eq!(cells(&event, now), expected);
        event["firstTimestamp"] = Value::Null;
        event["lastTimestamp"] = Value::Null;
        event["count"] = Value::Null;
        event["eventTime"] = json!("2026-01-01T00:00:00.000001Z");
        event["series"] = json!({"count": 3, "lastObservedTime": "2026-01-01T00:09:00.5Z"});
        assert_eq!(cells(&event, now), expected);
    }
}
