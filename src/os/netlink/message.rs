//! rtnetlink messages as bytes: what a pod network says to the kernel and reads from it, no more.
//!
//! ```text
//!   header (nlmsghdr) │ what it is about (ifinfomsg, ifaddrmsg, rtmsg) │ attributes, which may nest
//! ```
//!
//! Pure. Numbers are in the machine's byte order, everything starts on four bytes. Bytes from the
//! kernel are read as if they could be wrong: what does not fit ends the reading.
//! Source: netlink(7), rtnetlink(7), linux/netlink.h, linux/rtnetlink.h, linux/if_link.h,
//! linux/netfilter/nfnetlink.h.

use std::net::Ipv4Addr;

/// A link, its attributes `IFLA_*`.
pub const RTM_NEWLINK: u16 = 16;
pub const RTM_DELLINK: u16 = 17;
pub const RTM_GETLINK: u16 = 18;
/// An address, its attributes `IFA_*`.
pub const RTM_NEWADDR: u16 = 20;
pub const RTM_DELADDR: u16 = 21;
pub const RTM_GETADDR: u16 = 22;
/// A route, its attributes `RTA_*`.
pub const RTM_NEWROUTE: u16 = 24;

pub const NLM_F_REQUEST: u16 = 0x1;
pub const NLM_F_ACK: u16 = 0x4;
pub const NLM_F_DUMP: u16 = 0x300;
pub const NLM_F_REPLACE: u16 = 0x100;
pub const NLM_F_EXCL: u16 = 0x200;
pub const NLM_F_CREATE: u16 = 0x400;

pub const IFLA_ADDRESS: u16 = 1;
pub const IFLA_IFNAME: u16 = 3;
pub const IFLA_MASTER: u16 = 10;
pub const IFLA_LINKINFO: u16 = 18;
pub const IFLA_NET_NS_FD: u16 = 28;
/// Inside `IFLA_LINKINFO`.
pub const IFLA_INFO_KIND: u16 = 1;
pub const IFLA_INFO_DATA: u16 = 2;
pub const IFLA_INFO_SLAVE_KIND: u16 = 4;
pub const IFLA_INFO_SLAVE_DATA: u16 = 5;
/// Inside the data of a veth: a link of its own.
pub const VETH_INFO_PEER: u16 = 1;
/// Inside the data of a bridge's port: hairpin.
pub const IFLA_BRPORT_MODE: u16 = 4;

pub const IFA_ADDRESS: u16 = 1;
pub const IFA_LOCAL: u16 = 2;
pub const IFA_BROADCAST: u16 = 4;

pub const RTA_OIF: u16 = 4;
pub const RTA_GATEWAY: u16 = 5;

const NLMSG_NOOP: u16 = 1;
const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;

/// Bytes of nlmsghdr.
const HEADER_BYTES: usize = 16;
/// Bytes of an attribute's length and kind.
const ATTRIBUTE_BYTES: usize = 4;
/// An attribute's kind without the flags that say how it is written (NLA_TYPE_MASK).
const KIND_MASK: u16 = 0x3fff;

const AF_INET: u8 = 2;
const IFF_UP: u32 = 1;
// As `ip route add default` says it: the main table, made at boot, everywhere, unicast.
const RT_TABLE_MAIN: u8 = 254;
const RTPROT_BOOT: u8 = 3;
const RT_SCOPE_UNIVERSE: u8 = 0;
const RTN_UNICAST: u8 = 1;

/// A list of attributes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Attributes(Vec<u8>);

impl Attributes {
    pub fn new() -> Attributes {
        Attributes::default()
    }

    /// Adds one. `value` is at most 65,531 bytes, as all that we say is.
    pub fn with(mut self, kind: u16, value: &[u8]) -> Attributes {
        let length = u16::try_from(ATTRIBUTE_BYTES + value.len());
        let length = length.expect("attributes are short");
        self.0.extend(length.to_ne_bytes());
        self.0.extend(kind.to_ne_bytes());
        self.0.extend(value);
        self.0.resize(aligned(self.0.len()), 0);
        self
    }

    /// A text, ended by a zero.
    pub fn with_name(self, kind: u16, name: &str) -> Attributes {
        let value = [name.as_bytes(), &[0]].concat();
        self.with(kind, &value)
    }

    pub fn with_number(self, kind: u16, number: u32) -> Attributes {
        self.with(kind, &number.to_ne_bytes())
    }

    pub fn with_ip(self, kind: u16, ip: Ipv4Addr) -> Attributes {
        self.with(kind, &ip.octets())
    }

    pub fn with_list(self, kind: u16, list: &Attributes) -> Attributes {
        self.with(kind, &list.0)
    }
}

/// What a message is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    kind: u16,
    payload: Vec<u8>,
}

impl Message {
    /// A link by index (0: by its name), left as it is.
    pub fn link(kind: u16, index: u32, attributes: &Attributes) -> Message {
        Message::of_link(kind, index, 0, attributes)
    }

    /// A link that shall be up.
    pub fn link_up(kind: u16, index: u32, attributes: &Attributes) -> Message {
        Message::of_link(kind, index, IFF_UP, attributes)
    }

    /// ifinfomsg: family, pad, type, index, flags, which flags are meant.
    fn of_link(kind: u16, index: u32, flags: u32, attributes: &Attributes) -> Message {
        let mut payload = vec![0; 4];
        for number in [index, flags, flags] {
            payload.extend(number.to_ne_bytes());
        }
        Message::finished(kind, payload, attributes)
    }

    /// ifaddrmsg: family, prefix length, flags, scope, index of the link.
    pub fn address(kind: u16, index: u32, prefix: u8, attributes: &Attributes) -> Message {
        let mut payload = vec![AF_INET, prefix, 0, 0];
        payload.extend(index.to_ne_bytes());
        Message::finished(kind, payload, attributes)
    }

    /// rtmsg of the default route: family, lengths of destination and source, TOS, table,
    /// protocol, scope, type, flags.
    pub fn default_route(kind: u16, attributes: &Attributes) -> Message {
        let mut payload = vec![AF_INET, 0, 0, 0];
        payload.extend([RT_TABLE_MAIN, RTPROT_BOOT, RT_SCOPE_UNIVERSE, RTN_UNICAST]);
        payload.extend([0; 4]);
        Message::finished(kind, payload, attributes)
    }

    /// nfgenmsg: family, version, resource. The kind is of a subsystem (the upper byte).
    pub fn netfilter(kind: u16, attributes: &Attributes) -> Message {
        Message::finished(kind, vec![AF_INET, 0, 0, 0], attributes)
    }

    fn finished(kind: u16, mut payload: Vec<u8>, attributes: &Attributes) -> Message {
        payload.extend(&attributes.0);
        Message { kind, payload }
    }

    /// The message without its header, as the peer of a veth is described.
    pub fn payload(&self) -> &[u8] {
        &self.payload
    }

    /// The datagram that asks for it.
    pub fn request(&self, flags: u16, sequence: u32) -> Vec<u8> {
        let length = (HEADER_BYTES + self.payload.len()) as u32;
        let mut bytes = Vec::with_capacity(length as usize);
        bytes.extend(length.to_ne_bytes());
        bytes.extend(self.kind.to_ne_bytes());
        bytes.extend((NLM_F_REQUEST | flags).to_ne_bytes());
        bytes.extend(sequence.to_ne_bytes());
        // The kernel knows who we are by the socket.
        bytes.extend([0; 4]);
        bytes.extend(&self.payload);
        bytes
    }
}

/// One part of an answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Part<'a> {
    Object(Object<'a>),
    /// Acknowledged, or the end of a dump.
    Done,
    /// A positive errno.
    Error(i32),
    Nothing,
}

/// What the kernel says of a link, an address, or something of netfilter's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Object<'a> {
    kind: u16,
    payload: &'a [u8],
}

impl<'a> Object<'a> {
    pub fn kind(&self) -> u16 {
        self.kind
    }

    /// Of the link, or of the link that has the address.
    pub fn index(&self) -> Option<u32> {
        number_at(self.payload, 4)
    }

    /// Of an address.
    pub fn prefix(&self) -> Option<u8> {
        self.payload.get(1).copied()
    }

    /// The value of an attribute.
    pub fn attribute(&self, kind: u16) -> Option<&'a [u8]> {
        let fixed = match self.kind {
            RTM_NEWLINK => 16,
            RTM_NEWADDR => 8,
            kind if kind >> 8 != 0 => 4,
            _ => return None,
        };
        attribute(self.payload.get(fixed..)?, kind)
    }
}

/// The value of an attribute in a list, such as another's value.
pub fn attribute(mut list: &[u8], kind: u16) -> Option<&[u8]> {
    while !list.is_empty() {
        let length = usize::from(short_at(list, 0)?);
        let value = list.get(ATTRIBUTE_BYTES..length)?;
        if short_at(list, 2)? & KIND_MASK == kind {
            return Some(value);
        }
        list = list.get(aligned(length)..).unwrap_or_default();
    }
    None
}

/// Splits the first part off a datagram: its sequence number, what it is, and the rest.
/// `None` where the bytes are no message.
pub fn part(datagram: &[u8]) -> Option<(u32, Part<'_>, &[u8])> {
    let length = number_at(datagram, 0)? as usize;
    let payload = datagram.get(HEADER_BYTES..length)?;
    let sequence = number_at(datagram, 8)?;
    let part = match short_at(datagram, 4)? {
        NLMSG_NOOP => Part::Nothing,
        NLMSG_DONE => Part::Done,
        NLMSG_ERROR => match number_at(payload, 0)? as i32 {
            0 => Part::Done,
            errno => Part::Error(errno.checked_neg()?),
        },
        kind => Part::Object(Object { kind, payload }),
    };
    let rest = datagram.get(aligned(length)..).unwrap_or_default();
    Some((sequence, part, rest))
}

fn number_at(bytes: &[u8], at: usize) -> Option<u32> {
    let bytes = bytes.get(at..at + 4)?;
    Some(u32::from_ne_bytes(bytes.try_into().ok()?))
}

fn short_at(bytes: &[u8], at: usize) -> Option<u16> {
    let bytes = bytes.get(at..at + 2)?;
    Some(u16::from_ne_bytes(bytes.try_into().ok()?))
}

/// NLMSG_ALIGN, NLA_ALIGN.
fn aligned(length: usize) -> usize {
    length.next_multiple_of(4)
}

#[cfg(test)]
#[path = "message_tests.rs"]
mod tests;
