//! Server-side apply: who set which field, and what becomes of it when somebody else does. Pure.
//!
//! Every object carries in `metadata.managedFields`, for each manager and way of writing, the set
//! of fields it set. An apply takes the whole set of its manager: fields that it no longer names
//! and nobody else holds go, fields that somebody else holds with another value are a conflict.
//! Source: Kubernetes apimachinery, util/managedfields; sigs.k8s.io/structured-merge-diff.

mod managers;
mod set;
#[cfg(test)]
mod tests;
mod update;
mod walk;

use std::fmt;

use serde_json::{Value, json};

use self::managers::{Id, Managers, Operation};
use self::set::{Set, path_text};
use self::walk::{compare, field_set};
use super::Kind;
use super::order;
use super::schema::Place;

/// Where `kubectl apply` keeps what it applied last.
const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";
/// The manager of what was there before anything was tracked.
const BEFORE_FIRST: &str = "before-first-apply";

/// Who writes, and how.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Writer<'a> {
    /// `fieldManager`, or what stands before the slash of the User-Agent.
    pub manager: &'a str,
    /// `status`, or empty.
    pub subresource: &'a str,
    /// RFC 3339, for `managedFields[].time`.
    pub time: &'a str,
}

/// Whether a field that somebody else holds is taken from them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Contested {
    /// `force=true`
    Take,
    Refuse,
}

/// One field that an apply would change and somebody else holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Conflict {
    /// `.spec.containers[name="web"].image`
    pub field: String,
    /// `conflict with "kubectl-edit" using v1`
    pub message: String,
}

/// Why an apply was not done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ApplyError {
    /// 400 `BadRequest` with this message.
    Malformed(String),
    /// 409 `Conflict` with this text as message, and causes of reason `FieldManagerConflict`.
    Conflicts(Vec<Conflict>),
}

impl ApplyError {
    fn of_conflicts(mut conflicts: Vec<(Id, Vec<String>)>) -> ApplyError {
        order::sort(&mut conflicts);
        let all = conflicts.into_iter().map(|(id, path)| Conflict {
            field: path_text(&path),
            message: format!("conflict with {}", id.text()),
        });
        ApplyError::Conflicts(all.collect())
    }
}

impl fmt::Display for ApplyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let conflicts = match self {
            ApplyError::Malformed(text) => return f.write_str(text),
            ApplyError::Conflicts(conflicts) => conflicts,
        };
        if let [one] = conflicts.as_slice() {
            let Conflict { field, message } = one;
            return write!(f, "Apply failed with 1 conflict: {message}: {field}");
        }
        write!(f, "Apply failed with {} conflicts: ", conflicts.len())?;
        let mut last = "";
        for (index, Conflict { field, message }) in conflicts.iter().enumerate() {
            let break_ = if index == 0 { "" } else { "\n" };
            if message != last {
                write!(
                    f,
                    "{break_}{}:",
                    message.replacen("conflict", "conflicts", 1)
                )?;
                last = message;
            }
            write!(f, "\n- {field}")?;
        }
        Ok(())
    }
}
impl std::error::Error for ApplyError {}

/// The object as it would be after `writer` applied `applied` to `live`, its `managedFields` up to
/// date; `None`: there is no object yet. What the other part of an object (status, or spec in an
/// apply to the status) becomes is for the caller to undo, as for an update. Errors: another kind,
/// `managedFields` in `applied`, list elements without a key or twice, and conflicts.
pub fn apply(
    kind: Kind,
    live: Option<&Value>,
    applied: &Value,
    writer: &Writer,
    contested: Contested,
) -> Result<Value, ApplyError> {
    check(kind, applied)?;
    let live = live.cloned().unwrap_or_else(|| json!({}));
    let result = match attempt(kind, &live, applied, writer, contested) {
        Err(Failure::Conflicts(conflicts)) if writer.manager == "kubectl" => {
            // What kubectl itself applied from the client's side, and nobody changed since, is its own.
            let own = last_applied_set(kind, &live).unwrap_or_default();
            let mut foreign = conflicts;
            foreign.retain(|(_, path)| !own.has_path(path));
            match foreign.as_slice() {
                [] => attempt(kind, &live, applied, writer, Contested::Take),
                _ => Err(Failure::Conflicts(foreign)),
            }
        }
        result => result,
    };
    let mut object = result.map_err(|failure| match failure {
        Failure::Malformed(text) => {
            let name = |field: &str| applied["metadata"][field].as_str().unwrap_or_default();
            let (namespace, name) = (name("namespace"), name("name"));
            let text = format!(
                "failed to create typed patch object ({namespace}/{name}; {}): {text}",
                gvk(kind.group(), kind.version(), kind.name())
            );
            ApplyError::Malformed(text)
        }
        Failure::Conflicts(conflicts) => ApplyError::of_conflicts(conflicts),
    })?;
    if writer.manager == "kubectl"
        && let Some(annotation) = object.pointer_mut(LAST_APPLIED_POINTER)
        && annotation.as_str().is_some_and(|text| !text.is_empty())
    {
        *annotation = last_applied_text(applied).into();
    }
    Ok(object)
}

/// [`LAST_APPLIED`] as a JSON pointer.
const LAST_APPLIED_POINTER: &str =
    "/metadata/annotations/kubectl.kubernetes.io~1last-applied-configuration";

/// Brings `object.metadata.managedFields` up to date after any other write (create, update,
/// patch): what changed from `live` belongs to `writer` now. Call it on the defaulted object, before
/// it is stored. Never fails: what cannot be read is dropped, as upstream does. Objects that nobody
/// tracked from the start stay untracked.
pub fn record_update(kind: Kind, live: Option<&Value>, object: &mut Value, writer: &Writer) {
    let current = &live.unwrap_or(&Value::Null)["metadata"]["managedFields"];
    let given = &object["metadata"]["managedFields"];
    let managers = match managers::parse(given) {
        // A part of an object says nothing of the whole's managers.
        _ if !writer.subresource.is_empty() => None,
        _ if managers::is_reset(given) => Some(Managers::new()),
        given => given.filter(|managers| !managers.is_empty()),
    };
    let managers = managers.or_else(|| managers::parse(current));
    let mut managers = managers.unwrap_or_default();
    strip_managers(object);
    if live.is_some() && managers.is_empty() {
        return;
    }
    let mut bare = live.cloned().unwrap_or_else(|| empty_object(kind));
    strip_managers(&mut bare);
    match update::update(kind, &bare, object, &mut managers, writer) {
        Ok(()) => {
            managers::cap(&mut managers);
            managers::write(&managers, object);
        }
        Err(text) => log::debug!("managedFields dropped: {text}"),
    }
}

/// What is there before an object is: the parts that every object of upstream's types has, lists
/// that are always written among them.
fn empty_object(kind: Kind) -> Value {
    let mut object = json!({"metadata": {}, "spec": {}, "status": {}});
    match kind {
        Kind::Pod => object["spec"]["containers"] = json!([]),
        Kind::LimitRange => object["spec"]["limits"] = json!([]),
        _ => {}
    }
    object
}

fn strip_managers(object: &mut Value) {
    if let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut) {
        metadata.remove("managedFields");
    }
}

/// `/v1, Kind=Pod`
fn gvk(group: &str, version: &str, kind: &str) -> String {
    format!("{group}/{version}, Kind={kind}")
}

fn check(kind: Kind, applied: &Value) -> Result<(), ApplyError> {
    let text = |name: &str| applied[name].as_str().unwrap_or_default();
    let version = text("apiVersion");
    if (version, text("kind")) != (&kind.api_version(), kind.name()) {
        let (group, version) = version.split_once('/').unwrap_or(("", version));
        let text = format!("invalid object type: {}", gvk(group, version, text("kind")));
        return Err(ApplyError::Malformed(text));
    }
    match &applied["metadata"]["managedFields"] {
        Value::Null => Ok(()),
        _ => Err(ApplyError::Malformed(
            "metadata.managedFields must be nil".to_owned(),
        )),
    }
}

enum Failure {
    Malformed(String),
    Conflicts(Vec<(Id, Vec<String>)>),
}

impl From<String> for Failure {
    fn from(text: String) -> Failure {
        Failure::Malformed(text)
    }
}

fn attempt(
    kind: Kind,
    live: &Value,
    applied: &Value,
    writer: &Writer,
    contested: Contested,
) -> Result<Value, Failure> {
    let mut managers = managers::parse(&live["metadata"]["managedFields"]).unwrap_or_default();
    let mut bare = live.clone();
    strip_managers(&mut bare);
    let is_new = bare.as_object().is_none_or(serde_json::Map::is_empty);
    if managers.is_empty() && !is_new {
        let before = Writer {
            manager: BEFORE_FIRST,
            ..writer.clone()
        };
        update::update(kind, &empty_object(kind), &bare, &mut managers, &before)?;
    }
    let mut object = update::apply(kind, &bare, applied, &mut managers, writer, contested)?;
    let id = Id::new(
        Operation::Apply,
        manager_name(writer),
        &kind.api_version(),
        writer.subresource,
    );
    if let Some(entry) = managers.get_mut(&id)
        && (object != bare || entry.time.is_none())
    {
        entry.time = Some(writer.time.to_owned());
    }
    managers::write(&managers, &mut object);
    Ok(object)
}

fn manager_name<'a>(writer: &Writer<'a>) -> &'a str {
    match writer.manager {
        "" => "unknown",
        manager => manager,
    }
}

/// The fields of the last `kubectl apply` that still have the value it gave them.
fn last_applied_set(kind: Kind, live: &Value) -> Option<Set> {
    let text = live["metadata"]["annotations"]
        .get(LAST_APPLIED)?
        .as_str()?;
    let last: Value = serde_json::from_str(text).ok()?;
    if last["apiVersion"].as_str() != Some(&kind.api_version()) {
        return None;
    }
    let place = Place::root(kind);
    let changes = compare(&last, live, place).ok()?;
    let set = field_set(&last, place).ok()?;
    let set = set.difference(&changes.modified).difference(&changes.added);
    Some(set.difference(&changes.removed))
}

/// As kubectl writes it: compact JSON, without itself, and a line feed.
fn last_applied_text(applied: &Value) -> String {
    let mut applied = applied.clone();
    if let Some(annotations) = applied.pointer_mut("/metadata/annotations")
        && let Some(annotations) = annotations.as_object_mut()
    {
        annotations.remove(LAST_APPLIED);
    }
    format!("{applied}\n")
}
