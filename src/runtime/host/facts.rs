//! What bundles need to know of kernel and host, read once at the start; devices anew for each
//! privileged container.

use std::fs;
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;

use crate::object::order;
use crate::runtime::bundle::{
    Architecture, CapabilitySet, CgroupVersion, DeviceKind, HostDevice, HostFacts,
    MemoryController, OomLowering,
};
use crate::runtime::cgroup::{Cgroups, Layout};

/// Directories of `/dev` that a container has of its own. Source: opencontainers/cgroups,
/// devices.HostDevices.
const OWN_DIRECTORIES: [&str; 6] = ["pts", "shm", "fd", "mqueue", ".lxc", ".lxd-mounts"];
/// Deepest directory below `/dev` that is looked into (`/dev/bus/usb/001`, `/dev/disk/by-id`).
const DEPTH_MAX: u32 = 6;

/// Reads the facts of this process and host, after `Cgroups::make_qos`. Blocking.
/// Errors: `/proc/self` cannot be read.
pub fn read(cgroups: &Cgroups) -> io::Result<HostFacts> {
    let status = fs::read_to_string("/proc/self/status")?;
    let capabilities = CapabilitySet::bounding_of_status(&status)
        .ok_or_else(|| io::Error::other("/proc/self/status names no bounding set"))?;
    let inherited = fs::read_to_string("/proc/self/oom_score_adj")?;
    Ok(HostFacts {
        architecture: Architecture::NATIVE,
        cgroup: match cgroups.layout() {
            Layout::V1 | Layout::Hybrid => CgroupVersion::V1,
            Layout::V2 => CgroupVersion::V2,
        },
        memory: memory_controller(cgroups),
        oom_score_adj_inherited: inherited.trim().parse().unwrap_or(0),
        oom_lowering: match capabilities.contains("SYS_RESOURCE") {
            true => OomLowering::Allowed,
            false => OomLowering::Forbidden,
        },
        capabilities,
        throttling_cpus: throttling_cpus(),
        devices: Vec::new(),
    })
}

/// Whether memory, and swap with it, can be limited.
fn memory_controller(cgroups: &Cgroups) -> MemoryController {
    if !cgroups.has("memory") {
        return MemoryController::Absent;
    }
    match cgroups.limits_swap() {
        true => MemoryController::WithSwap,
        false => MemoryController::WithoutSwap,
    }
}

fn throttling_cpus() -> Vec<u32> {
    let entries = fs::read_dir("/sys/devices/system/cpu");
    let mut cpus: Vec<u32> = entries
        .into_iter()
        .flatten()
        .flatten()
        .filter(|entry| entry.path().join("thermal_throttle").is_dir())
        .filter_map(|entry| {
            entry
                .file_name()
                .to_str()?
                .strip_prefix("cpu")?
                .parse()
                .ok()
        })
        .collect();
    cpus.sort_unstable();
    cpus
}

/// The host's device nodes, for a privileged container. Blocking.
pub fn devices() -> Vec<HostDevice> {
    let mut found = Vec::new();
    collect(Path::new("/dev"), DEPTH_MAX, &mut found);
    order::sort_by(&mut found, |a, b| a.path.cmp(&b.path));
    found
}

/// A node that vanishes meanwhile, or a directory that cannot be read, is left out.
fn collect(directory: &Path, depth: u32, found: &mut Vec<HostDevice>) {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    for entry in entries {
        let (name, path) = (entry.file_name(), entry.path());
        let Ok(metadata) = fs::symlink_metadata(&path) else {
            continue;
        };
        let kind = metadata.file_type();
        let own = OWN_DIRECTORIES.iter().any(|own| name == *own);
        if kind.is_dir() {
            if depth > 0 && !own {
                collect(&path, depth - 1, found);
            }
        } else if (kind.is_char_device() || kind.is_block_device())
            && let Some(text) = path.to_str()
        {
            found.push(HostDevice {
                path: text.to_owned(),
                kind: match kind.is_block_device() {
                    true => DeviceKind::Block,
                    false => DeviceKind::Char,
                },
                major: major(metadata.rdev()),
                minor: minor(metadata.rdev()),
                mode: metadata.mode() & 0o7777,
                uid: metadata.uid(),
                gid: metadata.gid(),
            });
        }
    }
}

/// makedev(3), as glibc and musl pack 64-bit device numbers.
fn major(device: u64) -> u32 {
    (((device >> 8) & 0xfff) | ((device >> 32) & 0xffff_f000)) as u32
}

fn minor(device: u64) -> u32 {
    ((device & 0xff) | ((device >> 12) & 0xffff_ff00)) as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn device_numbers_are_unpacked() {
        for (device, numbers) in [(0x103, (1, 3)), (0x0fc0_1234, (0x12, 0xfc34))] {
            assert_eq!((major(device), minor(device)), numbers, "{device:#x}");
        }
    }

    #[test]
    fn dev_null_is_among_the_devices_and_terminals_are_not() {
        let found = devices();
        let null = found.iter().find(|device| device.path == "/dev/null");
        let null = null.expect("every host has it");
        assert_eq!(
            (null.kind, null.major, null.minor),
            (DeviceKind::Char, 1, 3)
        );
        assert!(
            !found
                .iter()
                .any(|device| device.path.starts_with("/dev/pts/"))
        );
    }
}
