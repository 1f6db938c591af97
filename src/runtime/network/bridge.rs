//! The node's own pod network: one bridge, a veth pair for each pod, one nft table.
//!
//! ```text
//! lease ──────► (caller records it) ──► attach ──► … pod runs … ──► release
//! memory only                           links, then nft if the pod has hostPorts
//! ```
//!
//! All links are made over rtnetlink in the calling thread (about 1.6 ms a pod, where CNI plug-ins
//! take 25 ms and more); only pods with hostPorts cost an `nft` process. Addresses are part of the
//! sandbox records: after a restart `restore` rebuilds pool and table from them. Touches nothing
//! whose name does not carry this node's instance id, except `net.ipv4.ip_forward`.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::net::Ipv4Addr;
use std::os::fd::BorrowedFd;
use std::sync::{Mutex, MutexGuard};

use event_listener::Event;
use serde::{Deserialize, Serialize};

use super::ipam::{Pool, Subnet};
use super::links::{self, Pair};
use super::rules::{self, Published, Table};
use super::{NetworkError, conntrack, failed, firewall, nft, open};
use crate::os::netlink::Netlink;
use crate::world::{PortMapping, Uid};

/// What a pod has of the network; part of its sandbox record.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lease {
    pub address: Ipv4Addr,
    pub published: Vec<Published>,
}

/// Shared by threads; every method but `lease` and `adopt` may block for milliseconds.
pub struct Bridge {
    bridge: String,
    table: String,
    /// Start of the veths' names.
    veth_prefix: String,
    subnet: Subnet,
    /// Name or path of `nft`.
    nft: String,
    state: Mutex<State>,
    /// Held while bridge and table are being changed, so that two pods do not do it twice.
    kernel: Mutex<Kernel>,
    /// The table could not be written.
    pub(super) failed: Event,
}

struct State {
    pool: Pool,
    published: BTreeMap<Uid, Vec<Published>>,
}

#[derive(Default)]
struct Kernel {
    bridge_index: Option<u32>,
    /// The table has been written.
    table_made: bool,
    /// It could not be written as the records say, and that was said.
    stale: bool,
    /// Looks for firewalls that are left: they come at boot, also after us, or not at all.
    looks_done: u8,
}

/// Tables of others change for many reasons.
const LOOKS_MAX: u8 = 20;

impl Bridge {
    /// `instance`: 8 hex digits of this node, part of every name.
    pub fn new(instance: &str, subnet: Subnet, nft: &str) -> Bridge {
        Bridge {
            bridge: bridge_name(instance),
            table: format!("lowtide-{instance}"),
            veth_prefix: format!("lt{instance}"),
            subnet,
            nft: nft.to_string(),
            state: Mutex::new(State {
                pool: Pool::new(subnet),
                published: BTreeMap::new(),
            }),
            kernel: Mutex::new(Kernel::default()),
            failed: Event::new(),
        }
    }

    /// The bridge's address: where pods reach the node itself.
    pub fn gateway(&self) -> Ipv4Addr {
        self.subnet.gateway()
    }

    /// Gives the pod an address and its hostPorts, in memory. Record it before `attach`.
    /// Errors: `Config` for a hostPort that another pod has; `Failed` if the range is exhausted.
    pub fn lease(&self, uid: &Uid, ports: &[PortMapping]) -> Result<Lease, NetworkError> {
        let mut state = self.state();
        let address = state
            .pool
            .lease(uid)
            .map_err(|error| NetworkError::Failed(error.to_string()))?;
        let published = Published::of_pod(ports, address).map_err(NetworkError::Config);
        let checked = published.and_then(|published| {
            match rules::conflict(&state.published, uid, &published) {
                None => Ok(published),
                Some((port, owner)) => Err(NetworkError::Config(format!(
                    "{port} is in use by pod {owner}"
                ))),
            }
        });
        match checked {
            Ok(published) => {
                if !published.is_empty() {
                    state.published.insert(uid.clone(), published.clone());
                }
                Ok(Lease { address, published })
            }
            Err(error) => {
                state.pool.release(uid);
                Err(error)
            }
        }
    }

    /// Takes a recorded lease over, in memory. `false` if the range has changed since or another
    /// pod has the address: the sandbox must be made anew.
    pub fn adopt(&self, uid: &Uid, lease: &Lease) -> bool {
        let mut state = self.state();
        let adopted = state.pool.adopt(uid, lease.address);
        if adopted && !lease.published.is_empty() {
            state.published.insert(uid.clone(), lease.published.clone());
        }
        adopted
    }

    /// Makes bridge (if needed), veth pair and rules for a leased pod. Blocking.
    ///
    /// `namespace`: descriptor of the pod's `/proc/PID/ns/net`. Repeating it after a crash works.
    pub fn attach(
        &self,
        uid: &Uid,
        lease: &Lease,
        namespace: BorrowedFd<'_>,
    ) -> Result<(), NetworkError> {
        let mut netlink = open()?;
        let mut made = self.add_pair(&mut netlink, lease, namespace);
        if made.is_err() {
            // The bridge may have been removed behind our back: look again, once.
            self.kernel().bridge_index = None;
            made = self.add_pair(&mut netlink, lease, namespace);
        }
        made?;
        if lease.published.is_empty() {
            return Ok(());
        }
        self.write_table().map_err(|error| match error {
            NetworkError::NftMissing(text) => {
                NetworkError::NftMissing(format!("pod {uid} has hostPorts: {text}"))
            }
            other => other,
        })?;
        conntrack::forget(&lease.published);
        Ok(())
    }

    /// Gives address and hostPorts of a pod back and removes what is left in the kernel. Blocking;
    /// success if the pod has nothing.
    pub fn release(&self, uid: &Uid) -> Result<(), NetworkError> {
        let (address, published) = {
            let mut state = self.state();
            let published = state.published.remove(uid);
            (state.pool.release(uid), published)
        };
        let removed = match address {
            None => Ok(()),
            Some(address) => open().and_then(|mut netlink| {
                let name = self.veth_name(address);
                links::remove(&mut netlink, &name)
                    .map_err(|error| failed("remove interface", &name, &error))
            }),
        };
        let unpublished = match published {
            Some(ports) => {
                let written = self.write_table();
                conntrack::forget(&ports);
                written
            }
            None => Ok(()),
        };
        removed.and(unpublished)
    }

    /// Brings the nft table to what the adopted leases say. Blocking; once after recovery.
    /// A no-op while no pod has ever needed a bridge.
    pub fn restore(&self) -> Result<(), NetworkError> {
        let idle = {
            let state = self.state();
            state.pool.is_empty() && state.published.is_empty()
        };
        if idle {
            return Ok(());
        }
        self.ensure_bridge(&mut open()?)?;
        Ok(())
    }

    /// Looks after the table: writes it again if somebody has removed it or it could not be written
    /// before. Blocking. `false`: in vain.
    pub(super) fn keep(&self) -> bool {
        let mut kernel = self.kernel();
        if kernel.bridge_index.is_none() {
            return true;
        }
        let gone = kernel.table_made && !nft::has_table(&self.table);
        if !gone && !kernel.stale {
            self.look_for_firewalls(&mut kernel);
            return true;
        }
        if !self.write_table_or_say(&mut kernel) {
            return false;
        }
        log::warn!("table ip {} was missing and is there again", self.table);
        let published = self.state().published.clone();
        published
            .values()
            .for_each(|ports| conntrack::forget(ports));
        true
    }

    /// Removes bridge and table. For `--exit-stops-pods`, after all pods are gone.
    pub fn remove_all(&self) -> Result<(), NetworkError> {
        let mut kernel = self.kernel();
        let nobody = BTreeMap::new();
        let table = match kernel.table_made || nft::has_table(&self.table) {
            true => nft::apply(&self.nft, &self.describe(&nobody).removal()),
            false => Ok(()),
        };
        let bridge = links::remove(&mut open()?, &self.bridge)
            .map_err(|error| failed("remove bridge", &self.bridge, &error));
        *kernel = Kernel::default();
        table.and(bridge)
    }

    fn add_pair(
        &self,
        netlink: &mut Netlink,
        lease: &Lease,
        namespace: BorrowedFd<'_>,
    ) -> Result<(), NetworkError> {
        let bridge_index = self.ensure_bridge(netlink)?;
        let name = self.veth_name(lease.address);
        let pair = Pair {
            host_name: &name,
            bridge_index,
            address: lease.address,
            subnet: self.subnet,
        };
        links::add_pair(netlink, namespace, &pair)
            .map_err(|error| failed("make interface", &name, &error))
    }

    /// Index of the bridge, made with its address, forwarding and masquerade if it is not known.
    fn ensure_bridge(&self, netlink: &mut Netlink) -> Result<u32, NetworkError> {
        let mut kernel = self.kernel();
        if let Some(index) = kernel.bridge_index {
            return Ok(index);
        }
        self.check_range_is_free(netlink)?;
        let index = self
            .make_bridge(netlink)
            .map_err(|error| failed("make bridge", &self.bridge, &error))?;
        enable_forwarding()?;
        kernel.bridge_index = Some(index);
        // Pods reach each other and the node without it; only pods with hostPorts must fail.
        self.write_table_or_say(&mut kernel);
        Ok(index)
    }

    fn make_bridge(&self, netlink: &mut Netlink) -> io::Result<u32> {
        let index = links::add_bridge(netlink, &self.bridge, self.gateway())?;
        self.hear_no_routers();
        for address in links::addresses(netlink)? {
            // Left by an agent with another --pod-cidr.
            if address.index == index && address.address != self.gateway() {
                links::remove_address(netlink, &address)?;
            }
        }
        links::add_address(netlink, index, self.gateway(), self.subnet)?;
        Ok(index)
    }

    /// A pod that says it is an IPv6 router is not believed: all that the node sends would go to it.
    fn hear_no_routers(&self) {
        let switch = format!("/proc/sys/net/ipv6/conf/{}/accept_ra", self.bridge);
        // A kernel without IPv6 has no such file.
        let heard = fs::read_to_string(&switch).is_ok_and(|text| text.trim() != "0");
        if heard && let Err(error) = fs::write(&switch, "0") {
            log::warn!(
                "a pod that says it is an IPv6 router will be believed: write {switch}: {error}"
            );
        }
    }

    /// Two interfaces with one range would swallow each other's packets.
    fn check_range_is_free(&self, netlink: &mut Netlink) -> Result<(), NetworkError> {
        let cannot = |error: io::Error| failed("list addresses of", "this host", &error);
        let own = links::index_of(netlink, &self.bridge).map_err(cannot)?;
        let clash = links::addresses(netlink)
            .map_err(cannot)?
            .into_iter()
            .filter(|address| Some(address.index) != own)
            .find(|address| self.subnet.overlaps(address.address, address.prefix));
        let Some(clash) = clash else {
            return Ok(());
        };
        let name = links::name_of(netlink, clash.index)
            .unwrap_or_else(|| format!("number {}", clash.index));
        Err(NetworkError::Config(format!(
            "pod network {} overlaps with {}/{} of interface {name}: choose another --pod-cidr",
            self.subnet, clash.address, clash.prefix
        )))
    }

    fn write_table(&self) -> Result<(), NetworkError> {
        self.write_table_locked(&mut self.kernel())
    }

    /// One transaction for the whole table. `route_localnet`, which lets the host's own loopback
    /// clients reach hostPorts, is on only while there are hostPorts and only behind the table's
    /// guard: without the guard a pod could reach services bound to 127.0.0.1 (CVE-2020-8558).
    fn write_table_locked(&self, kernel: &mut Kernel) -> Result<(), NetworkError> {
        let published = self.state().published.clone();
        if published.is_empty() {
            self.set_route_localnet("0");
        }
        let written = nft::apply(&self.nft, &self.describe(&published).script());
        kernel.stale = written.is_err();
        if written.is_err() {
            self.failed.notify(usize::MAX);
            if !nft::has_table(&self.table) {
                self.set_route_localnet("0");
            }
            return written;
        }
        kernel.table_made = true;
        if !published.is_empty() {
            self.set_route_localnet("1");
        }
        Ok(())
    }

    /// Says only the first of several failures. Returns whether it is written.
    fn write_table_or_say(&self, kernel: &mut Kernel) -> bool {
        let said = kernel.stale;
        match self.write_table_locked(kernel) {
            Ok(()) => return true,
            Err(error) if !said => {
                log::warn!("pods cannot reach beyond this node (no masquerade): {error}");
            }
            Err(error) => log::debug!("write table ip {}: {error}", self.table),
        }
        false
    }

    fn look_for_firewalls(&self, kernel: &mut Kernel) {
        if kernel.looks_done >= LOOKS_MAX {
            return;
        }
        kernel.looks_done += 1;
        for table in firewall::obstacles(&self.nft, &self.bridge) {
            kernel.looks_done = LOOKS_MAX;
            log::warn!("{}", firewall::advice(&table, &self.bridge));
        }
    }

    fn set_route_localnet(&self, value: &str) {
        let path = format!("/proc/sys/net/ipv4/conf/{}/route_localnet", self.bridge);
        // No bridge, nothing to guard: the file is missing then.
        if let Err(error) = fs::write(&path, value)
            && error.kind() != io::ErrorKind::NotFound
        {
            log::warn!("hostPorts do not answer on 127.0.0.1: write {path}: {error}");
        }
    }

    fn describe<'a>(&'a self, published: &'a BTreeMap<Uid, Vec<Published>>) -> Table<'a> {
        Table {
            name: &self.table,
            bridge: &self.bridge,
            subnet: self.subnet,
            published,
        }
    }

    /// At most 15 characters (IFNAMSIZ): prefix 10, dash, host part of the address in hex.
    fn veth_name(&self, address: Ipv4Addr) -> String {
        format!("{}-{:x}", self.veth_prefix, self.subnet.host_part(address))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("nobody panics while holding it")
    }

    fn kernel(&self) -> MutexGuard<'_, Kernel> {
        self.kernel.lock().expect("nobody panics while holding it")
    }
}

pub fn bridge_name(instance: &str) -> String {
    format!("lt-{instance}")
}

/// Routing between bridge and world needs the host to forward; said, since it is the host's.
fn enable_forwarding() -> Result<(), NetworkError> {
    const SWITCH: &str = "/proc/sys/net/ipv4/ip_forward";
    let text = fs::read_to_string(SWITCH).map_err(|error| failed("read", SWITCH, &error))?;
    if text.trim() == "1" {
        return Ok(());
    }
    fs::write(SWITCH, "1").map_err(|error| failed("write", SWITCH, &error))?;
    log::info!("net.ipv4.ip_forward was off; it is on now, for the pod network");
    Ok(())
}
