//! What the node and its pods use: counters and levels as the kernel gives them.
//!
//! Plain data of one look. Rates are reckoned between two looks by whoever takes them; nothing is
//! ever measured while nobody asks. Absent figures are unknown here, never zero.

use std::time::Duration;

use super::LocalFuture;
use super::clock::Stamp;
use super::runtime::{ContainerId, Uid};

/// What one cgroup uses.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    pub cpu: Option<Cpu>,
    pub memory: Option<Memory>,
    pub io: Option<Io>,
    /// Processes and threads.
    pub tasks: Option<u64>,
    pub limits: Limits,
}

/// Processor time since the cgroup was made, in nanoseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cpu {
    pub total_ns: u64,
    pub user_ns: u64,
    pub system_ns: u64,
    /// Use between two looks: 10^9 is one processor.
    pub nano_cores: Option<u64>,
    /// Periods of a CFS quota, those in which it was used up, and the time waited for more.
    pub periods: u64,
    pub throttled_periods: u64,
    pub throttled_ns: u64,
}

/// Bytes, and counts of page faults.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Memory {
    pub usage: u64,
    /// Usage without what the kernel drops first: inactive file pages.
    pub working_set: u64,
    /// Anonymous pages.
    pub rss: u64,
    pub cache: u64,
    pub mapped_file: u64,
    pub page_faults: u64,
    pub major_page_faults: u64,
    pub swap: Option<u64>,
    pub swap_limit: Option<u64>,
    /// Kills for want of memory.
    pub oom_kills: Option<u64>,
}

/// Transfers to and from block devices.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Io {
    pub read_bytes: u64,
    pub written_bytes: u64,
    pub reads: u64,
    pub writes: u64,
}

/// `None`: not limited.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    pub memory_bytes: Option<u64>,
    pub cpu_shares: Option<u64>,
    pub cpu_quota_us: Option<u64>,
    pub cpu_period_us: Option<u64>,
}

/// Counters of one network interface (proc_pid_net(5), `dev`).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Interface {
    pub name: String,
    pub rx_bytes: u64,
    pub rx_packets: u64,
    pub rx_errors: u64,
    pub rx_dropped: u64,
    pub tx_bytes: u64,
    pub tx_packets: u64,
    pub tx_errors: u64,
    pub tx_dropped: u64,
}

/// A file system as a whole (statvfs(3)).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FileSystem {
    /// Distinguishes file systems of one moment.
    pub device: u64,
    pub capacity_bytes: u64,
    /// For writers without privileges.
    pub available_bytes: u64,
    pub inodes: u64,
    pub inodes_free: u64,
}

/// What lies below a directory: each file once, whatever its names.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tree {
    pub bytes: u64,
    pub inodes: u64,
}

/// Where a directory's content is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Medium {
    Disk,
    Memory,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VolumeStats {
    pub name: String,
    pub medium: Medium,
    pub tree: Tree,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ContainerStats {
    pub name: String,
    pub id: ContainerId,
    pub image: String,
    /// Within every hierarchy.
    pub cgroup: String,
    pub started: Stamp,
    pub usage: Usage,
    /// The writable layer and the logs, if they were measured.
    pub rootfs: Option<Tree>,
    pub logs: Option<Tree>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PodStats {
    pub uid: Uid,
    pub namespace: String,
    pub name: String,
    pub cgroup: String,
    pub started: Stamp,
    pub usage: Usage,
    /// Empty for the host's network.
    pub network: Vec<Interface>,
    /// Those that run.
    pub containers: Vec<ContainerStats>,
    /// emptyDir volumes, if they were measured.
    pub volumes: Option<Vec<VolumeStats>>,
    /// Layers and logs of every instance, ended ones too, and disk volumes; if measured.
    pub ephemeral: Option<Tree>,
}

/// A cgroup that is no pod's, under upstream's name for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SystemStats {
    /// `pods`, `kubelet`
    pub name: &'static str,
    pub usage: Usage,
}

/// One look at everything.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sample {
    pub at: Stamp,
    /// What `nano_cores` is reckoned over.
    pub window: Duration,
    pub node: Usage,
    pub node_started: Stamp,
    pub cpus: u64,
    pub memory_bytes: u64,
    /// `MemTotal` without the working set.
    pub memory_available_bytes: u64,
    pub network: Vec<Interface>,
    pub node_fs: Option<FileSystem>,
    pub image_fs: Option<FileSystem>,
    /// Bytes of images, unpacked.
    pub images_bytes: u64,
    pub processes: Option<Level>,
    pub system: Vec<SystemStats>,
    pub pods: Vec<PodStats>,
}

/// How much of something is left.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Level {
    pub capacity: u64,
    pub available: u64,
}

/// What pressure is judged by. `None`: cannot be read now; nobody is evicted for that.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Levels {
    pub memory: Option<Level>,
    pub processes: Option<Level>,
    pub node_fs: Option<FileSystem>,
    pub image_fs: Option<FileSystem>,
}

/// How far a look goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Detail {
    /// Counters of cgroups and interfaces.
    Counters,
    /// And directories as they were found last, if anew takes long: nothing is said of them before the
    /// first walk has ended.
    KnownTrees,
    /// And directories: a walk, done anew when the last is a minute old.
    Trees,
}

/// Asked, never asking: the real one is `runtime::stats`.
pub trait Stats {
    /// Memory and processes from two files of the kernel: never waits for a disk.
    fn memory_levels(&self) -> Levels;

    /// The file systems of ROOT and of the images.
    fn disk_levels(&self) -> LocalFuture<'_, Levels>;

    /// A look with rates. May take a second: the first one waits for something to compare with.
    fn sample(&self, detail: Detail) -> LocalFuture<'_, Sample>;
}
