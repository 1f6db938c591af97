//! What the bytes of a record mean: an object without what is recomputed, secrets sealed.
//!
//! Status and resourceVersion are not stored: the first is derived anew, the second would be lower
//! than what watchers have seen. A record begins with one byte: 0 clear JSON, 1 sealed JSON.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::Write;
use super::medium::Medium;
use super::seal::{KEY_BYTES, Sealer, Shut};
use crate::object::{Key, Kind, Object, Origin, Provenance, Source, Standing};
use crate::world::Random;

const CLEAR: u8 = 0;
const SEALED: u8 = 1;

#[derive(Serialize)]
struct Written<'a> {
    source: Source,
    provenance: &'a Option<Provenance>,
    body: &'a Value,
}

#[derive(Deserialize)]
struct Read {
    source: Source,
    provenance: Option<Provenance>,
    body: Value,
}

/// Why secrets are not sealed.
enum Unsealed {
    /// Nothing is stored at all.
    NoStore,
    NoKey(String),
}

/// Turns objects into records and back.
pub(in crate::registry) struct Records {
    sealer: Result<Sealer, Unsealed>,
}

impl Records {
    /// For a registry that stores nothing.
    pub fn of_nothing() -> Records {
        Records {
            sealer: Err(Unsealed::NoStore),
        }
    }

    /// Takes the medium's key, or makes and keeps one.
    pub fn new(medium: &dyn Medium, random: &dyn Random) -> Records {
        let sealer = match medium.key() {
            Ok(Some(secret)) => Sealer::new(&secret).ok_or("the store key is too short".to_owned()),
            Ok(None) => {
                let mut secret = [0u8; KEY_BYTES];
                random.fill(&mut secret);
                let sealer = Sealer::new(&secret).expect("32 bytes are a key");
                // An unkept key would make what it seals unreadable after a restart.
                let kept = medium.keep_key(&secret);
                kept.map(|()| sealer)
                    .map_err(|error| format!("keep the store key: {error}"))
            }
            Err(error) => Err(format!("read the store key: {error}")),
        };
        Records {
            sealer: sealer.map_err(Unsealed::NoKey),
        }
    }

    /// Why secrets cannot be stored, if so.
    pub fn problem(&self) -> Option<&str> {
        match &self.sealer {
            Ok(_) | Err(Unsealed::NoStore) => None,
            Err(Unsealed::NoKey(why)) => Some(why),
        }
    }

    pub fn put(&self, object: &Object, random: &dyn Random) -> Write {
        let key = name_of(&object.key);
        let mut body = object.body.clone();
        if let Some(fields) = body.as_object_mut()
            && matches!(object.key.kind, Kind::Pod | Kind::Node)
        {
            fields.remove("status");
        }
        if let Some(metadata) = body["metadata"].as_object_mut() {
            metadata.remove("resourceVersion");
        }
        let written = Written {
            source: object.source,
            provenance: &object.provenance,
            body: &body,
        };
        let clear = serde_json::to_vec(&written).expect("JSON values with text keys serialise");
        let value = match (object.key.kind, &self.sealer) {
            (Kind::Secret, Ok(sealer)) => {
                [&[SEALED][..], &sealer.seal(&key, &clear, random)].concat()
            }
            (Kind::Secret, Err(Unsealed::NoKey(why))) => {
                return Write::Refuse { why: why.clone() };
            }
            // Nothing is ever written: no bytes of a secret either.
            (Kind::Secret, Err(Unsealed::NoStore)) => vec![SEALED],
            _ => [&[CLEAR][..], &clear].concat(),
        };
        Write::Put { key, value }
    }

    pub fn remove(&self, key: &Key) -> Write {
        Write::Remove { key: name_of(key) }
    }

    /// The object of a record, or why it cannot be read.
    pub fn read(&self, name: &str, value: &[u8]) -> Result<Object, String> {
        let key = key_of(name).ok_or_else(|| format!("{name}: not a key"))?;
        let clear = match (value.split_first(), &self.sealer) {
            (Some((&CLEAR, clear)), _) => clear.to_vec(),
            (Some((&SEALED, sealed)), Ok(sealer)) => {
                sealer.open(name, sealed).map_err(|shut| match shut {
                    Shut::OtherKey => format!("{key}: sealed with another key"),
                    Shut::Damaged => format!("{key}: damaged"),
                })?
            }
            (Some((&SEALED, _)), Err(Unsealed::NoKey(why))) => return Err(format!("{key}: {why}")),
            _ => return Err(format!("{key}: unknown kind of record")),
        };
        let read: Read =
            serde_json::from_slice(&clear).map_err(|error| format!("{key}: {error}"))?;
        Ok(Object {
            key,
            source: read.source,
            provenance: read.provenance,
            standing: Standing::Accepted,
            resource_version: 0,
            body: read.body,
        })
    }
}

/// `local/Pod/default/web`; no part of a valid key holds a slash.
fn name_of(key: &Key) -> String {
    let origin = match key.origin {
        Origin::Local => "local",
        Origin::Remote => "remote",
    };
    format!("{origin}/{}/{}/{}", key.kind, key.namespace, key.name)
}

fn key_of(name: &str) -> Option<Key> {
    let mut parts = name.splitn(4, '/');
    let origin = match parts.next()? {
        "local" => Origin::Local,
        "remote" => Origin::Remote,
        _ => return None,
    };
    Some(Key {
        origin,
        kind: Kind::from_name(parts.next()?)?,
        namespace: parts.next()?.to_owned(),
        name: parts.next()?.to_owned(),
    })
}
