//! From decided to stored to visible.
//!
//! ```text
//!   Visible::AtOnce        publish ─► store behind      manifest files, the node itself
//!   Visible::AfterFlush    store ─► publish             the API: refused if it cannot be stored
//!   Visible::AfterAttempt  store ─► publish, stored or not     URL, remote: they say it again
//! ```
//!
//! Publication happens where the flush ends, not where somebody waits for it: a caller who goes
//! away takes nothing with him. What could not be stored behind stays `dirty` and rides on the
//! next batch, in its newest state; nothing retries by itself.

use std::cell::{Cell, RefCell};
use std::collections::BTreeSet;
use std::future::Future;
use std::rc::Rc;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use event_listener::Event;

use super::published::{Shared, Step};
use super::store::{Batch, Health, KeyFile, Queue, Records, StoreError, Write};
use crate::object::{Key, Kind, Object, Source, Standing};
use crate::world::Random;

/// Versions reserved by one flush. Each start of the process skips what is left of a block.
pub(super) const VERSION_BLOCK: u64 = 1 << 16;

/// When a write becomes visible.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Visible {
    AtOnce,
    AfterFlush,
    AfterAttempt,
}

impl Visible {
    /// For single writes: what is never stored has no flush to wait for.
    pub fn for_write_of(kind: Kind) -> Visible {
        match kind.durable() {
            true => Visible::AfterFlush,
            false => Visible::AtOnce,
        }
    }

    /// For writes that follow from a source's complete list.
    pub fn for_list_of(source: Source) -> Visible {
        match source {
            Source::File | Source::Node => Visible::AtOnce,
            Source::Http | Source::Remote => Visible::AfterAttempt,
            Source::Api => Visible::AfterFlush,
        }
    }
}

/// The state of writes between their decision and the disk.
struct Flight {
    state: Mutex<InFlight>,
    /// Rings when keys stop being busy.
    settled: Event,
}

#[derive(Default)]
struct InFlight {
    /// Keys with a decided, not yet visible write.
    busy: BTreeSet<Key>,
    /// Keys whose visible state is not stored.
    dirty: BTreeSet<Key>,
    /// A reservation of versions that did not reach the disk.
    unreserved: bool,
    health: Health,
}

impl Flight {
    fn look(&self) -> MutexGuard<'_, InFlight> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

pub(super) struct Committer {
    pub shared: Arc<Shared>,
    flight: Arc<Flight>,
    queue: Queue,
    records: RefCell<Records>,
    random: Rc<dyn Random>,
    /// The store's file holds, or held, Secrets in clear.
    exposed: Cell<bool>,
    /// Versions below are reserved on disk, or on their way there.
    reserved: Cell<u64>,
}

/// What opening the store found.
pub(super) struct Start {
    /// Versions below are reserved.
    pub reserved: u64,
    pub health: Health,
    pub exposed: bool,
}

impl Committer {
    pub fn new(
        shared: Arc<Shared>,
        queue: Queue,
        records: Records,
        random: Rc<dyn Random>,
        start: Start,
    ) -> Committer {
        let Start {
            reserved,
            health,
            exposed,
        } = start;
        let state = InFlight {
            unreserved: health != Health::Ok,
            health,
            ..InFlight::default()
        };
        Committer {
            shared,
            flight: Arc::new(Flight {
                state: Mutex::new(state),
                settled: Event::new(),
            }),
            queue,
            records: RefCell::new(records),
            random,
            exposed: Cell::new(exposed),
            reserved: Cell::new(reserved),
        }
    }

    pub fn health(&self) -> Health {
        self.flight.look().health.clone()
    }

    /// Whether something visible is not stored.
    pub fn is_dirty(&self) -> bool {
        let state = self.flight.look();
        state.unreserved || !state.dirty.is_empty()
    }

    /// Whether the store has what is visible under this key, or that nothing is.
    pub fn is_stored(&self, key: &Key) -> bool {
        let state = self.flight.look();
        !state.dirty.contains(key) && !state.busy.contains(key)
    }

    /// Whether a write of this key is decided and not visible yet.
    pub fn is_busy(&self, key: &Key) -> bool {
        self.flight.look().busy.contains(key)
    }

    /// All keys with a write decided and not visible yet.
    pub fn busy(&self) -> Vec<Key> {
        self.flight.look().busy.iter().cloned().collect()
    }

    /// Waits until no key that `concerns` picks has a write on its way.
    pub async fn settled(&self, concerns: impl Fn(&Key) -> bool) {
        loop {
            let settled = self.flight.settled.listen();
            if !self.flight.look().busy.iter().any(&concerns) {
                return;
            }
            settled.await;
        }
    }

    /// Seals as the file says from now on. Returns whether that is another way than before.
    pub fn use_keys(&self, file: KeyFile) -> bool {
        let mut records = self.records.borrow_mut();
        let before = records.seal_id();
        records.use_file(file);
        records.seal_id() != before
    }

    /// Stores what is visible under `keys` once more, in one commit.
    pub fn rewrite(
        &self,
        keys: Vec<Key>,
    ) -> impl Future<Output = Result<Option<Arc<Object>>, StoreError>> + 'static {
        self.flight.look().dirty.extend(keys);
        self.submit(Visible::AfterFlush, Vec::new())
    }

    /// Rids the store's file of what free pages hold of Secrets, if anything. Nothing may be left that
    /// lies in clear.
    pub async fn scrub(&self) -> Result<(), StoreError> {
        let sealing = self.records.borrow().seal_id().is_some();
        if !sealing || !self.exposed.replace(false) {
            return Ok(());
        }
        let (answer, answered) = async_channel::bounded(1);
        self.queue.submit(Batch {
            writes: vec![Write::Scrub],
            done: Box::new(move |outcome| drop(answer.try_send(outcome.map(|()| None)))),
        });
        let scrubbed = wait(Some(answered)).await.map(drop);
        self.exposed.set(self.exposed.get() || scrubbed.is_err());
        scrubbed
    }

    /// Makes derived changes visible: nothing of them is stored.
    pub fn publish(&self, steps: Vec<Step>) {
        self.shared.publish(steps);
        self.reserve_versions();
    }

    /// Sends steps on their way, all or none. They go whether or not the answer is waited for; it
    /// carries the newest state of the last step's object, as published.
    pub fn submit(
        &self,
        visible: Visible,
        steps: Vec<Step>,
    ) -> impl Future<Output = Result<Option<Arc<Object>>, StoreError>> + 'static {
        let (answer, answered) = async_channel::bounded(1);
        let mut writes = self.take_dirty(&steps);
        let reserving = std::mem::take(&mut self.flight.look().unreserved);
        let repaired: Vec<Key> = writes.iter().map(|(key, _)| key.clone()).collect();
        writes.extend(steps.iter().filter_map(|step| self.write_of(step)));
        let exposes = |(_, write): &(Key, Write)| matches!(write, Write::PutExposed { .. });
        if writes.iter().any(exposes) {
            self.exposed.set(true);
        }
        let keys: Vec<Key> = steps.iter().map(|step| step.key().clone()).collect();
        let written: Vec<Key> = writes.iter().map(|(key, _)| key.clone()).collect();

        let shared = self.shared.clone();
        let later = match visible {
            Visible::AtOnce => {
                shared.publish(steps);
                Vec::new()
            }
            Visible::AfterFlush | Visible::AfterAttempt => {
                self.flight.look().busy.extend(keys.iter().cloned());
                steps
            }
        };
        let flight = self.flight.clone();
        let done = move |outcome: Result<(), StoreError>| {
            let kept = match (&outcome, visible) {
                (Ok(()), _) | (Err(_), Visible::AtOnce | Visible::AfterAttempt) => Ok(()),
                (Err(error), Visible::AfterFlush) => Err(error.clone()),
            };
            let newest = kept.map(|()| {
                shared.publish(later);
                let newest = keys.last().and_then(|key| shared.look().get(key).cloned());
                newest.map(|object| Arc::new(object.unpack()))
            });
            let mut state = flight.look();
            match (&outcome, visible) {
                (Ok(()), _) => {}
                (Err(_), Visible::AfterFlush) => state.dirty.extend(repaired),
                (Err(_), Visible::AtOnce | Visible::AfterAttempt) => state.dirty.extend(written),
            }
            state.unreserved |= reserving && outcome.is_err();
            state.health = match outcome {
                Ok(()) if state.dirty.is_empty() => Health::Ok,
                Ok(()) => state.health.clone(),
                Err(error) => Health::Degraded(error.0),
            };
            for key in &keys {
                state.busy.remove(key);
            }
            drop(state);
            flight.settled.notify(usize::MAX);
            // Nobody may be waiting any more; that is his right.
            let _ = answer.try_send(newest);
        };
        let mut writes: Vec<Write> = writes.into_iter().map(|(_, write)| write).collect();
        if reserving {
            let below = self.reserved.get();
            writes.push(Write::ReserveVersions { below });
        }
        if writes.is_empty() && visible == Visible::AtOnce {
            self.publish(Vec::new());
            // Nothing to store: no reason to wake the disk.
            return wait(None);
        }
        self.queue.submit(Batch {
            writes,
            done: Box::new(done),
        });
        self.reserve_versions();
        wait(Some(answered))
    }

    /// Reserves the next block early enough that versions never wait for the disk.
    fn reserve_versions(&self) {
        let version = self.shared.look().version();
        if version + VERSION_BLOCK / 2 < self.reserved.get() {
            return;
        }
        let below = version + VERSION_BLOCK;
        self.reserved.set(below);
        let flight = self.flight.clone();
        self.queue.submit(Batch {
            writes: vec![Write::ReserveVersions { below }],
            done: Box::new(move |outcome| {
                if let Err(error) = outcome {
                    let mut state = flight.look();
                    state.unreserved = true;
                    state.health = Health::Degraded(error.0);
                }
            }),
        });
    }

    /// Writes that bring the store up to date with what is visible, but for what `steps` write.
    fn take_dirty(&self, steps: &[Step]) -> Vec<(Key, Write)> {
        let dirty = std::mem::take(&mut self.flight.look().dirty);
        let stale = dirty
            .into_iter()
            .filter(|key| !steps.iter().any(|step| step.key() == key));
        stale
            .map(|key| {
                let current = self.shared.look().get(&key).cloned();
                let write = match current {
                    Some(object) => self.records.borrow().put(&object.unpack(), &*self.random),
                    None => self.records.borrow().remove(&key),
                };
                (key, write)
            })
            .collect()
    }

    fn write_of(&self, step: &Step) -> Option<(Key, Write)> {
        if !step.key().kind.durable() {
            return None;
        }
        let write = match step {
            Step::Put(object) | Step::PutWhole(object) => match object.standing {
                // Shown, not kept (the source will say it again); or kept as it is.
                Standing::Rejected(_) | Standing::Stale(_) => return None,
                Standing::Accepted => self.records.borrow().put(object, &*self.random),
            },
            Step::Status { .. } => return None,
            Step::Remove { key, .. } => self.records.borrow().remove(key),
        };
        Some((step.key().clone(), write))
    }
}

async fn wait(
    answered: Option<async_channel::Receiver<Result<Option<Arc<Object>>, StoreError>>>,
) -> Result<Option<Arc<Object>>, StoreError> {
    match answered {
        None => Ok(None),
        Some(answered) => answered
            .recv()
            .await
            .unwrap_or_else(|_| Err(StoreError("the store has stopped".to_owned()))),
    }
}
