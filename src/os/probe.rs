//! What the running kernel offers, found without leaving anything behind.
//!
//! Looks passively first (`/proc`, `/sys`, the module lists). Only what those do not tell is tried
//! out, in a network namespace of a thread that ends with it.

use crate::object::gather::Gather;
use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use nix::sched::CloneFlags;

use super::netlink::Netlink;
use super::netlink::message::{
    Attributes, IFLA_INFO_KIND, IFLA_LINKINFO, Message, NLM_F_CREATE, NLM_F_EXCL, RTM_NEWLINK,
};

/// Whether the kernel can do something.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Support {
    Ready,
    /// A module on disk, loaded when first used.
    OnDemand,
    Absent,
    /// Could not be found out, with the reason.
    Unknown(String),
}

/// Which cgroup hierarchies are mounted at /sys/fs/cgroup.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CgroupLayout {
    None,
    V1,
    V2,
    /// v1 with the controllers, v2 beside it.
    Hybrid,
}

/// What a file system is, as far as it matters to who stores pods on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FileSystem {
    Tmpfs,
    Overlay,
    Network,
    /// No owners, no links.
    Fat,
    ReadOnly,
    Other,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    pub exists: bool,
    /// Of the path, or of its nearest parent that exists.
    pub file_system: FileSystem,
    pub free_bytes: u64,
    pub free_inodes: Option<u64>,
}

const CGROUP: &str = "/sys/fs/cgroup";

/// `6.1.0-18-amd64`
pub fn kernel_release() -> String {
    rustix::system::uname()
        .release()
        .to_string_lossy()
        .into_owned()
}

/// Memory of the machine.
pub fn memory_bytes() -> u64 {
    let info = rustix::system::sysinfo();
    u64::from(info.mem_unit).saturating_mul(info.totalram as u64)
}

/// The kernel's name of the machine: `x86_64`, `aarch64`, `armv7l`.
pub fn machine() -> String {
    rustix::system::uname()
        .machine()
        .to_string_lossy()
        .into_owned()
}

/// Layout and the controllers that are usable.
pub fn cgroups() -> (CgroupLayout, BTreeSet<String>) {
    let root = Path::new(CGROUP);
    if let Ok(text) = fs::read_to_string(root.join("cgroup.controllers")) {
        let controllers = text.split_whitespace().map(str::to_owned).collect();
        return (CgroupLayout::V2, controllers);
    }
    let controllers: BTreeSet<String> = fs::read_dir(root)
        .into_iter()
        .flatten()
        .flatten()
        .filter(|entry| entry.path().join("cgroup.procs").exists())
        .filter_map(|entry| entry.file_name().into_string().ok())
        .flat_map(|name| name.split(',').map(str::to_owned).collect::<Vec<_>>())
        .filter(|name| !matches!(name.as_str(), "unified" | "systemd"))
        .gathered();
    let v2_beside = root.join("unified/cgroup.controllers").exists();
    match (controllers.is_empty(), v2_beside) {
        (true, _) => (CgroupLayout::None, controllers),
        (false, true) => (CgroupLayout::Hybrid, controllers),
        (false, false) => (CgroupLayout::V1, controllers),
    }
}

/// The board's name on machines with a device tree: `Raspberry Pi 4 Model B Rev 1.4`.
pub fn board_model() -> Option<String> {
    let text = fs::read_to_string("/proc/device-tree/model").ok()?;
    Some(text.trim_end_matches('\0').to_owned())
}

/// Of the namespaces that pods need, those that the kernel lacks.
pub fn missing_namespaces() -> Vec<&'static str> {
    ["mnt", "net", "pid", "ipc", "uts", "cgroup"]
        .into_iter()
        .filter(|name| !Path::new("/proc/self/ns").join(name).exists())
        .collect()
}

pub fn seccomp_filters() -> bool {
    Path::new("/proc/sys/kernel/seccomp/actions_avail").exists()
}

/// Whether SELinux is on, enforcing or not.
pub fn selinux() -> bool {
    Path::new("/sys/fs/selinux/enforce").exists()
}

pub fn overlayfs() -> Support {
    let registered = fs::read_to_string("/proc/filesystems").unwrap_or_default();
    if registered
        .lines()
        .any(|line| line.trim_start() == "overlay")
    {
        return Support::Ready;
    }
    match module("overlay") {
        // Every kernel lists its file systems, so this one has none built in.
        Support::Unknown(_) => Support::Absent,
        known => known,
    }
}

/// Whether links of this kind (`bridge`, `veth`) can be made.
pub fn link_kind(kind: &'static str) -> Support {
    match module(kind) {
        Support::Unknown(_) | Support::Absent => {}
        known => return known,
    }
    // Built in without a trace, or absent: tried where the outcome vanishes with the thread.
    #[allow(clippy::disallowed_methods)] // not a thread of the node's
    let attempt = std::thread::spawn(move || {
        nix::sched::unshare(CloneFlags::CLONE_NEWNET)?;
        make_link(kind)
    });
    match attempt.join() {
        Ok(Ok(())) => Support::Ready,
        Ok(Err(error)) if error.raw_os_error() == Some(libc::EOPNOTSUPP) => Support::Absent,
        Ok(Err(error)) => Support::Unknown(error.to_string()),
        Err(_) => Support::Unknown("the attempt failed".to_owned()),
    }
}

/// Whether a kernel module is loaded, built in or on disk, without loading it.
fn module(name: &str) -> Support {
    if Path::new("/sys/module").join(name).exists() {
        return Support::Ready;
    }
    let modules = Path::new("/lib/modules").join(kernel_release());
    let file = format!("/{name}.ko");
    let lists = |list: &str| {
        let text = fs::read_to_string(modules.join(list)).ok()?;
        Some(text.lines().any(|line| {
            let path = line.split(':').next().unwrap_or_default();
            path.contains(&file) && path.rsplit('/').next().is_some_and(|f| f.starts_with(name))
        }))
    };
    match (lists("modules.builtin"), lists("modules.dep")) {
        (Some(true), _) => Support::Ready,
        (_, Some(true)) => Support::OnDemand,
        (Some(false), Some(false)) => Support::Absent,
        _ => Support::Unknown(format!("no module lists in {}", modules.display())),
    }
}

/// A link that gets its name from the kernel.
fn make_link(kind: &str) -> io::Result<()> {
    let info = Attributes::new().with_name(IFLA_INFO_KIND, kind);
    let link = Attributes::new().with_list(IFLA_LINKINFO, &info);
    let made = Message::link(RTM_NEWLINK, 0, &link);
    Netlink::open()?.change(&made, NLM_F_CREATE | NLM_F_EXCL)
}

/// What a directory lies on, whether or not it exists yet.
pub fn place(path: &Path) -> io::Result<Place> {
    let mut nearest = path.to_owned();
    while !nearest.exists() {
        nearest = match nearest.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent.to_owned(),
            _ => PathBuf::from("/"),
        };
    }
    let info = rustix::fs::statfs(&nearest)?;
    let limits = rustix::fs::statvfs(&nearest)?;
    // Magic numbers: statfs(2).
    let file_system = match info.f_type as u64 & 0xffff_ffff {
        _ if limits
            .f_flag
            .contains(rustix::fs::StatVfsMountFlags::RDONLY) =>
        {
            FileSystem::ReadOnly
        }
        0x0102_1994 => FileSystem::Tmpfs,
        0x794c_7630 => FileSystem::Overlay,
        0x6969 | 0xff53_4d42 | 0xfe53_4d42 => FileSystem::Network,
        0x4d44 | 0x2011_bab0 => FileSystem::Fat,
        _ => FileSystem::Other,
    };
    Ok(Place {
        exists: path.is_dir(),
        file_system,
        free_bytes: limits.f_bavail.saturating_mul(limits.f_frsize),
        free_inodes: Some(limits.f_favail).filter(|_| limits.f_files > 0),
    })
}

#[cfg(test)]
mod tests {
    use super::{Support, link_kind};

    #[test]
    fn an_unknown_kind_of_link_is_absent_and_nothing_is_left_behind() {
        let before = std::fs::read_to_string("/proc/net/dev").expect("proc is mounted");
        let names = |text: &str| {
            text.lines()
                .filter_map(|l| l.split(':').next().map(str::to_owned))
                .collect::<Vec<_>>()
        };
        assert!(matches!(
            link_kind("lowtide-nonsense"),
            Support::Absent | Support::Unknown(_)
        ));
        assert_ne!(link_kind("veth"), Support::Absent);
        let after = std::fs::read_to_string("/proc/net/dev").expect("proc is mounted");
        assert!(
            names(&after)
                .iter()
                .all(|name| names(&before).contains(name) || !name.trim().starts_with("veth0"))
        );
    }
}
