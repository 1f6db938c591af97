//! What readers see: the objects of each kind and the recent past of each kind.
//!
//! Versions are given out here, at the moment of publication, so that history is in version order
//! by construction whichever way a write came (at once, or after its flush). Each kind has a
//! history of its own: a flood of events does not push a quiet watcher of pods off the edge.
//!
//! ```text
//!   put, remove ──► version + 1 ──► objects[kind]   (copy on write, shared with snapshots)
//!                              └──► history[kind]   (bounded; `floor` = newest version dropped)
//! ```
//!
//! Never waits, never does I/O; the lock around it is held for map operations only.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use event_listener::Event;
use serde_json::Value;

use super::packed::{Packed, PackedChange};
use super::{ChangeType, Gone};
use crate::object::{Key, Kind, Object, Origin, conditions};

/// Changes of leases that are kept for watchers.
const LEASE_CHANGES_MAX: usize = 32;

/// Objects of one kind in key order.
pub(super) type Objects = BTreeMap<Key, Arc<Packed>>;

/// The published state behind its lock, and the bells that wake watchers.
pub(super) struct Shared {
    state: Mutex<Published>,
    changed: [Event; Kind::ALL.len()],
}

impl Shared {
    pub fn new(published: Published) -> Shared {
        Shared {
            state: Mutex::new(published),
            changed: std::array::from_fn(|_| Event::new()),
        }
    }

    /// Looks at the state. A poisoned lock is taken: each change is one map operation, so a panic
    /// elsewhere leaves no half-made state.
    pub fn look(&self) -> MutexGuard<'_, Published> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Applies steps in order and wakes the watchers of the kinds that changed.
    pub fn publish(&self, steps: Vec<Step>) {
        let mut rung = [false; Kind::ALL.len()];
        let mut state = self.look();
        for step in steps {
            let kind = step.key().kind;
            if state.apply(step) == Applied::Changed {
                rung[kind as usize] = true;
            }
        }
        drop(state);
        for (bell, rung) in self.changed.iter().zip(rung) {
            if rung {
                bell.notify(usize::MAX);
            }
        }
    }

    pub fn bell(&self, kind: Kind) -> &Event {
        &self.changed[kind as usize]
    }
}

/// One change to make visible. Conditional where the world may have moved on since it was decided.
#[derive(Debug)]
pub(super) enum Step {
    /// The object as its source wants it. Its status, if the published one has the same uid, is
    /// the published one: status belongs to another writer.
    Put(Box<Object>),
    /// The object with the status that it brings. It has the version that this was decided on: of a
    /// pod whose status is newer by then, only conditions that are not the kubelet's count.
    PutWhole(Box<Object>),
    /// Status of the object with this uid.
    Status {
        key: Key,
        uid: String,
        status: Value,
    },
    /// Removes the object if it (still) has this uid.
    Remove { key: Key, uid: String },
}

impl Step {
    pub fn key(&self) -> &Key {
        match self {
            Step::Put(object) | Step::PutWhole(object) => &object.key,
            Step::Status { key, .. } | Step::Remove { key, .. } => key,
        }
    }
}

/// Whose status an object shows that replaces another of the same uid.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum StatusOf {
    Published,
    Written,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Applied {
    Changed,
    Nothing,
}

/// Bounds of one kind's history.
#[derive(Clone, Copy, Debug)]
pub(super) struct HistoryLimits {
    pub changes: usize,
    pub bytes: usize,
}

pub(super) struct Published {
    version: u64,
    kinds: [OneKind; Kind::ALL.len()],
    limits: HistoryLimits,
}

struct OneKind {
    objects: Arc<Objects>,
    history: VecDeque<(usize, Arc<PackedChange>)>,
    history_bytes: usize,
    /// Changes up to here are no longer in `history`.
    floor: u64,
}

impl Published {
    /// Starts with `objects` as read from the store, all at version `start`: what a version above
    /// it meant in an earlier process is not known any more, so no object may show a lower one.
    pub fn new(start: u64, objects: Vec<Object>, limits: HistoryLimits) -> Published {
        let mut by_kind: [Objects; Kind::ALL.len()] = Default::default();
        for object in objects {
            let key = object.key.clone();
            let object = Packed::new(object).at_version(start);
            by_kind[key.kind as usize].insert(key, Arc::new(object));
        }
        Published {
            version: start,
            kinds: by_kind.map(|objects| OneKind {
                objects: Arc::new(objects),
                history: VecDeque::new(),
                history_bytes: 0,
                floor: start,
            }),
            limits,
        }
    }

    pub fn version(&self) -> u64 {
        self.version
    }

    pub fn get(&self, key: &Key) -> Option<&Arc<Packed>> {
        self.kinds[key.kind as usize].objects.get(key)
    }

    /// A snapshot: later changes do not reach it.
    pub fn objects(&self, kind: Kind) -> Arc<Objects> {
        self.kinds[kind as usize].objects.clone()
    }

    /// Replaces what is known beside the body (place, line) without a new version: no watcher can
    /// see the difference.
    pub fn annotate(&mut self, object: Object) {
        let objects = Arc::make_mut(&mut self.kinds[object.key.kind as usize].objects);
        objects.insert(object.key.clone(), Arc::new(Packed::new(object)));
    }

    /// Up to `max` changes of `kind` after `after`, and the version up to which they are complete.
    pub fn after(
        &self,
        kind: Kind,
        after: u64,
        max: usize,
    ) -> Result<(Vec<Arc<PackedChange>>, u64), Gone> {
        let kind = &self.kinds[kind as usize];
        if after < kind.floor {
            return Err(Gone { oldest: kind.floor });
        }
        let first = kind
            .history
            .partition_point(|(_, change)| change.resource_version() <= after);
        let changes: Vec<_> = kind.history.range(first..).take(max).collect();
        let complete_to = match changes.last() {
            Some((_, last)) if first + changes.len() < kind.history.len() => {
                last.resource_version()
            }
            _ => self.version.max(after),
        };
        Ok((
            changes.into_iter().map(|(_, c)| c.clone()).collect(),
            complete_to,
        ))
    }

    fn apply(&mut self, step: Step) -> Applied {
        match step {
            Step::Put(object) => self.put(*object, StatusOf::Published),
            Step::PutWhole(object) => self.put(*object, StatusOf::Written),
            Step::Status { key, uid, status } => self.set_status(&key, &uid, status),
            Step::Remove { key, uid } => self.remove(&key, &uid),
        }
    }

    fn put(&mut self, object: Object, status: StatusOf) -> Applied {
        let object = Packed::new(object);
        let current = self.get(object.key()).cloned();
        match current {
            Some(current) if current.uid() == object.uid() => {
                let object = match status {
                    StatusOf::Published => object.with_status_of(&current),
                    StatusOf::Written if is_behind(&object, &current) => {
                        overtaken(object, &current)
                    }
                    StatusOf::Written => object,
                };
                self.publish(ChangeType::Modified, object, Some(current));
            }
            Some(other) => {
                self.remove(object.key(), other.uid());
                self.publish(ChangeType::Added, object, None);
            }
            None => self.publish(ChangeType::Added, object, None),
        }
        Applied::Changed
    }

    fn set_status(&mut self, key: &Key, uid: &str, mut status: Value) -> Applied {
        let Some(current) = self.get(key).filter(|object| object.uid() == uid).cloned() else {
            return Applied::Nothing;
        };
        // The cluster keeps what others put on its pods.
        if key.kind == Kind::Pod && key.origin == Origin::Local {
            conditions::keep(&mut status, &current.status());
        }
        let Some(object) = current.with_status(&status) else {
            return Applied::Nothing;
        };
        self.publish(ChangeType::Modified, object, Some(current));
        Applied::Changed
    }

    fn remove(&mut self, key: &Key, uid: &str) -> Applied {
        let Some(current) = self.get(key).filter(|object| object.uid() == uid).cloned() else {
            return Applied::Nothing;
        };
        let object = Packed::clone(&current);
        self.publish(ChangeType::Deleted, object, Some(current));
        Applied::Changed
    }

    fn publish(&mut self, change: ChangeType, object: Packed, previous: Option<Arc<Packed>>) {
        self.version += 1;
        let object = Arc::new(object.at_version(self.version));
        let kind_changed = object.key().kind;
        let kind = &mut self.kinds[kind_changed as usize];
        let objects = Arc::make_mut(&mut kind.objects);
        match change {
            ChangeType::Added | ChangeType::Modified => {
                objects.insert(object.key().clone(), object.clone());
            }
            ChangeType::Deleted => {
                objects.remove(object.key());
            }
        }
        let bytes = object.bytes_beyond(previous.as_deref());
        kind.history_bytes += bytes;
        let change = PackedChange {
            change,
            object,
            previous,
        };
        kind.history.push_back((bytes, Arc::new(change)));
        let limits = match kind_changed {
            // Renewed for ever, and nobody needs to know how it once was.
            Kind::Lease => HistoryLimits {
                changes: self.limits.changes.min(LEASE_CHANGES_MAX),
                ..self.limits
            },
            _ => self.limits,
        };
        kind.trim(limits);
    }
}

/// Whether a pod's status was published after this state of it was decided on.
fn is_behind(object: &Packed, current: &Packed) -> bool {
    object.key().kind == Kind::Pod && object.resource_version() < current.resource_version()
}

/// The object with the status of `current`, and in that the conditions of others that it brings.
fn overtaken(object: Packed, current: &Packed) -> Packed {
    let (written, mut status) = (object.status(), current.status());
    conditions::keep_named(&mut status, &written);
    for one in conditions::of_others(&written) {
        conditions::put(&mut status, one.clone());
    }
    object.with_status(&status).unwrap_or(object)
}

impl OneKind {
    /// Drops the oldest changes until the bounds hold; the newest one always stays.
    fn trim(&mut self, limits: HistoryLimits) {
        while self.history.len() > 1
            && (self.history.len() > limits.changes || self.history_bytes > limits.bytes)
        {
            if let Some((bytes, dropped)) = self.history.pop_front() {
                self.history_bytes -= bytes;
                self.floor = dropped.resource_version();
            }
        }
    }
}
