//! Isolation of one test, and short words for what tests ask of the kernel.

use std::fs::File;
use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::os::fd::AsFd;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use lowtide::os::netns;

pub use host::{eventually, installed, run};

#[path = "../support/host.rs"]
pub mod host;

/// Set in the process that runs the test's body.
const INSIDE: &str = "LOWTIDE_TEST_INSIDE";

/// Programs that the tests drive.
const NEEDED: [&str; 4] = ["unshare", "nsenter", "ip", "nft"];

/// Said past the capture of a test that passes: nobody is to think that it ran.
fn skipped(name: &str, why: &str) {
    let _ = writeln!(io::stderr(), "skipped {name}: {why}");
}

/// Runs `body` in new network and mount namespaces: the test binary is started again for the one
/// test `name` (its full path). Prints why and passes where that is not possible.
pub fn isolated(name: &str, body: impl FnOnce()) {
    if std::env::var_os(INSIDE).is_some() {
        run("ip", &["link", "set", "lo", "up"]);
        return body();
    }
    if let Some(missing) = NEEDED.iter().find(|program| !installed(program)) {
        return skipped(name, &format!("{missing} is not installed"));
    }
    let probe = program("unshare").args(["-nm", "true"]).status();
    if !probe.is_ok_and(|status| status.success()) {
        return skipped(name, "needs root (unshare -nm)");
    }
    let exe = std::env::current_exe().expect("own path");
    let status = program("unshare")
        .args(["-nm", "--propagation", "private"])
        .arg(exe)
        .args(["--exact", name, "--nocapture", "--test-threads=1"])
        .env(INSIDE, "1")
        .status()
        .expect("unshare runs");
    assert!(status.success(), "{name} failed inside its namespaces");
}

#[allow(clippy::disallowed_methods)]
pub fn program(name: &str) -> Command {
    Command::new(name)
}

/// A process that ends with the test, however that ends.
pub struct Process(Child);

impl Process {
    pub fn start(name: &str, arguments: &[&str]) -> Process {
        let child = program(name)
            .args(arguments)
            .stdin(Stdio::null())
            .spawn()
            .expect(name);
        Process(child)
    }

    pub fn pid(&self) -> u32 {
        self.0.id()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The network namespace of a process.
pub fn namespace_of(pid: u32) -> File {
    File::open(format!("/proc/{pid}/ns/net")).expect("a living process")
}

/// Greets every TCP client and answers every UDP packet on `port` with `text`, in a namespace,
/// until the test's process ends.
#[allow(clippy::disallowed_methods)]
pub fn serve(namespace: &File, address: &str, text: &'static str) {
    let sockets = netns::inside(namespace.as_fd(), || {
        Ok((TcpListener::bind(address)?, UdpSocket::bind(address)?))
    });
    let (tcp, udp) = sockets.expect("bound");
    std::thread::spawn(move || {
        for mut stream in tcp.incoming().flatten() {
            let _ = stream.write_all(text.as_bytes());
        }
    });
    std::thread::spawn(move || {
        let mut buffer = [0; 16];
        while let Ok((_, from)) = udp.recv_from(&mut buffer) {
            let _ = udp.send_to(text.as_bytes(), from);
        }
    });
}

/// What a TCP server says to a client in a namespace, or `None` if it is not reached.
pub fn greeting_in(namespace: &File, address: &str) -> Option<String> {
    let address = address.parse().expect("an address");
    let connect = || TcpStream::connect_timeout(&address, Duration::from_secs(2));
    let mut stream = netns::inside(namespace.as_fd(), connect).ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(2))).ok()?;
    let mut text = String::new();
    stream.read_to_string(&mut text).ok()?;
    Some(text)
}

/// The same from the test's own namespace.
pub fn greeting(address: &str) -> Option<String> {
    greeting_in(&namespace_of(std::process::id()), address)
}

/// What a UDP server answers.
pub fn udp_answer(address: &str) -> Option<String> {
    let socket = UdpSocket::bind("0.0.0.0:0").ok()?;
    socket.set_read_timeout(Some(Duration::from_secs(2))).ok()?;
    socket.connect(address).ok()?;
    socket.send(b"?").ok()?;
    let mut buffer = [0; 64];
    let length = socket.recv(&mut buffer).ok()?;
    String::from_utf8(buffer[..length].to_vec()).ok()
}
