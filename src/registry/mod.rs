//! The one door: desired and published state meet here, and nothing is written past it.
//!
//! (interface fixed; bodies being written)

use std::sync::Arc;

use serde_json::Value;

use crate::object::{Key, Kind, Object, Problem, Provenance, Source};
use crate::world::LocalFuture;

/// One entry of a source's complete list.
#[derive(Clone, Debug)]
pub enum Incoming {
    /// An object as the source states it, defaulted by the source's own rules.
    Object {
        key: Key,
        provenance: Option<Provenance>,
        body: Value,
    },
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
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ChangeType {
    Added,
    Modified,
    Deleted,
}

/// One step of history, as a watch sees it.
#[derive(Clone, Debug)]
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

/// The writing side; lives on the thread that owns the node's state. Cheap to clone.
#[derive(Clone)]
pub struct Registry {}

/// The reading side: `Send`, never blocks the writer for long, sees whole states only.
#[derive(Clone)]
pub struct Reader {}

/// A watch: yields changes after a version, in order, without gaps.
pub struct Cursor {}

impl Registry {
    pub fn reader(&self) -> Reader {
        todo!()
    }

    /// Replaces everything that `source` owns by its complete list: adds, changes, removes.
    /// Unchanged entries cost nothing. Entries that cannot be taken are kept as they were (or shown
    /// as rejected) and reported.
    pub fn replace(
        &self,
        _source: Source,
        _complete: Vec<Incoming>,
    ) -> LocalFuture<'_, Result<Replaced, Error>> {
        todo!()
    }

    /// Publishes a status; not flushed. Ignored if the object is gone or has another uid.
    pub fn update_status(&self, _key: &Key, _uid: &str, _status: Value) {
        todo!()
    }

    /// Ends a deletion: removes the object if it (same uid) is being deleted.
    pub fn finish_deletion(&self, _key: &Key, _uid: &str) {
        todo!()
    }

    /// Publishes an event. Bounded in number; never flushed.
    pub fn record(&self, _event: EventRecord) {
        todo!()
    }

    /// Whether `source` has handed over a complete list since the start of this process.
    pub fn has_listed(&self, _source: Source) -> bool {
        todo!()
    }
}

impl Reader {
    pub fn get(&self, _key: &Key) -> Option<Arc<Object>> {
        todo!()
    }

    /// Objects of one kind in key order, and the version that the list shows.
    pub fn list(&self, _kind: Kind, _namespace: Option<&str>) -> (Vec<Arc<Object>>, u64) {
        todo!()
    }

    pub fn version(&self) -> u64 {
        todo!()
    }

    /// Changes of `kind` after `version`.
    pub fn watch(&self, _kind: Kind, _version: u64) -> Result<Cursor, Gone> {
        todo!()
    }
}

impl Cursor {
    /// Waits until there is at least one change; at most 256 at a time.
    pub async fn next(&mut self) -> Result<Vec<Arc<Change>>, Gone> {
        todo!()
    }
}
