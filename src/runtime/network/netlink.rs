//! One rtnetlink conversation: send a request, read the kernel's answer, in the calling thread.
//!
//! The kernel answers a request before `sendto` returns, so there is nothing to wait for and no
//! reactor is needed; the caller is on the blocking pool only because it may wait for the rtnl
//! lock. Knows messages and errors; what they mean is `links`' affair.

use std::io;
use std::os::fd::BorrowedFd;

use rtnetlink::packet_core::{
    NLM_F_ACK, NLM_F_DUMP, NLM_F_REQUEST, NetlinkHeader, NetlinkMessage, NetlinkPayload,
};
use rtnetlink::packet_route::RouteNetlinkMessage;
use rtnetlink::sys::{Socket, SocketAddr, protocols::NETLINK_ROUTE};

use crate::os::netns;

/// Datagrams read for one request before we give up: a dump of 32 KiB parts never has more.
const ANSWER_PARTS_MAX: usize = 4096;

/// A socket in one network namespace.
pub struct Netlink {
    socket: Socket,
    sequence: u32,
}

impl Netlink {
    /// In the namespace of the calling thread.
    pub fn open() -> io::Result<Netlink> {
        let mut socket = Socket::new(NETLINK_ROUTE)?;
        socket.bind_auto()?;
        socket.connect(&SocketAddr::new(0, 0))?;
        // Errors need not carry a copy of the request back.
        socket.set_cap_ack(true)?;
        Ok(Netlink {
            socket,
            sequence: 0,
        })
    }

    /// In the namespace behind a descriptor of `/proc/PID/ns/net`.
    pub fn open_in(namespace: BorrowedFd<'_>) -> io::Result<Netlink> {
        netns::inside(namespace, Netlink::open)
    }

    /// Asks for a change (`flags` beyond request and acknowledge, such as `NLM_F_CREATE`).
    /// Errors: the kernel's errno.
    pub fn change(&mut self, message: RouteNetlinkMessage, flags: u16) -> io::Result<()> {
        self.ask(message, NLM_F_ACK | flags).map(drop)
    }

    /// Reads one object. Errors: the kernel's errno (`ENODEV` if there is none).
    pub fn get(&mut self, message: RouteNetlinkMessage) -> io::Result<Vec<RouteNetlinkMessage>> {
        self.ask(message, NLM_F_ACK)
    }

    /// Reads all objects of a kind.
    pub fn dump(&mut self, message: RouteNetlinkMessage) -> io::Result<Vec<RouteNetlinkMessage>> {
        self.ask(message, NLM_F_DUMP)
    }

    fn ask(
        &mut self,
        message: RouteNetlinkMessage,
        flags: u16,
    ) -> io::Result<Vec<RouteNetlinkMessage>> {
        self.sequence += 1;
        let mut header = NetlinkHeader::default();
        header.flags = NLM_F_REQUEST | flags;
        header.sequence_number = self.sequence;
        let mut request = NetlinkMessage::new(header, NetlinkPayload::from(message));
        request.finalize();
        let mut bytes = vec![0; request.buffer_len()];
        request.serialize(&mut bytes);
        self.socket.send(&bytes, 0)?;
        self.answer()
    }

    /// Collects the parts until the acknowledgement or the end of the dump.
    fn answer(&self) -> io::Result<Vec<RouteNetlinkMessage>> {
        let mut objects = Vec::new();
        for _ in 0..ANSWER_PARTS_MAX {
            let (datagram, _) = self.socket.recv_from_full()?;
            let mut rest = datagram.as_slice();
            while !rest.is_empty() {
                let part = NetlinkMessage::<RouteNetlinkMessage>::deserialize(rest)
                    .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
                let length = aligned(part.header.length as usize).clamp(1, rest.len());
                rest = &rest[length..];
                // An answer to an earlier request that was given up on.
                if part.header.sequence_number != self.sequence {
                    continue;
                }
                match part.payload {
                    NetlinkPayload::InnerMessage(object) => objects.push(object),
                    NetlinkPayload::Done(_) => return Ok(objects),
                    NetlinkPayload::Error(error) => match error.code {
                        None => return Ok(objects),
                        Some(_) => return Err(error.to_io()),
                    },
                    NetlinkPayload::Noop | NetlinkPayload::Overrun(_) => {}
                    _ => {}
                }
            }
        }
        Err(io::Error::other(format!(
            "netlink answer has more than {ANSWER_PARTS_MAX} parts"
        )))
    }
}

/// Netlink messages start on four-byte boundaries (NLMSG_ALIGN).
fn aligned(length: usize) -> usize {
    (length + 3) & !3
}
