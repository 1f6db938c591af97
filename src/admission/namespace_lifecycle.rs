//! NamespaceLifecycle: no content in namespaces that are not there or on their way out, and no
//! deletion of those that the node needs.
//!
//! A manifest must run with nobody there to make its namespace: the node makes it.
//! Source: Kubernetes apiserver, `admission/plugin/namespace/lifecycle`.

use serde_json::Value;

use crate::object::{Key, Kind};
use crate::registry::{Admit, Attributes, Denial, DenialCause, Operation};

/// Never deleted.
const IMMORTAL: [&str; 3] = ["default", "kube-system", "kube-public"];

pub struct NamespaceLifecycle;

impl Admit for NamespaceLifecycle {
    fn name(&self) -> &'static str {
        "NamespaceLifecycle"
    }

    fn mutate(&self, attributes: &Attributes<'_>, _object: &mut Value) -> Result<(), Denial> {
        let name = &attributes.key.namespace;
        if !attributes.key.kind.namespaced() || name.is_empty() {
            return Ok(());
        }
        let key = Key::local(Kind::Namespace, "", name);
        let Some(namespace) = attributes.view.get(&key) else {
            if attributes.is_of_manifest() && !attributes.view.in_flight(&key) {
                attributes.remarks.provision(name);
            }
            return match attributes.is_of_manifest() {
                true => Ok(()),
                false => Err(Denial::NotFound(key)),
            };
        };
        let ends = namespace.is_deleting() || namespace.body["status"]["phase"] == "Terminating";
        if attributes.operation == Operation::Create && attributes.current.is_none() && ends {
            return Err(Denial::Forbidden {
                message: format!(
                    "unable to create new content in namespace {name} because it is being terminated"
                ),
                cause: Some(Box::new(DenialCause {
                    reason: "NamespaceTerminating",
                    message: format!("namespace {name} is being terminated"),
                    field: "metadata.namespace",
                })),
            });
        }
        Ok(())
    }

    fn validate(&self, attributes: &Attributes<'_>, _object: &Value) -> Result<(), Denial> {
        let key = attributes.key;
        let immortal = key.kind == Kind::Namespace && IMMORTAL.contains(&key.name.as_str());
        match attributes.operation {
            Operation::Delete if immortal => {
                Err(Denial::forbidden("this namespace may not be deleted"))
            }
            _ => Ok(()),
        }
    }
}
