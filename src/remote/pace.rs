//! How often the node tells the cluster that it lives, by what came of it before.

use std::time::Duration;

/// Between two renewals of the lease, a quarter of what it lasts.
const LEASE_PERIOD: Duration = Duration::from_secs(10);
/// A beat that takes longer is perhaps lost, and is begun again once the link is seen to be open: after
/// twice the time if it was begun again already, since a link that comes and goes, or a slow server,
/// must not keep each beat from its end.
pub const BEAT_USUAL: Duration = Duration::from_secs(2);
const BEAT_LONG: Duration = Duration::from_secs(60);
/// While the cluster is silent it is asked this often: each time may cost a handshake, so after so many
/// times less often. When its door opens it is asked at once.
const SILENT_PERIOD: Duration = Duration::from_secs(1);
const SILENT_SHORT: u32 = 60;
const SILENT_LONG: Duration = Duration::from_secs(5);
/// After a refusal, times the refusals so far.
const REFUSED_PERIOD: Duration = Duration::from_secs(1);

#[derive(Default)]
pub struct Pace {
    /// Beats without an answer, one after the other.
    unanswered: u32,
    /// Beats that were answered and did not renew the lease.
    refused: u32,
    /// How often the present beat was begun again.
    tries: u32,
}

impl Pace {
    /// How long a beat may last before the cluster's door is knocked at.
    pub fn patience(&self) -> Duration {
        match (self.tries, self.unanswered) {
            (0, 1..) => Duration::ZERO,
            (tries, _) => (BEAT_USUAL * (1 << tries.min(10))).min(BEAT_LONG),
        }
    }

    /// Whether the beat before this one came to nothing.
    pub fn is_recovering(&self) -> bool {
        self.unanswered > 0
    }

    /// The door opened while a beat was under way.
    pub fn begun_anew(&mut self) {
        self.tries = self.tries.saturating_add(1);
    }

    /// From the begin of the beat to that of the next.
    pub fn answered(&mut self, renewed: bool) -> Duration {
        (self.tries, self.unanswered) = (0, 0);
        if renewed {
            self.refused = 0;
            return LEASE_PERIOD;
        }
        self.refused = self.refused.saturating_add(1);
        REFUSED_PERIOD
            .saturating_mul(self.refused)
            .min(LEASE_PERIOD)
    }

    /// From the end of the beat to the begin of the next.
    pub fn unanswered(&mut self) -> Duration {
        self.tries = 0;
        self.unanswered = self.unanswered.saturating_add(1);
        match self.unanswered <= SILENT_SHORT {
            true => SILENT_PERIOD,
            false => SILENT_LONG,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn s(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn silence_is_broken_each_second_at_first_and_refusals_are_met_with_pauses_that_grow() {
        let mut pace = Pace::default();
        assert_eq!((pace.patience(), pace.answered(true)), (s(2), s(10)));
        for _ in 0..60 {
            assert_eq!(pace.unanswered(), s(1));
            assert_eq!(pace.patience(), s(0));
        }
        assert_eq!(pace.unanswered(), s(5));
        assert!(pace.is_recovering());
        for expected in [4, 8, 16, 32, 60, 60] {
            pace.begun_anew();
            assert_eq!(pace.patience(), s(expected));
        }
        assert_eq!((pace.answered(true), pace.patience()), (s(10), s(2)));
        for expected in [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 10] {
            assert_eq!(pace.answered(false), s(expected));
        }
        assert_eq!((pace.answered(true), pace.answered(false)), (s(10), s(1)));
    }
}
