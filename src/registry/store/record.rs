//! What the bytes of a record mean: an object without what is recomputed, secrets sealed.
//!
//! Status and resourceVersion are not stored: the first is derived anew, the second would be lower
//! than what watchers have seen. A record begins with one byte: 0 clear JSON, 1 sealed JSON.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::Write;
use super::keys::{Encryption, KeyFile, Seals};
use super::medium::Medium;
use super::seal::{ID_BYTES, KEY_BYTES, Sealer, Shut};
use crate::object::{Key, Kind, Object, Origin, Provenance, Source, Standing};
use crate::world::Random;

const CLEAR: u8 = 0;
const SEALED: u8 = 1;

const CLEAR_WARNING: &str = "secrets are stored in clear: encryption is turned off";

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

/// Turns objects into records and back.
pub(in crate::registry) struct Records {
    /// All that open; the first seals, if anything does.
    sealers: Vec<Sealer>,
    /// The node's own key, whatever a key file says.
    own: Option<Sealer>,
    seals: Result<Seals, Unsealed>,
}

/// Why secrets can be neither sealed nor stored.
enum Unsealed {
    /// Nothing is stored at all.
    NoStore,
    NoKey(String),
}

impl Records {
    /// For a registry that stores nothing.
    pub fn of_nothing() -> Records {
        Records {
            sealers: Vec::new(),
            own: None,
            seals: Err(Unsealed::NoStore),
        }
    }

    /// Takes the medium's key, or makes and keeps one if it is what seals. Returns what the log should
    /// say.
    pub fn new(
        medium: &dyn Medium,
        encryption: Encryption,
        random: &dyn Random,
    ) -> (Records, Vec<String>) {
        let kept = match medium.key() {
            Ok(Some(secret)) => Sealer::new(&secret)
                .map(Some)
                .ok_or("the store key is too short".to_owned()),
            Ok(None) => Ok(None),
            Err(error) => Err(format!("read the store key: {error}")),
        };
        let mut messages = Vec::new();
        let own = match (kept, &encryption) {
            (Ok(None), Encryption::Own) => make_key(medium, random).map(Some),
            (kept, _) => kept,
        };
        let (own, unsealed) = match own {
            Ok(own) => (own, None),
            Err(why) => (None, Some(why)),
        };
        let mut records = Records {
            sealers: own.iter().cloned().collect(),
            own,
            seals: Ok(Seals::WithFirst),
        };
        match encryption {
            Encryption::Own => {
                if let Some(why) = unsealed {
                    messages.push(format!("secrets will not be stored: {why}"));
                    records.seals = Err(Unsealed::NoKey(why));
                }
            }
            Encryption::File(file) => {
                messages.extend(unsealed);
                records.use_file(file);
            }
            Encryption::Off => {
                messages.extend(unsealed);
                records.seals = Ok(Seals::Nothing);
            }
        }
        if matches!(records.seals, Ok(Seals::Nothing)) {
            messages.push(CLEAR_WARNING.to_owned());
        }
        (records, messages)
    }

    /// From now on as the file says.
    pub fn use_file(&mut self, file: KeyFile) {
        self.seals = Ok(file.seals);
        self.sealers = file.sealers;
        let ours = self.own.iter().cloned();
        let ours = ours.filter(|own| self.sealers.iter().all(|known| known.id() != own.id()));
        let ours: Vec<Sealer> = ours.collect();
        self.sealers.extend(ours);
    }

    /// What everything sealed from now on begins with; `None`: nothing is sealed.
    pub fn seal_id(&self) -> Option<[u8; ID_BYTES]> {
        match self.seals {
            Ok(Seals::WithFirst) => self.sealers.first().map(Sealer::id),
            Ok(Seals::Nothing) | Err(_) => None,
        }
    }

    /// Whether a record lies as it would be written today.
    pub fn is_current(&self, key: &Key, value: &[u8]) -> bool {
        let sealed = value.strip_prefix(&[SEALED]);
        match (key.kind, &self.seals) {
            (Kind::Secret, Ok(_)) => match self.seal_id() {
                Some(id) => sealed.is_some_and(|sealed| sealed.starts_with(&id)),
                None => sealed.is_none(),
            },
            _ => true,
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
        let value = match (object.key.kind, &self.seals) {
            (Kind::Secret, Ok(Seals::WithFirst)) => {
                let sealer = self.sealers.first().expect("what seals has a key");
                [&[SEALED][..], &sealer.seal(&key, &clear, random)].concat()
            }
            (Kind::Secret, Err(Unsealed::NoKey(why))) => {
                return Write::Refuse { why: why.clone() };
            }
            // Nothing is ever written: no bytes of a secret either.
            (Kind::Secret, Err(Unsealed::NoStore)) => vec![SEALED],
            (Kind::Secret, Ok(Seals::Nothing)) => {
                let value = [&[CLEAR][..], &clear].concat();
                return Write::PutExposed { key, value };
            }
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
        let clear = match (value.split_first(), &self.seals) {
            (Some((&CLEAR, clear)), _) => clear.to_vec(),
            (Some((&SEALED, _)), Err(Unsealed::NoKey(why))) => return Err(format!("{key}: {why}")),
            (Some((&SEALED, sealed)), _) => self.open(name, sealed).map_err(|shut| match shut {
                Shut::OtherKey => format!("{key}: sealed with another key"),
                Shut::Damaged => format!("{key}: damaged"),
            })?,
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

    fn open(&self, name: &str, sealed: &[u8]) -> Result<Vec<u8>, Shut> {
        let fits = |sealer: &&Sealer| sealed.starts_with(&sealer.id());
        let sealer = self.sealers.iter().find(fits).ok_or(Shut::OtherKey)?;
        sealer.open(name, sealed)
    }
}

/// A new key of the node's own. An unkept one would make what it seals unreadable after a restart.
fn make_key(medium: &dyn Medium, random: &dyn Random) -> Result<Sealer, String> {
    let mut secret = [0u8; KEY_BYTES];
    random.fill(&mut secret);
    let sealer = Sealer::new(&secret).expect("32 bytes are a key");
    let kept = medium.keep_key(&secret);
    kept.map(|()| sealer)
        .map_err(|error| format!("keep the store key: {error}"))
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
