//! Objects at rest: their text, and beside it what is asked of every one.
//!
//! A `serde_json` map takes at least 632 bytes, however little is in it, so a value is about ten
//! times its text. The registry keeps text, makes a value of it for who wants one, and what is
//! served is the text itself.
//!
//! ```text
//!   {"apiVersion":"v1","kind":"Pod","metadata":{▲"name":"web"…},"spec":{…}▲}
//!                                               └ resourceVersion         └ status
//! ```
//!
//! Versions that differ in status only share all the rest.

use std::fmt::Write as _;
use std::io::Write as _;
use std::mem::size_of;
use std::sync::Arc;

use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::{Change, ChangeType};
use crate::object::{Key, Object, Provenance, Source, Standing};

const METADATA: &str = "\"metadata\":{";

/// One version of an object. Immutable; shared by `Arc`.
#[derive(Clone, Debug, PartialEq)]
pub struct Packed {
    stated: Arc<Stated>,
    /// As text, if the object has one.
    status: Option<Arc<str>>,
    resource_version: u64,
}

/// All that does not change with a status.
#[derive(Debug, PartialEq)]
struct Stated {
    key: Key,
    source: Source,
    provenance: Option<Provenance>,
    standing: Standing,
    uid: Box<str>,
    deleting: bool,
    /// The body without status and resourceVersion; `metadata` comes after kind and apiVersion.
    text: Box<str>,
    /// Where `"metadata"` begins in the text.
    metadata_at: usize,
}

impl Packed {
    pub(super) fn new(object: Object) -> Packed {
        let uid = object.uid().into();
        let deleting = object.is_deleting();
        let mut fields = match object.body {
            Value::Object(fields) => fields,
            _ => Map::new(),
        };
        let status = fields.remove("status");
        let (text, metadata_at) = text_of(fields);
        Packed {
            stated: Arc::new(Stated {
                key: object.key,
                source: object.source,
                provenance: object.provenance,
                standing: object.standing,
                uid,
                deleting,
                text,
                metadata_at,
            }),
            status: status.map(|status| status.to_string().into()),
            resource_version: object.resource_version,
        }
    }

    pub fn key(&self) -> &Key {
        &self.stated.key
    }

    pub fn source(&self) -> Source {
        self.stated.source
    }

    pub fn provenance(&self) -> Option<&Provenance> {
        self.stated.provenance.as_ref()
    }

    pub fn standing(&self) -> &Standing {
        &self.stated.standing
    }

    pub fn uid(&self) -> &str {
        &self.stated.uid
    }

    pub fn is_deleting(&self) -> bool {
        self.stated.deleting
    }

    pub fn resource_version(&self) -> u64 {
        self.resource_version
    }

    /// All but the status, which would be kept for nothing.
    pub fn without_status(&self) -> Packed {
        Packed {
            status: None,
            ..self.clone()
        }
    }

    /// The object with its body as a value, as it went in.
    pub fn unpack(&self) -> Object {
        let stated = &*self.stated;
        let body = serde_json::from_str(&stated.text);
        let mut body: Value = body.expect("a value written as text is read back");
        body["metadata"]["resourceVersion"] = json!(self.resource_version.to_string());
        if self.status.is_some() {
            body["status"] = self.status();
        }
        Object {
            key: stated.key.clone(),
            source: stated.source,
            provenance: stated.provenance.clone(),
            standing: stated.standing.clone(),
            resource_version: self.resource_version,
            body,
        }
    }

    /// `metadata` alone, but for its resourceVersion: a fraction of the work of `unpack`.
    pub fn metadata(&self) -> Value {
        #[derive(Deserialize)]
        struct Part {
            metadata: Value,
        }
        let part: Result<Part, _> = serde_json::from_str(&self.stated.text);
        part.map_or(Value::Null, |part| part.metadata)
    }

    /// Whether both are certain to differ in nothing but status and version. Cheap; `false` proves
    /// nothing.
    pub fn shares_all_but_status(&self, other: &Packed) -> bool {
        Arc::ptr_eq(&self.stated, &other.stated)
    }

    /// Appends the whole object as JSON.
    pub fn write_object(&self, out: &mut Vec<u8>) {
        self.write_from(0, out);
    }

    /// Appends the object as upstream's typed lists have it: without `kind` and `apiVersion`.
    pub fn write_item(&self, out: &mut Vec<u8>) {
        out.push(b'{');
        self.write_from(self.stated.metadata_at, out);
    }

    fn write_from(&self, from: usize, out: &mut Vec<u8>) {
        let text = &self.stated.text;
        let inside = self.stated.metadata_at + METADATA.len();
        let (head, tail) = text.split_at(inside);
        out.extend_from_slice(&head.as_bytes()[from..]);
        let version = self.resource_version;
        write!(out, "\"resourceVersion\":\"{version}\"").expect("a vector takes all");
        if !tail.starts_with('}') {
            out.push(b',');
        }
        out.extend_from_slice(&tail.as_bytes()[..tail.len() - 1]);
        if let Some(status) = &self.status {
            out.extend_from_slice(b",\"status\":");
            out.extend_from_slice(status.as_bytes());
        }
        out.push(b'}');
    }

    /// The same under another version.
    pub fn at_version(&self, resource_version: u64) -> Packed {
        Packed {
            resource_version,
            ..self.clone()
        }
    }

    /// The status as a value; null if there is none.
    pub(super) fn status(&self) -> Value {
        let read = |text| serde_json::from_str(text).expect("a value written as text is read back");
        self.status.as_deref().map_or(Value::Null, read)
    }

    /// With the status of `other`, if that has one: status belongs to another writer.
    pub(super) fn with_status_of(mut self, other: &Packed) -> Packed {
        if other.status.is_some() {
            self.status = other.status.clone();
        }
        self
    }

    /// With another status; `None` if it is the same.
    pub(super) fn with_status(&self, status: &Value) -> Option<Packed> {
        let text = status.to_string();
        (self.status.as_deref() != Some(&text)).then(|| Packed {
            status: Some(text.into()),
            ..self.clone()
        })
    }

    /// About how many bytes this version holds beyond what it shares with `previous`.
    pub(super) fn bytes_beyond(&self, previous: Option<&Packed>) -> usize {
        let status = self.status.as_ref().map_or(0, |status| status.len());
        let stated = match previous {
            Some(previous) if self.shares_all_but_status(previous) => 0,
            _ => size_of::<Stated>() + self.stated.text.len(),
        };
        size_of::<Packed>() + size_of::<PackedChange>() + status + stated
    }
}

/// The text of a body without its status, and where its metadata begin.
fn text_of(mut fields: Map<String, Value>) -> (Box<str>, usize) {
    let mut metadata = match fields.remove("metadata") {
        Some(Value::Object(metadata)) => metadata,
        _ => Map::new(),
    };
    metadata.remove("resourceVersion");
    let metadata = Value::Object(metadata).to_string();
    let mut text = "{".to_owned();
    for name in ["apiVersion", "kind"] {
        if let Some(value) = fields.remove(name) {
            write!(text, "\"{name}\":{value},").expect("a string takes all");
        }
    }
    let metadata_at = text.len();
    text.push_str(METADATA);
    text.push_str(&metadata[1..]);
    for (name, value) in fields {
        write!(text, ",{}:{value}", Value::String(name)).expect("a string takes all");
    }
    text.push('}');
    (text.into_boxed_str(), metadata_at)
}

/// A [`Change`] whose objects are at rest.
#[derive(Clone, Debug, PartialEq)]
pub struct PackedChange {
    pub change: ChangeType,
    /// For `Deleted`: the last state with the version of the deletion.
    pub object: Arc<Packed>,
    /// The state before, for selectors; `None` for `Added`.
    pub previous: Option<Arc<Packed>>,
}

impl PackedChange {
    pub fn resource_version(&self) -> u64 {
        self.object.resource_version
    }

    pub fn unpack(&self) -> Change {
        let unpacked = |packed: &Arc<Packed>| Arc::new(packed.unpack());
        Change {
            resource_version: self.resource_version(),
            change: self.change.clone(),
            object: unpacked(&self.object),
            previous: self.previous.as_ref().map(unpacked),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::object::Kind;

    fn object(body: Value) -> Object {
        Object {
            key: Key::local(Kind::Pod, "default", "web"),
            source: Source::Api,
            provenance: None,
            standing: Standing::Accepted,
            resource_version: 7,
            body,
        }
    }

    #[test]
    fn what_goes_in_comes_out_as_value_and_as_text() {
        let bodies = [
            json!({"metadata": {}}),
            json!({"kind": "Pod", "metadata": {"name": "a\"b", "labels": {"é": "\n"}}}),
            json!({"apiVersion": "v1", "data": {"k": "v"}, "kind": "ConfigMap", "metadata": {}}),
            json!({"metadata": {"uid": "u"}, "spec": {"n": 1.5, "big": u64::MAX}, "status": null}),
            json!({"metadata": {}, "status": {"phase": "Running"}, "zz \"": [null, {}]}),
        ];
        for mut body in bodies {
            body["metadata"]["resourceVersion"] = json!("7");
            let packed = Packed::new(object(body.clone()));
            assert_eq!(packed.unpack(), object(body.clone()));
            let mut text = Vec::new();
            packed.write_object(&mut text);
            let read: Value = serde_json::from_slice(&text).expect("JSON");
            assert_eq!(read, body);
            let mut text = Vec::new();
            packed.write_item(&mut text);
            let read: Value = serde_json::from_slice(&text).expect("JSON");
            for gone in ["kind", "apiVersion"] {
                body.as_object_mut().map(|fields| fields.remove(gone));
            }
            assert_eq!(read, body);
            let mut metadata = body["metadata"].clone();
            metadata
                .as_object_mut()
                .map(|fields| fields.remove("resourceVersion"));
            assert_eq!(packed.metadata(), metadata);
        }
    }

    #[test]
    fn a_status_shares_the_rest() {
        let spec = "x".repeat(1000);
        let first = Packed::new(object(json!({"metadata": {"uid": "u"}, "spec": spec})));
        let status = json!({"phase": "Running"});
        let second = first.with_status(&status).expect("another status");
        assert!(second.with_status(&status).is_none());
        assert!(second.shares_all_but_status(&first));
        assert!(second.bytes_beyond(Some(&first)) < 300);
        assert!(second.bytes_beyond(None) > 1000);
        assert_eq!(second.unpack().body["status"], status);
        assert_eq!(
            first.with_status_of(&second).unpack().body["status"],
            status
        );
    }
}
