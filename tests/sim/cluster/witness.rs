//! Sees both ends at every moment, and what the node says to the cluster before it leaves.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::sync::Arc;

use futures_lite::future::block_on;
use lowtide::object::{Key, Kind, Origin, references};
use lowtide::registry::{self, FaultyDisk, Limits, Place, Reader, Registry};
use lowtide::world::{Call, Uid, Verb};
use serde_json::Value;

use super::far::{Far, copy};
use crate::client::{Ledger, Storing};
use crate::host::Host;
use crate::judge::Oath;
use crate::random::Stream;
use crate::real::NODE_NAME;
use crate::timeline::SimClock;

const MIRROR: &str = "kubernetes.io/config.mirror";

/// What was seen of one pod of the cluster.
#[derive(Clone, Copy, Debug, Default)]
struct Pod {
    /// Of the cluster, when it was looked at last.
    version: u64,
    is_mirror: bool,
    /// At some time it was to go, or it was not there.
    given_up: bool,
    /// The node has asked for its removal, in the cluster's present history.
    told_over: bool,
}

pub struct Witness {
    far: Rc<Far>,
    node: Rc<RefCell<Option<Registry>>>,
    disk: FaultyDisk,
    ledger: Rc<RefCell<Ledger>>,
    pods: RefCell<BTreeMap<String, Pod>>,
    /// Pods of the cluster that the node has taken.
    taken: RefCell<BTreeMap<String, Key>>,
    /// Those that were taken while the store could not be written: the next agent may not know them.
    unkept: RefCell<BTreeSet<String>>,
    /// Those that were to go, as the node had it, and in which history of the cluster.
    leaving: RefCell<BTreeMap<String, u64>>,
    /// What was looked at last: of the cluster, of the node.
    seen: Cell<(u64, u64)>,
    restores: Cell<u64>,
    outages: Cell<u64>,
    crime: RefCell<Option<String>>,
}

impl Witness {
    pub fn new(
        far: &Rc<Far>,
        node: Rc<RefCell<Option<Registry>>>,
        (disk, ledger): (FaultyDisk, Rc<RefCell<Ledger>>),
    ) -> Rc<Witness> {
        Rc::new(Witness {
            far: Rc::clone(far),
            node,
            disk,
            ledger,
            pods: RefCell::default(),
            taken: RefCell::default(),
            unkept: RefCell::default(),
            leaving: RefCell::default(),
            seen: Cell::default(),
            restores: Cell::default(),
            outages: Cell::default(),
            crime: RefCell::default(),
        })
    }

    fn condemn(&self, crime: String) {
        self.crime.borrow_mut().get_or_insert(crime);
    }

    /// Looks at both ends, if anything changed.
    pub fn look(&self, host: &Host) {
        let far = self.far.reader();
        let node = self.node.borrow().as_ref().map(Registry::reader);
        let version = |reader: &Option<Reader>| reader.as_ref().map_or(0, Reader::version);
        let now = (version(&far), version(&node));
        if self.seen.replace(now) != now {
            if let Some(far) = far {
                self.look_at_cluster(host, &far);
            }
            if let Some(node) = node {
                self.look_at_node(host, &node);
            }
        }
        if let Some(crime) = self.crime.borrow().clone() {
            host.judge.condemn(crime);
        }
    }

    fn look_at_cluster(&self, host: &Host, far: &Reader) {
        let mut pods = self.pods.borrow_mut();
        if self.restores.replace(self.far.restores.get()) != self.far.restores.get() {
            // In this history nobody was told anything yet. Of what it has let go of, the node knows
            // nothing any more: it is a new pod.
            for (uid, pod) in pods.iter_mut() {
                if std::mem::take(&mut pod.told_over) && !pod.is_mirror {
                    host.judge.forget(uid);
                }
            }
        }
        let taken = self.taken.borrow();
        if self.outages.replace(self.far.outages.get()) != self.far.outages.get() {
            // It may have forgotten how pods had ended that the node has let go of.
            let kernel = host.kernel.borrow();
            let here = |uid: &str| kernel.pods.keys().any(|known| known.as_str() == uid);
            let gone = pods
                .keys()
                .filter(|uid| !taken.contains_key(*uid) && !here(uid));
            gone.for_each(|uid| host.judge.forget(uid));
        }
        let mut there = Vec::new();
        for object in far.list_packed(Kind::Pod, None).0 {
            let uid = object.uid().to_owned();
            let known = pods.entry(uid.clone()).or_insert_with(|| {
                let body = object.unpack().body;
                Pod {
                    is_mirror: body["metadata"]["annotations"][MIRROR].is_string(),
                    ..Pod::default()
                }
            });
            known.given_up |= object.is_deleting();
            let version = object.resource_version();
            if known.version != version && !known.is_mirror {
                known.version = version;
                let body = object.unpack().body;
                // In a backup it may not be bound yet.
                let elsewhere = body["spec"]["nodeName"] != NODE_NAME;
                known.given_up |= elsewhere && taken.contains_key(&uid);
                self.look_at_status(host, &uid, &body["status"]);
            }
            there.push(uid);
        }
        for (uid, pod) in pods.iter_mut() {
            pod.given_up |= !there.contains(uid);
        }
    }

    /// Containers that the cluster was told of belong to no other pod.
    fn look_at_status(&self, host: &Host, uid: &str, status: &Value) {
        let kernel = host.kernel.borrow();
        let told = status["containerStatuses"].as_array().into_iter().flatten();
        for id in told.filter_map(|status| status["containerID"].as_str()) {
            let id = id.rsplit('/').next().unwrap_or_default();
            let foreign = kernel.pods.iter().find(|(other, pod)| {
                other.as_str() != uid && pod.containers.iter().any(|one| &*one.id.0 == id)
            });
            if let Some((other, _)) = foreign {
                self.condemn(format!(
                    "the cluster's pod {uid} is told container {id} of {other}"
                ));
            }
        }
    }

    fn look_at_node(&self, host: &Host, node: &Reader) {
        let pods = self.pods.borrow();
        let given_up = |uid: &str| pods.get(uid).is_some_and(|pod| pod.given_up);
        let mut taken = self.taken.borrow_mut();
        let mut there = BTreeMap::new();
        for object in node.list_packed(Kind::Pod, None).0 {
            let key = object.key();
            if key.origin == Origin::Remote {
                there.insert(object.uid().to_owned(), object.is_deleting());
                let uid = object.uid().to_owned();
                if self.ledger.borrow().storing == Storing::NotAlways && !taken.contains_key(&uid) {
                    self.unkept.borrow_mut().insert(uid.clone());
                }
                taken.entry(uid).or_insert(key.clone());
            }
        }
        let mut leaving = self.leaving.borrow_mut();
        let restores = self.restores.get();
        for (uid, deleting) in &there {
            if *deleting {
                leaving.entry(uid.clone()).or_insert(restores);
            } else if leaving.remove(uid).is_some_and(|then| then != restores) {
                // It was to go, and a restored cluster has it back: to the node it is a new pod.
                host.judge.forget(uid);
            }
        }
        taken.retain(|uid, key| {
            let kept = there.get(uid) == Some(&false);
            if !kept && !given_up(uid) && !self.unkept.borrow().contains(uid) {
                self.condemn(format!(
                    "the node lets go of {key} {uid}, which the cluster wants"
                ));
            }
            there.contains_key(uid)
        });
    }

    /// A call of the node, before it leaves.
    pub fn oversee(&self, host: &Host, call: &Call) {
        let path = call.path.split('?').next().unwrap_or_default();
        let body = call.body.as_ref().unwrap_or(&Value::Null);
        let is_pod = path.contains("/pods");
        let uid = match call.verb {
            Verb::Patch if is_pod => body["metadata"]["uid"].as_str(),
            Verb::Delete => body["preconditions"]["uid"].as_str(),
            Verb::Create if path.ends_with("/pods") => {
                if !body["metadata"]["annotations"][MIRROR].is_string() {
                    self.condemn(format!("the node makes a pod that is no mirror: {body}"));
                }
                return;
            }
            Verb::Get | Verb::Create | Verb::Update | Verb::Patch => return,
        };
        let mut pods = self.pods.borrow_mut();
        let Some(pod) = uid.and_then(|uid| pods.get_mut(uid)) else {
            return self.condemn(format!(
                "{:?} {path} for no UID that is known: {body}",
                call.verb
            ));
        };
        if call.verb == Verb::Delete {
            pod.told_over = true;
            if !pod.is_mirror && !pod.given_up {
                self.condemn(format!("{path} is removed, which nobody wanted to go"));
            }
            let kernel = host.kernel.borrow();
            let here = uid.and_then(|uid| kernel.pods.iter().find(|pod| pod.0.as_str() == uid));
            if !pod.is_mirror && here.is_some_and(|(_, pod)| pod.live().next().is_some()) {
                self.condemn(format!("{path} is removed while containers of it live"));
            }
        }
    }
}

impl Oath for Witness {
    fn may_start(&self, host: &Host, uid: &Uid) -> Result<(), String> {
        let Some(key) = self.taken.borrow().get(uid.as_str()).cloned() else {
            return Ok(());
        };
        let pod = self.pods.borrow().get(uid.as_str()).copied();
        if pod.is_some_and(|pod| pod.told_over) {
            return Err(format!("{key} {uid} starts after its end was told"));
        }
        let Some(node) = self.node.borrow().as_ref().map(Registry::reader) else {
            return Ok(());
        };
        if self.ledger.borrow().storing == Storing::NotAlways {
            // A store that cannot be written stops no pod: its source says it again.
            return Ok(());
        }
        let durable = after_a_power_cut(host, &self.disk);
        let durable = durable.reader();
        let spec = |reader: &Reader| {
            let object = reader
                .get(&key)
                .filter(|object| object.uid() == uid.as_str());
            object.map(|object| object.body["spec"].clone())
        };
        let Some(known) = spec(&node) else {
            // It was let go of a moment ago.
            return Ok(());
        };
        if spec(&durable).as_ref() != Some(&known) {
            return Err(format!("{key} {uid} starts and is not on the disk"));
        }
        let secrets = references::secrets(&known).map(|name| (Kind::Secret, name));
        let maps = references::config_maps(&known).map(|name| (Kind::ConfigMap, name));
        for (kind, name) in secrets.chain(maps) {
            let named = Key {
                origin: Origin::Remote,
                ..Key::local(kind, &key.namespace, name)
            };
            if node.contains(&named) && !durable.contains(&named) {
                return Err(format!("{key} starts and its {named} is not on the disk"));
            }
        }
        Ok(())
    }

    /// The cluster wanted it to go at some time.
    fn may_end(&self, uid: &Uid) -> bool {
        let pods = self.pods.borrow();
        pods.get(uid.as_str()).is_none_or(|pod| pod.given_up)
    }
}

/// What the node would find if the power were cut now and nothing unflushed made it.
fn after_a_power_cut(host: &Host, disk: &FaultyDisk) -> Registry {
    let opened = Registry::open(registry::Options {
        place: Place::Inline(Arc::new(copy(disk))),
        node_name: crate::real::NODE_NAME.to_owned(),
        clock: Rc::new(SimClock(Rc::clone(&host.timeline))),
        random: Rc::new(Stream::new(host.timeline.now())),
        limits: Limits::default(),
        encryption: Default::default(),
        admission: Vec::new(),
    });
    block_on(opened).expect("a simulated store opens").0
}
