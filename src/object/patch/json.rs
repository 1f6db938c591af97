//! JSON patch: a list of add, remove, replace, move, copy and test. RFC 6902, RFC 6901.
//!
//! As upstream's library does, and wider than the RFC: indices may be negative (from the end),
//! `replace` makes a missing member, an absent `value` is `null`, and a test for `null` holds where
//! there is no member. The whole document is only ever replaced or tested. Source: Kubernetes
//! apiserver, endpoints/handlers/patch.go; evanphx/json-patch v4.

use std::io;

use serde_json::Value;

use super::PatchError;

/// Operations of one patch. Source: `maxJSONPatchOperations`.
const OPERATIONS_MAX: usize = 10_000;
/// Bytes that all copies of one patch may add. Source: apiserver, `JSONPatchMaxCopyBytes`.
const COPY_BYTES_MAX: usize = 3 * 1024 * 1024;
/// List elements that one patch may push aside; bounds the time that long lists take.
const SHIFTS_MAX: usize = 20_000_000;
/// Depth of the result: what the parser of a request body accepts.
const DEPTH_MAX: usize = 127;

/// Applies all operations, or none. Errors: `Malformed` if `patch` is no list of operations,
/// `TooLarge` for too many, `Rejected` for one that does not fit, with its path.
pub fn json_patch(object: Value, patch: &Value) -> Result<Value, PatchError> {
    let Value::Array(operations) = patch else {
        let text = "json patch: expected a list of operations";
        return Err(PatchError::Malformed(text.to_owned()));
    };
    if operations.len() > OPERATIONS_MAX {
        return Err(PatchError::TooLarge(format!(
            "The allowed maximum operations in a JSON patch is {OPERATIONS_MAX}, got {}",
            operations.len()
        )));
    }
    let mut document = Document {
        root: object,
        copied_bytes: 0,
        shifted: 0,
    };
    for operation in operations {
        if !operation.is_object() {
            let text = format!("json patch: {operation} is no operation");
            return Err(PatchError::Malformed(text));
        }
        document.apply(operation).map_err(PatchError::Rejected)?;
    }
    Ok(document.root)
}

struct Document {
    root: Value,
    copied_bytes: usize,
    shifted: usize,
}

/// `/spec/containers/0`, split into its parent's tokens and its last one.
struct Pointer<'a> {
    text: &'a str,
    parents: Vec<String>,
    last: String,
}

impl<'a> Pointer<'a> {
    fn of(operation: &'a Value, field: &str, kind: &str) -> Result<Pointer<'a>, String> {
        let text = operation[field].as_str();
        let text = text.ok_or_else(|| format!("{kind} operation: missing {field} field"))?;
        let missing = || format!("{kind} operation does not apply: doc is missing path: {text:?}");
        let tokens = text.strip_prefix('/').ok_or_else(missing)?;
        let unescape = |token: &str| token.replace("~1", "/").replace("~0", "~");
        let mut parents: Vec<String> = tokens.split('/').map(unescape).collect();
        let last = parents.pop().ok_or_else(missing)?;
        Ok(Pointer {
            text,
            parents,
            last,
        })
    }

    fn depth(&self) -> usize {
        self.parents.len() + 1
    }
}

impl Document {
    fn apply(&mut self, operation: &Value) -> Result<(), String> {
        let kind = operation["op"].as_str().unwrap_or("unknown");
        let whole = operation["path"] == "";
        let value = &operation["value"];
        match kind {
            "replace" if whole && value.is_object() => self.root = value.clone(),
            "replace" if whole => return Err("replace operation: value must be an object".into()),
            "test" if whole => return tested(Some(&self.root), value, ""),
            "test" => {
                let path = Pointer::of(operation, "path", kind)?;
                let found = member(self.parent(&path, kind)?, &path, kind)?;
                return tested(found, value, path.text);
            }
            "add" => self.add(&Pointer::of(operation, "path", kind)?, kind, value.clone())?,
            "remove" => {
                self.remove(&Pointer::of(operation, "path", kind)?, kind)?;
            }
            "replace" => {
                let path = Pointer::of(operation, "path", kind)?;
                self.check_depth(&path, value)?;
                replace(self.parent(&path, kind)?, &path, kind, value.clone())?;
            }
            "move" => {
                let from = Pointer::of(operation, "from", kind)?;
                let path = Pointer::of(operation, "path", kind)?;
                let value = self.remove(&from, kind)?;
                if path.depth() > from.depth() {
                    // To measure a deeper place costs what a copy costs.
                    self.charge(&value)?;
                    self.check_depth(&path, &value)?;
                }
                self.insert(&path, kind, value)?;
            }
            "copy" => {
                let from = Pointer::of(operation, "from", kind)?;
                let path = Pointer::of(operation, "path", kind)?;
                let found = member(self.parent(&from, kind)?, &from, kind)?;
                let value = found.ok_or_else(|| missing(kind, &from))?.clone();
                self.charge(&value)?;
                self.add(&path, kind, value)?;
            }
            other => return Err(format!("Unexpected kind: {other}")),
        }
        Ok(())
    }

    /// The map or list that holds the last token.
    fn parent(&mut self, path: &Pointer, kind: &str) -> Result<&mut Value, String> {
        let mut at = &mut self.root;
        for token in &path.parents {
            let next = match at {
                Value::Object(fields) => fields.get_mut(token),
                Value::Array(items) => {
                    index(token, items.len()).and_then(|index| items.get_mut(index))
                }
                _ => None,
            };
            at = next.ok_or_else(|| missing(kind, path))?;
        }
        if at.is_object() || at.is_array() {
            Ok(at)
        } else {
            Err(missing(kind, path))
        }
    }

    fn add(&mut self, path: &Pointer, kind: &str, value: Value) -> Result<(), String> {
        self.check_depth(path, &value)?;
        self.insert(path, kind, value)
    }

    fn insert(&mut self, path: &Pointer, kind: &str, value: Value) -> Result<(), String> {
        let mut shifted = 0;
        match self.parent(path, kind)? {
            Value::Object(fields) => {
                fields.insert(path.last.clone(), value);
            }
            Value::Array(items) if path.last == "-" => items.push(value),
            Value::Array(items) => {
                // One place more than there are elements: behind the last.
                let at = index(&path.last, items.len() + 1).ok_or_else(|| bad_index(kind, path))?;
                shifted = items.len() - at;
                items.insert(at, value);
            }
            _ => unreachable!("a parent is a map or a list"),
        }
        self.shift(shifted)
    }

    fn remove(&mut self, path: &Pointer, kind: &str) -> Result<Value, String> {
        let mut shifted = 0;
        let removed = match self.parent(path, kind)? {
            Value::Object(fields) => fields.remove(&path.last).ok_or_else(|| {
                let (path, key) = (path.text, &path.last);
                format!(
                    "error in {kind} for path: '{path}': Unable to remove nonexistent key: {key}"
                )
            })?,
            Value::Array(items) => {
                let at = index(&path.last, items.len()).ok_or_else(|| bad_index(kind, path))?;
                shifted = items.len() - at;
                items.remove(at)
            }
            _ => unreachable!("a parent is a map or a list"),
        };
        self.shift(shifted)?;
        Ok(removed)
    }

    fn shift(&mut self, elements: usize) -> Result<(), String> {
        self.shifted += elements;
        if self.shifted > SHIFTS_MAX {
            return Err(format!(
                "Unable to push aside more than {SHIFTS_MAX} list elements"
            ));
        }
        Ok(())
    }

    /// Counts the bytes of `value` against what copies may add.
    fn charge(&mut self, value: &Value) -> Result<(), String> {
        let mut count = Count(0);
        serde_json::to_writer(&mut count, value).expect("a Value is JSON, and a counter takes it");
        self.copied_bytes += count.0;
        if self.copied_bytes > COPY_BYTES_MAX {
            return Err(format!(
                "Unable to complete the copy, the accumulated size increase of copy is {}, \
                 exceeding the limit {COPY_BYTES_MAX}",
                self.copied_bytes
            ));
        }
        Ok(())
    }

    fn check_depth(&self, path: &Pointer, value: &Value) -> Result<(), String> {
        // Deep places are rejected before their value is looked at, which bounds the recursion.
        if path.depth() + depth(value, DEPTH_MAX) > DEPTH_MAX {
            let path = path.text.chars().take(64).collect::<String>();
            return Err(format!("{path}: nested deeper than {DEPTH_MAX}"));
        }
        Ok(())
    }
}

struct Count(usize);

impl io::Write for Count {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0 += bytes.len();
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Levels of maps and lists, at most `max` of them counted.
fn depth(value: &Value, max: usize) -> usize {
    let deepest = |values: &mut dyn Iterator<Item = &Value>| {
        1 + values.map(|value| depth(value, max - 1)).max().unwrap_or(0)
    };
    match value {
        _ if max == 0 => 0,
        Value::Object(fields) => deepest(&mut fields.values()),
        Value::Array(items) => deepest(&mut items.iter()),
        _ => 0,
    }
}

/// A list index below `length`; negative ones count from the end.
fn index(token: &str, length: usize) -> Option<usize> {
    let number: i64 = token.parse().ok()?;
    let length = i64::try_from(length).ok()?;
    let at = if number < 0 { number + length } else { number };
    usize::try_from(at).ok().filter(|_| at < length)
}

/// `Ok(None)` for a map without that member. Errors: no such index.
fn member<'a>(
    parent: &'a mut Value,
    path: &Pointer,
    kind: &str,
) -> Result<Option<&'a Value>, String> {
    match parent {
        Value::Object(fields) => Ok(fields.get(&path.last)),
        Value::Array(items) => match index(&path.last, items.len()) {
            Some(at) => Ok(Some(&items[at])),
            None => Err(bad_index(kind, path)),
        },
        _ => unreachable!("a parent is a map or a list"),
    }
}

fn replace(parent: &mut Value, path: &Pointer, kind: &str, value: Value) -> Result<(), String> {
    match parent {
        Value::Object(fields) => {
            fields.insert(path.last.clone(), value);
        }
        Value::Array(items) => {
            let at = index(&path.last, items.len()).ok_or_else(|| bad_index(kind, path))?;
            items[at] = value;
        }
        _ => unreachable!("a parent is a map or a list"),
    }
    Ok(())
}

fn tested(found: Option<&Value>, value: &Value, path: &str) -> Result<(), String> {
    if found.unwrap_or(&Value::Null) == value {
        return Ok(());
    }
    Err(format!("testing value {path} failed: test failed"))
}

fn missing(kind: &str, path: &Pointer) -> String {
    format!(
        "{kind} operation does not apply: doc is missing path: {:?}",
        path.text
    )
}

fn bad_index(kind: &str, path: &Pointer) -> String {
    let (path, index) = (path.text, &path.last);
    format!("error in {kind} for path: '{path}': Unable to access invalid index: {index}")
}

#[cfg(test)]
#[path = "json_tests.rs"]
pub(super) mod tests;
