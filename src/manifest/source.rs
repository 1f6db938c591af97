//! Decoded manifests as entries of a complete list, shared by files and URL.
//!
//! Keeps what each text decoded to, so that an unchanged one costs nothing; asks the registry when
//! a pod's content was first seen, so that a restart of the agent changes nothing either.

use serde_json::Value;

use super::decode;
use super::defaults::{self, CONFIG_SEEN, Defaulted, Origin};
use crate::object::{self, Key, Kind, Problem, Provenance, Source};
use crate::registry::{FieldLines, Incoming, Registry};
use crate::world::Clock;

/// Reason of a problem: the text is no usable manifest.
const INVALID: &str = "InvalidManifest";
/// Reason of a problem: the file itself was refused.
const UNREADABLE: &str = "UnreadableManifest";

/// Where texts are decoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decoding {
    /// By the caller: a simulation has one thread.
    Here,
    /// On the blocking pool, if it may take long: a megabyte of YAML takes a hundred milliseconds,
    /// which nobody who waits for the node's thread should notice.
    Pooled,
}

/// Bytes whose decoding takes no longer than a change of threads.
const SHORT_BYTES_MAX: usize = 4 << 10;

/// A text that may be new.
pub struct Text {
    /// Path of the file, or the URL.
    pub location: String,
    pub bytes: Vec<u8>,
    /// What the place held before.
    pub known: Option<Parsed>,
}

/// One text, decoded and defaulted.
pub struct Parsed {
    pub digest: Vec<u8>,
    pub entries: Vec<Entry>,
    /// Not even a comment is in it.
    pub blank: bool,
}

#[derive(Clone, Debug)]
pub enum Entry {
    Object {
        key: Key,
        at: Provenance,
        /// As text: kept for as long as the file is there, a value takes ten times the memory.
        body: Box<str>,
        /// Where validation will find fault.
        lines: FieldLines,
    },
    Broken(Problem),
}

/// Bytes of text gone through for the lines of one file's faults; then objects' first lines have
/// to do. A manifest of 2 KB with a thousand faults stays below.
const WALKED_BYTES_MAX: usize = 4 << 20;

impl Decoding {
    /// Decodes what is new among `texts` and returns all in their order.
    pub async fn run(self, texts: Vec<Text>, source: Source, node_name: &str) -> Vec<Parsed> {
        let bytes: usize = texts.iter().map(|text| text.bytes.len()).sum();
        let node_name = node_name.to_owned();
        let all = move || {
            let texts = texts.into_iter();
            texts.map(|text| text.parse(source, &node_name)).collect()
        };
        match self {
            Decoding::Pooled if bytes > SHORT_BYTES_MAX => blocking::unblock(all).await,
            Decoding::Pooled | Decoding::Here => all(),
        }
    }
}

impl Text {
    fn parse(self, source: Source, node_name: &str) -> Parsed {
        match self.known {
            Some(known) if known.digest == digest(&self.bytes) => known,
            Some(_) | None => {
                let location = &self.location;
                let origin = Origin {
                    source,
                    location,
                    node_name,
                };
                parse(&self.bytes, origin)
            }
        }
    }
}

/// A source that an earlier start had and this one has not states nothing: what is left of it ends.
pub async fn switch_off(source: Source, registry: &Registry) {
    let flag = match source {
        Source::Http => "manifest-url",
        _ => "pod-manifest-path",
    };
    match registry.replace(source, Vec::new()).await {
        Ok(replaced) if replaced.removed.is_empty() => {}
        Ok(replaced) => {
            let count = replaced.removed.len();
            log::warn!("no --{flag} any more: {count} objects that were read from it end");
        }
        Err(error) => log::error!("end what --{flag} stated: {error}"),
    }
}

/// Identity of a text.
fn digest(bytes: &[u8]) -> Vec<u8> {
    let digest = ring::digest::digest(&ring::digest::SHA256, bytes);
    digest.as_ref().to_vec()
}

/// Decodes and defaults one text. Pure.
fn parse(bytes: &[u8], origin: Origin<'_>) -> Parsed {
    let mut walked_bytes = 0;
    let entries = decode::decode(bytes)
        .into_iter()
        .map(|mut decoded| {
            let mut at = Provenance {
                file: origin.location.to_owned(),
                line: decoded.line,
            };
            let body = match std::mem::replace(&mut decoded.outcome, Ok(Value::Null)) {
                Ok(body) => body,
                Err(message) => return Entry::Broken(problem(at, INVALID, message)),
            };
            let mut line_of = |path: &str| {
                walked_bytes += decoded.text_bytes();
                match walked_bytes <= WALKED_BYTES_MAX.max(decoded.text_bytes()) {
                    true => decoded.line_of(path),
                    false => decoded.line,
                }
            };
            match defaults::apply(body, origin) {
                Ok(defaulted) => Entry::Object {
                    at,
                    lines: fault_lines(&defaulted, &mut line_of),
                    body: defaulted.body.to_string().into_boxed_str(),
                    key: defaulted.key,
                },
                Err((path, why)) => {
                    at.line = line_of(&path);
                    Entry::Broken(problem(at, INVALID, format!("{path}: {why}")))
                }
            }
        })
        .collect();
    Parsed {
        digest: digest(bytes),
        entries,
        blank: bytes.trim_ascii().is_empty(),
    }
}

/// Lines of the fields that the registry will refuse or warn of: it judges, but only here is the
/// text at hand.
fn fault_lines(defaulted: &Defaulted, line_of: &mut dyn FnMut(&str) -> u32) -> FieldLines {
    let kind = defaulted.key.kind;
    let mut body = defaulted.body.clone();
    object::fill_texts(&mut body);
    let mut faults = match object::decode(kind, &body) {
        Ok(unknown) => unknown,
        Err(cause) => vec![cause],
    };
    object::apply_defaults(kind, &mut body);
    faults.extend(object::validate(&defaulted.key, &body));
    let lines = faults.into_iter().map(|(path, _)| {
        let line = line_of(&path);
        (path, line)
    });
    lines.collect()
}

/// A file that was not read.
pub fn refused(file: &str, message: String) -> Problem {
    let at = Provenance {
        file: file.to_owned(),
        line: 1,
    };
    problem(at, UNREADABLE, message)
}

/// A file that lost what it stated: a full disk or a power cut does that more often than its owner.
pub fn emptied(file: &str) -> Problem {
    let at = Provenance {
        file: file.to_owned(),
        line: 1,
    };
    problem(
        at,
        INVALID,
        "the file is empty: remove it to end its pods".to_owned(),
    )
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
        Entry::Object {
            key,
            at,
            body,
            lines,
        } => {
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
                lines: lines.clone(),
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

#[cfg(test)]
mod tests {
    use futures_lite::future::{block_on, poll_once};

    use super::*;

    fn texts() -> Vec<Text> {
        let text = |n: usize| {
            let filling = "x".repeat(n * SHORT_BYTES_MAX);
            let body = format!(
                "apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: c{n}}}\ndata: {{a: {filling}}}\n"
            );
            Text {
                location: format!("/m/{n}.yaml"),
                bytes: body.into_bytes(),
                known: None,
            }
        };
        [3, 0, 40, 1].map(text).into()
    }

    fn names(parsed: &[Parsed]) -> Vec<&str> {
        let entries = parsed.iter().flat_map(|parsed| &parsed.entries);
        let names = entries.map(|entry| match entry {
            Entry::Object { key, .. } => key.name.as_str(),
            Entry::Broken(problem) => problem.message.as_str(),
        });
        names.collect()
    }

    #[test]
    fn long_texts_are_decoded_on_another_thread_and_stay_in_order() {
        block_on(async {
            let mut pooled = Box::pin(Decoding::Pooled.run(texts(), Source::File, "pi"));
            let at_once = poll_once(&mut pooled).await;
            assert!(at_once.is_none(), "decoded where the node's loop runs");
            assert_eq!(names(&pooled.await), ["c3", "c0", "c40", "c1"]);
            let here = poll_once(Decoding::Here.run(texts(), Source::File, "pi")).await;
            let here = here.expect("a simulation never waits for a thread");
            assert_eq!(names(&here), ["c3", "c0", "c40", "c1"]);
        });
    }

    #[test]
    fn a_text_that_is_known_is_not_decoded_again() {
        let mut parsed = block_on(Decoding::Here.run(texts(), Source::File, "pi"));
        parsed[0].entries.clear();
        let again = texts().into_iter().zip(parsed).map(|(text, known)| Text {
            known: Some(known),
            ..text
        });
        let again = Decoding::Here.run(again.collect(), Source::File, "pi");
        assert_eq!(names(&block_on(again)), ["c0", "c40", "c1"]);
    }
}
