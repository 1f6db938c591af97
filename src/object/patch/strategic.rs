//! Strategic merge.
use serde_json::Value;

use super::PatchError;
use crate::object::Kind;

/// Applies `patch` to `object`, merging lists by what the kind's fields say.
pub fn strategic_merge(kind: Kind, object: Value, patch: Value) -> Result<Value, PatchError> {
    let _ = (kind, patch, object);
    Err(PatchError::Malformed(
        "strategic merge patch format is not supported".to_owned(),
    ))
}
