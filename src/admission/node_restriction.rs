//! NodeRestriction: a node writes its own Node, lease, mirror pods and their status, and nothing of
//! other nodes. What it may reach at all is authorization mode Node's.
//!
//! Source: Kubernetes `plugin/pkg/admission/noderestriction`.

use serde_json::Value;

use super::pod::{self, items, text};
use crate::object::user::{GROUP_NODES, USER_NODE_PREFIX};
use crate::object::{Key, Kind, Object, references};
use crate::registry::{Admit, Attributes, Denial, Operation};

const MIRROR: &str = "kubernetes.io/config.mirror";

/// Labels of Kubernetes' own domains that a node may give itself. Source: kubelet
/// `well_known_labels.go`.
const OWN_LABELS: [&str; 11] = [
    "kubernetes.io/hostname",
    "topology.kubernetes.io/zone",
    "topology.kubernetes.io/region",
    "failure-domain.beta.kubernetes.io/zone",
    "failure-domain.beta.kubernetes.io/region",
    "beta.kubernetes.io/instance-type",
    "node.kubernetes.io/instance-type",
    "kubernetes.io/os",
    "kubernetes.io/arch",
    "beta.kubernetes.io/os",
    "beta.kubernetes.io/arch",
];

/// Domains, with all below them, of which a node may give itself any label.
const OWN_DOMAINS: [&str; 2] = ["kubelet.kubernetes.io", "node.kubernetes.io"];

pub struct NodeRestriction;

impl Admit for NodeRestriction {
    fn name(&self) -> &'static str {
        "NodeRestriction"
    }

    fn mutate(&self, attributes: &Attributes<'_>, object: &mut Value) -> Result<(), Denial> {
        judge(attributes, object)
    }

    fn validate(&self, attributes: &Attributes<'_>, object: &Value) -> Result<(), Denial> {
        match attributes.operation {
            Operation::Delete => judge(attributes, object),
            // Said before others could change it.
            _ => Ok(()),
        }
    }
}

fn no(why: impl Into<String>) -> Result<(), Denial> {
    Err(Denial::forbidden(why))
}

fn judge(attributes: &Attributes<'_>, object: &Value) -> Result<(), Denial> {
    let user = &attributes.actor.user;
    if !user.is_in(GROUP_NODES) || !user.name.starts_with(USER_NODE_PREFIX) {
        return Ok(());
    }
    let Some(node) = user.node_name() else {
        return no(format!(
            "could not determine node from user {:?}",
            user.name
        ));
    };
    match (attributes.key.kind, attributes.actor.subresource) {
        (Kind::Pod, "") => own_pod(attributes, node, object),
        (Kind::Pod, "status") => pod_status(attributes, node, object),
        (Kind::Pod, "eviction") => eviction(attributes, node),
        (Kind::Pod, other) => no(format!(
            "unexpected pod subresource {other:?}, only 'status' and 'eviction' are allowed"
        )),
        (Kind::Node, _) => own_node(attributes, node, object),
        (Kind::Lease, _) => lease(attributes, node),
        (Kind::ServiceAccount, "token") => token(attributes, node, object),
        _ => Ok(()),
    }
}

fn is_on(pod: Option<&Object>, node: &str) -> bool {
    pod.is_some_and(|pod| pod.body["spec"]["nodeName"].as_str() == Some(node))
}

fn own_pod(attributes: &Attributes<'_>, node: &str, object: &Value) -> Result<(), Denial> {
    match attributes.operation {
        Operation::Create => mirror_pod(attributes, node, object),
        Operation::Delete if is_on(attributes.current, node) => Ok(()),
        Operation::Delete => no(format!(
            "node {node:?} can only delete pods with spec.nodeName set to itself"
        )),
        Operation::Update => no(format!(
            "unexpected operation \"UPDATE\", node {node:?} can only create and delete mirror pods"
        )),
    }
}

fn mirror_pod(attributes: &Attributes<'_>, node: &str, object: &Value) -> Result<(), Denial> {
    if !pod::is_mirror(object) {
        return no(format!(
            "pod does not have {MIRROR:?} annotation, node {node:?} can only create mirror pods"
        ));
    }
    if text(&object["spec"], "nodeName") != node {
        return no(format!(
            "node {node:?} can only create pods with spec.nodeName set to itself"
        ));
    }
    let owners: Vec<&Value> = items(&object["metadata"], "ownerReferences").collect();
    let only = |what: &str| {
        no(format!(
            "node {node:?} can only create pods with {what} set to itself"
        ))
    };
    let owner = match owners.as_slice() {
        [] => return only("an owner reference"),
        [owner] => *owner,
        _ => return only("a single owner reference"),
    };
    let is_node = text(owner, "apiVersion") == "v1" && text(owner, "kind") == "Node";
    if !is_node || text(owner, "name") != node {
        return only("an owner reference");
    }
    if owner["controller"] != true {
        return only("a controller owner reference");
    }
    if owner["blockOwnerDeletion"] == true {
        return no(format!(
            "node {node:?} must not set blockOwnerDeletion on an owner reference"
        ));
    }
    let key = Key::local(Kind::Node, "", node);
    let Some(registered) = attributes.view.get(&key) else {
        return Err(Denial::NotFound(key));
    };
    let (uid, given) = (registered.uid(), text(owner, "uid"));
    if uid != given {
        return no(format!(
            "node {node} UID mismatch: expected {given} got {uid}"
        ));
    }
    match api_object(&object["spec"]) {
        Some(what) => no(format!(
            "node {node:?} can not create pods that reference {what}"
        )),
        None => Ok(()),
    }
}

/// What of the API a pod hangs on. Source: `pkg/api/pod/util.go`, `HasAPIObjectReference`.
fn api_object(spec: &Value) -> Option<String> {
    if !text(spec, "serviceAccountName").is_empty() {
        return Some("serviceaccounts".to_owned());
    }
    if references::secrets(spec).next().is_some() {
        return Some("secrets".to_owned());
    }
    if references::config_maps(spec).next().is_some() {
        return Some("configmaps".to_owned());
    }
    if items(spec, "resourceClaims").next().is_some() {
        return Some("resourceclaims".to_owned());
    }
    const OF_VOLUMES: [(&str, &str); 5] = [
        ("csi", "csidrivers (via CSI volumes)"),
        ("glusterfs", "endpoints (via glusterFS volumes)"),
        ("persistentVolumeClaim", "persistentvolumeclaims"),
        (
            "ephemeral",
            "persistentvolumeclaims (via ephemeral volumes)",
        ),
        ("azureFile", "secrets (via azureFile volumes)"),
    ];
    const OF_PROJECTIONS: [(&str, &str); 3] = [
        (
            "serviceAccountToken",
            "serviceaccounts (via projected volumes)",
        ),
        ("clusterTrustBundle", "clustertrustbundles"),
        ("podCertificate", "podcertificates"),
    ];
    let of = |value: &Value, table: &[(&str, &str)]| {
        let found = table.iter().find(|(field, _)| value[*field].is_object());
        found.map(|(_, what)| (*what).to_owned())
    };
    items(spec, "volumes").find_map(|volume| {
        let projected = items(&volume["projected"], "sources");
        let mut projected = projected.filter_map(|source| of(source, &OF_PROJECTIONS));
        of(volume, &OF_VOLUMES).or_else(|| projected.next())
    })
}

fn pod_status(attributes: &Attributes<'_>, node: &str, object: &Value) -> Result<(), Denial> {
    let Some(current) = attributes.current else {
        return no("unexpected operation \"CREATE\"");
    };
    if !is_on(Some(current), node) {
        return no(format!(
            "node {node:?} can only update pod status for pods with spec.nodeName set to itself"
        ));
    }
    if !same(&current.metadata()["labels"], &object["metadata"]["labels"]) {
        return no(format!(
            "node {node:?} cannot update labels through pod status"
        ));
    }
    let claims = |body: &Value| body["status"]["resourceClaimStatuses"].clone();
    if !same(&claims(&current.body), &claims(object)) {
        return no(format!(
            "node {node:?} cannot update resource claim statues"
        ));
    }
    Ok(())
}

/// Absent and empty are one.
fn same(a: &Value, b: &Value) -> bool {
    let empty = |value: &Value| match value {
        Value::Null => true,
        Value::Object(fields) => fields.is_empty(),
        Value::Array(items) => items.is_empty(),
        _ => false,
    };
    a == b || empty(a) && empty(b)
}

fn eviction(attributes: &Attributes<'_>, node: &str) -> Result<(), Denial> {
    let key = attributes.key;
    let pod = attributes.current.cloned().map(std::sync::Arc::new);
    match pod.or_else(|| attributes.view.get(key)) {
        None => Err(Denial::NotFound(key.clone())),
        Some(pod) if is_on(Some(&pod), node) => Ok(()),
        Some(_) => no(format!(
            "node {node} can only evict pods with spec.nodeName set to itself"
        )),
    }
}

fn own_node(attributes: &Attributes<'_>, node: &str, object: &Value) -> Result<(), Denial> {
    let name = &attributes.key.name;
    if name != node {
        return no(format!(
            "node {node:?} is not allowed to modify node {name:?}"
        ));
    }
    let labels = &object["metadata"]["labels"];
    match (attributes.operation, attributes.current) {
        (Operation::Create, _) => {
            if object["spec"]["configSource"].is_object() {
                return no(format!(
                    "node {node:?} is not allowed to create pods with a non-nil configSource"
                ));
            }
            let forbidden = forbidden_labels(labels, &Value::Null);
            if !forbidden.is_empty() {
                let list = forbidden.join(", ");
                return no(format!(
                    "node {node:?} is not allowed to set the following labels: {list}"
                ));
            }
        }
        (Operation::Update, Some(current)) => {
            let spec = |field: &str| {
                (
                    object["spec"][field].clone(),
                    current.body["spec"][field].clone(),
                )
            };
            let (given, now) = spec("configSource");
            if given.is_object() && given != now {
                return no(format!(
                    "node {node:?} is not allowed to update configSource to a new non-nil \
                     configSource"
                ));
            }
            let (given, now) = spec("taints");
            if !same(&given, &now) {
                return no(format!("node {node:?} is not allowed to modify taints"));
            }
            let owners = &object["metadata"]["ownerReferences"];
            if !same(owners, &current.metadata()["ownerReferences"]) {
                return no(format!(
                    "node {node:?} is not allowed to modify ownerReferences"
                ));
            }
            let forbidden = forbidden_labels(labels, &current.metadata()["labels"]);
            if !forbidden.is_empty() {
                let list = forbidden.join(", ");
                return no(format!("is not allowed to modify labels: {list}"));
            }
        }
        _ => {}
    }
    Ok(())
}

/// Labels that differ and that a node may not touch, sorted.
fn forbidden_labels(given: &Value, current: &Value) -> Vec<String> {
    let keys = |labels: &Value| {
        let keys = labels
            .as_object()
            .into_iter()
            .flatten()
            .map(|(key, _)| key.clone());
        keys.collect::<Vec<_>>()
    };
    let mut all: Vec<String> = keys(given).into_iter().chain(keys(current)).collect();
    all.retain(|key| given.get(key) != current.get(key) && is_forbidden(key));
    all.sort_unstable();
    all.dedup();
    all
}

/// What a node is told that would give itself such a label.
/// Source: Kubernetes cmd/kubelet/app/options/options.go (ValidateKubeletFlags).
pub fn own_label_problem(label: &str) -> Option<String> {
    is_forbidden(label).then(|| {
        format!(
            "no node may give itself the label {label}: of kubernetes.io and k8s.io those below {} are \
             its own, and {}",
            OWN_DOMAINS.join(" and "),
            OWN_LABELS.join(", ")
        )
    })
}

fn is_forbidden(label: &str) -> bool {
    let domain = label.split_once('/').map_or("", |(domain, _)| domain);
    let within = |of: &str| {
        let parent = domain.strip_suffix(of);
        parent.is_some_and(|parent| parent.is_empty() || parent.ends_with('.'))
    };
    if within("node-restriction.kubernetes.io") {
        return true;
    }
    let kubernetes = within("kubernetes.io") || within("k8s.io");
    kubernetes && !OWN_LABELS.contains(&label) && !OWN_DOMAINS.into_iter().any(within)
}

fn lease(attributes: &Attributes<'_>, node: &str) -> Result<(), Denial> {
    let key = attributes.key;
    if key.namespace != "kube-node-lease" {
        return no("can only access leases in the \"kube-node-lease\" system namespace");
    }
    if key.name != node {
        return no("can only access node lease with the same name as the requesting node");
    }
    Ok(())
}

/// A TokenRequest: bound to a pod of the node that uses the account, for what that pod asks.
fn token(attributes: &Attributes<'_>, node: &str, object: &Value) -> Result<(), Denial> {
    let bound = &object["spec"]["boundObjectRef"];
    let named = text(bound, "name");
    if text(bound, "apiVersion") != "v1" || text(bound, "kind") != "Pod" || named.is_empty() {
        return no("node requested token not bound to a pod");
    }
    let uid = text(bound, "uid");
    if uid.is_empty() {
        return no("node requested token with a pod binding without a uid");
    }
    let key = Key::local(Kind::Pod, &attributes.key.namespace, named);
    let Some(pod) = attributes.view.get(&key) else {
        return Err(Denial::NotFound(key));
    };
    if pod.uid() != uid {
        return no(format!(
            "the UID in the bound object reference ({uid}) does not match the UID in record. The \
             object might have been deleted and then recreated"
        ));
    }
    if !is_on(Some(&pod), node) {
        return no("node requested token bound to a pod scheduled on a different node");
    }
    let audiences: Vec<&str> = items(&object["spec"], "audiences")
        .filter_map(Value::as_str)
        .collect();
    let audience = match audiences.as_slice() {
        [] => "",
        [one] => one,
        _ => return no("node may only request 0 or 1 audiences"),
    };
    let mut volumes = items(&pod.body["spec"], "volumes");
    let asks = volumes.any(|volume| {
        let mut sources = items(&volume["projected"], "sources");
        sources.any(|source| {
            let token = &source["serviceAccountToken"];
            token.is_object() && text(token, "audience") == audience
        })
    });
    match asks {
        true => Ok(()),
        false => no(format!(
            "audience {audience:?} not found in pod spec volume, {} is not authorized to request \
             tokens for this audience",
            attributes.actor.user.name
        )),
    }
}
