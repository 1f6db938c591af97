//! From a container's configuration to the `config.json` that an OCI runtime reads. Pure.
//!
//! ```text
//!  ContainerConfig ─┐
//!  SandboxConfig  ──┤                       ┌─► config.json (OCI runtime-spec 1.0.2)
//!  ImageConfig    ──┼─► BundleInput ─► oci_config
//!  HostFacts      ──┤                       └─► BundleError: what the pod or image must change
//!  resolved mounts ─┘
//! ```
//!
//! Everything that needs the disk (users in the image, mount sources, the seccomp file) is read
//! before and handed in. What a runtime would reject with a text of its own is rejected here, by
//! the name of the field. Never: I/O, sysctls (pause applies those of the pod), volumes that an
//! image declares (`VOLUME` would copy files of the image out of the root; Kubernetes has no place
//! for them, and containerd's copying was CVE-2022-23648).

mod capabilities;
mod devices;
mod mounts;
mod process;
pub mod rootfs;
mod seccomp;
mod seccomp_table;
mod spec;
mod user;

use std::fmt;
use std::path::PathBuf;

use crate::world::{ContainerConfig, ImageConfig, Propagation, SandboxConfig};

pub use capabilities::CapabilitySet;
pub use spec::oci_config;
pub use user::{ResolvedUser, resolve_user};

/// Which control group hierarchy the OCI runtime sees.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CgroupVersion {
    /// Separate hierarchies, hybrid included.
    V1,
    /// The unified one.
    V2,
}

/// What the kernel's memory controller can hold. A Raspberry Pi's boots without one unless its
/// command line says `cgroup_enable=memory`, and v1 counts swap only with `swapaccount=1`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MemoryController {
    Absent,
    WithoutSwap,
    WithSwap,
}

/// Instruction set, for seccomp.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Architecture {
    X86_64,
    Aarch64,
    Arm,
}

impl Architecture {
    /// What this program was built for; others than the three run without the default profile.
    pub const NATIVE: Architecture = if cfg!(target_arch = "aarch64") {
        Architecture::Aarch64
    } else if cfg!(target_arch = "arm") {
        Architecture::Arm
    } else {
        Architecture::X86_64
    };
}

/// Whether the process that starts containers may go below the inherited `oom_score_adj`
/// (CAP_SYS_RESOURCE, proc(5)).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OomLowering {
    Allowed,
    Forbidden,
}

/// A device node of the host, for privileged containers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostDevice {
    /// Below `/dev`.
    pub path: String,
    pub kind: DeviceKind,
    pub major: u32,
    pub minor: u32,
    /// Permission bits.
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeviceKind {
    Char,
    Block,
}

/// What a bundle depends on of kernel and host. Read once at the start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostFacts {
    pub architecture: Architecture,
    pub cgroup: CgroupVersion,
    pub memory: MemoryController,
    /// Capabilities of the agent's bounding set: what a container can be given at most.
    pub capabilities: CapabilitySet,
    /// `oom_score_adj` that children of the shim inherit.
    pub oom_score_adj_inherited: i32,
    pub oom_lowering: OomLowering,
    /// Numbers of the CPUs that have `/sys/devices/system/cpu/cpuN/thermal_throttle`.
    pub throttling_cpus: Vec<u32>,
    /// Read when a privileged container is made; empty otherwise.
    pub devices: Vec<HostDevice>,
}

/// Where the pod's and the container's own files are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BundlePaths {
    /// The mounted root file system.
    pub rootfs: PathBuf,
    /// `None`: the image's own file shows.
    pub hosts: Option<PathBuf>,
    pub hostname: Option<PathBuf>,
    pub resolv_conf: Option<PathBuf>,
    /// The pod's tmpfs for `/dev/shm`, or the host's for hostIPC.
    pub shm: PathBuf,
    pub termination_log: Option<PathBuf>,
}

/// A mount of the pod whose source is known and safe to bind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ResolvedMount {
    pub source: PathBuf,
    pub container_path: String,
    pub access: Access,
    pub propagation: Propagation,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    ReadWrite,
    ReadOnly,
    /// Submounts too (mount_setattr(2), Linux 5.12).
    RecursiveReadOnly,
}

/// Everything that one `config.json` is made from.
#[derive(Clone, Copy, Debug)]
pub struct BundleInput<'a> {
    pub container: &'a ContainerConfig,
    pub sandbox: &'a SandboxConfig,
    pub image: &'a ImageConfig,
    pub user: &'a ResolvedUser,
    pub host: &'a HostFacts,
    pub paths: &'a BundlePaths,
    pub mounts: &'a [ResolvedMount],
    /// Process that holds the pod's namespaces, in the agent's own pid namespace.
    pub pause_pid: u32,
    /// The process whose pid namespace to join, if not as the sandbox says.
    pub target_pid: Option<u32>,
    /// Cgroup of the container, from the hierarchy's root: `/kubepods/burstable/pod<UID>/<id>`.
    pub cgroups_path: &'a str,
    /// Text of the Localhost profile, if the container names one.
    pub seccomp_file: Option<&'a str>,
}

/// A wish that the kernel would refuse and that was met as far as it goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OomClamped {
    pub wanted: i32,
    pub given: i32,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Bundle {
    /// `config.json`
    pub config: serde_json::Value,
    /// Set if `oom_score_adj` could not be lowered as far as the pod's class asks.
    pub clamped: Option<OomClamped>,
    /// A memory limit in bytes that this kernel cannot hold and that was left out.
    pub memory_unlimited: Option<i64>,
}

/// Why no bundle can be made, by what has to change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BundleError {
    /// The pod's spec (or a file it names): `CreateContainerConfigError`.
    Config(String),
    /// The image: no command, unknown user, links where mount points belong.
    Image(String),
}

impl fmt::Display for BundleError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            BundleError::Config(text) | BundleError::Image(text) => f.write_str(text),
        }
    }
}

impl std::error::Error for BundleError {}

#[cfg(test)]
mod tests;
