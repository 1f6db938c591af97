//! A place in an object, and the list of what is wrong.

use std::fmt::Display;

use serde_json::Value;

use super::Cause;

/// A value and the path that leads to it. What is absent is null.
pub(super) struct At<'a> {
    pub value: &'a Value,
    pub path: String,
}

impl<'a> At<'a> {
    pub fn top(value: &'a Value) -> At<'a> {
        let path = String::new();
        At { value, path }
    }

    pub fn get(&self, name: &str) -> At<'a> {
        let path = match self.path.as_str() {
            "" => name.to_owned(),
            path => format!("{path}.{name}"),
        };
        let value = self.value.get(name).unwrap_or(&Value::Null);
        At { value, path }
    }

    /// The elements of a list; none if it is absent.
    pub fn items(&self, name: &str) -> Vec<At<'a>> {
        let list = self.get(name);
        let items = list.value.as_array().into_iter().flatten().enumerate();
        items
            .map(|(n, value)| At {
                value,
                path: format!("{}[{n}]", list.path),
            })
            .collect()
    }

    /// The entries of a map; their paths are `labels[key]`.
    pub fn entries(&self, name: &str) -> Vec<(&'a str, At<'a>)> {
        let map = self.get(name);
        let entries = map.value.as_object().into_iter().flatten();
        entries
            .map(|(key, value)| {
                let path = format!("{}[{key}]", map.path);
                (key.as_str(), At { value, path })
            })
            .collect()
    }

    pub fn is_set(&self) -> bool {
        !self.value.is_null()
    }

    /// Empty if absent.
    pub fn text(&self) -> &'a str {
        self.value.as_str().unwrap_or_default()
    }

    pub fn number(&self) -> Option<i64> {
        self.value.as_i64()
    }

    /// False if absent.
    pub fn is_true(&self) -> bool {
        self.value.as_bool().unwrap_or_default()
    }

    /// The names in `of` that are set here.
    pub fn set_of<'n>(&self, of: &[&'n str]) -> Vec<&'n str> {
        let set = |name: &&&str| self.get(name).is_set();
        of.iter().filter(set).copied().collect()
    }
}

/// Collects causes in upstream's words.
#[derive(Default)]
pub(super) struct Report {
    pub causes: Vec<Cause>,
}

impl Report {
    fn add(&mut self, at: &At<'_>, text: String) {
        self.causes.push((at.path.clone(), text));
    }

    pub fn required(&mut self, at: &At<'_>) {
        self.add(at, "Required value".to_owned());
    }

    pub fn required_since(&mut self, at: &At<'_>, why: impl Display) {
        self.add(at, format!("Required value: {why}"));
    }

    pub fn invalid(&mut self, at: &At<'_>, why: impl Display) {
        let value = match at.value {
            Value::Null => "null".to_owned(),
            value => value.to_string(),
        };
        self.add(at, format!("Invalid value: {value}: {why}"));
    }

    pub fn forbidden(&mut self, at: &At<'_>, why: impl Display) {
        self.add(at, format!("Forbidden: {why}"));
    }

    pub fn duplicate(&mut self, at: &At<'_>, value: &str) {
        self.add(at, format!("Duplicate value: {value:?}"));
    }

    pub fn not_found(&mut self, at: &At<'_>) {
        self.add(at, format!("Not found: {}", at.value));
    }

    pub fn too_long(&mut self, at: &At<'_>, bytes_max: usize) {
        self.add(
            at,
            format!("Too long: may not be more than {bytes_max} bytes"),
        );
    }

    /// The text must be one of `supported` (in alphabetical order).
    pub fn one_of(&mut self, at: &At<'_>, supported: &[&str]) {
        if at.text().is_empty() {
            self.required(at);
        } else if !supported.contains(&at.text()) {
            let quoted: Vec<String> = supported.iter().map(|s| format!("{s:?}")).collect();
            let list = quoted.join(", ");
            self.add(
                at,
                format!("Unsupported value: {}: supported values: {list}", at.value),
            );
        }
    }

    /// As `one_of`, where absence is fine.
    pub fn one_of_if_set(&mut self, at: &At<'_>, supported: &[&str]) {
        if !at.text().is_empty() {
            self.one_of(at, supported);
        }
    }

    /// A text that must be there and pass `check`.
    pub fn name(&mut self, at: &At<'_>, check: fn(&str) -> Option<String>) {
        if at.text().is_empty() {
            self.required(at);
        } else {
            self.name_if_set(at, check);
        }
    }

    pub fn name_if_set(&mut self, at: &At<'_>, check: fn(&str) -> Option<String>) {
        if !at.text().is_empty()
            && let Some(problem) = check(at.text())
        {
            self.invalid(at, problem);
        }
    }

    /// A number, if there is one, that must lie within bounds.
    pub fn between(&mut self, at: &At<'_>, low: i64, high: i64) {
        if at.number().is_some_and(|n| !(low..=high).contains(&n)) {
            self.invalid(at, format!("must be between {low} and {high}, inclusive"));
        }
    }

    pub fn not_negative(&mut self, at: &At<'_>) {
        if at.number().is_some_and(|n| n < 0) {
            self.invalid(at, "must be greater than or equal to 0");
        }
    }

    /// A relative path below something: no `..`.
    pub fn inner_path(&mut self, at: &At<'_>) {
        if at.text().starts_with('/') {
            self.invalid(at, "must be a relative path");
        }
        self.no_parent(at);
    }

    pub fn no_parent(&mut self, at: &At<'_>) {
        if at.text().split('/').any(|part| part == "..") {
            self.invalid(at, "must not contain '..'");
        }
    }

    /// A port's number or name.
    pub fn port(&mut self, at: &At<'_>) {
        if at.value.is_string() {
            self.name(at, crate::object::names::port_name_problem);
        } else {
            match at.number() {
                None => self.required(at),
                Some(_) => self.between(at, 1, 65535),
            }
        }
    }
}
