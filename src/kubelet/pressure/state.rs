//! From levels to verdicts: which thresholds are met, since when, and what the node says of it.
//!
//! ```text
//!   level < amount ──► met ──(soft: grace period)──► due ──► evict one
//!                       └► condition True ── none met for the transition period ──► False
//! ```
//! Pure but for what it remembers between two looks. Source: Kubernetes pkg/kubelet/eviction.

use std::collections::{BTreeMap, BTreeSet};

use super::thresholds::{Condition, Kind, Policy, Signal, Threshold};
use crate::world::{BootTime, Level, Levels};

#[derive(Debug, Default)]
pub struct State {
    /// Thresholds that are met, by signal and kind, and since when.
    met: BTreeMap<(Signal, Kind), BootTime>,
    /// When each condition was last seen to hold.
    held: BTreeMap<Condition, BootTime>,
}

/// A shortage that asks for an eviction now.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Shortage {
    pub threshold: Threshold,
    pub level: Level,
}

#[derive(Clone, Debug, Default, PartialEq)]
pub struct Verdict {
    pub conditions: BTreeSet<Condition>,
    /// The first by order of signals; hard before soft.
    pub shortage: Option<Shortage>,
}

impl State {
    /// A level that cannot be read leaves its threshold as it was found last.
    pub fn judge(&mut self, policy: &Policy, levels: &Levels, now: BootTime) -> Verdict {
        let mut shortage: Option<Shortage> = None;
        for threshold in &policy.thresholds {
            let key = (threshold.signal, threshold.kind);
            let Some(level) = threshold.signal.level(levels) else {
                continue;
            };
            let mut needed = threshold.amount.of(level.capacity);
            if self.met.contains_key(&key) {
                needed = needed.saturating_add(threshold.reclaim.of(level.capacity));
            }
            if level.available >= needed {
                self.met.remove(&key);
                continue;
            }
            let since = *self.met.entry(key).or_insert(now);
            let due = match threshold.kind {
                Kind::Hard => true,
                Kind::Soft(grace) => now.since(since) >= grace,
            };
            let found = Shortage {
                threshold: *threshold,
                level,
            };
            let order = |one: &Shortage| (one.threshold.signal, one.threshold.kind);
            if due && shortage.is_none_or(|known| order(&found) < order(&known)) {
                shortage = Some(found);
            }
        }
        for (signal, _) in self.met.keys() {
            self.held.insert(signal.condition(), now);
        }
        self.held
            .retain(|_, seen| now.since(*seen) < policy.transition || *seen == now);
        Verdict {
            conditions: self.held.keys().copied().collect(),
            shortage,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::kubelet::pressure::thresholds::Amount;

    fn at(seconds: u64) -> BootTime {
        BootTime::from_duration(Duration::from_secs(seconds))
    }

    fn memory(available: u64) -> Levels {
        Levels {
            memory: Some(Level {
                capacity: 1000,
                available,
            }),
            ..Levels::default()
        }
    }

    fn policy(kind: Kind) -> Policy {
        Policy {
            thresholds: vec![Threshold {
                signal: Signal::Memory,
                kind,
                amount: Amount::Absolute(100),
                reclaim: Amount::Percent(5.0),
            }],
            transition: Duration::from_secs(300),
            grace_max: Duration::ZERO,
        }
    }

    #[test]
    fn a_hard_shortage_is_due_at_once_and_its_condition_lasts() {
        let (mut state, policy) = (State::default(), policy(Kind::Hard));
        let mut look = |second, available| {
            let verdict = state.judge(&policy, &memory(available), at(second));
            (!verdict.conditions.is_empty(), verdict.shortage.is_some())
        };
        assert_eq!(look(0, 100), (false, false));
        assert_eq!(look(10, 99), (true, true));
        // Enough for the threshold, not for the reclaim.
        assert_eq!(look(20, 149), (true, true));
        assert_eq!(look(30, 150), (true, false));
        assert_eq!(look(319, 150), (true, false));
        assert_eq!(look(320, 150), (false, false));
        // Without a level nothing changes.
        let verdict = state.judge(&policy, &Levels::default(), at(330));
        assert_eq!(verdict, Verdict::default());
    }

    #[test]
    fn a_soft_shortage_is_due_when_it_has_lasted() {
        let grace = Kind::Soft(Duration::from_secs(60));
        let (mut state, policy) = (State::default(), policy(grace));
        let mut look = |second, available| {
            let verdict = state.judge(&policy, &memory(available), at(second));
            (!verdict.conditions.is_empty(), verdict.shortage.is_some())
        };
        assert_eq!(look(0, 50), (true, false));
        assert_eq!(look(50, 200), (true, false));
        // Interrupted: it begins again.
        assert_eq!(look(60, 50), (true, false));
        assert_eq!(look(119, 50), (true, false));
        assert_eq!(look(120, 50), (true, true));
    }
}
