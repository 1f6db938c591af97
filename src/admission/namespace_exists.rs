//! NamespaceExists: nothing is written in a namespace that is not there. Older than
//! NamespaceLifecycle, which does more; unlike that one it also keeps manifests out.
//!
//! Source: Kubernetes `plugin/pkg/admission/namespace/exists`.

use serde_json::Value;

use crate::object::{Key, Kind};
use crate::registry::{Admit, Attributes, Denial};

pub struct NamespaceExists;

impl Admit for NamespaceExists {
    fn name(&self) -> &'static str {
        "NamespaceExists"
    }

    fn validate(&self, attributes: &Attributes<'_>, _object: &Value) -> Result<(), Denial> {
        let name = &attributes.key.namespace;
        if name.is_empty() {
            return Ok(());
        }
        let key = Key::local(Kind::Namespace, "", name);
        match attributes.view.get(&key).is_some() || attributes.remarks.provisions(name) {
            true => Ok(()),
            false => Err(Denial::NotFound(key)),
        }
    }
}
