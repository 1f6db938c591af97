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
mod ipam;
mod links;
mod nft;
mod rules;

use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::BorrowedFd;

pub use bridge::{Bridge, Lease};
pub use cni::Cni;
pub use ipam::Subnet;
pub use links::outer_address;
pub use rules::Published;

use crate::os::netlink::Netlink;
use crate::world::{PodNetwork, SandboxConfig, Uid};

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

fn open() -> Result<Netlink, NetworkError> {
    Netlink::open().map_err(|error| failed("open", "rtnetlink socket", &error))
}

fn failed(operation: &str, object: &str, error: &io::Error) -> NetworkError {
    NetworkError::Failed(format!("{operation} {object}: {error}"))
}
