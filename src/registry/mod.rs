//! The one door: desired and published state meet here, and nothing is written past it.
//!
//! ```text
//!  replace ─┐                                        ┌─► Reader::get, list (snapshots)
//!  create   ├─► default, admit, validate ─► store ─► published ─► history ─► Cursor (watch)
//!  update   │     (one chain for all ways)  fsync    ▲
//!  delete ──┘                                        │
//!  update_status, finish_deletion, record ───────────┘   derived: never waits for the disk
//! ```
//!
//! - A write that somebody waits for is visible only after its flush. Two kinds of writes do not
//!   wait: derived ones (status, events, the Node object), and those of sources that state the
//!   same again after a restart (manifest files, the node itself), which are stored behind: a full
//!   or read-only disk must not keep a manifest's pod from running.
//! - Writes of one key happen in order: while one is on its way to the disk, others of that key
//!   wait, except for status, which has another writer and is never lost to a spec's change.
//! - Versions are given out at publication and never go backwards, not even over a restart:
//!   they are reserved in flushed blocks.
//!
//! The registry runs nothing, knows no container, and never trusts a status that it holds: that is
//! what the kubelet published, not what is.

mod actor;
mod admission;
mod commit;
mod cursors;
mod departing;
mod desk;
mod events;
mod open;
mod options;
mod own_node;
mod packed;
mod prepare;
mod provide;
mod published;
mod reader;
mod replace;
pub mod rescue;
mod reseal;
mod restraint;
mod store;
mod takeover;
mod write;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use serde_json::Value;

pub use actor::Actor;
pub use admission::{Admit, Attributes, Denial, DenialCause, Operation, Remarks, View};
pub use cursors::Cursors;
pub use desk::PROVISIONED;
pub use options::{Limits, OpenError, OpenReport, Options, Place};
pub use packed::{Packed, PackedChange};
pub use reader::{Cursor, Reader};
pub use store::{Aside, Directory, Encryption, FaultyDisk, Health, KeyFile, Medium, Stored};
pub use write::{Deleted, Deletion, Precondition, Propagation, Registry};

use crate::object::{Key, Object, Problem, Provenance, Source};

/// Lines, from 1, of fields (`spec.containers[0].image`) that something may have to be said about.
pub type FieldLines = BTreeMap<String, u32>;

/// One entry of a source's complete list.
#[derive(Clone, Debug)]
pub enum Incoming {
    /// An object as the source states it, defaulted by the source's own rules.
    Object {
        key: Key,
        provenance: Option<Provenance>,
        body: Value,
        /// For problems with a field; others are at the line of `provenance`.
        lines: FieldLines,
    },
    /// The source states this one as it stated it last. Of an object that is gone since then (a pod
    /// that was deleted and has ended) it makes nothing.
    AsBefore(Key),
    /// A text that yields no object: whatever was accepted from that file before stays, marked.
    Broken(Problem),
}

/// What became of a complete list.
#[derive(Clone, Debug, Default)]
pub struct Replaced {
    pub added: Vec<Key>,
    pub changed: Vec<Key>,
    /// Deletion was asked for (pods) or done (others).
    pub removed: Vec<Key>,
    /// Rejected or stale, each with its reason. Only those whose problem is new.
    pub problems: Vec<(Key, Problem)>,
    /// Those of the list before that this one has no more.
    pub over: Vec<(Key, Problem)>,
    /// Taken, with something to say about it (unknown fields). Only for added and changed entries.
    pub warnings: Vec<(Key, Problem)>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ChangeType {
    Added,
    Modified,
    Deleted,
}

/// One step of history, as a watch sees it.
#[derive(Clone, Debug, PartialEq)]
pub struct Change {
    pub resource_version: u64,
    pub change: ChangeType,
    /// For `Deleted`: the last state with the version of the deletion.
    pub object: Arc<Object>,
    /// The state before, for selectors; `None` for `Added`.
    pub previous: Option<Arc<Object>>,
}

/// A cursor fell off the history ring, or is from before a restart: list again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gone {
    pub oldest: u64,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Error {
    NotFound(Key),
    AlreadyExists(Key),
    /// Wrong resourceVersion or uid.
    Conflict {
        key: Key,
        message: String,
    },
    /// The same of what a deletion demands.
    DeletionConflict {
        key: Key,
        message: String,
    },
    /// Another source owns the object.
    NotOwner {
        key: Key,
        owner: Source,
    },
    /// Field path and what is wrong with it, in order.
    Invalid {
        key: Key,
        causes: Vec<(String, String)>,
    },
    /// An admission plug-in said no.
    Denied {
        key: Key,
        message: String,
        cause: Option<Box<DenialCause>>,
    },
    /// The store could not keep it (full, read-only, broken).
    Store(String),
}

/// An event to publish (core/v1 Event); repeated ones are counted, not multiplied.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EventRecord {
    pub involved: Key,
    pub uid: String,
    /// `spec.containers{web}`
    pub field_path: Option<String>,
    pub warning: bool,
    pub reason: String,
    pub message: String,
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::NotFound(key) => write!(f, "{key} not found"),
            Error::AlreadyExists(key) => write!(f, "{key} already exists"),
            Error::Conflict { key, message } | Error::DeletionConflict { key, message } => {
                write!(f, "{key}: {message}")
            }
            Error::NotOwner { key, owner } => {
                write!(f, "{key} belongs to source {}", owner.name())
            }
            Error::Invalid { key, causes } => {
                write!(f, "{key} is invalid: {}", causes_text(causes))
            }
            Error::Denied { key, message, .. } => write!(f, "{key} is forbidden: {message}"),
            Error::Store(text) => write!(f, "store: {text}"),
        }
    }
}

impl std::error::Error for Error {}

/// `spec.containers[0].image: Required value`; several in brackets, as upstream prints them.
pub(crate) fn causes_text(causes: &[(String, String)]) -> String {
    let one = |(path, what): &(String, String)| format!("{path}: {what}");
    match causes {
        [cause] => one(cause),
        several => {
            let texts: Vec<String> = several.iter().map(one).collect();
            format!("[{}]", texts.join(", "))
        }
    }
}

#[cfg(test)]
mod tests;
