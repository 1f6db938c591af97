//! The node's own Node object: what the machine is and whether it works.
//!
//! Written when something changes, never as a heartbeat: an idle node writes nothing.
//! Source: Kubernetes pkg/kubelet/kubelet_node_status.go, pkg/kubelet/nodestatus/setters.go.

use std::rc::Rc;
use std::time::Duration;

use serde_json::{Value, json};

use super::core::Core;
use super::status::rfc3339;
use crate::object::{Key, Kind, Source};
use crate::registry::Incoming;
use crate::world::Area;

/// What the machine says of itself; read once at the start by the composition root.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Machine {
    pub architecture: String,
    pub kernel_version: String,
    pub os_image: String,
    pub machine_id: String,
    pub system_uuid: String,
    pub boot_id: String,
    /// `runc://1.1.5`
    pub runtime_version: String,
    pub cpus: u32,
    pub pods_max: u32,
    pub labels: Vec<(String, String)>,
    /// Key, value, effect.
    pub taints: Vec<(String, String, String)>,
    /// `--node-status-update-frequency`: how soon a node in trouble looks whether it is over.
    pub status_period: Duration,
}

/// Version of the Kubernetes API whose rules are followed; clients parse it as semver.
pub const KUBELET_VERSION: &str = concat!("v1.33.0+lowtide.", env!("CARGO_PKG_VERSION"));

/// Publishes Node and built-in namespaces, then keeps the conditions true.
pub async fn publish(core: Rc<Core>) {
    let name = core.options.node.node_name.clone();
    let key = Key::local(Kind::Node, "", &name);
    let list = vec![Incoming::Object {
        key: key.clone(),
        provenance: None,
        body: object(&core),
        lines: Default::default(),
    }];
    if let Err(error) = core.registry.replace(Source::Node, list).await {
        log::error!("publish {key}: {error:?}; the node is not shown");
        return;
    }
    let mut shown = None;
    core.note_disk(Area::Root, &core.records.try_root().await);
    loop {
        let listener = core.troubles.listen();
        let trouble = core.disk_trouble();
        if shown.as_ref() != Some(&trouble)
            && let Some(node) = core.reader.get(&key)
        {
            core.registry
                .update_status(&key, node.uid(), status(&core, trouble.as_deref()));
            shown = Some(trouble);
        }
        match core.disk_trouble() {
            None => listener.await,
            // Nothing may be written for days: only a try shows that space is back.
            Some(_) => {
                let clock = &core.world.clock;
                let again = clock.sleep_until(clock.now() + core.options.machine.status_period);
                futures_lite::future::or(listener, again).await;
                core.note_disk(Area::Root, &core.records.try_root().await);
            }
        }
    }
}

fn object(core: &Core) -> Value {
    let node = &core.options.node;
    let machine = &core.options.machine;
    let mut labels = serde_json::Map::new();
    for (key, value) in [
        ("kubernetes.io/hostname", node.node_name.as_str()),
        ("kubernetes.io/os", "linux"),
        ("kubernetes.io/arch", machine.architecture.as_str()),
        ("beta.kubernetes.io/os", "linux"),
        ("beta.kubernetes.io/arch", machine.architecture.as_str()),
    ] {
        labels.insert(key.to_owned(), value.into());
    }
    for (key, value) in &machine.labels {
        labels.insert(key.clone(), value.as_str().into());
    }
    json!({
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": { "name": node.node_name, "labels": labels },
        "spec": spec(&machine.taints),
    })
}

/// Nothing is scheduled here by them; who reads the Node sees them.
fn spec(taints: &[(String, String, String)]) -> Value {
    let taint = |(key, value, effect): &(String, String, String)| match value.as_str() {
        "" => json!({ "key": key, "effect": effect }),
        value => json!({ "key": key, "value": value, "effect": effect }),
    };
    match taints {
        [] => json!({}),
        taints => json!({ "taints": taints.iter().map(taint).collect::<Value>() }),
    }
}

fn status(core: &Core, disk_trouble: Option<&str>) -> Value {
    let node = &core.options.node;
    let machine = &core.options.machine;
    let addresses = node.host_ips.iter();
    let addresses = addresses.map(|ip| json!({ "type": "InternalIP", "address": ip.to_string() }));
    let hostname = json!({ "type": "Hostname", "address": node.node_name });
    let resources = |memory: String| {
        json!({
            "cpu": machine.cpus.to_string(),
            "memory": memory,
            "pods": machine.pods_max.to_string(),
        })
    };
    json!({
        "addresses": addresses.chain([hostname]).collect::<Value>(),
        "capacity": resources(format!("{}Ki", node.memory_bytes / 1024)),
        "allocatable": resources(format!("{}Ki", node.memory_bytes / 1024)),
        "conditions": conditions(core, disk_trouble),
        "daemonEndpoints": { "kubeletEndpoint": { "Port": 0 } },
        "nodeInfo": {
            "architecture": machine.architecture,
            "bootID": machine.boot_id,
            "containerRuntimeVersion": machine.runtime_version,
            "kernelVersion": machine.kernel_version,
            "kubeProxyVersion": "",
            "kubeletVersion": KUBELET_VERSION,
            "machineID": machine.machine_id,
            "operatingSystem": "linux",
            "osImage": machine.os_image,
            "systemUUID": machine.system_uuid,
        },
    })
}

fn conditions(core: &Core, disk_trouble: Option<&str>) -> Value {
    let now = rfc3339(core.world.clock.wall());
    let condition = |kind: &str, holds: bool, reason: &str, message: &str| {
        json!({
            "type": kind,
            "status": if holds { "True" } else { "False" },
            "reason": reason,
            "message": message,
            "lastHeartbeatTime": now,
            "lastTransitionTime": now,
        })
    };
    let own_files = match disk_trouble {
        None => condition(
            "lowtide.io/DiskWritable",
            true,
            "DiskWritable",
            "the node's own files can be written",
        ),
        Some(text) => condition("lowtide.io/DiskWritable", false, "DiskNotWritable", text),
    };
    Value::Array(vec![
        own_files,
        condition(
            "Ready",
            true,
            "KubeletReady",
            "kubelet is posting ready status",
        ),
    ])
}
