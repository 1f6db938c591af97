//! Whether a body has the shape of its kind, by the table that its protobuf form is read by: what
//! typed views check of Pods, for kinds of which nobody needs a typed view. Pure.

use std::cell::RefCell;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use serde::de::{Error as _, Unexpected};
use serde_json::{Error, Map, Value};

use super::protobuf::message_name;
use super::protobuf::table::{Field, Repeat, Table, Type};
use super::{Cause, Kind};

/// Paths of fields that the kind does not have; a null is as good as no field. Errors: the first
/// value that does not fit, and the types that it has and should have.
pub fn check(kind: Kind, body: &Value) -> Result<Vec<String>, Cause> {
    TABLE.with_borrow_mut(|table| check_by(table, kind, body))
}

thread_local! {
    /// The messages that were asked for, a few kB: to look for one costs more than a write else does.
    static TABLE: RefCell<Table> = RefCell::default();
}

fn check_by(table: &mut Table, kind: Kind, body: &Value) -> Result<Vec<String>, Cause> {
    let mut walk = Walk {
        table,
        path: String::new(),
        unknown: Vec::new(),
    };
    let version = kind.api_version();
    let checked = match body {
        Value::Object(fields) => walk.object(
            fields,
            &message_name(&version, kind.name()),
            |name| match name {
                "apiVersion" => Some(version.to_string()),
                "kind" => Some(kind.name().to_owned()),
                _ => None,
            },
        ),
        other => Err(wrong(other, kind.name())),
    };
    match checked {
        Ok(()) => Ok(walk.unknown),
        Err(error) => Err((walk.path, format!("Invalid value: {error}"))),
    }
}

struct Walk<'t> {
    table: &'t mut Table,
    /// Of the value that is looked at.
    path: String,
    unknown: Vec<String>,
}

impl Walk<'_> {
    /// `fixed`: fields of the object itself that are what the kind says.
    fn object(
        &mut self,
        fields: &Map<String, Value>,
        message: &str,
        fixed: impl Fn(&str) -> Option<String>,
    ) -> Result<(), Error> {
        let above = self.path.len();
        for (name, value) in fields {
            let fixed = fixed(name);
            if value.is_null() && fixed.is_none() {
                continue;
            }
            if above > 0 {
                self.path.push('.');
            }
            self.path.push_str(name);
            match (fixed, self.field(message, name)) {
                (Some(text), _) if *value == *text => {}
                (Some(text), _) => return Err(wrong(value, &text)),
                (None, Some((repeat, of))) => self.repeated(value, repeat, of)?,
                (None, None) => self.unknown.push(self.path.clone()),
            }
            self.path.truncate(above);
        }
        Ok(())
    }

    /// A field of a message or of one that is inlined in it.
    fn field(&mut self, message: &str, name: &str) -> Option<(Repeat, Type)> {
        let known = self.table.message(message)?;
        let found = |field: &Field| field.name == name && !name.is_empty();
        if let Some(field) = known.iter().find(|field| found(field)) {
            return Some((field.repeat, field.of));
        }
        let inlined = known.iter().filter(|field| field.name.is_empty());
        inlined.into_iter().find_map(|field| match field.of {
            Type::Message(inlined) => self.field(inlined, name),
            _ => None,
        })
    }

    fn repeated(&mut self, value: &Value, repeat: Repeat, of: Type) -> Result<(), Error> {
        let above = self.path.len();
        match (repeat, value) {
            (Repeat::No, value) => return self.value(value, of),
            (Repeat::List, Value::Array(items)) => {
                for (index, item) in items.iter().enumerate() {
                    self.path.push_str(&format!("[{index}]"));
                    self.value(item, of)?;
                    self.path.truncate(above);
                }
            }
            (Repeat::Map, Value::Object(fields)) => {
                for (name, value) in fields {
                    self.path.push('.');
                    self.path.push_str(name);
                    self.value(value, of)?;
                    self.path.truncate(above);
                }
            }
            (Repeat::List, other) => return Err(wrong(other, "a sequence")),
            (Repeat::Map, other) => return Err(wrong(other, "a map")),
        }
        Ok(())
    }

    fn value(&mut self, value: &Value, of: Type) -> Result<(), Error> {
        let (fits, wanted) = match of {
            Type::Message(message) => match value {
                Value::Object(fields) => return self.object(fields, message, |_| None),
                _ => (false, "an object"),
            },
            Type::Text => (value.is_string(), "a string"),
            Type::Quantity => (value.is_string() || value.is_number(), "a quantity"),
            Type::Bool => (value.is_boolean(), "a boolean"),
            Type::Integer => (value.is_i64(), "an integer"),
            Type::IntOrString => (
                value.is_i64() || value.is_string(),
                "an integer or a string",
            ),
            Type::Bytes => {
                let text = value.as_str();
                let fits = text.is_some_and(|text| STANDARD.decode(text).is_ok());
                (fits || value.is_null(), "base64")
            }
            Type::Time | Type::MicroTime => {
                let text = value.as_str();
                let fits = text.is_some_and(|text| text.parse::<Timestamp>().is_ok());
                (fits, "a time of RFC 3339")
            }
            Type::Texts => return self.repeated(value, Repeat::List, Type::Text),
            Type::Raw => (true, "anything"),
        };
        match fits {
            true => Ok(()),
            false => Err(wrong(value, wanted)),
        }
    }
}

/// In the words of typed views.
fn wrong(value: &Value, wanted: &str) -> Error {
    let found = match value {
        Value::Null => Unexpected::Unit,
        Value::Bool(value) => Unexpected::Bool(*value),
        Value::Number(number) => match (number.as_u64(), number.as_i64()) {
            (Some(number), _) => Unexpected::Unsigned(number),
            (_, Some(number)) => Unexpected::Signed(number),
            _ => Unexpected::Float(number.as_f64().unwrap_or_default()),
        },
        Value::String(text) => Unexpected::Str(text),
        Value::Array(_) => Unexpected::Seq,
        Value::Object(_) => Unexpected::Map,
    };
    Error::invalid_type(found, &wanted)
}

#[cfg(test)]
mod tests;
