//! `/stats/summary`. Pure.
//!
//! Source: Kubernetes staging/src/k8s.io/kubelet/pkg/apis/stats/v1alpha1/types.go.

use serde_json::{Map, Value, json};

use crate::world::{
    ContainerStats, FileSystem, Interface, PodStats, Sample, Stamp, SystemStats, Tree, Usage,
    VolumeStats,
};

/// How much of it is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    All,
    /// `only_cpu_and_memory=true`
    CpuAndMemory,
}

pub fn summary(sample: &Sample, node_name: &str, scope: Scope) -> Value {
    let at = sample.at;
    let system = sample.system.iter().map(|one| system(one, sample));
    let mut node = json!({
        "nodeName": node_name,
        "systemContainers": system.collect::<Value>(),
        "startTime": time(sample.node_started),
    });
    put_usage(
        &mut node,
        &sample.node,
        at,
        Some(sample.memory_available_bytes),
    );
    let pods = sample.pods.iter().map(|pod| self::pod(pod, sample, scope));
    let pods: Value = pods.collect();
    if scope == Scope::All {
        put(&mut node, "network", network(&sample.network, at));
        let node_fs = sample.node_fs.map(|fs| file_system(&fs, used(&fs), at));
        put(&mut node, "fs", node_fs);
        if let Some(fs) = &sample.image_fs {
            let images = Tree {
                bytes: sample.images_bytes,
                inodes: fs.inodes.saturating_sub(fs.inodes_free),
            };
            node["runtime"] = json!({
                "imageFs": file_system(fs, images, at),
                "containerFs": sample.node_fs.map(|fs| file_system(&fs, used(&fs), at)),
            });
        }
        if let Some(level) = sample.processes {
            let running = level.capacity.saturating_sub(level.available);
            node["rlimit"] = json!({
                "time": time(at), "maxpid": level.capacity, "curproc": running,
            });
        }
    }
    json!({"node": node, "pods": pods})
}

fn system(one: &SystemStats, sample: &Sample) -> Value {
    let mut value = json!({"name": one.name, "startTime": time(sample.node_started)});
    put_usage(&mut value, &one.usage, sample.at, None);
    value
}

fn pod(pod: &PodStats, sample: &Sample, scope: Scope) -> Value {
    let at = sample.at;
    let containers = pod.containers.iter();
    let containers: Value = containers
        .map(|one| container(one, sample, scope))
        .collect();
    let mut value = json!({
        "podRef": {"name": pod.name, "namespace": pod.namespace, "uid": pod.uid.as_str()},
        "startTime": time(pod.started),
        "containers": containers,
    });
    put_usage(&mut value, &pod.usage, at, None);
    if scope == Scope::All {
        put(&mut value, "network", network(&pod.network, at));
        if let (Some(volumes), Some(fs)) = (&pod.volumes, &sample.node_fs) {
            let volumes = volumes.iter().map(|one| volume(one, fs, at));
            value["volume"] = volumes.collect();
        }
        let ephemeral = pod.ephemeral.zip(sample.node_fs);
        let ephemeral = ephemeral.map(|(tree, fs)| file_system(&fs, tree, at));
        put(&mut value, "ephemeral-storage", ephemeral);
        if let Some(tasks) = pod.usage.tasks {
            value["process_stats"] = json!({"process_count": tasks});
        }
    }
    value
}

fn container(one: &ContainerStats, sample: &Sample, scope: Scope) -> Value {
    let mut value = json!({"name": one.name, "startTime": time(one.started)});
    put_usage(&mut value, &one.usage, sample.at, None);
    if scope == Scope::All
        && let Some(fs) = &sample.node_fs
    {
        let tree = |tree: Option<Tree>| Some(file_system(fs, tree?, sample.at));
        put(&mut value, "rootfs", tree(one.rootfs));
        put(&mut value, "logs", tree(one.logs));
    }
    value
}

fn volume(one: &VolumeStats, fs: &FileSystem, at: Stamp) -> Value {
    let mut value = file_system(fs, one.tree, at);
    value["name"] = one.name.as_str().into();
    value
}

/// `available`: what the machine as a whole has left; a cgroup has what its limit leaves.
fn put_usage(value: &mut Value, usage: &Usage, at: Stamp, available: Option<u64>) {
    if let Some(cpu) = usage.cpu {
        let mut found = json!({"time": time(at), "usageCoreNanoSeconds": cpu.total_ns});
        put(
            &mut found,
            "usageNanoCores",
            cpu.nano_cores.map(Value::from),
        );
        value["cpu"] = found;
    }
    let Some(memory) = usage.memory else {
        return;
    };
    let of_limit = usage
        .limits
        .memory_bytes
        .map(|limit| limit.saturating_sub(memory.working_set));
    let mut found = json!({
        "time": time(at),
        "usageBytes": memory.usage,
        "workingSetBytes": memory.working_set,
        "rssBytes": memory.rss,
        "pageFaults": memory.page_faults,
        "majorPageFaults": memory.major_page_faults,
    });
    put(
        &mut found,
        "availableBytes",
        available.or(of_limit).map(Value::from),
    );
    value["memory"] = found;
    if let Some(used) = memory.swap {
        let mut swap = json!({"time": time(at), "swapUsageBytes": used});
        let left = memory.swap_limit.map(|limit| limit.saturating_sub(used));
        put(&mut swap, "swapAvailableBytes", left.map(Value::from));
        value["swap"] = swap;
    }
}

/// The first interface is the default one: a pod has no other.
fn network(interfaces: &[Interface], at: Stamp) -> Option<Value> {
    let all: Vec<Value> = interfaces.iter().map(interface).collect();
    let mut value = all.first()?.clone();
    value["time"] = time(at);
    value["interfaces"] = all.into();
    Some(value)
}

fn interface(one: &Interface) -> Value {
    json!({
        "name": one.name,
        "rxBytes": one.rx_bytes,
        "rxErrors": one.rx_errors,
        "txBytes": one.tx_bytes,
        "txErrors": one.tx_errors,
    })
}

fn used(fs: &FileSystem) -> Tree {
    Tree {
        bytes: fs.capacity_bytes.saturating_sub(fs.available_bytes),
        inodes: fs.inodes.saturating_sub(fs.inodes_free),
    }
}

fn file_system(fs: &FileSystem, used: Tree, at: Stamp) -> Value {
    json!({
        "time": time(at),
        "availableBytes": fs.available_bytes,
        "capacityBytes": fs.capacity_bytes,
        "usedBytes": used.bytes,
        "inodesFree": fs.inodes_free,
        "inodes": fs.inodes,
        "inodesUsed": used.inodes,
    })
}

fn put(value: &mut Value, name: &str, found: Option<Value>) {
    if let Some(found) = found {
        let fields: &mut Map<_, _> = value.as_object_mut().expect("made as an object above");
        fields.insert(name.to_owned(), found);
    }
}

/// RFC 3339 with whole seconds, UTC.
pub fn time(stamp: Stamp) -> Value {
    let seconds = jiff::Timestamp::from_second(stamp.wall.as_second());
    seconds.map_or(Value::Null, |time| time.to_string().into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::apiserver::stats::testing;

    #[test]
    fn a_summary_has_upstreams_shape() {
        let sample = testing::sample();
        let all = summary(&sample, "node1", Scope::All);
        let text = serde_json::to_string_pretty(&all).unwrap() + "\n";
        testing::golden("stats-summary.json", &text);
        let less = summary(&sample, "node1", Scope::CpuAndMemory);
        assert_eq!(less["node"]["fs"], Value::Null);
        assert_eq!(less["pods"][0]["cpu"], all["pods"][0]["cpu"]);
        assert_eq!(less["pods"][0]["network"], Value::Null);
    }
}
