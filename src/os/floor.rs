//! The latest time that is known to have been: what dates of certificates are judged by when the
//! clock is behind it.
//!
//! A board without a battery boots in 1970 and gets the time only from servers that it trusts, which
//! it cannot check in 1970. No clock raises the floor by itself, neither ours nor a server's: only
//! what both say, or a server alone while our clock is certainly wrong. It never falls; `node` keeps
//! it over restarts.

use std::sync::atomic::{AtomicI64, Ordering};

use event_listener::{Event, EventListener};
use jiff::Timestamp;

use crate::world::build_time;

/// Of this process: it has one clock.
pub static FLOOR: Floor = Floor::new();

#[derive(Debug)]
pub struct Floor {
    /// Seconds since 1970.
    at: AtomicI64,
    raised: Event,
}

impl Floor {
    pub const fn new() -> Floor {
        Floor {
            at: AtomicI64::new(0),
            raised: Event::new(),
        }
    }

    /// Resolves the next time that it is raised.
    pub fn raised(&self) -> EventListener {
        self.raised.listen()
    }

    /// Never before this program was built. To the second.
    pub fn at(&self) -> Timestamp {
        let at = Timestamp::from_second(self.at.load(Ordering::Relaxed));
        at.unwrap_or_default().max(build_time())
    }

    /// The time that dates are judged by when the clock shows `wall`.
    pub fn credible(&self, wall: Timestamp) -> Timestamp {
        wall.max(self.at())
    }

    /// What was known before a restart.
    pub fn recall(&self, at: Timestamp) {
        let at = at.as_second();
        if self.at.fetch_max(at, Ordering::Relaxed) < at {
            self.raised.notify(usize::MAX);
        }
    }

    /// A server that proved who it is, by a certificate that ends at `until`, says that it is `told`;
    /// the clock shows `wall`.
    pub fn hear(&self, told: Timestamp, until: Timestamp, wall: Timestamp) {
        let behind = wall < self.at();
        // Nobody has a certificate from the past: such a server's clock is wrong.
        if told <= until {
            self.recall(if behind { told } else { told.min(wall) });
        }
    }
}

impl Default for Floor {
    fn default() -> Floor {
        Floor::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_two_agree_on_raises_it_unless_the_clock_is_certainly_wrong() {
        // Years after 2100, so that the build is before all of them.
        let year = |year: i16| {
            let date = jiff::civil::date(2100 + year, 1, 1).at(0, 0, 0, 0);
            let zoned = date.to_zoned(jiff::tz::TimeZone::UTC).expect("a date");
            zoned.timestamp()
        };
        let past = Timestamp::UNIX_EPOCH;
        for (floor, wall, told, until, expected) in [
            // Both right.
            (Some(1), year(2), year(2), year(3), year(2)),
            // Our clock is ahead, or the server's.
            (Some(1), year(9), year(2), year(3), year(2)),
            (Some(1), year(2), year(9), year(9), year(2)),
            // Ours is certainly behind.
            (Some(1), past, year(2), year(3), year(2)),
            (Some(1), past, year(9), year(3), year(1)),
            // Nothing makes it fall.
            (Some(5), past, year(2), year(3), year(5)),
            (Some(5), year(6), past, year(9), year(5)),
            // The first contact of a new board, with and without a clock.
            (None, past, year(2), year(3), year(2)),
            (None, year(2), year(2), year(3), year(2)),
        ] {
            let known = Floor::new();
            floor.into_iter().for_each(|at| known.recall(year(at)));
            known.hear(told, until, wall);
            assert_eq!(known.at(), expected, "{floor:?} {wall} {told} {until}");
            assert!(known.credible(past) == expected && known.credible(year(99)) == year(99));
        }
        assert_eq!(Floor::new().at(), build_time());
    }
}
