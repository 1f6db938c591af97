//! Decoded manifests as entries of a complete list, shared by files and URL.
//!
//! Keeps what each text decoded to, so that an unchanged one costs nothing; asks the registry when
//! a pod's content was first seen, so that a restart of the agent changes nothing either.

use serde_json::Value;

use super::decode;
use super::defaults::{self, CONFIG_SEEN, Origin};
use crate::object::{Key, Kind, Problem, Provenance};
use crate::registry::{Incoming, Registry};
use crate::world::Clock;

/// Reason of a problem: the text is no usable manifest.
const INVALID: &str = "InvalidManifest";
/// Reason of a problem: the file itself was refused.
const UNREADABLE: &str = "UnreadableManifest";

/// One text, decoded and defaulted.
pub struct Parsed {
    pub digest: Vec<u8>,
    pub entries: Vec<Entry>,
}

#[derive(Clone, Debug)]
pub enum Entry {
    Object {
        key: Key,
        at: Provenance,
        /// As text: kept for as long as the file is there, a value takes ten times the memory.
        body: Box<str>,
    },
    Broken(Problem),
}

/// Identity of a text.
pub fn digest(bytes: &[u8]) -> Vec<u8> {
    let digest = ring::digest::digest(&ring::digest::SHA256, bytes);
    digest.as_ref().to_vec()
}

/// Decodes and defaults one text. Pure.
pub fn parse(bytes: &[u8], origin: Origin<'_>) -> Parsed {
    let entries = decode::decode(bytes)
        .into_iter()
        .map(|decoded| {
            let at = Provenance {
                file: origin.location.to_owned(),
                line: decoded.line,
            };
            let defaulted = decoded
                .outcome
                .and_then(|body| defaults::apply(body, origin));
            match defaulted {
                Ok(defaulted) => Entry::Object {
                    key: defaulted.key,
                    at,
                    body: defaulted.body.to_string().into_boxed_str(),
                },
                Err(message) => Entry::Broken(problem(at, INVALID, message)),
            }
        })
        .collect();
    Parsed {
        digest: digest(bytes),
        entries,
    }
}

/// A file that was not read.
pub fn refused(file: &str, message: String) -> Problem {
    let at = Provenance {
        file: file.to_owned(),
        line: 1,
    };
    problem(at, UNREADABLE, message)
}

fn problem(at: Provenance, reason: &str, message: String) -> Problem {
    Problem {
        at,
        reason: reason.to_owned(),
        message,
    }
}

/// The entry as the registry takes it, with `config.seen` of a pod filled in.
pub fn incoming(entry: &Entry, registry: &Registry, clock: &dyn Clock) -> Incoming {
    match entry {
        Entry::Broken(problem) => Incoming::Broken(problem.clone()),
        Entry::Object { key, at, body } => {
            let body = serde_json::from_str::<Value>(body);
            let mut body = body.expect("a value written as text is read back");
            if key.kind == Kind::Pod {
                let uid = body["metadata"]["uid"].as_str().unwrap_or_default();
                let seen =
                    first_seen(registry, key, uid).unwrap_or_else(|| clock.wall().to_string());
                defaults::set_seen(&mut body, &seen);
            }
            Incoming::Object {
                key: key.clone(),
                provenance: Some(at.clone()),
                body,
            }
        }
    }
}

/// When the registry's pod of this very content was first seen.
fn first_seen(registry: &Registry, key: &Key, uid: &str) -> Option<String> {
    let current = registry.reader().get_packed(key)?;
    let current = Some(current).filter(|current| current.uid() == uid)?;
    let seen = current.metadata()["annotations"][CONFIG_SEEN].take();
    seen.as_str().map(str::to_owned)
}
