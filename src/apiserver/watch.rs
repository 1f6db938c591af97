//! Watches: a registry cursor as a stream of JSON lines.
//!
//! ```text
//!   no version, or 0 ──► ADDED for all ─┐
//!   sendInitialEvents ─► ADDED for all, BOOKMARK "initial-events-end" ─┤
//!   version N ──────────────────────────┴──► changes after N … ──► timeout: clean end
//!                                                └── not in history (any more): ERROR 410, end
//! ```
//!
//! The stream is pulled by the connection: a slow reader holds one batch of changes, no queue; if
//! it stays slow it falls off history and is told so.

use std::collections::VecDeque;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_lite::{FutureExt, Stream, stream};
use http::StatusCode;
use serde_json::{Value, json};

use super::format::{self, Columns, Format, Shape, ShownAs};
use super::list_options::InitialEvents;
use super::query::Query;
use super::selector::Selector;
use super::status::{Refusal, typed_response};
use super::{Counted, view};
use crate::net::serve::{Body, Response};
use crate::object::Kind;
use crate::registry::{ChangeType, Cursor, Gone, Packed, PackedChange, Reader};
use crate::world::{BootTime, Clock};

/// Between two bookmarks of one watch. Source: Kubernetes storage/cacher (about a minute).
const BOOKMARK_PERIOD: Duration = Duration::from_secs(60);

/// Shortest length of a watch that names none. Source: kube-apiserver `--min-request-timeout`.
const TIMEOUT_UNASKED_MIN: Duration = Duration::from_secs(1800);

/// Longest watch.
const TIMEOUT_MAX: Duration = Duration::from_secs(12 * 3600);

const INITIAL_EVENTS_END: &str = "k8s.io/initial-events-end";

/// A line of text is written out when this much is waiting.
const BATCH_BYTES: usize = 64 << 10;

/// What is watched, by whom.
pub struct Watched {
    pub kind: Kind,
    pub namespace: Option<String>,
    /// Of a watch on a single object.
    pub name: Option<String>,
    pub format: Format,
}

struct Watch {
    reader: Reader,
    clock: Rc<dyn Clock>,
    watched: Watched,
    selector: Selector,
    cursor: Cursor,
    /// The version that the client has seen all of.
    seen: u64,
    initial: VecDeque<Arc<Packed>>,
    /// A bookmark follows the initial objects.
    mark_initial_end: bool,
    bookmarks: bool,
    next_bookmark: BootTime,
    deadline: BootTime,
    columns: Columns,
    ended: bool,
    _counted: Counted,
}

/// Starts a watch. Errors: options that cannot be. A version outside of history is told in the stream,
/// as upstream does: what comes after authorization and parsing is an event.
pub fn start(
    reader: Reader,
    clock: Rc<dyn Clock>,
    watched: Watched,
    query: &Query,
    counted: Counted,
) -> Result<Response, Refusal> {
    let initial_events = InitialEvents::parse(query)?;
    let mut selector = Selector::of_query(watched.kind, watched.format.version, query)?;
    if let Some(name) = &watched.name {
        selector = selector.and_name(name)?;
    }
    let version = query
        .number("resourceVersion")?
        .filter(|version| *version > 0);
    let timeout = query
        .number("timeoutSeconds")?
        .filter(|seconds| *seconds > 0);
    let begun = begin(&reader, &watched, version, initial_events);
    let (initial, from, cursor) = match begun {
        Ok(begun) => begun,
        Err(refusal) => return Ok(broken(&refusal)),
    };
    let now = clock.now();
    let timeout = timeout.map_or_else(|| unasked_timeout(now), Duration::from_secs);
    let bookmarks = query.is_set("allowWatchBookmarks");
    let watch = Watch {
        initial: initial.into(),
        mark_initial_end: initial_events == InitialEvents::Sent && bookmarks,
        bookmarks,
        next_bookmark: now + BOOKMARK_PERIOD,
        deadline: now + timeout.min(TIMEOUT_MAX),
        seen: from,
        columns: Columns::Defined,
        ended: false,
        reader,
        clock,
        watched,
        selector,
        cursor,
        _counted: counted,
    };
    Ok(stream_response(Body::stream(watch.lines())))
}

/// Between once and twice the shortest, as upstream: watches that began together, after a restart,
/// do not all come back together. The nanoseconds of their beginning tell them apart well enough.
fn unasked_timeout(began: BootTime) -> Duration {
    // Knuth's multiplicative hash: near ones end far apart.
    let spread = began
        .as_duration()
        .subsec_nanos()
        .wrapping_mul(2_654_435_761);
    TIMEOUT_UNASKED_MIN + TIMEOUT_UNASKED_MIN.mul_f64(f64::from(spread) / f64::from(u32::MAX))
}

/// What there is, its version, and what comes after it.
type Begun = (Vec<Arc<Packed>>, u64, Cursor);

/// Errors: 410 for a version outside of history, 504 for initial events of a time to come.
fn begin(
    reader: &Reader,
    watched: &Watched,
    version: Option<u64>,
    initial_events: InitialEvents,
) -> Result<Begun, Refusal> {
    let current = reader.version();
    if let Some(version) = version.filter(|version| *version > current) {
        return Err(match initial_events {
            InitialEvents::Sent => Refusal::version_too_large(version, current),
            // From a store that is no more: only a new list can help.
            InitialEvents::Left | InitialEvents::Default => Refusal::expired(version, current),
        });
    }
    let (initial, from) = match (version, initial_events) {
        (Some(version), InitialEvents::Default | InitialEvents::Left) => (Vec::new(), version),
        (None, InitialEvents::Left) => (Vec::new(), current),
        (_, InitialEvents::Sent) | (None, InitialEvents::Default) => {
            view::list(reader, watched.kind, watched.namespace.as_deref())
        }
    };
    let gone = |gone: Gone| Refusal::expired(from, gone.oldest);
    let cursor = reader.watch(watched.kind, from).map_err(gone)?;
    Ok((initial, from, cursor))
}

/// A watch that ends with the first event.
fn broken(refusal: &Refusal) -> Response {
    let mut out = Vec::new();
    line(&mut out, "ERROR", &refusal.status());
    stream_response(Body::stream(stream::once(Bytes::from(out))))
}

fn stream_response(body: Body) -> Response {
    typed_response(StatusCode::OK, "application/json", body)
}

/// Why a wait ended.
enum Woken {
    Changes(Result<Vec<Arc<PackedChange>>, Gone>),
    Bookmark,
    Timeout,
}

impl Watch {
    fn lines(self) -> impl Stream<Item = Bytes> {
        stream::unfold(self, |mut watch| async move {
            let bytes = watch.step().await?;
            Some((bytes, watch))
        })
    }

    /// The next bytes, or `None` at the end.
    async fn step(&mut self) -> Option<Bytes> {
        let mut out = Vec::new();
        while let Some(object) = self.initial.pop_front() {
            if self.selector.selects(&object) {
                self.event(&mut out, "ADDED", &object);
            }
            if out.len() >= BATCH_BYTES {
                return Some(out.into());
            }
        }
        if std::mem::take(&mut self.mark_initial_end) {
            let annotations = json!({INITIAL_EVENTS_END: "true"});
            self.bookmark(&mut out, Some(annotations));
        }
        while out.is_empty() {
            if self.ended {
                return None;
            }
            match self.wait().await {
                Woken::Changes(Ok(changes)) => {
                    for change in &changes {
                        self.change(&mut out, change);
                    }
                }
                Woken::Changes(Err(gone)) => {
                    let refusal = Refusal::expired(self.seen, gone.oldest);
                    line(&mut out, "ERROR", &refusal.status());
                    self.ended = true;
                }
                Woken::Bookmark => self.catch_up(&mut out),
                Woken::Timeout => {
                    if self.bookmarks {
                        self.catch_up(&mut out);
                    }
                    self.ended = true;
                }
            }
        }
        Some(out.into())
    }

    async fn wait(&mut self) -> Woken {
        let until = if self.bookmarks {
            self.next_bookmark.min(self.deadline)
        } else {
            self.deadline
        };
        let sleep = self.clock.sleep_until(until);
        let cursor = &mut self.cursor;
        let changes = async { Woken::Changes(cursor.next_packed().await) };
        let time = async {
            sleep.await;
            Woken::Timeout
        };
        match changes.or(time).await {
            Woken::Timeout if until < self.deadline => Woken::Bookmark,
            woken => woken,
        }
    }

    /// Turns a change of the registry into what this watch sees: objects enter and leave a
    /// selector, and a remote one behind a local one is not there until that goes.
    fn change(&mut self, out: &mut Vec<u8>, change: &PackedChange) {
        self.seen = change.resource_version();
        let object = &change.object;
        let namespace = self.watched.namespace.as_deref();
        if namespace.is_some_and(|namespace| namespace != object.key().namespace)
            || view::is_hidden(&self.reader, object.key())
        {
            return;
        }
        let now = change.change != ChangeType::Deleted && self.selector.selects(object);
        let before = match &change.previous {
            Some(previous) => self.selector.selects(previous),
            // A deletion without the state before: the last state tells.
            None => change.change == ChangeType::Deleted && self.selector.selects(object),
        };
        match (before, now) {
            (false, true) => self.event(out, "ADDED", object),
            (true, true) => self.event(out, "MODIFIED", object),
            (true, false) => self.event(out, "DELETED", object),
            (false, false) => {}
        }
        if change.change == ChangeType::Deleted
            && let Some(shown) = view::uncovered(&self.reader, object.key())
            && self.selector.selects(&shown)
        {
            // Of this moment: versions that a watch tells never fall.
            self.event(out, "ADDED", &shown.at_version(self.seen));
        }
    }

    fn event(&mut self, out: &mut Vec<u8>, kind: &str, object: &Packed) {
        let now = self.clock.wall();
        let watched = &self.watched;
        match (watched.format.shape, watched.format.version) {
            (Shape::Json, ShownAs::Stored) => {
                begin_line(out, kind);
                object.write_object(out);
                out.extend_from_slice(b"}\n");
            }
            (Shape::Json | Shape::Metadata | Shape::Table(_), _) => {
                let body = object.unpack().body;
                let shown = format::object(watched.format, watched.kind, &body, self.columns, now);
                line(out, kind, &shown);
            }
        }
        self.columns = Columns::Left;
    }

    /// A bookmark with the registry's version, which other kinds move on as well: one that followed
    /// only this kind's changes would grow old with it. What is waiting is told before it.
    fn catch_up(&mut self, out: &mut Vec<u8>) {
        let version = self.reader.version();
        match self.cursor.ready_packed() {
            Ok(None) => self.seen = self.seen.max(version),
            Ok(Some(changes)) => changes.iter().for_each(|change| self.change(out, change)),
            // The next wait says so.
            Err(Gone { .. }) => return,
        }
        self.bookmark(out, None);
    }

    fn bookmark(&mut self, out: &mut Vec<u8>, annotations: Option<Value>) {
        self.next_bookmark = self.clock.now() + BOOKMARK_PERIOD;
        let mut metadata = json!({"resourceVersion": self.seen.to_string()});
        if let Some(annotations) = annotations {
            metadata["annotations"] = annotations;
        }
        let object = json!({
            "kind": self.watched.kind.name(),
            "apiVersion": self.watched.kind.api_version(),
            "metadata": metadata,
        });
        // In the form of the other events, or their decoder cannot read it.
        let (format, kind, now) = (self.watched.format, self.watched.kind, self.clock.wall());
        let shown = format::object(format, kind, &object, self.columns, now);
        line(out, "BOOKMARK", &shown);
    }
}

fn line(out: &mut Vec<u8>, kind: &str, object: &Value) {
    begin_line(out, kind);
    serde_json::to_writer(&mut *out, object).expect("a Value is JSON, and a vector takes it");
    out.extend_from_slice(b"}\n");
}

fn begin_line(out: &mut Vec<u8>, kind: &str) {
    out.extend_from_slice(format!("{{\"type\":\"{kind}\",\"object\":").as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn watches_that_began_together_end_apart() {
        let ends: Vec<u64> = (0..1000)
            .map(|at| unasked_timeout(BootTime::from_duration(Duration::from_micros(at))))
            .map(|timeout| timeout.as_secs())
            .collect();
        assert!(
            ends.iter().all(|end| (1800..=3600).contains(end)),
            "{ends:?}"
        );
        // None of ten equal parts of the time gets much more than its share.
        for part in 0..10 {
            let within = 1800 + part * 180..1800 + (part + 1) * 180;
            let count = ends.iter().filter(|end| within.contains(*end)).count();
            assert!((50..200).contains(&count), "{within:?}: {count}");
        }
    }
}
