//! Events: what happened to an object, counted rather than multiplied, bounded, never stored.
//!
//! The same event (object, field, type, reason, message) again raises `count` and `lastTimestamp`,
//! as upstream's recorder does; `restraint` sees to objects of which too much is said. The oldest go when
//! there are too many or their hour is over; that is reckoned on boot time, so a clock jump neither drops nor
//! keeps them.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde_json::{Value, json};

use super::EventRecord;
use super::desk::seconds_text;
use super::options::Limits;
use super::published::Step;
use super::reader::Reader;
use super::restraint::{Talk, Telling};
use crate::object::json::fingerprint;
use crate::object::{Key, Kind, Object, Source, Standing};
use crate::world::{BootTime, Stamp};

/// What makes two events the same, as a digest: the texts themselves are in the registry.
type Sameness = [u8; 32];

#[derive(Default)]
pub(super) struct Events {
    by_sameness: BTreeMap<Sameness, Known>,
    /// By turn: the least recently seen first.
    by_turn: BTreeMap<u64, Sameness>,
    turn: u64,
    /// By a hash of the object; there are few.
    talks: Vec<(u64, Talk)>,
}

struct Known {
    key: Key,
    turn: u64,
    seen: BootTime,
    count: u64,
}

impl Events {
    /// The steps that publish `event` and forget what is over; and whether it is one of its own.
    pub fn record(
        &mut self,
        mut event: EventRecord,
        now: Stamp,
        node_name: &str,
        limits: &Limits,
        reader: &Reader,
    ) -> (Vec<Step>, bool) {
        let mut steps = self.expire(now.boot, limits.events, limits, reader);
        let talk = self.talk(&event, now.boot);
        let telling = talk.place(&mut event, now.boot);
        let told = talk.takes(now.boot) || telling == Telling::First;
        let sameness = sameness(&event, telling == Telling::Combined);
        if !told {
            // It counts when there is a next one that is told.
            if let Some(known) = self.by_sameness.get_mut(&sameness) {
                known.count += 1;
            }
            return (steps, false);
        }
        self.turn += 1;
        let turn = self.turn;
        self.by_turn.insert(turn, sameness);
        let again = self.by_sameness.get_mut(&sameness).and_then(|known| {
            self.by_turn.remove(&known.turn);
            known.turn = turn;
            known.seen = now.boot;
            known.count += 1;
            let mut object = reader.get_packed(&known.key)?.unpack();
            object.body["count"] = json!(known.count);
            object.body["lastTimestamp"] = json!(seconds_text(now.wall));
            object.body["message"] = json!(event.message);
            Some(object)
        });
        let fresh = again.is_none();
        let object = match again {
            Some(object) => object,
            None => {
                let key = free_key(&event.involved, now.wall, reader);
                let known = Known {
                    key: key.clone(),
                    turn,
                    seen: now.boot,
                    count: 1,
                };
                self.by_sameness.insert(sameness, known);
                first(event, key, now.wall, node_name)
            }
        };
        steps.push(Step::Put(Box::new(object)));
        (steps, fresh)
    }

    /// The steps that make room for an event that somebody else has written under `key`, and time for it.
    pub fn note(
        &mut self,
        key: &Key,
        now: BootTime,
        limits: &Limits,
        reader: &Reader,
    ) -> Vec<Step> {
        let sameness = digest(&json!(key));
        // Anew: it is the youngest.
        if let Some(known) = self.by_sameness.remove(&sameness) {
            self.by_turn.remove(&known.turn);
        }
        let steps = self.expire(now, limits.events, limits, reader);
        self.turn += 1;
        self.by_turn.insert(self.turn, sameness);
        let known = Known {
            key: key.clone(),
            turn: self.turn,
            seen: now,
            count: 1,
        };
        self.by_sameness.insert(sameness, known);
        steps
    }

    fn talk(&mut self, event: &EventRecord, now: BootTime) -> &mut Talk {
        let object = fingerprint(&json!([event.involved, event.uid]));
        let at = self.talks.iter().position(|(of, _)| *of == object);
        let at = at.unwrap_or_else(|| {
            self.talks.retain(|(_, talk)| !talk.is_over(now));
            self.talks.push((object, Talk::default()));
            self.talks.len() - 1
        });
        &mut self.talks[at].1
    }

    /// Forgets events that are over, and the oldest until there are fewer than `below`.
    pub fn expire(
        &mut self,
        now: BootTime,
        below: usize,
        limits: &Limits,
        reader: &Reader,
    ) -> Vec<Step> {
        let mut steps = Vec::new();
        while let Some((&turn, sameness)) = self.by_turn.first_key_value() {
            let over = self
                .by_sameness
                .get(sameness)
                .is_none_or(|known| now.since(known.seen) >= limits.event_ttl);
            if !over && self.by_turn.len() < below {
                break;
            }
            let known = self.by_sameness.remove(sameness);
            self.by_turn.remove(&turn);
            if let Some(shown) = known.and_then(|known| reader.get_packed(&known.key)) {
                steps.push(Step::Remove {
                    key: shown.key().clone(),
                    uid: shown.uid().to_owned(),
                });
            }
        }
        steps
    }
}

fn sameness(event: &EventRecord, combined: bool) -> Sameness {
    let mut parts = json!([event.involved, event.uid, event.warning, event.reason]);
    if !combined {
        parts = json!([parts, event.field_path, event.message]);
    }
    digest(&parts)
}

fn digest(parts: &Value) -> Sameness {
    let digest = ring::digest::digest(&ring::digest::SHA256, parts.to_string().as_bytes());
    digest.as_ref().try_into().expect("SHA-256 has 32 bytes")
}

/// `<object>.<hex nanoseconds>`, as upstream; the next free one where a clock stands still.
fn free_key(involved: &Key, wall: Timestamp, reader: &Reader) -> Key {
    let namespace = match involved.namespace.as_str() {
        "" => "default",
        namespace => namespace,
    };
    let mut nanos = wall.as_nanosecond().unsigned_abs();
    loop {
        let name = format!("{}.{nanos:x}", involved.name);
        let key = Key::local(Kind::Event, namespace, &name);
        if !reader.contains(&key) {
            return key;
        }
        // Ends: there are only so many events.
        nanos += 1;
    }
}

fn first(event: EventRecord, key: Key, wall: Timestamp, node_name: &str) -> Object {
    let seen = seconds_text(wall);
    let mut involved = json!({
        "apiVersion": "v1",
        "kind": event.involved.kind.name(),
        "name": event.involved.name,
        "uid": event.uid,
    });
    if !event.involved.namespace.is_empty() {
        involved["namespace"] = json!(event.involved.namespace);
    }
    if let Some(path) = event.field_path {
        involved["fieldPath"] = json!(path);
    }
    let body = json!({
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": {
            "name": key.name,
            "namespace": key.namespace,
            "uid": format!("{}.{}", event.uid, key.name.rsplit('.').next().unwrap_or_default()),
            "creationTimestamp": seen,
        },
        "involvedObject": involved,
        "reason": event.reason,
        "message": event.message,
        "source": {"component": "kubelet", "host": node_name},
        "reportingComponent": "kubelet",
        "reportingInstance": node_name,
        "firstTimestamp": seen,
        "lastTimestamp": seen,
        "eventTime": null,
        "count": 1,
        "type": if event.warning { "Warning" } else { "Normal" },
    });
    Object {
        key,
        source: Source::Node,
        provenance: None,
        standing: Standing::Accepted,
        resource_version: 0,
        body,
    }
}
