//! Connections to ports inside of pods: `kubectl port-forward`.
//!
//! Only the making of the socket happens in the pod's network namespace; it is connected and used
//! from outside, so that no thread stays there.

use std::fs::File;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::os::fd::AsFd;
use std::rc::Rc;
use std::time::Duration;

use async_io::Async;
use futures_lite::FutureExt;

use super::{Host, of_io};
use crate::os::{netns, tcp};
use crate::runtime::sandbox::record::SandboxPhase;
use crate::world::{NamespaceMode, RuntimeError, Uid};

/// How long a port may take to answer; refusals come at once.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// Connects to `localhost:port` as the pod's own processes would: 127.0.0.1 first, then ::1.
///
/// The pause process holds the namespace; its identity is checked after the descriptor is open, so
/// that a process that took its number is not entered. Errors: `NotFound` without a ready sandbox;
/// `Failed` in containerd's words if nobody listens.
pub async fn connect(host: &Rc<Host>, uid: &Uid, port: u16) -> Result<TcpStream, RuntimeError> {
    let namespace = namespace(host, uid)?;
    let addresses = [
        IpAddr::V4(Ipv4Addr::LOCALHOST),
        IpAddr::V6(Ipv6Addr::LOCALHOST),
    ];
    let mut failures = Vec::new();
    for address in addresses.map(|ip| SocketAddr::new(ip, port)) {
        match connect_one(host, namespace.as_ref(), address).await {
            Ok(stream) => return Ok(stream),
            Err(error) => failures.push(match address {
                SocketAddr::V4(_) => format!("IPv4: dial tcp4 {address}: {error}"),
                SocketAddr::V6(_) => format!("IPv6 dial tcp6 {address}: {error}"),
            }),
        }
    }
    Err(RuntimeError::Failed(format!(
        "failed to connect to localhost:{port} inside namespace of pod {uid}, {}",
        failures.join(" ")
    )))
}

/// The pod's network namespace; `None` for the host's own.
fn namespace(host: &Host, uid: &Uid) -> Result<Option<File>, RuntimeError> {
    let found = host.mirror.read(uid, |pod| {
        let record = pod.sandbox.as_ref().filter(|_| pod.dead.is_none())?;
        match &record.phase {
            SandboxPhase::Ready { pause } => Some((record.config.namespaces.network, *pause)),
            SandboxPhase::Making | SandboxPhase::Stopped => None,
        }
    });
    let missing = || RuntimeError::NotFound(format!("sandbox of pod {uid} is not running"));
    let (mode, pause) = found.flatten().ok_or_else(missing)?;
    if mode == NamespaceMode::Host {
        return Ok(None);
    }
    let path = format!("/proc/{}/ns/net", pause.pid);
    let file = File::open(&path).map_err(|error| of_io(&format!("open {path}"), &error))?;
    match pause.is_alive() {
        true => Ok(Some(file)),
        false => Err(missing()),
    }
}

async fn connect_one(
    host: &Host,
    namespace: Option<&File>,
    address: SocketAddr,
) -> io::Result<TcpStream> {
    let namespace = namespace.map(File::try_clone).transpose()?;
    // Entering a namespace changes the thread that does it: never the node's.
    let begun = blocking::unblock(move || match namespace {
        Some(namespace) => netns::inside(namespace.as_fd(), || tcp::begin_connect(address)),
        None => tcp::begin_connect(address),
    });
    let stream = Async::new_nonblocking(begun.await?)?;
    let clock = &host.clock;
    let late = async {
        clock.sleep_until(clock.now() + CONNECT_TIMEOUT).await;
        Err(io::ErrorKind::TimedOut.into())
    };
    stream.writable().or(late).await?;
    if let Some(error) = stream.get_ref().take_error()? {
        let text = match error.kind() {
            io::ErrorKind::ConnectionRefused => "connect: connection refused".to_owned(),
            _ => format!("connect: {error}"),
        };
        return Err(io::Error::new(error.kind(), text));
    }
    stream.into_inner()
}
