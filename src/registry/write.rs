//! The writing side: one object at a time, for the API server and the kubelet.
//!
//! `replace.rs` has the complete lists of sources, `events.rs` the events, `desk.rs` admission,
//! `commit.rs` the way to the disk and into view.

use std::rc::Rc;
use std::sync::Arc;

use serde_json::Value;

use super::admission::Operation;
use super::commit::Visible;
use super::desk::{Desk, grace_of, same_but_for_versions};
use super::published::Step;
use super::reader::Reader;
use super::store::Health;
use super::{Actor, Error, EventRecord};
use crate::object::{self, Key, Kind, Object, Source};
use crate::world::LocalFuture;

/// The writing side; lives on the thread that owns the node's state. Cheap to clone.
#[derive(Clone)]
pub struct Registry {
    pub(super) desk: Rc<Desk>,
}

/// What must still be true of an object for a write to happen. `None` asks nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Precondition {
    pub resource_version: Option<String>,
    pub uid: Option<String>,
}

/// How an object shall go.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Deletion {
    /// Seconds; `None`: what the pod says. 0 removes it from view at once.
    pub grace_s: Option<i64>,
    pub precondition: Precondition,
}

impl Registry {
    pub fn reader(&self) -> Reader {
        Reader {
            shared: self.desk.committer.shared.clone(),
        }
    }

    /// Whether what is published is also stored.
    pub fn health(&self) -> Health {
        self.desk.committer.health()
    }

    /// Resolves once everything accepted so far is stored, or could not be.
    pub fn flush(&self) -> LocalFuture<'_, Health> {
        Box::pin(async {
            let flushed = self.desk.committer.submit(Visible::AfterFlush, Vec::new());
            // An error shows in health, together with what could not be kept.
            let _ = flushed.await;
            self.health()
        })
    }

    /// Makes an object. uid and creationTimestamp are the registry's for `Source::Api`; others may
    /// bring theirs. Resolves when it is stored. Errors: `AlreadyExists`, `Invalid`, `Denied`,
    /// `Store`.
    pub fn create(
        &self,
        actor: impl Into<Actor>,
        key: Key,
        mut body: Value,
    ) -> LocalFuture<'_, Result<Arc<Object>, Error>> {
        let actor = actor.into();
        let source = actor.source;
        Box::pin(async move {
            self.desk.committer.settled(|busy| busy == &key).await;
            if self.current(&key).is_some() {
                return Err(Error::AlreadyExists(key));
            }
            if source == Source::Api
                && let Some(metadata) = body.get_mut("metadata").and_then(Value::as_object_mut)
            {
                for given in ["uid", "creationTimestamp", "resourceVersion"] {
                    metadata.remove(given);
                }
            }
            self.desk
                .admit(Operation::Create, &actor, &key, None, &mut body)?;
            let object = self.desk.complete(source, key, None, None, body)?;
            self.put(object).await
        })
    }

    /// Replaces all but the status. Without a change nothing is written and the current object
    /// comes back. Errors: `NotFound`, `Conflict`, `NotOwner`, `Invalid`, `Denied`, `Store`.
    pub fn update(
        &self,
        actor: impl Into<Actor>,
        key: Key,
        mut body: Value,
        precondition: Precondition,
    ) -> LocalFuture<'_, Result<Arc<Object>, Error>> {
        let actor = actor.into();
        let source = actor.source;
        Box::pin(async move {
            self.desk.committer.settled(|busy| busy == &key).await;
            let current = self.owned(source, &key)?;
            precondition.check(&current)?;
            Precondition::of(&body).check(&current)?;
            self.desk
                .admit(Operation::Update, &actor, &key, Some(&current), &mut body)?;
            let provenance = current.provenance.clone();
            let object =
                self.desk
                    .complete(source, key.clone(), provenance, Some(&current), body)?;
            let causes = object::validate_update(key.kind, &object.body, &current.body);
            if !causes.is_empty() {
                return Err(Error::Invalid { key, causes });
            }
            if same_but_for_versions(&object.body, &current.body) {
                return Ok(current);
            }
            self.put(object).await
        })
    }

    /// Asks for a deletion: a pod gets its deletionTimestamp and stays until `finish_deletion`
    /// (unless the grace period is 0), others go at once. Resolves when that is stored, with the
    /// object as it is or was. A second request may only shorten the grace period.
    pub fn delete(
        &self,
        actor: impl Into<Actor>,
        key: Key,
        deletion: Deletion,
    ) -> LocalFuture<'_, Result<Arc<Object>, Error>> {
        let actor = actor.into();
        let source = actor.source;
        Box::pin(async move {
            self.desk.committer.settled(|busy| busy == &key).await;
            let current = self.owned(source, &key)?;
            deletion.precondition.check(&current)?;
            self.desk.admit_deletion(&actor, &current)?;
            let grace_s = match deletion.grace_s {
                Some(negative) if negative < 0 => 1,
                Some(asked) => asked,
                None => grace_of(&current),
            };
            if key.kind != Kind::Pod || grace_s == 0 {
                let uid = current.uid().to_owned();
                self.commit(Visible::AfterFlush, Step::Remove { key, uid })
                    .await?;
                return Ok(current);
            }
            match self.desk.deleting(&current, grace_s) {
                Some(object) => self.put(object).await,
                None => Ok(current),
            }
        })
    }

    /// Publishes a status; not flushed. Ignored if the object is gone or has another uid.
    pub fn update_status(&self, key: &Key, uid: &str, status: Value) {
        let step = Step::Status {
            key: key.clone(),
            uid: uid.to_owned(),
            status,
        };
        self.desk.committer.publish(vec![step]);
    }

    /// Ends a deletion: removes the object if it (same uid) is being deleted. What its source has
    /// stated under this key in the meantime appears now.
    pub fn finish_deletion(&self, key: &Key, uid: &str) {
        let Some(current) = self.current(key) else {
            return;
        };
        if current.uid() != uid || !current.is_deleting() {
            return;
        }
        let mut steps = vec![Step::Remove {
            key: key.clone(),
            uid: uid.to_owned(),
        }];
        if let Some(successor) = self.desk.lists.borrow_mut().take_returning(key) {
            steps.push(Step::Put(Box::new(successor)));
        }
        let visible = Visible::for_list_of(current.source);
        drop(self.desk.committer.submit(visible, steps));
    }

    /// Publishes an event. Bounded in number; never flushed.
    pub fn record(&self, event: EventRecord) {
        let now = self.desk.stamp();
        let reader = self.reader();
        let steps = self.desk.events.borrow_mut().record(
            event,
            now,
            &self.desk.node_name,
            &self.desk.limits,
            &reader,
        );
        self.desk.committer.publish(steps);
    }

    /// Forgets events whose time is over. Rides on rescans: an idle node has no timer for it.
    pub(super) fn expire_events(&self) {
        let steps = self.desk.events.borrow_mut().expire(
            self.desk.clock.now(),
            self.desk.limits.events + 1,
            &self.desk.limits,
            &self.reader(),
        );
        if !steps.is_empty() {
            self.desk.committer.publish(steps);
        }
    }

    /// Whether `source` has handed over a complete list since the start of this process.
    pub fn has_listed(&self, source: Source) -> bool {
        self.desk.lists.borrow().has_listed(source)
    }

    pub(super) fn current(&self, key: &Key) -> Option<Arc<Object>> {
        self.reader().get(key)
    }

    fn owned(&self, source: Source, key: &Key) -> Result<Arc<Object>, Error> {
        let current = self
            .current(key)
            .ok_or_else(|| Error::NotFound(key.clone()))?;
        if current.source == source {
            Ok(current)
        } else {
            Err(Error::NotOwner {
                key: key.clone(),
                owner: current.source,
            })
        }
    }

    async fn put(&self, object: Object) -> Result<Arc<Object>, Error> {
        let key = object.key.clone();
        let stored = self
            .commit(Visible::AfterFlush, Step::Put(Box::new(object)))
            .await?;
        stored.ok_or(Error::NotFound(key))
    }

    async fn commit(&self, visible: Visible, step: Step) -> Result<Option<Arc<Object>>, Error> {
        let outcome = self.desk.committer.submit(visible, vec![step]);
        outcome.await.map_err(|error| Error::Store(error.0))
    }
}

impl Precondition {
    /// What the body itself demands: a resourceVersion or uid that was read before.
    fn of(body: &Value) -> Precondition {
        let text = |name: &str| {
            let text = body["metadata"][name].as_str()?;
            (!text.is_empty()).then(|| text.to_owned())
        };
        Precondition {
            resource_version: text("resourceVersion"),
            uid: text("uid"),
        }
    }

    fn check(&self, current: &Object) -> Result<(), Error> {
        let conflict = |message: String| Error::Conflict {
            key: current.key.clone(),
            message,
        };
        if let Some(uid) = &self.uid
            && uid != current.uid()
        {
            return Err(conflict(format!(
                "the UID in the precondition ({uid}) does not match the UID in record ({})",
                current.uid()
            )));
        }
        match &self.resource_version {
            Some(version) if *version != current.resource_version.to_string() => Err(conflict(
                "the object has been modified; please apply your changes to the latest version \
                 and try again"
                    .to_owned(),
            )),
            _ => Ok(()),
        }
    }
}
