//! A pod's sandbox, as the runtime needs it: names, namespaces, ports, DNS, sysctls, cgroup.
//! Pure. Sources: reference of the CRI; k8s.io/kubernetes pkg/kubelet/kuberuntime, pkg/kubelet/sysctl.

use k8s_openapi::api::core::v1::{Pod, PodSpec};

use super::dns::{PodWarning, pod_dns};
use super::facts::NodeFacts;
use super::resources::pod_cgroup;
use crate::world::{
    HostAlias, NamespaceMode, Namespaces, PodNetwork, PortMapping, Protocol, SandboxConfig, Uid,
};

/// Longest host name of the kernel (uname(2), `__NEW_UTS_LEN`) and of a DNS label (RFC 1123).
const KERNEL_NAME_BYTES_MAX: usize = 64;
const LABEL_BYTES_MAX: usize = 63;

/// Sysctls that reach no further than the pod, and the kernel from which each is namespaced.
/// Source: pkg/kubelet/sysctl/safe_sysctls.go.
const SAFE_SYSCTLS: [(&str, (u32, u32)); 12] = [
    ("kernel.shm_rmid_forced", (0, 0)),
    ("net.ipv4.ip_local_port_range", (0, 0)),
    ("net.ipv4.tcp_syncookies", (0, 0)),
    ("net.ipv4.ping_group_range", (0, 0)),
    ("net.ipv4.ip_unprivileged_port_start", (0, 0)),
    ("net.ipv4.ip_local_reserved_ports", (3, 16)),
    ("net.ipv4.tcp_keepalive_time", (4, 5)),
    ("net.ipv4.tcp_fin_timeout", (4, 6)),
    ("net.ipv4.tcp_keepalive_intvl", (4, 5)),
    ("net.ipv4.tcp_keepalive_probes", (4, 5)),
    ("net.ipv4.tcp_rmem", (4, 15)),
    ("net.ipv4.tcp_wmem", (4, 15)),
];

/// The pod may not run on this node: phase Failed with this reason.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rejection {
    pub reason: &'static str,
    pub message: String,
}

/// A sandbox that cannot be made until somebody changes the pod; retried at each sync.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SandboxError(pub String);

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SandboxPlan {
    pub config: SandboxConfig,
    /// To publish as Warning events, once.
    pub warnings: Vec<PodWarning>,
}

/// Builds the sandbox's configuration. Sysctls must have passed `check_sysctls` before.
/// Errors: a UID that is no path component, a host name that the kernel cannot hold, a hostPort
/// whose address does not parse.
pub fn sandbox_config(
    pod: &Pod,
    attempt: u32,
    node: &NodeFacts,
) -> Result<SandboxPlan, SandboxError> {
    let uid = pod.metadata.uid.as_deref().and_then(Uid::new);
    let uid = uid.ok_or_else(|| SandboxError("metadata.uid is not one path component".into()))?;
    let empty = PodSpec::default();
    let spec = pod.spec.as_ref().unwrap_or(&empty);
    let (hostname, domain) = names(pod, spec, node)?;
    let (dns, mut warnings) = pod_dns(pod, &node.dns);
    let ports = ports(spec)?;
    if !ports.is_empty() && node.pod_network == PodNetwork::NoHostPorts {
        warnings.push(PodWarning {
            reason: "HostPortNotMapped",
            message: "no plugin of the CNI configuration has the capability portMappings: \
                      hostPorts lead nowhere, unless the network serves them by itself"
                .to_owned(),
        });
    }
    let config = SandboxConfig {
        uid,
        name: pod.metadata.name.clone().unwrap_or_default(),
        namespace: pod.metadata.namespace.clone().unwrap_or_default(),
        attempt,
        hostname,
        domain,
        namespaces: namespaces(spec),
        ports,
        dns,
        host_aliases: host_aliases(spec),
        sysctls: usual_sysctls(spec, node).chain(sysctls(spec)).collect(),
        cgroup: pod_cgroup(pod, node.pod_pids_max.filter(|pids| *pids > 0)),
    };
    Ok(SandboxPlan { config, warnings })
}

/// Host name and domain as the pod sees them.
fn names(
    pod: &Pod,
    spec: &PodSpec,
    node: &NodeFacts,
) -> Result<(String, Option<String>), SandboxError> {
    if spec.host_network == Some(true) {
        return Ok((node.hostname.clone(), None));
    }
    let overridden = spec.hostname_override.as_deref();
    if let Some(name) = overridden.filter(|name| !name.is_empty()) {
        return Ok((truncate(name).to_owned(), None));
    }
    let stated = spec.hostname.as_deref().filter(|name| !name.is_empty());
    let name = stated.or(pod.metadata.name.as_deref()).unwrap_or_default();
    let hostname = truncate(name).to_owned();
    let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
    let subdomain = spec.subdomain.as_deref().filter(|name| !name.is_empty());
    let domain = subdomain.map(|sub| match node.dns.domain.as_str() {
        "" => format!("{sub}.{namespace}.svc"),
        cluster => format!("{sub}.{namespace}.svc.{cluster}"),
    });
    match (spec.set_hostname_as_fqdn, &domain) {
        (Some(true), Some(suffix)) => {
            let full = format!("{hostname}.{suffix}");
            if full.len() > KERNEL_NAME_BYTES_MAX {
                return Err(SandboxError(format!(
                    "failed to construct FQDN from pod hostname and cluster domain, FQDN {full} \
                     is too long ({KERNEL_NAME_BYTES_MAX} characters is the max, {} characters \
                     requested)",
                    full.len()
                )));
            }
            Ok((full, domain))
        }
        (Some(_) | None, _) => Ok((hostname, domain)),
    }
}

fn truncate(name: &str) -> &str {
    match name.get(..LABEL_BYTES_MAX) {
        Some(head) if name.len() > LABEL_BYTES_MAX => head.trim_end_matches(['-', '.']),
        Some(_) | None => name,
    }
}

fn namespaces(spec: &PodSpec) -> Namespaces {
    let own_or_host = |host: Option<bool>| match host {
        Some(true) => NamespaceMode::Host,
        Some(false) | None => NamespaceMode::Pod,
    };
    Namespaces {
        network: own_or_host(spec.host_network),
        ipc: own_or_host(spec.host_ipc),
        pid: match (spec.host_pid, spec.share_process_namespace) {
            (Some(true), _) => NamespaceMode::Host,
            (_, Some(true)) => NamespaceMode::Pod,
            (Some(false) | None, Some(false) | None) => NamespaceMode::Container,
        },
    }
}

/// hostPorts of regular and init containers; on the host's network there is nothing to map.
fn ports(spec: &PodSpec) -> Result<Vec<PortMapping>, SandboxError> {
    if spec.host_network == Some(true) {
        return Ok(Vec::new());
    }
    let mut mappings: Vec<PortMapping> = Vec::new();
    let containers = spec
        .containers
        .iter()
        .chain(spec.init_containers.iter().flatten());
    for port in containers.flat_map(|container| container.ports.iter().flatten()) {
        let Some(host_port) = port.host_port.filter(|port| *port != 0) else {
            continue;
        };
        let number = |port: i32| {
            u16::try_from(port).map_err(|_| SandboxError(format!("port {port} is out of range")))
        };
        let host_ip = port.host_ip.as_deref().filter(|ip| !ip.is_empty());
        let mapping = PortMapping {
            host_ip: match host_ip.map(str::parse) {
                None => None,
                Some(Ok(ip)) => Some(ip),
                Some(Err(_)) => {
                    let ip = host_ip.unwrap_or_default();
                    return Err(SandboxError(format!("hostIP {ip:?} is no IP address")));
                }
            },
            host_port: number(host_port)?,
            container_port: number(port.container_port)?,
            protocol: match port.protocol.as_deref() {
                Some("UDP") => Protocol::Udp,
                Some("SCTP") => Protocol::Sctp,
                Some(_) | None => Protocol::Tcp,
            },
        };
        if !mappings.contains(&mapping) {
            mappings.push(mapping);
        }
    }
    Ok(mappings)
}

fn host_aliases(spec: &PodSpec) -> Vec<HostAlias> {
    let aliases = spec.host_aliases.iter().flatten();
    aliases
        .map(|alias| HostAlias {
            ip: alias.ip.clone(),
            hostnames: alias.hostnames.clone().unwrap_or_default(),
        })
        .collect()
}

/// What pods are used to: users other than root bind low ports and ping. With a `-`, since no pod asks for
/// it: where the node may not set them, pods start without. The pod's own come after them.
/// Source: containerd 2.0, `enable_unprivileged_ports` and `enable_unprivileged_icmp`.
fn usual_sysctls(spec: &PodSpec, node: &NodeFacts) -> impl Iterator<Item = (String, String)> {
    let own_network = spec.host_network != Some(true) && node.kernel >= (4, 11);
    let ports = own_network.then_some(("-net.ipv4.ip_unprivileged_port_start", "0"));
    // A user namespace has not all of these groups.
    let ping = own_network && spec.host_users != Some(false);
    let ping = ping.then_some(("-net.ipv4.ping_group_range", "0 2147483647"));
    let both = ports.into_iter().chain(ping);
    both.map(|(name, value)| (name.to_owned(), value.to_owned()))
}

fn sysctls(spec: &PodSpec) -> impl Iterator<Item = (String, String)> {
    let context = spec.security_context.as_ref();
    let list = context.and_then(|context| context.sysctls.as_ref());
    list.into_iter()
        .flatten()
        .map(|s| (dotted(&s.name), s.value.clone()))
}

/// `net/ipv4/conf/eth0.1/x` is `net.ipv4.conf.eth0/1.x`: the first separator decides.
fn dotted(name: &str) -> String {
    match name.find(['.', '/']).map(|at| name.as_bytes()[at]) {
        Some(b'/') => name
            .chars()
            .map(|c| match c {
                '/' => '.',
                '.' => '/',
                other => other,
            })
            .collect(),
        Some(_) | None => name.to_owned(),
    }
}

/// Decides whether the pod's sysctls may be set. Reason of a rejection: `SysctlForbidden`.
///
/// Only namespaced ones ever are: the others would change the whole node. Values are plain words
/// and numbers, so that no runtime can read a second setting out of one (CVE-2022-0811).
pub fn check_sysctls(pod: &Pod, node: &NodeFacts) -> Result<(), Rejection> {
    let Some(spec) = &pod.spec else {
        return Ok(());
    };
    for (name, value) in sysctls(spec) {
        let reject = |why: &str| {
            Err(Rejection {
                reason: "SysctlForbidden",
                message: format!("forbidden sysctl: {name:?} {why}"),
            })
        };
        let plain_name = |b: u8| b.is_ascii_alphanumeric() || b"._-/*".contains(&b);
        let plain_value = |b: u8| b.is_ascii_alphanumeric() || b" \t.,:_-/".contains(&b);
        let components = name.split(['.', '/']);
        if !name.bytes().all(plain_name) || components.into_iter().any(str::is_empty) {
            return reject("is not a valid name");
        }
        if !value.bytes().all(plain_value) {
            return reject("has a value with characters that no sysctl takes");
        }
        let safe = SAFE_SYSCTLS
            .iter()
            .any(|(known, since)| *known == name && node.kernel >= *since);
        let allowed =
            node.allowed_unsafe_sysctls
                .iter()
                .any(|pattern| match pattern.strip_suffix('*') {
                    Some(prefix) => name.starts_with(prefix),
                    None => *pattern == name,
                });
        match (scope(&name), safe || allowed) {
            (None, _) | (Some(_), false) => return reject("not allowlisted"),
            (Some(Scope::Network), true) if spec.host_network == Some(true) => {
                return reject("not allowed with host net enabled");
            }
            (Some(Scope::Ipc), true) if spec.host_ipc == Some(true) => {
                return reject("not allowed with host ipc enabled");
            }
            (Some(Scope::Network | Scope::Ipc), true) => {}
        }
    }
    Ok(())
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Scope {
    Network,
    Ipc,
}

/// The namespace that a sysctl belongs to; `None` if it is the whole node's.
fn scope(name: &str) -> Option<Scope> {
    let ipc = ["kernel.shm", "kernel.msg", "kernel.sem", "fs.mqueue."];
    if name.starts_with("net.") {
        Some(Scope::Network)
    } else {
        ipc.iter()
            .any(|prefix| name.starts_with(prefix))
            .then_some(Scope::Ipc)
    }
}
