//! The cluster's Node of this machine, and the lease that says that it lives.
//!
//! ```text
//!   every 10 s, and at once when the cluster answers again after an outage:
//!     lease ──► Node there? make it ──► status changed, or five minutes old? send it
//! ```
//! What the Node says is the registry's Node: the kubelet keeps it true whether or not anybody asks. Labels
//! and taints are those of this start alone: what the registry keeps of earlier ones is not the cluster's.
//! Source: Kubernetes pkg/kubelet/kubelet_node_status.go, component-helpers/apimachinery/lease.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::rc::Rc;
use std::time::Duration;

use event_listener::{Event, EventListener};
use futures_lite::future::or;
use jiff::Timestamp;
use serde_json::{Map, Value, json};

use super::link::Link;
use super::node_status::{is_overruled, stamp, status_patch, without_heartbeats};
use super::own_node::OwnNode;
use super::pace::{BEAT_USUAL, Pace};
use super::paths;
use crate::object::gather::Gather;
use crate::object::{Key, Kind};
use crate::registry::Registry;
use crate::world::{BootTime, Call, Clock, NoAnswer, Reply, Verb};

/// How long the lease lasts that is renewed every quarter of it (`pace`).
const LEASE_S: u32 = 40;
/// A renewal that hangs is given up in time for another one. On a link of 2 s and 10 kB/s it takes
/// about 9 s where it has to dial.
const RENEWAL_MAX: Duration = Duration::from_secs(20);
/// Between the begins of two beats where others are answered and not answered by turns; less than an outage
/// lasts (`link`), so that an answer tells that there is none.
const TURN_MIN: Duration = Duration::from_secs(1);
/// An unchanged status is sent this often.
const REPORT_PERIOD: Duration = Duration::from_secs(300);
const LEASES: &str = "kube-node-lease";
/// What the controller of a cloud goes by. Source: Kubernetes cloud-provider/api/well_known_annotations.go.
const PROVIDED_IPS: &str = "alpha.kubernetes.io/provided-node-ip";

/// Whether the cluster has a Node of this name, and which.
#[derive(Default)]
pub struct Enlisted {
    uid: RefCell<Option<String>>,
    changed: Event,
}

impl Enlisted {
    /// UID of the cluster's Node.
    pub fn uid(&self) -> Option<String> {
        self.uid.borrow().clone()
    }

    pub fn listen(&self) -> EventListener {
        self.changed.listen()
    }

    fn set(&self, uid: Option<String>) {
        if *self.uid.borrow() != uid {
            self.uid.replace(uid);
            self.changed.notify(usize::MAX);
        }
    }
}

/// Who makes the Node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Registration {
    /// This node, if it is not there.
    Own,
    /// `--register-node=false`: an administrator. Until then nothing is reported.
    Others,
}

/// Who knows where the machine is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cloud {
    Nobody,
    /// `--cloud-provider=external`: a controller of the cloud, which gives the Node its addresses
    /// and then takes the taint away that it is made with.
    External,
}

pub struct Heartbeat {
    pub link: Rc<Link>,
    pub registry: Registry,
    pub clock: Rc<dyn Clock>,
    pub node_name: String,
    pub registration: Registration,
    pub cloud: Cloud,
    pub provider_id: Option<String>,
    /// `--node-ip`
    pub provided_ips: Vec<IpAddr>,
    pub enlisted: Rc<Enlisted>,
    /// The cluster's Node, watched: somebody may take it away or make another.
    pub node: Rc<OwnNode>,
}

#[derive(Default)]
struct State {
    /// The lease as the cluster answered it last.
    lease: Option<Value>,
    lease_version: u64,
    /// What the Node's status was when it was last sent, without its heartbeats.
    sent: Option<(Value, BootTime)>,
    /// What the cluster refuses, and how; told once.
    refused: BTreeMap<&'static str, String>,
    pace: Pace,
}

impl Heartbeat {
    /// Never ends.
    pub async fn run(self) {
        let mut state = State::default();
        // Whether the present beat dials because the one before it had no answer at an open door.
        let mut doubtful = false;
        let reader = self.registry.reader();
        loop {
            let version = reader.version();
            let begun = self.clock.now();
            let patience = state.pace.patience();
            let opens = async {
                self.link.wait(patience).await;
                Err(self.link.passes_by().await)
            };
            let beat = async { Ok(self.beat(&mut state).await) };
            let beat = match or(beat, opens).await {
                Ok(beat) => beat,
                Err(alone) => {
                    doubtful = alone;
                    state.pace.begun_anew();
                    continue;
                }
            };
            // Over a new connection it is answered at once: not the server is slow, the old ones are dead.
            let took = self.clock.now().since(begun);
            if std::mem::take(&mut doubtful) && beat.is_ok() && took < BEAT_USUAL {
                self.link.nudge();
            }
            // The lease says when the beat began, however late the answer was.
            let next = match beat {
                Ok(()) => begun + state.pace.answered(state.lease.is_some()),
                Err(_) => self.clock.now() + state.pace.unanswered(),
            };
            let sleep = self.clock.sleep_until(next);
            match self.link.is_up() {
                // What the kubelet says of the node is news. Where somebody else finds the cluster gone,
                // it is asked often from now on, so that it hears of the node as soon as it is back.
                true => {
                    let turned = async {
                        self.link.turned().await;
                        self.clock.sleep_until(begun + TURN_MIN).await;
                    };
                    or(sleep, or(turned, self.changed_status(&reader, version))).await;
                }
                false => or(or(sleep, self.link.back()), self.link.opens()).await,
            }
        }
    }

    async fn changed_status(&self, reader: &crate::registry::Reader, version: u64) {
        reader.changed(&[Kind::Node], version).await;
    }

    async fn beat(&self, state: &mut State) -> Result<(), NoAnswer> {
        let (ours, theirs) = (self.enlisted.uid(), self.node.uid());
        if ours.is_some() && theirs.is_some_and(|theirs| theirs != ours) {
            self.lost(state);
        }
        let Some(uid) = self.enlist(state).await? else {
            return Ok(());
        };
        self.renew_lease(state, &uid).await?;
        // What became of it meanwhile, ahead of the watch.
        if state.pace.is_recovering() {
            self.node.ask().await?;
        }
        self.refresh_metadata(state).await?;
        self.report(state).await
    }

    /// Finds the Node, or makes it. `None`: it is not there and cannot be made.
    async fn enlist(&self, state: &mut State) -> Result<Option<String>, NoAnswer> {
        if let Some(uid) = self.enlisted.uid() {
            return Ok(Some(uid));
        }
        let Some(own) = self.own() else {
            return Ok(None);
        };
        let path = paths::object(&Key::local(Kind::Node, "", &self.node_name));
        let found = self.link.call(Call::get(path.clone())).await?;
        let reply = match (found.status, self.registration) {
            (404, Registration::Own) => {
                let stated = self.registry.stated_node();
                if stated.is_null() {
                    return Ok(None);
                }
                let provider_id = self.provider_id.as_deref();
                let made = node_of(&own, stated, self.cloud, provider_id, &self.provided_ips);
                let path = paths::collection(Kind::Node, "");
                let made = self.link.call(Call::with(Verb::Create, path, made)).await?;
                if made.is_success() {
                    log::info!("node {} is registered", self.node_name);
                }
                made
            }
            _ => found,
        };
        if !reply.is_success() {
            self.complain(state, "register the node", &reply);
            return Ok(None);
        }
        state.refused.clear();
        state.sent = None;
        let uid = reply.body["metadata"]["uid"].as_str().map(str::to_owned);
        self.node.reflector.learn(reply.body);
        self.enlisted.set(uid.clone());
        Ok(uid)
    }

    /// The registry's Node as it is now.
    fn own(&self) -> Option<Value> {
        let key = Key::local(Kind::Node, "", &self.node_name);
        let own = self.registry.reader().get_packed(&key)?.unpack().body;
        // Before the kubelet has looked there is nothing to tell.
        own["status"]["conditions"].is_array().then_some(own)
    }

    /// Labels that follow from the machine (those of the user are set when the Node is made), and the
    /// addresses that `--node-ip` names now.
    async fn refresh_metadata(&self, state: &mut State) -> Result<(), NoAnswer> {
        let Some(found) = self.node.get() else {
            return Ok(());
        };
        let (own, found) = (self.registry.stated_node(), found.body());
        let theirs = &found["metadata"]["labels"];
        let ours = own["metadata"]["labels"].as_object();
        let changed: Map<String, Value> = ours
            .into_iter()
            .flatten()
            .filter(|(name, value)| is_of_the_machine(name) && theirs.get(name) != Some(value))
            .map(|(name, value)| (name.clone(), value.clone()))
            .gathered();
        let mut news = json!({});
        if !changed.is_empty() {
            news["labels"] = changed.into();
        }
        if self.cloud == Cloud::External {
            let provided = provided_ips(&self.provided_ips).unwrap_or_default();
            if found["metadata"]["annotations"][PROVIDED_IPS] != provided {
                news["annotations"][PROVIDED_IPS] = provided;
            }
        }
        if news.as_object().is_some_and(Map::is_empty) {
            return Ok(());
        }
        let patch = json!({"metadata": news});
        let path = paths::object(&self.node.key());
        let reply = self.link.call(Call::with(Verb::Patch, path, patch)).await?;
        match reply.is_success() {
            true => self.node.reflector.learn(reply.body),
            false => self.complain(state, "label the node", &reply),
        }
        Ok(())
    }

    async fn renew_lease(&self, state: &mut State, node_uid: &str) -> Result<(), NoAnswer> {
        let key = Key::local(Kind::Lease, LEASES, &self.node_name);
        let path = paths::object(&key);
        let now = micros(self.clock.wall());
        let known = state.lease.take();
        let renews = known.is_some();
        let ask = |call| self.link.call_within(RENEWAL_MAX, call);
        let reply = match known {
            Some(mut lease) => {
                lease["spec"]["renewTime"] = now.into();
                let call = Call::with(Verb::Update, path, lease);
                ask(call).await?
            }
            None => match ask(Call::get(path)).await? {
                found if found.status == 200 => {
                    let mut lease = found.body;
                    // Only this node writes it: what is older than its last word is of an older cluster.
                    if version_of(&lease) < state.lease_version {
                        self.rewound(state);
                    }
                    // Of a Node that is no more it would soon be collected.
                    lease["metadata"]["ownerReferences"] = self.owner_of_lease(node_uid);
                    lease["spec"] = self.lease_spec(&now);
                    let call = Call::with(Verb::Update, paths::object(&key), lease);
                    ask(call).await?
                }
                found if found.status == 404 => {
                    // One that was there, or this is a cluster of before it.
                    if state.lease_version > 0 {
                        self.rewound(state);
                    }
                    let lease = json!({
                        "apiVersion": "coordination.k8s.io/v1",
                        "kind": "Lease",
                        "metadata": {
                            "name": self.node_name, "namespace": LEASES,
                            "ownerReferences": self.owner_of_lease(node_uid),
                        },
                        "spec": self.lease_spec(&now),
                    });
                    let path = paths::collection(Kind::Lease, LEASES);
                    ask(Call::with(Verb::Create, path, lease)).await?
                }
                other => other,
            },
        };
        match reply.is_success() {
            true => {
                let mut lease = reply.body;
                lease["metadata"]
                    .as_object_mut()
                    .map(|fields| fields.remove("managedFields"));
                self.keep_lease(state, lease);
            }
            // Somebody else wrote it: the next beat looks first.
            false if reply.status == 409 => {}
            // It goes with its Node: the next beat looks for that too.
            false if reply.status == 404 && renews => self.enlisted.set(None),
            false => self.complain(state, "renew the node's lease", &reply),
        }
        Ok(())
    }

    /// Each renewal has a higher version than the one before, in one history of the cluster.
    fn keep_lease(&self, state: &mut State, lease: Value) {
        let version = version_of(&lease);
        let before = std::mem::replace(&mut state.lease_version, version);
        match version < before {
            true => self.rewound(state),
            false => state.lease = Some(lease),
        }
    }

    fn rewound(&self, state: &mut State) {
        self.link.rewind();
        state.lease_version = 0;
        // Status and owner may be old there.
        state.sent = None;
    }

    fn owner_of_lease(&self, node_uid: &str) -> Value {
        json!([{"apiVersion": "v1", "kind": "Node", "name": self.node_name, "uid": node_uid}])
    }

    fn lease_spec(&self, now: &str) -> Value {
        json!({
            "holderIdentity": self.node_name,
            "leaseDurationSeconds": LEASE_S,
            "renewTime": now,
        })
    }

    /// Sends the status if there is news, or none for a while.
    async fn report(&self, state: &mut State) -> Result<(), NoAnswer> {
        let Some(mut own) = self.own() else {
            return Ok(());
        };
        let mut status = own["status"].take();
        if self.cloud == Cloud::External {
            status
                .as_object_mut()
                .map(|fields| fields.remove("addresses"));
        }
        let news = without_heartbeats(status.clone());
        let now = self.clock.now();
        let held = self.node.get();
        let theirs = held.map(|held| held.body()["status"]["conditions"].take());
        let theirs = theirs.unwrap_or_default();
        if let Some((sent, at)) = &state.sent
            && *sent == news
            && now.since(*at) < REPORT_PERIOD
            && !is_overruled(&theirs, &news["conditions"])
        {
            return Ok(());
        }
        let before = state.sent.as_ref().map(|(sent, _)| sent);
        let mut patch = status_patch(before, &news, status, self.clock.wall());
        stamp(&mut patch["status"]["conditions"], &theirs);
        let key = Key::local(Kind::Node, "", &self.node_name);
        let path = format!("{}/status", paths::object(&key));
        let reply = self.link.call(Call::with(Verb::Patch, path, patch)).await?;
        match reply.status {
            200 => {
                state.sent = Some((news, now));
                let uid = reply.body["metadata"]["uid"].as_str();
                self.enlisted.set(uid.map(str::to_owned));
                self.node.reflector.learn(reply.body);
            }
            // Somebody took it away: the next beat makes it anew.
            404 => self.lost(state),
            _ => self.complain(state, "report the node's status", &reply),
        }
        Ok(())
    }

    /// The Node that was enlisted is not there any more: the next beat looks, and makes it anew.
    fn lost(&self, state: &mut State) {
        log::warn!(
            "the cluster has not the node {} any more that it had",
            self.node_name
        );
        state.lease = None;
        self.enlisted.set(None);
    }

    fn complain(&self, state: &mut State, what: &'static str, reply: &Reply) {
        let hint = match (reply.status, self.registration) {
            (404, Registration::Others) => {
                " (--register-node=false: an administrator has to make it)"
            }
            _ => "",
        };
        let text = format!("{what}: {} {}{hint}", reply.status, reply.message());
        if state.refused.get(what) != Some(&text) {
            log::warn!("{text}");
            state.refused.insert(what, text);
        }
    }
}

fn version_of(object: &Value) -> u64 {
    let version = object["metadata"]["resourceVersion"].as_str();
    version.and_then(|text| text.parse().ok()).unwrap_or(0)
}

/// Labels that no user gave. Source: Kubernetes pkg/kubelet/kubelet_node_status.go
/// (updateDefaultLabels).
fn is_of_the_machine(label: &str) -> bool {
    matches!(
        label,
        "kubernetes.io/hostname"
            | "kubernetes.io/os"
            | "kubernetes.io/arch"
            | "beta.kubernetes.io/os"
            | "beta.kubernetes.io/arch"
            | "topology.kubernetes.io/region"
            | "topology.kubernetes.io/zone"
            | "node.kubernetes.io/instance-type"
    )
}

/// What a controller of the cloud reads: which of the machine's addresses it was told to take.
fn provided_ips(ips: &[IpAddr]) -> Option<Value> {
    let ips: Vec<String> = ips.iter().map(IpAddr::to_string).collect();
    (!ips.is_empty()).then(|| ips.join(",").into())
}

/// The Node as it is made.
fn node_of(
    own: &Value,
    mut stated: Value,
    cloud: Cloud,
    provider_id: Option<&str>,
    provided: &[IpAddr],
) -> Value {
    let mut node = json!({
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {
            "name": own["metadata"]["name"],
            "labels": stated["metadata"]["labels"].take(),
            "annotations": {"volumes.kubernetes.io/controller-managed-attach-detach": "true"},
        },
        "spec": {},
        "status": own["status"],
    });
    let mut taints = match stated["spec"]["taints"].take() {
        Value::Array(taints) => taints,
        _ => Vec::new(),
    };
    if cloud == Cloud::External {
        taints.push(json!({
            "key": "node.cloudprovider.kubernetes.io/uninitialized",
            "value": "true",
            "effect": "NoSchedule",
        }));
        if let Some(addresses) = node["status"]
            .get_mut("addresses")
            .and_then(Value::as_array_mut)
        {
            let provided = !provided.is_empty();
            addresses.retain(|address| {
                address["type"] == "Hostname" || provided && address["type"] == "InternalIP"
            });
        }
        if let Some(ips) = provided_ips(provided) {
            node["metadata"]["annotations"][PROVIDED_IPS] = ips;
        }
    }
    if !taints.is_empty() {
        node["spec"]["taints"] = taints.into();
    }
    if let Some(provider_id) = provider_id {
        node["spec"]["providerID"] = provider_id.into();
    }
    node
}

/// Time of meta/v1.
pub fn seconds(at: Timestamp) -> String {
    at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

/// MicroTime of meta/v1.
fn micros(at: Timestamp) -> String {
    at.strftime("%Y-%m-%dT%H:%M:%S.%6fZ").to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_written_as_the_api_wants_them() {
        let at: Timestamp = "2026-01-02T03:04:05.678901234Z".parse().unwrap();
        assert_eq!(seconds(at), "2026-01-02T03:04:05Z");
        assert_eq!(micros(at), "2026-01-02T03:04:05.678901Z");
    }

    #[test]
    fn a_node_of_a_cloud_waits_for_its_controller() {
        let own = json!({
            "metadata": {"name": "pi", "labels": {"a": "b"}},
            "spec": {"taints": [{"key": "own", "effect": "NoExecute"}]},
            "status": {"addresses": [
                {"type": "InternalIP", "address": "10.0.0.1"}, {"type": "Hostname", "address": "pi"},
            ]},
        });
        let taints = |node: &Value| -> Vec<String> {
            let taints = node["spec"]["taints"].as_array().into_iter().flatten();
            taints
                .map(|taint| taint["key"].as_str().unwrap().to_owned())
                .collect()
        };
        let alone = node_of(&own, own.clone(), Cloud::Nobody, None, &[]);
        assert_eq!(taints(&alone), ["own"]);
        assert_eq!(alone["status"]["addresses"], own["status"]["addresses"]);
        let cloud = node_of(&own, own.clone(), Cloud::External, Some("x://1"), &[]);
        let uninitialized = "node.cloudprovider.kubernetes.io/uninitialized";
        assert_eq!(taints(&cloud), ["own", uninitialized]);
        assert_eq!(cloud["spec"]["providerID"], "x://1");
        let hostname = json!([{"type": "Hostname", "address": "pi"}]);
        assert_eq!(cloud["status"]["addresses"], hostname);
        let ips = ["10.0.0.1".parse().unwrap()];
        let cloud = node_of(&own, own.clone(), Cloud::External, None, &ips);
        assert_eq!(cloud["status"]["addresses"], own["status"]["addresses"]);
        assert_eq!(cloud["metadata"]["annotations"][PROVIDED_IPS], "10.0.0.1");
    }
}
