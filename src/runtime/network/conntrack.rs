//! UDP flows that the kernel remembers: where the first packet went, the others go, too, as long as
//! they come. A client that never pauses would not reach a pod that got its hostPort meanwhile.
//!
//! Source: linux/netfilter/nfnetlink_conntrack.h.

use std::io;

use crate::os::netlink::Netlink;
use crate::os::netlink::message::{self, Attributes, Message};
use crate::world::Protocol;

use super::rules::Published;

/// IPCTNL_MSG_CT_GET and _DELETE of NFNL_SUBSYS_CTNETLINK.
const CT_GET: u16 = 0x101;
const CT_DELETE: u16 = 0x102;
const CTA_TUPLE_ORIG: u16 = 1;
/// Inside a tuple, and inside that.
const CTA_TUPLE_PROTO: u16 = 2;
const CTA_PROTO_NUM: u16 = 1;
const CTA_PROTO_DST_PORT: u16 = 3;
const IPPROTO_UDP: u8 = 17;

/// Makes the kernel look at the rules again for flows to these ports. Blocking.
pub fn forget(published: &[Published]) {
    let udp = published
        .iter()
        .filter(|port| port.protocol == Protocol::Udp);
    let ports: Vec<[u8; 2]> = udp.map(|port| port.host_port.to_be_bytes()).collect();
    if ports.is_empty() {
        return;
    }
    // A kernel without nf_conntrack_netlink goes without: clients have to pause for 30 s.
    if let Err(error) = forget_ports(&ports) {
        log::debug!("forget UDP flows: {error}");
    }
}

fn forget_ports(ports: &[[u8; 2]]) -> io::Result<()> {
    let mut netlink = Netlink::open_netfilter()?;
    let all = Message::netfilter(CT_GET, &Attributes::new());
    let flows = netlink.dump(&all, |flow| {
        let first = flow.attribute(CTA_TUPLE_ORIG)?;
        let ends = message::attribute(first, CTA_TUPLE_PROTO)?;
        let port = message::attribute(ends, CTA_PROTO_DST_PORT)?;
        let udp = message::attribute(ends, CTA_PROTO_NUM)? == [IPPROTO_UDP];
        (udp && ports.iter().any(|wanted| wanted == port)).then(|| first.to_vec())
    })?;
    for first in flows {
        let flow = Attributes::new().with(CTA_TUPLE_ORIG, &first);
        if let Err(error) = netlink.change(&Message::netfilter(CT_DELETE, &flow), 0) {
            // Most likely it has just ended by itself.
            log::debug!("forget a UDP flow: {error}");
        }
    }
    Ok(())
}
