//! Boot time, wall time, and one kernel timer for all of the node's waiting.
//!
//! ```text
//!   sleep_until ─► table of deadlines ─► one timerfd (CLOCK_BOOTTIME), set to the earliest
//!                        ▲                      │ readable
//!                        └── due ones are woken ┘ (on the reactor's thread)
//! ```
//! With an empty table the timer is off: an idle node is never woken. A timer set before a suspend
//! fires at once when the machine resumes, if its time has passed.

use std::collections::BTreeMap;
use std::future::Future;
use std::io;
use std::os::fd::OwnedFd;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use async_io::Async;
use jiff::Timestamp;
use rustix::time::{
    ClockId, Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec,
};

use super::floor::FLOOR;
use crate::world::{BootTime, Clock, LocalFuture, Stamp};

/// Boot time now, without a clock at hand (the shim, tests).
pub fn boot_time() -> BootTime {
    let now = rustix::time::clock_gettime(ClockId::Boottime);
    BootTime::from_duration(duration(now))
}

/// Wall time now.
pub fn wall_time() -> Timestamp {
    let now = rustix::time::clock_gettime(ClockId::Realtime);
    Timestamp::new(now.tv_sec, now.tv_nsec as i32).unwrap_or(Timestamp::UNIX_EPOCH)
}

/// Both together.
pub fn stamp() -> Stamp {
    Stamp {
        boot: boot_time(),
        wall: wall_time(),
    }
}

fn duration(time: Timespec) -> Duration {
    Duration::new(
        time.tv_sec.try_into().unwrap_or(0),
        time.tv_nsec.try_into().unwrap_or(0),
    )
}

/// The real clock. Make one for the node.
#[derive(Clone, Debug)]
pub struct SystemClock(Arc<Timer>);

#[derive(Debug)]
struct Timer {
    fd: Async<OwnedFd>,
    table: Mutex<Table>,
}

#[derive(Debug, Default)]
struct Table {
    /// By deadline, then by number, so that equal deadlines do not displace each other.
    sleepers: BTreeMap<(BootTime, u64), Waker>,
    next: u64,
    /// What the kernel's timer is set to.
    armed: Option<BootTime>,
}

impl SystemClock {
    pub fn new() -> io::Result<SystemClock> {
        let flags = TimerfdFlags::CLOEXEC | TimerfdFlags::NONBLOCK;
        let fd = rustix::time::timerfd_create(TimerfdClockId::Boottime, flags)?;
        let timer = Arc::new(Timer {
            fd: Async::new_nonblocking(fd)?,
            table: Mutex::default(),
        });
        timer.listen();
        Ok(SystemClock(timer))
    }
}

impl Clock for SystemClock {
    fn now(&self) -> BootTime {
        boot_time()
    }

    fn wall(&self) -> Timestamp {
        wall_time()
    }

    fn credible(&self) -> Timestamp {
        FLOOR.credible(wall_time())
    }

    fn hear(&self, told: Timestamp, until: Timestamp) {
        FLOOR.hear(told, until, wall_time());
    }

    fn sleep_until(&self, deadline: BootTime) -> LocalFuture<'static, ()> {
        Box::pin(Sleep {
            timer: self.0.clone(),
            deadline,
            number: None,
        })
    }
}

impl Timer {
    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Registers for the timer's next expiry; takes expiries that are there already.
    fn listen(self: &Arc<Self>) {
        let waker = Waker::from(Arc::new(Expiry(Arc::downgrade(self))));
        let mut context = Context::from_waker(&waker);
        while let Poll::Ready(Ok(())) = self.fd.poll_readable(&mut context) {
            // The count does not matter: the table says who is due.
            let _count = rustix::io::read(self.fd.get_ref(), &mut [0u8; 8][..]);
        }
    }

    fn wake_due(&self) {
        let mut due = Vec::new();
        {
            let mut table = self.table();
            let now = boot_time();
            while let Some(entry) = table.sleepers.first_entry() {
                if entry.key().0 > now {
                    break;
                }
                due.push(entry.remove());
            }
            table.armed = None;
            self.arm(&mut table);
        }
        due.into_iter().for_each(Waker::wake);
    }

    /// Sets the kernel's timer to the earliest deadline, or off.
    fn arm(&self, table: &mut Table) {
        let earliest = table.sleepers.keys().next().map(|(deadline, _)| *deadline);
        if earliest == table.armed {
            return;
        }
        // A zero value would turn the timer off, so a deadline of 0 is 1 ns.
        let at = earliest.map_or(Duration::ZERO, |deadline| {
            deadline.as_duration().max(Duration::from_nanos(1))
        });
        let value = Itimerspec {
            it_interval: timespec(Duration::ZERO),
            it_value: timespec(at),
        };
        let flags = TimerfdTimerFlags::ABSTIME;
        rustix::time::timerfd_settime(self.fd.get_ref(), flags, &value)
            .expect("the descriptor is a timer and the value is normalised");
        table.armed = earliest;
    }
}

fn timespec(span: Duration) -> Timespec {
    Timespec {
        // Far deadlines (Duration::MAX) are never reached; the kernel wants them in range.
        tv_sec: span.as_secs().min(i64::from(i32::MAX) as u64) as _,
        tv_nsec: span.subsec_nanos() as _,
    }
}

/// Called by the reactor when the kernel's timer has expired.
struct Expiry(std::sync::Weak<Timer>);

impl Wake for Expiry {
    fn wake(self: Arc<Self>) {
        if let Some(timer) = self.0.upgrade() {
            timer.listen();
            timer.wake_due();
        }
    }
}

struct Sleep {
    timer: Arc<Timer>,
    deadline: BootTime,
    number: Option<u64>,
}

impl Future for Sleep {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        if boot_time() >= self.deadline {
            return Poll::Ready(());
        }
        let timer = self.timer.clone();
        let mut table = timer.table();
        let number = *self.number.get_or_insert_with(|| {
            table.next += 1;
            table.next
        });
        let key = (self.deadline, number);
        table.sleepers.insert(key, context.waker().clone());
        timer.arm(&mut table);
        Poll::Pending
    }
}

impl Drop for Sleep {
    fn drop(&mut self) {
        if let Some(number) = self.number {
            let mut table = self.timer.table();
            if table.sleepers.remove(&(self.deadline, number)).is_some() {
                self.timer.arm(&mut table);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_lite::future;

    #[test]
    fn sleepers_wake_in_the_order_of_their_deadlines() {
        let clock = SystemClock::new().expect("timer");
        let start = clock.now();
        let order = std::cell::RefCell::new(Vec::new());
        let sleeper = |ms: u64| {
            let nap = clock.sleep_until(start + Duration::from_millis(ms));
            let order = &order;
            async move {
                nap.await;
                order.borrow_mut().push(ms);
            }
        };
        let (a, b, c) = (sleeper(30), sleeper(10), sleeper(20));
        async_io::block_on(future::zip(future::zip(a, b), c));
        assert_eq!(*order.borrow(), [10, 20, 30]);
        assert!(clock.now().since(start) >= Duration::from_millis(30));
    }

    #[test]
    fn a_dropped_sleep_leaves_the_timer_off() {
        let clock = SystemClock::new().expect("timer");
        let far = clock.now() + Duration::from_secs(3600);
        let mut nap = clock.sleep_until(far);
        assert_eq!(async_io::block_on(future::poll_once(&mut nap)), None);
        assert_eq!(clock.0.table().armed, Some(far));
        drop(nap);
        assert_eq!(clock.0.table().armed, None);
    }
}
