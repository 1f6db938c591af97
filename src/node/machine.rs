//! What this machine is: read from /proc, /sys and /etc once at the start.

use std::fs;
use std::net::{IpAddr, UdpSocket};
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use super::parts;
use crate::cli::options::{RunOptions, SeccompDefault};
use crate::kubelet::facts::{
    Allocatable, DnsSettings, NodeFacts, RecursiveReadOnly, SeccompDefault as PodSeccompDefault,
    Site,
};
use crate::kubelet::node_status::Machine;
use crate::object::{Quantity, Selinux, subdomain_problem};
use crate::os::{disk, probe};
use crate::runtime::network;
use crate::world::PodNetwork;

pub struct Facts {
    pub node: NodeFacts,
    pub machine: Machine,
}

/// A node's name from the machine's own. A kernel that was never told one says `(none)`.
fn named_after(hostname: &str) -> Result<String, String> {
    let name = hostname.trim().to_lowercase();
    let problem = match &*name {
        "" | "(none)" => "this machine has no host name".into(),
        name if subdomain_problem(name).is_some() => {
            format!(
                "the machine's host name {name:?} cannot be a node's (letters, digits, - and .)"
            )
        }
        _ => return Ok(name),
    };
    Err(format!("{problem}; give one with --hostname-override"))
}

/// Reads everything. Errors: the node's name cannot be worked out.
pub fn read(options: &RunOptions) -> Result<Facts, String> {
    let hostname = text("/proc/sys/kernel/hostname");
    let name = match &options.hostname_override {
        Some(name) => name.clone(),
        None => named_after(&hostname)?,
    };
    let memory_bytes = memory_bytes(&text("/proc/meminfo"));
    let cpus = std::thread::available_parallelism().map_or(1, |n| n.get());
    let cpus = u32::try_from(cpus).unwrap_or(u32::MAX);
    let kernel = text("/proc/sys/kernel/osrelease");
    let node = NodeFacts {
        node_name: name,
        hostname,
        host_ips: host_ips(options),
        site: Site::default(),
        allocatable: Allocatable {
            cpu: Quantity::from_units(i64::from(cpus)),
            memory: Quantity::from_bytes(i64::try_from(memory_bytes).unwrap_or(i64::MAX)),
            ephemeral_storage: Quantity::ZERO,
        },
        memory_bytes,
        pod_pids_max: options.pod_pids_max.and_then(|n| i64::try_from(n).ok()),
        seccomp_default: match options.seccomp_default {
            SeccompDefault::Unconfined => PodSeccompDefault::Unconfined,
            SeccompDefault::RuntimeDefault => PodSeccompDefault::RuntimeDefault,
        },
        recursive_read_only: recursive_read_only(version(&kernel)),
        selinux: match probe::selinux() {
            true => Selinux::On,
            false => Selinux::Off,
        },
        dns: DnsSettings {
            servers: options
                .cluster_dns
                .iter()
                .map(ToString::to_string)
                .collect(),
            domain: options.cluster_domain.clone().unwrap_or_default(),
            host_resolv_conf: options.resolv_conf.as_ref().map(|path| {
                fs::read_to_string(path).unwrap_or_else(|error| {
                    log::warn!("read {}: {error}; pods get no name servers", path.display());
                    String::new()
                })
            }),
        },
        pod_network: PodNetwork::Ready,
        allowed_unsafe_sysctls: options.allowed_unsafe_sysctls.clone(),
        kernel: version(&kernel),
    };
    let taints = options.register_with_taints.iter();
    let taints = taints.map(|t| (t.key.clone(), t.value.clone(), t.effect.clone()));
    let machine = Machine {
        architecture: go_architecture().to_owned(),
        kernel_version: kernel,
        os_image: os_image(&text("/etc/os-release")),
        // Boards have no DMI; cAdvisor goes on with this one too.
        system_uuid: Some(text("/sys/class/dmi/id/product_uuid"))
            .filter(|uuid| !uuid.is_empty())
            .unwrap_or_else(|| text("/etc/machine-id")),
        machine_id: text("/etc/machine-id"),
        boot_id: text("/proc/sys/kernel/random/boot_id"),
        runtime_version: String::new(),
        cpus,
        pods_max: options.pods_max,
        ephemeral_storage_bytes: capacity_bytes(&options.root_dir),
        huge_pages: huge_pages(Path::new("/sys/kernel/mm/hugepages")),
        labels: options.node_labels.clone(),
        taints: taints.collect(),
        status_period: options.node_status_update_period,
        kubelet_port: 0,
    };
    Ok(Facts { node, machine })
}

/// A small file without the newline at its end; empty if it cannot be read.
fn text(path: &str) -> String {
    let text = fs::read_to_string(path).unwrap_or_default();
    text.trim_end().to_owned()
}

/// Of the file system that the directory, or the nearest one above it that exists, is on.
fn capacity_bytes(directory: &Path) -> u64 {
    let mut places = directory.ancestors();
    let found = places.find_map(|place| disk::capacity_bytes(place).ok());
    found.unwrap_or(0)
}

/// Directories `hugepages-<KiB>kB`, each with the number of pages set aside; sizes as quantities.
fn huge_pages(directory: &Path) -> Vec<(String, u64)> {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    let mut found: Vec<(u64, u64)> = entries
        .filter_map(|entry| {
            let name = entry.file_name();
            let kib = name.to_str()?.strip_prefix("hugepages-")?;
            let kib: u64 = kib.strip_suffix("kB")?.parse().ok()?;
            let pages = fs::read_to_string(entry.path().join("nr_hugepages")).ok()?;
            let pages: u64 = pages.trim().parse().ok()?;
            Some((kib * 1024, kib * 1024 * pages))
        })
        .collect();
    found.sort_unstable();
    let named = found.into_iter().map(|(size, bytes)| {
        let size = i64::try_from(size).unwrap_or(i64::MAX);
        (Quantity::from_bytes(size).to_string(), bytes)
    });
    named.collect()
}

/// `MemTotal` of /proc/meminfo.
fn memory_bytes(meminfo: &str) -> u64 {
    let line = meminfo
        .lines()
        .find_map(|line| line.strip_prefix("MemTotal:"));
    let kib = line.and_then(|rest| rest.split_whitespace().next()?.parse::<u64>().ok());
    kib.unwrap_or(0) * 1024
}

/// Major and minor of `6.1.0-13-arm64`.
fn version(release: &str) -> (u32, u32) {
    let mut numbers = release
        .split(|c: char| !c.is_ascii_digit())
        .map(|n| n.parse().unwrap_or(0));
    (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0))
}

/// mount_setattr(2) with AT_RECURSIVE: Linux 5.12.
fn recursive_read_only(kernel: (u32, u32)) -> RecursiveReadOnly {
    if kernel >= (5, 12) {
        RecursiveReadOnly::Supported
    } else {
        RecursiveReadOnly::Unsupported
    }
}

fn os_image(os_release: &str) -> String {
    let name = os_release
        .lines()
        .find_map(|line| line.strip_prefix("PRETTY_NAME="));
    name.unwrap_or("Linux").trim_matches('"').to_owned()
}

/// Go's name of the architecture, as Kubernetes labels have it.
fn go_architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

/// Where packets to the outside left from when they last could.
static LAST: Mutex<Option<IpAddr>> = Mutex::new(None);

/// `--node-ip`, or the address that a packet to the outside would leave from. Nothing is sent:
/// connecting a UDP socket only looks up the route. While there is no way out the last address stays;
/// if there never was one, any that an interface has is better than none.
pub fn host_ips(options: &RunOptions) -> Vec<IpAddr> {
    if !options.node_ips.is_empty() {
        return options.node_ips.clone();
    }
    let routed = |bind: &str, to: &str| {
        let socket = UdpSocket::bind(bind).ok()?;
        socket.connect(to).ok()?;
        let ip = socket.local_addr().ok()?.ip();
        (!ip.is_unspecified()).then_some(ip)
    };
    // Documentation addresses (RFC 5737, RFC 3849): any address beyond the default route will do.
    let v4 = || routed("0.0.0.0:0", "192.0.2.1:9");
    let v6 = || routed("[::]:0", "[2001:db8::1]:9");
    let found = match options.prefers_ipv6 {
        true => v6().or_else(v4),
        false => v4().or_else(v6),
    };
    let mut last = LAST.lock().unwrap_or_else(PoisonError::into_inner);
    *last = found.or(*last);
    let any = || Some(network::outer_address(parts::subnet(options).ok()?)?.into());
    vec![last.or_else(any).unwrap_or(IpAddr::from([127, 0, 0, 1]))]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_name_that_can_be_no_nodes_is_told() {
        for (name, expected) in [("Pi-4.Shed\n", "pi-4.shed"), ("pi", "pi")] {
            assert_eq!(named_after(name).as_deref(), Ok(expected));
        }
        for (name, part) in [
            ("(none)\n", "has no host name"),
            ("", "has no host name"),
            ("my_pi", "\"my_pi\""),
        ] {
            let error = named_after(name).expect_err(name);
            assert!(
                error.contains(part) && error.contains("--hostname-override"),
                "{error}"
            );
        }
    }

    #[test]
    fn proc_files_are_read_as_the_kernel_writes_them() {
        assert_eq!(
            memory_bytes("MemTotal:         948304 kB\nMemFree: 1 kB\n"),
            948_304 * 1024
        );
        assert_eq!(memory_bytes(""), 0);
        let home = tempfile::tempdir().unwrap();
        for (name, pages) in [("hugepages-2048kB", "3\n"), ("hugepages-1048576kB", "0\n")] {
            fs::create_dir(home.path().join(name)).unwrap();
            fs::write(home.path().join(name).join("nr_hugepages"), pages).unwrap();
        }
        let found = huge_pages(home.path());
        assert_eq!(found, [("2Mi".to_owned(), 6 << 20), ("1Gi".to_owned(), 0)]);
        assert!(capacity_bytes(&home.path().join("not/yet")) > 0);
        for (release, expected) in [
            ("6.1.0-13-arm64", (6, 1)),
            ("5.10.103-v7l+", (5, 10)),
            ("6.18.44", (6, 18)),
            ("", (0, 0)),
        ] {
            assert_eq!(version(release), expected, "{release}");
        }
        assert_eq!(
            os_image("NAME=x\nPRETTY_NAME=\"Raspbian 12\"\n"),
            "Raspbian 12"
        );
        assert_eq!(os_image(""), "Linux");
    }
}
