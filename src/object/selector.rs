//! Label and field selectors: `app=web,tier in (a,b),!canary` and `status.phase!=Running`.
//!
//! Sources: apimachinery `pkg/labels/selector.go`, `pkg/fields`; which fields each kind knows:
//! Kubernetes `pkg/apis/core/v1/conversion.go`.

use serde_json::Value;

use super::Kind;
use super::names::{label_value_problem, qualified_name_problem};

/// Requirements of one selector at most: bounds the work of each list and watch.
const REQUIREMENTS_MAX: usize = 256;

/// All requirements must hold; none selects everything.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LabelSelector {
    requirements: Vec<(String, Demand)>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Demand {
    In(Vec<String>),
    /// Also holds where the label is absent.
    NotIn(Vec<String>),
    Exists,
    Absent,
    /// Whole numbers.
    Above(i64),
    Below(i64),
}

impl LabelSelector {
    /// Errors: a text for the user that names what could not be parsed.
    pub fn parse(text: &str) -> Result<LabelSelector, String> {
        let mut requirements = Vec::new();
        for part in split_outside_brackets(text)? {
            let part = part.trim();
            if part.is_empty() {
                if text.trim().is_empty() {
                    break;
                }
                return Err(format!(
                    "unable to parse selector {text:?}: empty requirement"
                ));
            }
            let (key, demand) = requirement(part)?;
            if let Some(problem) = qualified_name_problem(key) {
                // Upstream names no field here.
                return Err(format!("<nil>: Invalid value: {key:?}: {problem}"));
            }
            if let Demand::In(values) | Demand::NotIn(values) = &demand {
                for (at, value) in values.iter().enumerate() {
                    if let Some(problem) = label_value_problem(value) {
                        let field = format!("values[{at}][{key}]");
                        return Err(format!("{field}: Invalid value: {value:?}: {problem}"));
                    }
                }
            }
            requirements.push((key.to_owned(), demand));
        }
        if requirements.len() > REQUIREMENTS_MAX {
            return Err(format!("more than {REQUIREMENTS_MAX} requirements"));
        }
        Ok(LabelSelector { requirements })
    }

    /// Of `matchExpressions` (`key`, `operator`, `values`). `None`: one of them makes no sense.
    pub fn of_expressions(list: &Value) -> Option<LabelSelector> {
        let list = list.as_array().into_iter().flatten();
        let requirements = list.map(|expression| {
            let values = expression["values"].as_array().into_iter().flatten();
            let mut values = values.filter_map(|value| value.as_str().map(str::to_owned));
            let demand = match expression["operator"].as_str()? {
                "In" => Demand::In(values.collect()),
                "NotIn" => Demand::NotIn(values.collect()),
                "Exists" => Demand::Exists,
                "DoesNotExist" => Demand::Absent,
                "Gt" => Demand::Above(values.next()?.parse().ok()?),
                "Lt" => Demand::Below(values.next()?.parse().ok()?),
                _ => return None,
            };
            Some((expression["key"].as_str()?.to_owned(), demand))
        });
        let requirements = requirements.collect::<Option<_>>()?;
        Some(LabelSelector { requirements })
    }

    pub fn is_everything(&self) -> bool {
        self.requirements.is_empty()
    }

    /// Whether an object (whole, with metadata) is selected.
    pub fn matches(&self, object: &Value) -> bool {
        let labels = &object["metadata"]["labels"];
        self.requirements.iter().all(|(key, demand)| {
            let value = labels.get(key).and_then(Value::as_str);
            let among = |values: &[String]| value.is_some_and(|v| values.iter().any(|x| x == v));
            match demand {
                Demand::In(values) => among(values),
                Demand::NotIn(values) => !among(values),
                Demand::Exists => value.is_some(),
                Demand::Absent => value.is_none(),
                Demand::Above(bound) => number(value).is_some_and(|number| number > *bound),
                Demand::Below(bound) => number(value).is_some_and(|number| number < *bound),
            }
        })
    }
}

fn number(label: Option<&str>) -> Option<i64> {
    label?.parse().ok()
}

/// Parts between commas that are in no brackets.
fn split_outside_brackets(text: &str) -> Result<Vec<&str>, String> {
    let mut parts = Vec::new();
    let (mut start, mut inside) = (0, false);
    for (at, c) in text.char_indices() {
        match c {
            '(' if !inside => inside = true,
            ')' if inside => inside = false,
            '(' | ')' => return Err(format!("unable to parse selector {text:?}: stray {c:?}")),
            ',' if !inside => {
                parts.push(&text[start..at]);
                start = at + 1;
            }
            _ => {}
        }
    }
    if inside {
        return Err(format!("unable to parse selector {text:?}: missing ')'"));
    }
    parts.push(&text[start..]);
    Ok(parts)
}

fn requirement(part: &str) -> Result<(&str, Demand), String> {
    if let Some(key) = part.strip_prefix('!') {
        return Ok((key.trim(), Demand::Absent));
    }
    if let Some((head, values)) = part.split_once('(') {
        let values = values
            .strip_suffix(')')
            .ok_or_else(|| format!("unable to parse requirement {part:?}"))?;
        let values = values.split(',').map(|v| v.trim().to_owned()).collect();
        let mut words = head.split_whitespace();
        return match (words.next(), words.next(), words.next()) {
            (Some(key), Some("in"), None) => Ok((key, Demand::In(values))),
            (Some(key), Some("notin"), None) => Ok((key, Demand::NotIn(values))),
            _ => Err(format!("unable to parse requirement {part:?}")),
        };
    }
    match comparison(part) {
        Some((key, Equality::Equal, value)) => Ok((key, Demand::In(vec![value.to_owned()]))),
        Some((key, Equality::Unequal, value)) => Ok((key, Demand::NotIn(vec![value.to_owned()]))),
        None => bounded(part).unwrap_or(Ok((part, Demand::Exists))),
    }
}

/// `key>5`, `key<5`
fn bounded(part: &str) -> Option<Result<(&str, Demand), String>> {
    let at = part.find(['<', '>'])?;
    let (key, bound) = (part[..at].trim(), part[at + 1..].trim());
    let Ok(bound) = bound.parse() else {
        return Some(Err(format!("{part:?}: {bound:?} must be an integer")));
    };
    let demand = match part.as_bytes()[at] {
        b'>' => Demand::Above(bound),
        _ => Demand::Below(bound),
    };
    Some(Ok((key, demand)))
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Equality {
    Equal,
    Unequal,
}

/// `key=value`, `key==value`, `key!=value`
fn comparison(part: &str) -> Option<(&str, Equality, &str)> {
    let (key, value) = part.split_once('=')?;
    if let Some(key) = key.strip_suffix('!') {
        return Some((key.trim(), Equality::Unequal, value.trim()));
    }
    let value = value.strip_prefix('=').unwrap_or(value);
    Some((key.trim(), Equality::Equal, value.trim()))
}

/// Compares fields of an object; all must hold.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FieldSelector {
    requirements: Vec<(String, Equality, String)>,
}

impl FieldSelector {
    /// Errors: a text for the user, for a field that the kind cannot be selected by as upstream says it.
    pub fn parse(kind: Kind, text: &str) -> Result<FieldSelector, String> {
        FieldSelector::parse_as(text, |label| match selects_by(kind, label) {
            true => Ok(label.to_owned()),
            false => Err(unsupported(kind, label)),
        })
    }

    /// The same with names of fields that `stored` turns into the stored kind's.
    pub fn parse_as(
        text: &str,
        stored: impl Fn(&str) -> Result<String, String>,
    ) -> Result<FieldSelector, String> {
        let mut requirements = Vec::new();
        for part in text.split(',').map(str::trim).filter(|p| !p.is_empty()) {
            let (label, equality, value) = comparison(part)
                .ok_or_else(|| format!("invalid selector: {part:?}; can't understand {part:?}"))?;
            requirements.push((stored(label)?, equality, value.to_owned()));
        }
        if requirements.len() > REQUIREMENTS_MAX {
            return Err(format!("more than {REQUIREMENTS_MAX} requirements"));
        }
        Ok(FieldSelector { requirements })
    }

    pub fn is_everything(&self) -> bool {
        self.requirements.is_empty()
    }

    /// The name that is asked for (`metadata.name=x`), if one is.
    pub fn name(&self) -> Option<&str> {
        let asked = self
            .requirements
            .iter()
            .find(|(field, equality, _)| field == "metadata.name" && *equality == Equality::Equal);
        asked.map(|(_, _, name)| name.as_str())
    }

    /// The one value that `field` must have, if the selector asks for that.
    pub fn required_value(&self, field: &str) -> Option<&str> {
        let asked = self
            .requirements
            .iter()
            .find(|(name, equality, _)| name == field && *equality == Equality::Equal);
        asked.map(|(_, _, value)| value.as_str())
    }

    /// Whether an object (whole) is selected.
    pub fn matches(&self, object: &Value) -> bool {
        self.requirements.iter().all(|(field, equality, wanted)| {
            let same = field_text(object, field) == *wanted;
            match equality {
                Equality::Equal => same,
                Equality::Unequal => !same,
            }
        })
    }
}

fn selects_by(kind: Kind, label: &str) -> bool {
    match label {
        "metadata.name" => true,
        // Kinds with fields of their own and no namespace do not list it.
        "metadata.namespace" => !matches!(kind, Kind::Node | Kind::Namespace),
        other => fields_of(kind).contains(&other),
    }
}

fn unsupported(kind: Kind, label: &str) -> String {
    match fields_of(kind) {
        [] => format!(
            "{label:?} is not a known field selector: only \"metadata.name\", \"metadata.namespace\""
        ),
        _ => format!("field label not supported: {label}"),
    }
}

fn fields_of(kind: Kind) -> &'static [&'static str] {
    match kind {
        Kind::Pod => &[
            "spec.host",
            "spec.nodeName",
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
        Kind::Service => &["spec.clusterIP", "spec.type"],
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
        _ => &[],
    }
}

/// A field as text; absent ones are empty, absent flags `false`.
fn field_text(object: &Value, field: &str) -> String {
    match field {
        // Who reports it, for events that have no source.
        "source" => match field_text(object, "source.component") {
            none if none.is_empty() => return field_text(object, "reportingComponent"),
            component => return component,
        },
        // Its name before 1.0, still taken.
        "spec.host" => return field_text(object, "spec.nodeName"),
        "status.podIPs" => return field_text(object, "status.podIP"),
        _ => {}
    }
    let value = field.split('.').try_fold(object, |at, name| at.get(name));
    match (value, field) {
        (None | Some(Value::Null), "spec.hostNetwork" | "spec.unschedulable") => "false".to_owned(),
        (None | Some(Value::Null), _) => String::new(),
        (Some(Value::String(text)), _) => text.clone(),
        (Some(other), _) => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn label_selectors_select_as_upstream() {
        let object =
            json!({"metadata": {"labels": {"app": "web", "tier": "a", "x.io/y": "", "size": "5"}}});
        for (text, expected) in [
            ("", true),
            ("app", true),
            ("app=web", true),
            ("app==web", true),
            ("app!=web", false),
            ("nope!=web", true),
            ("app = web , tier in (a, b)", true),
            ("tier in (b,c)", false),
            ("tier notin (b)", true),
            ("nope notin (b)", true),
            ("!nope", true),
            ("!app", false),
            ("x.io/y=", true),
            ("app=web,nope", false),
            ("size>4", true),
            ("size > 5", false),
            ("size<6,size>-1", true),
            ("app>1", false),
            ("nope<1", false),
        ] {
            let selector = LabelSelector::parse(text).expect(text);
            assert_eq!(selector.matches(&object), expected, "{text}");
        }
        for text in [
            "app in web",
            "app in (a",
            "a)",
            ",",
            "a,,b",
            "-a",
            "app=a b",
            "a in b (c)",
            "size>x",
            ">1",
        ] {
            assert!(LabelSelector::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn field_selectors_select_and_know_their_fields() {
        let pod = json!({
            "metadata": {"name": "web", "namespace": "default"},
            "spec": {"nodeName": "pi"},
            "status": {"phase": "Running"},
        });
        for (text, expected) in [
            ("", true),
            ("metadata.name=web", true),
            ("metadata.name=web,status.phase!=Running", false),
            ("spec.nodeName==pi", true),
            ("spec.hostNetwork=false", true),
            ("status.podIP=", true),
        ] {
            let selector = FieldSelector::parse(Kind::Pod, text).expect(text);
            assert_eq!(selector.matches(&pod), expected, "{text}");
        }
        let unknown =
            "is not a known field selector: only \"metadata.name\", \"metadata.namespace\"";
        for (kind, label, refusal) in [
            (
                Kind::Pod,
                "spec.foo",
                "field label not supported: spec.foo".to_owned(),
            ),
            (
                Kind::Node,
                "metadata.namespace",
                "field label not supported: metadata.namespace".to_owned(),
            ),
            (Kind::ConfigMap, "data.x", format!("\"data.x\" {unknown}")),
            (Kind::PriorityClass, "value", format!("\"value\" {unknown}")),
        ] {
            let refused = FieldSelector::parse(kind, &format!("{label}=x"));
            assert_eq!(refused, Err(refusal), "{kind} {label}");
        }
        let service = json!({"spec": {"clusterIP": "None", "type": "ClusterIP"}});
        let headless = FieldSelector::parse(Kind::Service, "spec.clusterIP=None");
        assert!(headless.expect("known").matches(&service));
        let named = FieldSelector::parse(Kind::Pod, "metadata.name=web").expect("known");
        assert_eq!(named.name(), Some("web"));
        let event = json!({"source": {"component": "kubelet"}});
        let selector = FieldSelector::parse(Kind::Event, "source=kubelet").expect("known");
        assert!(selector.matches(&event));
        assert!(selector.matches(&json!({"reportingComponent": "kubelet"})));
    }
}
