//! The seams: everything the node asks of the outside, as traits and plain data.
//!
//! The node loop (`kubelet`) and the sources reach clock, randomness, small files, network,
//! images, volumes, containers and figures only through the traits of this module. The real parts live in
//! `os`, `net` and `runtime`; the simulation has another set that *behaves* (containers that exit
//! or hang, links that drop, disks that lose unsynced writes) under one seed and a virtual clock.
//!
//! ```text
//!   kubelet ──► world::{Clock, Random, Disk, Net, Images, Volumes, Runtime} ◄── os, net, runtime
//!                                                                          ◄── simulation
//! ```
//!
//! Nothing here does anything: no I/O, no threads, no policy.

mod clock;
mod cluster;
mod disk;
pub mod figures;
mod images;
mod net;
mod reviews;
mod runtime;
mod stats;
mod tokens;
mod volumes;

use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;

pub use clock::{BootTime, Clock, Random, Stamp, build_time};
pub use cluster::{Call, Cluster, Knock, NoAnswer, NoWatch, Reply, Verb, Watch};
pub use disk::{Area, Disk, DiskError};
pub use images::{Credential, DiskUse, Image, ImageConfig, Images, PullError, PullRequest};
pub use net::{HttpAnswer, HttpCheck, Net, NetError, Scheme};
pub use reviews::Reviews;
pub use runtime::{
    Capabilities, CgroupResources, ContainerConfig, ContainerId, ContainerObserved, ContainerState,
    ContainerUser, Dns, ExecOutcome, ExecRequest, Exit, HostAlias, IdMapping, Mount, MountSource,
    NamespaceMode, Namespaces, PodCgroup, PodNetwork, PodObserved, PortMapping, ProcMount,
    Propagation, Protocol, QosClass, RemoveError, Resize, Runtime, RuntimeError, SandboxConfig,
    SandboxObserved, SandboxState, Seccomp, Security, TerminationMessagePolicy, Uid,
};
pub use stats::{
    ContainerStats, Cpu, Detail, FileSystem, Interface, Io, Level, Levels, Limits, Medium, Memory,
    PodStats, Sample, Stats, SystemStats, Tree, Usage, VolumeStats,
};
pub use tokens::{IssuedToken, NoToken, TokenRequest, TokenSource};
pub use volumes::{
    FileMedium, HostPathType, PodVolumes, ProjectedFile, VolumeContent, VolumeError, VolumeSetUp,
    Volumes,
};

/// A boxed future that stays on the thread that owns the node's state.
pub type LocalFuture<'a, T> = Pin<Box<dyn Future<Output = T> + 'a>>;

/// One set of outside parts. Cheap to clone; the whole node shares one.
#[derive(Clone)]
pub struct World {
    pub clock: Rc<dyn Clock>,
    pub random: Rc<dyn Random>,
    pub disk: Rc<dyn Disk>,
    pub net: Rc<dyn Net>,
    pub images: Rc<dyn Images>,
    pub volumes: Rc<dyn Volumes>,
    pub runtime: Rc<dyn Runtime>,
    pub stats: Rc<dyn Stats>,
}

impl World {
    /// Both clocks read together, for records that are shown (wall) and reckoned with (boot).
    pub fn stamp(&self) -> Stamp {
        Stamp {
            boot: self.clock.now(),
            wall: self.clock.wall(),
        }
    }
}
