//! CPU, memory and process limits as cgroup figures, QoS class, `oom_score_adj`.
//!
//! Integers truncate exactly where upstream's do: other tools compare the figures.
//! Sources: k8s.io/kubernetes pkg/kubelet/cm/helpers_linux.go, pkg/kubelet/qos/policy.go,
//! component-helpers resource.

use k8s_openapi::api::core::v1::{Container, Pod, PodSpec, ResourceRequirements};

use crate::object::Quantity;
use crate::object::resources::{Which, qos_class, stated};
use crate::world::{CgroupResources, PodCgroup, QosClass};

/// `cpu.shares` bounds. Source: kernel, sched(7); upstream MinShares, MaxShares.
const SHARES_MIN: i64 = 2;
const SHARES_MAX: i64 = 262_144;
/// Accounting period of CPU quotas (100 ms), and the smallest quota (1 ms), in microseconds.
const QUOTA_PERIOD_US: i64 = 100_000;
const QUOTA_MIN_US: i64 = 1000;

/// Priority of a pod that is critical to its node, as its class says. One that is critical to the cluster
/// goes by its requests. Source: pkg/kubelet/types (IsNodeCriticalPod).
const PRIORITY_NODE_CRITICAL: i32 = 2_000_001_000;
/// `oom_score_adj` by class. Source: pkg/kubelet/qos/policy.go.
const OOM_GUARANTEED: i32 = -997;
const OOM_BEST_EFFORT: i32 = 1000;
/// The score of a Burstable container falls by this over the whole memory of the node.
const OOM_RANGE: i64 = 1000;

/// Sums of one pod or one container. `None` limits are absent, not zero.
#[derive(Clone, Copy, Debug, Default)]
struct Amounts {
    cpu_request_milli: i64,
    memory_request_bytes: i64,
    cpu_limit_milli: Option<i64>,
    memory_limit_bytes: Option<i64>,
}

/// One container's amounts; a limit without request is the request too (API defaulting).
fn amounts(resources: Option<&ResourceRequirements>) -> Amounts {
    let Some(resources) = resources else {
        return Amounts::default();
    };
    let limit = |name| stated(resources, Which::Limit, name).filter(|q| *q > Quantity::ZERO);
    let request = |name| stated(resources, Which::Request, name).or_else(|| limit(name));
    Amounts {
        cpu_request_milli: request("cpu").map_or(0, Quantity::millis),
        memory_request_bytes: request("memory").map_or(0, Quantity::value),
        cpu_limit_milli: limit("cpu").map(Quantity::millis),
        memory_limit_bytes: limit("memory").map(Quantity::value),
    }
}

/// `cpu.shares` of an amount of CPU: 1024 for one core, 2 for none.
pub fn cpu_shares(milli: i64) -> u64 {
    let shares = milli.saturating_mul(1024) / 1000;
    shares.clamp(SHARES_MIN, SHARES_MAX).unsigned_abs()
}

/// Microseconds of CPU for each period of 100 ms.
pub fn cpu_quota_us(milli: i64) -> i64 {
    (milli.saturating_mul(QUOTA_PERIOD_US) / 1000).max(QUOTA_MIN_US)
}

/// Limits of one container's cgroup.
pub fn container_resources(container: &Container) -> CgroupResources {
    let amounts = amounts(container.resources.as_ref());
    CgroupResources {
        cpu_shares: Some(cpu_shares(amounts.cpu_request_milli)),
        ..limits(amounts.cpu_limit_milli, amounts.memory_limit_bytes)
    }
}

fn limits(cpu_milli: Option<i64>, memory_bytes: Option<i64>) -> CgroupResources {
    CgroupResources {
        cpu_shares: None,
        cpu_quota_us: cpu_milli.map(cpu_quota_us),
        cpu_period_us: cpu_milli.map(|_| QUOTA_PERIOD_US.unsigned_abs()),
        memory_bytes_max: memory_bytes,
        pids_max: None,
    }
}

/// Whether an init container is a sidecar: it keeps running beside the regular ones.
pub fn is_sidecar(init: &Container) -> bool {
    init.restart_policy.as_deref() == Some("Always")
}

fn spec(pod: &Pod) -> PodSpecParts<'_> {
    match &pod.spec {
        Some(spec) => PodSpecParts {
            regular: &spec.containers,
            init: spec.init_containers.as_deref().unwrap_or_default(),
            whole: Some(spec),
        },
        None => PodSpecParts {
            regular: &[],
            init: &[],
            whole: None,
        },
    }
}

struct PodSpecParts<'a> {
    regular: &'a [Container],
    init: &'a [Container],
    whole: Option<&'a PodSpec>,
}

/// Class and limits of the pod's cgroup.
///
/// Sums are the larger of what runs together in the end (regular containers and sidecars) and of
/// each init container with the sidecars before it, plus overhead. Quota and memory limit are set
/// only if every container states that limit; pod-level resources replace the sums.
pub fn pod_cgroup(pod: &Pod, pids_max: Option<i64>) -> PodCgroup {
    let qos = qos_class(pod);
    let parts = spec(pod);
    let mut sums = Amounts {
        cpu_request_milli: peak(&parts, |a| a.cpu_request_milli),
        memory_request_bytes: peak(&parts, |a| a.memory_request_bytes),
        cpu_limit_milli: peak_limit(&parts, |a| a.cpu_limit_milli),
        memory_limit_bytes: peak_limit(&parts, |a| a.memory_limit_bytes),
    };
    if let Some(overhead) = parts.whole.and_then(|s| s.overhead.as_ref()) {
        let extra = |name: &str| {
            overhead
                .get(name)
                .and_then(|q| q.0.parse::<Quantity>().ok())
        };
        let cpu = extra("cpu").map_or(0, Quantity::millis);
        let memory = extra("memory").map_or(0, Quantity::value);
        sums.cpu_request_milli = sums.cpu_request_milli.saturating_add(cpu);
        sums.cpu_limit_milli = sums.cpu_limit_milli.map(|l| l.saturating_add(cpu));
        sums.memory_limit_bytes = sums.memory_limit_bytes.map(|l| l.saturating_add(memory));
    }
    if let Some(level) = parts.whole.and_then(|s| s.resources.as_ref()) {
        let level = amounts(Some(level));
        if level.cpu_request_milli > 0 {
            sums.cpu_request_milli = level.cpu_request_milli;
        }
        sums.cpu_limit_milli = level.cpu_limit_milli.or(sums.cpu_limit_milli);
        sums.memory_limit_bytes = level.memory_limit_bytes.or(sums.memory_limit_bytes);
    }
    let resources = match qos {
        QosClass::BestEffort => CgroupResources {
            cpu_shares: Some(SHARES_MIN.unsigned_abs()),
            ..CgroupResources::default()
        },
        QosClass::Guaranteed | QosClass::Burstable => CgroupResources {
            cpu_shares: Some(cpu_shares(sums.cpu_request_milli)),
            ..limits(sums.cpu_limit_milli, sums.memory_limit_bytes)
        },
    };
    PodCgroup {
        qos,
        resources: CgroupResources {
            pids_max,
            ..resources
        },
    }
}

/// Most of one amount that is ever used at a time.
fn peak(parts: &PodSpecParts, of: impl Fn(&Amounts) -> i64) -> i64 {
    let of = |container: &Container| of(&amounts(container.resources.as_ref()));
    let mut sidecars = 0i64;
    let mut initializing = 0i64;
    for init in parts.init {
        let own = of(init);
        if is_sidecar(init) {
            sidecars = sidecars.saturating_add(own);
            initializing = initializing.max(sidecars);
        } else {
            initializing = initializing.max(sidecars.saturating_add(own));
        }
    }
    let regular = parts.regular.iter().map(of).fold(0, i64::saturating_add);
    regular.saturating_add(sidecars).max(initializing)
}

/// `None` unless every container states the limit.
fn peak_limit(parts: &PodSpecParts, of: impl Fn(&Amounts) -> Option<i64>) -> Option<i64> {
    let all = parts.regular.iter().chain(parts.init);
    let every = all
        .map(|c| of(&amounts(c.resources.as_ref())))
        .all(|limit| limit.is_some());
    (every && !parts.regular.is_empty()).then(|| peak(parts, |a| of(a).unwrap_or(0)))
}

/// How likely the kernel kills this container first when memory runs out, -997 … 1000.
///
/// A Burstable container that asked for much of the node's memory is spared longer; a sidecar is
/// spared at least as long as the regular container that asked for least.
pub fn oom_score_adj(pod: &Pod, container: &Container, node_memory_bytes: u64) -> i32 {
    let parts = spec(pod);
    let priority = parts.whole.and_then(|s| s.priority).unwrap_or(0);
    if priority >= PRIORITY_NODE_CRITICAL {
        return OOM_GUARANTEED;
    }
    match qos_class(pod) {
        QosClass::Guaranteed => return OOM_GUARANTEED,
        QosClass::BestEffort => return OOM_BEST_EFFORT,
        QosClass::Burstable => {}
    }
    let memory = i64::try_from(node_memory_bytes).unwrap_or(i64::MAX).max(1);
    let request = |c: &Container| amounts(c.resources.as_ref()).memory_request_bytes;
    let score = |bytes: i64| OOM_RANGE - OOM_RANGE.saturating_mul(bytes) / memory;
    let own = score(request(container));
    let sidecar = parts
        .init
        .iter()
        .any(|i| i.name == container.name && is_sidecar(i));
    let least = parts.regular.iter().map(request).min();
    let adjusted = match (sidecar, least) {
        (true, Some(least)) => own.min(score(least)),
        (true, None) | (false, _) => own,
    };
    let bounded = adjusted.clamp(
        i64::from(OOM_GUARANTEED) + OOM_RANGE,
        i64::from(OOM_BEST_EFFORT) - 1,
    );
    i32::try_from(bounded).expect("clamped to 3..=999")
}
