//! The writing side: one object at a time, for the API server and the kubelet.
//!
//! `replace.rs` has the complete lists of sources, `events.rs` the events, `desk.rs` admission,
//! `commit.rs` the way to the disk and into view.

use std::rc::Rc;
use std::sync::Arc;

use serde_json::Value;

use super::admission::Operation;
use super::commit::Visible;
use super::departing::{Departing, is_held};
use super::desk::{Desk, is_gated, same_but_for_versions};
use super::prepare;
use super::published::Step;
use super::reader::Reader;
use super::store::Health;
use super::{Actor, Error, EventRecord};
use crate::object::{self, Cause, Key, Kind, Object, Origin, Source};
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

/// What becomes of the objects that an object owns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Propagation {
    /// They go after it.
    Background,
    /// They go before it.
    Foreground,
    /// They stay.
    Orphan,
}

/// How an object shall go.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Deletion {
    /// Seconds; `None`: what the pod says. 0 removes it from view at once.
    pub grace_s: Option<i64>,
    pub precondition: Precondition,
    /// `None`: as the object's own finalizers say, else in the background.
    pub propagation: Option<Propagation>,
}

/// What a deletion came to.
#[derive(Clone, Debug, PartialEq)]
pub struct Deleted {
    /// As it is, or was.
    pub object: Arc<Object>,
    /// It is not there any more; else it stops, or finalizers hold it.
    pub gone: bool,
}

/// An object as it was stored, and what admission has to say to the user.
pub type Remarked = (Arc<Object>, Vec<String>);

impl Registry {
    pub fn reader(&self) -> Reader {
        Reader {
            shared: self.desk.committer.shared.clone(),
        }
    }

    /// Whether the store has what is published under this key, or that nothing is.
    pub fn is_stored(&self, key: &Key) -> bool {
        self.desk.committer.is_stored(key)
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
    /// bring theirs. A key without a name gets one from `metadata.generateName`. Resolves when it is
    /// stored. Errors: `AlreadyExists`, `Invalid`, `Denied`, `Store`.
    pub fn create(
        &self,
        actor: impl Into<Actor>,
        key: Key,
        body: Value,
    ) -> LocalFuture<'_, Result<Arc<Object>, Error>> {
        let created = self.create_with_remarks(actor.into(), key, body);
        Box::pin(async move { Ok(created.await?.0) })
    }

    /// The same with what admission has to say to the user.
    pub fn create_with_remarks(
        &self,
        actor: Actor,
        mut key: Key,
        mut body: Value,
    ) -> LocalFuture<'_, Result<Remarked, Error>> {
        let source = actor.source;
        Box::pin(async move {
            let desk = &self.desk;
            if key.name.is_empty() {
                desk.generate_name(&mut key, &mut body);
            }
            desk.committer.settled(|busy| busy == &key).await;
            if self.reader().contains(&key) {
                return Err(Error::AlreadyExists(key));
            }
            if source == Source::Api {
                prepare::create(key.kind, &mut body);
            }
            let remarks = remarks(desk.admit(Operation::Create, &actor, &key, None, &mut body)?);
            if source == Source::Api && key.kind == Kind::Pod {
                body["status"] = prepare::first_status(&body);
                desk.bind(&mut body);
            }
            let object = desk.complete(source, key, None, None, body)?;
            let object = match actor.dry_run {
                true => Arc::new(object),
                false => {
                    self.note_event(source, &object.key);
                    self.put(Step::Put(Box::new(object))).await?
                }
            };
            Ok((object, remarks))
        })
    }

    /// Replaces what the actor's subresource reaches; an object's own door leaves its status alone.
    /// Without a change nothing is written and the current object comes back. An object that only
    /// waited for its finalizers goes with the last of them. Errors: `NotFound`, `Conflict`,
    /// `NotOwner`, `Invalid`, `Denied`, `Store`.
    pub fn update(
        &self,
        actor: impl Into<Actor>,
        key: Key,
        body: Value,
        precondition: Precondition,
    ) -> LocalFuture<'_, Result<Arc<Object>, Error>> {
        let updated = self.update_with_remarks(actor.into(), key, body, precondition);
        Box::pin(async move { Ok(updated.await?.0) })
    }

    /// The same with what admission has to say to the user.
    pub fn update_with_remarks(
        &self,
        actor: Actor,
        key: Key,
        mut body: Value,
        precondition: Precondition,
    ) -> LocalFuture<'_, Result<Remarked, Error>> {
        Box::pin(async move {
            let desk = &self.desk;
            desk.committer.settled(|busy| busy == &key).await;
            let current = self.writable(&actor, &key)?;
            precondition.check(&current)?;
            Precondition::of(&body).check(&current)?;
            if actor.source == Source::Api {
                prepare::update(&key, actor.subresource, &mut body, &current.body)?;
            }
            let freed = key.kind == Kind::Pod && is_gated(&current.body) && !is_gated(&body);
            let admitted =
                desk.admit(Operation::Update, &actor, &key, Some(&current), &mut body)?;
            let remarks = remarks(admitted);
            let provenance = current.provenance.clone();
            let source = current.source;
            let object = desk.complete(source, key.clone(), provenance, Some(&current), body)?;
            let (new, old) = (&object.body, &current.body);
            let causes = object::validate_update(key.kind, actor.subresource, new, old);
            if !causes.is_empty() {
                return Err(Error::Invalid { key, causes });
            }
            let mut object = object;
            if freed {
                desk.bind(&mut object.body);
            }
            if same_but_for_versions(&object.body, &current.body) {
                return Ok((current, remarks));
            }
            if actor.dry_run {
                return Ok((Arc::new(object), remarks));
            }
            if is_over(&current) && !is_held(&object) {
                let uid = current.uid().to_owned();
                self.commit(Step::Remove { key, uid }).await?;
                return Ok((Arc::new(object), remarks));
            }
            self.note_event(source, &key);
            object.resource_version = current.resource_version;
            let object = Box::new(object);
            let step = match actor.subresource {
                "status" | "binding" => Step::PutWhole(object),
                _ => Step::Put(object),
            };
            Ok((self.put(step).await?, remarks))
        })
    }

    /// Admits what is done to an object by posting `act` to a subresource of it (an eviction, a
    /// request for a token); nothing is written. Errors: `NotFound`, `Invalid`, `Denied`.
    pub fn admit_act(&self, actor: &Actor, key: &Key, act: Value) -> Result<Arc<Object>, Error> {
        let object = self.current(key);
        let object = object.ok_or_else(|| Error::NotFound(key.clone()))?;
        self.desk.admit_act(actor, key, act)?;
        Ok(object)
    }

    /// Asks for a deletion: a pod of a node gets its deletionTimestamp and stays until
    /// `finish_deletion` (unless the grace period is 0), what has finalizers until they are gone,
    /// others go at once. Resolves when that is stored. A second request may only shorten the grace
    /// period. Errors: as `update`.
    pub fn delete(
        &self,
        actor: impl Into<Actor>,
        key: Key,
        deletion: Deletion,
    ) -> LocalFuture<'_, Result<Deleted, Error>> {
        let actor = actor.into();
        Box::pin(async move {
            let desk = &self.desk;
            desk.committer.settled(|busy| busy == &key).await;
            let current = self.writable(&actor, &key)?;
            deletion.precondition.check_deletion(&current)?;
            desk.admit_deletion(&actor, &current)?;
            let departing = desk.departing(&current, &deletion)?;
            let object = match departing {
                Departing::Goes => {
                    let uid = current.uid().to_owned();
                    if !actor.dry_run {
                        self.commit(Step::Remove { key, uid }).await?;
                    }
                    let gone = true;
                    return Ok(Deleted {
                        object: current,
                        gone,
                    });
                }
                Departing::Changes(object) if actor.dry_run => Arc::from(object),
                Departing::Changes(object) => self.put(Step::PutWhole(object)).await?,
                Departing::Stays => current,
            };
            let gone = false;
            Ok(Deleted { object, gone })
        })
    }

    /// Whether it is a pod of a node that is not there: a deletion of it waits for nobody.
    pub fn lacks_node(&self, object: &Object) -> bool {
        self.desk.lacks_node(object)
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

    /// Resolves once a local object that finalizers hold is as it was last written: the last of them
    /// may be on its way out, and must not come back with `finish_deletion`.
    pub async fn settle_held(&self, key: &Key) {
        let held = |object: Arc<Object>| is_held(&object) && key.origin == Origin::Local;
        if self.current(key).is_some_and(held) {
            self.desk.committer.settled(|busy| busy == key).await;
        }
    }

    /// Ends a deletion: removes the object if it (same uid) is being deleted. What its source has
    /// stated under this key in the meantime appears now. After `settle_held`, where others write.
    pub fn finish_deletion(&self, key: &Key, uid: &str) {
        let Some(current) = self.current(key) else {
            return;
        };
        if current.uid() != uid || !current.is_deleting() {
            return;
        }
        let visible = Visible::for_list_of(current.source);
        // Finalizers of the cluster's pods are the cluster's: here nothing is left to hold.
        if is_held(&current) && key.origin == Origin::Local {
            // It has stopped; whoever takes the last finalizer away removes it.
            if let Some(stopped) = self.desk.deleting(&current, 0) {
                let steps = vec![Step::Put(Box::new(stopped))];
                drop(self.desk.committer.submit(visible, steps));
            }
            return;
        }
        let mut steps = vec![Step::Remove {
            key: key.clone(),
            uid: uid.to_owned(),
        }];
        if let Some(successor) = self.desk.lists.borrow_mut().take_returning(key) {
            steps.push(Step::Put(Box::new(successor)));
        }
        drop(self.desk.committer.submit(visible, steps));
    }

    /// Publishes an event. Bounded in number; never flushed. Returns whether that is news: one that
    /// is counted, or kept back, is none.
    pub fn record(&self, event: EventRecord) -> bool {
        let now = self.desk.stamp();
        let reader = self.reader();
        let (steps, fresh) = self.desk.events.borrow_mut().record(
            event,
            now,
            &self.desk.node_name,
            &self.desk.limits,
            &reader,
        );
        self.desk.committer.publish(steps);
        fresh
    }

    /// An event of the API is over when one of the node would be.
    fn note_event(&self, source: Source, key: &Key) {
        if source != Source::Api || key.kind != Kind::Event {
            return;
        }
        let (now, limits) = (self.desk.clock.now(), &self.desk.limits);
        let mut events = self.desk.events.borrow_mut();
        let steps = events.note(key, now, limits, &self.reader());
        if !steps.is_empty() {
            self.desk.committer.publish(steps);
        }
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

    /// The object, if the actor may change it: the owner may; and the API may change events, and of
    /// the node's own Node all but its status.
    fn writable(&self, actor: &Actor, key: &Key) -> Result<Arc<Object>, Error> {
        let current = self
            .current(key)
            .ok_or_else(|| Error::NotFound(key.clone()))?;
        let shared = actor.source == Source::Api
            && match key.kind {
                Kind::Event => true,
                Kind::Node => current.source == Source::Node && actor.subresource.is_empty(),
                _ => false,
            };
        if current.source == actor.source || shared {
            Ok(current)
        } else {
            Err(Error::NotOwner {
                key: key.clone(),
                owner: current.source,
            })
        }
    }

    /// Commits a step that leaves an object.
    async fn put(&self, step: Step) -> Result<Arc<Object>, Error> {
        let key = step.key().clone();
        let stored = self.commit(step).await?;
        stored.ok_or(Error::NotFound(key))
    }

    async fn commit(&self, step: Step) -> Result<Option<Arc<Object>>, Error> {
        let key = step.key().clone();
        let visible = Visible::for_write_of(key.kind);
        let outcome = self.desk.committer.submit(visible, vec![step]);
        let stored = outcome.await.map_err(|error| Error::Store(error.0))?;
        Ok(stored.or_else(|| self.current(&key)))
    }
}

/// What admission says of a write that it takes; what decoding says is the door's to tell.
fn remarks(warnings: Vec<Cause>) -> Vec<String> {
    let of_admission = warnings.into_iter().filter(|(field, _)| field.is_empty());
    of_admission.map(|(_, text)| text).collect()
}

/// Whether nothing but finalizers holds a deleted object.
fn is_over(object: &Object) -> bool {
    object.is_deleting() && object.deletion_grace_s().unwrap_or(0) == 0
}

impl Precondition {
    /// What the body itself demands: a resourceVersion or uid that was read before.
    pub(super) fn of(body: &Value) -> Precondition {
        let text = |name: &str| {
            let text = body["metadata"][name].as_str()?;
            (!text.is_empty()).then(|| text.to_owned())
        };
        Precondition {
            resource_version: text("resourceVersion"),
            uid: text("uid"),
        }
    }

    /// Of an update.
    pub(super) fn check(&self, current: &Object) -> Result<(), Error> {
        if let Some(uid) = &self.uid
            && uid != current.uid()
        {
            let text = format!(
                "Precondition failed: UID in precondition: {uid}, UID in object meta: {}",
                current.uid()
            );
            return Err(conflict(current, text));
        }
        match &self.resource_version {
            Some(version) if *version != current.resource_version.to_string() => {
                let text = "the object has been modified; please apply your changes to the latest \
                            version and try again";
                Err(conflict(current, text.to_owned()))
            }
            _ => Ok(()),
        }
    }

    fn check_deletion(&self, current: &Object) -> Result<(), Error> {
        let unmet = |message| Error::DeletionConflict {
            key: current.key.clone(),
            message,
        };
        if let Some(uid) = &self.uid
            && uid != current.uid()
        {
            let text = format!(
                "the UID in the precondition ({uid}) does not match the UID in record ({}). The \
                 object might have been deleted and then recreated",
                current.uid()
            );
            return Err(unmet(text));
        }
        match &self.resource_version {
            Some(version) if *version != current.resource_version.to_string() => {
                let text = format!(
                    "the ResourceVersion in the precondition ({version}) does not match the \
                     ResourceVersion in record ({}). The object might have been modified",
                    current.resource_version
                );
                Err(unmet(text))
            }
            _ => Ok(()),
        }
    }
}

fn conflict(current: &Object, message: String) -> Error {
    Error::Conflict {
        key: current.key.clone(),
        message,
    }
}
