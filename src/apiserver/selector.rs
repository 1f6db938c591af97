//! Label and field selectors: parsed from queries, matched against objects. Pure.
//!
//! Source: Kubernetes apimachinery, labels/selector.go and fields/selector.go; field names by kind
//! from registry/core/*/strategy.go.

use serde_json::Value;

use super::status::Refusal;
use crate::object::Kind;

/// Most requirements in one selector.
const REQUIREMENTS_MAX: usize = 256;

#[derive(Clone, Debug, PartialEq, Eq)]
enum Test {
    Exists,
    Missing,
    In(Vec<String>),
    /// Also true where the key is missing.
    NotIn(Vec<String>),
}

/// What a list or watch is narrowed to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Selector {
    labels: Vec<(String, Test)>,
    /// Field path, whether it must be equal, value.
    fields: Vec<(String, Comparison, String)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Comparison {
    Equal,
    Different,
}

impl Selector {
    /// From `labelSelector` and `fieldSelector`. Errors: 400 with what cannot be parsed, or the
    /// field that the kind cannot be selected by.
    pub fn parse(kind: Kind, labels: &str, fields: &str) -> Result<Selector, Refusal> {
        Ok(Selector {
            labels: parse_labels(labels)?,
            fields: parse_fields(kind, fields)?,
        })
    }

    pub fn is_everything(&self) -> bool {
        self.labels.is_empty() && self.fields.is_empty()
    }

    /// Narrows to one name, as a watch on a single object does.
    pub fn and_name(mut self, name: &str) -> Selector {
        let field = "metadata.name".to_owned();
        self.fields
            .push((field, Comparison::Equal, name.to_owned()));
        self
    }

    pub fn matches(&self, object: &Value) -> bool {
        let labels = &object["metadata"]["labels"];
        let label = |(key, test): &(String, Test)| {
            let value = labels.get(key).and_then(Value::as_str);
            match test {
                Test::Exists => value.is_some(),
                Test::Missing => value.is_none(),
                Test::In(set) => value.is_some_and(|value| set.iter().any(|one| one == value)),
                Test::NotIn(set) => value.is_none_or(|value| set.iter().all(|one| one != value)),
            }
        };
        let field = |(path, comparison, wanted): &(String, Comparison, String)| {
            let equal = field_value(object, path) == *wanted;
            equal == (*comparison == Comparison::Equal)
        };
        self.labels.iter().all(label) && self.fields.iter().all(field)
    }
}

fn parse_labels(text: &str) -> Result<Vec<(String, Test)>, Refusal> {
    let broken = |part: &str| {
        Refusal::bad_request(format!("unable to parse requirement: {part:?} in {text:?}"))
    };
    let parts = split_outside_brackets(text);
    if parts.len() > REQUIREMENTS_MAX {
        return Err(broken("too many requirements"));
    }
    parts
        .into_iter()
        .map(|part| {
            let (key, test) = requirement(part).ok_or_else(|| broken(part))?;
            if is_label_key(&key) {
                Ok((key, test))
            } else {
                Err(broken(part))
            }
        })
        .collect()
}

/// Splits at commas that are not inside `( )`; blank parts fall away.
fn split_outside_brackets(text: &str) -> Vec<&str> {
    let mut parts = Vec::new();
    let (mut depth, mut from) = (0_usize, 0);
    for (at, byte) in text.bytes().enumerate() {
        match byte {
            b'(' => depth += 1,
            b')' => depth = depth.saturating_sub(1),
            b',' if depth == 0 => {
                parts.push(&text[from..at]);
                from = at + 1;
            }
            _ => {}
        }
    }
    parts.push(&text[from..]);
    parts.retain(|part| !part.trim().is_empty());
    parts
}

fn requirement(part: &str) -> Option<(String, Test)> {
    let part = part.trim();
    let one = |value: &str| vec![value.trim().to_owned()];
    if let Some(key) = part.strip_prefix('!') {
        return Some((key.trim().to_owned(), Test::Missing));
    }
    if let Some((key, value)) = part.split_once("!=") {
        return Some((key.trim().to_owned(), Test::NotIn(one(value))));
    }
    if let Some((key, value)) = part.split_once("==").or_else(|| part.split_once('=')) {
        return Some((key.trim().to_owned(), Test::In(one(value))));
    }
    let Some((head, set)) = part.split_once('(') else {
        return Some((part.to_owned(), Test::Exists));
    };
    let set = set.strip_suffix(')')?;
    let set = set
        .split(',')
        .map(|value| value.trim().to_owned())
        .collect();
    let (key, operator) = head.trim().rsplit_once(char::is_whitespace)?;
    match operator {
        "in" => Some((key.trim().to_owned(), Test::In(set))),
        "notin" => Some((key.trim().to_owned(), Test::NotIn(set))),
        _ => None,
    }
}

fn is_label_key(key: &str) -> bool {
    let name = key.rsplit('/').next().unwrap_or_default();
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | '/');
    (1..=63).contains(&name.len()) && key.len() <= 317 && key.chars().all(allowed)
}

fn parse_fields(kind: Kind, text: &str) -> Result<Vec<(String, Comparison, String)>, Refusal> {
    let parts = text.split(',').filter(|part| !part.trim().is_empty());
    parts
        .take(REQUIREMENTS_MAX)
        .map(|part| {
            let (path, comparison, value) = if let Some((path, value)) = part.split_once("!=") {
                (path, Comparison::Different, value)
            } else {
                let pair = part.split_once("==").or_else(|| part.split_once('='));
                let (path, value) = pair.ok_or_else(|| {
                    Refusal::bad_request(format!("invalid selector: '{part}'; can't understand it"))
                })?;
                (path, Comparison::Equal, value)
            };
            let path = path.trim();
            if !selectable(kind).contains(&path)
                && !matches!(path, "metadata.name" | "metadata.namespace")
            {
                let text = format!("field label not supported: {path}");
                return Err(Refusal::bad_request(text));
            }
            Ok((path.to_owned(), comparison, value.trim().to_owned()))
        })
        .collect()
}

/// Fields that a kind can be selected by, beyond name and namespace.
fn selectable(kind: Kind) -> &'static [&'static str] {
    match kind {
        Kind::Pod => &[
            "spec.nodeName",
            "spec.host",
            "spec.restartPolicy",
            "spec.schedulerName",
            "spec.serviceAccountName",
            "spec.hostNetwork",
            "status.phase",
            "status.podIP",
            "status.podIPs",
            "status.nominatedNodeName",
        ],
        Kind::Node => &["spec.unschedulable"],
        Kind::Namespace => &["status.phase"],
        Kind::Secret => &["type"],
        Kind::Event => &[
            "involvedObject.kind",
            "involvedObject.namespace",
            "involvedObject.name",
            "involvedObject.uid",
            "involvedObject.apiVersion",
            "involvedObject.resourceVersion",
            "involvedObject.fieldPath",
            "reason",
            "reportingComponent",
            "source",
            "type",
        ],
        Kind::ConfigMap | Kind::ServiceAccount => &[],
    }
}

fn field_value(object: &Value, path: &str) -> String {
    let at = |path: &str| path.split('.').fold(object, |value, name| &value[name]);
    let value = match path {
        "spec.host" => at("spec.nodeName"),
        // Both spellings of who reports an event: newer clients fill only the second.
        "source" if !at("source.component").is_string() => at("reportingComponent"),
        "source" => at("source.component"),
        "status.podIPs" => {
            let ips = at(path).as_array().into_iter().flatten();
            let ips: Vec<&str> = ips.filter_map(|ip| ip["ip"].as_str()).collect();
            return ips.join(",");
        }
        "spec.hostNetwork" | "spec.unschedulable" => {
            return at(path).as_bool().unwrap_or_default().to_string();
        }
        _ => at(path),
    };
    value.as_str().unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn pod() -> Value {
        json!({
            "metadata": {"name": "web", "namespace": "default", "labels": {"app": "web", "tier": "x"}},
            "spec": {"nodeName": "pi", "restartPolicy": "Always"},
            "status": {"phase": "Running", "podIPs": [{"ip": "10.0.0.1"}, {"ip": "fd::1"}]},
        })
    }

    #[test]
    fn label_selectors_match_as_upstream() {
        let table = [
            ("", true),
            ("app=web", true),
            ("app==web,tier = x", true),
            ("app!=web", false),
            ("gone!=web", true),
            ("app", true),
            ("!app", false),
            ("!gone", true),
            ("app in (web, db)", true),
            ("app in (db),tier", false),
            ("app notin (db)", true),
            ("gone notin (db)", true),
            ("gone in (db)", false),
            ("gone=", false),
            ("example.com/app notin (a,b),app in (web)", true),
        ];
        for (text, expected) in table {
            let selector = Selector::parse(Kind::Pod, text, "").expect(text);
            assert_eq!(selector.matches(&pod()), expected, "{text}");
        }
    }

    #[test]
    fn broken_label_selectors_are_refused() {
        for text in [
            "app in web",
            "app in (web",
            "a b",
            "=x",
            "app of (x)",
            "a$b=c",
        ] {
            assert!(Selector::parse(Kind::Pod, text, "").is_err(), "{text}");
        }
    }

    #[test]
    fn field_selectors_match_as_upstream() {
        let table = [
            ("metadata.name=web", true),
            ("metadata.name!=web", false),
            ("metadata.namespace==default,spec.nodeName=pi", true),
            ("spec.host=pi", true),
            ("status.phase!=Running", false),
            ("status.podIP=", true),
            ("status.podIPs=10.0.0.1", false),
            ("spec.hostNetwork=false", true),
        ];
        for (text, expected) in table {
            let selector = Selector::parse(Kind::Pod, "", text).expect(text);
            assert_eq!(selector.matches(&pod()), expected, "{text}");
        }
    }

    #[test]
    fn a_field_that_cannot_be_selected_by_is_named() {
        let refused = Selector::parse(Kind::ConfigMap, "", "data.x=1").expect_err("must refuse");
        assert_eq!(refused.message, "field label not supported: data.x");
        assert!(Selector::parse(Kind::Pod, "", "metadata.name").is_err());
    }
}
