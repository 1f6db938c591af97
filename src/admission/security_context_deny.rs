//! SecurityContextDeny: no pod says who it runs as. Gone upstream since 1.30; kept for the command
//! lines of its time. PodSecurity does this better.
//!
//! Source: Kubernetes v1.29 `plugin/pkg/admission/securitycontext/scdeny`.

use serde_json::Value;

use super::pod::all_containers;
use crate::registry::{Admit, Attributes, Denial, Operation};

pub struct SecurityContextDeny;

impl Admit for SecurityContextDeny {
    fn name(&self) -> &'static str {
        "SecurityContextDeny"
    }

    fn validate(&self, attributes: &Attributes<'_>, object: &Value) -> Result<(), Denial> {
        if !attributes.is_of_pod() || attributes.operation == Operation::Delete {
            return Ok(());
        }
        let of_pod = &object["spec"]["securityContext"];
        // Field, and its name in the message.
        let fields = [
            ("supplementalGroups", "SupplementalGroups"),
            ("seLinuxOptions", "SELinuxOptions"),
            ("runAsUser", "RunAsUser"),
            ("fsGroup", "FSGroup"),
        ];
        for (field, name) in fields {
            if !of_pod[field].is_null() {
                return Err(Denial::forbidden(format!(
                    "pod.Spec.SecurityContext.{name} is forbidden"
                )));
            }
        }
        for container in all_containers(&object["spec"]) {
            for (field, name) in [
                ("seLinuxOptions", "SELinuxOptions"),
                ("runAsUser", "RunAsUser"),
            ] {
                if !container["securityContext"][field].is_null() {
                    return Err(Denial::forbidden(format!(
                        "SecurityContext.{name} is forbidden"
                    )));
                }
            }
        }
        Ok(())
    }
}
