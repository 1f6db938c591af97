//! The writing side: one object at a time, for the API server and the kubelet.
//!
//! `replace.rs` has the complete lists of sources, `events.rs` the events, `commit.rs` the way to
//! the disk and into view.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};

use super::admission::{Admit, Attributes, Operation};
use super::commit::{Committer, Visible};
use super::events::Events;
use super::options::Limits;
use super::published::Step;
use super::reader::Reader;
use super::replace::Lists;
use super::store::Health;
use super::{Error, EventRecord};
use crate::object::{self, Key, Kind, Object, Provenance, Source, Standing};
use crate::world::{Clock, LocalFuture, Random, Uid};

/// Seconds between SIGTERM and SIGKILL when the pod does not say. Upstream:
/// `DefaultTerminationGracePeriodSeconds`.
const GRACE_DEFAULT_S: i64 = 30;

/// The writing side; lives on the thread that owns the node's state. Cheap to clone.
#[derive(Clone)]
pub struct Registry {
    pub(super) desk: Rc<Desk>,
}

/// What the clones share.
pub(super) struct Desk {
    pub committer: Committer,
    pub clock: Rc<dyn Clock>,
    pub random: Rc<dyn Random>,
    pub node_name: String,
    pub limits: Limits,
    pub admission: Vec<Box<dyn Admit>>,
    pub lists: RefCell<Lists>,
    pub events: RefCell<Events>,
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
        source: Source,
        key: Key,
        mut body: Value,
    ) -> LocalFuture<'_, Result<Arc<Object>, Error>> {
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
                .admit(Operation::Create, source, &key, None, &mut body)?;
            let object = self.desk.complete(source, key, None, None, body)?;
            self.put(object).await
        })
    }

    /// Replaces all but the status. Without a change nothing is written and the current object
    /// comes back. Errors: `NotFound`, `Conflict`, `NotOwner`, `Invalid`, `Denied`, `Store`.
    pub fn update(
        &self,
        source: Source,
        key: Key,
        mut body: Value,
        precondition: Precondition,
    ) -> LocalFuture<'_, Result<Arc<Object>, Error>> {
        Box::pin(async move {
            self.desk.committer.settled(|busy| busy == &key).await;
            let current = self.owned(source, &key)?;
            precondition.check(&current)?;
            Precondition::of(&body).check(&current)?;
            self.desk
                .admit(Operation::Update, source, &key, Some(&current), &mut body)?;
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
        source: Source,
        key: Key,
        deletion: Deletion,
    ) -> LocalFuture<'_, Result<Arc<Object>, Error>> {
        Box::pin(async move {
            self.desk.committer.settled(|busy| busy == &key).await;
            let current = self.owned(source, &key)?;
            deletion.precondition.check(&current)?;
            self.desk.admit_deletion(source, &current)?;
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

    /// Whether `source` has handed over a complete list since the start of this process.
    pub fn has_listed(&self, source: Source) -> bool {
        self.desk.lists.borrow().has_listed(source)
    }

    pub(super) fn current(&self, key: &Key) -> Option<Arc<Object>> {
        self.desk.committer.shared.look().get(key).cloned()
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

impl Desk {
    pub fn stamp(&self) -> crate::world::Stamp {
        crate::world::Stamp {
            boot: self.clock.now(),
            wall: self.clock.wall(),
        }
    }

    /// Defaults, admission and validation, in upstream's order. Returns warnings.
    pub fn admit(
        &self,
        operation: Operation,
        source: Source,
        key: &Key,
        current: Option<&Object>,
        body: &mut Value,
    ) -> Result<Vec<String>, Error> {
        let invalid = |causes| Error::Invalid {
            key: key.clone(),
            causes,
        };
        let warnings = object::decode(key.kind, body).map_err(|cause| invalid(vec![cause]))?;
        object::apply_defaults(key.kind, body);
        let attributes = Attributes {
            operation,
            source,
            key,
            current,
        };
        let denied = |denial: super::Denial| Error::Denied {
            key: key.clone(),
            message: denial.message,
        };
        for plugin in &self.admission {
            plugin.mutate(&attributes, body).map_err(denied)?;
        }
        let causes = object::validate(key, body);
        if !causes.is_empty() {
            return Err(invalid(causes));
        }
        for plugin in &self.admission {
            plugin.validate(&attributes, body).map_err(denied)?;
        }
        Ok(warnings)
    }

    pub fn admit_deletion(&self, source: Source, current: &Object) -> Result<(), Error> {
        let attributes = Attributes {
            operation: Operation::Delete,
            source,
            key: &current.key,
            current: Some(current),
        };
        for plugin in &self.admission {
            plugin
                .validate(&attributes, &current.body)
                .map_err(|denial| Error::Denied {
                    key: current.key.clone(),
                    message: denial.message,
                })?;
        }
        Ok(())
    }

    /// Fills in what the registry owns: kind, key, uid, creationTimestamp, generation and, over an
    /// object of the same uid, everything of the current metadata that a source cannot set.
    pub fn complete(
        &self,
        source: Source,
        key: Key,
        provenance: Option<Provenance>,
        current: Option<&Object>,
        mut body: Value,
    ) -> Result<Object, Error> {
        if !body["metadata"].is_object() {
            body["metadata"] = json!({});
        }
        body["apiVersion"] = json!("v1");
        body["kind"] = json!(key.kind.name());
        let given = body["metadata"]["uid"].as_str().unwrap_or_default();
        let uid = match (given, current) {
            ("", Some(current)) => current.uid().to_owned(),
            ("", None) => self.random_uid(),
            (given, _) => given.to_owned(),
        };
        if Uid::new(&uid).is_none() {
            let what = format!(
                "Invalid value: {uid:?}: must be 1 to 128 letters, digits, '.', '_' or '-', and not start with '.'"
            );
            let causes = vec![("metadata.uid".to_owned(), what)];
            return Err(Error::Invalid { key, causes });
        }
        let predecessor = current.filter(|current| current.uid() == uid);
        let metadata = &mut body["metadata"];
        metadata["name"] = json!(key.name);
        if !key.namespace.is_empty() {
            metadata["namespace"] = json!(key.namespace);
        }
        metadata["uid"] = json!(uid);
        match predecessor {
            Some(current) => inherit(&mut body, &current.body, key.kind),
            None => {
                if !metadata["creationTimestamp"].is_string() {
                    metadata["creationTimestamp"] = json!(seconds_text(self.clock.wall()));
                }
                if key.kind == Kind::Pod {
                    metadata["generation"] = json!(1);
                    for ours in ["deletionTimestamp", "deletionGracePeriodSeconds"] {
                        metadata.as_object_mut().map(|fields| fields.remove(ours));
                    }
                }
            }
        }
        Ok(Object {
            key,
            source,
            provenance,
            standing: Standing::Accepted,
            resource_version: 0,
            body,
        })
    }

    /// The object on its way out, or `None` if it already has no longer than `grace_s` seconds.
    pub fn deleting(&self, current: &Object, grace_s: i64) -> Option<Object> {
        if current
            .deletion_grace_s()
            .is_some_and(|running| running <= grace_s)
        {
            return None;
        }
        let mut object = current.clone();
        let ends = self
            .clock
            .wall()
            .saturating_add(Duration::from_secs(grace_s.unsigned_abs()))
            .unwrap_or(jiff::Timestamp::MAX);
        let generation = object.metadata()["generation"].as_i64().unwrap_or(0);
        let metadata = &mut object.body["metadata"];
        if !current.is_deleting() {
            metadata["generation"] = json!(generation + 1);
        }
        metadata["deletionTimestamp"] = json!(seconds_text(ends));
        metadata["deletionGracePeriodSeconds"] = json!(grace_s);
        Some(object)
    }

    /// A random version 4 UUID (RFC 9562 section 5.4).
    pub fn random_uid(&self) -> String {
        let mut b = [0u8; 16];
        self.random.fill(&mut b);
        b[6] = b[6] & 0x0f | 0x40;
        b[8] = b[8] & 0x3f | 0x80;
        let hex = |part: &[u8]| part.iter().map(|b| format!("{b:02x}")).collect::<String>();
        let parts = [&b[..4], &b[4..6], &b[6..8], &b[8..10], &b[10..]];
        parts.map(hex).join("-")
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

/// Seconds that a pod is given to stop.
pub(super) fn grace_of(pod: &Object) -> i64 {
    pod.body["spec"]["terminationGracePeriodSeconds"]
        .as_i64()
        .unwrap_or(GRACE_DEFAULT_S)
        .max(0)
}

/// Carries over what the source does not own.
fn inherit(body: &mut Value, current: &Value, kind: Kind) {
    for ours in [
        "creationTimestamp",
        "deletionTimestamp",
        "deletionGracePeriodSeconds",
        "generation",
        "resourceVersion",
    ] {
        match current["metadata"].get(ours) {
            Some(value) => body["metadata"][ours] = value.clone(),
            None => {
                body["metadata"]
                    .as_object_mut()
                    .map(|fields| fields.remove(ours));
            }
        }
    }
    if kind == Kind::Pod && body["spec"] != current["spec"] {
        let generation = current["metadata"]["generation"].as_i64().unwrap_or(0);
        body["metadata"]["generation"] = json!(generation + 1);
    }
    if let (Kind::Pod | Kind::Node, Some(status)) = (kind, current.get("status")) {
        body["status"] = status.clone();
    }
    // When a source read the text last is no change of it.
    const SEEN: &str = "kubernetes.io/config.seen";
    if let Some(seen) = current["metadata"]["annotations"].get(SEEN)
        && body["metadata"]["annotations"].get(SEEN).is_some()
    {
        body["metadata"]["annotations"][SEEN] = seen.clone();
    }
}

/// Whether two states of one object differ in anything but their version.
pub(super) fn same_but_for_versions(a: &Value, b: &Value) -> bool {
    fn fields(value: &Value) -> impl Iterator<Item = (&String, &Value)> {
        value.as_object().into_iter().flatten()
    }
    let top = |value| fields(value).filter(|(name, _)| *name != "metadata");
    top(a).eq(top(b))
        && fields(&a["metadata"])
            .filter(|(name, _)| *name != "resourceVersion")
            .eq(fields(&b["metadata"]).filter(|(name, _)| *name != "resourceVersion"))
}

/// Wall time as Kubernetes writes it in metadata: UTC, whole seconds.
pub(super) fn seconds_text(wall: jiff::Timestamp) -> String {
    wall.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}
