//! Mounts of a container: the kernel's file systems, the pod's files, the volumes.

use serde_json::{Value, json};

use super::process::clean_path;
use super::{Access, BundleError, BundleInput, ResolvedMount};
use crate::object::order;
use crate::world::Propagation;

/// Single files below /proc that a runtime lets a mount cover. Source: runc `checkProcMount`.
const PROC_COVERABLE: [&str; 11] = [
    "/proc/cpuinfo",
    "/proc/diskstats",
    "/proc/meminfo",
    "/proc/stat",
    "/proc/swaps",
    "/proc/uptime",
    "/proc/loadavg",
    "/proc/slabinfo",
    "/proc/net/dev",
    "/proc/sys/kernel/ns_last_pid",
    "/proc/sys/crypto/fips_enabled",
];

/// All mounts in the order in which the runtime makes them: a parent before its children, whichever
/// is the pod's own, as containerd has it.
pub(super) fn mounts(input: &BundleInput) -> Result<Value, BundleError> {
    let mut mounts = kernel_mounts(input);
    // A volume at the place of a default takes its place: two tmpfs over each other would waste
    // memory, and users enlarge /dev/shm this way. Below one that shows the host what is mounted in
    // it, nothing of ours is: it would cover the host's own.
    let covered = |path: &str| {
        input.mounts.iter().any(|mount| {
            let rest = path.strip_prefix(clean_path(&mount.container_path).as_str());
            let shared = mount.propagation == Propagation::Bidirectional;
            rest.is_some_and(|rest| rest.is_empty() || shared && rest.starts_with('/'))
        })
    };
    mounts.retain(|mount| !mount["destination"].as_str().is_some_and(covered));
    mounts.extend(pod_files(input, covered));
    for mount in input.mounts {
        mounts.push(volume(&destination(mount)?, mount));
    }
    let depth = |mount: &Value| {
        mount["destination"]
            .as_str()
            .map(|path| path.split('/').count())
    };
    order::sort_by_key(&mut mounts, depth);
    Ok(Value::Array(mounts))
}

fn kernel_mounts(input: &BundleInput) -> Vec<Value> {
    let sys_access = if input.container.security.privileged {
        "rw"
    } else {
        "ro"
    };
    let mut mounts = vec![
        mount("/proc", "proc", "proc", &["nosuid", "noexec", "nodev"]),
        mount(
            "/dev",
            "tmpfs",
            "tmpfs",
            &["nosuid", "strictatime", "mode=755", "size=65536k"],
        ),
        mount(
            "/dev/pts",
            "devpts",
            "devpts",
            &[
                "nosuid",
                "noexec",
                "newinstance",
                "ptmxmode=0666",
                "mode=0620",
                "gid=5",
            ],
        ),
        mount(
            "/dev/mqueue",
            "mqueue",
            "mqueue",
            &["nosuid", "noexec", "nodev"],
        ),
        mount(
            "/sys",
            "sysfs",
            "sysfs",
            &["nosuid", "noexec", "nodev", sys_access],
        ),
    ];
    // With a private cgroup namespace (v2) this shows the container's own subtree only; on v1 the
    // runtime binds the container's directories.
    let cgroup = ["nosuid", "noexec", "nodev", "relatime", sys_access];
    mounts.push(mount("/sys/fs/cgroup", "cgroup", "cgroup", &cgroup));
    let shm = input.paths.shm.to_string_lossy();
    mounts.push(mount(
        "/dev/shm",
        "bind",
        &shm,
        &["rbind", "nosuid", "noexec", "nodev", "rw"],
    ));
    mounts
}

fn pod_files(input: &BundleInput, covered: impl Fn(&str) -> bool) -> Vec<Value> {
    let paths = input.paths;
    let read_only = input.container.security.read_only_root;
    let access = if read_only { "ro" } else { "rw" };
    let termination = input.container.termination_message_path.as_str();
    [
        ("/etc/hosts", &paths.hosts, access),
        ("/etc/hostname", &paths.hostname, access),
        ("/etc/resolv.conf", &paths.resolv_conf, access),
        (termination, &paths.termination_log, "rw"),
    ]
    .into_iter()
    .filter_map(|(path, source, access)| Some((clean_path(path), source.as_ref()?, access)))
    .filter(|(path, _, _)| !covered(path))
    .map(|(path, source, access)| {
        mount(
            &path,
            "bind",
            &source.to_string_lossy(),
            &["rbind", "rprivate", access],
        )
    })
    .collect()
}

/// Where a volume goes, checked for what the runtime would refuse with a text of its own.
fn destination(mount: &ResolvedMount) -> Result<String, BundleError> {
    let written = &mount.container_path;
    if !written.starts_with('/') || written.contains('\0') {
        return Err(BundleError::Config(format!(
            "mountPath {written:?} is not an absolute path"
        )));
    }
    let path = clean_path(written);
    let in_proc = path == "/proc" || path.starts_with("/proc/");
    if path == "/" || (in_proc && !PROC_COVERABLE.contains(&path.as_str())) {
        return Err(BundleError::Config(format!(
            "mountPath {written:?} is not allowed: no volume may cover / or lie in /proc"
        )));
    }
    Ok(path)
}

fn volume(path: &str, resolved: &ResolvedMount) -> Value {
    let access = match resolved.access {
        Access::ReadWrite => "rw",
        Access::ReadOnly => "ro",
        Access::RecursiveReadOnly => "rro",
    };
    let propagation = match resolved.propagation {
        Propagation::Private => "rprivate",
        Propagation::HostToContainer => "rslave",
        Propagation::Bidirectional => "rshared",
    };
    mount(
        path,
        "bind",
        &resolved.source.to_string_lossy(),
        &["rbind", propagation, access],
    )
}

fn mount(destination: &str, kind: &str, source: &str, options: &[&str]) -> Value {
    json!({ "destination": destination, "type": kind, "source": source, "options": options })
}
