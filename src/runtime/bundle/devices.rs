//! Device nodes and the device cgroup's rules.
//!
//! The runtime itself makes null, zero, full, random, urandom, tty, ptmx and the pts directory,
//! and allows their use (runtime-spec, "Default Devices"): they are not listed here.

use serde_json::{Value, json};

use super::{DeviceKind, HostDevice};

/// Nodes that would collide with what the runtime makes itself.
const MADE_BY_RUNTIME: [&str; 8] = [
    "/dev/null",
    "/dev/zero",
    "/dev/full",
    "/dev/random",
    "/dev/urandom",
    "/dev/tty",
    "/dev/ptmx",
    "/dev/console",
];

/// Directories of /dev that hold mounts of their own.
const MOUNTED: [&str; 3] = ["/dev/pts/", "/dev/shm/", "/dev/mqueue/"];

/// All devices of the host, for a privileged container.
pub(super) fn host_nodes(devices: &[HostDevice]) -> Value {
    let wanted = devices.iter().filter(|device| {
        !MADE_BY_RUNTIME.contains(&device.path.as_str())
            && !MOUNTED.iter().any(|mount| device.path.starts_with(mount))
    });
    wanted
        .map(|device| {
            json!({
                "path": device.path,
                "type": match device.kind { DeviceKind::Char => "c", DeviceKind::Block => "b" },
                "major": device.major,
                "minor": device.minor,
                "fileMode": device.mode & 0o777,
                "uid": device.uid,
                "gid": device.gid,
            })
        })
        .collect()
}

/// Rules of a privileged container: everything.
pub(super) fn allow_all() -> Value {
    json!([{ "allow": true, "access": "rwm" }])
}

/// Rules of any other: nothing beyond the runtime's defaults, but nodes may be made (mknod is
/// harmless without the right to open).
pub(super) fn deny_all() -> Value {
    json!([
        { "allow": false, "access": "rwm" },
        { "allow": true, "type": "c", "access": "m" },
        { "allow": true, "type": "b", "access": "m" },
    ])
}
