//! Unix sockets: message boundaries (SOCK_SEQPACKET), passed descriptors, who is at the other end.
//!
//! Paths may be longer than the 108 bytes of `sockaddr_un` (a long `--run-dir`): both sides go
//! through a descriptor of the directory, `/proc/self/fd/N/name`.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::{Mode, OFlags};
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags,
    SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketAddrUnix, SocketFlags, SocketType,
};

use std::os::fd::AsRawFd;

/// Descriptors one message may carry, both ways.
pub const DESCRIPTORS_MAX: usize = 3;

/// Listens at `path` with mode 0600, in the place of a socket left behind there. Not blocking.
pub fn listen_seqpacket(path: &Path, backlog: i32) -> io::Result<OwnedFd> {
    listen(path, backlog, SocketType::SEQPACKET)
}

/// The same for a stream socket (the OCI runtime's console socket is one).
pub fn listen_stream(path: &Path, backlog: i32) -> io::Result<OwnedFd> {
    listen(path, backlog, SocketType::STREAM)
}

fn listen(path: &Path, backlog: i32, kind: SocketType) -> io::Result<OwnedFd> {
    let (directory, address) = address_below(path)?;
    let socket = unix_socket(kind)?;
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        Ok(()) | Err(_) => {}
    }
    // On Linux the file takes the socket's own mode: it is never open to others, not even between
    // bind and chmod.
    rustix::fs::fchmod(&socket, Mode::RUSR | Mode::WUSR)?;
    rustix::net::bind(&socket, &address)?;
    rustix::net::listen(&socket, backlog)?;
    drop(directory);
    Ok(socket)
}

/// Connects to a listening socket; the connection is not blocking.
/// Errors: `NotFound`, `ConnectionRefused` when nobody listens.
pub fn connect_seqpacket(path: &Path) -> io::Result<OwnedFd> {
    let (directory, address) = address_below(path)?;
    let socket = unix_socket(SocketType::SEQPACKET)?;
    rustix::net::connect(&socket, &address)?;
    drop(directory);
    Ok(socket)
}

fn unix_socket(kind: SocketType) -> io::Result<OwnedFd> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    Ok(rustix::net::socket_with(
        AddressFamily::UNIX,
        kind,
        flags,
        None,
    )?)
}

fn address_below(path: &Path) -> io::Result<(OwnedFd, SocketAddrUnix)> {
    let name = path.file_name().ok_or(io::ErrorKind::InvalidInput)?;
    let parent = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        Some(_) | None => Path::new("."),
    };
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let directory = rustix::fs::open(parent, flags, Mode::empty())?;
    let short = Path::new("/proc/self/fd")
        .join(directory.as_raw_fd().to_string())
        .join(name);
    Ok((directory, SocketAddrUnix::new(short.as_path())?))
}

/// Takes one waiting connection, not blocking; `None` if none waits.
pub fn accept(listener: BorrowedFd<'_>) -> io::Result<Option<OwnedFd>> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    match rustix::net::accept_with(listener, flags) {
        Ok(socket) => Ok(Some(socket)),
        Err(rustix::io::Errno::AGAIN | rustix::io::Errno::CONNABORTED) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// The user at the other end, as the kernel noted it when the connection was made.
pub fn peer_uid(socket: BorrowedFd<'_>) -> io::Result<u32> {
    Ok(rustix::net::sockopt::socket_peercred(socket)?.uid.as_raw())
}

/// Sends one message whole. Errors: `WouldBlock` when the peer does not read.
pub fn send_message(
    socket: BorrowedFd<'_>,
    bytes: &[u8],
    descriptors: &[BorrowedFd<'_>],
) -> io::Result<()> {
    assert!(
        descriptors.len() <= DESCRIPTORS_MAX,
        "more descriptors than the receiver makes room for"
    );
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(DESCRIPTORS_MAX))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !descriptors.is_empty() {
        let pushed = control.push(SendAncillaryMessage::ScmRights(descriptors));
        assert!(pushed, "the space was sized for this");
    }
    let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
    rustix::net::sendmsg(socket, &[IoSlice::new(bytes)], &mut control, flags)?;
    Ok(())
}

/// What one read of a message socket gave.
#[derive(Debug)]
pub enum Received {
    /// So many bytes of the buffer, and what came with them.
    Message(usize, Vec<OwnedFd>),
    /// The other end closed.
    Closed,
}

/// Receives one message. Errors: `WouldBlock` when none waits; `InvalidData` if it did not fit.
pub fn receive_message(socket: BorrowedFd<'_>, buffer: &mut [u8]) -> io::Result<Received> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(DESCRIPTORS_MAX))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let flags = RecvFlags::CMSG_CLOEXEC | RecvFlags::DONTWAIT;
    let mut slices = [IoSliceMut::new(buffer)];
    let message = rustix::net::recvmsg(socket, &mut slices, &mut control, flags)?;
    let mut descriptors = Vec::new();
    for part in control.drain() {
        if let RecvAncillaryMessage::ScmRights(passed) = part {
            descriptors.extend(passed);
        }
    }
    if message.flags.contains(ReturnFlags::TRUNC) {
        return Err(io::ErrorKind::InvalidData.into());
    }
    // An empty message is not in our protocols, so zero bytes is the end.
    if message.bytes == 0 {
        return Ok(Received::Closed);
    }
    Ok(Received::Message(message.bytes, descriptors))
}

/// Ends a connection for both sides, whoever still holds its descriptors.
pub fn shut_down(socket: BorrowedFd<'_>) -> io::Result<()> {
    Ok(rustix::net::shutdown(socket, rustix::net::Shutdown::Both)?)
}

/// The peer reads what was written and then the end; reading goes on. Errors: `NotConnected`.
pub fn end_writing(socket: BorrowedFd<'_>) -> io::Result<()> {
    Ok(rustix::net::shutdown(socket, rustix::net::Shutdown::Write)?)
}

/// A connected pair of message sockets, not blocking.
pub fn pair() -> io::Result<(OwnedFd, OwnedFd)> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let (one, other) =
        rustix::net::socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)?;
    Ok((one, other))
}

/// A second descriptor of the same open file.
pub fn duplicate(fd: &impl AsFd) -> io::Result<OwnedFd> {
    fd.as_fd().try_clone_to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_keep_their_bounds_and_carry_descriptors() {
        let (one, other) = pair().expect("socket pair");
        let null = std::fs::File::open("/dev/null").expect("/dev/null");
        send_message(one.as_fd(), b"first", &[null.as_fd()]).expect("send");
        send_message(one.as_fd(), b"second", &[]).expect("send");
        let mut buffer = [0; 64];
        let first = receive_message(other.as_fd(), &mut buffer).expect("receive");
        assert!(matches!(first, Received::Message(5, fds) if fds.len() == 1));
        let mut small = [0; 3];
        let error = receive_message(other.as_fd(), &mut small).expect_err("does not fit");
        assert_eq!(error.kind(), io::ErrorKind::InvalidData);
        drop(one);
        let end = receive_message(other.as_fd(), &mut buffer).expect("receive");
        assert!(matches!(end, Received::Closed));
    }

    #[test]
    fn a_path_longer_than_a_socket_address_works() {
        let directory = tempfile::tempdir().expect("temporary directory");
        let long = directory.path().join("x".repeat(120));
        std::fs::create_dir(&long).expect("directory");
        let path = long.join("shim.sock");
        let listener = listen_seqpacket(&path, 1).expect("listen");
        let client = connect_seqpacket(&path).expect("connect");
        let server = accept(listener.as_fd()).expect("accept").expect("waiting");
        assert_eq!(
            peer_uid(server.as_fd()).expect("peer"),
            crate::os::process::effective_uid()
        );
        send_message(client.as_fd(), b"x", &[]).expect("send");
        use std::os::unix::fs::PermissionsExt;
        let mode = std::fs::metadata(&path)
            .expect("socket file")
            .permissions()
            .mode();
        assert_eq!(mode & 0o777, 0o600);
    }
}
