//! Whether a body is what its place takes: kind, version, name, namespace, known fields. Pure.

use serde_json::{Value, json};

use super::body::Sent;
use super::metadata;
use super::options::FieldValidation;
use crate::apiserver::route::Place;
use crate::apiserver::status::Refusal;
use crate::object::{self, Kind};

/// Checks kind and version, types and unknown fields. Returns warnings. Errors: 400.
pub fn check(kind: Kind, sent: &Sent, validation: FieldValidation) -> Result<Vec<String>, Refusal> {
    check_kind(kind, &sent.value)?;
    let unfit = |what: String| {
        let (kind, version) = (kind.name(), kind.api_version());
        Refusal::bad_request(format!(
            "{kind} in version {version:?} cannot be handled as a {kind}: {what}"
        ))
    };
    let unknown = unknown(kind, &sent.value).map_err(unfit)?.into_iter();
    let foreign = sent.unknown.iter();
    let foreign = foreign.map(|path| format!("unknown field \"{path}\""));
    let duplicates = sent.duplicates.iter();
    let duplicates = duplicates.map(|path| format!("duplicate field \"{path}\""));
    let found: Vec<String> = unknown.chain(foreign).chain(duplicates).collect();
    match validation {
        FieldValidation::Ignore => Ok(Vec::new()),
        FieldValidation::Strict if !found.is_empty() => Err(unfit(format!(
            "strict decoding error: {}",
            found.join(", ")
        ))),
        FieldValidation::Warn | FieldValidation::Strict => Ok(found),
    }
}

/// What is to be said of fields that the kind does not have. Errors: a field of a wrong type.
pub fn unknown(kind: Kind, body: &Value) -> Result<Vec<String>, String> {
    match object::decode(kind, body) {
        Ok(unknown) => Ok(unknown.into_iter().map(|(_, text)| text).collect()),
        Err((path, what)) if path.is_empty() => Err(what),
        Err((path, what)) => Err(format!("{path}: {what}")),
    }
}

/// Makes an applied configuration one for its place. Errors: 400 if it is for another.
pub fn settle_apply(body: &mut Value, place: &Place) -> Result<(), Refusal> {
    check_kind(place.kind, body)?;
    settle_namespace(body, &place.namespace)?;
    if !metadata(body, "name").is_empty() {
        check_name(body, &place.name)?;
    }
    body["metadata"]["name"] = json!(place.name);
    Ok(())
}

fn check_kind(kind: Kind, body: &Value) -> Result<(), Refusal> {
    let Some(fields) = body.as_object() else {
        let text = format!(
            "the object provided is unrecognized (must be of type {}): it is no JSON object",
            kind.name()
        );
        return Err(Refusal::bad_request(text));
    };
    let named = |field: &str| {
        fields
            .get(field)
            .and_then(Value::as_str)
            .unwrap_or_default()
    };
    let (given_kind, given_version) = (named("kind"), named("apiVersion"));
    if !given_kind.is_empty() && given_kind != kind.name() {
        let text = format!(
            "{given_kind} in version {given_version:?} cannot be handled as a {}",
            kind.name()
        );
        return Err(Refusal::bad_request(text));
    }
    if !given_version.is_empty() && given_version != kind.api_version() {
        let text = format!(
            "the API version in the data ({given_version}) does not match the expected API version \
             ({})",
            kind.api_version()
        );
        return Err(Refusal::bad_request(text));
    }
    Ok(())
}

/// Gives an object the namespace of its place. Errors: 400 if it names another.
pub fn settle_namespace(body: &mut Value, namespace: &str) -> Result<(), Refusal> {
    if !body["metadata"].is_object() {
        body["metadata"] = json!({});
    }
    match metadata(body, "namespace") {
        given if given == namespace => return Ok(()),
        "" => {}
        _ if namespace.is_empty() => {
            body["metadata"]
                .as_object_mut()
                .map(|fields| fields.remove("namespace"));
            return Ok(());
        }
        _ => {
            return Err(Refusal::bad_request(
                "the namespace of the provided object does not match the namespace sent on the \
                 request",
            ));
        }
    }
    body["metadata"]["namespace"] = json!(namespace);
    Ok(())
}

/// Whether a body that replaces the object of a name names that object. Errors: 400.
pub fn check_name(body: &Value, name: &str) -> Result<(), Refusal> {
    let given = metadata(body, "name");
    let text = if given.is_empty() {
        format!(
            "the name of the object ({name} based on URL) was undeterminable: name must be provided"
        )
    } else if given != name {
        format!("the name of the object ({given}) does not match the name on the URL ({name})")
    } else {
        return Ok(());
    };
    Err(Refusal::bad_request(text))
}
