//! What every write needs: admission, and the fields that belong to the registry.
//!
//! ```text
//!  body ─► decode ─► default ─► mutate ─► validate ─► complete (uid, times, generation) ─► Object
//! ```

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use serde_json::{Value, json};

use super::admission::{Admit, Attributes, Denial, Operation};
use super::commit::Committer;
use super::events::Events;
use super::options::Limits;
use super::replace::Lists;
use super::{Actor, Error};
use crate::object::{self, Cause, Key, Kind, Object, Provenance, Source, Standing};
use crate::world::{Clock, Random, Stamp, Uid};

/// Seconds between SIGTERM and SIGKILL when the pod does not say. Upstream:
/// `DefaultTerminationGracePeriodSeconds`.
const GRACE_DEFAULT_S: i64 = 30;

/// What the clones of a registry share.
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

impl Desk {
    pub fn stamp(&self) -> Stamp {
        Stamp {
            boot: self.clock.now(),
            wall: self.clock.wall(),
        }
    }

    /// Defaults, admission and validation, in upstream's order. Returns warnings, each with the field
    /// that it is about.
    pub fn admit(
        &self,
        operation: Operation,
        actor: &Actor,
        key: &Key,
        current: Option<&Object>,
        body: &mut Value,
    ) -> Result<Vec<Cause>, Error> {
        let invalid = |causes| Error::Invalid {
            key: key.clone(),
            causes,
        };
        if !body.is_object() {
            let cause = (String::new(), "Invalid value: must be an object".to_owned());
            return Err(invalid(vec![cause]));
        }
        let warnings = object::decode(key.kind, body).map_err(|cause| invalid(vec![cause]))?;
        object::apply_defaults(key.kind, body);
        let attributes = Attributes {
            operation,
            actor,
            key,
            current,
        };
        let denied = |denial: Denial| Error::Denied {
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

    pub fn admit_deletion(&self, actor: &Actor, current: &Object) -> Result<(), Error> {
        let attributes = Attributes {
            operation: Operation::Delete,
            actor,
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
        body["apiVersion"] = json!(key.kind.api_version());
        body["kind"] = json!(key.kind.name());
        let given = body["metadata"]["uid"].as_str().unwrap_or_default();
        let uid = match (given, current) {
            ("", Some(current)) => current.uid().to_owned(),
            ("", None) => self.random_uid(),
            (given, _) => given.to_owned(),
        };
        if Uid::new(&uid).is_none() {
            let what = format!(
                "Invalid value: {uid:?}: must be 1 to 128 letters, digits, '.', '_' or '-', and not \
                 start with '.'"
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
