//! What every write needs: admission, and the fields that belong to the registry.
//!
//! ```text
//!  body ─► decode ─► default ─► ascribe ─► mutate ─► validate ─► complete (uid, times, generation) ─► Object
//! ```

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::sync::Arc;

use serde_json::{Value, json};

use super::admission::{self, Admit, Attributes, Denial, Operation, Remarks, View};
use super::commit::{Committer, Visible};
use super::events::Events;
use super::options::Limits;
use super::published::Step;
use super::reader::Reader;
use super::replace::Lists;
use super::{Actor, Error};
use crate::object::apply::Writer;
use crate::object::{self, Cause, Key, Kind, Object, Provenance, Source, Standing};
use crate::world::{Clock, Random, Stamp, Uid};

/// Annotation of namespaces that nobody asked for by name: a manifest that states one takes it over.
pub const PROVISIONED: &str = "lowtide.io/provisioned";

/// What the clones of a registry share.
pub(super) struct Desk {
    pub committer: Committer,
    pub clock: Rc<dyn Clock>,
    pub random: Rc<dyn Random>,
    pub node_name: String,
    pub limits: Limits,
    pub admission: Vec<Box<dyn Admit>>,
    /// Admitted as part of a list that is not decided to its end; with the object if admission of
    /// others looks at it.
    pub deciding: RefCell<BTreeMap<Key, Option<Arc<Object>>>>,
    /// Secrets that are to be sealed anew.
    pub resealing: RefCell<BTreeSet<Key>>,
    pub lists: RefCell<Lists>,
    pub events: RefCell<Events>,
    /// The Node as this start states it, without what earlier ones and the API have added.
    pub stated_node: RefCell<Value>,
}

impl Desk {
    pub fn stamp(&self) -> Stamp {
        Stamp {
            boot: self.clock.now(),
            wall: self.clock.wall(),
        }
    }

    /// Defaults, who wrote it, admission and validation, in upstream's order: what admission adds is
    /// no manager's. Returns warnings, each with the field that it is about.
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
        object::fill_texts(body);
        let warnings = object::decode(key.kind, body).map_err(|cause| invalid(vec![cause]))?;
        object::apply_defaults(key.kind, body);
        if let (Kind::Pod, Source::Api, Some(current)) = (key.kind, actor.source, current)
            && let Some(spec) = body.get_mut("spec")
        {
            object::keep_spelling(spec, &current.body["spec"]);
        }
        self.ascribe(actor, key.kind, current, body);
        let remarks = Remarks::default();
        let attributes = Attributes {
            operation,
            actor,
            key,
            current,
            view: self,
            remarks: &remarks,
        };
        let denied = |denial| denied(key, denial);
        let chain = self.chain(actor, key);
        for plugin in chain {
            plugin.mutate(&attributes, body).map_err(denied)?;
        }
        let mut causes = object::validate(key, body);
        // The cluster's pods are seen late: somebody may look into them already.
        let added = &body["spec"]["ephemeralContainers"];
        if operation == Operation::Create
            && actor.source != Source::Remote
            && key.kind == Kind::Pod
            && added.as_array().is_some_and(|added| !added.is_empty())
        {
            let why = "Forbidden: cannot be set on create";
            causes.push(("spec.ephemeralContainers".to_owned(), why.to_owned()));
        }
        if !causes.is_empty() {
            return Err(invalid(causes));
        }
        for plugin in chain {
            plugin.validate(&attributes, body).map_err(denied)?;
        }
        let (remarks, namespaces) = remarks.into_parts();
        if !actor.dry_run {
            for namespace in namespaces {
                self.provision(&namespace)?;
            }
        }
        let remarks = remarks.into_iter().map(|text| (String::new(), text));
        Ok(warnings.into_iter().chain(remarks).collect())
    }

    /// Remembers an admitted object until the list that it is of is decided.
    pub fn decide(&self, object: &Object) {
        let looked_at = matches!(
            object.key.kind,
            Kind::Namespace
                | Kind::LimitRange
                | Kind::ResourceQuota
                | Kind::PriorityClass
                | Kind::ServiceAccount
        );
        let kept = looked_at.then(|| Arc::new(object.clone()));
        self.deciding.borrow_mut().insert(object.key.clone(), kept);
    }

    /// Notes in `managedFields` who wrote what differs from `current`.
    fn ascribe(&self, actor: &Actor, kind: Kind, current: Option<&Object>, body: &mut Value) {
        let Some(manager) = &actor.manager else {
            return;
        };
        let writer = Writer {
            manager,
            subresource: actor.subresource,
            time: &seconds_text(self.clock.wall()),
        };
        let current = current.map(|object| &object.body);
        object::apply::record_update(kind, current, body, &writer);
    }

    pub fn admit_deletion(&self, actor: &Actor, current: &Object) -> Result<(), Error> {
        let key = &current.key;
        let attributes = Attributes {
            operation: Operation::Delete,
            actor,
            key,
            current: Some(current),
            view: self,
            remarks: &Remarks::default(),
        };
        for plugin in self.chain(actor, key) {
            let validated = plugin.validate(&attributes, &current.body);
            validated.map_err(|denial| denied(key, denial))?;
        }
        Ok(())
    }

    /// Whether something may be done to an object: upstream admits it as the creation of `act`
    /// through the actor's subresource.
    pub fn admit_act(&self, actor: &Actor, key: &Key, mut act: Value) -> Result<(), Error> {
        let attributes = Attributes {
            operation: Operation::Create,
            actor,
            key,
            current: None,
            view: self,
            remarks: &Remarks::default(),
        };
        let chain = self.chain(actor, key);
        for plugin in chain {
            let mutated = plugin.mutate(&attributes, &mut act);
            mutated.map_err(|denial| denied(key, denial))?;
        }
        for plugin in chain {
            let validated = plugin.validate(&attributes, &act);
            validated.map_err(|denial| denied(key, denial))?;
        }
        Ok(())
    }

    fn chain(&self, actor: &Actor, key: &Key) -> &[Box<dyn Admit>] {
        match admission::concerns(actor, key) {
            true => &self.admission,
            false => &[],
        }
    }

    /// Makes a namespace that an object needs. It is seen at once and stored before the object is.
    fn provision(&self, name: &str) -> Result<(), Error> {
        let key = Key::local(Kind::Namespace, "", name);
        if self.committer.shared.look().get(&key).is_some() {
            return Ok(());
        }
        let annotations = json!({PROVISIONED: "true"});
        let mut body = json!({"metadata": {"name": name, "annotations": annotations}});
        object::apply_defaults(Kind::Namespace, &mut body);
        let namespace = self.complete(Source::Api, key, None, None, body)?;
        let steps = vec![Step::Put(Box::new(namespace))];
        // Goes its way whether or not the answer is waited for.
        drop(self.committer.submit(Visible::AtOnce, steps));
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
            // The cluster keeps these itself; of a pod here, only how it is doing is known better.
            _ if source == Source::Remote => {
                let status = predecessor.and_then(|current| current.body.get("status"));
                if let (Kind::Pod, Some(status)) = (key.kind, status) {
                    body["status"] = status.clone();
                }
            }
            Some(current) => inherit(&mut body, &current.body, source, key.kind),
            None => {
                if !metadata["creationTimestamp"].is_string() {
                    metadata["creationTimestamp"] = json!(seconds_text(self.clock.wall()));
                }
                if matches!(key.kind, Kind::Pod | Kind::PriorityClass) {
                    metadata["generation"] = json!(1);
                }
                if key.kind == Kind::Pod {
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

    /// Gives a pod to this node, if nobody else is to place it.
    pub fn bind(&self, body: &mut Value) {
        let spec = &body["spec"];
        let placed = spec["nodeName"].as_str().unwrap_or_default() != "";
        let ours = spec["schedulerName"] == "default-scheduler";
        if !placed && ours && !is_gated(body) {
            body["spec"]["nodeName"] = json!(self.node_name);
        }
    }

    /// Gives the object a free name that begins with its `generateName`, if it has one. Source:
    /// Kubernetes apiserver, storage/names/generate.go, util/rand.
    pub fn generate_name(&self, key: &mut Key, body: &mut Value) {
        const ALPHABET: &[u8; 27] = b"bcdfghjklmnpqrstvwxz2456789";
        const BASE_CHARS_MAX: usize = 58;
        const TRIES_MAX: usize = 8;
        let base = body["metadata"]["generateName"]
            .as_str()
            .unwrap_or_default();
        if base.is_empty() {
            return;
        }
        let base: String = base.chars().take(BASE_CHARS_MAX).collect();
        for _ in 0..TRIES_MAX {
            let mut bytes = [0u8; 5];
            self.random.fill(&mut bytes);
            let suffix = bytes.map(|byte| char::from(ALPHABET[usize::from(byte) % ALPHABET.len()]));
            key.name = base.chars().chain(suffix).collect();
            if self.committer.shared.look().get(key).is_none() {
                break;
            }
        }
        body["metadata"]["name"] = json!(key.name);
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

impl View for Desk {
    fn get(&self, key: &Key) -> Option<Arc<Object>> {
        if let Some(Some(decided)) = self.deciding.borrow().get(key) {
            return Some(decided.clone());
        }
        let packed = self.committer.shared.look().get(key).cloned();
        packed.map(|packed| Arc::new(packed.unpack()))
    }

    fn list(&self, kind: Kind, namespace: Option<&str>) -> Vec<Arc<Object>> {
        let shared = self.committer.shared.clone();
        let (mut objects, _) = Reader { shared }.list(kind, namespace);
        let deciding = self.deciding.borrow();
        let here = |key: &Key| {
            key.kind == kind && namespace.is_none_or(|namespace| key.namespace == namespace)
        };
        for decided in deciding.values().flatten().filter(|one| here(&one.key)) {
            objects.retain(|object| object.key != decided.key);
            objects.push(decided.clone());
        }
        objects
    }

    fn in_flight(&self, key: &Key) -> bool {
        self.deciding.borrow().contains_key(key) || self.committer.is_busy(key)
    }
}

fn denied(key: &Key, denial: Denial) -> Error {
    let key = key.clone();
    match denial {
        Denial::Forbidden { message, cause } => Error::Denied {
            key,
            message,
            cause,
        },
        Denial::NotFound(missing) => Error::NotFound(missing),
        Denial::Invalid(causes) => Error::Invalid { key, causes },
    }
}

/// Whether a pod waits for somebody to take its scheduling gates away.
pub(super) fn is_gated(pod: &Value) -> bool {
    let gates = pod["spec"]["schedulingGates"].as_array();
    gates.is_some_and(|gates| !gates.is_empty())
}

/// Carries over what the source does not own.
fn inherit(body: &mut Value, current: &Value, source: Source, kind: Kind) {
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
    // What comes through the API says itself what of its status counts.
    if source != Source::Api
        && let (Kind::Pod | Kind::Node, Some(status)) = (kind, current.get("status"))
    {
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
    let metadata = |value| {
        let versions = ["resourceVersion", "managedFields"];
        fields(value).filter(move |(name, _)| !versions.contains(&name.as_str()))
    };
    // When somebody wrote what was there already is no change either.
    let managers = |value: &Value| {
        let mut managers = value["metadata"]["managedFields"].clone();
        for one in managers.as_array_mut().into_iter().flatten() {
            one.as_object_mut().map(|fields| fields.remove("time"));
        }
        managers
    };
    top(a).eq(top(b))
        && metadata(&a["metadata"]).eq(metadata(&b["metadata"]))
        && managers(a) == managers(b)
}

/// Wall time as Kubernetes writes it in metadata: UTC, whole seconds.
pub(super) fn seconds_text(wall: jiff::Timestamp) -> String {
    wall.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}
