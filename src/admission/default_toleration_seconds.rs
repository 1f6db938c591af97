//! DefaultTolerationSeconds: pods stay five minutes on a node that is not ready or not reachable.
//!
//! Source: Kubernetes `plugin/pkg/admission/defaulttolerationseconds`.

use serde_json::{Value, json};

use super::pod::{items, push, text};
use crate::registry::{Admit, Attributes, Denial, Operation};

const SECONDS: i64 = 300;
const TAINTS: [&str; 2] = [
    "node.kubernetes.io/not-ready",
    "node.kubernetes.io/unreachable",
];

pub struct DefaultTolerationSeconds;

impl Admit for DefaultTolerationSeconds {
    fn name(&self) -> &'static str {
        "DefaultTolerationSeconds"
    }

    fn mutate(&self, attributes: &Attributes<'_>, object: &mut Value) -> Result<(), Denial> {
        if !attributes.is_of_pod() || attributes.operation == Operation::Delete {
            return Ok(());
        }
        let missing = TAINTS.into_iter().filter(|taint| {
            !items(&object["spec"], "tolerations").any(|toleration| {
                let (key, effect) = (text(toleration, "key"), text(toleration, "effect"));
                (key.is_empty() || key == *taint) && (effect.is_empty() || effect == "NoExecute")
            })
        });
        let missing: Vec<&str> = missing.collect();
        if let Some(spec) = object.get_mut("spec").and_then(Value::as_object_mut) {
            for key in missing {
                let toleration = json!({
                    "key": key,
                    "operator": "Exists",
                    "effect": "NoExecute",
                    "tolerationSeconds": SECONDS,
                });
                push(spec, "tolerations", toleration);
            }
        }
        Ok(())
    }
}
