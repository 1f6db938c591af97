//! A client of the API that writes ConfigMaps and Secrets, and what it may expect afterwards.
//!
//! What was acknowledged is there after every crash and power cut; what was refused is not; and no
//! version is ever given out twice.

use std::collections::BTreeMap;

use lowtide::object::{Key, Kind, Source};
use lowtide::registry::{Deletion, Error, Precondition, Reader, Registry};
use serde_json::{Value, json};

use crate::random::Stream;

const KINDS: [Kind; 2] = [Kind::ConfigMap, Kind::Secret];
/// Manifests never name these.
const NAMES: [&str; 3] = ["api-a", "api-b", "api-c"];

/// Whether the store could always be written while an agent lived.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Storing {
    #[default]
    Always,
    /// Versions could not be reserved: only the wall clock keeps them rising, and it may jump.
    NotAlways,
}

#[derive(Default)]
pub struct Ledger {
    acknowledged: BTreeMap<Key, u64>,
    newest_version: u64,
    pub storing: Storing,
}

impl Ledger {
    /// Compares a store that was just opened. Errors: what was lost, resurrected or repeated.
    pub fn check_opened(
        &mut self,
        reader: &Reader,
        messages: &[String],
        storing: Storing,
    ) -> Result<(), String> {
        if let Some(lost) = messages.iter().find(|m| m.contains("cannot be used")) {
            return Err(format!("the store is lost: {lost}"));
        }
        if reader.version() < self.newest_version && self.storing == Storing::Always {
            let (now, before) = (reader.version(), self.newest_version);
            return Err(format!("versions fell from {before} to {now}"));
        }
        self.newest_version = reader.version();
        self.storing = storing;
        self.check(reader)
    }

    /// Compares what is shown with what was acknowledged.
    pub fn check(&self, reader: &Reader) -> Result<(), String> {
        for key in keys() {
            let shown = reader.get(&key).and_then(|object| value(&object.body));
            let expected = self.acknowledged.get(&key).copied();
            if shown != expected {
                return Err(format!(
                    "{key} was acknowledged as {expected:?} and is {shown:?}"
                ));
            }
        }
        Ok(())
    }

    /// The agent is about to die and had given out versions up to this.
    pub fn note_version(&mut self, version: u64) {
        self.newest_version = self.newest_version.max(version);
    }
}

fn keys() -> impl Iterator<Item = Key> {
    let names = NAMES.iter();
    names.flat_map(|name| KINDS.map(|kind| Key::local(kind, "default", name)))
}

fn value(body: &Value) -> Option<u64> {
    body["metadata"]["labels"]["value"].as_str()?.parse().ok()
}

/// One write; what it did is in the ledger. Errors: a refusal that no full or broken disk explains.
pub async fn write(
    registry: &Registry,
    luck: &Stream,
    ledger: &std::cell::RefCell<Ledger>,
) -> Result<String, String> {
    let keys: Vec<Key> = keys().collect();
    let (key, value) = (luck.pick(&keys).clone(), luck.next());
    let kind = match key.kind {
        Kind::ConfigMap => "ConfigMap",
        _ => "Secret",
    };
    let body = json!({"apiVersion": "v1", "kind": kind, "metadata": {
        "name": key.name, "namespace": key.namespace, "labels": {"value": value.to_string()}}});
    let known = ledger.borrow().acknowledged.contains_key(&key);
    let (what, outcome, stays) = match (known, luck.chance(300)) {
        (false, _) => {
            let made = registry.create(Source::Api, key.clone(), body).await;
            ("create", made, Some(value))
        }
        (true, true) => {
            let deletion = Deletion::default();
            let gone = registry.delete(Source::Api, key.clone(), deletion).await;
            ("delete", gone.map(|deleted| deleted.object), None)
        }
        (true, false) => {
            let any = Precondition::default();
            let changed = registry.update(Source::Api, key.clone(), body, any).await;
            ("update", changed, Some(value))
        }
    };
    match outcome {
        Ok(_) => {
            let acknowledged = &mut ledger.borrow_mut().acknowledged;
            match stays {
                Some(value) => acknowledged.insert(key.clone(), value),
                None => acknowledged.remove(&key),
            };
            Ok(format!("api: {what} {key}"))
        }
        Err(Error::Store(why)) => Ok(format!("api: {what} {key}: refused: {why}")),
        Err(error) => Err(format!("api: {what} {key}: {error}")),
    }
}
