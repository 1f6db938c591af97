//! What a pod and its containers were given: resources, mounts, ids.
//!
//! Source: Kubernetes pkg/kubelet/kubelet_pods.go (convertToAPIContainerStatuses,
//! convertToAPIPodLevelResourcesStatus).

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use super::phase::Phase;
use crate::kubelet::facts::{NodeFacts, RecursiveReadOnly};
use crate::kubelet::view::PodView;
use crate::object::Quantity;
use crate::object::gather::Gather;
use crate::object::references::items;
use crate::object::resources::{pod_limits, pod_requests};
use crate::world::ContainerUser;

/// `volumeMounts`, as the spec has them and whether what is mounted below is read-only as well.
pub(super) fn put_mounts(node: &NodeFacts, spec: &Value, value: &mut Value) {
    let mounts = items(spec, "volumeMounts").map(|mount| {
        let mut shown = json!({ "name": mount["name"], "mountPath": mount["mountPath"] });
        if mount["readOnly"] == true {
            shown["readOnly"] = true.into();
            let supported = node.recursive_read_only == RecursiveReadOnly::Supported;
            shown["recursiveReadOnly"] = match mount["recursiveReadOnly"].as_str() {
                Some("Enabled" | "IfPossible") if supported => "Enabled".into(),
                _ => "Disabled".into(),
            };
        }
        shown
    });
    let mounts: Vec<Value> = mounts.collect();
    if !mounts.is_empty() {
        value["volumeMounts"] = mounts.into();
    }
}

/// `resources` and `allocatedResources` of a container that was made.
pub(super) fn put_resources(spec: &Value, value: &mut Value) {
    let resources = &spec["resources"];
    value["resources"] = match resources {
        Value::Object(stated) => Value::Object(stated.clone()),
        _ => json!({}),
    };
    let requests = resources["requests"].as_object();
    if let Some(requests) = requests.filter(|requests| !requests.is_empty()) {
        value["allocatedResources"] = requests.clone().into();
    }
}

pub(super) fn put_user(user: Option<&ContainerUser>, value: &mut Value) {
    if let Some(user) = user {
        value["user"] = json!({ "linux": {
            "uid": user.uid,
            "gid": user.gid,
            "supplementalGroups": user.supplemental_groups,
        } });
    }
}

/// The same of the pod as a whole. Once it runs, what its cgroup knows of: processor and memory,
/// and a limit only where all containers have one.
pub(super) fn put_pod(view: &PodView, spec: &Value, phase: Phase, value: &mut Value) {
    let (mut requests, mut limits) = (pod_requests(spec), pod_limits(spec));
    let allocated = written(&requests);
    if phase == Phase::Running {
        requests.retain(|name, _| matches!(name.as_str(), "cpu" | "memory"));
        limits.retain(|name, _| match name.as_str() {
            "cpu" => view.cgroup.cpu_quota_us.is_some(),
            "memory" => view.cgroup.memory_bytes_max.is_some(),
            _ => false,
        });
    }
    value["resources"] = json!({});
    for (name, list) in [("requests", requests), ("limits", limits)] {
        if !list.is_empty() {
            value["resources"][name] = written(&list).into();
        }
    }
    if !allocated.is_empty() {
        value["allocatedResources"] = allocated.into();
    }
}

fn written(list: &BTreeMap<String, Quantity>) -> Map<String, Value> {
    let entries = list.iter();
    let entries = entries.map(|(name, amount)| (name.clone(), amount.to_string().into()));
    entries.gathered()
}
