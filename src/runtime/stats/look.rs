//! One look: reads the counters of everything that runs. Blocking, from files in memory only.

use std::fs;

use super::procfs;
use super::subjects::{PodSubject, Subject};
use crate::os::clock;
use crate::runtime::cgroup::Cgroups;
use crate::world::{
    BootTime, ContainerStats, Level, Levels, PodStats, Sample, Stamp, SystemStats, Usage,
};

/// Counters now. Rates, directories and file systems are filled in by others.
pub fn look(cgroups: &Cgroups, subjects: Vec<PodSubject>) -> Sample {
    let meminfo = text("/proc/meminfo");
    let level = procfs::memory_level(&meminfo).unwrap_or_default();
    let at = clock::stamp();
    let mut node = cgroups.usage("/");
    node.memory = procfs::node_memory(&meminfo, &text("/proc/vmstat"));
    node.limits.memory_bytes = None;
    let cpus = std::thread::available_parallelism().map_or(1, |n| n.get() as u64);
    Sample {
        at,
        window: std::time::Duration::ZERO,
        node,
        node_started: started_of_boot(at),
        cpus,
        memory_bytes: level.capacity,
        memory_available_bytes: level.available,
        network: procfs::interfaces(&text("/proc/net/dev")),
        node_fs: None,
        image_fs: None,
        images_bytes: 0,
        processes: processes(),
        system: vec![
            SystemStats {
                name: "pods",
                usage: cgroups.usage(cgroups.all_pods()),
            },
            SystemStats {
                name: "kubelet",
                usage: this_process(),
            },
        ],
        pods: subjects
            .into_iter()
            .map(|pod| pod_stats(cgroups, pod))
            .collect(),
    }
}

/// Memory and processes alone.
pub fn levels() -> Levels {
    Levels {
        memory: procfs::memory_level(&text("/proc/meminfo")),
        processes: processes(),
        ..Levels::default()
    }
}

fn processes() -> Option<Level> {
    procfs::processes(
        &text("/proc/loadavg"),
        &text("/proc/sys/kernel/pid_max"),
        &text("/proc/sys/kernel/threads-max"),
    )
}

/// The agent alone: shims and pauses are in their pods' figures.
pub fn this_process() -> Usage {
    Usage {
        cpu: procfs::process_cpu(&text("/proc/self/stat")),
        memory: procfs::process_memory(&text("/proc/self/status")),
        ..Usage::default()
    }
}

fn started_of_boot(at: Stamp) -> Stamp {
    let uptime = jiff::SignedDuration::try_from(at.boot.as_duration()).unwrap_or_default();
    Stamp {
        boot: BootTime::default(),
        wall: at.wall.checked_sub(uptime).unwrap_or(at.wall),
    }
}

fn pod_stats(cgroups: &Cgroups, pod: PodSubject) -> PodStats {
    let network = pod.pause.and_then(|pause| {
        let text = fs::read_to_string(format!("/proc/{}/net/dev", pause.pid)).ok()?;
        // Read before asked: a reused pid is not ours.
        pause.is_alive().then(|| procfs::interfaces(&text))
    });
    PodStats {
        usage: cgroups.usage(&pod.cgroup),
        network: network.unwrap_or_default(),
        containers: pod
            .containers
            .into_iter()
            .map(|c| container_stats(cgroups, c))
            .collect(),
        volumes: None,
        ephemeral: None,
        uid: pod.uid,
        namespace: pod.namespace,
        name: pod.name,
        cgroup: pod.cgroup,
        started: pod.started,
    }
}

fn container_stats(cgroups: &Cgroups, container: Subject) -> ContainerStats {
    ContainerStats {
        usage: cgroups.usage(&container.cgroup),
        name: container.name,
        id: container.id,
        image: container.image,
        cgroup: container.cgroup,
        started: container.started,
        rootfs: None,
        logs: None,
    }
}

fn text(path: &str) -> String {
    fs::read_to_string(path).unwrap_or_default()
}
