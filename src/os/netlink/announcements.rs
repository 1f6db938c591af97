//! Wakes when addresses or routes of this network namespace change (rtnetlink(7)), or nft tables.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};

use async_io::Async;
use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, recv, socket,
};

/// IPv4 and IPv6, addresses and routes. Source: linux/rtnetlink.h.
const GROUPS: u32 = 0x10 | 0x40 | 0x100 | 0x400;
/// NFNLGRP_NFTABLES as a bit. Source: linux/netfilter/nfnetlink.h.
const TABLES: u32 = 1 << 6;

/// The kernel's announcements; ends when dropped.
pub struct Announcements(Async<OwnedFd>);

impl Announcements {
    pub fn open() -> io::Result<Announcements> {
        Announcements::of(SockProtocol::NetlinkRoute, GROUPS)
    }

    /// Of nft's tables and all in them.
    pub fn of_tables() -> io::Result<Announcements> {
        Announcements::of(SockProtocol::NetlinkNetFilter, TABLES)
    }

    fn of(protocol: SockProtocol, groups: u32) -> io::Result<Announcements> {
        let socket = socket(
            AddressFamily::Netlink,
            SockType::Raw,
            SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK,
            protocol,
        )?;
        bind(socket.as_raw_fd(), &NetlinkAddr::new(0, groups))?;
        Ok(Announcements(Async::new_nonblocking(socket)?))
    }

    /// Resolves when something has changed since the last call; one wake-up for many changes. What it
    /// was is not read: who wants to know looks.
    pub async fn changed(&self) -> io::Result<()> {
        let mut part = [0; 512];
        loop {
            let mut any = false;
            loop {
                match recv(self.0.get_ref().as_raw_fd(), &mut part, MsgFlags::empty()) {
                    // More came than there was room for: a change all the same.
                    Ok(_) | Err(Errno::ENOBUFS) => any = true,
                    Err(Errno::EAGAIN) => break,
                    Err(error) => return Err(error.into()),
                }
            }
            if any {
                return Ok(());
            }
            self.0.readable().await?;
        }
    }
}
