//! `world::Stats`: how full the machine is said to be, and what each pod is said to use.

use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

use lowtide::world::{
    Detail, FileSystem, Level, Levels, LocalFuture, PodStats, Sample, SandboxState, Stamp, Stats,
    Tree, Usage,
};

use crate::host::{Host, boxed};

/// Bytes and inodes of the simulated disk.
const DISK: u64 = 1 << 30;

/// What a run says of the machine. Nothing said: half of everything is free.
#[derive(Default)]
pub struct Gauges {
    /// Bytes left on the disk.
    pub disk_available: Option<u64>,
    /// What a pod keeps on the disk, by name.
    pub pods: BTreeMap<String, u64>,
}

impl Gauges {
    fn file_system(&self) -> FileSystem {
        FileSystem {
            device: 1,
            capacity_bytes: DISK,
            available_bytes: self.disk_available.unwrap_or(DISK / 2),
            inodes: DISK,
            inodes_free: DISK / 2,
        }
    }
}

pub struct SimStats(pub Rc<Host>);

impl Stats for SimStats {
    fn memory_levels(&self) -> Levels {
        let level = Level {
            capacity: 1 << 30,
            available: 1 << 29,
        };
        Levels {
            memory: Some(level),
            processes: Some(level),
            ..Levels::default()
        }
    }

    fn disk_levels(&self) -> LocalFuture<'_, Levels> {
        boxed(async {
            let gauges = self.0.gauges.borrow();
            Levels {
                node_fs: Some(gauges.file_system()),
                image_fs: Some(gauges.file_system()),
                ..Levels::default()
            }
        })
    }

    fn sample(&self, _: Detail) -> LocalFuture<'_, Sample> {
        boxed(async { sample(&self.0) })
    }
}

fn sample(host: &Host) -> Sample {
    let (kernel, gauges) = (host.kernel.borrow(), host.gauges.borrow());
    let pods = kernel.pods.iter().filter_map(|(uid, pod)| {
        let sandbox = pod.sandbox.as_ref()?;
        (sandbox.state == SandboxState::Ready).then(|| PodStats {
            uid: uid.clone(),
            namespace: sandbox.config.namespace.clone(),
            name: sandbox.config.name.clone(),
            cgroup: String::new(),
            started: sandbox.created,
            usage: Usage::default(),
            network: Vec::new(),
            containers: Vec::new(),
            volumes: Some(Vec::new()),
            ephemeral: Some(Tree {
                bytes: gauges.pods.get(&sandbox.config.name).copied().unwrap_or(0),
                inodes: 1,
            }),
        })
    });
    Sample {
        at: host.stamp(),
        window: Duration::from_secs(10),
        node: Usage::default(),
        node_started: Stamp {
            boot: Default::default(),
            ..host.stamp()
        },
        cpus: 1,
        memory_bytes: 1 << 30,
        memory_available_bytes: 1 << 29,
        network: Vec::new(),
        node_fs: Some(gauges.file_system()),
        image_fs: Some(gauges.file_system()),
        images_bytes: 0,
        processes: None,
        system: Vec::new(),
        pods: pods.collect(),
    }
}
