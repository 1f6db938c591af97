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
use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::{AsRawFd, BorrowedFd};

use rtnetlink::packet_core::{NLM_F_CREATE, NLM_F_EXCL, NLM_F_REPLACE};
use rtnetlink::packet_route::address::{AddressAttribute, AddressMessage};
use rtnetlink::packet_route::link::{
    InfoBridgePort, InfoData, InfoKind, InfoPortData, InfoPortKind, InfoVeth, LinkAttribute,
    LinkFlags, LinkInfo, LinkMessage,
};
use rtnetlink::packet_route::route::{
    RouteAddress, RouteAttribute, RouteMessage, RouteProtocol, RouteScope, RouteType,
};
use rtnetlink::packet_route::{AddressFamily, RouteNetlinkMessage};

use super::ipam::Subnet;
use super::netlink::Netlink;

/// Index of the loopback interface in every network namespace (include/net/net_namespace.h).
const LOOPBACK_INDEX: u32 = 1;
/// The interface every pod sees, as with any CNI plug-in.
const POD_INTERFACE: &str = "eth0";

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
    let answer = netlink.get(RouteNetlinkMessage::GetLink(named(name)));
    match answer {
        Err(error) if is(&error, ENODEV) => Ok(None),
        Err(error) => Err(error),
        Ok(objects) => Ok(objects.into_iter().find_map(|object| match object {
            RouteNetlinkMessage::NewLink(link) => Some(link.header.index),
            _ => None,
        })),
    }
}

/// Name of an interface by index; for messages.
pub fn name_of(netlink: &mut Netlink, index: u32) -> Option<String> {
    let mut link = LinkMessage::default();
    link.header.index = index;
    let objects = netlink.get(RouteNetlinkMessage::GetLink(link)).ok()?;
    objects.into_iter().find_map(|object| match object {
        RouteNetlinkMessage::NewLink(link) => {
            link.attributes
                .into_iter()
                .find_map(|attribute| match attribute {
                    LinkAttribute::IfName(name) => Some(name),
                    _ => None,
                })
        }
        _ => None,
    })
}

/// All IPv4 addresses of the namespace.
pub fn addresses(netlink: &mut Netlink) -> io::Result<Vec<HostAddress>> {
    let mut filter = AddressMessage::default();
    filter.header.family = AddressFamily::Inet;
    let objects = netlink.dump(RouteNetlinkMessage::GetAddress(filter))?;
    let address_of = |object| match object {
        RouteNetlinkMessage::NewAddress(message) => {
            let address = message
                .attributes
                .iter()
                .find_map(|attribute| match attribute {
                    AddressAttribute::Local(IpAddr::V4(address)) => Some(*address),
                    _ => None,
                })?;
            Some(HostAddress {
                index: message.header.index,
                address,
                prefix: message.header.prefix_len,
            })
        }
        _ => None,
    };
    Ok(objects.into_iter().filter_map(address_of).collect())
}

/// Makes the bridge (up, MAC fixed so that it does not follow its first port) and returns its index.
pub fn add_bridge(netlink: &mut Netlink, name: &str, gateway: Ipv4Addr) -> io::Result<u32> {
    let mut link = up(named(name));
    link.attributes.extend([
        LinkAttribute::Address(mac_of(gateway).to_vec()),
        LinkAttribute::LinkInfo(vec![LinkInfo::Kind(InfoKind::Bridge)]),
    ]);
    let flags = NLM_F_CREATE | NLM_F_EXCL;
    match netlink.change(RouteNetlinkMessage::NewLink(link), flags) {
        Err(error) if is(&error, EEXIST) => {
            netlink.change(RouteNetlinkMessage::NewLink(up(named(name))), 0)?;
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
    let mut message = AddressMessage::default();
    message.header.family = AddressFamily::Inet;
    message.header.index = index;
    message.header.prefix_len = subnet.prefix();
    message.attributes.extend([
        AddressAttribute::Local(address.into()),
        AddressAttribute::Address(address.into()),
        AddressAttribute::Broadcast(subnet.broadcast()),
    ]);
    let flags = NLM_F_CREATE | NLM_F_REPLACE;
    netlink.change(RouteNetlinkMessage::NewAddress(message), flags)
}

pub fn remove_address(netlink: &mut Netlink, address: &HostAddress) -> io::Result<()> {
    let mut message = AddressMessage::default();
    message.header.family = AddressFamily::Inet;
    message.header.index = address.index;
    message.header.prefix_len = address.prefix;
    message
        .attributes
        .push(AddressAttribute::Local(address.address.into()));
    netlink.change(RouteNetlinkMessage::DelAddress(message), 0)
}

/// Removes an interface; success if there is none.
pub fn remove(netlink: &mut Netlink, name: &str) -> io::Result<()> {
    match netlink.change(RouteNetlinkMessage::DelLink(named(name)), 0) {
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
    let mut inside = named(POD_INTERFACE);
    inside.attributes.extend([
        LinkAttribute::Address(mac_of(pair.address).to_vec()),
        LinkAttribute::NetNsFd(namespace.as_raw_fd()),
    ]);
    let mut outside = up(named(pair.host_name));
    outside.attributes.extend([
        LinkAttribute::Controller(pair.bridge_index),
        LinkAttribute::LinkInfo(vec![
            LinkInfo::Kind(InfoKind::Veth),
            LinkInfo::Data(InfoData::Veth(InfoVeth::Peer(inside))),
        ]),
    ]);
    let create = NLM_F_CREATE | NLM_F_EXCL;
    let made = netlink.change(RouteNetlinkMessage::NewLink(outside.clone()), create);
    match made {
        // The name is derived from an address leased to this pod alone: a crash left it.
        Err(error) if is(&error, EEXIST) => {
            remove(netlink, pair.host_name)?;
            netlink.change(RouteNetlinkMessage::NewLink(outside), create)?;
        }
        outcome => outcome?,
    }
    set_hairpin(netlink, pair.host_name)?;
    set_up_inside(namespace, pair)
}

/// A pod reaches itself through its own hostPort even where bridged packets pass netfilter.
fn set_hairpin(netlink: &mut Netlink, name: &str) -> io::Result<()> {
    let mut link = named(name);
    link.attributes.push(LinkAttribute::LinkInfo(vec![
        LinkInfo::PortKind(InfoPortKind::Bridge),
        LinkInfo::PortData(InfoPortData::BridgePort(vec![InfoBridgePort::HairpinMode(
            true,
        )])),
    ]));
    netlink.change(RouteNetlinkMessage::NewLink(link), 0)
}

fn set_up_inside(namespace: BorrowedFd<'_>, pair: &Pair<'_>) -> io::Result<()> {
    let mut netlink = Netlink::open_in(namespace)?;
    let mut loopback = up(LinkMessage::default());
    loopback.header.index = LOOPBACK_INDEX;
    netlink.change(RouteNetlinkMessage::NewLink(loopback), 0)?;
    let index = index_of(&mut netlink, POD_INTERFACE)?
        .ok_or_else(|| io::Error::from_raw_os_error(ENODEV))?;
    let mut interface = up(LinkMessage::default());
    interface.header.index = index;
    netlink.change(RouteNetlinkMessage::NewLink(interface), 0)?;
    add_address(&mut netlink, index, pair.address, pair.subnet)?;
    let mut route = RouteMessage::default();
    route.header.address_family = AddressFamily::Inet;
    // Table, protocol and scope as `ip route add default` sets them.
    route.header.table = rtnetlink::packet_route::route::RouteHeader::RT_TABLE_MAIN;
    route.header.protocol = RouteProtocol::Boot;
    route.header.scope = RouteScope::Universe;
    route.header.kind = RouteType::Unicast;
    route.attributes.extend([
        RouteAttribute::Gateway(RouteAddress::Inet(pair.subnet.gateway())),
        RouteAttribute::Oif(index),
    ]);
    netlink.change(
        RouteNetlinkMessage::NewRoute(route),
        NLM_F_CREATE | NLM_F_REPLACE,
    )
}

fn named(name: &str) -> LinkMessage {
    let mut link = LinkMessage::default();
    link.attributes
        .push(LinkAttribute::IfName(name.to_string()));
    link
}

fn up(mut link: LinkMessage) -> LinkMessage {
    link.header.flags |= LinkFlags::Up;
    link.header.change_mask |= LinkFlags::Up;
    link
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
}
