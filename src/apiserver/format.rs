//! What shape of answer a client accepts: plain JSON, a Table, or metadata only. Pure.

use std::sync::Arc;

use http::header::{ACCEPT, HeaderMap};
use serde_json::{Value, json};

use super::events;
use super::query::Query;
use super::request_info::RequestInfo;
use super::status::Refusal;
use super::table::{self, IncludeObject};
use crate::object::Kind;
use crate::registry::Packed;
use jiff::Timestamp;

/// What an answer looks like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Format {
    pub shape: Shape,
    pub version: ShownAs,
}

/// In which API version an object is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ShownAs {
    /// The one that it is stored in.
    Stored,
    /// `events.k8s.io/v1`
    NewEvent,
}

impl ShownAs {
    pub fn of(info: &RequestInfo) -> ShownAs {
        match info.group == events::GROUP {
            true => ShownAs::NewEvent,
            false => ShownAs::Stored,
        }
    }

    pub fn api_version(self, kind: Kind) -> String {
        match self {
            ShownAs::Stored => kind.api_version(),
            ShownAs::NewEvent => events::API_VERSION.to_owned(),
        }
    }

    /// A stored object in this version.
    pub fn show(self, object: &Value) -> Value {
        match self {
            ShownAs::Stored => object.clone(),
            ShownAs::NewEvent => events::to_view(object.clone()),
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    Json,
    Table(IncludeObject),
    /// `as=PartialObjectMetadata[List]`
    Metadata,
}

impl Format {
    /// The first form in `Accept` that we can give; no header means JSON. Errors: 406, or an
    /// `includeObject` that does not exist.
    pub fn negotiate(
        info: &RequestInfo,
        headers: &HeaderMap,
        query: &Query,
    ) -> Result<Format, Refusal> {
        let shape = Shape::negotiate(headers, query)?;
        let version = ShownAs::of(info);
        Ok(Format { shape, version })
    }
}

impl Shape {
    fn negotiate(headers: &HeaderMap, query: &Query) -> Result<Shape, Refusal> {
        let include = match query.get("includeObject") {
            None | Some("Metadata") => IncludeObject::Metadata,
            Some("None") => IncludeObject::None,
            Some("Object") => IncludeObject::Object,
            Some(other) => {
                let text =
                    format!("invalid includeObject {other:?}: must be None, Metadata or Object");
                return Err(Refusal::bad_request(text));
            }
        };
        let mut forms = headers
            .get_all(ACCEPT)
            .iter()
            .filter_map(|value| value.to_str().ok())
            .flat_map(|value| value.split(','))
            .filter(|form| !form.trim().is_empty())
            .peekable();
        if forms.peek().is_none() {
            return Ok(Shape::Json);
        }
        forms
            .find_map(|form| accepts(form, include))
            .ok_or_else(Refusal::not_acceptable)
    }
}

fn accepts(form: &str, include: IncludeObject) -> Option<Shape> {
    let mut parts = form.split(';').map(str::trim);
    if !matches!(parts.next()?, "application/json" | "application/*" | "*/*") {
        return None;
    }
    let parameters: Vec<(&str, &str)> = parts.filter_map(|part| part.split_once('=')).collect();
    let value = |name: &str| parameters.iter().find(|(n, _)| *n == name).map(|(_, v)| *v);
    match (value("as"), value("g"), value("v")) {
        (None, _, _) => Some(Shape::Json),
        (Some("Table"), Some("meta.k8s.io"), Some("v1")) => Some(Shape::Table(include)),
        (
            Some("PartialObjectMetadata" | "PartialObjectMetadataList"),
            Some("meta.k8s.io"),
            Some("v1"),
        ) => Some(Shape::Metadata),
        _ => None,
    }
}

/// Which part of a stream a Table stands in: later ones need no column definitions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Columns {
    Defined,
    Left,
}

/// A list's metadata: version, and where it goes on.
pub struct ListMetadata {
    pub version: u64,
    pub go_on: Option<String>,
    pub remaining: Option<usize>,
}

impl ListMetadata {
    fn json(&self) -> Value {
        let mut json = json!({"resourceVersion": self.version.to_string()});
        if let Some(token) = &self.go_on {
            json["continue"] = token.as_str().into();
        }
        if let Some(remaining) = self.remaining {
            json["remainingItemCount"] = remaining.into();
        }
        json
    }
}

/// One object in the wanted form.
pub fn object(
    format: Format,
    kind: Kind,
    object: &Value,
    columns: Columns,
    now: Timestamp,
) -> Value {
    match format.shape {
        Shape::Json => format.version.show(object),
        Shape::Metadata => table::metadata_only(object),
        Shape::Table(include) => {
            let definitions = match columns {
                Columns::Defined => table::column_definitions(kind),
                Columns::Left => Value::Null,
            };
            json!({
                "kind": "Table",
                "apiVersion": "meta.k8s.io/v1",
                "metadata": {"resourceVersion": object["metadata"]["resourceVersion"]},
                "columnDefinitions": definitions,
                "rows": [row(format.version, kind, object, include, now)],
            })
        }
    }
}

/// A row with as much of the object as is wanted, as it is shown.
fn row(
    version: ShownAs,
    kind: Kind,
    object: &Value,
    include: IncludeObject,
    now: Timestamp,
) -> Value {
    let mut row = table::row_json(kind, object, include, now);
    if include == IncludeObject::Object {
        row["object"] = version.show(object);
    }
    row
}

/// An item of a list: the list says what it is.
pub fn without_type(mut item: Value) -> Value {
    if let Some(fields) = item.as_object_mut() {
        fields.remove("kind");
        fields.remove("apiVersion");
    }
    item
}

/// A whole list as bytes. Items are read and written one by one, so that the list is in memory once.
pub fn list(
    format: Format,
    kind: Kind,
    items: &[Arc<Packed>],
    metadata: &ListMetadata,
    now: Timestamp,
) -> Vec<u8> {
    let metadata = metadata.json();
    let (head, field) = match format.shape {
        Shape::Json => (
            json!({
                "kind": format!("{kind}List"),
                "apiVersion": format.version.api_version(kind),
                "metadata": metadata,
            }),
            "items",
        ),
        Shape::Metadata => (
            json!({
                "kind": "PartialObjectMetadataList",
                "apiVersion": "meta.k8s.io/v1",
                "metadata": metadata,
            }),
            "items",
        ),
        Shape::Table(_) => (
            json!({
                "kind": "Table",
                "apiVersion": "meta.k8s.io/v1",
                "metadata": metadata,
                "columnDefinitions": table::column_definitions(kind),
            }),
            "rows",
        ),
    };
    let mut bytes = head.to_string().into_bytes();
    bytes.pop();
    bytes.extend_from_slice(format!(",\"{field}\":[").as_bytes());
    for (index, item) in items.iter().enumerate() {
        if index > 0 {
            bytes.push(b',');
        }
        let shown = match (format.shape, format.version) {
            (Shape::Json, ShownAs::Stored) => {
                item.write_item(&mut bytes);
                continue;
            }
            (Shape::Json, version) => without_type(version.show(&item.unpack().body)),
            (Shape::Metadata, _) => table::metadata_only(&item.unpack().body),
            (Shape::Table(include), version) => {
                row(version, kind, &item.unpack().body, include, now)
            }
        };
        serde_json::to_writer(&mut bytes, &shown).expect("a Value is JSON, and a vector takes it");
    }
    bytes.extend_from_slice(b"]}\n");
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;

    #[test]
    fn the_first_form_that_can_be_given_wins() {
        let table = [
            ("", Some(Shape::Json)),
            ("*/*", Some(Shape::Json)),
            ("application/json, */*", Some(Shape::Json)),
            (
                "application/json;as=Table;v=v1;g=meta.k8s.io,application/json",
                Some(Shape::Table(IncludeObject::Metadata)),
            ),
            (
                "application/json;as=Table;v=v1beta1;g=meta.k8s.io, application/json",
                Some(Shape::Json),
            ),
            (
                "application/vnd.kubernetes.protobuf,application/json",
                Some(Shape::Json),
            ),
            (
                "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1",
                Some(Shape::Metadata),
            ),
            ("application/vnd.kubernetes.protobuf", None),
        ];
        for (accept, format) in table {
            let mut headers = HeaderMap::new();
            headers.insert(ACCEPT, HeaderValue::from_static(accept));
            let negotiated = Shape::negotiate(&headers, &Query::default());
            assert_eq!(negotiated.ok(), format, "{accept}");
        }
    }
}
