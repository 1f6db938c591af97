//! The durable store behind the registry, as a queue of batches.
//!
//! ```text
//!  node thread                  store thread (simulated: the same thread)
//!  submit(batch) ──► queue ──► group ──► one redb commit, one fsync ──► batch.done(outcome), in order
//! ```
//!
//! Nothing outside `registry` can write to it. It knows keys and bytes, no policy; it never decides
//! what is visible: `done` does.

mod engine;
mod faulty;
mod keys;
mod medium;
mod queue;
mod record;
mod scrub;
mod seal;

use std::fmt;

#[cfg(test)]
pub(super) use engine::other_release;
pub(super) use engine::{Engine, Loaded, LookError, look, reserve};
pub use faulty::FaultyDisk;
pub use keys::{Encryption, KeyFile};
pub use medium::{Aside, Directory, Medium, Stored};
pub(super) use queue::Queue;
pub(super) use record::Records;

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
    /// A secret that is not sealed; the store remembers that there was one.
    PutExposed {
        key: String,
        value: Vec<u8>,
    },
    Remove {
        key: String,
    },
    /// After the others: the file is written anew, without what free pages hold.
    Scrub,
    /// Versions below this one may be given out.
    ReserveVersions {
        below: u64,
    },
    /// A secret that must not be stored in clear, and there is no key to seal it with.
    Refuse {
        why: String,
    },
}

/// What runs once the outcome is known; on the store's thread.
pub(super) type Done = Box<dyn FnOnce(Result<(), StoreError>) + Send>;

/// Writes that become durable together, or not at all.
pub(super) struct Batch {
    pub writes: Vec<Write>,
    pub done: Done,
}
