use netlink_packet_core::{Emitable, NetlinkHeader, NetlinkMessage, NetlinkPayload};
use netlink_packet_route::address::{AddressAttribute, AddressMessage};
use netlink_packet_route::link::{
    InfoBridgePort, InfoData, InfoKind, InfoPortData, InfoPortKind, InfoVeth, LinkAttribute,
    LinkFlags, LinkInfo, LinkMessage,
};
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteHeader, RouteMessage, RouteProtocol, RouteScope, RouteType,
};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use proptest::prelude::*;

use super::*;

/// The same message as another implementation writes it, without the flag that marks nested
/// attributes, which the kernel does not ask for.
fn oracle(message: RouteNetlinkMessage, flags: u16, sequence: u32) -> Vec<u8> {
    let mut header = NetlinkHeader::default();
    header.flags = NLM_F_REQUEST | flags;
    header.sequence_number = sequence;
    let mut request = NetlinkMessage::new(header, NetlinkPayload::from(message));
    request.finalize();
    let mut bytes = vec![0; request.buffer_len()];
    request.emit(&mut bytes);
    bytes
}

fn link(up: LinkFlags, attributes: Vec<LinkAttribute>) -> LinkMessage {
    let mut link = LinkMessage::default();
    (link.header.flags, link.header.change_mask) = (up, up);
    link.attributes = attributes;
    link
}

fn without_nested_flag(mut bytes: Vec<u8>, kinds: &[u16]) -> Vec<u8> {
    for at in (0..bytes.len().saturating_sub(3)).step_by(4) {
        let kind = u16::from_ne_bytes([bytes[at + 2], bytes[at + 3]]);
        if kind & 0x8000 != 0 && kinds.contains(&(kind & KIND_MASK)) {
            bytes[at + 2..at + 4].copy_from_slice(&(kind & KIND_MASK).to_ne_bytes());
        }
    }
    bytes
}

const NESTED: [u16; 4] = [
    IFLA_LINKINFO,
    IFLA_INFO_DATA,
    IFLA_INFO_SLAVE_DATA,
    VETH_INFO_PEER,
];

#[test]
fn a_bridge_is_asked_for_as_others_ask() {
    let info = Attributes::new().with_name(IFLA_INFO_KIND, "bridge");
    let ours = Attributes::new()
        .with_name(IFLA_IFNAME, "lt-1")
        .with(IFLA_ADDRESS, &[2, 0, 0, 0, 0, 1])
        .with_list(IFLA_LINKINFO, &info);
    let ours = Message::link_up(RTM_NEWLINK, 0, &ours).request(NLM_F_CREATE, 7);
    let theirs = link(
        LinkFlags::Up,
        vec![
            LinkAttribute::IfName("lt-1".into()),
            LinkAttribute::Address(vec![2, 0, 0, 0, 0, 1]),
            LinkAttribute::LinkInfo(vec![LinkInfo::Kind(InfoKind::Bridge)]),
        ],
    );
    let theirs = oracle(RouteNetlinkMessage::NewLink(theirs), NLM_F_CREATE, 7);
    assert_eq!(ours, without_nested_flag(theirs, &NESTED));
}

#[test]
fn a_pair_is_asked_for_as_others_ask() {
    let inside = Attributes::new()
        .with_name(IFLA_IFNAME, "eth0")
        .with_number(IFLA_NET_NS_FD, 9);
    let inside = Message::link(RTM_NEWLINK, 0, &inside);
    let data = Attributes::new().with(VETH_INFO_PEER, inside.payload());
    let info = Attributes::new()
        .with_name(IFLA_INFO_KIND, "veth")
        .with_list(IFLA_INFO_DATA, &data);
    let ours = Attributes::new()
        .with_name(IFLA_IFNAME, "lt1-2")
        .with_number(IFLA_MASTER, 4)
        .with_list(IFLA_LINKINFO, &info);
    let ours = Message::link_up(RTM_NEWLINK, 0, &ours).request(NLM_F_EXCL, 1);
    let peer = link(
        LinkFlags::empty(),
        vec![
            LinkAttribute::IfName("eth0".into()),
            LinkAttribute::NetNsFd(9),
        ],
    );
    let theirs = link(
        LinkFlags::Up,
        vec![
            LinkAttribute::IfName("lt1-2".into()),
            LinkAttribute::Controller(4),
            LinkAttribute::LinkInfo(vec![
                LinkInfo::Kind(InfoKind::Veth),
                LinkInfo::Data(InfoData::Veth(InfoVeth::Peer(peer))),
            ]),
        ],
    );
    let theirs = oracle(RouteNetlinkMessage::NewLink(theirs), NLM_F_EXCL, 1);
    assert_eq!(ours, without_nested_flag(theirs, &NESTED));
}

#[test]
fn hairpin_is_asked_for_as_others_ask() {
    let data = Attributes::new().with(IFLA_BRPORT_MODE, &[1]);
    let info = Attributes::new()
        .with_name(IFLA_INFO_SLAVE_KIND, "bridge")
        .with_list(IFLA_INFO_SLAVE_DATA, &data);
    let ours = Attributes::new()
        .with_name(IFLA_IFNAME, "p")
        .with_list(IFLA_LINKINFO, &info);
    let ours = Message::link(RTM_NEWLINK, 0, &ours).request(0, 1);
    let theirs = link(
        LinkFlags::empty(),
        vec![
            LinkAttribute::IfName("p".into()),
            LinkAttribute::LinkInfo(vec![
                LinkInfo::PortKind(InfoPortKind::Bridge),
                LinkInfo::PortData(InfoPortData::BridgePort(vec![InfoBridgePort::HairpinMode(
                    true,
                )])),
            ]),
        ],
    );
    let theirs = oracle(RouteNetlinkMessage::NewLink(theirs), 0, 1);
    assert_eq!(ours, without_nested_flag(theirs, &NESTED));
}

#[test]
fn addresses_and_routes_are_asked_for_as_others_ask() {
    let ip = Ipv4Addr::new(10, 88, 0, 2);
    let last = Ipv4Addr::new(10, 88, 0, 255);
    let ours = Attributes::new()
        .with_ip(IFA_LOCAL, ip)
        .with_ip(IFA_ADDRESS, ip)
        .with_ip(IFA_BROADCAST, last);
    let ours = Message::address(RTM_NEWADDR, 3, 24, &ours).request(NLM_F_REPLACE, 2);
    let mut theirs = AddressMessage::default();
    theirs.header.family = AddressFamily::Inet;
    theirs.header.index = 3;
    theirs.header.prefix_len = 24;
    theirs.attributes = vec![
        AddressAttribute::Local(ip.into()),
        AddressAttribute::Address(ip.into()),
        AddressAttribute::Broadcast(last),
    ];
    let theirs = RouteNetlinkMessage::NewAddress(theirs);
    assert_eq!(ours, oracle(theirs, NLM_F_REPLACE, 2));

    let ours = Attributes::new()
        .with_ip(RTA_GATEWAY, ip)
        .with_number(RTA_OIF, 3);
    let ours = Message::default_route(RTM_NEWROUTE, &ours).request(NLM_F_CREATE, 3);
    let mut theirs = RouteMessage::default();
    theirs.header.address_family = AddressFamily::Inet;
    theirs.header.table = RouteHeader::RT_TABLE_MAIN;
    theirs.header.protocol = RouteProtocol::Boot;
    theirs.header.scope = RouteScope::Universe;
    theirs.header.kind = RouteType::Unicast;
    theirs.attributes = vec![
        RouteAttribute::Gateway(RouteAddress::Inet(ip)),
        RouteAttribute::Oif(3),
    ];
    assert_eq!(
        ours,
        oracle(RouteNetlinkMessage::NewRoute(theirs), NLM_F_CREATE, 3)
    );
}

#[test]
fn what_others_write_is_read() {
    let mut address = AddressMessage::default();
    address.header.family = AddressFamily::Inet;
    address.header.index = 5;
    address.header.prefix_len = 16;
    let ip = Ipv4Addr::new(10, 1, 2, 3);
    address.attributes = vec![
        AddressAttribute::Label("eth0".into()),
        AddressAttribute::Local(ip.into()),
    ];
    let bytes = oracle(RouteNetlinkMessage::NewAddress(address), 0, 4);
    let (sequence, part, rest) = part(&bytes).expect("a part");
    assert_eq!((sequence, rest), (4, &[][..]));
    let Part::Object(object) = part else {
        panic!("{part:?}")
    };
    assert_eq!(object.kind(), RTM_NEWADDR);
    assert_eq!((object.index(), object.prefix()), (Some(5), Some(16)));
    assert_eq!(object.attribute(IFA_LOCAL), Some(&ip.octets()[..]));
    assert_eq!(object.attribute(IFA_BROADCAST), None);
}

#[test]
fn errors_are_errno_and_zero_acknowledges() {
    let message = |kind: u16, code: i32| {
        let payload = code.to_ne_bytes().to_vec();
        Message { kind, payload }.request(0, 1)
    };
    assert_eq!(part(&message(NLMSG_ERROR, 0)).unwrap().1, Part::Done);
    assert_eq!(part(&message(NLMSG_ERROR, -17)).unwrap().1, Part::Error(17));
    assert_eq!(part(&message(NLMSG_DONE, 0)).unwrap().1, Part::Done);
    assert_eq!(part(&message(NLMSG_ERROR, i32::MIN)), None);
}

proptest! {
    #[test]
    fn no_bytes_make_the_reader_panic_or_stand_still(bytes: Vec<u8>) {
        let mut rest = bytes.as_slice();
        while let Some((_, part, after)) = part(rest) {
            if let Part::Object(object) = part {
                let _ = (object.index(), object.prefix(), object.attribute(IFLA_IFNAME));
            }
            prop_assert!(after.len() < rest.len());
            rest = after;
        }
    }
}
