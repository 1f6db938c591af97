//! The service manager's notification socket (sd_notify(3)), spoken directly: one datagram.

use std::env;
use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::Duration;

/// What the node tells its service manager.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum State<'a> {
    Ready,
    /// The start takes longer: so long from now on.
    Patience(Duration),
    Watchdog,
    Stopping,
    /// One line for `systemctl status`.
    Status(&'a str),
}

/// The service manager's socket, if we were started with one.
#[derive(Debug)]
pub struct Notifier {
    socket: Option<(UnixDatagram, SocketAddr)>,
    watchdog: Option<Duration>,
}

impl Notifier {
    /// Reads `NOTIFY_SOCKET`, `WATCHDOG_USEC` and `WATCHDOG_PID`. Without them every call is a
    /// cheap success.
    pub fn from_environment() -> io::Result<Notifier> {
        let number = |name| {
            env::var(name)
                .ok()
                .and_then(|text| text.parse::<u64>().ok())
        };
        let ours = number("WATCHDOG_PID").is_none_or(|pid| pid == u64::from(std::process::id()));
        let watchdog = number("WATCHDOG_USEC")
            .filter(|usec| ours && *usec > 0)
            .map(Duration::from_micros);
        let socket = match env::var("NOTIFY_SOCKET") {
            Ok(path) => Some((UnixDatagram::unbound()?, address(&path)?)),
            Err(_) => None,
        };
        Ok(Notifier { socket, watchdog })
    }

    /// After how long without `State::Watchdog` the manager kills us; feed it at half of that.
    pub fn watchdog(&self) -> Option<Duration> {
        self.watchdog
    }

    pub fn send(&self, state: &State<'_>) -> io::Result<()> {
        let Some((socket, address)) = &self.socket else {
            return Ok(());
        };
        let text = match state {
            State::Ready => "READY=1".to_owned(),
            State::Patience(time) => format!("EXTEND_TIMEOUT_USEC={}", time.as_micros()),
            State::Watchdog => "WATCHDOG=1".to_owned(),
            State::Stopping => "STOPPING=1".to_owned(),
            // A newline would start another assignment.
            State::Status(line) => format!("STATUS={}", line.replace('\n', " ")),
        };
        socket.send_to_addr(text.as_bytes(), address).map(|_| ())
    }
}

/// A leading `@` names the abstract namespace.
fn address(path: &str) -> io::Result<SocketAddr> {
    match path.strip_prefix('@') {
        Some(name) => SocketAddr::from_abstract_name(name),
        None => SocketAddr::from_pathname(path),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn states_arrive_as_the_manager_expects_them() {
        let directory = tempfile::tempdir().expect("temporary directory");
        let path = directory.path().join("notify");
        let manager = UnixDatagram::bind(&path).expect("bind");
        let notifier = Notifier {
            socket: Some((
                UnixDatagram::unbound().expect("socket"),
                address(path.to_str().expect("utf-8")).expect("address"),
            )),
            watchdog: None,
        };
        for (state, text) in [
            (State::Ready, "READY=1"),
            (
                State::Patience(Duration::from_secs(9)),
                "EXTEND_TIMEOUT_USEC=9000000",
            ),
            (State::Watchdog, "WATCHDOG=1"),
            (State::Stopping, "STOPPING=1"),
            (State::Status("3 pods\nrun"), "STATUS=3 pods run"),
        ] {
            notifier.send(&state).expect("send");
            let mut buffer = [0; 64];
            let count = manager.recv(&mut buffer).expect("receive");
            assert_eq!(&buffer[..count], text.as_bytes());
        }
    }
}
