//! What the cluster should know of this node's pods, compared with what it was last seen to hold.
//!
//! ```text
//!  registry: pods of the cluster ── status differs ──────────────► PATCH pods/NAME/status
//!            gone, and it asked for that ── last status, then ───► DELETE, grace 0, this UID
//!  registry: pods of this node ── no mirror, or of another text ─► (DELETE and) POST
//!                              ── status differs ────────────────► PATCH
//!  mirror of a pod that is no more ──────────────────────────────► DELETE
//! ```
//! No memory of what was once sent decides, except that what the cluster did not take as it was is
//! not sent again until one side changes. What it refuses for another reason than what it says (rights, an
//! admission webhook that is down) is sent again after a while, and holds up nothing else.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use futures_lite::future::or;
use serde_json::{Value, json};

use super::link::{Backoff, Link, wants_a_pause};
use super::node::{Enlisted, seconds};
use super::paths;
use super::pod_status::has_ended;
use super::pull::key_of;
use super::reflector::{Held, Name, Reflector};
use super::{mirror, pod_status};
use crate::object::gather::Gather;
use crate::object::json::fingerprint;
use crate::object::{Key, Kind, Object, Origin, Source, Standing};
use crate::registry::{ChangeType, EventRecord, Packed, Registry};
use crate::world::{BootTime, Call, Clock, NoAnswer, Reply, Verb};

/// Changes come in bursts: this long after the first of them, one look takes them all.
const GATHER: Duration = Duration::from_millis(50);
/// Before what the cluster refused is tried again though nothing changed.
const REFUSED_AGAIN: Duration = Duration::from_secs(60);
/// The first time, where it may be no fault of what was sent; doubles up to the above.
const UNWANTED_AGAIN: Duration = Duration::from_secs(10);
/// So many internal errors in one turn are the cluster's trouble, not that of some object.
const FAULTS_MAX: u32 = 3;

/// Why a turn was broken off.
enum Stop {
    NoAnswer,
    /// It wants to be left alone for a while.
    Busy(Option<Duration>),
}

/// What was sent last and to no avail: our side, their side.
type Futile = (u64, u64);

pub struct Push {
    pub link: Rc<Link>,
    pub registry: Registry,
    pub clock: Rc<dyn Clock>,
    pub node_name: String,
    pub pods: Rc<Reflector>,
    pub taken: Rc<RefCell<BTreeSet<String>>>,
    pub enlisted: Rc<Enlisted>,
    /// Sources of this node's own pods that must have listed before a mirror is called an orphan.
    pub sources: Vec<Source>,
}

#[derive(Default)]
struct State {
    /// How pods of the cluster had ended when the registry let them go.
    ended: BTreeMap<String, Value>,
    /// Deletions that the cluster was asked for and that the watch has not shown yet.
    asked: BTreeSet<String>,
    futile: BTreeMap<String, Futile>,
    /// Between which version here and which state there nothing was left to be said, by UID there.
    settled: BTreeMap<String, (u64, Rc<Held>)>,
    /// UIDs of whom the cluster may hear later: how long it was waited last, and until when.
    unwanted: BTreeMap<String, (Duration, BootTime)>,
    /// Internal errors of the cluster in this turn.
    faults: u32,
    /// Mirrors that the cluster refused, and when to try again.
    refused: BTreeMap<Key, (String, BootTime)>,
    /// How often the cluster had been put back to an older state when the rest was learnt.
    rewinds: u32,
}

impl State {
    fn is_settled(&self, pod: &Packed, held: &Rc<Held>) -> bool {
        let settled = self.settled.get(held.uid());
        settled.is_some_and(|(version, theirs)| {
            *version == pod.resource_version() && Rc::ptr_eq(theirs, held)
        })
    }
}

impl Push {
    /// Never ends.
    pub async fn run(self) {
        let mut state = State::default();
        let mut backoff = Backoff::default();
        let reader = self.registry.reader();
        let mut version = reader.version();
        loop {
            let (theirs, node) = (self.pods.listen(), self.enlisted.listen());
            let Ok(mut cursor) = reader.watch(Kind::Pod, version) else {
                // History is short and somebody was quick: what it would have told is compared anyway.
                version = reader.version();
                continue;
            };
            // Whoever is not among these has told below how it ended.
            let (ours, _) = reader.list_packed(Kind::Pod, None);
            while let Ok(Some(changes)) = cursor.ready_packed() {
                for change in changes {
                    version = version.max(change.resource_version());
                    let object = &change.object;
                    if change.change == ChangeType::Deleted && object.key().origin == Origin::Remote
                    {
                        let mut object = object.unpack();
                        let status = object.body["status"].take();
                        state.ended.insert(object.uid().to_owned(), status);
                    }
                }
            }
            let begun = self.clock.now();
            match self.turn(&mut state, ours).await {
                Ok(()) => {
                    backoff.reset();
                    // What was due and is not put off again has settled otherwise.
                    state.refused.retain(|_, (_, at)| *at > begun);
                    state.unwanted.retain(|_, (_, at)| *at > begun);
                }
                Err(Stop::NoAnswer) => {
                    self.link.pause(&mut backoff, None).await;
                    continue;
                }
                Err(Stop::Busy(asked)) => {
                    self.link.pause(&mut backoff, asked).await;
                    continue;
                }
            }
            let ours = async {
                let _changed_or_gone = cursor.next_packed().await;
            };
            let refused = state.refused.values().map(|(_, at)| *at);
            let unwanted = state.unwanted.values().map(|(_, at)| *at);
            let again = refused.chain(unwanted).min();
            let later = async {
                match again {
                    Some(at) => self.clock.sleep_until(at).await,
                    None => std::future::pending().await,
                }
            };
            or(or(ours, theirs), or(node, later)).await;
            self.clock.sleep_until(self.clock.now() + GATHER).await;
        }
    }

    async fn turn(&self, state: &mut State, ours: Vec<Arc<Packed>>) -> Result<(), Stop> {
        if !self.pods.has_listed() {
            return Ok(());
        }
        // What it was asked for before it has forgotten.
        if std::mem::replace(&mut state.rewinds, self.link.rewinds()) != self.link.rewinds() {
            state.asked.clear();
            state.futile.clear();
            state.settled.clear();
        }
        state.faults = 0;
        let theirs = self.pods.all();
        let uids: BTreeSet<&str> = theirs.iter().map(|(_, held)| held.uid()).gathered();
        state.asked.retain(|uid| uids.contains(uid.as_str()));
        state.futile.retain(|uid, _| uids.contains(uid.as_str()));
        state.settled.retain(|uid, _| uids.contains(uid.as_str()));
        state.unwanted.retain(|uid, _| uids.contains(uid.as_str()));
        state.ended.retain(|uid, _| uids.contains(uid.as_str()));

        // Who is here at the begin of this turn and goes in its course is the next one's.
        let (mut pictured, mut here) = (BTreeSet::new(), BTreeSet::new());
        for pod in ours {
            let key = pod.key();
            let name = (key.namespace.clone(), key.name.clone());
            let held = self.pods.get(&name.0, &name.1);
            if let Some(held) = held.as_ref().filter(|held| state.is_settled(&pod, held)) {
                here.insert(held.uid().to_owned());
                pictured.insert(name);
            } else if key.origin == Origin::Remote {
                here.insert(pod.uid().to_owned());
                if let Some(held) = held.filter(|held| held.uid() == pod.uid()) {
                    self.send_status(state, &name, &held, &pod.unpack()).await?;
                }
            } else if matches!(pod.standing(), Standing::Accepted | Standing::Stale(_)) {
                let object = pod.unpack();
                if object.body["spec"]["nodeName"] == self.node_name.as_str() {
                    pictured.insert(name.clone());
                    self.show(state, &name, &object).await?;
                }
            }
        }
        for (name, held) in theirs {
            if state.asked.contains(held.uid()) || here.contains(held.uid()) {
                continue;
            }
            let body = held.body();
            match mirror::is_mirror(&body) {
                true if pictured.contains(&name) || !self.knows_own() => {}
                true => self.remove(state, &name, held.uid()).await?,
                false => self.finish(state, &name, &held, &body).await?,
            }
        }
        Ok(())
    }

    /// Whether every source of this node's own pods has said what there is.
    fn knows_own(&self) -> bool {
        let mut sources = self.sources.iter();
        sources.all(|source| self.registry.has_listed(*source))
    }

    /// The second half of a deletion: nothing of the pod is left here.
    async fn finish(
        &self,
        state: &mut State,
        name: &Name,
        held: &Rc<Held>,
        body: &Value,
    ) -> Result<(), Stop> {
        let here = self.registry.reader().get_packed(&key_of(Kind::Pod, name));
        let here = here.is_some_and(|pod| pod.uid() == held.uid());
        let deleting = body["metadata"]["deletionTimestamp"].is_string();
        if here || !deleting || !self.taken.borrow().contains(held.uid()) {
            return Ok(());
        }
        // It has to be seen to have ended before it is gone: controllers count that, and wait for it.
        // Source: Kubernetes pkg/kubelet/status/status_manager.go (TerminatePod).
        let theirs = &body["status"];
        let ended = state.ended.get(held.uid());
        // The kubelet may have had nothing to say of it.
        let ended = ended.filter(|ended| ended["conditions"].is_array());
        let mut last = ended.unwrap_or(theirs).clone();
        if !has_ended(&last) && !has_ended(theirs) {
            last["phase"] = "Failed".into();
            if !last["conditions"].is_array() {
                last["conditions"] = json!([]);
            }
        }
        if has_ended(&last) {
            self.send(state, name, held, (0, &last)).await?;
        }
        self.remove(state, name, held.uid()).await
    }

    async fn remove(&self, state: &mut State, name: &Name, uid: &str) -> Result<(), Stop> {
        if self.is_unwanted(state, uid) {
            return Ok(());
        }
        let options = json!({
            "apiVersion": "v1", "kind": "DeleteOptions",
            "gracePeriodSeconds": 0, "preconditions": {"uid": uid},
        });
        let path = paths::object(&key_of(Kind::Pod, name));
        let reply = self.ask(Call::with(Verb::Delete, path, options)).await?;
        match reply.status {
            // Gone, or another one by now.
            200 | 202 | 409 => {}
            404 if is_of_the_api(&reply) => {}
            _ => return self.put_off(state, "delete", name, uid, &reply),
        }
        state.unwanted.remove(uid);
        state.asked.insert(uid.to_owned());
        Ok(())
    }

    async fn send_status(
        &self,
        state: &mut State,
        name: &Name,
        held: &Rc<Held>,
        pod: &Object,
    ) -> Result<(), Stop> {
        let ours = (pod.resource_version, &pod.body["status"]);
        self.send(state, name, held, ours).await
    }

    /// Sends a status, which is that of a version here.
    async fn send(
        &self,
        state: &mut State,
        name: &Name,
        held: &Rc<Held>,
        (version, ours): (u64, &Value),
    ) -> Result<(), Stop> {
        // Before the kubelet has said anything there is nothing to tell.
        if !ours["conditions"].is_array() {
            return Ok(());
        }
        let body = held.body();
        let (spec, theirs) = (&body["spec"], &body["status"]);
        let now = seconds(self.clock.wall());
        let credible = seconds(self.clock.credible());
        let dated = pod_status::dated(theirs, ours.clone(), &credible);
        let mut told = pod_status::gated(spec, theirs, dated, &now);
        // Of a mirror the node's own pod says whether it has ended.
        if !mirror::is_mirror(&body) {
            told = pod_status::settled(theirs, told, &now);
        }
        let futile = (fingerprint(ours), fingerprint(theirs));
        let patch = pod_status::patch(held.uid(), theirs, &told);
        let Some(patch) = patch.filter(|_| state.futile.get(held.uid()) != Some(&futile)) else {
            let settled = (version, held.clone());
            state.settled.insert(held.uid().to_owned(), settled);
            return Ok(());
        };
        if self.is_unwanted(state, held.uid()) {
            return Ok(());
        }
        let path = format!("{}/status", paths::object(&key_of(Kind::Pod, name)));
        let call = Call::with(Verb::Patch, path, patch.clone());
        let reply = self.ask(call).await?;
        let theirs = match reply.status {
            200 => {
                let theirs = &reply.body["status"];
                let rest = pod_status::patch(held.uid(), theirs, &told);
                let lost = rest.is_some_and(|rest| pod_status::is_beyond(&patch, &rest));
                let theirs = fingerprint(theirs);
                self.pods.learn(reply.body);
                if lost {
                    // The watch shows this change too, and then the rest is sent.
                    return Ok(());
                }
                theirs
            }
            // Gone; the watch will say so.
            404 if is_of_the_api(&reply) => futile.1,
            // It does not take what is said.
            400 | 413 | 422 => {
                self.complain("report the status of", name, &reply);
                futile.1
            }
            _ => return self.put_off(state, "report the status of", name, held.uid(), &reply),
        };
        state.unwanted.remove(held.uid());
        state
            .futile
            .insert(held.uid().to_owned(), (futile.0, theirs));
        Ok(())
    }

    /// Sees to the picture of a pod of this node.
    async fn show(&self, state: &mut State, name: &Name, pod: &Object) -> Result<(), Stop> {
        let held = self.pods.get(&name.0, &name.1);
        if let Some(held) = &held {
            let body = held.body();
            let stale = mirror::hash_of(&body) != Some(mirror::content(&pod.body))
                || body["metadata"]["deletionTimestamp"].is_string();
            match (mirror::is_mirror(&body), stale) {
                (true, false) => return self.send_status(state, name, held, pod).await,
                (true, true) if state.asked.contains(held.uid()) => return Ok(()),
                (true, true) => return self.remove(state, name, held.uid()).await,
                // A pod that the cluster bound here has the name: reported below.
                (false, _) => {}
            }
        }
        let Some(node_uid) = self.enlisted.uid() else {
            return Ok(());
        };
        if pod.is_deleting() || self.is_refused(state, pod) {
            return Ok(());
        }
        let picture = mirror::picture(&pod.body, &self.node_name, &node_uid);
        let path = paths::collection(Kind::Pod, &name.0);
        let reply = self.ask(Call::with(Verb::Create, path, picture)).await?;
        match reply.status {
            200..300 => {
                state.refused.remove(&pod.key);
                self.pods.learn(reply.body);
            }
            _ => {
                self.note_refusal(state, pod, &reply);
                return count_fault(state, &reply);
            }
        }
        Ok(())
    }

    fn is_unwanted(&self, state: &State, uid: &str) -> bool {
        let unwanted = state.unwanted.get(uid);
        unwanted.is_some_and(|(_, at)| self.clock.now() < *at)
    }

    /// Refused, and perhaps not for good.
    fn put_off(
        &self,
        state: &mut State,
        what: &str,
        name: &Name,
        uid: &str,
        reply: &Reply,
    ) -> Result<(), Stop> {
        let before = state.unwanted.get(uid).map(|(pause, _)| *pause);
        // Another one by now, mostly; the watch will say so.
        if before.is_none() && reply.status != 409 {
            self.complain(what, name, reply);
        }
        let pause = before.map_or(UNWANTED_AGAIN, |pause| (pause * 2).min(REFUSED_AGAIN));
        let until = self.clock.now() + pause;
        state.unwanted.insert(uid.to_owned(), (pause, until));
        count_fault(state, reply)
    }

    fn is_refused(&self, state: &State, pod: &Object) -> bool {
        let refused = state.refused.get(&pod.key);
        refused.is_some_and(|(uid, at)| uid == pod.uid() && self.clock.now() < *at)
    }

    /// Never adopted, never forced: whoever has the name keeps it.
    fn note_refusal(&self, state: &mut State, pod: &Object, reply: &Reply) {
        let again = self.clock.now() + REFUSED_AGAIN;
        let new = (pod.uid().to_owned(), again);
        let before = state.refused.insert(pod.key.clone(), new);
        if before.is_some_and(|(uid, _)| uid == pod.uid()) {
            return;
        }
        let why = match reply.status {
            409 => "the cluster has another pod of this name",
            _ => reply.message(),
        };
        log::warn!("{} has no mirror pod in the cluster: {why}", pod.key);
        self.registry.record(EventRecord {
            involved: pod.key.clone(),
            uid: pod.uid().to_owned(),
            field_path: None,
            warning: true,
            reason: "FailedMirrorPod".to_owned(),
            message: format!("no mirror pod in the cluster: {why}"),
        });
    }

    async fn ask(&self, call: Call) -> Result<Reply, Stop> {
        let reply = self
            .link
            .call(call)
            .await
            .map_err(|_: NoAnswer| Stop::NoAnswer)?;
        match wants_a_pause(&reply) {
            true => Err(Stop::Busy(reply.retry_after)),
            false => Ok(reply),
        }
    }

    fn complain(&self, what: &str, (namespace, name): &Name, reply: &Reply) {
        let (status, message) = (reply.status, reply.message());
        log::warn!("{what} pod {namespace}/{name} in the cluster: {status} {message}");
    }
}

/// Whether an API server says so, not somebody on the way to it.
fn is_of_the_api(reply: &Reply) -> bool {
    reply.body["kind"] == "Status"
}

fn count_fault(state: &mut State, reply: &Reply) -> Result<(), Stop> {
    state.faults += u32::from(reply.status >= 500);
    match state.faults {
        FAULTS_MAX.. => Err(Stop::Busy(None)),
        _ => Ok(()),
    }
}
