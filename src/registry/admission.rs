//! Admission: an ordered chain that every write passes, whichever door it came through.
//!
//! ```text
//!  default ─► mutate (each in order) ─► validate the object ─► validate (each in order)
//! ```
//!
//! The first refusal ends it. The chain is empty until the API server brings plug-ins; reads are
//! never admitted, and a plug-in does no I/O (it sees the registry through what it was given when
//! it was made). Source: Kubernetes, "Admission Controllers", order of phases.

use serde_json::Value;

use super::Actor;
use crate::object::{Key, Object};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    Create,
    Update,
    Delete,
}

/// What a plug-in may know about a write.
pub struct Attributes<'a> {
    pub operation: Operation,
    pub actor: &'a Actor,
    pub key: &'a Key,
    /// The state before an update or delete.
    pub current: Option<&'a Object>,
}

/// A refusal, as the user reads it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Denial {
    pub message: String,
}

/// One admission plug-in.
pub trait Admit {
    /// As `--admission-control` names it.
    fn name(&self) -> &'static str;

    /// May change the object. Not called for deletions.
    fn mutate(&self, attributes: &Attributes<'_>, object: &mut Value) -> Result<(), Denial>;

    /// Sees the object as it would be stored; for deletions, as it is.
    fn validate(&self, attributes: &Attributes<'_>, object: &Value) -> Result<(), Denial>;
}
