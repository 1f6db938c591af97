//! What the cluster said about somebody, for as long as it counts. Pure: times come from the caller.
//!
//! ```text
//!   learned ──► fresh: nobody is asked ──► stale: counts only while the cluster cannot be asked ──► gone
//!   yes          fresh_yes                     until `silent` after it was learned
//!   no           fresh_no                      never
//! ```
//! The stale part is the rule for a cut link: what the cluster has allowed goes on for a while, and
//! nothing that it has not allowed begins. A token's own end is kept in every case. Times are boot
//! time, so that no change of the wall clock makes an answer last.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;

use crate::object::User;
use crate::world::BootTime;

/// Answers of each kind that are kept; the oldest goes. Those of strangers push out no friend's.
pub const ENTRIES_MAX: usize = 512;

/// SHA-256 of a question: a token itself is not kept.
pub type Question = [u8; 32];

/// How long answers count.
#[derive(Clone, Copy, Debug)]
pub struct Spans {
    pub fresh_yes: Duration,
    pub fresh_no: Duration,
    /// Since a yes was learned; at least `fresh_yes`.
    pub silent: Duration,
}

/// What the cluster said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It is this user; this user may.
    Yes(Arc<User>),
    /// With its reason, which may be empty.
    No(String),
}

struct Held {
    verdict: Verdict,
    learned: BootTime,
    /// Wall time from which a yes does not count any more.
    expires: Option<Timestamp>,
}

/// Answers to one kind of question.
pub struct Cache {
    spans: Spans,
    yes: BTreeMap<Question, Held>,
    no: BTreeMap<Question, Held>,
}

impl Cache {
    pub fn new(spans: Spans) -> Cache {
        Cache {
            spans,
            yes: BTreeMap::new(),
            no: BTreeMap::new(),
        }
    }

    /// An answer that makes asking needless.
    pub fn fresh(&self, question: &Question, now: BootTime, wall: Timestamp) -> Option<Verdict> {
        let no = self.no.get(question);
        let no = no.filter(|held| now.since(held.learned) < self.spans.fresh_no);
        let held = no.or_else(|| self.lasting(question, now, wall, self.spans.fresh_yes));
        held.map(|held| held.verdict.clone())
    }

    /// An answer for as long as the cluster cannot be asked.
    pub fn stale(&self, question: &Question, now: BootTime, wall: Timestamp) -> Option<Verdict> {
        let held = self.lasting(question, now, wall, self.spans.silent);
        held.map(|held| held.verdict.clone())
    }

    fn lasting(
        &self,
        question: &Question,
        now: BootTime,
        wall: Timestamp,
        span: Duration,
    ) -> Option<&Held> {
        let held = self.yes.get(question)?;
        let ended = held.expires.is_some_and(|expires| expires <= wall);
        (!ended && now.since(held.learned) < span).then_some(held)
    }

    /// Keeps an answer in place of the one before. `expires`: the end of what was asked about.
    pub fn learn(
        &mut self,
        question: Question,
        verdict: Verdict,
        now: BootTime,
        expires: Option<Timestamp>,
    ) {
        self.yes.remove(&question);
        self.no.remove(&question);
        let kept = match &verdict {
            Verdict::Yes(_) => &mut self.yes,
            Verdict::No(_) => &mut self.no,
        };
        if kept.len() >= ENTRIES_MAX {
            let oldest = kept.iter().min_by_key(|(_, held)| held.learned);
            if let Some(oldest) = oldest.map(|(question, _)| *question) {
                kept.remove(&oldest);
            }
        }
        let held = Held {
            verdict,
            learned: now,
            expires,
        };
        kept.insert(question, held);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SPANS: Spans = Spans {
        fresh_yes: Duration::from_secs(120),
        fresh_no: Duration::from_secs(30),
        silent: Duration::from_secs(3600),
    };

    fn at(seconds: u64) -> BootTime {
        BootTime::default() + Duration::from_secs(seconds)
    }

    fn wall(seconds: i64) -> Timestamp {
        Timestamp::from_second(seconds).expect("a time")
    }

    fn yes() -> Verdict {
        Verdict::Yes(Arc::new(User::new("jane", &[])))
    }

    fn no() -> Verdict {
        Verdict::No("why".to_owned())
    }

    const Q: Question = [1; 32];

    #[test]
    fn a_yes_outlives_its_freshness_only_as_stale_and_a_no_never_does() {
        for (verdict, seconds, fresh, stale) in [
            (yes(), 0, true, true),
            (yes(), 119, true, true),
            (yes(), 120, false, true),
            (yes(), 3599, false, true),
            (yes(), 3600, false, false),
            (no(), 29, true, false),
            (no(), 30, false, false),
        ] {
            let mut cache = Cache::new(SPANS);
            cache.learn(Q, verdict.clone(), at(0), None);
            let told = (
                cache.fresh(&Q, at(seconds), wall(0)),
                cache.stale(&Q, at(seconds), wall(0)),
            );
            let some = |is| Some(verdict.clone()).filter(|_| is);
            assert_eq!(told, (some(fresh), some(stale)), "{verdict:?} {seconds} s");
        }
    }

    #[test]
    fn no_token_counts_beyond_its_own_end() {
        let mut cache = Cache::new(SPANS);
        cache.learn(Q, yes(), at(0), Some(wall(50)));
        assert!(cache.fresh(&Q, at(49), wall(49)).is_some());
        assert_eq!(cache.fresh(&Q, at(50), wall(50)), None);
        assert_eq!(cache.stale(&Q, at(50), wall(50)), None);
    }

    #[test]
    fn the_newest_answer_is_the_only_one() {
        let mut cache = Cache::new(SPANS);
        cache.learn(Q, yes(), at(0), None);
        cache.learn(Q, no(), at(10), None);
        assert_eq!(cache.fresh(&Q, at(11), wall(0)), Some(no()));
        assert_eq!(cache.stale(&Q, at(50), wall(0)), None, "taken back");
        cache.learn(Q, yes(), at(60), None);
        assert_eq!(cache.fresh(&Q, at(61), wall(0)), Some(yes()));
    }

    #[test]
    fn a_crowd_of_strangers_pushes_out_the_oldest_of_its_own() {
        let mut cache = Cache::new(SPANS);
        cache.learn(Q, yes(), at(0), None);
        let of = |number: u64| {
            let mut question = [0; 32];
            question[..8].copy_from_slice(&number.to_be_bytes());
            question
        };
        for number in 0..=ENTRIES_MAX as u64 {
            cache.learn(of(number), no(), at(number), None);
        }
        let now = at(ENTRIES_MAX as u64);
        assert_eq!(cache.no.len(), ENTRIES_MAX);
        assert!(!cache.no.contains_key(&of(0)) && cache.no.contains_key(&of(1)));
        assert_eq!(cache.stale(&Q, now, wall(0)), Some(yes()));
    }
}
