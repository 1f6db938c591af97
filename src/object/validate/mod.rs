//! Validation with field paths and upstream's texts. Source: Kubernetes
//! `pkg/apis/core/validation/validation.go`, `apimachinery/pkg/util/validation/field/errors.go`.
//!
//! Runs on decoded, defaulted objects: types are right, and what is absent has no default.
//!
//! ```text
//!  meta ── every kind        pod ─► container ─► probe        data ── ConfigMap, Secret
//!                             ├───► volume                   limits ── LimitRange, quota, priority
//!                             ├───► security
//!                             └───► remarks: legal, and probably a mistake
//! ```

mod container;
mod data;
mod limits;
mod meta;
mod pod;
mod probe;
mod remarks;
mod report;
mod resize;
mod security;
mod update;
mod volume;

use serde_json::Value;

use super::{Key, Kind};
pub use remarks::remarks;
use report::{At, Report};
pub use update::validate_update;

/// A field path and what is wrong there: (`spec.containers[0].image`, `Required value`).
pub type Cause = (String, String);

/// Everything that is wrong with an object, in field order; empty if it may be stored.
pub fn validate(key: &Key, body: &Value) -> Vec<Cause> {
    let mut report = Report::default();
    let top = At::top(body);
    meta::validate(key, &top, &mut report);
    match key.kind {
        Kind::Pod => pod::validate(&top.get("spec"), &mut report),
        Kind::ConfigMap => data::validate_config_map(&top, &mut report),
        Kind::Secret => data::validate_secret(&top, &mut report),
        Kind::LimitRange => limits::validate_limit_range(&top.get("spec"), &mut report),
        Kind::ResourceQuota => limits::validate_quota(&top.get("spec"), &mut report),
        Kind::PriorityClass => limits::validate_priority_class(&key.name, &top, &mut report),
        _ => {}
    }
    report.causes
}

#[cfg(test)]
mod tests;
