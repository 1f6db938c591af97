//! `/metrics/cadvisor`: what dashboards of containers are made for. Pure.
//!
//! One series for the machine (`id="/"`), one for each pod's cgroup, one for each container.
//! Source: google/cadvisor metrics/prometheus.go; Kubernetes pkg/kubelet/server (labels).

use super::exposition::{Family, Type, render};
use super::resource::seconds;
use crate::world::{ContainerStats, Interface, PodStats, Sample, Stamp, Tree, Usage};

const NS: f64 = 1e9;

/// Name, type, help, and the value if it is known.
type Row = (&'static str, Type, &'static str, fn(&Usage) -> Option<f64>);
type NetworkRow = (&'static str, &'static str, fn(&Interface) -> u64);

use Type::{Counter, Gauge};

#[rustfmt::skip]
const ROWS: &[Row] = &[
    ("container_cpu_user_seconds_total", Counter, "Cumulative user cpu time consumed in seconds.",
     |u| Some(u.cpu?.user_ns as f64 / NS)),
    ("container_cpu_system_seconds_total", Counter, "Cumulative system cpu time consumed in seconds.",
     |u| Some(u.cpu?.system_ns as f64 / NS)),
    ("container_cpu_cfs_periods_total", Counter, "Number of elapsed enforcement period intervals.",
     |u| u.limits.cpu_quota_us.and(Some(u.cpu?.periods as f64))),
    ("container_cpu_cfs_throttled_periods_total", Counter, "Number of throttled period intervals.",
     |u| u.limits.cpu_quota_us.and(Some(u.cpu?.throttled_periods as f64))),
    ("container_cpu_cfs_throttled_seconds_total", Counter,
     "Total time duration the container has been throttled.",
     |u| u.limits.cpu_quota_us.and(Some(u.cpu?.throttled_ns as f64 / NS))),
    ("container_memory_usage_bytes", Gauge,
     "Current memory usage in bytes, including all memory regardless of when it was accessed",
     |u| Some(u.memory?.usage as f64)),
    ("container_memory_working_set_bytes", Gauge, "Current working set in bytes.",
     |u| Some(u.memory?.working_set as f64)),
    ("container_memory_rss", Gauge, "Size of RSS in bytes.", |u| Some(u.memory?.rss as f64)),
    ("container_memory_cache", Gauge, "Number of bytes of page cache memory.",
     |u| Some(u.memory?.cache as f64)),
    ("container_memory_mapped_file", Gauge, "Size of memory mapped files in bytes.",
     |u| Some(u.memory?.mapped_file as f64)),
    ("container_memory_swap", Gauge, "Container swap usage in bytes.",
     |u| Some(u.memory?.swap? as f64)),
    ("container_oom_events_total", Counter, "Count of out of memory events observed for the container",
     |u| Some(u.memory?.oom_kills? as f64)),
    ("container_threads", Gauge, "Number of threads running inside the container",
     |u| Some(u.tasks? as f64)),
    ("container_fs_reads_bytes_total", Counter, "Cumulative count of bytes read",
     |u| Some(u.io?.read_bytes as f64)),
    ("container_fs_writes_bytes_total", Counter, "Cumulative count of bytes written",
     |u| Some(u.io?.written_bytes as f64)),
    ("container_fs_reads_total", Counter, "Cumulative count of reads completed",
     |u| Some(u.io?.reads as f64)),
    ("container_fs_writes_total", Counter, "Cumulative count of writes completed",
     |u| Some(u.io?.writes as f64)),
    ("container_spec_cpu_period", Gauge, "CPU period of the container.",
     |u| Some(u.limits.cpu_period_us? as f64)),
    ("container_spec_cpu_quota", Gauge, "CPU quota of the container.",
     |u| Some(u.limits.cpu_quota_us? as f64)),
    ("container_spec_cpu_shares", Gauge, "CPU share of the container.",
     |u| Some(u.limits.cpu_shares? as f64)),
    ("container_spec_memory_limit_bytes", Gauge, "Memory limit for the container.",
     |u| Some(u.limits.memory_bytes.unwrap_or(0) as f64)),
];

#[rustfmt::skip]
const NETWORK: &[NetworkRow] = &[
    ("container_network_receive_bytes_total", "Cumulative count of bytes received", |i| i.rx_bytes),
    ("container_network_receive_packets_total", "Cumulative count of packets received",
     |i| i.rx_packets),
    ("container_network_receive_packets_dropped_total",
     "Cumulative count of packets dropped while receiving", |i| i.rx_dropped),
    ("container_network_receive_errors_total",
     "Cumulative count of errors encountered while receiving", |i| i.rx_errors),
    ("container_network_transmit_bytes_total", "Cumulative count of bytes transmitted",
     |i| i.tx_bytes),
    ("container_network_transmit_packets_total", "Cumulative count of packets transmitted",
     |i| i.tx_packets),
    ("container_network_transmit_packets_dropped_total",
     "Cumulative count of packets dropped while transmitting", |i| i.tx_dropped),
    ("container_network_transmit_errors_total",
     "Cumulative count of errors encountered while transmitting", |i| i.tx_errors),
];

/// Whose figures one series are.
struct Subject<'a> {
    labels: [(&'a str, &'a str); 6],
    usage: &'a Usage,
    network: &'a [Interface],
    started: Stamp,
    disk: Option<Tree>,
}

pub fn text(sample: &Sample) -> String {
    let mut subjects = vec![Subject {
        labels: labels("/", "", "", None, ""),
        usage: &sample.node,
        network: &sample.network,
        started: sample.node_started,
        disk: None,
    }];
    for pod in &sample.pods {
        subjects.push(Subject {
            labels: labels(&pod.cgroup, "", "", Some(pod), ""),
            usage: &pod.usage,
            network: &pod.network,
            started: pod.started,
            disk: None,
        });
        subjects.extend(pod.containers.iter().map(|one| of_container(pod, one)));
    }
    let mut families = vec![cpu(&subjects, sample), last_seen(&subjects, sample)];
    families.extend(ROWS.iter().map(|row| of_usage(row, &subjects, sample)));
    families.extend(NETWORK.iter().map(|row| of_network(row, &subjects, sample)));
    families.extend([start_times(&subjects, sample), disk(&subjects, sample)]);
    families.extend(machine(sample));
    render(families)
}

fn labels<'a>(
    cgroup: &'a str,
    id: &'a str,
    image: &'a str,
    pod: Option<&'a PodStats>,
    container: &'a str,
) -> [(&'a str, &'a str); 6] {
    [
        ("container", container),
        ("id", cgroup),
        ("image", image),
        ("name", id),
        ("namespace", pod.map_or("", |pod| &pod.namespace)),
        ("pod", pod.map_or("", |pod| &pod.name)),
    ]
}

fn of_container<'a>(pod: &'a PodStats, container: &'a ContainerStats) -> Subject<'a> {
    let (id, image) = (&*container.id.0, &*container.image);
    Subject {
        labels: labels(&container.cgroup, id, image, Some(pod), &container.name),
        usage: &container.usage,
        network: &[],
        started: container.started,
        disk: container.rootfs,
    }
}

fn of_usage(row: &Row, subjects: &[Subject<'_>], sample: &Sample) -> Family {
    let (name, kind, help, value) = *row;
    let mut family = Family::new(name, kind, help);
    // Block devices are summed: no label tells them apart.
    let device = name.starts_with("container_fs_").then_some(("device", ""));
    for subject in subjects {
        if let Some(value) = value(subject.usage) {
            let labels: Vec<_> = subject.labels.into_iter().chain(device).collect();
            family.add(&labels, value, Some(sample.at));
        }
    }
    family
}

fn of_network(row: &NetworkRow, subjects: &[Subject<'_>], sample: &Sample) -> Family {
    let (name, help, value) = *row;
    let mut family = Family::new(name, Counter, help);
    for subject in subjects {
        for interface in subject.network {
            let one = ("interface", &*interface.name);
            let labels: Vec<_> = subject.labels.into_iter().chain([one]).collect();
            family.add(&labels, value(interface) as f64, Some(sample.at));
        }
    }
    family
}

fn cpu(subjects: &[Subject<'_>], sample: &Sample) -> Family {
    let help = "Cumulative cpu time consumed in seconds.";
    let mut family = Family::new("container_cpu_usage_seconds_total", Counter, help);
    for subject in subjects {
        if let Some(cpu) = subject.usage.cpu {
            let all = ("cpu", "total");
            let labels: Vec<_> = subject.labels.into_iter().chain([all]).collect();
            family.add(&labels, cpu.total_ns as f64 / NS, Some(sample.at));
        }
    }
    family
}

fn last_seen(subjects: &[Subject<'_>], sample: &Sample) -> Family {
    let help = "Last time a container was seen by the exporter";
    let mut family = Family::new("container_last_seen", Gauge, help);
    for subject in subjects {
        let seen = sample.at.wall.as_second() as f64;
        family.add(&subject.labels, seen, Some(sample.at));
    }
    family
}

fn start_times(subjects: &[Subject<'_>], sample: &Sample) -> Family {
    let help = "Start time of the container since unix epoch in seconds.";
    let mut family = Family::new("container_start_time_seconds", Gauge, help);
    for subject in subjects {
        let started = seconds(subject.started).floor();
        family.add(&subject.labels, started, Some(sample.at));
    }
    family
}

fn disk(subjects: &[Subject<'_>], sample: &Sample) -> Family {
    let help = "Number of bytes that are consumed by the container on this filesystem.";
    let mut family = Family::new("container_fs_usage_bytes", Gauge, help);
    for subject in subjects {
        if let Some(tree) = subject.disk {
            let device = ("device", "");
            let labels: Vec<_> = subject.labels.into_iter().chain([device]).collect();
            family.add(&labels, tree.bytes as f64, Some(sample.at));
        }
    }
    family
}

fn machine(sample: &Sample) -> [Family; 2] {
    let mut cores = Family::new("machine_cpu_cores", Gauge, "Number of logical CPU cores.");
    cores.add(&[], sample.cpus as f64, Some(sample.at));
    let help = "Amount of memory installed on the machine.";
    let mut memory = Family::new("machine_memory_bytes", Gauge, help);
    memory.add(&[], sample.memory_bytes as f64, Some(sample.at));
    [cores, memory]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::apiserver::stats::testing;

    #[test]
    fn dashboards_find_their_names_and_labels() {
        testing::golden("metrics-cadvisor.txt", &text(&testing::sample()));
    }
}
