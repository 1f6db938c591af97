//! The pods' network: the node's own bridge, or what a CNI configuration says.
//!
//! ```text
//!           lease ──► (caller records it) ──► attach ──────────► … pod runs … ──► release
//! bridge    memory                            links, nft                          nft, links
//! cni       nothing                           record, ADD …                       DEL …, record away
//! ```
//!
//! New pods get theirs as the flags say. Each is released by what attached it, whichever is in use
//! by then: the bridge knows its pods from the sandbox records, CNI from records of its own.

mod bridge;
pub mod cni;
mod conntrack;
pub mod firewall;
mod ipam;
mod keeper;
mod links;
mod nft;
mod rules;

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::BorrowedFd;
use std::path::Path;

pub use bridge::{Bridge, Lease, bridge_name};
pub use cni::Cni;
pub use ipam::Subnet;
pub use keeper::keep;
pub use links::outer_address;
pub use rules::Published;

use crate::os::netlink::Netlink;
use crate::world::{PodNetwork, Protocol, SandboxConfig, Uid};
use rules::Table;

/// Why the network could not be given, by what the caller does next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NetworkError {
    /// The pod asks for what cannot be given until somebody changes something: a hostPort that
    /// another pod has, an IPv6 hostIP.
    Config(String),
    /// `nft` is not installed: hostPorts and masquerade do not work, all else does.
    NftMissing(String),
    /// Retried.
    Failed(String),
}

impl fmt::Display for NetworkError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            NetworkError::Config(text)
            | NetworkError::NftMissing(text)
            | NetworkError::Failed(text) => f.write_str(text),
        }
    }
}

impl std::error::Error for NetworkError {}

/// The node's network. Shared by threads; every method but `lease` and `adopt` may block.
pub struct Network {
    bridge: Bridge,
    cni: Cni,
}

impl Network {
    pub fn new(bridge: Bridge, cni: Cni) -> Network {
        Network { bridge, cni }
    }

    /// What new pods can have now.
    pub fn state(&self) -> PodNetwork {
        self.cni.state()
    }

    /// The bridge's address, where there is one.
    pub fn gateway(&self) -> Ipv4Addr {
        self.bridge.gateway()
    }

    /// What the pod will have, if that is known beforehand. Record it before `attach`.
    /// Errors: as the bridge's.
    pub fn lease(&self, pod: &SandboxConfig) -> Result<Option<Lease>, NetworkError> {
        if self.cni.is_on() {
            return Ok(None);
        }
        self.bridge.lease(&pod.uid, &pod.ports).map(Some)
    }

    /// Takes a recorded lease over, in memory. `false`: the sandbox must be made anew.
    pub fn adopt(&self, uid: &Uid, lease: &Lease) -> bool {
        self.bridge.adopt(uid, lease)
    }

    /// Gives the pod its network and returns the addresses that no lease has named before.
    ///
    /// `namespace`: descriptor of the pod's `/proc/PID/ns/net`. Repeating it after a crash works.
    pub fn attach(
        &self,
        pod: &SandboxConfig,
        lease: Option<&Lease>,
        namespace: BorrowedFd<'_>,
    ) -> Result<Vec<IpAddr>, NetworkError> {
        match lease {
            Some(lease) => {
                self.bridge.attach(&pod.uid, lease, namespace)?;
                Ok(Vec::new())
            }
            None => self.cni.attach(pod, namespace),
        }
    }

    /// Takes back what the pod has of it; success if that is nothing. `namespace`: if it still is.
    pub fn release(
        &self,
        uid: &Uid,
        namespace: Option<BorrowedFd<'_>>,
    ) -> Result<(), NetworkError> {
        let bridge = self.bridge.release(uid);
        bridge.and(self.cni.release(uid, namespace))
    }

    /// Brings the kernel to what the adopted leases say; once after recovery. Returns the pods that
    /// have something to be released, also after a reboot.
    pub fn restore(&self) -> Vec<Uid> {
        if let Err(error) = self.bridge.restore() {
            log::warn!("restore the pod network: {error}; again with the next pod");
        }
        self.cni.attached()
    }

    /// Removes what is no pod's. For `--exit-stops-pods`, after all pods are gone.
    pub fn remove_all(&self) -> Result<(), NetworkError> {
        self.bridge.remove_all()
    }
}

/// Eight hex digits that tell this node's bridge, veths and nft table from another's on the same
/// kernel: the hash of where ROOT lies.
pub fn instance_id(root: &Path) -> String {
    let root = std::fs::canonicalize(root).unwrap_or_else(|_| root.to_owned());
    let text = root.to_string_lossy();
    let hash = ring::digest::digest(&ring::digest::SHA256, text.as_bytes());
    hash.as_ref()[..4]
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

/// Whether nft and kernel take rules like the pod network's; nothing is made.
/// Errors: as `nft::run`.
pub fn probe_nft(program: &str) -> Result<(), NetworkError> {
    let port = |host_ip, protocol| Published {
        host_ip,
        protocol,
        host_port: 80,
        pod_ip: Ipv4Addr::LOCALHOST,
        pod_port: 80,
    };
    let uid = Uid::new("check").expect("a safe name");
    let ports = vec![
        port(None, Protocol::Tcp),
        port(Some(Ipv4Addr::LOCALHOST), Protocol::Udp),
    ];
    let table = Table {
        name: "lowtide-check",
        bridge: "lt-check",
        subnet: Subnet::parse("10.88.0.0/24").expect("a valid range"),
        published: &BTreeMap::from([(uid, ports)]),
    };
    nft::run(program, &["-c", "-f", "-"], &table.script()).map(drop)
}

fn open() -> Result<Netlink, NetworkError> {
    Netlink::open().map_err(|error| failed("open", "rtnetlink socket", &error))
}

fn failed(operation: &str, object: &str, error: &io::Error) -> NetworkError {
    NetworkError::Failed(format!("{operation} {object}: {error}"))
}
