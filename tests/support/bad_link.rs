//! A TCP link that is as bad as it is told: it stands between a client and one server, and counts
//! what it carries.
//!
//! Include it with `#[path = "../support/bad_link.rs"] mod bad_link;`.
#![allow(clippy::disallowed_methods)]

use std::collections::VecDeque;
use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use rustix::net::sockopt;

/// How soon an idle direction notices that the link has changed.
const TICK: Duration = Duration::from_millis(50);

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Way {
    ToServer,
    ToClient,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Mode {
    Pass,
    /// Everything is late, and all connections together carry so many bytes a second each way.
    Slow {
        delay: Duration,
        bytes_per_s: u32,
    },
    /// Nothing arrives one way until the mode ends: then the kernel has sent it again.
    Mute(Way),
    /// Who is connected, or connects meanwhile, never hears anything again and is not told why.
    HalfOpen,
    /// A connection is reset in the middle of what the server says.
    Reset {
        after: u64,
    },
    /// A connection ends there as if all were said.
    Truncate {
        after: u64,
    },
    /// No connection lives longer.
    ShortLived(Duration),
}

/// What the link has carried, in bytes.
#[allow(dead_code, reason = "each test looks at what it is about")]
#[derive(Clone, Copy, Default, Debug)]
pub struct Carried {
    pub connections: u64,
    pub to_server: u64,
    pub to_client: u64,
}

pub struct BadLink {
    pub address: String,
    shared: Arc<Shared>,
}

struct Shared {
    mode: Mutex<Mode>,
    /// When the slow link has carried what it was given, each way.
    busy_until: Mutex<[Instant; 2]>,
    connections: AtomicU64,
    bytes: [AtomicU64; 2],
}

/// One connection: both ends, and what has become of it.
struct Pair {
    client: TcpStream,
    server: TcpStream,
    since: Instant,
    over: AtomicBool,
    /// Nothing is carried any more.
    dead: AtomicBool,
}

impl BadLink {
    /// A good link to `goal` at first. Ends with the process of the test.
    pub fn start(goal: &str) -> BadLink {
        BadLink::at("127.0.0.1:0", goal)
    }

    /// Like [`BadLink::start`], where it is to be found.
    pub fn at(address: &str, goal: &str) -> BadLink {
        let (listener, goal) = (TcpListener::bind(address).unwrap(), goal.to_owned());
        let now = Instant::now();
        let link = BadLink {
            address: listener.local_addr().unwrap().to_string(),
            shared: Arc::new(Shared {
                mode: Mutex::new(Mode::Pass),
                busy_until: Mutex::new([now, now]),
                connections: AtomicU64::new(0),
                bytes: Default::default(),
            }),
        };
        let shared = link.shared.clone();
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                // Nobody there: the client is refused as soon as it says something.
                if let Ok(server) = TcpStream::connect(&goal) {
                    shared.connections.fetch_add(1, Relaxed);
                    carry(&shared, client, server);
                }
            }
        });
        link
    }

    pub fn set(&self, mode: Mode) {
        *self.shared.mode.lock().unwrap() = mode;
    }

    pub fn carried(&self) -> Carried {
        let [to_server, to_client] = &self.shared.bytes;
        Carried {
            connections: self.shared.connections.load(Relaxed),
            to_server: to_server.load(Relaxed),
            to_client: to_client.load(Relaxed),
        }
    }
}

fn carry(shared: &Arc<Shared>, client: TcpStream, server: TcpStream) {
    for end in [&client, &server] {
        end.set_nodelay(true).unwrap();
        end.set_read_timeout(Some(TICK)).unwrap();
    }
    let pair = Arc::new(Pair {
        client,
        server,
        since: Instant::now(),
        over: AtomicBool::new(false),
        dead: AtomicBool::new(false),
    });
    for way in [Way::ToServer, Way::ToClient] {
        let (shared, pair) = (shared.clone(), pair.clone());
        std::thread::spawn(move || {
            // An end that is gone ends both ways.
            let _ = pump(&shared, &pair, way);
            pair.over.store(true, Relaxed);
        });
    }
}

/// Carries one way until the connection is over.
fn pump(shared: &Shared, pair: &Pair, way: Way) -> std::io::Result<()> {
    let (mut from, mut to) = match way {
        Way::ToServer => (&pair.client, &pair.server),
        Way::ToClient => (&pair.server, &pair.client),
    };
    let mut piece = [0; 4096];
    let mut under_way: VecDeque<(Instant, Vec<u8>)> = VecDeque::new();
    let (mut carried, mut ended) = (0, false);
    loop {
        let done = ended && under_way.is_empty();
        if done || pair.over.load(Relaxed) {
            return to.shutdown(Shutdown::Write);
        }
        if ended {
            std::thread::sleep(TICK);
        } else {
            match from.read(&mut piece) {
                Ok(0) => ended = true,
                Ok(count) => under_way.push_back((shared.due(way, count), piece[..count].to_vec())),
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
            }
        }
        let mode = *shared.mode.lock().unwrap();
        match mode {
            Mode::HalfOpen => pair.dead.store(true, Relaxed),
            Mode::ShortLived(life) if pair.since.elapsed() > life => return pair.end(),
            Mode::Mute(muted) if muted == way => continue,
            _ => {}
        }
        if pair.dead.load(Relaxed) {
            under_way.clear();
            continue;
        }
        while let Some((_, bytes)) = under_way.pop_front_if(|(due, _)| *due <= Instant::now()) {
            let room = mode.room(way).saturating_sub(carried);
            let part = bytes.len().min(room.try_into().unwrap_or(usize::MAX));
            to.write_all(&bytes[..part])?;
            carried += part as u64;
            shared.bytes[way as usize].fetch_add(part as u64, Relaxed);
            match mode {
                _ if part == bytes.len() => {}
                Mode::Reset { .. } => return pair.reset(),
                _ => return pair.end(),
            }
        }
    }
}

impl Mode {
    /// How many bytes of a connection it lets pass.
    fn room(self, way: Way) -> u64 {
        match self {
            Mode::Reset { after } | Mode::Truncate { after } if way == Way::ToClient => after,
            _ => u64::MAX,
        }
    }
}

impl Pair {
    fn end(&self) -> std::io::Result<()> {
        self.client.shutdown(Shutdown::Both)?;
        self.server.shutdown(Shutdown::Both)
    }

    /// Both are reset when the last of the two directions lets go.
    fn reset(&self) -> std::io::Result<()> {
        for end in [&self.client, &self.server] {
            sockopt::set_socket_linger(end, Some(Duration::ZERO))?;
        }
        Ok(())
    }
}

impl Shared {
    /// When that many bytes have arrived that are sent now.
    fn due(&self, way: Way, count: usize) -> Instant {
        let now = Instant::now();
        let Mode::Slow { delay, bytes_per_s } = *self.mode.lock().unwrap() else {
            return now;
        };
        let mut busy = self.busy_until.lock().unwrap();
        let sent = busy[way as usize].max(now);
        let sent = sent + Duration::from_secs(1) * count as u32 / bytes_per_s;
        busy[way as usize] = sent;
        sent + delay
    }
}
