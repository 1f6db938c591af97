//! What the pure cores of the kubelet are told about the node and about objects that a pod names.
//!
//! Plain data and one lookup trait: the cores ask nothing of the outside themselves, so a table
//! row or a simulated world can stand in for a whole node.

use std::net::IpAddr;
use std::sync::Arc;

use serde_json::Value;

use crate::object::{Object, Quantity, Selinux};
use crate::world::PodNetwork;

/// What a pod may use of the node, after reservations.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Allocatable {
    pub cpu: Quantity,
    pub memory: Quantity,
    pub ephemeral_storage: Quantity,
}

/// Profile of containers that state none (`--seccomp-default`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SeccompDefault {
    #[default]
    Unconfined,
    RuntimeDefault,
}

/// Whether kernel (5.12) and runtime can make whole mount trees read-only.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum RecursiveReadOnly {
    #[default]
    Unsupported,
    Supported,
}

/// Where pods resolve names.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DnsSettings {
    /// `--cluster-dns`
    pub servers: Vec<String>,
    /// `--cluster-domain`; empty adds no search paths.
    pub domain: String,
    /// Text of the file that `--resolv-conf` names; `None` if that setting is the empty string.
    pub host_resolv_conf: Option<String>,
}

/// The node as pods see it; read once at the start and when the host changes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NodeFacts {
    pub node_name: String,
    /// The kernel's host name, which hostNetwork pods share.
    pub hostname: String,
    pub host_ips: Vec<IpAddr>,
    pub site: Site,
    pub allocatable: Allocatable,
    /// Physical memory, for `oom_score_adj`.
    pub memory_bytes: u64,
    /// `--pod-max-pids`; `None` is no limit.
    pub pod_pids_max: Option<i64>,
    pub seccomp_default: SeccompDefault,
    pub recursive_read_only: RecursiveReadOnly,
    pub selinux: Selinux,
    pub dns: DnsSettings,
    pub pod_network: PodNetwork,
    /// `--allowed-unsafe-sysctls`: names, or prefixes that end in `*`.
    pub allowed_unsafe_sysctls: Vec<String>,
    /// Major and minor version of the running kernel: some sysctls are safe only from one on.
    pub kernel: (u32, u32),
}

/// Where the machine is, as its provider's metadata say.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Site {
    /// Of the Node.
    pub labels: Vec<(&'static str, String)>,
    /// Type (`ExternalIP`, `InternalDNS` …) and address, beside the machine's own.
    pub addresses: Vec<(&'static str, String)>,
}

/// Finds the objects that a pod refers to, within the pod's own origin.
pub trait References {
    fn config_map(&self, namespace: &str, name: &str) -> Option<Arc<Object>>;
    fn secret(&self, namespace: &str, name: &str) -> Option<Arc<Object>>;
}

/// Entries of a map of strings in an object's body (`data` of a ConfigMap), in key order.
pub(super) fn text_entries<'a>(
    object: &'a Object,
    field: &str,
) -> impl Iterator<Item = (&'a str, &'a str)> {
    let entries = object.body.get(field).and_then(Value::as_object);
    entries
        .into_iter()
        .flatten()
        .filter_map(|(key, value)| Some((key.as_str(), value.as_str()?)))
}
