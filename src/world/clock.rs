//! Time and randomness as the node sees them.
//!
//! Timers, back-off and probe periods run on boot time, which no administrator, NTP step or dead
//! RTC battery can move. Wall time is only ever shown or stored, never subtracted, but for how long a
//! pod had been here when its machine came back from a reboot.

use std::ops::{Add, Sub};
use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::LocalFuture;

/// Time since boot, suspended time included (`CLOCK_BOOTTIME`, see clock_gettime(2)).
///
/// Comparable only within one boot.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct BootTime(Duration);

impl BootTime {
    pub const fn from_duration(since_boot: Duration) -> Self {
        Self(since_boot)
    }

    pub const fn as_duration(self) -> Duration {
        self.0
    }

    /// Time from `earlier` until `self`; zero if `earlier` is later.
    pub fn since(self, earlier: BootTime) -> Duration {
        self.0.saturating_sub(earlier.0)
    }
}

impl Add<Duration> for BootTime {
    type Output = BootTime;

    fn add(self, span: Duration) -> BootTime {
        BootTime(self.0.saturating_add(span))
    }
}

impl Sub<Duration> for BootTime {
    type Output = BootTime;

    fn sub(self, span: Duration) -> BootTime {
        BootTime(self.0.saturating_sub(span))
    }
}

/// One moment on both clocks: `boot` to reckon with, `wall` to show.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stamp {
    pub boot: BootTime,
    pub wall: Timestamp,
}

/// When this program was built: no clock that is right is before it.
pub fn build_time() -> Timestamp {
    let seconds = env!("LOWTIDE_BUILD_TIME").parse().unwrap_or(0);
    Timestamp::from_second(seconds).unwrap_or(Timestamp::UNIX_EPOCH)
}

/// The two clocks and the one timer of the node.
pub trait Clock {
    /// Boot time now. Never goes backwards.
    fn now(&self) -> BootTime;

    /// Wall time now: may be 1970, may jump either way.
    fn wall(&self) -> Timestamp;

    /// Wall time as far as dates of certificates and tokens go: never before what is known to have been.
    /// A machine without a battery boots in 1970.
    fn credible(&self) -> Timestamp {
        self.wall().max(build_time())
    }

    /// A server that proved who it is, by a certificate that ends at `until`, says what time it is.
    fn hear(&self, _told: Timestamp, _until: Timestamp) {}

    /// Resolves once `now() >= deadline`. Dropping the future forgets the timer.
    fn sleep_until(&self, deadline: BootTime) -> LocalFuture<'static, ()>;
}

/// Randomness for names, jitter and nonces. The real one is the kernel's generator.
pub trait Random {
    fn fill(&self, bytes: &mut [u8]);

    /// A uniform number below `bound` (`bound` > 0), to within one part in 2^32.
    fn below(&self, bound: u64) -> u64 {
        let mut bytes = [0u8; 8];
        self.fill(&mut bytes);
        u64::from_le_bytes(bytes) % bound
    }
}
