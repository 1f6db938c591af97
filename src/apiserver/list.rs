//! Get and list: one object, or all of a kind, from a snapshot.
//!
//! A listing in chunks shows the version of its first chunk. Later chunks read the newest state
//! from where the one before ended: what changed in between is after that version, so a watch from
//! it brings the client to the same state. Upstream instead keeps old snapshots.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::StatusCode;
use serde_json::{Value, json};

use super::format::{self, Columns, Format, ListMetadata};
use super::query::Query;
use super::route::Place;
use super::selector::Selector;
use super::status::{Refusal, json_response, typed_response};
use super::view;
use crate::net::serve::{Body, Response};
use crate::object::Kind;
use crate::registry::Reader;
use jiff::Timestamp;

/// What a list is narrowed to and where it starts.
#[derive(Debug)]
struct ListOptions {
    selector: Selector,
    limit: Option<usize>,
    resume: Option<Resume>,
}

/// A decoded `continue` token: upstream's shape, opaque to clients.
#[derive(Debug, PartialEq, Eq)]
struct Resume {
    version: u64,
    /// The last object of the chunk before.
    namespace: String,
    name: String,
}

impl Resume {
    fn token(&self) -> String {
        let start = format!("{}/{}", self.namespace, self.name);
        let token = json!({"v": "meta.k8s.io/v1", "rv": self.version, "start": start});
        URL_SAFE_NO_PAD.encode(token.to_string())
    }

    fn parse(token: &str) -> Option<Resume> {
        let bytes = URL_SAFE_NO_PAD.decode(token).ok()?;
        let token: Value = serde_json::from_slice(&bytes).ok()?;
        let (namespace, name) = token["start"].as_str()?.split_once('/')?;
        Some(Resume {
            version: token["rv"].as_u64()?,
            namespace: namespace.to_owned(),
            name: name.to_owned(),
        })
    }
}

fn options(kind: Kind, query: &Query, reader: &Reader) -> Result<ListOptions, Refusal> {
    let invalid = |field: &str, why: &str| Err(Refusal::invalid_option("ListOptions", field, why));
    let resume = query.get("continue");
    let version = query.get("resourceVersion");
    if query.get("sendInitialEvents").is_some() {
        return invalid(
            "sendInitialEvents",
            "Forbidden: sendInitialEvents is forbidden for list",
        );
    }
    if let Some(matching) = query.get("resourceVersionMatch") {
        match (matching, version) {
            _ if resume.is_some() => {
                return invalid(
                    "resourceVersionMatch",
                    "Forbidden: resourceVersionMatch is forbidden when continue is provided",
                );
            }
            (_, None) => {
                return invalid(
                    "resourceVersionMatch",
                    "Forbidden: resourceVersionMatch is forbidden unless resourceVersion is provided",
                );
            }
            ("Exact", Some("0")) => {
                return invalid(
                    "resourceVersionMatch",
                    "Forbidden: resourceVersionMatch \"exact\" is forbidden for resourceVersion \"0\"",
                );
            }
            ("NotOlderThan" | "Exact", _) => {}
            (other, _) => {
                let values = "supported values: \"Exact\", \"NotOlderThan\", \"\"";
                let why = format!("Unsupported value: {other:?}: {values}");
                return invalid("resourceVersionMatch", &why);
            }
        }
    }
    check_version(query, reader)?;
    let labels = query.get("labelSelector").unwrap_or_default();
    let fields = query.get("fieldSelector").unwrap_or_default();
    let resume = match resume.map(Resume::parse) {
        Some(None) => return Err(Refusal::bad_request("continue key is not valid")),
        Some(resume) => resume,
        None => None,
    };
    Ok(ListOptions {
        selector: Selector::parse(kind, labels, fields)?,
        limit: query
            .number("limit")?
            .filter(|limit| *limit > 0)
            .map(|limit| usize::try_from(limit).unwrap_or(usize::MAX)),
        resume,
    })
}

/// A snapshot is always the newest state: every version up to it is served, an exact older one is
/// gone, a newer one is not there yet.
fn check_version(query: &Query, reader: &Reader) -> Result<(), Refusal> {
    let (Some(wanted), current) = (query.number("resourceVersion")?, reader.version()) else {
        return Ok(());
    };
    if wanted > current {
        return Err(Refusal::version_too_large(wanted, current));
    }
    if query.get("resourceVersionMatch") == Some("Exact") && wanted < current {
        return Err(Refusal::expired(wanted, current));
    }
    Ok(())
}

/// All objects of `kind`, or those of one namespace.
pub fn list(
    reader: &Reader,
    kind: Kind,
    namespace: Option<&str>,
    query: &Query,
    format: Format,
    now: Timestamp,
) -> Result<Response, Refusal> {
    let options = options(kind, query, reader)?;
    let (mut objects, version) = view::list(reader, kind, namespace);
    let mut metadata = ListMetadata {
        version,
        go_on: None,
        remaining: None,
    };
    if let Some(resume) = &options.resume {
        let after = (resume.namespace.as_str(), resume.name.as_str());
        objects.retain(|o| (o.key().namespace.as_str(), o.key().name.as_str()) > after);
        metadata.version = resume.version;
    }
    if !options.selector.is_everything() {
        objects.retain(|object| options.selector.selects(object));
    }
    if let Some(limit) = options.limit.filter(|limit| *limit < objects.len()) {
        let last = objects[limit - 1].key();
        let resume = Resume {
            version: metadata.version,
            namespace: last.namespace.clone(),
            name: last.name.clone(),
        };
        metadata.go_on = Some(resume.token());
        let remaining = objects.len() - limit;
        metadata.remaining = options.selector.is_everything().then_some(remaining);
        objects.truncate(limit);
    }
    let bytes = format::list(format, kind, &objects, &metadata, now);
    Ok(typed_response(
        StatusCode::OK,
        "application/json",
        Body::bytes(bytes),
    ))
}

/// One object.
pub fn get(
    reader: &Reader,
    place: &Place,
    query: &Query,
    format: Format,
    now: Timestamp,
) -> Result<Response, Refusal> {
    check_version(query, reader)?;
    let object = view::get(reader, place)?;
    let body = &object.body;
    let shown = format::object(format, place.kind, body, Columns::Defined, now);
    Ok(json_response(StatusCode::OK, &shown))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn continue_tokens_come_back_as_they_went() {
        let resume = Resume {
            version: 42,
            namespace: "kube-system".to_owned(),
            name: "a.b".to_owned(),
        };
        assert_eq!(Resume::parse(&resume.token()), Some(resume));
        assert_eq!(Resume::parse("bm9uc2Vuc2U"), None);
        assert_eq!(Resume::parse("%%%"), None);
    }
}
