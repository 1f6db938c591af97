//! Kubernetes' protobuf form of objects, read into JSON: what clients made from Go's types send,
//! kubectl's `create`, `run`, `drain` and `auth` among them. Answers are JSON; such clients take it.
//!
//! ```text
//!   "k8s\0" ─► Unknown { typeMeta, raw } ─► raw, by the table's line for its kind ─► Value
//! ```
//!
//! Fields that the table does not have are of a newer release and are left out, as every protobuf
//! reader does. Pure. Source: Kubernetes apimachinery, runtime/serializer/protobuf; protobuf's
//! encoding guide; `table.txt` is made by `table.awk`.

pub(super) mod table;
mod wire;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use serde_json::{Map, Value, json};

use self::table::{Field, Presence, Repeat, Table, Type};
use self::wire::{Item, Message};

/// The first bytes of a body.
const MAGIC: &[u8] = b"k8s\0";

/// Most values in one body: a value in memory is far larger than its two bytes on the wire.
const VALUES_MAX: usize = 1 << 17;

/// The object in a body. Errors: what is wrong with it.
pub fn decode(bytes: &[u8]) -> Result<Value, String> {
    let rest = bytes.strip_prefix(MAGIC);
    let rest = rest.ok_or("the body does not begin as Kubernetes' protobuf does")?;
    let (mut type_meta, mut raw): (&[u8], &[u8]) = (&[], &[]);
    for item in Message(rest) {
        match item? {
            (1, Item::Bytes(bytes)) => type_meta = bytes,
            (2, Item::Bytes(bytes)) => raw = bytes,
            _ => {}
        }
    }
    let (mut api_version, mut kind) = ("", "");
    for item in Message(type_meta) {
        match item? {
            (1, Item::Bytes(bytes)) => api_version = text(bytes)?,
            (2, Item::Bytes(bytes)) => kind = text(bytes)?,
            _ => {}
        }
    }
    let mut reader = Reader {
        table: Table::default(),
        values_left: VALUES_MAX,
    };
    let name = message_name(api_version, kind);
    let mut fields = reader
        .message(&name, raw)
        .map_err(|why| format!("{kind} of {api_version:?}: {why}"))?;
    fields.insert("apiVersion".to_owned(), json!(api_version));
    fields.insert("kind".to_owned(), json!(kind));
    Ok(Value::Object(fields))
}

/// The names that a message has in JSON, those of types inlined in it too; for tests.
#[cfg(test)]
pub fn field_names(message: &str) -> Option<Vec<&'static str>> {
    let mut names = Vec::new();
    for field in Table::default().message(message)?.iter() {
        match field.of {
            Type::Message(inline) if field.name.is_empty() => names.extend(field_names(inline)?),
            _ => names.push(field.name),
        }
    }
    Some(names)
}

/// `core.Pod`; options of requests are the same in every group.
pub(super) fn message_name(api_version: &str, kind: &str) -> String {
    let group = api_version.split_once('/').map_or("", |(group, _)| group);
    let package = match (group, kind) {
        (_, "DeleteOptions") => "meta",
        ("", _) => "core",
        (group, _) => group.split('.').next().unwrap_or_default(),
    };
    format!("{package}.{kind}")
}

struct Reader {
    table: Table,
    values_left: usize,
}

impl Reader {
    /// Goes as deep as the kinds nest, which is bounded: none of them contains itself.
    fn message(&mut self, name: &str, bytes: &[u8]) -> Result<Map<String, Value>, String> {
        let known = self.table.message(name).ok_or("no such kind")?;
        let mut fields = Map::new();
        for item in Message(bytes) {
            let (number, item) = item?;
            let Some(field) = known.iter().find(|field| field.number == number) else {
                continue;
            };
            self.values_left = self.values_left.checked_sub(1).ok_or("too many values")?;
            self.field(&mut fields, field, item)?;
        }
        Ok(fields)
    }

    fn field(
        &mut self,
        fields: &mut Map<String, Value>,
        field: &Field,
        item: Item<'_>,
    ) -> Result<(), String> {
        let name = field.name;
        match (field.repeat, &field.of) {
            (Repeat::No, Type::Message(inline)) if name.is_empty() => {
                fields.extend(self.message(inline, bytes_of(item)?)?);
            }
            (Repeat::No, of) => {
                let value = self.value(of, item)?;
                if field.presence.shows(&value) {
                    fields.insert(name.to_owned(), value);
                }
            }
            (Repeat::List, of) => {
                let list = fields.entry(name).or_insert_with(|| json!([]));
                let list = list.as_array_mut().ok_or("a list and no list")?;
                for item in wire::unpacked(of, item) {
                    list.push(self.value(of, item?)?);
                }
            }
            (Repeat::Map, of) => {
                let (mut key, mut value) = ("", None);
                for item in Message(bytes_of(item)?) {
                    match item? {
                        (1, Item::Bytes(bytes)) => key = text(bytes)?,
                        (2, item) => value = Some(self.value(of, item)?),
                        _ => {}
                    }
                }
                let map = fields.entry(name).or_insert_with(|| json!({}));
                map[key] = value.unwrap_or_else(|| json!(""));
            }
        }
        Ok(())
    }

    fn value(&mut self, of: &Type, item: Item<'_>) -> Result<Value, String> {
        Ok(match (of, item) {
            (Type::Text, Item::Bytes(bytes)) => json!(text(bytes)?),
            (Type::Bool, Item::Number(number)) => json!(number != 0),
            // Negative numbers are written as their 64 bits.
            (Type::Integer, Item::Number(number)) => json!(number.cast_signed()),
            (Type::Bytes, Item::Bytes(bytes)) => json!(STANDARD.encode(bytes)),
            (Type::Quantity, Item::Bytes(bytes)) => json!(first_text(bytes)?),
            (Type::Time, Item::Bytes(bytes)) => time(bytes, "%Y-%m-%dT%H:%M:%SZ")?,
            (Type::MicroTime, Item::Bytes(bytes)) => time(bytes, "%Y-%m-%dT%H:%M:%S%.6fZ")?,
            (Type::IntOrString, Item::Bytes(bytes)) => int_or_string(bytes)?,
            (Type::Texts, Item::Bytes(bytes)) => {
                let items = Message(bytes).map(|item| text(bytes_of(item?.1)?).map(Value::from));
                items.collect::<Result<Value, String>>()?
            }
            (Type::Raw, Item::Bytes(bytes)) => {
                let first = Message(bytes).next().transpose()?;
                let raw = first.map_or(Ok::<&[u8], String>(&[]), |(_, item)| bytes_of(item))?;
                serde_json::from_slice(raw).map_err(|error| error.to_string())?
            }
            (Type::Message(name), Item::Bytes(bytes)) => Value::Object(self.message(name, bytes)?),
            _ => return Err("a field of another wire type".to_owned()),
        })
    }
}

impl Presence {
    /// Whether Go's JSON would have it: what is not a pointer is on the wire even if it is empty.
    fn shows(self, value: &Value) -> bool {
        let zero = match value {
            Value::Null => true,
            Value::Bool(value) => !value,
            Value::Number(number) => number.as_i64() == Some(0),
            Value::String(text) => text.is_empty(),
            Value::Object(fields) => fields.is_empty(),
            Value::Array(_) => false,
        };
        match self {
            Presence::Always => true,
            Presence::IfSet => !zero,
        }
    }
}

fn text(bytes: &[u8]) -> Result<&str, String> {
    std::str::from_utf8(bytes).map_err(|_| "a text is not UTF-8".to_owned())
}

fn bytes_of(item: Item<'_>) -> Result<&[u8], String> {
    match item {
        Item::Bytes(bytes) => Ok(bytes),
        Item::Number(_) => Err("a number where a message stands".to_owned()),
    }
}

/// The text in field 1; empty if there is none.
fn first_text(bytes: &[u8]) -> Result<&str, String> {
    match Message(bytes).next().transpose()? {
        Some((1, Item::Bytes(bytes))) => text(bytes),
        _ => Ok(""),
    }
}

/// Seconds and nanoseconds; none of them is no time.
fn time(bytes: &[u8], format: &str) -> Result<Value, String> {
    let (mut seconds, mut nanos) = (0, 0);
    for item in Message(bytes) {
        match item? {
            (1, Item::Number(number)) => seconds = number.cast_signed(),
            (2, Item::Number(number)) => nanos = number.cast_signed(),
            _ => {}
        }
    }
    if (seconds, nanos) == (0, 0) {
        return Ok(Value::Null);
    }
    let nanos = i32::try_from(nanos).map_err(|_| "a time that cannot be")?;
    let at = Timestamp::new(seconds, nanos).map_err(|error| error.to_string())?;
    Ok(json!(at.strftime(format).to_string()))
}

fn int_or_string(bytes: &[u8]) -> Result<Value, String> {
    let (mut is_text, mut number, mut word) = (false, 0, "");
    for item in Message(bytes) {
        match item? {
            (1, Item::Number(kind)) => is_text = kind == 1,
            (2, Item::Number(value)) => number = value.cast_signed(),
            (3, Item::Bytes(bytes)) => word = text(bytes)?,
            _ => {}
        }
    }
    Ok(match is_text {
        true => json!(word),
        false => json!(number),
    })
}

#[cfg(test)]
mod tests;
