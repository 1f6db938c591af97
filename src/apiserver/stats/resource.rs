//! `/metrics/resource`: what a metrics server reads. Pure.
//!
//! Source: Kubernetes pkg/kubelet/metrics/collectors/resource_metrics.go.

use super::exposition::{Family, Type, render};
use crate::world::{Memory, Sample, Stamp, Usage};

const NS: f64 = 1e9;

/// The families of one level: node, pod or container.
struct Level {
    cpu: Family,
    memory: Family,
    swap: Family,
}

/// Names and help of one level: processor time, memory, swap.
type Names = [(&'static str, &'static str); 3];

#[rustfmt::skip]
const NODE: Names = [
    ("node_cpu_usage_seconds_total",
     "[STABLE] Cumulative cpu time consumed by the node in core-seconds"),
    ("node_memory_working_set_bytes", "[STABLE] Current working set of the node in bytes"),
    ("node_swap_usage_bytes",
     "[ALPHA] Current swap usage of the node in bytes. Reported only on non-windows systems"),
];

#[rustfmt::skip]
const POD: Names = [
    ("pod_cpu_usage_seconds_total",
     "[STABLE] Cumulative cpu time consumed by the pod in core-seconds"),
    ("pod_memory_working_set_bytes", "[STABLE] Current working set of the pod in bytes"),
    ("pod_swap_usage_bytes",
     "[ALPHA] Current amount of the pod swap usage in bytes. Reported only on non-windows systems"),
];

#[rustfmt::skip]
const CONTAINER: Names = [
    ("container_cpu_usage_seconds_total",
     "[STABLE] Cumulative cpu time consumed by the container in core-seconds"),
    ("container_memory_working_set_bytes", "[STABLE] Current working set of the container in bytes"),
    ("container_swap_usage_bytes",
     "[ALPHA] Current amount of the container swap usage in bytes. Reported only on non-windows systems"),
];

const STARTED: &str = "[STABLE] Start time of the container since unix epoch in seconds";
const SWAP_LIMIT: &str = "[ALPHA] Current amount of the container swap limit in bytes. Reported \
                          only on non-windows systems";
const ERROR: &str = "[STABLE] 1 if there was an error while getting container metrics, 0 otherwise";

impl Level {
    fn new(names: Names) -> Level {
        let [(cpu, cpu_help), (memory, memory_help), (swap, swap_help)] = names;
        Level {
            cpu: Family::new(cpu, Type::Counter, cpu_help),
            memory: Family::new(memory, Type::Gauge, memory_help),
            swap: Family::new(swap, Type::Gauge, swap_help),
        }
    }

    fn add(&mut self, labels: &[(&str, &str)], usage: &Usage, at: Stamp) {
        if let Some(cpu) = usage.cpu {
            self.cpu.add(labels, cpu.total_ns as f64 / NS, Some(at));
        }
        if let Some(memory) = usage.memory {
            let working_set = memory.working_set as f64;
            self.memory.add(labels, working_set, Some(at));
        }
        if let Some(swap) = usage.memory.and_then(|memory| memory.swap) {
            self.swap.add(labels, swap as f64, Some(at));
        }
    }
}

pub fn text(sample: &Sample) -> String {
    let at = sample.at;
    let (mut node, mut pods) = (Level::new(NODE), Level::new(POD));
    let mut containers = Level::new(CONTAINER);
    let mut started = Family::new("container_start_time_seconds", Type::Gauge, STARTED);
    let mut swap_limits = Family::new("container_swap_limit_bytes", Type::Gauge, SWAP_LIMIT);
    node.add(&[], &sample.node, at);
    for pod in &sample.pods {
        let labels = [("namespace", &*pod.namespace), ("pod", &*pod.name)];
        pods.add(&labels, &pod.usage, at);
        for container in &pod.containers {
            let labels = [labels[0], labels[1], ("container", &*container.name)];
            containers.add(&labels, &container.usage, at);
            started.add(&labels, seconds(container.started), None);
            let limit = |memory: Memory| memory.swap_limit;
            if let Some(limit) = container.usage.memory.and_then(limit) {
                swap_limits.add(&labels, limit as f64, Some(at));
            }
        }
    }
    let mut error = Family::new("resource_scrape_error", Type::Gauge, ERROR);
    error.add(&[], 0.0, None);
    let mut families = vec![started, swap_limits, error];
    for level in [node, pods, containers] {
        families.extend([level.cpu, level.memory, level.swap]);
    }
    render(families)
}

/// Since 1970, with milliseconds.
pub fn seconds(stamp: Stamp) -> f64 {
    stamp.wall.as_millisecond() as f64 / 1e3
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::apiserver::stats::testing;

    #[test]
    fn a_metrics_server_finds_its_names() {
        testing::golden("metrics-resource.txt", &text(&testing::sample()));
    }
}
