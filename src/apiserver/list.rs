//! Get and list: one object, or all of a kind, from a snapshot.
//!
//! All chunks of a listing show the state that the first one did, as long as history reaches back to
//! it; then the answer is 410 and a token that goes on with what there is now.

use http::StatusCode;

use super::format::{self, Columns, Format, ListMetadata};
use super::list_options::{At, ListOptions, Resume};
use super::query::Query;
use super::route::Place;
use super::status::{Refusal, json_response, typed_response};
use super::view;
use crate::net::serve::{Body, Response};
use crate::object::Kind;
use crate::registry::{Packed, Reader};
use jiff::Timestamp;
use std::sync::Arc;

/// Objects in order, and the version that the list shows. Errors: 410 for a state that is no longer
/// known, 504 for one that is not there yet.
fn objects_at(
    reader: &Reader,
    kind: Kind,
    namespace: Option<&str>,
    options: &ListOptions,
) -> Result<(Vec<Arc<Packed>>, u64), Refusal> {
    let current = reader.version();
    match (options.at, &options.resume) {
        (At::NotOlderThan(version), _) => {
            check_not_newer(version, current)?;
            Ok(view::list(reader, kind, namespace))
        }
        // The version of a token was the newest once: here it is from a store that is no more.
        (At::Exactly(version), Some(resume)) if version > current => {
            Err(Refusal::continue_expired(&inconsistent(resume)))
        }
        (At::Exactly(version), resume) => {
            check_not_newer(version, current)?;
            let expired = |_| match resume {
                Some(resume) => Refusal::continue_expired(&inconsistent(resume)),
                None => Refusal::list_expired(),
            };
            let objects = view::list_at(reader, kind, namespace, version).map_err(expired)?;
            Ok((objects, version))
        }
    }
}

/// The token that goes on at the same place in the newest state.
fn inconsistent(resume: &Resume) -> String {
    let resume = Resume {
        version: None,
        ..resume.clone()
    };
    resume.token()
}

fn check_not_newer(wanted: u64, current: u64) -> Result<(), Refusal> {
    match wanted > current {
        true => Err(Refusal::version_too_large(wanted, current)),
        false => Ok(()),
    }
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
    let options = ListOptions::parse(kind, format.version, query)?;
    let (mut objects, version) = objects_at(reader, kind, namespace, &options)?;
    let mut metadata = ListMetadata {
        version,
        go_on: None,
        remaining: None,
    };
    if let Some(resume) = &options.resume {
        let after = (resume.namespace.as_str(), resume.name.as_str());
        objects.retain(|o| (o.key().namespace.as_str(), o.key().name.as_str()) > after);
    }
    if !options.selector.is_everything() {
        objects.retain(|object| options.selector.selects(object));
    }
    if let Some(limit) = options.limit.filter(|limit| *limit < objects.len()) {
        let last = objects[limit - 1].key();
        let resume = Resume {
            version: Some(metadata.version),
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
    let wanted = query.number("resourceVersion")?.unwrap_or_default();
    check_not_newer(wanted, reader.version())?;
    let object = view::get(reader, place)?;
    let body = &object.body;
    let shown = format::object(format, place.kind, body, Columns::Defined, now);
    Ok(json_response(StatusCode::OK, &shown))
}
