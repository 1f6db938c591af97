//! What shape of answer a client accepts: plain JSON, a Table, or metadata only. Pure.

use std::sync::Arc;

use http::header::{ACCEPT, HeaderMap};
use serde_json::{Value, json};

use super::query::Query;
use super::status::Refusal;
use super::table::{self, IncludeObject};
use crate::object::Kind;
use crate::registry::Packed;
use jiff::Timestamp;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    Json,
    Table(IncludeObject),
    /// `as=PartialObjectMetadata[List]`
    Metadata,
}

impl Format {
    /// The first form in `Accept` that we can give; no header means JSON. Errors: 406, or an
    /// `includeObject` that does not exist.
    pub fn negotiate(headers: &HeaderMap, query: &Query) -> Result<Format, Refusal> {
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
            return Ok(Format::Json);
        }
        forms
            .find_map(|form| accepts(form, include))
            .ok_or_else(Refusal::not_acceptable)
    }
}

fn accepts(form: &str, include: IncludeObject) -> Option<Format> {
    let mut parts = form.split(';').map(str::trim);
    if !matches!(parts.next()?, "application/json" | "application/*" | "*/*") {
        return None;
    }
    let parameters: Vec<(&str, &str)> = parts.filter_map(|part| part.split_once('=')).collect();
    let value = |name: &str| parameters.iter().find(|(n, _)| *n == name).map(|(_, v)| *v);
    match (value("as"), value("g"), value("v")) {
        (None, _, _) => Some(Format::Json),
        (Some("Table"), Some("meta.k8s.io"), Some("v1")) => Some(Format::Table(include)),
        (
            Some("PartialObjectMetadata" | "PartialObjectMetadataList"),
            Some("meta.k8s.io"),
            Some("v1"),
        ) => Some(Format::Metadata),
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
    match format {
        Format::Json => object.clone(),
        Format::Metadata => table::metadata_only(object),
        Format::Table(include) => {
            let definitions = match columns {
                Columns::Defined => table::column_definitions(kind),
                Columns::Left => Value::Null,
            };
            json!({
                "kind": "Table",
                "apiVersion": "meta.k8s.io/v1",
                "metadata": {"resourceVersion": object["metadata"]["resourceVersion"]},
                "columnDefinitions": definitions,
                "rows": [table::row_json(kind, object, include, now)],
            })
        }
    }
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
    let (head, field) = match format {
        Format::Json => (
            json!({"kind": format!("{kind}List"), "apiVersion": kind.api_version(), "metadata": metadata}),
            "items",
        ),
        Format::Metadata => (
            json!({
                "kind": "PartialObjectMetadataList",
                "apiVersion": "meta.k8s.io/v1",
                "metadata": metadata,
            }),
            "items",
        ),
        Format::Table(_) => (
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
        let shown = match format {
            Format::Json => {
                item.write_item(&mut bytes);
                continue;
            }
            Format::Metadata => table::metadata_only(&item.unpack().body),
            Format::Table(include) => table::row_json(kind, &item.unpack().body, include, now),
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
            ("", Some(Format::Json)),
            ("*/*", Some(Format::Json)),
            ("application/json, */*", Some(Format::Json)),
            (
                "application/json;as=Table;v=v1;g=meta.k8s.io,application/json",
                Some(Format::Table(IncludeObject::Metadata)),
            ),
            (
                "application/json;as=Table;v=v1beta1;g=meta.k8s.io, application/json",
                Some(Format::Json),
            ),
            (
                "application/vnd.kubernetes.protobuf,application/json",
                Some(Format::Json),
            ),
            (
                "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1",
                Some(Format::Metadata),
            ),
            ("application/vnd.kubernetes.protobuf", None),
        ];
        for (accept, format) in table {
            let mut headers = HeaderMap::new();
            headers.insert(ACCEPT, HeaderValue::from_static(accept));
            let negotiated = Format::negotiate(&headers, &Query::default());
            assert_eq!(negotiated.ok(), format, "{accept}");
        }
    }
}
