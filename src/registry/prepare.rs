//! What of a body counts: of a new object, and of a change through the object or a subresource.
//!
//! Source: Kubernetes pkg/registry/core/*/strategy.go, PrepareForCreate and PrepareForUpdate. Pure.

use k8s_openapi::api::core::v1::Pod;
use serde_json::{Map, Value, json};

use super::Error;
use super::desk::is_gated;
use crate::object::conditions;
use crate::object::references::items;
use crate::object::resources::qos_class;
use crate::object::{self, Key, Kind};

/// Metadata that nobody but the registry sets.
const OURS: [&str; 7] = [
    "uid",
    "creationTimestamp",
    "resourceVersion",
    "deletionTimestamp",
    "deletionGracePeriodSeconds",
    "generation",
    "selfLink",
];

/// Kinds whose status has a door of its own: the object's own door leaves it alone.
fn has_status(kind: Kind) -> bool {
    matches!(
        kind,
        Kind::Pod | Kind::Node | Kind::Namespace | Kind::Service | Kind::ResourceQuota
    )
}

/// Takes out of a new object what its author has no say in.
pub(super) fn create(kind: Kind, body: &mut Value) {
    if let Some(metadata) = body.get_mut("metadata").and_then(Value::as_object_mut) {
        for name in OURS {
            metadata.remove(name);
        }
    }
    // A kubelet that registers its Node sends the status along.
    if has_status(kind)
        && kind != Kind::Node
        && let Some(fields) = body.as_object_mut()
    {
        fields.remove("status");
    }
}

/// Makes a body the whole wanted state: what the door does not reach is as it is now.
/// Errors: a binding of a pod that has a node, or is going.
pub(super) fn update(
    key: &Key,
    subresource: &str,
    body: &mut Value,
    current: &Value,
) -> Result<(), Error> {
    if subresource == "binding" {
        *body = bound(key, body, current)?;
        return Ok(());
    }
    let kind = key.kind;
    let Some(fields) = body.as_object_mut() else {
        return Ok(());
    };
    match subresource {
        "status" => {
            let (status, metadata) = (fields.remove("status"), fields.remove("metadata"));
            *fields = current.as_object().cloned().unwrap_or_default();
            set(fields, "status", status);
            if let Some(metadata) = metadata {
                // Old kubelets broke the owners of pods.
                let owners = current["metadata"].get("ownerReferences").cloned();
                set(fields, "metadata", Some(metadata));
                if let (Kind::Pod, Some(metadata)) = (kind, fields["metadata"].as_object_mut()) {
                    set(metadata, "ownerReferences", owners);
                }
            }
        }
        "ephemeralcontainers" => {
            let listed = fields
                .get_mut("spec")
                .map(|spec| spec["ephemeralContainers"].take());
            all_but_part(fields, current);
            if let Some(listed) = listed.filter(|listed| !listed.is_null()) {
                fields["spec"]["ephemeralContainers"] = listed;
            }
        }
        "resize" => {
            let wanted = fields.remove("spec").unwrap_or_default();
            all_but_part(fields, current);
            for list in ["containers", "initContainers"] {
                resize(&mut fields["spec"], &wanted, list);
            }
        }
        "finalize" => {
            let finalizers = fields.get("spec").map(|spec| spec["finalizers"].clone());
            all_but_part(fields, current);
            fields["spec"]["finalizers"] = finalizers
                .filter(Value::is_array)
                .unwrap_or_else(|| json!([]));
        }
        _ => {
            if has_status(kind) {
                set(fields, "status", current.get("status").cloned());
            }
            // Who leaves the type out means the one that is there.
            if kind == Kind::Secret && fields.get("type").is_none_or(|given| given == "") {
                set(fields, "type", current.get("type").cloned());
            }
            // Spec finalizers of a namespace change through its `finalize` only.
            if kind == Kind::Namespace && current["spec"]["finalizers"].is_array() {
                fields.insert("spec".to_owned(), current["spec"].clone());
            }
        }
    }
    Ok(())
}

/// Makes the current object of a body of which a part counts, and what it says of its version and of
/// who wrote what.
fn all_but_part(fields: &mut Map<String, Value>, current: &Value) {
    let mut given = fields.remove("metadata").unwrap_or_default();
    *fields = current.as_object().cloned().unwrap_or_default();
    let metadata = &mut fields["metadata"];
    metadata["resourceVersion"] = given["resourceVersion"].take();
    let managers = given["managedFields"].take();
    if managers.is_array() {
        metadata["managedFields"] = managers;
    }
}

/// Takes over resources and their policies. A list of others is taken whole: it is refused later.
fn resize(spec: &mut Value, wanted: &Value, list: &str) {
    let names = |spec: &Value| {
        items(spec, list)
            .map(|one| one["name"].clone())
            .collect::<Vec<_>>()
    };
    if names(spec) != names(wanted) {
        spec[list] = wanted[list].clone();
        return;
    }
    let containers = spec.get_mut(list).and_then(Value::as_array_mut);
    let pairs = containers.into_iter().flatten().zip(items(wanted, list));
    for (container, wanted) in pairs {
        let fields = container.as_object_mut().expect("it has a name");
        for name in ["resources", "resizePolicy"] {
            set(fields, name, wanted.get(name).cloned());
        }
    }
}

/// The pod with the node that the binding names. Source: Kubernetes
/// pkg/registry/core/pod/storage/storage.go, assignPod.
fn bound(key: &Key, binding: &Value, current: &Value) -> Result<Value, Error> {
    let conflict = |message: String| Error::Conflict {
        key: key.clone(),
        message,
    };
    let name = &key.name;
    if current["metadata"]["deletionTimestamp"].is_string() {
        let text = format!("pod {name} is being deleted, cannot be assigned to a host");
        return Err(conflict(text));
    }
    let node = current["spec"]["nodeName"].as_str().unwrap_or_default();
    if !node.is_empty() {
        let text = format!("pod {name} is already assigned to node {node:?}");
        return Err(conflict(text));
    }
    if is_gated(current) {
        let text = format!("pod {name} has non-empty .spec.schedulingGates");
        return Err(conflict(text));
    }
    let mut pod = current.clone();
    pod["spec"]["nodeName"] = binding["target"]["name"].clone();
    let scheduled = json!({"type": "PodScheduled", "status": "True"});
    conditions::put(&mut pod["status"], scheduled);
    Ok(pod)
}

/// What a new pod's status says, whatever its author wrote.
pub(super) fn first_status(pod: &Value) -> Value {
    let mut status = json!({"phase": "Pending"});
    if let Ok((typed, _)) = object::view::<Pod>(pod) {
        status["qosClass"] = qos_class(&typed).name().into();
    }
    if is_gated(pod) {
        status["conditions"] = json!([{
            "type": "PodScheduled",
            "status": "False",
            "reason": "SchedulingGated",
            "message": "Scheduling is blocked due to non-empty scheduling gates",
        }]);
    }
    status
}

fn set(fields: &mut Map<String, Value>, name: &str, value: Option<Value>) {
    match value {
        Some(value) => fields.insert(name.to_owned(), value),
        None => fields.remove(name),
    };
}
