//! The pods that the cluster binds to this node, and what they need, into the registry.
//!
//! ```text
//!  pods (reflector) ──► what they name ──► a reflector each ──┐
//!        │                                                    ▼
//!        └── known, or waited for long enough ──► one complete list ──► registry.replace
//! ```
//! A pod that is new waits a little for its Secrets and ConfigMaps, so that all of them are on the
//! disk together: after that it needs no cluster. The first list waits as well, since a pod that it left
//! out may be running, and would be ended as nobody's. What the cluster was not heard of since this agent
//! was started stays as it is in the registry.
//!
//! The cluster's Node of this machine comes with them: its labels and taints are what the pods were
//! placed by.
//!
//! A pod that has ended for good in the cluster's eyes and is unknown here is not taken: its work is
//! done, and this node may have lost its records of that. Neither is one that was ended here and that
//! a finalizer keeps in the cluster. One that runs here is ended, by a mark that the kubelet reads.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::time::Duration;

use async_executor::{LocalExecutor, Task};
use futures_lite::future::or;
use serde_json::Value;

use super::own_node::OwnNode;
use super::paths::Selection;
use super::pod_status::has_ended;
use super::reflector::{Held, Name, Reflector};
use crate::object::gather::Gather;
use crate::object::json::fingerprint;
use crate::object::{ENDED_THERE, Key, Kind, Origin, Source, references};
use crate::os::task;
use crate::registry::{EventRecord, FieldLines, Incoming, Packed, Registry};
use crate::world::{BootTime, Clock};

/// How long a new pod waits for the first word on what it names. Then it is taken all the same, and
/// waits in the kubelet, which says for what.
const REFERENCES_MAX: Duration = Duration::from_secs(10);

/// Namespace and name of the service of the cluster's API.
const API: (&str, &str) = ("default", "kubernetes");

/// What the registry was told of an entry: a hash of all but its status.
type Print = u64;

/// What is remembered of a pod, so that only what changed is read again.
struct Seen {
    version: Box<str>,
    uid: Box<str>,
    print: Print,
    /// A key without a name: all of its kind in its namespace.
    names: BTreeSet<Key>,
    since: BootTime,
    /// The registry had it before this agent heard of it: it needs nothing more to run, and leaving
    /// it out of a list would end it.
    here: bool,
    /// Its work is done and nothing of it is here.
    over: bool,
    /// Its work is done in the cluster's eyes, and not in those of the kubelet.
    ends: bool,
}

/// Whether new pods are here for something that the Node is known to have.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Placing {
    Plain,
    /// The label may be newer than what was seen of the Node: the cluster is asked before the node turns
    /// the pod away. Source: Kubernetes pkg/kubelet/lifecycle/predicate.go (generalFilter).
    Doubtful,
}

/// A thing that pods name, followed by itself.
struct Follower {
    reflector: Rc<Reflector>,
    _task: Task<()>,
}

pub struct Pull {
    pub registry: Registry,
    pub clock: Rc<dyn Clock>,
    pub executor: Rc<LocalExecutor<'static>>,
    pub pods: Rc<Reflector>,
    pub node: Rc<OwnNode>,
    /// UIDs of pods of which the kubelet knows all there is to know.
    pub taken: Rc<RefCell<BTreeSet<String>>>,
}

#[derive(Default)]
struct State {
    seen: BTreeMap<Name, Seen>,
    followers: BTreeMap<Key, Follower>,
    told: BTreeMap<Key, Print>,
}

impl Pull {
    /// Never ends.
    pub async fn run(self) {
        let mut state = State::default();
        loop {
            // The pods, and whatever is followed beside them.
            let changed = self.pods.listen();
            let again = match self.pods.has_listed() {
                true => self.turn(&mut state).await,
                false => None,
            };
            match again {
                None => changed.await,
                Some(at) => or(changed, self.clock.sleep_until(at)).await,
            }
        }
    }

    /// Hands over what there is. Returns when to look again at the latest.
    async fn turn(&self, state: &mut State) -> Option<BootTime> {
        let (pods, placing) = self.look(state);
        self.follow(state);
        if placing == Placing::Doubtful {
            let _goes_by_what_is_known = self.node.ask().await;
        }
        let now = self.clock.now();
        let mut complete = Complete::default();
        complete.add(state, self.node.key(), Some(&*self.node.reflector));
        for (name, held) in &pods {
            complete.add_pod(state, name, held, now);
        }
        for key in std::mem::take(&mut complete.needed) {
            let reflector = state.reflector_of(&key);
            for one in self.each(key, reflector) {
                complete.add(state, one, reflector);
            }
        }
        if complete.again.is_some() && !self.registry.has_listed(Source::Remote) {
            // Whom the first list leaves out would be an orphan, and may be running.
            return complete.again;
        }
        let fresh = |entry: &Incoming| !matches!(entry, Incoming::AsBefore(_));
        if complete.list.iter().any(fresh)
            || complete.prints != state.told
            || !self.registry.has_listed(Source::Remote)
        {
            match self.registry.replace(Source::Remote, complete.list).await {
                Ok(replaced) => {
                    for (key, problem) in replaced.problems {
                        log::error!("{key} of the cluster cannot be taken: {}", problem.message);
                        self.report(&pods, key, problem.message);
                    }
                    for (key, warning) in replaced.warnings {
                        log::debug!("{key} of the cluster: {}", warning.message);
                    }
                    state.told = complete.prints;
                }
                Err(error) => {
                    log::error!("keep what the cluster wants: {error}; trying again");
                    return Some(now + REFERENCES_MAX);
                }
            }
        }
        self.taken.replace(complete.taken);
        complete.again
    }

    /// Whoever waits for the pod sees why.
    fn report(&self, pods: &[(Name, Rc<Held>)], key: Key, why: String) {
        let of = |(name, _): &&(Name, Rc<Held>)| key_of(Kind::Pod, name) == key;
        let Some((_, held)) = pods.iter().find(of) else {
            return;
        };
        self.registry.record(EventRecord {
            involved: key,
            uid: held.uid().to_owned(),
            field_path: None,
            warning: true,
            reason: "FailedValidation".to_owned(),
            message: format!("the node cannot take it as it is now: {why}"),
        });
    }

    /// Where a key has no name, it is of all that the cluster, or else the registry, has there.
    fn each(&self, key: Key, reflector: Option<&Reflector>) -> Vec<Key> {
        if !key.name.is_empty() {
            return vec![key];
        }
        if let Some(reflector) = reflector.filter(|reflector| reflector.has_listed()) {
            let held = reflector.all().into_iter();
            return held.map(|(name, _)| key_of(key.kind, &name)).collect();
        }
        let reader = self.registry.reader();
        let (here, _) = reader.list_packed(key.kind, Some(&key.namespace));
        let here = here.iter().map(|object| object.key().clone());
        here.filter(|key| key.origin == Origin::Remote).collect()
    }

    /// Reads what changed among the pods. Returns those that are no mirrors.
    fn look(&self, state: &mut State) -> (Vec<(Name, Rc<Held>)>, Placing) {
        let mut pods = self.pods.all();
        let mut placing = Placing::Plain;
        let reader = self.registry.reader();
        let mut seen = BTreeMap::new();
        pods.retain(|(name, held)| {
            let before = state.seen.remove(name);
            if let Some(same) = before
                .as_ref()
                .filter(|seen| *seen.version == *held.version())
            {
                let mirror = same.uid.is_empty();
                seen.insert(name.clone(), before.expect("just looked at"));
                return !mirror;
            }
            let body = held.body();
            let mirror = super::mirror::is_mirror(&body);
            let since = before.filter(|seen| *seen.uid == *held.uid());
            let key = key_of(Kind::Pod, name);
            let here = reader.get_packed(&key);
            let here = here.filter(|pod| pod.uid() == held.uid());
            let ended = has_ended(&body["status"]);
            let runs = |pod: &Packed| !has_ended(&pod.unpack().body["status"]);
            let ends = ended && here.as_deref().is_some_and(runs);
            let here = here.is_some();
            // Ended here already, and a finalizer keeps the object: it is not begun anew.
            let goes = since.is_some() && body["metadata"]["deletionTimestamp"].is_string();
            if !here && !mirror && since.is_none() && !self.node.is_chosen_by(&body["spec"]) {
                placing = Placing::Doubtful;
            }
            seen.insert(
                name.clone(),
                Seen {
                    version: held.version().into(),
                    // A mirror is nobody's to run.
                    uid: if mirror { "" } else { held.uid() }.into(),
                    names: names_of(&body["spec"], &name.0),
                    since: since.map_or_else(|| self.clock.now(), |seen| seen.since),
                    here,
                    over: !here && (goes || ended),
                    ends,
                    print: fingerprint(&stated_pod(body, ends)),
                },
            );
            !mirror
        });
        state.seen = seen;
        (pods, placing)
    }

    /// Follows what pods name, and nothing else.
    fn follow(&self, state: &mut State) {
        let pods = state
            .seen
            .values()
            .filter(|seen| !seen.uid.is_empty() && !seen.over);
        let named: BTreeSet<&Key> = pods.flat_map(|seen| &seen.names).gathered();
        state.followers.retain(|key, _| named.contains(key));
        for key in named {
            if state.followers.contains_key(key) {
                continue;
            }
            let selection = Selection {
                kind: key.kind,
                namespace: key.namespace.clone(),
                fields: match key.name.as_str() {
                    "" => String::new(),
                    name => format!("metadata.name={name}"),
                },
            };
            let reflector = self.pods.beside(selection);
            let own = reflector.clone();
            let task = task::spawn(&self.executor, async move { own.run().await });
            let follower = Follower {
                reflector,
                _task: task,
            };
            state.followers.insert(key.clone(), follower);
        }
    }
}

/// A complete list under way.
#[derive(Default)]
struct Complete {
    list: Vec<Incoming>,
    prints: BTreeMap<Key, Print>,
    /// What the pods of the list name.
    needed: BTreeSet<Key>,
    taken: BTreeSet<String>,
    /// When a pod that was left out has waited long enough.
    again: Option<BootTime>,
}

impl Complete {
    fn add_pod(&mut self, state: &State, name: &Name, held: &Held, now: BootTime) {
        let seen = &state.seen[name];
        if seen.over {
            self.taken.insert(seen.uid.to_string());
            return;
        }
        let key = key_of(Kind::Pod, name);
        let until = seen.since + REFERENCES_MAX;
        let known = |key| state.reflector_of(key).is_some_and(Reflector::has_listed);
        let new = !seen.here && !state.told.contains_key(&key);
        if new && now < until && !seen.names.iter().all(known) {
            self.again = self.again.map_or(Some(until), |at| Some(at.min(until)));
            return;
        }
        self.needed.extend(seen.names.iter().cloned());
        self.taken.insert(seen.uid.to_string());
        self.list.push(entry(state, &key, seen.print, || {
            stated_pod(held.body(), seen.ends)
        }));
        self.prints.insert(key, seen.print);
    }

    /// Adds what `reflector` holds of `key`.
    fn add(&mut self, state: &State, key: Key, reflector: Option<&Reflector>) {
        if self.prints.contains_key(&key) {
            return;
        }
        let Some(reflector) = reflector.filter(|reflector| reflector.has_listed()) else {
            // Whatever is here stays.
            let told = state.told.get(&key);
            self.prints.extend(told.map(|print| (key.clone(), *print)));
            self.list.push(Incoming::AsBefore(key));
            return;
        };
        if let Some(held) = reflector.get(&key.namespace, &key.name) {
            let print = held.print(|body| fingerprint(&stated(body)));
            let body = || stated(held.body());
            self.list.push(entry(state, &key, print, body));
            self.prints.insert(key, print);
        }
    }
}

impl State {
    fn reflector_of(&self, key: &Key) -> Option<&Reflector> {
        let follower = self.followers.get(key)?;
        Some(&follower.reflector)
    }
}

fn entry(state: &State, key: &Key, print: Print, body: impl FnOnce() -> Value) -> Incoming {
    match state.told.get(key) {
        Some(told) if *told == print => Incoming::AsBefore(key.clone()),
        _ => Incoming::Object {
            key: key.clone(),
            provenance: None,
            body: body(),
            lines: FieldLines::default(),
        },
    }
}

pub fn key_of(kind: Kind, (namespace, name): &Name) -> Key {
    Key {
        origin: Origin::Remote,
        ..Key::local(kind, namespace, name)
    }
}

/// How a pod is doing, the kubelet says. It learns if the cluster thinks that it `ends`.
fn stated_pod(mut body: Value, ends: bool) -> Value {
    if ends {
        body["metadata"]["annotations"][ENDED_THERE] = body["status"]["phase"].take();
    }
    stated(body)
}

/// An object as its source states it.
fn stated(mut body: Value) -> Value {
    if let Some(fields) = body.as_object_mut() {
        fields.remove("status");
    }
    if let Some(metadata) = body["metadata"].as_object_mut() {
        metadata.remove("resourceVersion");
    }
    body
}

fn names_of(spec: &Value, namespace: &str) -> BTreeSet<Key> {
    let named =
        |kind: Kind| move |name: &str| key_of(kind, &(namespace.to_owned(), name.to_owned()));
    let secrets = references::secrets(spec).map(named(Kind::Secret));
    let config_maps = references::config_maps(spec).map(named(Kind::ConfigMap));
    // For its environment: where the API is, and the services of its namespace.
    let linked = spec["enableServiceLinks"] != false;
    let all = linked.then(|| named(Kind::Service)(""));
    let api = (!linked || namespace != API.0)
        .then(|| key_of(Kind::Service, &(API.0.to_owned(), API.1.to_owned())));
    secrets.chain(config_maps).chain(all).chain(api).gathered()
}
