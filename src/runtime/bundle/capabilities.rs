//! Capability sets of containers: the runtime default, the pod's additions and removals.

use serde_json::{Value, json};

use super::BundleError;
use crate::world::{Capabilities, Security};

/// Names by number, without `CAP_`. Source: linux/capability.h (Linux 6.12).
const NAMES: [&str; 41] = [
    "CHOWN",
    "DAC_OVERRIDE",
    "DAC_READ_SEARCH",
    "FOWNER",
    "FSETID",
    "KILL",
    "SETGID",
    "SETUID",
    "SETPCAP",
    "LINUX_IMMUTABLE",
    "NET_BIND_SERVICE",
    "NET_BROADCAST",
    "NET_ADMIN",
    "NET_RAW",
    "IPC_LOCK",
    "IPC_OWNER",
    "SYS_MODULE",
    "SYS_RAWIO",
    "SYS_CHROOT",
    "SYS_PTRACE",
    "SYS_PACCT",
    "SYS_ADMIN",
    "SYS_BOOT",
    "SYS_NICE",
    "SYS_RESOURCE",
    "SYS_TIME",
    "SYS_TTY_CONFIG",
    "MKNOD",
    "LEASE",
    "AUDIT_WRITE",
    "AUDIT_CONTROL",
    "SETFCAP",
    "MAC_OVERRIDE",
    "MAC_ADMIN",
    "SYSLOG",
    "WAKE_ALARM",
    "BLOCK_SUSPEND",
    "AUDIT_READ",
    "PERFMON",
    "BPF",
    "CHECKPOINT_RESTORE",
];

/// What a container gets that asks for nothing. Source: containerd `oci.defaultUnixCaps`.
const DEFAULT: [&str; 14] = [
    "CHOWN",
    "DAC_OVERRIDE",
    "FSETID",
    "FOWNER",
    "MKNOD",
    "NET_RAW",
    "SETGID",
    "SETUID",
    "SETFCAP",
    "SETPCAP",
    "NET_BIND_SERVICE",
    "SYS_CHROOT",
    "KILL",
    "AUDIT_WRITE",
];

/// A set of capabilities as the kernel's bit mask (`CapBnd` of /proc/PID/status).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CapabilitySet(u64);

impl CapabilitySet {
    pub const fn from_bits(bits: u64) -> CapabilitySet {
        CapabilitySet(bits)
    }

    /// The bounding set out of the text of /proc/PID/status.
    pub fn bounding_of_status(status: &str) -> Option<CapabilitySet> {
        let line = status.lines().find_map(|l| l.strip_prefix("CapBnd:"))?;
        u64::from_str_radix(line.trim(), 16).ok().map(CapabilitySet)
    }

    pub fn contains(self, name: &str) -> bool {
        number(name).is_some_and(|bit| self.0 & (1 << bit) != 0)
    }

    /// `["CAP_CHOWN", …]` in the kernel's order; bits that have no name yet are left out.
    pub fn to_json(self) -> Value {
        let held = NAMES.iter().filter(|name| self.contains(name));
        held.map(|name| format!("CAP_{name}")).collect()
    }
}

fn number(name: &str) -> Option<usize> {
    NAMES.iter().position(|known| *known == name)
}

/// The set of a container: default, `drop: ALL` first, then additions, then single removals.
/// Additions that the host's own bounding set lacks cannot be given and are left out, as runc
/// does; a privileged container gets that whole set.
/// Errors: `Config` for a name that is no capability.
pub(super) fn effective(
    security: &Security,
    bounding: CapabilitySet,
) -> Result<CapabilitySet, BundleError> {
    if security.privileged {
        return Ok(bounding);
    }
    let Capabilities { add, drop } = &security.capabilities;
    let mut bits = DEFAULT.iter().filter_map(|name| number(name)).fold(0, with);
    if drop.iter().any(|name| canonical(name) == "ALL") {
        bits = 0;
    }
    for name in add {
        bits = match canonical(name).as_str() {
            "ALL" => bounding.0,
            single => with(bits, known(single, "add", name)?),
        };
    }
    for name in drop {
        match canonical(name).as_str() {
            "ALL" => {}
            single => bits &= !with(0, known(single, "drop", name)?),
        }
    }
    Ok(CapabilitySet(bits & bounding.0))
}

/// The OCI object. Inheritable and ambient stay empty: a non-empty inheritable set let programs
/// with file capabilities gain more than the container's user had (CVE-2022-29162).
pub(super) fn to_oci(set: CapabilitySet) -> Value {
    json!({
        "bounding": set.to_json(),
        "effective": set.to_json(),
        "permitted": set.to_json(),
        "inheritable": [],
        "ambient": [],
    })
}

fn with(bits: u64, bit: usize) -> u64 {
    bits | (1 << bit)
}

fn canonical(name: &str) -> String {
    let upper = name.to_ascii_uppercase();
    upper.strip_prefix("CAP_").unwrap_or(&upper).to_owned()
}

fn known(canonical: &str, list: &str, written: &str) -> Result<usize, BundleError> {
    number(canonical).ok_or_else(|| {
        BundleError::Config(format!(
            "securityContext.capabilities.{list}: unknown capability {written:?}"
        ))
    })
}
