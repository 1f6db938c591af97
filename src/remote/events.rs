//! What happened on this node, told to the cluster.
//!
//! The registry's events are the outbox, and bounded: what falls off it while the link is down is
//! dropped, oldest first, and that is counted. One that repeats is one event with a count, there as
//! here. Source: Kubernetes client-go tools/record.

use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

use serde_json::{Value, json};

use super::link::{Backoff, Link, wants_a_pause};
use super::paths;
use crate::object::{Key, Kind};
use crate::registry::{ChangeType, Packed, Registry};
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
    /// Version of what was sent of each event that is still here.
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
                    self.await_change(&mut state, version).await;
                }
                Look::Full => {}
                Look::Later(asked) => self.link.pause(&mut backoff, asked).await,
            }
            self.clock.sleep_until(self.clock.now() + GATHER).await;
        }
    }

    async fn await_change(&self, state: &mut State, version: u64) {
        let Ok(mut cursor) = self.registry.reader().watch(Kind::Event, version) else {
            return;
        };
        for change in cursor.next_packed().await.into_iter().flatten() {
            let key = change.object.key();
            if change.change == ChangeType::Deleted && !state.sent.contains_key(key) {
                state.lost += 1;
            }
        }
    }

    async fn look(&self, state: &mut State) -> Look {
        let (events, _) = self.registry.reader().list_packed(Kind::Event, None);
        let here = |key: &Key| events.iter().any(|event| event.key() == key);
        state.sent.retain(|key, _| here(key));
        let mut asked = 0;
        for event in &events {
            let version = event.resource_version();
            if state.sent.get(event.key()) == Some(&version) {
                continue;
            }
            if asked == PER_LOOK_MAX {
                return Look::Full;
            }
            asked += 1;
            let known = state.sent.contains_key(event.key());
            match self.send(event, known).await {
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
