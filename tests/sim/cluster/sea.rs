//! What lies between the node and its cluster: a link that is slow, lossy, cut, or cut one way.
//!
//! ```text
//!   connect ─► a carrier for each direction: take a piece, travel, hand it over
//!                 travel: a delay from the seed; while that direction is lost, no piece arrives
//! ```
//! A lost direction keeps what was sent, as TCP does, until it is open again, the connection is reset
//! or somebody has lost patience. A connection that a box in between has forgotten is dead, which the
//! kernel finds out by `os::tcp`'s keepalive; one whose far end lost its power is told so when that is
//! up again.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::Duration;

use async_executor::Task;
use event_listener::Event;
use futures_lite::future::or;

use super::wire::{self, End, Piece, Pipe};
use crate::random::Stream;
use crate::run::Executor;
use crate::timeline::{Nanos, Timeline};
use crate::trace::Trace;

/// Between two tries to bring over what a lost direction holds back.
const AGAIN: Duration = Duration::from_secs(1);
/// Bytes of one piece at most; a reset may come between any two.
const PIECE_MAX: u64 = 4000;
/// When the kernel gives up a silent connection at the latest: it probes after 60 s, and 20 s later
/// more than TCP_USER_TIMEOUT has gone by without an answer (tcp(7)).
pub const KEEPALIVE: Duration = Duration::from_secs(80);

/// How the link is. Per-mille chances and times of one way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Weather {
    /// Nothing gets to the cluster.
    pub out_lost: bool,
    /// Nothing gets back from it.
    pub back_lost: bool,
    /// There is no route: whoever dials is told at once.
    pub no_route: bool,
    /// Typical time of one way.
    pub delay: Duration,
    /// How often a piece resets its connection instead of arriving.
    pub resets: u64,
}

impl Weather {
    pub fn fair() -> Weather {
        Weather {
            out_lost: false,
            back_lost: false,
            no_route: false,
            delay: Duration::from_millis(5),
            resets: 0,
        }
    }

    fn is_lost(&self, way: Way) -> bool {
        match way {
            Way::Out => self.out_lost,
            Way::Back => self.back_lost,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    Out,
    Back,
}

/// What became of a connection that looks whole from both ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    Alive,
    /// Nothing arrives any more, for ever.
    Forgotten,
    /// The cluster's machine lost its power: it knows of no connection when it is up again.
    Cut,
}

struct Connection {
    pipes: [Pipe; 2],
    fate: Cell<Fate>,
}

/// Who dials.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Caller {
    /// Over the network; credentials say who.
    Network,
    /// On the cluster's machine itself, as root.
    Socket,
}

/// The machine at the far end.
pub trait Shore {
    /// Takes a connection. False if nobody listens.
    fn accept(&self, end: End, caller: Caller) -> bool;
    /// Whether it has power.
    fn is_up(&self) -> bool;
}

pub struct Sea {
    timeline: Rc<Timeline>,
    trace: Rc<Trace>,
    luck: Stream,
    pub weather: RefCell<Weather>,
    changed: Event,
    connections: RefCell<Vec<Rc<Connection>>>,
    executor: Rc<Executor>,
    shore: Rc<dyn Shore>,
    caller: Caller,
    carriers: RefCell<Vec<Task<()>>>,
    keepalive: Cell<bool>,
}

impl Sea {
    pub fn new(
        timeline: &Rc<Timeline>,
        trace: &Rc<Trace>,
        luck: Stream,
        executor: &Rc<Executor>,
        (shore, caller): (Rc<dyn Shore>, Caller),
    ) -> Rc<Sea> {
        Rc::new(Sea {
            timeline: Rc::clone(timeline),
            trace: Rc::clone(trace),
            luck,
            weather: RefCell::new(Weather::fair()),
            changed: Event::new(),
            connections: RefCell::default(),
            executor: Rc::clone(executor),
            shore,
            caller,
            carriers: RefCell::default(),
            keepalive: Cell::new(true),
        })
    }

    pub fn set(&self, weather: Weather) {
        self.trace.note(|| format!("== link: {weather:?}"));
        *self.weather.borrow_mut() = weather;
        self.changed.notify(usize::MAX);
    }

    /// Both ends of every connection learn that it is no more.
    pub fn reset_all(&self) {
        self.trace
            .note(|| "== link: all connections are reset".to_owned());
        for connection in self.connections.take() {
            connection.reset();
        }
    }

    /// A box in between forgets most connections; the ends do not know.
    pub fn forget(self: &Rc<Sea>) {
        self.trace
            .note(|| "== link: connections are forgotten".to_owned());
        self.doom(Fate::Forgotten, 700);
    }

    /// The kernel tests no connection.
    pub fn without_keepalive(&self) {
        self.keepalive.set(false);
    }

    /// The cluster's machine is without power: nobody says goodbye.
    pub fn far_end_lost_power(self: &Rc<Sea>) {
        self.doom(Fate::Cut, 1000);
    }

    /// Each connection with a chance per mille.
    fn doom(self: &Rc<Sea>, fate: Fate, chance: u64) {
        for connection in self.connections.take() {
            if !self.luck.chance(chance) {
                self.connections.borrow_mut().push(connection);
                continue;
            }
            connection.fate.set(fate);
            if self.keepalive.get() {
                // How long it has been silent already, who knows.
                let found = self.luck.between(1, KEEPALIVE.as_secs());
                let sea = Rc::clone(self);
                let probe = async move {
                    sea.sleep(Duration::from_secs(found)).await;
                    connection.reset();
                };
                self.carriers.borrow_mut().push(self.executor.spawn(probe));
            }
        }
    }

    async fn sleep(&self, span: Duration) {
        let due = self.timeline.now() + span.as_nanos() as Nanos;
        self.timeline.sleep_until(due).await;
    }

    /// One way of a packet.
    async fn travel(&self, way: Way) {
        let percent = match self.luck.chance(50) {
            true => self.luck.between(200, 1000),
            false => self.luck.between(50, 150),
        };
        let delay = self.weather.borrow().delay * percent as u32 / 100;
        self.sleep(delay).await;
        while self.weather.borrow().is_lost(way) {
            let changed = self.changed.listen();
            changed.await;
            let late = self.luck.between(0, AGAIN.as_millis() as u64);
            self.sleep(Duration::from_millis(late)).await;
        }
    }

    /// Dials the cluster. Errors: why there is no connection.
    pub async fn connect(self: &Rc<Sea>, patience: Duration) -> Result<End, String> {
        if self.weather.borrow().no_route {
            return Err("no route to host".to_owned());
        }
        let late = async {
            self.sleep(patience).await;
            Err("connect: timeout".to_owned())
        };
        let dialled = async {
            self.travel(Way::Out).await;
            let (ours, theirs, pipes) = wire::pair();
            if !self.shore.is_up() {
                std::future::pending::<()>().await;
            }
            let taken = self.shore.accept(theirs, self.caller);
            self.travel(Way::Back).await;
            if !taken {
                return Err("connection refused".to_owned());
            }
            self.carry(pipes);
            Ok(ours)
        };
        or(dialled, late).await
    }

    fn carry(self: &Rc<Sea>, pipes: [Pipe; 2]) {
        let connection = Rc::new(Connection {
            pipes,
            fate: Cell::new(Fate::Alive),
        });
        let mut connections = self.connections.borrow_mut();
        connections.retain(|one| !one.pipes.iter().any(Pipe::is_reset));
        connections.push(Rc::clone(&connection));
        for way in [Way::Out, Way::Back] {
            let (sea, connection) = (Rc::clone(self), Rc::clone(&connection));
            let carrier = async move { sea.carry_way(&connection, way).await };
            let mut carriers = self.carriers.borrow_mut();
            carriers.retain(|carrier| !carrier.is_finished());
            carriers.push(self.executor.spawn(carrier));
        }
    }

    /// The world ends.
    pub fn drain(&self) {
        self.carriers.take();
    }

    async fn carry_way(&self, connection: &Connection, way: Way) {
        let pipe = &connection.pipes[usize::from(way == Way::Back)];
        loop {
            let most = self.luck.between(1, PIECE_MAX) as usize;
            let Some(piece) = pipe.take(most).await else {
                return;
            };
            self.travel(way).await;
            match connection.fate.get() {
                Fate::Alive => {}
                Fate::Forgotten => return,
                Fate::Cut if way == Way::Back => return,
                Fate::Cut => {
                    // Sent again and again, until somebody is there who knows nothing of it.
                    while !self.shore.is_up() {
                        self.sleep(AGAIN).await;
                    }
                    return connection.reset();
                }
            }
            if self.luck.chance(self.weather.borrow().resets) {
                self.trace.note(|| "link: a connection is reset".to_owned());
                return connection.reset();
            }
            let ends = matches!(piece, Piece::End);
            if !pipe.deliver(piece) && !ends {
                // Nobody reads there any more, which the writer now learns.
                return connection.reset();
            }
            if ends {
                return;
            }
        }
    }
}

impl Connection {
    fn reset(&self) {
        for pipe in &self.pipes {
            pipe.reset();
        }
    }
}
