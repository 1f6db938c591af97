//! Whether a pod that a scheduler has placed here can be here: room, ports, labels, taints. Pure.
//!
//! A scheduler knows the node only as it last reported. Who does not fit is turned away for good,
//! so that another is made elsewhere; pods of manifests and of this node's own API have no elsewhere
//! and are not asked.
//! Source: Kubernetes pkg/kubelet/lifecycle/predicate.go, pkg/scheduler/framework/plugins.

use serde_json::Value;

use crate::object::references::items;
use crate::object::{Quantity, placement, resources};

/// Every pod takes one of these.
const PODS: &str = "pods";

const OTHER_OS: &str = "PodOSNotSupported";

/// What one pod takes of the node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Claim {
    /// What its containers request together, by resource.
    requests: Box<[(Box<str>, Quantity)]>,
    ports: Box<[HostPort]>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct HostPort {
    number: u64,
    protocol: Box<str>,
    /// Empty: every address.
    ip: Box<str>,
}

/// Why a pod is turned away: what its status and an event say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    pub reason: String,
    pub message: String,
}

impl Refusal {
    pub fn new(reason: impl Into<String>, message: impl Into<String>) -> Refusal {
        Refusal {
            reason: reason.into(),
            message: message.into(),
        }
    }

    fn predicate(name: &str, why: &str) -> Refusal {
        Refusal::new(name, format!("Predicate {name} failed: {why}"))
    }
}

impl Claim {
    /// Whether both want one port of the node.
    pub fn clashes(&self, other: &Claim) -> bool {
        let mut ports = self.ports.iter();
        ports.any(|port| other.ports.iter().any(|taken| port.clashes(taken)))
    }

    pub fn of(spec: &Value) -> Claim {
        let requests = resources::pod_requests(spec).into_iter();
        let containers = items(spec, "initContainers")
            .filter(|container| container["restartPolicy"] == "Always")
            .chain(items(spec, "containers"));
        let ports = containers.flat_map(|container| items(container, "ports"));
        Claim {
            requests: requests
                .filter(|(_, amount)| !amount.is_zero())
                .map(|(name, amount)| (name.into(), amount))
                .collect(),
            ports: ports.filter_map(HostPort::of).collect(),
        }
    }

    /// CPU in thousandths, all else in units.
    pub fn units(&self, resource: &str) -> i64 {
        match resource {
            PODS => 1,
            name => units(name, self.request(name)),
        }
    }

    fn request(&self, resource: &str) -> Quantity {
        let found = self.requests.iter().find(|(name, _)| &**name == resource);
        found.map_or(Quantity::ZERO, |(_, amount)| *amount)
    }
}

impl HostPort {
    fn of(port: &Value) -> Option<HostPort> {
        let number = port["hostPort"].as_u64().filter(|number| *number != 0)?;
        let ip = port["hostIP"].as_str().unwrap_or_default();
        Some(HostPort {
            number,
            protocol: port["protocol"].as_str().unwrap_or("TCP").into(),
            ip: if ip == "0.0.0.0" { "" } else { ip }.into(),
        })
    }

    fn clashes(&self, other: &HostPort) -> bool {
        let everywhere = self.ip.is_empty() || other.ip.is_empty();
        self.number == other.number
            && self.protocol == other.protocol
            && (everywhere || self.ip == other.ip)
    }
}

/// The first reason against the pod, in upstream's order. `own` is this node's Node, of which the
/// allocatable resources count; `listed` the cluster's, whose labels and taints a scheduler goes by:
/// while it is not known nothing is held against the pod that it could answer.
pub fn refusal(
    spec: &Value,
    claim: &Claim,
    others: &[&Claim],
    own: &Value,
    listed: Option<&Value>,
) -> Option<Refusal> {
    let misfit = misfit(spec, claim, others, listed);
    match misfit {
        Some(no) if no.reason == OTHER_OS => Some(no),
        misfit => no_room(claim, others, own).or(misfit),
    }
}

/// The first reason that no room would help against.
pub fn misfit(
    spec: &Value,
    claim: &Claim,
    others: &[&Claim],
    listed: Option<&Value>,
) -> Option<Refusal> {
    if spec["os"]["name"].as_str().is_some_and(|os| os != "linux") {
        let text = "Failed to admit pod as the OS field doesn't match node OS";
        return Some(Refusal::new(OTHER_OS, text));
    }
    if listed.is_some_and(|node| !placement::selects(spec, node)) {
        let why = "node(s) didn't match Pod's node affinity/selector";
        return Some(Refusal::predicate("NodeAffinity", why));
    }
    if others.iter().any(|other| claim.clashes(other)) {
        let why = "node(s) didn't have free ports for the requested pod ports";
        return Some(Refusal::predicate("NodePorts", why));
    }
    let untolerated = |node| placement::untolerated(spec, node, &["NoExecute"]);
    listed.and_then(untolerated).map(|_| {
        let why = "node(s) had taints that the pod didn't tolerate";
        Refusal::predicate("TaintToleration", why)
    })
}

/// Why a pod that runs cannot have what it asks for instead of what it has; only what grows counts.
pub fn no_room_for_more(
    has: &Claim,
    asks: &Claim,
    others: &[&Claim],
    own: &Value,
) -> Option<Refusal> {
    let grows = |(name, amount): &&(Box<str>, Quantity)| *amount > has.request(name);
    let more = Claim {
        requests: asks.requests.iter().filter(grows).cloned().collect(),
        ports: Box::default(),
    };
    no_room(&more, others, own)
}

fn no_room(claim: &Claim, others: &[&Claim], own: &Value) -> Option<Refusal> {
    let mut short = shortages(claim, others, own);
    (!short.is_empty()).then(|| short.swap_remove(0).into())
}

/// What there is not enough of. CPU in thousandths, all else in units.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shortage {
    pub resource: String,
    pub requested: i64,
    pub used: i64,
    pub capacity: i64,
}

impl Shortage {
    pub fn missing(&self) -> i64 {
        self.requested
            .saturating_sub(self.capacity.saturating_sub(self.used))
    }
}

impl From<Shortage> for Refusal {
    fn from(short: Shortage) -> Refusal {
        let Shortage {
            resource,
            requested,
            used,
            capacity,
        } = short;
        let text = format!(
            "Node didn't have enough resource: {resource}, requested: {requested}, used: {used}, \
             capacity: {capacity}"
        );
        Refusal::new(format!("OutOf{resource}"), text)
    }
}

/// All that the pod would need more of than the others leave, in upstream's order.
pub fn shortages(claim: &Claim, others: &[&Claim], own: &Value) -> Vec<Shortage> {
    let allocatable = resources::amounts(&own["status"]["allocatable"]);
    let rank = |name: &str| {
        let first = ["pods", "cpu", "memory", "ephemeral-storage"];
        first
            .iter()
            .position(|first| *first == name)
            .unwrap_or(first.len())
    };
    let mut asked: Vec<&str> = claim.requests.iter().map(|(name, _)| &**name).collect();
    asked.push(PODS);
    asked.sort_by_key(|name| rank(name));
    let short = asked.into_iter().filter_map(|name| {
        // What the cluster itself hands out is nothing that a node knows.
        let extended = name.contains('/') && !name.contains("kubernetes.io/");
        let capacity = match allocatable.get(name) {
            None if extended => return None,
            None if name == PODS => i64::MAX,
            known => units(name, known.copied().unwrap_or(Quantity::ZERO)),
        };
        let used = others.iter().map(|other| other.units(name));
        let short = Shortage {
            resource: name.to_owned(),
            requested: claim.units(name),
            used: used.fold(0, i64::saturating_add),
            capacity,
        };
        (short.missing() > 0 && short.requested > 0).then_some(short)
    });
    short.collect()
}

fn units(name: &str, amount: Quantity) -> i64 {
    match name {
        "cpu" => amount.millis(),
        _ => amount.value(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn own() -> Value {
        json!({"status": {"allocatable": {
            "cpu": "2", "memory": "1Gi", "ephemeral-storage": "10Gi", "hugepages-2Mi": "4Mi", "pods": "3",
        }}})
    }

    fn listed() -> Value {
        json!({
            "metadata": {"name": "pi", "labels": {"disk": "ssd"}},
            "spec": {"taints": [
                {"key": "drained", "effect": "NoSchedule"}, {"key": "off", "effect": "NoExecute"},
            ]},
        })
    }

    fn asks(requests: Value) -> Value {
        json!({
            "tolerations": [{"key": "off", "operator": "Exists"}],
            "containers": [{"name": "c", "resources": {"requests": requests}}],
        })
    }

    fn listens(ip: &str, port: u16, protocol: &str) -> Value {
        let mut spec = asks(json!({}));
        spec["containers"][0]["ports"] =
            json!([{"containerPort": 1, "hostPort": port, "hostIP": ip, "protocol": protocol}]);
        spec
    }

    fn verdict(spec: &Value, others: &[Value]) -> String {
        let others: Vec<Claim> = others.iter().map(Claim::of).collect();
        let others: Vec<&Claim> = others.iter().collect();
        let refusal = refusal(spec, &Claim::of(spec), &others, &own(), Some(&listed()));
        refusal.map_or(String::new(), |no| format!("{}: {}", no.reason, no.message))
    }

    #[test]
    fn who_finds_no_room_hears_upstreams_reason_and_figures() {
        let short = "Node didn't have enough resource:";
        for (requests, others, expected) in [
            (
                json!({"cpu": "1500m", "memory": "1Gi"}),
                vec![json!({"cpu": "500m"})],
                String::new(),
            ),
            (
                json!({"memory": "2Gi", "cpu": "1501m"}),
                vec![json!({"cpu": "500m"})],
                format!("OutOfcpu: {short} cpu, requested: 1501, used: 500, capacity: 2000"),
            ),
            (
                json!({"memory": "1Gi"}),
                vec![json!({"memory": 1})],
                format!(
                    "OutOfmemory: {short} memory, requested: 1073741824, used: 1, capacity: 1073741824"
                ),
            ),
            (
                json!({"ephemeral-storage": "11Gi"}),
                vec![],
                format!(
                    "OutOfephemeral-storage: {short} ephemeral-storage, requested: 11811160064, \
                     used: 0, capacity: 10737418240"
                ),
            ),
            (
                json!({"hugepages-2Mi": "6Mi"}),
                vec![],
                format!(
                    "OutOfhugepages-2Mi: {short} hugepages-2Mi, requested: 6291456, used: 0, \
                     capacity: 4194304"
                ),
            ),
            (json!({"example.com/gpu": "1"}), vec![], String::new()),
            // Others that have taken more than there is are nothing against one that asks for nothing.
            (
                json!({}),
                vec![json!({"cpu": "9"}), json!({"memory": "9Gi"})],
                String::new(),
            ),
            (
                json!({}),
                vec![json!({}), json!({}), json!({})],
                format!("OutOfpods: {short} pods, requested: 1, used: 3, capacity: 3"),
            ),
        ] {
            let others: Vec<Value> = others.into_iter().map(asks).collect();
            assert_eq!(
                verdict(&asks(requests.clone()), &others),
                expected,
                "{requests}"
            );
        }
    }

    #[test]
    fn only_what_grows_needs_room() {
        let claim = |requests: Value| Claim::of(&asks(requests));
        let has = claim(json!({"cpu": "1500m", "memory": "512Mi"}));
        let others = [claim(json!({"cpu": "1", "memory": "256Mi"}))];
        let others: Vec<&Claim> = others.iter().collect();
        for (requests, refused) in [
            (json!({"cpu": "1500m", "memory": "768Mi"}), None),
            (json!({"cpu": "1400m", "memory": "100Mi"}), None),
            (json!({"cpu": "1501m", "memory": "512Mi"}), Some("OutOfcpu")),
            (
                json!({"cpu": "100m", "memory": "769Mi"}),
                Some("OutOfmemory"),
            ),
        ] {
            let refusal = no_room_for_more(&has, &claim(requests.clone()), &others, &own());
            let reason = refusal.map(|refusal| refusal.reason);
            assert_eq!(reason.as_deref(), refused, "{requests}");
        }
    }

    #[test]
    fn two_pods_do_not_get_the_same_port_of_the_node() {
        for (one, other, clash) in [
            (("", 80, "TCP"), ("", 80, "TCP"), true),
            (("0.0.0.0", 80, "TCP"), ("10.0.0.1", 80, "TCP"), true),
            (("10.0.0.2", 80, "TCP"), ("10.0.0.1", 80, "TCP"), false),
            (("", 80, "UDP"), ("", 80, "TCP"), false),
            (("", 81, "TCP"), ("", 80, "TCP"), false),
        ] {
            let spec = |(ip, port, protocol)| listens(ip, port, protocol);
            let expected = match clash {
                true => {
                    "NodePorts: Predicate NodePorts failed: node(s) didn't have free ports for the \
                     requested pod ports"
                }
                false => "",
            };
            assert_eq!(
                verdict(&spec(one), &[spec(other)]),
                expected,
                "{one:?} {other:?}"
            );
        }
    }

    #[test]
    fn labels_and_taints_are_those_of_the_clusters_node() {
        let mut picky = asks(json!({}));
        picky["nodeSelector"] = json!({"disk": "hdd"});
        let affinity = "NodeAffinity: Predicate NodeAffinity failed: node(s) didn't match Pod's node \
                        affinity/selector";
        assert_eq!(verdict(&picky, &[]), affinity);
        let shy = json!({"containers": []});
        let taint = "TaintToleration: Predicate TaintToleration failed: node(s) had taints that the \
                     pod didn't tolerate";
        assert_eq!(verdict(&shy, &[]), taint);
        let windows = json!({"os": {"name": "windows"}});
        assert!(verdict(&windows, &[]).starts_with("PodOSNotSupported: Failed to admit"));
        for spec in [picky, shy] {
            // Nothing is held against a pod that a Node could answer which nobody has seen.
            assert_eq!(refusal(&spec, &Claim::of(&spec), &[], &own(), None), None);
        }
    }
}
