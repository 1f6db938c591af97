//! The garbage collector: what an object owned goes after it, goes before it, or stays.
//!
//! ```text
//!  change ─► graph (who names whom as owner) ─► due: dependants to judge, owners that wait
//!                                                 │
//!  bounded steps ◄────────────────────────────────┘ ─► delete, drop references, drop finalizers
//! ```
//! A pod that is being deleted goes when its node does. Only what the API owns is deleted. Owners of
//! kinds that are not served here count as there.
//! Source: Kubernetes pkg/controller/garbagecollector (graph_builder.go, garbagecollector.go).

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::owners::{
    FOREGROUND, ORPHAN, Owner, State, Verdict, has_finalizer, judge, owners, unblocked,
    without_finalizer, without_owners,
};
use super::{Controllers, Outcome, Patience, actor};
use crate::object::{Key, Kind, Object, Origin, Source};
use crate::registry::{
    ChangeType, Deletion, EventRecord, Packed, PackedChange, Precondition, Propagation, Reader,
};

/// Objects that are looked at before changes are taken in again.
const STEPS_MAX: usize = 32;

/// Kinds whose objects may be owned. Upstream leaves events out too.
const KINDS: [Kind; Kind::ALL.len() - 1] = [
    Kind::Pod,
    Kind::Node,
    Kind::Namespace,
    Kind::ConfigMap,
    Kind::Secret,
    Kind::ServiceAccount,
    Kind::Service,
    Kind::Endpoints,
    Kind::LimitRange,
    Kind::ResourceQuota,
    Kind::Lease,
    Kind::PriorityClass,
];

/// Who names whom as owner, and what is to be looked at.
#[derive(Default)]
struct Graph {
    /// Objects that name owners.
    owned: BTreeMap<Key, Vec<Owner>>,
    /// UID of an owner, to those that name it.
    owning: BTreeMap<String, BTreeSet<Key>>,
    due: BTreeSet<Key>,
}

/// Collects, for ever.
pub async fn collect(controllers: Controllers) {
    let reader = controllers.reader();
    let mut patience = Patience::default();
    loop {
        let version = reader.version();
        let Ok(mut cursors) = reader.watch_all(&KINDS, version) else {
            continue;
        };
        let mut graph = Graph::default();
        for kind in KINDS {
            for object in reader.list_packed(kind, None).0 {
                graph.note(&object);
            }
        }
        loop {
            let outcome = graph.steps(&controllers).await;
            let changes = match cursors.ready() {
                // What is due goes on as soon as others have had their turn.
                Ok(None) if !graph.due.is_empty() && outcome == Outcome::Settled => {
                    futures_lite::future::yield_now().await;
                    continue;
                }
                Ok(None) => {
                    let mut changes = Ok(Vec::new());
                    let change = async { changes = cursors.next().await };
                    patience.wait(&*controllers.clock, outcome, change).await;
                    changes
                }
                Ok(Some(changes)) => Ok(changes),
                Err(gone) => Err(gone),
            };
            let Ok(changes) = changes else {
                // Some were missed.
                break;
            };
            for change in &changes {
                graph.changed(&reader, change);
            }
        }
    }
}

impl Graph {
    fn changed(&mut self, reader: &Reader, change: &PackedChange) {
        let object = &change.object;
        match change.change {
            ChangeType::Deleted => {
                self.forget(object.key());
                self.look_at_dependants(object.uid());
                if object.key().kind == Kind::Node {
                    let (pods, _) = reader.list_packed(Kind::Pod, None);
                    let deleting = pods.iter().filter(|pod| pod.is_deleting());
                    self.due.extend(deleting.map(|pod| pod.key().clone()));
                }
            }
            ChangeType::Added => self.note(object),
            // Nothing that counts here is in a status.
            ChangeType::Modified => {
                let before = change.previous.as_ref();
                if !before.is_some_and(|before| before.shares_all_but_status(object)) {
                    self.note(object);
                }
            }
        }
    }

    fn note(&mut self, object: &Packed) {
        let key = object.key();
        if key.origin != Origin::Local {
            return;
        }
        let metadata = object.metadata();
        self.forget(key);
        let owners = owners(&metadata);
        if !owners.is_empty() {
            for owner in &owners {
                let dependants = self.owning.entry(owner.uid.clone()).or_default();
                dependants.insert(key.clone());
            }
            self.owned.insert(key.clone(), owners);
            self.due.insert(key.clone());
        }
        if object.is_deleting() {
            self.due.insert(key.clone());
            self.look_at_dependants(object.uid());
        }
    }

    /// The object names nobody any more; its owners may have waited for that.
    fn forget(&mut self, key: &Key) {
        for owner in self.owned.remove(key).unwrap_or_default() {
            if let Some(dependants) = self.owning.get_mut(&owner.uid) {
                dependants.remove(key);
                if dependants.is_empty() {
                    self.owning.remove(&owner.uid);
                }
            }
            self.due.extend(owner.key(key));
        }
    }

    fn look_at_dependants(&mut self, uid: &str) {
        let dependants = self.owning.get(uid).into_iter().flatten();
        self.due.extend(dependants.cloned());
    }

    fn dependants(&self, uid: &str) -> Vec<Key> {
        let dependants = self.owning.get(uid).into_iter().flatten();
        dependants.cloned().collect()
    }

    /// Does what is due, in bounded number; what fails stays due.
    async fn steps(&mut self, controllers: &Controllers) -> Outcome {
        let mut outcome = Outcome::Settled;
        let mut failed = Vec::new();
        for _ in 0..STEPS_MAX {
            let Some(key) = self.due.pop_first() else {
                break;
            };
            let done = self.step(controllers, &key).await;
            if done == Outcome::Failed {
                failed.push(key);
            }
            outcome = outcome.and(done);
        }
        self.due.extend(failed);
        outcome
    }

    async fn step(&self, controllers: &Controllers, key: &Key) -> Outcome {
        let Some(object) = controllers.reader().get(key) else {
            return Outcome::Settled;
        };
        // Its node has gone meanwhile: nobody is left to say that it has stopped.
        if object.deletion_grace_s().is_some_and(|grace_s| grace_s > 0)
            && controllers.registry.lacks_node(&object)
        {
            return delete(controllers, &object, None).await;
        }
        let metadata = object.metadata();
        if object.is_deleting() && has_finalizer(metadata, ORPHAN) {
            return self.orphan(controllers, &object).await;
        }
        let foreground = object.is_deleting() && has_finalizer(metadata, FOREGROUND);
        if foreground && !self.is_blocked(&controllers.reader(), &object) {
            let body = without_finalizer(&object.body, FOREGROUND);
            return update(controllers, &object, body).await;
        }
        if object.source != Source::Api || object.is_deleting() && !foreground {
            return Outcome::Settled;
        }
        self.judge(controllers, &object).await
    }

    /// Takes the object out of its dependants' references, then its finalizer away.
    async fn orphan(&self, controllers: &Controllers, owner: &Object) -> Outcome {
        let uid = owner.uid().to_owned();
        let mut outcome = Outcome::Settled;
        for key in self.dependants(&uid) {
            let Some(dependant) = controllers.reader().get(&key) else {
                continue;
            };
            let body = without_owners(&dependant.body, std::slice::from_ref(&uid));
            outcome = outcome.and(update(controllers, &dependant, body).await);
        }
        // One that another writer was faster with comes back here when that is seen.
        let reader = controllers.reader();
        let left = self.dependants(&uid).into_iter().filter(|key| {
            let now = reader.get(key).filter(|now| now.source == Source::Api);
            now.is_some_and(|now| owners(now.metadata()).iter().any(|owner| owner.uid == uid))
        });
        if outcome == Outcome::Failed || left.count() > 0 {
            return outcome;
        }
        let body = without_finalizer(&owner.body, ORPHAN);
        update(controllers, owner, body).await
    }

    /// Whether something that the API may delete holds the owner back.
    fn is_blocked(&self, reader: &Reader, owner: &Object) -> bool {
        let uid = owner.uid();
        self.dependants(uid).iter().any(|key| {
            let named = self.owned.get(key).into_iter().flatten();
            let blocks = named
                .filter(|named| named.uid == uid)
                .any(|named| named.blocks);
            let dependant = reader.get_packed(key);
            blocks && dependant.is_some_and(|now| now.source() == Source::Api)
        })
    }

    async fn judge(&self, controllers: &Controllers, object: &Object) -> Outcome {
        let reader = controllers.reader();
        let named = owners(object.metadata()).into_iter();
        let states: Vec<(Owner, State)> = named
            .map(|owner| {
                let state = state(controllers, &owner, object);
                (owner, state)
            })
            .collect();
        let dependants = self.dependants(object.uid());
        match judge(&states, object.metadata(), !dependants.is_empty()) {
            Verdict::Stays => Outcome::Settled,
            Verdict::Loses(uids) => {
                let body = without_owners(&object.body, &uids);
                update(controllers, object, body).await
            }
            Verdict::Goes(propagation) => {
                let circular = propagation == Propagation::Foreground
                    && dependants.iter().any(|key| waits(&reader, key));
                if circular {
                    let body = unblocked(&object.body);
                    if body != object.body {
                        // The change brings the object back here.
                        return update(controllers, object, body).await;
                    }
                }
                if object.is_deleting() {
                    return Outcome::Settled;
                }
                delete(controllers, object, Some(propagation)).await
            }
        }
    }
}

/// Whether the object is being deleted in the foreground.
fn waits(reader: &Reader, key: &Key) -> bool {
    let object = reader.get_packed(key).filter(|object| object.is_deleting());
    object.is_some_and(|object| has_finalizer(&object.metadata(), FOREGROUND))
}

fn state(controllers: &Controllers, owner: &Owner, dependant: &Object) -> State {
    let reader = controllers.reader();
    let Some(kind) = owner.known_kind() else {
        return State::There;
    };
    let Some(key) = owner.key(&dependant.key) else {
        tell(controllers, owner, dependant);
        return State::There;
    };
    let found = reader
        .get_packed(&key)
        .filter(|found| found.uid() == owner.uid);
    match found {
        Some(_) if waits(&reader, &key) => State::Waits,
        Some(_) => State::There,
        None => {
            let (all, _) = reader.list_packed(kind, None);
            if all.iter().any(|one| one.uid() == owner.uid) {
                tell(controllers, owner, dependant);
            }
            State::Gone
        }
    }
}

/// An owner that is elsewhere than a reference may point.
fn tell(controllers: &Controllers, owner: &Owner, dependant: &Object) {
    let Owner {
        api_version,
        kind,
        name,
        uid,
        ..
    } = owner;
    let namespace = &dependant.key.namespace;
    controllers.registry.record(EventRecord {
        involved: dependant.key.clone(),
        uid: dependant.uid().to_owned(),
        field_path: None,
        warning: true,
        reason: "OwnerRefInvalidNamespace".to_owned(),
        message: format!(
            "ownerRef [{api_version}/{kind}, namespace: {namespace}, name: {name}, uid: {uid}] \
             does not exist in namespace {namespace:?}"
        ),
    });
}

async fn update(controllers: &Controllers, object: &Object, body: Value) -> Outcome {
    if object.source != Source::Api {
        return Outcome::Settled;
    }
    // The body has the version that was looked at.
    let nothing_more = Precondition::default();
    let key = object.key.clone();
    let registry = &controllers.registry;
    Outcome::of(registry.update(actor(), key, body, nothing_more).await)
}

async fn delete(controllers: &Controllers, object: &Object, how: Option<Propagation>) -> Outcome {
    let deletion = Deletion {
        precondition: Precondition {
            uid: Some(object.uid().to_owned()),
            resource_version: None,
        },
        propagation: how,
        ..Deletion::default()
    };
    let key = object.key.clone();
    let registry = &controllers.registry;
    Outcome::of(registry.delete(actor(), key, deletion).await)
}
