//! What happened on this node, told to the cluster.
//!
//! The registry's events are the outbox, and bounded: what falls off it while the link is down is
//! dropped, oldest first, and that is counted. One that repeats is one event with a count, there as
//! here. Source: Kubernetes client-go tools/record.

use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};

use super::link::{Backoff, Link, wants_a_pause};
use super::paths;
use crate::object::{Key, Kind};
use crate::registry::{Packed, Registry};
use crate::world::{Call, Clock, Reply, Verb};

/// Between two looks: an event that repeats within it is sent once.
const GATHER: Duration = Duration::from_secs(1);
/// Requests of one look; the rest have to wait for the next.
const PER_LOOK_MAX: usize = 25;

pub struct Events {
    pub link: Rc<Link>,
    pub registry: Registry,
    pub clock: Rc<dyn Clock>,
}

#[derive(Default)]
struct State {
    /// Version of what was sent of each event that is still here; 0: nothing yet.
    sent: BTreeMap<Key, u64>,
    /// Events that were gone before the cluster could be told.
    lost: u64,
}

/// How a look went.
enum Look {
    Done,
    /// There is more.
    Full,
    /// The cluster does not answer, or wants a pause.
    Later(Option<Duration>),
}

impl State {
    /// Takes these, in the order of their keys, for those that are here now.
    fn meet(&mut self, events: &[Arc<Packed>]) {
        let lost = &mut self.lost;
        self.sent.retain(|key, version| {
            let found = events.binary_search_by(|event| event.key().cmp(key));
            let stays = found.is_ok();
            *lost += u64::from(!stays && *version == 0);
            stays
        });
        for event in events {
            self.sent.entry(event.key().clone()).or_insert(0);
        }
    }
}

impl Events {
    /// Never ends.
    pub async fn run(self) {
        let mut state = State::default();
        let mut backoff = Backoff::default();
        let reader = self.registry.reader();
        loop {
            let version = reader.version();
            match self.look(&mut state).await {
                Look::Done => {
                    backoff.reset();
                    reader.changed(&[Kind::Event], version).await;
                }
                Look::Full => {}
                Look::Later(asked) => self.link.pause(&mut backoff, asked).await,
            }
            self.clock.sleep_until(self.clock.now() + GATHER).await;
        }
    }

    async fn look(&self, state: &mut State) -> Look {
        let (events, _) = self.registry.reader().list_packed(Kind::Event, None);
        state.meet(&events);
        let mut asked = 0;
        for event in &events {
            let version = event.resource_version();
            let sent = state.sent[event.key()];
            if sent == version {
                continue;
            }
            if asked == PER_LOOK_MAX {
                return Look::Full;
            }
            asked += 1;
            match self.send(event, sent > 0).await {
                Ok(reply) if wants_a_pause(&reply) => return Look::Later(reply.retry_after),
                Ok(reply) => {
                    if !reply.is_success() {
                        log::debug!("{}: {} {}", event.key(), reply.status, reply.message());
                    }
                    state.sent.insert(event.key().clone(), version);
                }
                Err(_) => return Look::Later(None),
            }
        }
        if state.lost > 0 {
            log::warn!(
                "{} events were dropped before the cluster could be told",
                state.lost
            );
            state.lost = 0;
        }
        Look::Done
    }

    async fn send(&self, event: &Packed, known: bool) -> Result<Reply, crate::world::NoAnswer> {
        let body = stated(event.unpack().body);
        let path = paths::object(event.key());
        let patch = json!({
            "count": body["count"], "lastTimestamp": body["lastTimestamp"], "message": body["message"],
        });
        let again = || Call::with(Verb::Patch, path.clone(), patch.clone());
        if known {
            let reply = self.link.call(again()).await?;
            if reply.status != 404 {
                return Ok(reply);
            }
        }
        let collection = paths::collection(Kind::Event, &event.key().namespace);
        let reply = self
            .link
            .call(Call::with(Verb::Create, collection, body))
            .await?;
        match reply.status {
            // An answer was lost.
            409 => self.link.call(again()).await,
            _ => Ok(reply),
        }
    }
}

/// The event without what the cluster gives it.
fn stated(mut body: Value) -> Value {
    if let Some(metadata) = body["metadata"].as_object_mut() {
        metadata.retain(|field, _| matches!(field.as_str(), "name" | "namespace"));
    }
    body
}

#[cfg(test)]
mod tests {
    use super::super::tests::cluster::{Door, Line};
    use super::super::tests::world::World;
    use super::*;
    use crate::registry::EventRecord;

    #[test]
    fn events_that_are_dropped_while_nobody_answers_are_counted() {
        let world = World::started(44);
        world.run(Duration::from_secs(2));
        let registry = world.registry.borrow().clone().expect("an agent");
        let clock: Rc<dyn Clock> = Rc::new(world.time.clone());
        let door = Rc::new(Door(world.api.clone()));
        let events = Events {
            link: Rc::new(Link::new(door, clock.clone(), world.luck.clone())),
            registry: registry.clone(),
            clock,
        };
        let record = |count: usize| {
            for number in 0..count {
                registry.record(EventRecord {
                    involved: Key::local(Kind::Pod, "default", &format!("p{count}-{number}")),
                    uid: "u".to_owned(),
                    field_path: None,
                    warning: true,
                    reason: "R".to_owned(),
                    message: "m".to_owned(),
                });
            }
        };
        let mut state = State::default();
        let mut lost = |line| {
            world.api.line.set(line);
            let look = futures_lite::future::block_on(events.look(&mut state));
            assert_eq!(matches!(look, Look::Later(_)), line == Line::Down);
            state.lost
        };
        record(10);
        assert_eq!(lost(Line::Up), 0);
        record(20);
        assert_eq!(lost(Line::Down), 0);
        // The oldest go: ten that were told, and five that were not.
        record(985);
        assert_eq!(lost(Line::Down), 5);
        assert_eq!(lost(Line::Down), 5);
    }
}
