//! Pod cgroups under upstream's names, on cgroup v1, v2 and hybrid hosts.
//!
//! ```text
//! <--cgroup-root>/kubepods ─┬─ pod<UID>              Guaranteed
//!                           ├─ burstable/pod<UID>    cpu shares: sum of its pods
//!                           └─ besteffort/pod<UID>   cpu shares: 2
//!                                     ├─ pause
//!                                     └─ <container id>      made by the OCI runtime
//! ```
//!
//! Made in every hierarchy that exists. Only cgroups of pods that the caller names are ever killed
//! or removed, and QoS directories that `made` has on record. Never moves a process: children join
//! by themselves (`join`), because a move by the parent waits for an RCU grace period.

mod figures;
mod hierarchy;
mod kill;
mod made;
mod usage;

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

pub use figures::cpu_weight;
pub use hierarchy::Version;
pub use usage::keyed;

use crate::os::spawn::CgroupJoin;
use crate::world::{CgroupResources, PodCgroup, QosClass, Uid};
use figures::{CPU_SHARES_MIN, Presence, Setting};
use hierarchy::{Hierarchy, named};

/// Directory of the pause process below its pod's: on v2 a cgroup with children holds none itself.
const PAUSE: &str = "pause";
/// `cpu.shares` of one CPU. Source: Kubernetes pkg/kubelet/cm, SharesPerCPU.
const SHARES_PER_CPU: u64 = 1024;

const QOS_CLASSES: [QosClass; 3] = [
    QosClass::Guaranteed,
    QosClass::Burstable,
    QosClass::BestEffort,
];

/// How limits reach the kernel here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Layout {
    V1,
    V2,
    /// v1 controllers, with a unified tree beside them.
    Hybrid,
}

/// The host's cgroups. Shared by threads; methods block for file system calls of a millisecond.
pub struct Cgroups {
    hierarchies: Vec<Hierarchy>,
    /// `/…/kubepods`
    kubepods: String,
    /// CPU shares of the running burstable pods.
    burstable: Mutex<BTreeMap<Uid, u64>>,
}

impl Cgroups {
    /// Finds the hierarchies by this process's mounts. `root`: `--cgroup-root`.
    /// Errors: no cgroup file system is mounted.
    pub fn detect(root: &str) -> io::Result<Cgroups> {
        let text = fs::read_to_string("/proc/self/mountinfo")?;
        let mut hierarchies = hierarchy::parse_mountinfo(&text);
        if hierarchies.is_empty() {
            let text = "no cgroup hierarchy is mounted: mount cgroup2 on /sys/fs/cgroup";
            return Err(io::Error::new(io::ErrorKind::NotFound, text));
        }
        for unified in &mut hierarchies {
            if unified.version == Version::V2 {
                let file = unified.mount.join("cgroup.controllers");
                let offered = fs::read_to_string(&file).map_err(|e| named("read", &file, &e))?;
                unified.controllers = offered.split_whitespace().map(str::to_owned).collect();
            }
        }
        let root = root.trim_matches('/');
        let kubepods = match root {
            "" => "/kubepods".to_string(),
            _ => format!("/{root}/kubepods"),
        };
        Ok(Cgroups {
            hierarchies,
            kubepods,
            burstable: Mutex::new(BTreeMap::new()),
        })
    }

    pub fn layout(&self) -> Layout {
        let has = |version| self.hierarchies.iter().any(|h| h.version == version);
        match (has(Version::V1), has(Version::V2)) {
            (true, true) => Layout::Hybrid,
            (true, false) => Layout::V1,
            (false, _) => Layout::V2,
        }
    }

    /// Whether limits of this controller can be set (`memory` is off by default on some boards).
    pub fn has(&self, controller: &str) -> bool {
        self.hierarchies.iter().any(|h| h.has(controller))
    }

    /// What every pod is in, within every hierarchy.
    pub fn all_pods(&self) -> &str {
        &self.kubepods
    }

    /// The pod's path within every hierarchy.
    pub fn pod_path(&self, qos: QosClass, uid: &Uid) -> String {
        match qos {
            QosClass::Guaranteed => format!("{}/pod{uid}", self.kubepods),
            QosClass::Burstable => format!("{}/burstable/pod{uid}", self.kubepods),
            QosClass::BestEffort => format!("{}/besteffort/pod{uid}", self.kubepods),
        }
    }

    /// Path of the pod's pause process.
    pub fn pause_path(&self, qos: QosClass, uid: &Uid) -> String {
        format!("{}/{PAUSE}", self.pod_path(qos, uid))
    }

    /// Makes the QoS directories with their shares. Once per start of the agent. What was not there
    /// is noted in the file `record` first, for `remove_qos`.
    pub fn make_qos(&self, record: &Path) -> io::Result<()> {
        let classes = ["besteffort", "burstable"];
        let paths = classes.map(|class| format!("{}/{class}", self.kubepods));
        let directories = paths.iter().flat_map(|path| {
            let hierarchies = self.hierarchies.iter();
            hierarchies.map(move |hierarchy| hierarchy.directory(path))
        });
        made::note(record, &directories.collect::<Vec<_>>())?;
        let cpus = std::thread::available_parallelism().map_or(1, |n| n.get() as u64);
        self.make(&self.kubepods, &shares(cpus * SHARES_PER_CPU))?;
        let besteffort = format!("{}/besteffort", self.kubepods);
        self.make(&besteffort, &shares(CPU_SHARES_MIN))?;
        self.write_burstable_shares()
    }

    /// Removes the directories that `make_qos` of this node made, once all its pods are gone. Those
    /// that others use by now are left.
    pub fn remove_qos(&self, record: &Path) -> io::Result<()> {
        made::remove(record)
    }

    /// Whether swap can be limited: the kernel may lack it or not count it (`swapaccount`). The
    /// root of a hierarchy has no such file on v2, so kubepods is asked: after `make_qos`.
    pub fn limits_swap(&self) -> bool {
        let Some(memory) = self.hierarchies.iter().find(|h| h.has("memory")) else {
            return false;
        };
        let file = match memory.version {
            Version::V1 => "memory.memsw.limit_in_bytes",
            Version::V2 => "memory.swap.max",
        };
        memory.directory(&self.kubepods).join(file).exists()
    }

    /// Makes the pod's cgroup with its limits, and pause's below it. Existing ones are kept.
    pub fn make_pod(&self, uid: &Uid, pod: &PodCgroup) -> io::Result<()> {
        self.make(&self.pod_path(pod.qos, uid), &pod.resources)?;
        self.make(&self.pause_path(pod.qos, uid), &CgroupResources::default())?;
        self.note_pod(uid, pod)
    }

    /// Counts a running pod in its QoS class's shares, for `make_pod` and for adopted pods.
    pub fn note_pod(&self, uid: &Uid, pod: &PodCgroup) -> io::Result<()> {
        if pod.qos != QosClass::Burstable {
            return Ok(());
        }
        let shares = pod.resources.cpu_shares.unwrap_or(CPU_SHARES_MIN);
        let before = self.burstable().insert(uid.clone(), shares);
        match before == Some(shares) {
            true => Ok(()),
            false => self.write_burstable_shares(),
        }
    }

    /// How a new process enters `path` in every hierarchy.
    pub fn join(&self, path: &str) -> CgroupJoin {
        let directories = |version| {
            let of_version = self
                .hierarchies
                .iter()
                .filter(move |h| h.version == version);
            of_version.map(|hierarchy| hierarchy.directory(path))
        };
        CgroupJoin {
            v1: directories(Version::V1).collect(),
            v2: directories(Version::V2).next(),
        }
    }

    /// Sends SIGKILL to every process in `path` and below; returns before they are gone.
    /// Success if there is no such cgroup.
    pub fn kill(&self, path: &str) -> io::Result<()> {
        kill::everything(&self.hierarchies, path)
    }

    /// The file that counts processes of `path` killed for want of memory, if anything counts.
    pub fn oom_events(&self, path: &str) -> Option<PathBuf> {
        let memory = self.hierarchies.iter().find(|h| h.has("memory"))?;
        let file = match memory.version {
            Version::V1 => "memory.oom_control",
            Version::V2 => "memory.events",
        };
        Some(memory.directory(path).join(file))
    }

    /// Whether any process is left in `path` or below, in any hierarchy.
    pub fn is_populated(&self, path: &str) -> io::Result<bool> {
        for hierarchy in &self.hierarchies {
            if !hierarchy.processes(path)?.is_empty() {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// The same for a pod, whichever QoS class it had.
    pub fn is_pod_populated(&self, uid: &Uid) -> io::Result<bool> {
        for qos in QOS_CLASSES {
            if self.is_populated(&self.pod_path(qos, uid))? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Removes `path` and all below it in every hierarchy; success if there is none.
    /// Errors: `ResourceBusy` while processes die; the others' removal was tried all the same.
    pub fn remove(&self, path: &str) -> io::Result<()> {
        let mut outcome = Ok(());
        for hierarchy in &self.hierarchies {
            outcome = outcome.and(hierarchy.remove(path));
        }
        outcome
    }

    /// Removes the pod's cgroup, whichever QoS class it had.
    pub fn remove_pod(&self, uid: &Uid) -> io::Result<()> {
        let mut outcome = Ok(());
        for qos in QOS_CLASSES {
            outcome = outcome.and(self.remove(&self.pod_path(qos, uid)));
        }
        let counted = self.burstable().remove(uid).is_some();
        match counted {
            true => outcome.and(self.write_burstable_shares()),
            false => outcome,
        }
    }

    fn write_burstable_shares(&self) -> io::Result<()> {
        let sum = self.burstable().values().sum::<u64>().max(CPU_SHARES_MIN);
        self.make(&format!("{}/burstable", self.kubepods), &shares(sum))
    }

    fn make(&self, path: &str, resources: &CgroupResources) -> io::Result<()> {
        for hierarchy in &self.hierarchies {
            hierarchy.make(path)?;
        }
        self.limit(path, resources)
    }

    /// Gives a cgroup that is there other limits. An absent figure stays as it was.
    pub fn limit(&self, path: &str, resources: &CgroupResources) -> io::Result<()> {
        for hierarchy in &self.hierarchies {
            let settings = match hierarchy.version {
                Version::V1 => figures::v1(resources),
                Version::V2 => figures::v2(resources),
            };
            let here = settings.iter().filter(|s| hierarchy.has(s.controller));
            let file = |setting: &Setting| hierarchy.directory(path).join(setting.file);
            // Memory with and without swap bound each other on v1: which can be written first
            // depends on which way they go.
            let refused = here.filter(|s| fs::write(file(s), &s.value).is_err());
            for setting in refused.collect::<Vec<_>>() {
                let file = file(setting);
                match fs::write(&file, &setting.value) {
                    Err(_) if setting.presence == Presence::Optional => {}
                    outcome => outcome.map_err(|error| named("write", &file, &error))?,
                }
            }
        }
        Ok(())
    }

    fn burstable(&self) -> std::sync::MutexGuard<'_, BTreeMap<Uid, u64>> {
        self.burstable
            .lock()
            .expect("nobody panics while holding it")
    }
}

fn shares(cpu_shares: u64) -> CgroupResources {
    CgroupResources {
        cpu_shares: Some(cpu_shares),
        ..CgroupResources::default()
    }
}
