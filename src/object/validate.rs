//! stub
use super::{Key, Kind};
use serde_json::Value;
pub type Cause = (String, String);
pub fn validate(_key: &Key, _body: &Value) -> Vec<Cause> {
    Vec::new()
}
pub fn validate_update(_kind: Kind, _body: &Value, _current: &Value) -> Vec<Cause> {
    Vec::new()
}
