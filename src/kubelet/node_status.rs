//! The node's own Node object: what the machine is and whether it works.
//!
//! Written when something changes, never as a heartbeat: an idle node writes nothing.
//! Source: Kubernetes pkg/kubelet/kubelet_node_status.go, pkg/kubelet/nodestatus/setters.go.

use std::collections::BTreeSet;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use serde_json::{Value, json};

use super::core::{Core, EventKind};
use super::memory::Transitions;
use super::pressure::thresholds::{Condition, Kind as ThresholdKind, Signal};
use super::status::rfc3339;
use crate::object::{Key, Kind, order};
use crate::registry::Error;
use crate::world::{Area, Image, PodNetwork};

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
    /// Of the file system that ROOT is on.
    pub ephemeral_storage_bytes: u64,
    /// Size (`2Mi`) and bytes set aside, for each size that the kernel has.
    pub huge_pages: Vec<(String, u64)>,
    pub labels: Vec<(String, String)>,
    /// Key, value, effect.
    pub taints: Vec<(String, String, String)>,
    /// `--node-status-update-frequency`: how soon a node in trouble looks whether it is over.
    pub status_period: Duration,
    /// Of the kubelet's own endpoints; 0 where they are not served.
    pub kubelet_port: u16,
}

/// Version of the Kubernetes API whose rules are followed; clients parse it as semver.
pub const KUBELET_VERSION: &str = concat!("v1.36.0+lowtide.", env!("CARGO_PKG_VERSION"));

/// As upstream's kubelet says it of containerd without a CNI configuration.
/// Source: Kubernetes pkg/kubelet/kubelet.go (updateRuntimeUp); containerd, internal/cri/server (Status).
pub const NETWORK_NOT_READY: &str = "container runtime network not ready: NetworkReady=false \
    reason:NetworkPluginNotReady message:Network plugin returns error: cni plugin not initialized";

/// Making the Node is tried again after 100 ms, doubling to 7 s.
/// Source: Kubernetes pkg/kubelet/kubelet_node_status.go (registerWithAPIServer).
const REGISTER_PAUSE_MIN: Duration = Duration::from_millis(100);
const REGISTER_PAUSE_MAX: Duration = Duration::from_secs(7);
/// Images in the status, and names of each.
/// Source: Kubernetes pkg/kubelet/nodestatus (nodeStatusMaxImages, MaxNamesPerImageInNodeStatus).
const IMAGES_MAX: usize = 50;
const NAMES_MAX: usize = 5;

/// Publishes the Node, then keeps the status true.
pub async fn publish(core: Rc<Core>) {
    let key = Key::local(Kind::Node, "", &core.node().node_name);
    register(&core, &key).await;
    let mut site = core.node().site.clone();
    let mut transitions = core.records.node_transitions().await;
    tell_start(&core).await;
    let mut shown = None;
    let mut images = core.world.images.generation();
    // Also removes what a try of an agent that was killed has left.
    for area in [Area::Root, Area::Run] {
        core.note_disk(area, &core.records.try_area(area).await);
    }
    loop {
        let listener = core.troubles.listen();
        let facts = (Health::of(&core), images, core.node());
        if site != facts.2.site {
            site = facts.2.site.clone();
            register(&core, &key).await;
        }
        if shown.as_ref() != Some(&facts)
            && let Some(node) = core.reader.get(&key)
        {
            let now = core.world.clock.wall();
            let before = transitions.clone();
            let conditions = conditions(&facts.0, now, &mut transitions);
            tell_changes(&core, &before, &transitions);
            let uid = node.uid();
            core.registry
                .update_status(&key, uid, status(&core, conditions));
            shown = Some(facts);
            if transitions != before
                && let Err(error) = core.records.keep_node_transitions(&transitions).await
            {
                log::debug!("{error}; a next agent dates the node's conditions anew");
            }
        }
        let pulled = async {
            core.world.images.changed(images).await;
        };
        let changed = futures_lite::future::or(listener, pulled);
        let areas = core.troubled_areas();
        if areas.is_empty() {
            changed.await;
        } else {
            // Nothing may be written for days: only a try shows that space is back.
            let clock = &core.world.clock;
            let again = clock.sleep_until(clock.now() + core.options.machine.status_period);
            futures_lite::future::or(changed, again).await;
            for area in areas {
                core.note_disk(area, &core.records.try_area(area).await);
            }
        }
        images = core.world.images.generation();
    }
}

/// That the agent begins, and whether the machine was booted since it last did.
async fn tell_start(core: &Core) {
    core.node_event(EventKind::Normal, "Starting", "Starting kubelet.");
    let (boot, name) = (&core.options.machine.boot_id, &core.node().node_name);
    let before = core.records.boot_id().await;
    if before.as_ref() == Some(boot) {
        return;
    }
    if before.is_some() {
        let text = format!("Node {name} has been rebooted, boot id: {boot}");
        core.node_event(EventKind::Warning, "Rebooted", text);
    }
    if let Err(error) = core.records.keep_boot_id(boot).await {
        log::debug!("{error}; the next agent cannot tell whether the machine was booted");
    }
}

/// One event for each condition that is another than before, or new.
fn tell_changes(core: &Core, before: &Transitions, now: &Transitions) {
    for (kind, (status, _)) in now {
        let known = before.get(kind).is_some_and(|(known, _)| known == status);
        let reason = match (kind.as_str(), status.as_str()) {
            _ if known => continue,
            ("MemoryPressure", "True") => "NodeHasInsufficientMemory",
            ("MemoryPressure", _) => "NodeHasSufficientMemory",
            ("DiskPressure", "True") => "NodeHasDiskPressure",
            ("DiskPressure", _) => "NodeHasNoDiskPressure",
            ("PIDPressure", "True") => "NodeHasInsufficientPID",
            ("PIDPressure", _) => "NodeHasSufficientPID",
            ("Ready", "True") => "NodeReady",
            ("Ready", _) => "NodeNotReady",
            _ => continue,
        };
        let name = &core.node().node_name;
        log::info!("node {name}: {reason}");
        let text = format!("Node {name} status is now: {reason}");
        core.node_event(EventKind::Normal, reason, text);
    }
}

async fn register(core: &Core, key: &Key) {
    let mut pause = REGISTER_PAUSE_MIN;
    loop {
        let stated = core.registry.state_node(key.clone(), object(core)).await;
        let Err(error) = stated else {
            return;
        };
        if let Error::Invalid { .. } = &error {
            log::error!("publish {key}: {error}; it stays as it was");
            return;
        }
        log::error!("publish {key}: {error}; trying again");
        let clock = &core.world.clock;
        clock.sleep_until(clock.now() + pause).await;
        pause = (pause * 2).min(REGISTER_PAUSE_MAX);
    }
}

/// What the conditions say.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Health {
    /// The node's own files cannot be written.
    trouble: Option<String>,
    pressure: BTreeSet<Condition>,
    pod_network: PodNetwork,
    stopping: bool,
}

impl Health {
    fn of(core: &Core) -> Health {
        let mut pressure = core.pressure.borrow().clone();
        // A write that found no room says it, whatever the thresholds are.
        pressure.extend(core.is_root_full().then_some(Condition::Disk));
        Health {
            trouble: core.disk_trouble(),
            pressure,
            pod_network: core.node().pod_network,
            stopping: core.stopping.get(),
        }
    }
}

fn object(core: &Core) -> Value {
    let node = core.node();
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
    for (key, value) in &node.site.labels {
        labels.insert((*key).to_owned(), value.as_str().into());
    }
    // What the command line says goes before it.
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

fn status(core: &Core, conditions: Value) -> Value {
    let node = core.node();
    let machine = &core.options.machine;
    let own = node.host_ips.iter();
    let mut addresses: Vec<(&str, String)> = own.map(|ip| ("InternalIP", ip.to_string())).collect();
    for address in &node.site.addresses {
        if !addresses.contains(address) {
            addresses.push(address.clone());
        }
    }
    addresses.push(("Hostname", node.node_name.clone()));
    let shown = |(kind, address)| json!({ "type": kind, "address": address });
    let capacity = capacity(machine, node.memory_bytes);
    let mut status = json!({
        "addresses": addresses.into_iter().map(shown).collect::<Value>(),
        "capacity": capacity,
        "allocatable": allocatable(core),
        "conditions": conditions,
        "daemonEndpoints": { "kubeletEndpoint": { "Port": machine.kubelet_port } },
        "images": images(core.world.images.list()),
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
    });
    if machine.kubelet_port != 0 {
        // The cluster's API server may pass WebSockets on. Source: KEP-5328, KEP-4006.
        status["declaredFeatures"] = json!(["ExtendWebSocketsToKubelet"]);
    }
    status
}

fn capacity(machine: &Machine, memory_bytes: u64) -> Value {
    let kib = |bytes: u64| format!("{}Ki", bytes / 1024);
    let mut capacity = json!({
        "cpu": machine.cpus.to_string(),
        "ephemeral-storage": kib(machine.ephemeral_storage_bytes),
        "memory": kib(memory_bytes),
        "pods": machine.pods_max.to_string(),
    });
    for (size, bytes) in &machine.huge_pages {
        capacity[format!("hugepages-{size}")] = match bytes {
            0 => "0".into(),
            bytes => kib(*bytes).into(),
        };
    }
    capacity
}

/// Capacity without what hard evictions keep free.
/// Source: Kubernetes pkg/kubelet/cm/node_container_manager_linux.go (hardEvictionReservation).
fn allocatable(core: &Core) -> Value {
    let (machine, policy) = (&core.options.machine, &core.options.eviction);
    let left = |signal: Signal, capacity: u64| {
        let mut thresholds = policy.thresholds.iter();
        let kept = thresholds.find(|t| t.signal == signal && t.kind == ThresholdKind::Hard);
        capacity.saturating_sub(kept.map_or(0, |threshold| threshold.amount.of(capacity)))
    };
    // What lies in huge pages is of no other use.
    let huge = machine.huge_pages.iter().map(|(_, bytes)| bytes).sum();
    let memory_bytes = left(Signal::Memory, core.node().memory_bytes).saturating_sub(huge);
    let machine = Machine {
        ephemeral_storage_bytes: left(Signal::NodeFs, machine.ephemeral_storage_bytes),
        ..machine.clone()
    };
    capacity(&machine, memory_bytes)
}

/// The largest first; of each, names by digest first.
fn images(mut images: Vec<Arc<Image>>) -> Value {
    order::sort_by(&mut images, |a, b| {
        (b.size_bytes, &a.id).cmp(&(a.size_bytes, &b.id))
    });
    let shown = images.iter().take(IMAGES_MAX).map(|image| {
        let names = image.digests.iter().chain(&image.tags).take(NAMES_MAX);
        let names: Vec<&String> = names.collect();
        json!({ "names": names, "sizeBytes": image.size_bytes })
    });
    shown.collect()
}

/// Status, reason and message of a condition of pressure.
#[rustfmt::skip]
fn pressed(condition: Condition, pressure: &BTreeSet<Condition>) -> (&str, &str, &str) {
    match (condition, pressure.contains(&condition)) {
        (Condition::Memory, true) =>
            ("True", "KubeletHasInsufficientMemory", "kubelet has insufficient memory available"),
        (Condition::Memory, false) =>
            ("False", "KubeletHasSufficientMemory", "kubelet has sufficient memory available"),
        (Condition::Disk, true) =>
            ("True", "KubeletHasDiskPressure", "kubelet has disk pressure"),
        (Condition::Disk, false) =>
            ("False", "KubeletHasNoDiskPressure", "kubelet has no disk pressure"),
        (Condition::Pids, true) =>
            ("True", "KubeletHasInsufficientPID", "kubelet has insufficient PID available"),
        (Condition::Pids, false) =>
            ("False", "KubeletHasSufficientPID", "kubelet has sufficient PID available"),
    }
}

/// Ready last, as upstream.
fn conditions(health: &Health, now: Timestamp, transitions: &mut Transitions) -> Value {
    let pressure = |condition| pressed(condition, &health.pressure);
    let writable = match &health.trouble {
        None => (
            "True",
            "DiskWritable",
            "the node's own files can be written",
        ),
        Some(text) => ("False", "DiskNotWritable", text.as_str()),
    };
    // Source: Kubernetes pkg/kubelet/nodeshutdown/nodeshutdown_manager.go.
    let ready = match (health.stopping, health.pod_network) {
        (true, _) => ("False", "KubeletNotReady", "node is shutting down"),
        (false, PodNetwork::NotReady) => ("False", "KubeletNotReady", NETWORK_NOT_READY),
        (false, PodNetwork::Ready | PodNetwork::NoHostPorts) => {
            ("True", "KubeletReady", "kubelet is posting ready status")
        }
    };
    let all = [
        ("lowtide.io/DiskWritable", writable),
        ("MemoryPressure", pressure(Condition::Memory)),
        ("DiskPressure", pressure(Condition::Disk)),
        ("PIDPressure", pressure(Condition::Pids)),
        ("Ready", ready),
    ];
    let values = all.map(|(kind, (status, reason, message))| {
        let known = transitions.get(kind).filter(|(known, _)| known == status);
        let since = known.map_or(now, |(_, since)| *since);
        transitions.insert(kind.to_owned(), (status.to_owned(), since));
        json!({
            "type": kind,
            "status": status,
            "reason": reason,
            "message": message,
            "lastHeartbeatTime": rfc3339(now),
            "lastTransitionTime": rfc3339(since),
        })
    });
    values.into_iter().collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::world::ImageConfig;

    #[test]
    fn a_condition_moves_when_its_status_does_and_never_else() {
        let at = |second| Timestamp::from_second(second).unwrap();
        let mut transitions = Transitions::new();
        let well = Health::default();
        let full = Health {
            trouble: Some("write x: no space".to_owned()),
            pressure: BTreeSet::from([Condition::Disk]),
            pod_network: PodNetwork::Ready,
            stopping: true,
        };
        let mut since = |disk: &Health, second| {
            let value = conditions(disk, at(second), &mut transitions);
            let text = |c: &Value, field: &str| c[field].as_str().unwrap_or_default().to_owned();
            let all = value.as_array().unwrap().iter().map(|c| {
                let time = text(c, "lastTransitionTime");
                (text(c, "type"), text(c, "status"), time[17..19].to_owned())
            });
            all.map(|(kind, status, time)| format!("{kind} {status} {time}"))
                .collect::<Vec<_>>()
        };
        let first = [
            "lowtide.io/DiskWritable True 01",
            "MemoryPressure False 01",
            "DiskPressure False 01",
            "PIDPressure False 01",
            "Ready True 01",
        ];
        assert_eq!(since(&well, 1), first);
        assert_eq!(since(&well, 2), first);
        let mut second = first;
        second[0] = "lowtide.io/DiskWritable False 03";
        second[2] = "DiskPressure True 03";
        second[4] = "Ready False 03";
        assert_eq!(since(&full, 3), second);
    }

    #[test]
    fn images_are_shown_largest_first_and_within_bounds() {
        let image = |n: u64| {
            Arc::new(Image {
                id: format!("sha256:{n}"),
                tags: (0..9).map(|t| format!("x:{t}")).collect(),
                digests: vec![format!("x@sha256:{n}")],
                size_bytes: n,
                pinned: false,
                config: ImageConfig::default(),
            })
        };
        let value = images((0..60).map(image).collect());
        assert_eq!(value.as_array().map(Vec::len), Some(IMAGES_MAX));
        assert_eq!(value[0]["sizeBytes"], 59);
        assert_eq!(
            value[0]["names"],
            json!(["x@sha256:59", "x:0", "x:1", "x:2", "x:3"])
        );
    }

    #[test]
    fn capacity_names_disk_and_huge_pages() {
        let machine = Machine {
            cpus: 2,
            pods_max: 110,
            ephemeral_storage_bytes: 4096,
            huge_pages: vec![("2Mi".to_owned(), 0), ("1Gi".to_owned(), 1 << 30)],
            ..Machine::default()
        };
        let wanted = json!({
            "cpu": "2", "ephemeral-storage": "4Ki", "memory": "8Ki", "pods": "110",
            "hugepages-2Mi": "0", "hugepages-1Gi": "1048576Ki",
        });
        assert_eq!(capacity(&machine, 8192), wanted);
    }
}
