//! Exponential back-off, as a value: no clock, no timer.
//!
//! ```text
//!   none ── first failure: at once ──► 10 s ── ×2 each ──► 20 … 160 ──► 300 s (stays)
//!    ▲                                                                     │
//!    └───────────────── 10 min from one restart to the next failure ◄──────┘
//! ```
//! Source: Kubernetes pkg/kubelet/kuberuntime (doBackOff), client-go util/flowcontrol/backoff.go.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::world::BootTime;

/// First delay between two restarts.
pub const DELAY_MIN: Duration = Duration::from_secs(10);
/// Longest delay between two restarts.
pub const DELAY_MAX: Duration = Duration::from_secs(300);
/// A container that ran this long starts from the first delay again.
const FORGET_AFTER: Duration = Duration::from_secs(600);

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct BackOff {
    /// Zero until the first restart.
    delay: Duration,
    /// When `delay` was last raised.
    updated: BootTime,
}

impl BackOff {
    /// When a container that ended at `failed` may start again. A time in the past means now.
    pub fn ready_at(&self, failed: BootTime) -> BootTime {
        if self.is_forgotten(failed) {
            failed
        } else {
            failed + self.delay
        }
    }

    /// The delay that is being waited for.
    pub fn delay(&self) -> Duration {
        self.delay
    }

    /// Notes a restart at `now` after a failure at `failed`: the next delay is longer.
    pub fn restarted(&mut self, failed: BootTime, now: BootTime) {
        self.delay = if self.is_forgotten(failed) {
            DELAY_MIN
        } else {
            (self.delay * 2).min(DELAY_MAX)
        };
        self.updated = now;
    }

    fn is_forgotten(&self, failed: BootTime) -> bool {
        self.delay.is_zero() || failed.since(self.updated) > FORGET_AFTER
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> BootTime {
        BootTime::from_duration(Duration::from_secs(seconds))
    }

    #[test]
    fn delays_double_from_ten_seconds_to_five_minutes() {
        let mut back_off = BackOff::default();
        let mut now = at(1000);
        let mut delays = Vec::new();
        for _ in 0..8 {
            let start = back_off.ready_at(now);
            delays.push(start.since(now).as_secs());
            back_off.restarted(now, start);
            now = start + Duration::from_secs(1);
        }
        assert_eq!(delays, [0, 10, 20, 40, 80, 160, 300, 300]);
    }

    #[test]
    fn ten_minutes_of_running_forget_the_past() {
        let mut back_off = BackOff::default();
        back_off.restarted(at(0), at(0));
        back_off.restarted(at(1), at(11));
        assert_eq!(back_off.ready_at(at(11 + 600)), at(11 + 620));
        assert_eq!(back_off.ready_at(at(11 + 601)), at(11 + 601));
        back_off.restarted(at(11 + 601), at(11 + 601));
        assert_eq!(back_off.delay(), DELAY_MIN);
    }
}
