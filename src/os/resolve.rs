//! Host names to addresses through the C library, made safe for a static binary.
//!
//! A static glibc loads the host's NSS modules when nsswitch.conf names any besides `files` and
//! `dns` (`mdns4_minimal` on Raspberry Pi OS, `resolve` with systemd-resolved) and crashes in them
//! if the host's glibc is another version. So the two built-in services are chosen before the
//! first look-up. The price: no `.local` names by multicast DNS.

#![allow(unsafe_code)]

use std::io;
use std::net::{SocketAddr, ToSocketAddrs};
use std::sync::Once;

/// Addresses used of one answer; the rest is dropped.
pub const ADDRESSES_MAX: usize = 16;

/// Resolves `host` (a name or an address) for `port`, in the system's order. Blocks.
///
/// Errors: name not known, no name server answered; never an empty list.
pub fn addresses(host: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
    static BUILT_IN_SERVICES: Once = Once::new();
    BUILT_IN_SERVICES.call_once(use_built_in_services);
    let found: Vec<_> = (host, port)
        .to_socket_addrs()?
        .take(ADDRESSES_MAX)
        .collect();
    if found.is_empty() {
        return Err(io::Error::new(
            io::ErrorKind::NotFound,
            format!("no address for {host}"),
        ));
    }
    Ok(found)
}

#[cfg(all(target_os = "linux", target_env = "gnu"))]
fn use_built_in_services() {
    unsafe extern "C" {
        fn __nss_configure_lookup(
            database: *const libc::c_char,
            services: *const libc::c_char,
        ) -> libc::c_int;
    }
    // SAFETY: both arguments are NUL-terminated strings with static lifetime, glibc copies what it
    // keeps, and `Once` rules out a second caller. glibc exports the symbol since 2.0.
    let configured = unsafe { __nss_configure_lookup(c"hosts".as_ptr(), c"files dns".as_ptr()) };
    if configured != 0 {
        log::warn!("choose the built-in host name services: refused; name look-ups may fail");
    }
}

/// musl has no NSS.
#[cfg(not(all(target_os = "linux", target_env = "gnu")))]
fn use_built_in_services() {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_resolve_without_a_name_server() {
        let found = addresses("127.0.0.1", 80).unwrap();
        assert_eq!(found, ["127.0.0.1:80".parse().unwrap()]);
        assert_eq!(
            addresses("::1", 443).unwrap(),
            ["[::1]:443".parse().unwrap()]
        );
        assert!(!addresses("localhost", 1).unwrap().is_empty());
    }
}
