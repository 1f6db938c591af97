//! Server-side apply: who set which field, and what becomes of it when somebody else does. Pure.
//!
//! Every object carries in `metadata.managedFields`, for each manager and way of writing, the set
//! of fields it set. An apply takes the whole set of its manager: fields that it no longer names
//! and nobody else holds go, fields that somebody else holds with another value are a conflict.
//! Source: Kubernetes apimachinery, util/managedfields; sigs.k8s.io/structured-merge-diff.

use std::fmt;

use serde_json::Value;

use super::Kind;

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
    /// 409 `Conflict`, causes of reason `FieldManagerConflict`; the text is upstream's message.
    Conflicts(Vec<Conflict>),
}

impl fmt::Display for ApplyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ApplyError::Malformed(text) => f.write_str(text),
            ApplyError::Conflicts(_) => f.write_str("Apply failed"),
        }
    }
}

impl std::error::Error for ApplyError {}

/// The object as it would be after `writer` applied `applied` to `live`, its `managedFields` up to
/// date; `None`: there is no object yet. Errors: `managedFields` or lists in `applied` that have no
/// sense, and conflicts.
pub fn apply(
    kind: Kind,
    live: Option<&Value>,
    applied: &Value,
    writer: &Writer,
    contested: Contested,
) -> Result<Value, ApplyError> {
    let _ = (kind, live, applied, writer, contested);
    Err(ApplyError::Malformed("not yet".to_owned()))
}

/// Brings `object.metadata.managedFields` up to date after any other write (create, update,
/// patch): what changed from `live` belongs to `writer` now. Never fails: what cannot be read is
/// dropped, as upstream does.
pub fn record_update(kind: Kind, live: Option<&Value>, object: &mut Value, writer: &Writer) {
    let _ = (kind, live, object, writer);
}
