//! One sample that every rendering is tried on, and its golden files.

use std::time::Duration;

use crate::world::{
    BootTime, ContainerId, ContainerStats, Cpu, FileSystem, Interface, Io, Level, Limits, Medium,
    Memory, PodStats, Sample, Stamp, SystemStats, Tree, Uid, Usage, VolumeStats,
};

/// `UPDATE=1` rewrites the file.
pub fn golden(name: &str, text: &str) {
    let path = format!("{}/tests/golden/{name}", env!("CARGO_MANIFEST_DIR"));
    if std::env::var_os("UPDATE").is_some() {
        std::fs::write(&path, text).expect("golden file");
    }
    let wanted = std::fs::read_to_string(&path).expect("golden file; UPDATE=1 makes it");
    assert_eq!(text, wanted, "{name}; UPDATE=1 rewrites it");
}

fn stamp(seconds: i64) -> Stamp {
    Stamp {
        boot: BootTime::from_duration(Duration::from_secs(seconds.unsigned_abs())),
        wall: jiff::Timestamp::from_second(1_700_000_000 + seconds).expect("in range"),
    }
}

fn usage(scale: u64) -> Usage {
    Usage {
        cpu: Some(Cpu {
            total_ns: scale * 1_500_000_000,
            user_ns: scale * 1_000_000_000,
            system_ns: scale * 500_000_000,
            nano_cores: Some(scale * 1_000_000),
            periods: 10,
            throttled_periods: 3,
            throttled_ns: 250_000_000,
        }),
        memory: Some(Memory {
            usage: scale << 20,
            working_set: scale << 19,
            rss: scale << 18,
            cache: scale << 17,
            mapped_file: 4096,
            page_faults: 100 * scale,
            major_page_faults: scale,
            swap: Some(0),
            swap_limit: Some(1 << 20),
            oom_kills: Some(1),
        }),
        io: Some(Io {
            read_bytes: 4096 * scale,
            written_bytes: 8192 * scale,
            reads: scale,
            writes: 2 * scale,
        }),
        tasks: Some(scale),
        limits: Limits::default(),
    }
}

fn interface(name: &str) -> Interface {
    Interface {
        name: name.to_owned(),
        rx_bytes: 1000,
        rx_packets: 10,
        rx_errors: 1,
        rx_dropped: 2,
        tx_bytes: 2000,
        tx_packets: 20,
        tx_errors: 3,
        tx_dropped: 4,
    }
}

pub fn sample() -> Sample {
    let fs = FileSystem {
        device: 1,
        capacity_bytes: 1 << 30,
        available_bytes: 1 << 29,
        inodes: 1000,
        inodes_free: 600,
    };
    let limits = Limits {
        memory_bytes: Some(64 << 20),
        cpu_shares: Some(512),
        cpu_quota_us: Some(50_000),
        cpu_period_us: Some(100_000),
    };
    let tree = |bytes| Some(Tree { bytes, inodes: 2 });
    Sample {
        at: stamp(100),
        window: Duration::from_secs(10),
        node: usage(100),
        node_started: stamp(0),
        cpus: 4,
        memory_bytes: 1 << 30,
        memory_available_bytes: 1 << 28,
        network: vec![interface("eth0")],
        node_fs: Some(fs),
        image_fs: Some(fs),
        images_bytes: 1 << 20,
        processes: Some(Level {
            capacity: 32768,
            available: 32668,
        }),
        system: vec![SystemStats {
            name: "pods",
            usage: usage(10),
        }],
        pods: vec![PodStats {
            uid: Uid::new("7f3c").expect("a uid"),
            namespace: "default".to_owned(),
            name: "web".to_owned(),
            cgroup: "/kubepods/burstable/pod7f3c".to_owned(),
            started: stamp(20),
            usage: usage(5),
            network: vec![interface("eth0")],
            containers: vec![ContainerStats {
                name: "main".to_owned(),
                id: ContainerId("c0ffee".into()),
                image: "docker.io/library/busybox:1.36".to_owned(),
                cgroup: "/kubepods/burstable/pod7f3c/c0ffee".to_owned(),
                started: stamp(30),
                usage: Usage { limits, ..usage(4) },
                rootfs: tree(12288),
                logs: tree(4096),
            }],
            volumes: Some(vec![VolumeStats {
                name: "data".to_owned(),
                medium: Medium::Disk,
                tree: Tree {
                    bytes: 8192,
                    inodes: 2,
                },
            }]),
            ephemeral: tree(24576),
        }],
    }
}
