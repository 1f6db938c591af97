//! The durable store behind the registry, as a queue of batches.
//!
//! ```text
//!  node thread                     store thread (or, simulated, the same one)
//!  submit(batch) ──► queue ──► group ──► one redb commit, one fsync ──► batch.done(outcome), in order
//! ```
//!
//! Nothing outside `registry` can reach it. It knows keys and bytes, no objects and no policy; it
//! never decides what is visible: `done` does.

use std::fmt;

/// Most batches waiting for the disk. Beyond it the disk is hopelessly behind.
pub(super) const QUEUED_BATCHES_MAX: usize = 1024;

/// Whether what is published is also stored.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Health {
    #[default]
    Ok,
    /// Objects of manifests go on; API writes are refused. Operation, path and cause.
    Degraded(String),
}

/// Why a batch was not stored: operation, path and cause.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct StoreError(pub String);

impl fmt::Display for StoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// One change of the store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Write {
    Put {
        key: String,
        value: Vec<u8>,
    },
    Remove {
        key: String,
    },
    /// Versions below this one may be given out.
    ReserveVersions {
        below: u64,
    },
}

/// What runs once the outcome is known; on the store's thread.
pub(super) type Done = Box<dyn FnOnce(Result<(), StoreError>) + Send>;

/// Writes that become durable together, or not at all.
pub(super) struct Batch {
    pub writes: Vec<Write>,
    pub done: Done,
}

/// The way to the disk.
pub(super) enum Queue {
    /// Nothing survives: for tests of what is above the store.
    Nowhere,
}

impl Queue {
    /// Hands a batch over without waiting. A full queue refuses it at once, through `done`.
    pub fn submit(&self, batch: Batch) {
        match self {
            Queue::Nowhere => (batch.done)(Ok(())),
        }
    }
}

pub(super) struct Records {}
impl Records {
    pub fn put(&self, object: &crate::object::Object, _random: &dyn crate::world::Random) -> Write {
        Write::Put {
            key: object.key.to_string(),
            value: Vec::new(),
        }
    }
    pub fn remove(&self, key: &crate::object::Key) -> Write {
        Write::Remove {
            key: key.to_string(),
        }
    }
}
