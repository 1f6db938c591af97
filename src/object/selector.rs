//! Label and field selectors: `app=web,tier in (a,b),!canary` and `status.phase!=Running`.
//!
//! Sources: apimachinery `pkg/labels/selector.go`, `pkg/fields`; which fields each kind knows:
//! Kubernetes `pkg/apis/core/v1/conversion.go`.

use std::collections::BTreeSet;

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
        let mut tokens = Tokens { rest: text };
        let begins = |token: &str| token == "!" || is_word(token);
        loop {
            match tokens.peek() {
                "" => break,
                token if begins(token) => {}
                other => return Err(expected(other, "!, identifier, or 'end of string'")),
            }
            let parsed = requirement(&mut tokens);
            requirements.push(parsed.map_err(|why| format!("unable to parse requirement: {why}"))?);
            match (tokens.next(), tokens.peek()) {
                ("", _) => break,
                (",", token) if begins(token) => {}
                (",", other) => return Err(expected(other, "identifier after ','")),
                (other, _) => return Err(expected(other, "',' or 'end of string'")),
            }
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

/// Signs, longer ones before what they begin with.
const SIGNS: [&str; 9] = ["==", "!=", "=", "!", "(", ")", ",", ">", "<"];
const BLANKS: [char; 4] = [' ', '\t', '\r', '\n'];

/// The signs and words of a label selector, and at its end an empty one again and again.
struct Tokens<'a> {
    rest: &'a str,
}

impl<'a> Tokens<'a> {
    fn peek(&self) -> &'a str {
        let rest = self.rest.trim_start_matches(BLANKS);
        if let Some(sign) = SIGNS.iter().find(|sign| rest.starts_with(**sign)) {
            return &rest[..sign.len()];
        }
        let ends = |c: char| BLANKS.contains(&c) || "=!(),><".contains(c);
        &rest[..rest.find(ends).unwrap_or(rest.len())]
    }

    fn next(&mut self) -> &'a str {
        let token = self.peek();
        self.rest = &self.rest.trim_start_matches(BLANKS)[token.len()..];
        token
    }
}

fn is_word(token: &str) -> bool {
    !token.is_empty() && !SIGNS.contains(&token)
}

fn expected(found: &str, what: &str) -> String {
    format!("found '{found}', expected: {what}")
}

fn requirement(tokens: &mut Tokens) -> Result<(String, Demand), String> {
    let mut key = tokens.next();
    let absent = key == "!";
    if absent {
        key = tokens.next();
    }
    if !is_word(key) {
        return Err(expected(key, "identifier"));
    }
    if let Some(problem) = qualified_name_problem(key) {
        // Upstream names no field here.
        return Err(format!("<nil>: Invalid value: {key:?}: {problem}"));
    }
    let demand = match tokens.peek() {
        _ if absent => Demand::Absent,
        "" | "," => Demand::Exists,
        _ => demand(key, tokens)?,
    };
    Ok((key.to_owned(), demand))
}

/// What stands behind the key.
fn demand(key: &str, tokens: &mut Tokens) -> Result<Demand, String> {
    let operator = tokens.next();
    let values = match operator {
        "in" | "notin" => set(tokens)?,
        "=" | "==" | "!=" | ">" | "<" => vec![exact(tokens)?],
        other => return Err(expected(other, "in, notin, =, ==, !=, gt, lt")),
    };
    let bound = match operator {
        ">" | "<" => values[0].parse::<i64>().map_err(|_| {
            let what = "for 'Gt', 'Lt' operators, the value must be an integer";
            format!("values[0]: Invalid value: {:?}: {what}", values[0])
        })?,
        _ => 0,
    };
    for (at, value) in values.iter().enumerate() {
        if let Some(problem) = label_value_problem(value) {
            let field = format!("values[{at}][{key}]");
            return Err(format!("{field}: Invalid value: {value:?}: {problem}"));
        }
    }
    Ok(match operator {
        ">" => Demand::Above(bound),
        "<" => Demand::Below(bound),
        "notin" | "!=" => Demand::NotIn(values),
        _ => Demand::In(values),
    })
}

/// `(a,b)`: each value once, in order; an empty one where none is written.
fn set(tokens: &mut Tokens) -> Result<Vec<String>, String> {
    let (open, first) = (tokens.next(), tokens.peek());
    if open != "(" {
        return Err(format!("found '{open}' expected: '('"));
    }
    if first != "," && first != ")" && !is_word(first) {
        return Err(expected(first, "',', ')' or identifier"));
    }
    let mut values = BTreeSet::new();
    while tokens.peek() != ")" || values.is_empty() {
        match (tokens.next(), tokens.peek()) {
            (word, "," | ")") if is_word(word) => drop(values.insert(word)),
            (word, other) if is_word(word) => return Err(expected(other, "',' or ')'")),
            (",", next) => {
                if values.is_empty() || matches!(next, "," | ")") {
                    values.insert("");
                }
            }
            (")", _) => return Ok(vec![String::new()]),
            (other, _) => return Err(expected(other, "',', or identifier")),
        }
    }
    tokens.next();
    Ok(values.into_iter().map(str::to_owned).collect())
}

fn exact(tokens: &mut Tokens) -> Result<String, String> {
    match tokens.peek() {
        "" | "," => Ok(String::new()),
        word if is_word(word) => Ok(tokens.next().to_owned()),
        other => Err(expected(other, "identifier")),
    }
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
            ("size<6,size>0", true),
            ("tier in (,a)", true),
            ("x.io/y in ()", true),
            ("in in (notin)", false),
            ("app>1", false),
            ("nope<1", false),
        ] {
            let selector = LabelSelector::parse(text).expect(text);
            assert_eq!(selector.matches(&object), expected, "{text}");
        }
    }

    #[test]
    fn what_is_no_label_selector_is_told_as_upstream() {
        for (text, why) in [
            (
                "app in web",
                "unable to parse requirement: found 'web' expected: '('",
            ),
            (
                "app in (a",
                "unable to parse requirement: found '', expected: ',' or ')'",
            ),
            (
                "app in (=)",
                "unable to parse requirement: found '=', expected: ',', ')' or identifier",
            ),
            (
                "app in (a,=)",
                "unable to parse requirement: found '=', expected: ',', or identifier",
            ),
            (
                "a)",
                "unable to parse requirement: found ')', expected: in, notin, =, ==, !=, gt, lt",
            ),
            (
                ",",
                "found ',', expected: !, identifier, or 'end of string'",
            ),
            ("a,,b", "found ',', expected: identifier after ','"),
            ("a,", "found '', expected: identifier after ','"),
            ("app=a b", "found 'b', expected: ',' or 'end of string'"),
            ("!a=b", "found '=', expected: ',' or 'end of string'"),
            (
                "a=(",
                "unable to parse requirement: found '(', expected: identifier",
            ),
            (
                "!",
                "unable to parse requirement: found '', expected: identifier",
            ),
            (
                "a b",
                "unable to parse requirement: found 'b', expected: in, notin, =, ==, !=, gt, lt",
            ),
            (
                "size>x",
                "unable to parse requirement: values[0]: Invalid value: \"x\": for 'Gt', 'Lt' \
                 operators, the value must be an integer",
            ),
            (
                ">1",
                "found '>', expected: !, identifier, or 'end of string'",
            ),
        ] {
            let refused = LabelSelector::parse(text);
            assert_eq!(refused, Err(why.to_owned()), "{text}");
        }
        for text in ["-a", "a=-", "a in (b,-c)"] {
            let refused = LabelSelector::parse(text).expect_err(text);
            assert!(refused.contains(": Invalid value: "), "{refused}");
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
