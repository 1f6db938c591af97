//! `world::Stats`: how full the machine is said to be, and what each pod is said to use.

use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

use lowtide::world::{
    Detail, FileSystem, Level, Levels, LocalFuture, PodStats, Sample, SandboxState, Stamp, Stats,
    Tree, Usage,
};

use crate::host::{Host, boxed};
use crate::spec::Desired;

/// Bytes and inodes of the simulated disk.
const DISK: u64 = 1 << 30;

/// What a run says of the machine. Nothing said: half of everything is free.
#[derive(Default)]
pub struct Gauges {
    /// Bytes left on the disk.
    pub disk_available: Option<u64>,
    /// Bytes of memory left.
    pub memory_available: Option<u64>,
    /// What a pod keeps on the disk, by name.
    pub pods: BTreeMap<String, u64>,
}

impl Gauges {
    /// Whether the node is short of disk or memory, so that a pod that is not static may have to go.
    pub fn may_evict(&self, pod: Option<&Desired>) -> bool {
        let disk = self.disk_available.is_some_and(|left| left < DISK / 10);
        let memory = self.memory_available == Some(0);
        (disk || memory) && pod.is_some_and(|pod| !pod.is_static)
    }

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
        let left = self.0.gauges.borrow().memory_available;
        let memory = Level {
            available: left.unwrap_or(level.available),
            ..level
        };
        Levels {
            memory: Some(memory),
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
