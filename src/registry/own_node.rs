//! The node's own Node object: stated by the kubelet at each start, written on by the API; and its
//! Lease, which says that the node loop runs.
//!
//! Labels that the kubelet states win over what is stored; other labels, annotations, taints and
//! `unschedulable` are the API's and survive restarts. Source: Kubernetes
//! pkg/kubelet/kubelet_node_status.go, tryRegisterWithAPIServer.

use std::sync::Arc;

use serde_json::{Value, json};

use super::admission::Operation;
use super::commit::Visible;
use super::desk::same_but_for_versions;
use super::published::Step;
use super::{Error, Registry};
use crate::object::{Key, Kind, Object, Source};
use crate::world::LocalFuture;

/// Where the leases of nodes are.
const NAMESPACE_LEASES: &str = "kube-node-lease";

/// Source: Kubernetes kubelet, `nodeLeaseDurationSeconds`; renewed four times in it.
const LEASE_DURATION_S: u64 = 40;

impl Registry {
    /// Makes the node's Node or brings its labels up to date. Visible at once, stored behind. Errors:
    /// `Invalid`, `Denied`.
    pub fn state_node(
        &self,
        key: Key,
        mut body: Value,
    ) -> LocalFuture<'_, Result<Arc<Object>, Error>> {
        Box::pin(async move {
            let desk = &self.desk;
            desk.stated_node.replace(body.clone());
            desk.committer.settled(|busy| busy == &key).await;
            let current = self.current(&key);
            if let Some(current) = &current {
                body = with_labels_of(&current.body, &body);
            }
            let operation = match current {
                None => Operation::Create,
                Some(_) => Operation::Update,
            };
            let actor = Source::Node.into();
            desk.admit(operation, &actor, &key, current.as_deref(), &mut body)?;
            let object =
                desk.complete(Source::Node, key.clone(), None, current.as_deref(), body)?;
            if let Some(current) = current.filter(|current| {
                current.source == Source::Node && same_but_for_versions(&object.body, &current.body)
            }) {
                return Ok(current);
            }
            let steps = vec![Step::Put(Box::new(object))];
            drop(desk.committer.submit(Visible::AtOnce, steps));
            self.current(&key).ok_or(Error::NotFound(key))
        })
    }

    /// What `state_node` was last given; null before.
    pub fn stated_node(&self) -> Value {
        self.desk.stated_node.borrow().clone()
    }
}

impl Registry {
    /// Publishes the node's Lease, made if it is not there: seen at once, never stored. One that is
    /// somebody else's is left alone. Source: Kubernetes component-helpers, apimachinery/lease.
    pub fn renew_lease(&self) {
        let desk = &self.desk;
        let name = &desk.node_name;
        let key = Key::local(Kind::Lease, NAMESPACE_LEASES, name);
        let current = self.current(&key);
        if current
            .as_ref()
            .is_some_and(|now| now.source != Source::Node)
        {
            return;
        }
        let node = self.current(&Key::local(Kind::Node, "", name));
        let mut body = json!({
            "metadata": {"name": name, "namespace": NAMESPACE_LEASES},
            "spec": {
                "holderIdentity": name,
                "leaseDurationSeconds": LEASE_DURATION_S,
                "renewTime": desk.clock.wall().strftime("%Y-%m-%dT%H:%M:%S.%6fZ").to_string(),
            },
        });
        if let Some(node) = node {
            body["metadata"]["ownerReferences"] = json!([{
                "apiVersion": "v1", "kind": "Node", "name": name, "uid": node.uid(),
            }]);
        }
        // Its name is the node's: nothing of it can be wrong.
        if let Ok(lease) = desk.complete(Source::Node, key, None, current.as_deref(), body) {
            desk.committer.publish(vec![Step::Put(Box::new(lease))]);
        }
    }
}

fn with_labels_of(current: &Value, stated: &Value) -> Value {
    let mut body = current.clone();
    let stated = stated["metadata"]["labels"].as_object();
    for (name, value) in stated.into_iter().flatten() {
        if !body["metadata"]["labels"].is_object() {
            body["metadata"]["labels"] = json!({});
        }
        body["metadata"]["labels"][name] = value.clone();
    }
    body
}
