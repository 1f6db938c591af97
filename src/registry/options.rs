//! What a registry is opened with, and what opening found.

use std::fmt;
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use super::admission::Admit;
use super::store::{Encryption, Medium};
use crate::world::{Clock, Random};

/// Where the store lies.
pub enum Place {
    /// Nowhere: nothing survives.
    Memory,
    /// `store.redb` and `store.key` in `directory` (`--root-dir`), on a thread of the store's own.
    Root {
        directory: PathBuf,
        /// `$CREDENTIALS_DIRECTORY/lowtide-store-key`, if there is one; instead of `store.key`.
        key_credential: Option<PathBuf>,
    },
    /// On the caller's thread: simulations.
    Inline(Arc<dyn Medium>),
}

/// Named bounds; the defaults suit a small node.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Changes kept for watchers, of each kind.
    pub history_changes: usize,
    /// About this many bytes of changes, of each kind: a new status costs 1.5 KB or so.
    pub history_bytes: usize,
    /// Event objects; the oldest go first.
    pub events: usize,
    /// How long an event is shown after it was last seen, on boot time. Upstream: 1 h.
    pub event_ttl: Duration,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            history_changes: 1024,
            history_bytes: 128 << 10,
            events: 1000,
            event_ttl: Duration::from_secs(3600),
        }
    }
}

/// Everything `Registry::open` needs.
pub struct Options {
    pub place: Place,
    /// Lower-case node name: `source.host` of events, suffix of placeholder pods.
    pub node_name: String,
    pub clock: Rc<dyn Clock>,
    pub random: Rc<dyn Random>,
    pub limits: Limits,
    pub encryption: Encryption,
    /// In order; each write passes all.
    pub admission: Vec<Box<dyn Admit>>,
}

/// What opening found. `messages` are for the log, one line each, most important first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OpenReport {
    /// Objects read from the store.
    pub objects: usize,
    pub messages: Vec<String>,
    /// There was a store that this program cannot use, and it was set aside.
    pub begun_anew: bool,
}

/// Why there is no registry. Anything a node can live with is in the report instead.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OpenError {
    /// Another process has this store open.
    InUse(String),
    /// The store's thread could not be made.
    NoThread(String),
}

impl fmt::Display for OpenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            OpenError::InUse(text) | OpenError::NoThread(text) => f.write_str(text),
        }
    }
}

impl std::error::Error for OpenError {}
