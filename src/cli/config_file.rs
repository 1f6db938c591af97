//! The file given with `--config`: KubeletConfiguration names where one exists, ours otherwise.
//!
//! Becomes the same settings as the command line's, so both are checked by the same code. An
//! unknown field is an error with file, line and field. Never merges: `options` does.

use serde_json::{Map, Value};

use super::flags::{self, Flag, Shape};
use super::options::{BadValue, Place, Setting};
use crate::manifest::decode::parse_one;
use crate::object::locate::line_of;

/// Reads the text of a configuration file; `path` is for messages only.
pub fn read(path: &str, text: &str) -> Result<Vec<Setting>, BadValue> {
    let value = parse_one(text).map_err(|(line, why)| BadValue(format!("{path}:{line}: {why}")))?;
    let mut reader = Reader {
        path,
        text,
        settings: Vec::new(),
    };
    match value {
        Value::Null => {}
        Value::Object(mut fields) => {
            reader.expect(&mut fields, "apiVersion", "kubelet.config.k8s.io/v1beta1")?;
            reader.expect(&mut fields, "kind", "KubeletConfiguration")?;
            reader.section("", &fields)?;
        }
        _ => return Err(BadValue(format!("{path}:1: not a mapping of fields"))),
    }
    Ok(reader.settings)
}

struct Reader<'a> {
    path: &'a str,
    text: &'a str,
    settings: Vec<Setting>,
}

impl Reader<'_> {
    fn bad(&self, field: &str, why: &str) -> BadValue {
        let line = line_of(self.text, field).unwrap_or(1);
        BadValue(format!("{}:{line}: {field}: {why}", self.path))
    }

    /// Type fields may be left out; another type is not ours to read.
    fn expect(
        &self,
        fields: &mut Map<String, Value>,
        name: &str,
        legal: &str,
    ) -> Result<(), BadValue> {
        match fields.remove(name) {
            Some(value) if value != legal => Err(self.bad(name, &format!("must be {legal}"))),
            _ => Ok(()),
        }
    }

    fn section(&mut self, prefix: &str, fields: &Map<String, Value>) -> Result<(), BadValue> {
        for (name, value) in fields {
            let field = match prefix {
                "" => name.clone(),
                _ => format!("{prefix}.{name}"),
            };
            if let Some(flag) = flags::find_field(&field) {
                self.field(flag, &field, value)?;
            } else if let Some(inner) = value.as_object().filter(|_| is_section(&field)) {
                self.section(&field, inner)?;
            } else {
                return Err(self.bad(&field, &unknown(&field)));
            }
        }
        Ok(())
    }

    fn field(&mut self, flag: &'static Flag, field: &str, value: &Value) -> Result<(), BadValue> {
        // Null is unset, as in every Kubernetes object.
        if value.is_null() {
            return Ok(());
        }
        let texts = texts(flag.shape, value).map_err(|why| self.bad(field, &why))?;
        let place = Place::File {
            path: self.path.to_owned(),
            line: line_of(self.text, field).unwrap_or(1),
            field: field.to_owned(),
        };
        self.settings.extend(texts.into_iter().map(|text| Setting {
            flag,
            text,
            place: place.clone(),
        }));
        Ok(())
    }
}

fn is_section(field: &str) -> bool {
    flags::FLAGS.iter().any(|flag| {
        flag.field
            .strip_prefix(field)
            .is_some_and(|rest| rest.starts_with('.'))
    })
}

fn unknown(field: &str) -> String {
    let legal: Vec<&str> = flags::FLAGS.iter().map(|flag| flag.field).collect();
    let leaf = field.rsplit('.').next().unwrap_or(field).to_lowercase();
    let near = legal.iter().find(|legal| {
        let name = legal.rsplit('.').next().unwrap_or(legal);
        name.to_lowercase() == leaf
    });
    match near {
        Some(near) => format!("unknown field, did you mean {near}?"),
        None => format!("unknown field, legal are {}", legal.join(", ")),
    }
}

/// The value as the flag would have it, once or repeated.
fn texts(shape: Shape, value: &Value) -> Result<Vec<String>, String> {
    match (shape, value) {
        (Shape::Switch, Value::Bool(_)) => Ok(vec![value.to_string()]),
        (Shape::Switch, _) => Err("must be true or false".to_owned()),
        (_, Value::Object(fields)) if shape == Shape::Labels => fields
            .iter()
            .map(|(name, value)| Ok(format!("{name}={}", scalar(value)?)))
            .collect(),
        (_, Value::Object(fields)) if shape == Shape::Limits => fields
            .iter()
            .map(|(name, value)| Ok(format!("{name}<{}", scalar(value)?)))
            .collect(),
        (_, Value::Object(fields)) if shape == Shape::Headers => headers(fields),
        (Shape::Taints, Value::Array(items)) => items.iter().map(taint).collect(),
        (Shape::List | Shape::Labels | Shape::Headers, Value::Array(items)) => {
            items.iter().map(scalar).collect()
        }
        _ => Ok(vec![scalar(value)?]),
    }
}

fn headers(fields: &Map<String, Value>) -> Result<Vec<String>, String> {
    let mut texts = Vec::new();
    for (name, values) in fields {
        match values {
            Value::Array(values) => {
                for value in values {
                    texts.push(format!("{name}:{}", scalar(value)?));
                }
            }
            value => texts.push(format!("{name}:{}", scalar(value)?)),
        }
    }
    Ok(texts)
}

fn taint(item: &Value) -> Result<String, String> {
    let Value::Object(fields) = item else {
        return scalar(item);
    };
    for name in fields.keys() {
        if !["key", "value", "effect", "timeAdded"].contains(&name.as_str()) {
            return Err(format!(
                "unknown field {name} of a taint, legal are key, value, effect"
            ));
        }
    }
    let text = |name: &str| fields.get(name).map_or(Ok(String::new()), scalar);
    Ok(format!(
        "{}={}:{}",
        text("key")?,
        text("value")?,
        text("effect")?
    ))
}

fn scalar(value: &Value) -> Result<String, String> {
    match value {
        Value::String(text) => Ok(text.clone()),
        Value::Number(number) => Ok(number.to_string()),
        Value::Bool(switch) => Ok(switch.to_string()),
        Value::Null | Value::Array(_) | Value::Object(_) => {
            Err("must be a single text or number".to_owned())
        }
    }
}

#[cfg(test)]
#[path = "config_file_tests.rs"]
mod tests;
