//! stub
use super::Kind;
use serde_json::Value;
pub fn apply_defaults(_kind: Kind, _body: &mut Value) {}
