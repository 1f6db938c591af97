//! Admission: an ordered chain that every write passes, whichever door it came through.
//!
//! ```text
//!  default ─► mutate (each in order) ─► validate the object ─► validate (each in order)
//! ```
//!
//! The first refusal ends it. Reads are never admitted, nor is what the node itself writes (its
//! Node, events, statuses, built-in objects), nor copies of a remote cluster's objects: that
//! cluster has admitted them. A plug-in does no I/O; it sees the registry through [`View`].
//! Source: Kubernetes, "Admission Controllers", order of phases.

use std::cell::RefCell;
use std::sync::Arc;

use serde_json::Value;

use super::{Actor, Reader};
use crate::object::{Cause, Key, Kind, Object, Origin, Source};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    Create,
    Update,
    Delete,
}

/// What a plug-in may know about a write.
pub struct Attributes<'a> {
    /// A pod of a manifest is created each time its text is read: a list states whole objects.
    pub operation: Operation,
    pub actor: &'a Actor,
    pub key: &'a Key,
    /// The state before an update or delete, and of a pod that its manifest states again.
    pub current: Option<&'a Object>,
    pub view: &'a dyn View,
    pub remarks: &'a Remarks,
}

/// The registry as a write finds it.
pub trait View {
    fn get(&self, key: &Key) -> Option<Arc<Object>>;

    fn list(&self, kind: Kind, namespace: Option<&str>) -> Vec<Arc<Object>>;

    /// Whether a write of this key was admitted and cannot be seen yet.
    fn in_flight(&self, key: &Key) -> bool;
}

/// What is published, from any thread: nothing is known there of what is on its way.
impl View for Reader {
    fn get(&self, key: &Key) -> Option<Arc<Object>> {
        Reader::get(self, key)
    }

    fn list(&self, kind: Kind, namespace: Option<&str>) -> Vec<Arc<Object>> {
        Reader::list(self, kind, namespace).0
    }

    fn in_flight(&self, _key: &Key) -> bool {
        false
    }
}

/// What plug-ins leave behind beside the object.
#[derive(Default)]
pub struct Remarks {
    warnings: RefCell<Vec<String>>,
    namespaces: RefCell<Vec<String>>,
}

impl Remarks {
    /// For the user, with a write that is otherwise taken: a `Warning` header, a log line.
    pub fn warn(&self, text: String) {
        self.warnings.borrow_mut().push(text);
    }

    /// Has a namespace made before the object, if all goes well.
    pub fn provision(&self, namespace: &str) {
        self.namespaces.borrow_mut().push(namespace.to_owned());
    }

    /// Whether a namespace will be made.
    pub fn provisions(&self, namespace: &str) -> bool {
        self.namespaces.borrow().iter().any(|one| one == namespace)
    }

    /// Warnings and namespaces.
    pub fn into_parts(self) -> (Vec<String>, Vec<String>) {
        (self.warnings.into_inner(), self.namespaces.into_inner())
    }
}

impl Attributes<'_> {
    /// A write of a pod itself, not through a subresource.
    pub fn is_of_pod(&self) -> bool {
        self.key.kind == Kind::Pod && self.actor.subresource.is_empty()
    }

    /// What a manifest states: it must run with nobody there to make what it names.
    pub fn is_of_manifest(&self) -> bool {
        matches!(self.actor.source, Source::File | Source::Http)
    }
}

/// A refusal, as the user reads it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Denial {
    /// 403.
    Forbidden {
        message: String,
        /// What a program can tell it by.
        cause: Option<Box<DenialCause>>,
    },
    /// 404: something that the object belongs to is not there.
    NotFound(Key),
    /// 422.
    Invalid(Vec<Cause>),
}

/// An entry of `details.causes`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DenialCause {
    /// `NamespaceTerminating`
    pub reason: &'static str,
    pub message: String,
    pub field: &'static str,
}

impl Denial {
    pub fn forbidden(message: impl Into<String>) -> Denial {
        Denial::Forbidden {
            message: message.into(),
            cause: None,
        }
    }
}

/// One admission plug-in.
pub trait Admit {
    /// As `--admission-control` names it.
    fn name(&self) -> &'static str;

    /// May change the object. Not called for deletions.
    fn mutate(&self, _attributes: &Attributes<'_>, _object: &mut Value) -> Result<(), Denial> {
        Ok(())
    }

    /// Sees the object as it would be stored; for deletions, as it is.
    fn validate(&self, _attributes: &Attributes<'_>, _object: &Value) -> Result<(), Denial> {
        Ok(())
    }
}

/// Whose writes pass the chain.
pub(super) fn concerns(actor: &Actor, key: &Key) -> bool {
    key.origin == Origin::Local && !matches!(actor.source, Source::Node | Source::Remote)
}
