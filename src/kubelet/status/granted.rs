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
use crate::world::{CgroupResources, ContainerUser};

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

/// What a running instance was given so far, where that is not what its spec asks for by now.
/// Source: Kubernetes pkg/kubelet/kubelet_pods.go (convertContainerStatusResources).
pub(super) fn put_given(wanted: &CgroupResources, given: &CgroupResources, value: &mut Value) {
    let mut put = |list: &str, name: &str, amount: Option<Quantity>| {
        let listed = value["resources"].get_mut(list);
        let shown = listed.and_then(|listed| listed.get_mut(name));
        if let Some((shown, amount)) = shown.zip(amount) {
            *shown = amount.to_string().into();
        }
    };
    if given.memory_bytes_max != wanted.memory_bytes_max {
        let bytes = given.memory_bytes_max.map(Quantity::from_bytes);
        put("limits", "memory", bytes);
    }
    if given.cpu_quota_us != wanted.cpu_quota_us {
        let millis = given.cpu_quota_us.map(|quota| quota / 100);
        put("limits", "cpu", millis.map(Quantity::from_millis));
    }
    if given.cpu_shares != wanted.cpu_shares {
        let millis = given
            .cpu_shares
            .map(|shares| (shares * 1000).div_ceil(1024));
        let millis = millis.map(u64::cast_signed);
        put("requests", "cpu", millis.map(Quantity::from_millis));
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_an_instance_has_not_been_given_yet_is_not_said_of_it() {
        let limits = |memory: i64, cpu_milli: i64| CgroupResources {
            cpu_shares: Some(crate::kubelet::resources::cpu_shares(cpu_milli)),
            cpu_quota_us: Some(cpu_milli * 100),
            cpu_period_us: Some(100_000),
            memory_bytes_max: Some(memory),
            pids_max: None,
        };
        let spec = json!({"resources": {
            "requests": {"cpu": "250m"}, "limits": {"cpu": "250m", "memory": "32Mi"},
        }});
        let shown = |spec: &Value, given: CgroupResources| {
            let mut value = json!({});
            put_resources(spec, &mut value);
            put_given(&limits(32 << 20, 250), &given, &mut value);
            value["resources"].take()
        };
        assert_eq!(shown(&spec, limits(32 << 20, 250)), spec["resources"]);
        let given = json!({
            "requests": {"cpu": "333m"}, "limits": {"cpu": "333m", "memory": "64Mi"},
        });
        assert_eq!(shown(&spec, limits(64 << 20, 333)), given);
        assert_eq!(shown(&json!({}), limits(64 << 20, 333)), json!({}));
    }
}
