//! What keeps one object's events from drowning all others: those that differ in nothing but their message
//! are told as one, and an object that has had its share waits.
//!
//! Source: Kubernetes client-go tools/record/events_cache.go. Beyond that, what is said for the first time is
//! never kept back: a probe that flaps must not hide that the pod's image is gone.

use std::time::Duration;

use serde_json::json;

use super::EventRecord;
use crate::object::json::fingerprint;
use crate::world::BootTime;

/// Of one type and reason, within the span of each other: from the tenth message on they are one event.
const SIMILAR_MAX: usize = 10;
const SIMILAR_SPAN: Duration = Duration::from_secs(600);
const COMBINED: &str = "(combined from similar events): ";
/// An object's share: so many events at once, and one more each time this is over.
const BURST: u32 = 25;
const REFILL: Duration = Duration::from_secs(300);

/// What an event is among those of its object, type and reason.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Telling {
    /// The first for a while.
    First,
    /// Told by itself.
    Single,
    /// One of too many.
    Combined,
}

/// How much was said of one object lately.
#[derive(Default)]
pub(super) struct Talk {
    /// When all of its share is there again.
    full_at: BootTime,
    similar: Vec<Similar>,
}

/// Events of one type and reason.
struct Similar {
    warning: bool,
    reason: String,
    last: BootTime,
    /// Hashes of their messages.
    messages: Vec<u64>,
}

impl Talk {
    /// Whether it matters no more that anything was said.
    pub fn is_over(&self, now: BootTime) -> bool {
        let mut similar = self.similar.iter();
        self.full_at <= now && similar.all(|similar| now.since(similar.last) >= SIMILAR_SPAN)
    }

    /// Gives an event that is one of too many the message of all of them.
    pub fn place(&mut self, event: &mut EventRecord, now: BootTime) -> Telling {
        self.similar
            .retain(|similar| now.since(similar.last) < SIMILAR_SPAN);
        let same = |known: &Similar| known.warning == event.warning && known.reason == event.reason;
        let at = self.similar.iter().position(same).unwrap_or_else(|| {
            self.similar.push(Similar {
                warning: event.warning,
                reason: event.reason.clone(),
                last: now,
                messages: Vec::new(),
            });
            self.similar.len() - 1
        });
        let similar = &mut self.similar[at];
        similar.last = now;
        let message = fingerprint(&json!(event.message));
        if similar.messages.is_empty() {
            similar.messages.push(message);
            return Telling::First;
        }
        if similar.messages.contains(&message) {
            return Telling::Single;
        }
        if similar.messages.len() + 1 < SIMILAR_MAX {
            similar.messages.push(message);
            return Telling::Single;
        }
        event.message.insert_str(0, COMBINED);
        Telling::Combined
    }

    /// Takes one from the object's share, if there is one.
    pub fn takes(&mut self, now: BootTime) -> bool {
        let full_at = self.full_at.max(now) + REFILL;
        let there = full_at.since(now) <= REFILL * BURST;
        if there {
            self.full_at = full_at;
        }
        there
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::object::{Key, Kind};

    fn at(seconds: u64) -> BootTime {
        BootTime::from_duration(Duration::from_secs(seconds))
    }

    fn event(reason: &str, message: &str) -> EventRecord {
        EventRecord {
            involved: Key::local(Kind::Pod, "default", "web"),
            uid: "u1".to_owned(),
            field_path: None,
            warning: true,
            reason: reason.to_owned(),
            message: message.to_owned(),
        }
    }

    #[test]
    fn the_tenth_message_of_a_reason_is_that_of_all() {
        let mut talk = Talk::default();
        let mut tell = |reason: &str, message: &str, now| {
            let mut event = event(reason, message);
            let turn = talk.place(&mut event, now);
            let combined = turn == Telling::Combined;
            assert_eq!(combined, event.message.starts_with(COMBINED), "{message}");
            assert!(event.message.ends_with(message));
            turn
        };
        assert_eq!(tell("Unhealthy", "0", at(0)), Telling::First);
        for n in 1..9 {
            assert_eq!(tell("Unhealthy", &n.to_string(), at(n)), Telling::Single);
        }
        assert_eq!(tell("BackOff", "another reason", at(9)), Telling::First);
        // Known messages are counted each by itself.
        assert_eq!(tell("Unhealthy", "3", at(9)), Telling::Single);
        for n in 9..30 {
            assert_eq!(tell("Unhealthy", &n.to_string(), at(n)), Telling::Combined);
        }
        // Each is within the span of the one before, and then none was.
        assert_eq!(tell("Unhealthy", "x", at(628)), Telling::Combined);
        assert_eq!(tell("Unhealthy", "x", at(1228)), Telling::First);
    }

    #[test]
    fn an_object_has_its_share() {
        let mut talk = Talk::default();
        assert!(talk.is_over(at(5)));
        let told = (0..100).filter(|_| talk.takes(at(5))).count();
        assert_eq!(told, 25);
        assert!(!talk.takes(at(304)));
        assert!(talk.takes(at(305)) && !talk.takes(at(305)));
        assert!(!talk.is_over(at(5 + 25 * 300)) && talk.is_over(at(5 + 26 * 300)));
        let told = (0..100).filter(|_| talk.takes(at(1_000_000))).count();
        assert_eq!(told, 25);
    }
}
