//! TCP listeners and the options of accepted connections.

use std::io;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::time::Duration;

use rustix::net::{AddressFamily, SocketFlags, SocketType, sockopt};

/// Connections that the kernel finishes before anybody accepts them.
const BACKLOG: i32 = 256;
/// A peer that has silently gone is noticed after about two minutes, for two packets a minute.
const KEEPALIVE_IDLE: Duration = Duration::from_secs(60);
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(20);
const KEEPALIVE_COUNT: u32 = 3;
/// How long what was sent may go without a sign of its arrival (tcp(7)): on a link that loses
/// everything the kernel would try for a quarter of an hour.
const UNACKNOWLEDGED_MAX: Duration = Duration::from_secs(30);

/// Listens on an address that this machine may not have yet (IP_FREEBIND, ip(7)): an interface
/// that comes up later is served as soon as it does. Not blocking.
pub fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = rustix::net::socket_with(family(address), SocketType::STREAM, flags, None)?;
    // Connections of the agent before this one may still be in TIME_WAIT.
    sockopt::set_socket_reuseaddr(&socket, true)?;
    match address {
        SocketAddr::V4(_) => sockopt::set_ip_freebind(&socket, true)?,
        SocketAddr::V6(_) => {
            // `::` takes IPv4 too, whatever the machine's default is (ipv6(7)).
            sockopt::set_ipv6_v6only(&socket, false)?;
            sockopt::set_ipv6_freebind(&socket, true)?;
        }
    }
    rustix::net::bind(&socket, &address)?;
    rustix::net::listen(&socket, BACKLOG)?;
    Ok(socket.into())
}

/// Small answers leave at once; a peer that has gone is noticed.
pub fn prepare(connection: impl AsFd) -> io::Result<()> {
    let fd = connection.as_fd();
    sockopt::set_tcp_nodelay(fd, true)?;
    sockopt::set_tcp_keepidle(fd, KEEPALIVE_IDLE)?;
    sockopt::set_tcp_keepintvl(fd, KEEPALIVE_INTERVAL)?;
    sockopt::set_tcp_keepcnt(fd, KEEPALIVE_COUNT)?;
    Ok(sockopt::set_socket_keepalive(fd, true)?)
}

/// The same for a connection that we opened, whose requests nobody may wait for on a dead link.
pub fn prepare_client(connection: impl AsFd) -> io::Result<()> {
    let milliseconds = UNACKNOWLEDGED_MAX.as_millis() as u32;
    sockopt::set_tcp_user_timeout(connection.as_fd(), milliseconds)?;
    prepare(connection)
}

/// Starts to connect and returns at once: writable, or in error, when it is decided. The socket
/// belongs to the network namespace that the calling thread is in.
pub fn begin_connect(address: SocketAddr) -> io::Result<TcpStream> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = rustix::net::socket_with(family(address), SocketType::STREAM, flags, None)?;
    match rustix::net::connect(&socket, &address) {
        Ok(()) | Err(rustix::io::Errno::INPROGRESS) => Ok(socket.into()),
        Err(error) => Err(error.into()),
    }
}

fn family(address: SocketAddr) -> AddressFamily {
    match address {
        SocketAddr::V4(_) => AddressFamily::INET,
        SocketAddr::V6(_) => AddressFamily::INET6,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_that_is_not_here_yet_is_listened_on_and_a_taken_port_is_an_error() {
        // A documentation address (RFC 5737).
        listen("192.0.2.1:0".parse().unwrap()).expect("free bind");
        let first = listen("127.0.0.1:0".parse().unwrap()).expect("listen");
        let taken = listen(first.local_addr().unwrap()).expect_err("taken");
        assert_eq!(taken.kind(), io::ErrorKind::AddrInUse);
        let client = std::net::TcpStream::connect(first.local_addr().unwrap()).expect("connect");
        prepare(&client).expect("options");
        prepare_client(&client).expect("options of a client");
        assert_eq!(sockopt::tcp_user_timeout(&client).unwrap(), 30_000);
        assert!(sockopt::socket_keepalive(&client).unwrap() && client.nodelay().unwrap());
    }
}
