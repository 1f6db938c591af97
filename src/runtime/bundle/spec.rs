//! The whole `config.json`: root, namespaces, cgroup limits, hidden paths.

use serde_json::{Map, Value, json};

use super::{
    Bundle, BundleError, BundleInput, CgroupVersion, MemoryController, devices, mounts, process,
    seccomp,
};
use crate::object::gather::Gather;
use crate::world::{CgroupResources, NamespaceMode, ProcMount, Propagation};

/// The runtime-spec version whose fields are used.
const OCI_VERSION: &str = "1.0.2";

/// Hidden from containers: kernel internals that leak or that no container needs.
/// Source: Kubernetes `defaultMaskedPaths`, containerd.
const MASKED: [&str; 12] = [
    "/proc/asound",
    "/proc/acpi",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/sys/firmware",
    "/sys/devices/virtual/powercap",
];

/// Readable but not writable. Source: Kubernetes `defaultReadonlyPaths`.
const READ_ONLY: [&str; 5] = [
    "/proc/bus",
    "/proc/fs",
    "/proc/irq",
    "/proc/sys",
    "/proc/sysrq-trigger",
];

/// Builds the configuration of one container instance.
///
/// Errors: `Config` if the pod must change (capability names, mount paths, working directory,
/// seccomp file), `Image` if the image must (no command, working directory).
/// Source: OCI runtime-spec 1.0.2; security fields as in Kubernetes' CRI runtimes.
pub fn oci_config(input: &BundleInput) -> Result<Bundle, BundleError> {
    let (process, clamped) = process::process(input)?;
    let config = json!({
        "ociVersion": OCI_VERSION,
        "process": process,
        "root": {
            "path": input.paths.rootfs,
            "readonly": input.container.security.read_only_root,
        },
        "mounts": mounts::mounts(input)?,
        "annotations": annotations(input),
        "linux": linux(input)?,
    });
    let memory_unlimited = match input.host.memory {
        MemoryController::Absent => input.container.resources.memory_bytes_max,
        MemoryController::WithoutSwap | MemoryController::WithSwap => None,
    };
    Ok(Bundle {
        config,
        clamped,
        memory_unlimited,
    })
}

/// Names that tools which read runtime state know containers by.
fn annotations(input: &BundleInput) -> Value {
    let container = input.container;
    json!({
        "io.kubernetes.cri.container-type": "container",
        "io.kubernetes.cri.container-name": container.name,
        "io.kubernetes.cri.sandbox-name": container.pod_name,
        "io.kubernetes.cri.sandbox-namespace": container.namespace,
        "io.kubernetes.cri.sandbox-uid": container.uid,
    })
}

fn linux(input: &BundleInput) -> Result<Value, BundleError> {
    let security = &input.container.security;
    let mut linux = Map::new();
    linux.insert("namespaces".into(), namespaces(input));
    linux.insert("resources".into(), resources(input));
    linux.insert("cgroupsPath".into(), input.cgroups_path.into());
    if security.privileged {
        linux.insert("devices".into(), devices::host_nodes(&input.host.devices));
    } else if security.proc_mount == ProcMount::Default {
        linux.insert("maskedPaths".into(), masked_paths(input));
        linux.insert("readonlyPaths".into(), json!(READ_ONLY));
    }
    if let Some(profile) = seccomp::profile(input)? {
        linux.insert("seccomp".into(), profile);
    }
    if let Some(propagation) = rootfs_propagation(input) {
        linux.insert("rootfsPropagation".into(), propagation.into());
    }
    Ok(Value::Object(linux))
}

/// The root's propagation must be at least as open as that of any mount below it.
fn rootfs_propagation(input: &BundleInput) -> Option<&'static str> {
    let any = |wanted| input.mounts.iter().any(|mount| mount.propagation == wanted);
    if any(Propagation::Bidirectional) {
        Some("rshared")
    } else {
        any(Propagation::HostToContainer).then_some("rslave")
    }
}

fn masked_paths(input: &BundleInput) -> Value {
    let throttles = input
        .host
        .throttling_cpus
        .iter()
        .map(|cpu| format!("/sys/devices/system/cpu/cpu{cpu}/thermal_throttle"));
    MASKED
        .iter()
        .map(|path| (*path).to_owned())
        .chain(throttles)
        .collect()
}

/// Joins the pod's namespaces by path; mount (and pid, cgroup) are the container's own.
/// A namespace that is not listed is the runtime's own, which is the host's.
fn namespaces(input: &BundleInput) -> Value {
    let pause = input.pause_pid;
    let joined = |kind: &str, file: &str| json!({ "type": kind, "path": format!("/proc/{pause}/ns/{file}") });
    let modes = input.sandbox.namespaces;
    let mut list = vec![json!({ "type": "mount" })];
    if modes.network == NamespaceMode::Pod {
        list.push(joined("network", "net"));
        // Pods of the host's network keep the host's name (reference: no UTS change).
        list.push(joined("uts", "uts"));
    }
    if modes.ipc == NamespaceMode::Pod {
        list.push(joined("ipc", "ipc"));
    }
    let target = input.target_pid.map(|pid| format!("/proc/{pid}/ns/pid"));
    match modes.pid {
        _ if target.is_some() => list.push(json!({ "type": "pid", "path": target })),
        NamespaceMode::Pod => list.push(joined("pid", "pid")),
        NamespaceMode::Container => list.push(json!({ "type": "pid" })),
        NamespaceMode::Host => {}
    }
    if input.host.cgroup == CgroupVersion::V2 && !input.container.security.privileged {
        list.push(json!({ "type": "cgroup" }));
    }
    Value::Array(list)
}

fn resources(input: &BundleInput) -> Value {
    let CgroupResources {
        cpu_shares,
        cpu_quota_us,
        cpu_period_us,
        memory_bytes_max,
        pids_max,
    } = &input.container.resources;
    let mut resources = Map::new();
    let rules = match input.container.security.privileged {
        true => devices::allow_all(),
        false => devices::deny_all(),
    };
    resources.insert("devices".into(), rules);
    let cpu = present([
        ("shares", cpu_shares.map(Value::from)),
        ("quota", cpu_quota_us.map(Value::from)),
        ("period", cpu_period_us.map(Value::from)),
    ]);
    // Swap equal to the limit means none beside it (upstream's NoSwap). A runtime fails on files
    // that the kernel does not have.
    let memory = present(
        match (input.host.memory, memory_bytes_max.map(Value::from)) {
            (MemoryController::Absent, _) => [("limit", None), ("swap", None)],
            (MemoryController::WithoutSwap, limit) => [("limit", limit), ("swap", None)],
            (MemoryController::WithSwap, limit) => [("limit", limit.clone()), ("swap", limit)],
        },
    );
    for (name, group) in [("cpu", cpu), ("memory", memory)] {
        if !group.is_empty() {
            resources.insert(name.into(), Value::Object(group));
        }
    }
    if let Some(limit) = pids_max {
        resources.insert("pids".into(), json!({ "limit": limit }));
    }
    // The whole container dies together, else a pod limps on without half of its processes.
    let v2 = input.host.cgroup == CgroupVersion::V2;
    if v2 && input.host.memory != MemoryController::Absent {
        resources.insert("unified".into(), json!({ "memory.oom.group": "1" }));
    }
    Value::Object(resources)
}

fn present<const N: usize>(fields: [(&str, Option<Value>); N]) -> Map<String, Value> {
    let set = fields
        .into_iter()
        .filter_map(|(name, value)| Some((name.to_owned(), value?)));
    set.gathered()
}
