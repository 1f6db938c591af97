//! NamespaceAutoProvision: a namespace is made when the first object of it is.
//!
//! Source: Kubernetes `plugin/pkg/admission/namespace/autoprovision`.

use serde_json::Value;

use crate::object::{Key, Kind};
use crate::registry::{Admit, Attributes, Denial, Operation};

pub struct NamespaceAutoProvision;

impl Admit for NamespaceAutoProvision {
    fn name(&self) -> &'static str {
        "NamespaceAutoProvision"
    }

    fn mutate(&self, attributes: &Attributes<'_>, _object: &mut Value) -> Result<(), Denial> {
        let name = &attributes.key.namespace;
        let creates = attributes.operation == Operation::Create;
        if name.is_empty() || !creates || attributes.actor.dry_run {
            return Ok(());
        }
        if attributes
            .view
            .get(&Key::local(Kind::Namespace, "", name))
            .is_none()
        {
            attributes.remarks.provision(name);
        }
        Ok(())
    }
}
