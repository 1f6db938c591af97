//! Mode Node: what a node may ask of the API for the pods that it runs, and no more.
//!
//! A node is `system:node:NAME` in `system:nodes`. It may read what pods bound to it refer to, ask
//! for tokens of their accounts, write its own Node, lease, pods' status and events. What it may
//! write *into* those is plug-in NodeRestriction's. Source: Kubernetes
//! `plugin/pkg/auth/authorizer/node`, whose graph is here a look at the pods of one namespace.

use super::{Authorize, Decision, Rules};
use crate::apiserver::request_info::RequestInfo;
use crate::object::user::{GROUP_NODES, USER_NODE_PREFIX};
use crate::object::{FieldSelector, Key, Kind, Object, User, references};
use crate::registry::Reader;

/// Where nodes keep their heartbeat.
const LEASES: &str = "kube-node-lease";

pub struct Node {
    reader: Reader,
}

/// Allowed without further question: verbs, API group, resource with subresource.
/// Source: bootstrappolicy `NodeRules`, for the kinds that are served here.
const RULES: &[(&[&str], &str, &str)] = &[
    (&["create"], "authentication.k8s.io", "tokenreviews"),
    (&["create"], "authorization.k8s.io", "subjectaccessreviews"),
    (
        &["create"],
        "authorization.k8s.io",
        "localsubjectaccessreviews",
    ),
    (&["get", "list", "watch"], "", "services"),
    (&["create", "update", "patch"], "", "events"),
    (&["create", "update", "patch"], "events.k8s.io", "events"),
    (&["get"], "", "endpoints"),
    (
        &["create", "get", "list", "watch"],
        "certificates.k8s.io",
        "certificatesigningrequests",
    ),
    (&["get", "list", "watch"], "node.k8s.io", "runtimeclasses"),
    (&["get", "list", "watch"], "storage.k8s.io", "csidrivers"),
];

impl Node {
    pub fn new(reader: Reader) -> Node {
        Node { reader }
    }

    fn resource(&self, node: &str, request: &RequestInfo) -> Decision {
        match (request.group.as_str(), request.resource.as_str()) {
            ("", "secrets" | "configmaps") => self.referenced_object(node, request),
            ("", "serviceaccounts") => self.service_account(node, request),
            ("coordination.k8s.io", "leases") => lease(node, request),
            ("", "nodes") => own_node(node, request),
            ("", "pods") => self.pod(node, request),
            (group, _) => {
                let path = request.resource_path();
                let fits = |(verbs, of, what): &&(&[&str], &str, &str)| {
                    *of == group && *what == path && verbs.contains(&request.verb.as_str())
                };
                match RULES.iter().any(|rule| fits(&rule)) {
                    true => allow(),
                    false => no(""),
                }
            }
        }
    }

    fn referenced_object(&self, node: &str, request: &RequestInfo) -> Decision {
        if !matches!(request.verb.as_str(), "get" | "list" | "watch") {
            return no("can only read resources of this type");
        }
        if !request.subresource.is_empty() {
            return no("cannot read subresource");
        }
        if request.namespace.is_empty() {
            return no("can only read namespaced object of this type");
        }
        let is_secret = request.resource == "secrets";
        self.related(node, request, |pod| {
            let spec = &pod.body["spec"];
            let named = |name: &str| name == request.name;
            match is_secret {
                true => references::secrets(spec).any(named),
                false => references::config_maps(spec).any(named),
            }
        })
    }

    fn service_account(&self, node: &str, request: &RequestInfo) -> Decision {
        let reads = request.verb == "get" && request.subresource.is_empty();
        if !reads && (request.verb != "create" || request.name.is_empty()) {
            return no("can only create tokens for individual service accounts");
        }
        if !reads && request.subresource != "token" {
            return no("can only create token subresource of serviceaccount");
        }
        self.related(node, request, |pod| {
            pod.body["spec"]["serviceAccountName"].as_str() == Some(request.name.as_str())
        })
    }

    fn pod(&self, node: &str, request: &RequestInfo) -> Decision {
        match (request.subresource.as_str(), request.verb.as_str()) {
            ("", "get") => self.own_pod(node, request),
            ("", "list" | "watch") => {
                let wanted = FieldSelector::parse(Kind::Pod, &request.field_selector)
                    .ok()
                    .and_then(|fields| fields.required_value("spec.nodeName").map(str::to_owned));
                if wanted.as_deref() == Some(node) {
                    return allow();
                }
                if !request.name.is_empty() {
                    return self.own_pod(node, request);
                }
                no("can only list/watch pods with spec.nodeName field selector")
            }
            ("", "create" | "delete") => allow(),
            ("status", "update" | "patch") | ("eviction", "create") => allow(),
            _ => no(""),
        }
    }

    fn own_pod(&self, node: &str, request: &RequestInfo) -> Decision {
        let key = Key::local(Kind::Pod, &request.namespace, &request.name);
        match self.reader.get(&key) {
            Some(pod) if is_bound(&pod, node) => allow(),
            _ => unrelated(node),
        }
    }

    /// Whether a pod that runs on the node makes the object its business. A mirror pod does not:
    /// the node makes those itself.
    fn related(
        &self,
        node: &str,
        request: &RequestInfo,
        refers: impl Fn(&Object) -> bool,
    ) -> Decision {
        if request.name.is_empty() {
            return no("No Object name found");
        }
        let (pods, _) = self.reader.list(Kind::Pod, Some(&request.namespace));
        let found = pods
            .iter()
            .any(|pod| is_bound(pod, node) && !pod.is_mirror() && refers(pod));
        if found { allow() } else { unrelated(node) }
    }
}

fn is_bound(pod: &Object, node: &str) -> bool {
    pod.body["spec"]["nodeName"].as_str() == Some(node)
}

fn own_node(node: &str, request: &RequestInfo) -> Decision {
    match (request.subresource.as_str(), request.verb.as_str()) {
        ("", "create" | "update" | "patch") | ("status", "update" | "patch") => allow(),
        ("", "get" | "list" | "watch") => match request.name.as_str() {
            name if name == node => allow(),
            "" => no(&format!(
                "node '{node}' cannot read all nodes, only its own Node object"
            )),
            name => no(&format!(
                "node '{node}' cannot read '{name}', only its own Node object"
            )),
        },
        _ => no(""),
    }
}

fn lease(node: &str, request: &RequestInfo) -> Decision {
    let verb = request.verb.as_str();
    if !matches!(verb, "get" | "create" | "update" | "patch" | "delete") {
        return no("can only get, create, update, patch, or delete a node lease");
    }
    if request.namespace != LEASES {
        return no(&format!(
            "can only access leases in the {LEASES:?} system namespace"
        ));
    }
    if verb != "create" && request.name != node {
        return no("can only access node lease with the same name as the requesting node");
    }
    allow()
}

fn allow() -> Decision {
    Decision::Allow(String::new())
}

fn no(why: &str) -> Decision {
    Decision::NoOpinion(why.to_owned())
}

fn unrelated(node: &str) -> Decision {
    no(&format!(
        "no relationship found between node '{node}' and this object"
    ))
}

impl Authorize for Node {
    fn decide(&self, user: &User, request: &RequestInfo) -> Decision {
        if !user.is_in(GROUP_NODES) || !user.name.starts_with(USER_NODE_PREFIX) {
            return no("");
        }
        match user.node_name() {
            None => no(&format!("unknown node for user {:?}", user.name)),
            Some(_) if !request.is_resource => no(""),
            Some(node) => self.resource(node, request),
        }
    }

    fn rules(&self, user: &User, _namespace: &str) -> Rules {
        if user.node_name().is_none() {
            return Rules::default();
        }
        Rules {
            incomplete: true,
            problems: vec!["node authorizer does not support user rule resolution".to_owned()],
            ..Rules::default()
        }
    }
}
