//! The network's pieces in the kernel: the node's bridge, one veth pair for each pod.
//!
//! ```text
//!   host namespace                                     pod's namespace
//!   lt-<id> (bridge, gateway address) ── lt<id>-<host part>  ═══════  eth0, default via gateway
//! ```
//!
//! Every name carries the instance id, so that two nodes on one kernel never meet. The host's end
//! of a veth dies with the pod's namespace; removing one by hand is only for what a crash left.

use std::io;
use std::net::Ipv4Addr;
use std::os::fd::{AsRawFd, BorrowedFd};

use super::ipam::Subnet;
use crate::os::netlink::Netlink;
use crate::os::netlink::message::*;

/// Index of the loopback interface in every network namespace (include/net/net_namespace.h).
const LOOPBACK_INDEX: u32 = 1;
/// The interface every pod sees, as with any CNI plug-in.
pub const POD_INTERFACE: &str = "eth0";

// The errno values that steer us (errno(3), the same on all our architectures).
const ENOENT: i32 = 2;
const EEXIST: i32 = 17;
const ENODEV: i32 = 19;

/// An address some interface of the host has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostAddress {
    pub index: u32,
    pub address: Ipv4Addr,
    pub prefix: u8,
}

/// A locally administered MAC that is the address in other clothes, so that it is as stable as the
/// lease: an address reused by a new pod makes no stale ARP entry.
pub fn mac_of(address: Ipv4Addr) -> [u8; 6] {
    let [a, b, c, d] = address.octets();
    [0x0a, 0x58, a, b, c, d]
}

/// Interface index by name, or `None`.
pub fn index_of(netlink: &mut Netlink, name: &str) -> io::Result<Option<u32>> {
    let asked = Message::link(RTM_GETLINK, 0, &named(name));
    match netlink.get(&asked, |link| link.index()) {
        Err(error) if is(&error, ENODEV) => Ok(None),
        outcome => outcome,
    }
}

/// Name of an interface by index; for messages.
pub fn name_of(netlink: &mut Netlink, index: u32) -> Option<String> {
    let asked = Message::link(RTM_GETLINK, index, &Attributes::new());
    let name = netlink.get(&asked, |link| {
        let name = link.attribute(IFLA_IFNAME)?.strip_suffix(&[0])?;
        String::from_utf8(name.to_vec()).ok()
    });
    name.ok()?
}

/// All IPv4 addresses of the namespace.
pub fn addresses(netlink: &mut Netlink) -> io::Result<Vec<HostAddress>> {
    let asked = Message::address(RTM_GETADDR, 0, 0, &Attributes::new());
    netlink.dump(&asked, |object| {
        let octets: [u8; 4] = object.attribute(IFA_LOCAL)?.try_into().ok()?;
        Some(HostAddress {
            index: object.index()?,
            address: octets.into(),
            prefix: object.prefix()?,
        })
    })
}

/// The first of this machine's that others may know it by, and none of the pods' network.
pub fn outer_address(pods: Subnet) -> Option<Ipv4Addr> {
    let all = addresses(&mut Netlink::open().ok()?).ok()?;
    first_outer(&all, pods)
}

fn first_outer(all: &[HostAddress], pods: Subnet) -> Option<Ipv4Addr> {
    let mut all = all.iter().map(|one| one.address);
    all.find(|ip| !ip.is_loopback() && !ip.is_link_local() && !pods.contains(*ip))
}

/// Makes the bridge (up, MAC fixed so that it does not follow its first port) and returns its index.
pub fn add_bridge(netlink: &mut Netlink, name: &str, gateway: Ipv4Addr) -> io::Result<u32> {
    let info = Attributes::new().with_name(IFLA_INFO_KIND, "bridge");
    let link = named(name)
        .with(IFLA_ADDRESS, &mac_of(gateway))
        .with_list(IFLA_LINKINFO, &info);
    let made = Message::link_up(RTM_NEWLINK, 0, &link);
    match netlink.change(&made, NLM_F_CREATE | NLM_F_EXCL) {
        Err(error) if is(&error, EEXIST) => {
            netlink.change(&Message::link_up(RTM_NEWLINK, 0, &named(name)), 0)?;
        }
        outcome => outcome?,
    }
    index_of(netlink, name)?.ok_or_else(|| io::Error::from_raw_os_error(ENODEV))
}

pub fn add_address(
    netlink: &mut Netlink,
    index: u32,
    address: Ipv4Addr,
    subnet: Subnet,
) -> io::Result<()> {
    let attributes = Attributes::new()
        .with_ip(IFA_LOCAL, address)
        .with_ip(IFA_ADDRESS, address)
        .with_ip(IFA_BROADCAST, subnet.broadcast());
    let message = Message::address(RTM_NEWADDR, index, subnet.prefix(), &attributes);
    netlink.change(&message, NLM_F_CREATE | NLM_F_REPLACE)
}

pub fn remove_address(netlink: &mut Netlink, address: &HostAddress) -> io::Result<()> {
    let attributes = Attributes::new().with_ip(IFA_LOCAL, address.address);
    let message = Message::address(RTM_DELADDR, address.index, address.prefix, &attributes);
    netlink.change(&message, 0)
}

/// Removes an interface; success if there is none.
pub fn remove(netlink: &mut Netlink, name: &str) -> io::Result<()> {
    match netlink.change(&Message::link(RTM_DELLINK, 0, &named(name)), 0) {
        Err(error) if is(&error, ENODEV) || is(&error, ENOENT) => Ok(()),
        outcome => outcome,
    }
}

/// What one pod's pair is made from.
#[derive(Clone, Debug)]
pub struct Pair<'a> {
    pub host_name: &'a str,
    pub bridge_index: u32,
    pub address: Ipv4Addr,
    pub subnet: Subnet,
}

/// Makes the pair with `eth0` born inside the pod's namespace, then brings the pod's end up with
/// its address and default route.
pub fn add_pair(
    netlink: &mut Netlink,
    namespace: BorrowedFd<'_>,
    pair: &Pair<'_>,
) -> io::Result<()> {
    // Not up yet: an end whose peer is not linked to it refuses (ENOTCONN).
    let inside = named(POD_INTERFACE)
        .with(IFLA_ADDRESS, &mac_of(pair.address))
        .with_number(IFLA_NET_NS_FD, namespace.as_raw_fd() as u32);
    let inside = Message::link(RTM_NEWLINK, 0, &inside);
    let data = Attributes::new().with(VETH_INFO_PEER, inside.payload());
    let info = Attributes::new()
        .with_name(IFLA_INFO_KIND, "veth")
        .with_list(IFLA_INFO_DATA, &data);
    let outside = named(pair.host_name)
        .with_number(IFLA_MASTER, pair.bridge_index)
        .with_list(IFLA_LINKINFO, &info);
    let outside = Message::link_up(RTM_NEWLINK, 0, &outside);
    let create = NLM_F_CREATE | NLM_F_EXCL;
    match netlink.change(&outside, create) {
        // The name is derived from an address leased to this pod alone: a crash left it.
        Err(error) if is(&error, EEXIST) => {
            remove(netlink, pair.host_name)?;
            netlink.change(&outside, create)?;
        }
        outcome => outcome?,
    }
    set_hairpin(netlink, pair.host_name)?;
    set_up_inside(namespace, pair)
}

/// A pod reaches itself through its own hostPort even where bridged packets pass netfilter.
fn set_hairpin(netlink: &mut Netlink, name: &str) -> io::Result<()> {
    let data = Attributes::new().with(IFLA_BRPORT_MODE, &[1]);
    let info = Attributes::new()
        .with_name(IFLA_INFO_SLAVE_KIND, "bridge")
        .with_list(IFLA_INFO_SLAVE_DATA, &data);
    let link = named(name).with_list(IFLA_LINKINFO, &info);
    netlink.change(&Message::link(RTM_NEWLINK, 0, &link), 0)
}

/// Brings `lo` of a pod up. Returns the way into its namespace.
pub fn set_loopback_up(namespace: BorrowedFd<'_>) -> io::Result<Netlink> {
    let mut netlink = Netlink::open_in(namespace)?;
    let loopback = Message::link_up(RTM_NEWLINK, LOOPBACK_INDEX, &Attributes::new());
    netlink.change(&loopback, 0)?;
    Ok(netlink)
}

fn set_up_inside(namespace: BorrowedFd<'_>, pair: &Pair<'_>) -> io::Result<()> {
    let mut netlink = set_loopback_up(namespace)?;
    let index = index_of(&mut netlink, POD_INTERFACE)?
        .ok_or_else(|| io::Error::from_raw_os_error(ENODEV))?;
    let interface = Message::link_up(RTM_NEWLINK, index, &Attributes::new());
    netlink.change(&interface, 0)?;
    add_address(&mut netlink, index, pair.address, pair.subnet)?;
    let route = Attributes::new()
        .with_ip(RTA_GATEWAY, pair.subnet.gateway())
        .with_number(RTA_OIF, index);
    let route = Message::default_route(RTM_NEWROUTE, &route);
    netlink.change(&route, NLM_F_CREATE | NLM_F_REPLACE)
}

fn named(name: &str) -> Attributes {
    Attributes::new().with_name(IFLA_IFNAME, name)
}

fn is(error: &io::Error, errno: i32) -> bool {
    error.raw_os_error() == Some(errno)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mac_is_local_unicast_and_follows_the_address() {
        let mac = mac_of(Ipv4Addr::new(10, 88, 0, 2));
        assert_eq!(mac, [0x0a, 0x58, 10, 88, 0, 2]);
        assert_eq!(mac[0] & 0b11, 0b10);
    }

    #[test]
    fn others_know_the_machine_by_none_of_its_inner_addresses() {
        let pods = Subnet::parse("10.88.0.0/24").unwrap();
        let all = [
            "127.0.0.1",
            "169.254.3.4",
            "10.88.0.1",
            "192.168.7.2",
            "10.0.0.1",
        ];
        let all = all.map(|address| HostAddress {
            index: 1,
            address: address.parse().unwrap(),
            prefix: 24,
        });
        assert_eq!(first_outer(&all, pods), Some([192, 168, 7, 2].into()));
        assert_eq!(first_outer(&all[..3], pods), None);
    }
}
