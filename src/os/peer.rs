//! Who is at the other end of a unix socket, and who we are.

use std::io;
use std::os::fd::AsFd;

use nix::sys::socket::{getsockopt, sockopt::PeerCredentials};

/// User id of the process that connected (`SO_PEERCRED`, unix(7)): as it was at connect time.
pub fn uid_of(socket: &impl AsFd) -> io::Result<u32> {
    Ok(getsockopt(socket, PeerCredentials)?.uid())
}

/// This process's effective user id.
pub fn own_uid() -> u32 {
    nix::unistd::geteuid().as_raw()
}
