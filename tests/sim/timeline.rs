//! Virtual time: one queue of what happens next, for the node's timers and the world's own events.
//!
//! ```text
//!   run until idle ──► nothing can move ──► jump to the earliest entry ──► fire it ──► run …
//! ```
//!
//! Entries due at the same moment fire in an order drawn from the seed. Boot time counts from the
//! last (simulated) boot; wall time is boot-independent and may be set to anything. Never reads a
//! real clock.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use lowtide::world::{BootTime, Clock, LocalFuture};

use crate::random::Stream;

/// Nanoseconds since the run began, over all reboots.
pub type Nanos = u64;

/// Uptime of the first boot when the node starts.
const FIRST_UPTIME: Duration = Duration::from_secs(9);

type When = (Nanos, u64, u64);

enum Entry {
    Wake(Waker),
    Act(Box<dyn FnOnce()>),
}

pub struct Timeline {
    now: Cell<Nanos>,
    booted: Cell<Nanos>,
    wall_at_zero: Cell<Timestamp>,
    wall_was_set: Cell<bool>,
    order: Stream,
    entries: Cell<u64>,
    /// Nothing new is taken: what is asked now comes from the dead.
    frozen: Cell<bool>,
    queue: RefCell<BTreeMap<When, Entry>>,
}

impl Timeline {
    pub fn new(order: Stream) -> Rc<Timeline> {
        Rc::new(Timeline {
            now: Cell::new(FIRST_UPTIME.as_nanos() as u64),
            booted: Cell::new(0),
            // Later than any build of the node: a time that it can believe.
            wall_at_zero: Cell::new(Timestamp::from_second(1_900_000_000).expect("in range")),
            wall_was_set: Cell::new(false),
            order,
            entries: Cell::new(0),
            frozen: Cell::new(false),
            queue: RefCell::default(),
        })
    }

    pub fn now(&self) -> Nanos {
        self.now.get()
    }

    pub fn since_boot(&self) -> BootTime {
        BootTime::from_duration(Duration::from_nanos(self.now.get() - self.booted.get()))
    }

    /// Runs `funeral` with all requests to the world falling on deaf ears.
    pub fn freeze(&self, funeral: impl FnOnce()) {
        self.frozen.set(true);
        funeral();
        self.frozen.set(false);
    }

    /// Boot time starts again from a few seconds.
    pub fn reboot(&self) {
        self.booted
            .set(self.now.get() - FIRST_UPTIME.as_nanos() as u64);
    }

    /// Resolves at `due`, for whichever machine's clock asked.
    pub fn sleep_until(self: &Rc<Timeline>, due: Nanos) -> LocalFuture<'static, ()> {
        Box::pin(Sleep {
            timeline: Rc::clone(self),
            due,
            when: None,
        })
    }

    /// Lets the world do something later, whatever becomes of the agent.
    pub fn after(&self, delay: Duration, act: impl FnOnce() + 'static) {
        let due = self.now.get() + delay.as_nanos() as u64;
        self.insert(due, Entry::Act(Box::new(act)));
    }

    pub fn next_due(&self) -> Option<Nanos> {
        let queue = self.queue.borrow();
        queue.keys().next().map(|when| when.0)
    }

    /// Moves to the earliest entry and fires it. False if there is none.
    pub fn fire_next(&self) -> bool {
        let Some(((due, ..), entry)) = self.queue.borrow_mut().pop_first() else {
            return false;
        };
        self.now.set(self.now.get().max(due));
        match entry {
            Entry::Act(act) => act(),
            Entry::Wake(waker) => waker.wake(),
        }
        true
    }

    /// Moves on to `to`, which must not lie behind an entry.
    pub fn jump(&self, to: Nanos) {
        assert!(self.next_due().is_none_or(|due| due >= to));
        self.now.set(self.now.get().max(to));
    }

    pub fn wall(&self) -> Timestamp {
        let span = SignedDuration::from_nanos(self.now.get() as i64);
        self.wall_at_zero
            .get()
            .checked_add(span)
            .unwrap_or(Timestamp::MAX)
    }

    pub fn set_wall(&self, wall: Timestamp) {
        let span = SignedDuration::from_nanos(self.now.get() as i64);
        self.wall_at_zero
            .set(wall.checked_sub(span).unwrap_or(Timestamp::MIN));
        self.wall_was_set.set(true);
    }

    /// Whether wall time has ever been anything but right.
    pub fn wall_was_set(&self) -> bool {
        self.wall_was_set.get()
    }

    fn insert(&self, due: Nanos, entry: Entry) -> When {
        self.entries.set(self.entries.get() + 1);
        if self.frozen.get() {
            return (due, 0, self.entries.get());
        }
        let when = (due, self.order.next(), self.entries.get());
        self.queue.borrow_mut().insert(when, entry);
        when
    }
}

/// `world::Clock` over the timeline.
pub struct SimClock(pub Rc<Timeline>);

impl Clock for SimClock {
    fn now(&self) -> BootTime {
        self.0.since_boot()
    }

    fn wall(&self) -> Timestamp {
        self.0.wall()
    }

    fn sleep_until(&self, deadline: BootTime) -> LocalFuture<'static, ()> {
        let span = u64::try_from(deadline.as_duration().as_nanos()).unwrap_or(u64::MAX);
        self.0.sleep_until(self.0.booted.get().saturating_add(span))
    }
}

struct Sleep {
    timeline: Rc<Timeline>,
    due: Nanos,
    when: Option<When>,
}

impl Sleep {
    fn forget(&mut self) {
        if let Some(when) = self.when.take() {
            self.timeline.queue.borrow_mut().remove(&when);
        }
    }
}

impl Future for Sleep {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        self.forget();
        if self.timeline.now() >= self.due {
            return Poll::Ready(());
        }
        // A deadline that never comes needs no entry: the run could not end by jumping to it.
        if self.due < u64::MAX {
            let waker = context.waker().clone();
            self.when = Some(self.timeline.insert(self.due, Entry::Wake(waker)));
        }
        Poll::Pending
    }
}

impl Drop for Sleep {
    fn drop(&mut self) {
        self.forget();
    }
}
