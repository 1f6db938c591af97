//! A registry and a clock for tests of the sources.

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use futures_lite::future::block_on;
use jiff::Timestamp;

use crate::registry::{Limits, Options, Place, Registry};
use crate::world::{BootTime, Clock, LocalFuture, Random};

/// Stands still; its timers are due only when they were set for no later than now.
pub struct StillClock {
    pub now: Cell<BootTime>,
    pub wall: Cell<Timestamp>,
}

impl Default for StillClock {
    fn default() -> StillClock {
        StillClock {
            now: Cell::new(BootTime::from_duration(Duration::from_secs(100))),
            wall: Cell::new(Timestamp::from_second(1_700_000_000).expect("in range")),
        }
    }
}

impl Clock for StillClock {
    fn now(&self) -> BootTime {
        self.now.get()
    }

    fn wall(&self) -> Timestamp {
        self.wall.get()
    }

    fn sleep_until(&self, deadline: BootTime) -> LocalFuture<'static, ()> {
        match deadline <= self.now.get() {
            true => Box::pin(async {}),
            false => Box::pin(std::future::pending()),
        }
    }
}

struct Counting(Cell<u8>);

impl Random for Counting {
    fn fill(&self, bytes: &mut [u8]) {
        for byte in bytes {
            self.0.set(self.0.get().wrapping_add(1));
            *byte = self.0.get();
        }
    }
}

pub fn memory_registry(clock: Rc<StillClock>) -> Registry {
    let options = Options {
        place: Place::Memory,
        node_name: "pi".to_owned(),
        clock,
        random: Rc::new(Counting(Cell::new(0))),
        limits: Limits::default(),
        encryption: Default::default(),
        admission: Vec::new(),
    };
    block_on(Registry::open(options))
        .expect("memory always opens")
        .0
}
