//! One rtnetlink or netfilter conversation: send a request, read the kernel's answer, in the calling
//! thread.
//!
//! The kernel answers a request before `send` returns, so there is nothing to wait for and no
//! reactor is needed; callers are on the blocking pool only because they may wait for the rtnl
//! lock. Knows messages and errors; what they mean is the caller's affair.

mod announcements;
pub mod message;

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};

use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, connect, recv, send,
    socket,
};

pub use self::announcements::Announcements;
use self::message::{Message, NLM_F_ACK, NLM_F_DUMP, Object, Part};
use super::netns;

/// Datagrams read for one request before we give up.
const ANSWER_PARTS_MAX: usize = 4096;
/// The kernel sends no larger one to a reader with this much room (netlink_dump, 32 KiB).
const DATAGRAM_BYTES_MAX: usize = 32 << 10;

/// A socket in one network namespace.
pub struct Netlink {
    socket: OwnedFd,
    sequence: u32,
}

impl Netlink {
    /// In the namespace of the calling thread.
    pub fn open() -> io::Result<Netlink> {
        Netlink::of(SockProtocol::NetlinkRoute)
    }

    /// The same, with netfilter.
    pub fn open_netfilter() -> io::Result<Netlink> {
        Netlink::of(SockProtocol::NetlinkNetFilter)
    }

    fn of(protocol: SockProtocol) -> io::Result<Netlink> {
        let socket = socket(
            AddressFamily::Netlink,
            SockType::Raw,
            SockFlag::SOCK_CLOEXEC,
            protocol,
        )?;
        // The kernel is port 0; it alone may answer.
        connect(socket.as_raw_fd(), &NetlinkAddr::new(0, 0))?;
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
    pub fn change(&mut self, message: &Message, flags: u16) -> io::Result<()> {
        self.ask(message, NLM_F_ACK | flags, |_| None::<()>)
            .map(drop)
    }

    /// Reads one object. Errors: the kernel's errno (`ENODEV` if there is none).
    pub fn get<T>(
        &mut self,
        message: &Message,
        read: impl FnMut(&Object<'_>) -> Option<T>,
    ) -> io::Result<Option<T>> {
        Ok(self.ask(message, NLM_F_ACK, read)?.into_iter().next())
    }

    /// Reads all objects of a kind: those that `read` takes.
    pub fn dump<T>(
        &mut self,
        message: &Message,
        read: impl FnMut(&Object<'_>) -> Option<T>,
    ) -> io::Result<Vec<T>> {
        self.ask(message, NLM_F_DUMP, read)
    }

    /// Collects what `read` takes, until the acknowledgement or the end of the dump.
    fn ask<T>(
        &mut self,
        message: &Message,
        flags: u16,
        mut read: impl FnMut(&Object<'_>) -> Option<T>,
    ) -> io::Result<Vec<T>> {
        self.sequence += 1;
        let request = message.request(flags, self.sequence);
        send(self.socket.as_raw_fd(), &request, MsgFlags::empty())?;
        let mut taken = Vec::new();
        let mut buffer = vec![0; DATAGRAM_BYTES_MAX];
        for _ in 0..ANSWER_PARTS_MAX {
            let length = recv(self.socket.as_raw_fd(), &mut buffer, MsgFlags::MSG_TRUNC)?;
            let mut rest = buffer.get(..length).ok_or_else(unreadable)?;
            while !rest.is_empty() {
                let (sequence, part, after) = message::part(rest).ok_or_else(unreadable)?;
                rest = after;
                // An answer to an earlier request that was given up on.
                if sequence != self.sequence {
                    continue;
                }
                match part {
                    Part::Object(object) => taken.extend(read(&object)),
                    Part::Done => return Ok(taken),
                    Part::Error(errno) => return Err(io::Error::from_raw_os_error(errno)),
                    Part::Nothing => {}
                }
            }
        }
        Err(io::Error::other(format!(
            "netlink answer has more than {ANSWER_PARTS_MAX} parts"
        )))
    }
}

fn unreadable() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "netlink answer is unreadable")
}
