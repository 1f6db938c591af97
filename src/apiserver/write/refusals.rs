//! What the registry refuses, in upstream's words. Pure but for a look at who owns an object.
//!
//! Source: Kubernetes apimachinery, api/errors/errors.go.

use serde_json::{Value, json};

use crate::apiserver::status::Refusal;
use crate::object::{Key, Object, Source};
use crate::registry::{Error, Reader};

/// The answer to a write that failed.
pub fn refusal(error: Error, reader: &Reader) -> Refusal {
    match error {
        Error::NotFound(key) => Refusal::not_found(key.kind, &key.name),
        Error::AlreadyExists(key) => {
            let leaving = reader.get_packed(&key).is_some_and(|now| now.is_deleting());
            Refusal::already_exists(key.kind, &key.name, leaving)
        }
        Error::Conflict { key, message } => Refusal::conflict(key.kind, &key.name, &message),
        Error::DeletionConflict { key, message } => {
            Refusal::conflict_of_kind(key.kind, &key.name, &message)
        }
        Error::NotOwner { key, .. } => match reader.get(&key) {
            Some(object) => not_owner(&object),
            None => Refusal::not_found(key.kind, &key.name),
        },
        Error::Invalid { key, causes } => Refusal::invalid(key.kind, &key.name, &causes),
        Error::Denied {
            key,
            message,
            cause,
        } => {
            let refusal = Refusal::denied(key.kind, &key.name, &message);
            match cause {
                None => refusal,
                Some(cause) => refusal.because(&json!({
                    "reason": cause.reason,
                    "message": cause.message,
                    "field": cause.field,
                })),
            }
        }
        Error::Store(text) => Refusal::internal(format!("Internal error occurred: {text}")),
    }
}

/// The object has its truth elsewhere: says where.
pub fn not_owner(object: &Object) -> Refusal {
    let place = object.provenance.as_ref();
    let why = match (object.source, place) {
        (Source::File, Some(place)) => format!("it is owned by manifest {place}; change that file"),
        (Source::Http, Some(place)) => {
            format!("it is owned by manifest {place}; change what is served there")
        }
        (Source::Remote, _) => "it belongs to the remote cluster; change it there".to_owned(),
        (Source::Node, _) => "it belongs to the node itself".to_owned(),
        (source, _) => format!("it is owned by source {}", source.name()),
    };
    let Key { kind, name, .. } = &object.key;
    Refusal::denied(*kind, name, &why)
}

/// Causes of a Status, from field paths and texts.
pub fn causes(causes: &[(String, String)]) -> Value {
    const REASONS: [(&str, &str); 9] = [
        ("Required value", "FieldValueRequired"),
        ("Invalid value", "FieldValueInvalid"),
        ("Unsupported value", "FieldValueNotSupported"),
        ("Duplicate value", "FieldValueDuplicate"),
        ("Forbidden", "FieldValueForbidden"),
        ("Not found", "FieldValueNotFound"),
        ("Too long", "FieldValueTooLong"),
        ("Too many", "FieldValueTooMany"),
        ("Internal error", "InternalError"),
    ];
    let cause = |(field, text): &(String, String)| {
        let reason = REASONS.iter().find(|(start, _)| text.starts_with(start));
        let reason = reason.map_or("FieldValueInvalid", |(_, reason)| reason);
        json!({"reason": reason, "message": text, "field": field})
    };
    causes.iter().map(cause).collect()
}
