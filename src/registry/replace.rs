//! Complete lists: what a source states now against what it stated before.
//!
//! ```text
//!  entry ── key free or ours ── admitted ──► added, changed, unchanged
//!    │            │                └── refused ──► stale (the last good one stays) or rejected
//!    │            └── another source's, or twice in the list ──► reported
//!    └── text yields no object ──► everything from that file stays, stale; or a placeholder
//!  ours, not in the list, file readable ──► deletion
//! ```
//!
//! A half-readable file deletes nothing: whatever was accepted from it stays.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde_json::{Value, json};

use super::admission::Operation;
use super::commit::Visible;
use super::departing::grace_of;
use super::desk::{Desk, same_but_for_versions, seconds_text};
use super::packed::Packed;
use super::published::Step;
use super::takeover::{goes_there, is_provisioned, keep_filled, left_to_the_api};
use super::{Error, FieldLines, Incoming, Registry, Replaced, causes_text};
use crate::object::json::fingerprint;
use crate::object::{self, Cause, Key, Kind, Object, Problem, Provenance, Source, Standing, order};
use crate::world::LocalFuture;

/// Reason of a problem: another has the name or the UID.
const DUPLICATE: &str = "DuplicateManifest";

/// What is remembered between the lists of a source.
#[derive(Default)]
pub(super) struct Lists {
    listed: BTreeSet<Source>,
    /// Problems of the newest list: told once, not at each scan.
    told: BTreeMap<Source, Vec<(Key, Problem)>>,
    /// What each accepted entry looked like when it came, so that a rescan costs a hash.
    texts: BTreeMap<Key, u64>,
    /// Stated again while the predecessor of the same uid is still stopping.
    returning: BTreeMap<Key, Object>,
}

impl Lists {
    pub fn has_listed(&self, source: Source) -> bool {
        self.listed.contains(&source)
    }

    pub fn take_returning(&mut self, key: &Key) -> Option<Object> {
        self.returning.remove(key)
    }
}

/// One usable-looking entry.
struct Entry {
    key: Key,
    provenance: Option<Provenance>,
    body: Value,
    lines: FieldLines,
    /// Where what is there under this key was stated.
    holder: Option<Provenance>,
}

impl Entry {
    /// A copy, whatever its name, takes nothing over while the file that it was made of states it.
    fn is_newcomer(&self) -> bool {
        file_of(&self.provenance) != file_of(&self.holder)
    }
}

/// The work on one list.
struct Turn<'a> {
    registry: &'a Registry,
    source: Source,
    steps: Vec<Step>,
    replaced: Replaced,
    problems: Vec<(Key, Problem)>,
    /// Keys of the source that this list leaves in place.
    kept: BTreeSet<Key>,
    returning: BTreeMap<Key, Object>,
    texts: BTreeMap<Key, u64>,
}

impl Registry {
    /// Replaces everything that `source` owns by its complete list: adds, changes, removes.
    /// Unchanged entries cost nothing. Entries that cannot be taken are kept as they were (or shown
    /// as rejected) and reported. Resolves when all is visible; for `Source::Api`, stored.
    pub fn replace(
        &self,
        source: Source,
        complete: Vec<Incoming>,
    ) -> LocalFuture<'_, Result<Replaced, Error>> {
        Box::pin(async move {
            self.desk
                .committer
                .settled(|busy| self.concerns(source, &complete, busy))
                .await;
            let mut turn = Turn {
                registry: self,
                source,
                steps: Vec::new(),
                replaced: Replaced::default(),
                problems: Vec::new(),
                kept: BTreeSet::new(),
                returning: BTreeMap::new(),
                texts: BTreeMap::new(),
            };
            let (entries, broken) = turn.sort(complete);
            for entry in entries {
                turn.take(entry);
            }
            for problem in broken {
                turn.mark_file(problem);
            }
            turn.remove_absent();
            let (steps, replaced) = turn.finish();
            self.expire_events();
            if steps.is_empty() && !self.desk.committer.is_dirty() {
                self.desk.deciding.borrow_mut().clear();
            } else {
                let visible = Visible::for_list_of(source);
                let stored = self.desk.committer.submit(visible, steps);
                self.desk.deciding.borrow_mut().clear();
                // A list published at once is not held up by the disk.
                if visible != Visible::AtOnce {
                    stored.await.map_err(|error| Error::Store(error.0))?;
                }
            }
            Ok(replaced)
        })
    }

    fn concerns(&self, source: Source, complete: &[Incoming], busy: &Key) -> bool {
        let stated = complete
            .iter()
            .any(|entry| matches!(entry, Incoming::Object { key, .. } if key == busy));
        let current = self.reader().get_packed(busy);
        stated || current.is_some_and(|now| now.source() == source)
    }
}

impl Turn<'_> {
    /// Entries in (file, line) order behind those of what is there, each key once; and the texts
    /// that yield no object.
    fn sort(&mut self, complete: Vec<Incoming>) -> (Vec<Entry>, Vec<Problem>) {
        let mut entries = Vec::new();
        let mut broken = Vec::new();
        for incoming in complete {
            match incoming {
                Incoming::Object {
                    key,
                    provenance,
                    body,
                    lines,
                } => entries.push(Entry {
                    holder: self.holder(&key),
                    key,
                    provenance,
                    body,
                    lines,
                }),
                Incoming::AsBefore(key) => self.keep(key),
                Incoming::Broken(problem) => broken.push(problem),
            }
        }
        // What admission looks at comes before what it is asked about.
        let rank = |entry: &Entry| match entry.key.kind {
            Kind::Namespace => 0,
            Kind::Pod => 2,
            _ => 1,
        };
        order::sort_by(&mut entries, |a, b| {
            let place = |entry: &Entry| (rank(entry), entry.is_newcomer());
            (place(a), &a.provenance).cmp(&(place(b), &b.provenance))
        });
        let mut first: BTreeMap<Key, Option<Provenance>> = BTreeMap::new();
        let mut once = Vec::new();
        for entry in entries {
            // A file that cannot be read may state it yet.
            let unread = |at: &&Provenance| broken.iter().any(|problem| problem.at.file == at.file);
            if entry.is_newcomer()
                && let Some(holder) = entry.holder.as_ref().filter(unread)
            {
                first.insert(entry.key.clone(), Some(holder.clone()));
            }
            let uid = stated_uid(&entry).map(uid_key);
            let named = first.get(&entry.key);
            let winner = named.or_else(|| first.get(uid.as_ref()?));
            let Some(winner) = winner.map(|winner| place(winner, self.source)) else {
                for name in [Some(entry.key.clone()), uid].into_iter().flatten() {
                    first.insert(name, entry.provenance.clone());
                }
                once.push(entry);
                continue;
            };
            let what = if named.is_some() { "" } else { "the uid of " };
            let at = place(&entry.provenance, self.source);
            let message = format!("{what}{} is already defined at {winner}", entry.key);
            self.report(entry.key, at, DUPLICATE, message);
        }
        (once, broken)
    }

    /// Where the source stated what is there under that key.
    fn holder(&self, key: &Key) -> Option<Provenance> {
        let now = self.registry.reader().get_packed(key)?;
        let ours = now.source() == self.source && !matches!(now.standing(), Standing::Rejected(_));
        now.provenance().filter(|_| ours).cloned()
    }

    /// An entry that its source did not state anew.
    fn keep(&mut self, key: Key) {
        let lists = self.registry.desk.lists.borrow();
        let text = lists.texts.get(&key).copied();
        self.texts.extend(text.map(|text| (key.clone(), text)));
        self.kept.insert(key);
    }

    fn take(&mut self, entry: Entry) {
        let current = self.registry.reader().get_packed(&entry.key);
        if let Some(owner) = current.as_ref().map(|now| now.source())
            && owner != self.source
            && !current.as_ref().is_some_and(|now| is_provisioned(now))
        {
            let at = place(&entry.provenance, self.source);
            let message = format!("{} belongs to source {}", entry.key, owner.name());
            self.report(entry.key, at, "OwnedByAnotherSource", message);
            return;
        }
        self.kept.insert(entry.key.clone());
        let text = fingerprint(&entry.body);
        if self.is_as_before(&entry, current.as_deref(), text) {
            self.texts.insert(entry.key, text);
            return;
        }
        let key = entry.key.clone();
        let other = self.other_of_uid(&entry, current.as_deref());
        let current = current.map(|now| Arc::new(now.unpack()));
        if let Some(other) = other {
            let problem = Problem {
                at: place(&entry.provenance, self.source),
                reason: DUPLICATE.to_owned(),
                message: format!("the uid of {key} is that of {}", other.key()),
            };
            return self.refuse(key, current, problem);
        }
        match self.admit(entry, current.as_deref()) {
            Ok((desired, warnings)) => {
                self.texts.insert(key, text);
                self.settle(current, desired, warnings);
            }
            Err(problem) => self.refuse(key, current, problem),
        }
    }

    /// Who else has the UID that a new pod states: the node tells pods apart by it.
    fn other_of_uid(&self, entry: &Entry, current: Option<&Packed>) -> Option<Arc<Packed>> {
        let uid = stated_uid(entry)?;
        if current.is_some_and(|now| now.uid() == uid) {
            return None;
        }
        let (pods, _) = self.registry.reader().list_packed(Kind::Pod, None);
        pods.into_iter().find(|now| now.uid() == uid)
    }

    /// Whether an accepted object came of this very text and nothing is to be said about it.
    fn is_as_before(&self, entry: &Entry, current: Option<&Packed>, text: u64) -> bool {
        let lists = self.registry.desk.lists.borrow();
        lists.texts.get(&entry.key) == Some(&text)
            && current.is_some_and(|now| {
                *now.standing() == Standing::Accepted
                    && now.source() == self.source
                    && now.provenance() == entry.provenance.as_ref()
                    && !now.is_deleting()
            })
    }

    fn admit(
        &self,
        entry: Entry,
        current: Option<&Object>,
    ) -> Result<(Object, Vec<Problem>), Problem> {
        let desk = &self.registry.desk;
        let Entry {
            key,
            provenance,
            mut body,
            lines,
            ..
        } = entry;
        if let Some(current) = current {
            keep_filled(key.kind, &mut body, &current.body);
        }
        // A list states wishes, not edits: versions in it mean nothing here.
        if let Some(metadata) = body.get_mut("metadata").and_then(Value::as_object_mut) {
            metadata.remove("resourceVersion");
        }
        // A list states pods whole: what admission once added is not in it, and is added again.
        let operation = match current {
            Some(_) if key.kind != Kind::Pod => Operation::Update,
            _ => Operation::Create,
        };
        let at = place(&provenance, self.source);
        let admitted = desk.admit(operation, &self.source.into(), &key, current, &mut body);
        let unknown = match admitted {
            Ok(unknown) => unknown,
            Err(error) => {
                // A misspelt field may be the reason: it is still in the body, and looked up again.
                let unknown = object::decode(key.kind, &body).unwrap_or_default();
                return Err(refusal(at, &lines, error, &unknown));
            }
        };
        // A rejected placeholder is no predecessor: it was never an object.
        let current = current.filter(|now| !matches!(now.standing, Standing::Rejected(_)));
        let object = desk
            .complete(self.source, key, provenance, current, body)
            .map_err(|error| refusal(at.clone(), &lines, error, &unknown))?;
        desk.decide(&object);
        let warnings = unknown.into_iter();
        let warnings = warnings.map(|cause| warning(&at, &lines, cause)).collect();
        Ok((object, warnings))
    }

    /// An admitted entry meets what is there.
    fn settle(&mut self, current: Option<Arc<Object>>, desired: Object, warnings: Vec<Problem>) {
        let key = desired.key.clone();
        let verdict = match &current {
            None => Verdict::Added,
            Some(now) if now.uid() != desired.uid() => Verdict::Added,
            // A cluster says itself that its pod goes; here a list that has the pod wants it back.
            Some(now) if now.is_deleting() && !goes_there(&desired) => {
                // Same uid, stopping: it comes back as a new instance once it has stopped.
                let mut successor = desired;
                renew(&mut successor, &self.registry.desk);
                self.returning.insert(key, successor);
                return;
            }
            Some(now) if now.source != desired.source => Verdict::Changed,
            Some(now) => compare(now, &desired),
        };
        match verdict {
            Verdict::Unchanged => return,
            Verdict::MovedLines => {
                let now = current.expect("only an existing object moves");
                let mut moved = Object::clone(&now);
                moved.provenance = desired.provenance;
                self.registry.desk.committer.shared.look().annotate(moved);
                return;
            }
            Verdict::Added => self.replaced.added.push(key.clone()),
            Verdict::Changed => self.replaced.changed.push(key.clone()),
        }
        let named = |warning| (key.clone(), warning);
        self.replaced
            .warnings
            .extend(warnings.into_iter().map(named));
        self.steps.push(Step::Put(Box::new(desired)));
    }

    /// An entry that cannot be taken: the last good one from the same file stays; else it is shown.
    fn refuse(&mut self, key: Key, current: Option<Arc<Object>>, problem: Problem) {
        self.problems.push((key.clone(), problem.clone()));
        match current {
            Some(now) if !matches!(now.standing, Standing::Rejected(_)) => {
                self.mark(&now, problem);
            }
            _ if key.kind == Kind::Pod => self.show_rejected(key, problem),
            // Only pods are shown: a rejected Secret must not look like an empty one.
            _ => self.show_rejected(self.placeholder_key(&problem), problem),
        }
    }

    /// Everything accepted from a broken file stays; if there is nothing, a placeholder shows it.
    fn mark_file(&mut self, problem: Problem) {
        let from_file = self
            .registry
            .reader()
            .accepted_from(self.source, &problem.at.file);
        let key = match from_file.first() {
            Some(now) => now.key().clone(),
            None => self.placeholder_key(&problem),
        };
        self.problems.push((key.clone(), problem.clone()));
        if from_file.is_empty() {
            self.show_rejected(key, problem);
            return;
        }
        for now in from_file {
            if self.kept.insert(now.key().clone()) {
                self.mark(&now.unpack(), problem.clone());
            }
        }
    }

    fn mark(&mut self, now: &Object, problem: Problem) {
        let standing = Standing::Stale(problem);
        if now.standing != standing {
            let mut stale = now.clone();
            stale.standing = standing;
            self.steps.push(Step::Put(Box::new(stale)));
        }
    }

    /// Shows a pod that nobody runs, so that `get pods` tells what is wrong.
    fn show_rejected(&mut self, key: Key, problem: Problem) {
        let current = self.registry.current(&key);
        let ours = |now: &Object| {
            now.source == self.source && matches!(now.standing, Standing::Rejected(_))
        };
        // The name may be taken by a real pod; then the report alone has to do.
        if current.as_deref().is_some_and(|now| !ours(now))
            || self.steps.iter().any(|step| step.key() == &key)
        {
            return;
        }
        self.kept.insert(key.clone());
        let standing = Standing::Rejected(problem.clone());
        if current.as_ref().is_some_and(|now| now.standing == standing) {
            return;
        }
        // The same for whatever is wrong with it, so that all its events are found together.
        let uid = format!("rejected-{:016x}", fingerprint(&json!(key.to_string())));
        if let Some(shown) = current {
            // A status outlives a mere change of the object.
            let uid = shown.uid().to_owned();
            let key = key.clone();
            self.steps.push(Step::Remove { key, uid });
        }
        let source = self.source.annotation();
        let body = json!({
            "metadata": {"uid": uid, "annotations": {"kubernetes.io/config.source": source}},
            "spec": {"containers": [], "nodeName": self.registry.desk.node_name},
            "status": {
                "phase": "Pending",
                "reason": "InvalidManifest",
                "message": problem.to_string(),
            },
        });
        let at = Some(problem.at);
        let object = self
            .registry
            .desk
            .complete(self.source, key, at, None, body);
        let mut object = object.expect("a placeholder's uid is safe");
        object.standing = standing;
        self.steps.push(Step::Put(Box::new(object)));
    }

    /// `default/<file name as a DNS-1123 label>-<node>`.
    fn placeholder_key(&self, problem: &Problem) -> Key {
        let stem = object::label_from(&problem.at.file);
        let name = format!("{stem}-{}", self.registry.desk.node_name);
        Key::local(Kind::Pod, "default", &name)
    }

    fn remove_absent(&mut self) {
        let owned = self.registry.reader().owned_by(self.source).into_iter();
        let absent = owned.filter(|now| !self.kept.contains(now.key()));
        for now in absent.collect::<Vec<_>>() {
            let now = now.unpack();
            let key = now.key.clone();
            let shown_only = matches!(now.standing, Standing::Rejected(_));
            if let Some(left) = left_to_the_api(&now) {
                self.steps.push(Step::Put(Box::new(left)));
            } else if now.key.kind != Kind::Pod || shown_only {
                let uid = now.uid().to_owned();
                self.steps.push(Step::Remove {
                    key: key.clone(),
                    uid,
                });
            } else if !now.is_deleting()
                && let Some(deleting) = self.registry.desk.deleting(&now, grace_of(&now))
            {
                self.steps.push(Step::Put(Box::new(deleting)));
            } else {
                continue;
            }
            if !shown_only {
                self.replaced.removed.push(key);
            }
        }
    }

    fn report(&mut self, key: Key, at: Provenance, reason: &str, message: String) {
        let problem = Problem {
            at,
            reason: reason.to_owned(),
            message,
        };
        self.problems.push((key, problem));
    }

    fn finish(mut self) -> (Vec<Step>, Replaced) {
        let mut lists = self.registry.desk.lists.borrow_mut();
        let before = lists.told.remove(&self.source).unwrap_or_default();
        let fresh = self.problems.iter().filter(|told| !before.contains(told));
        self.replaced.problems = fresh.cloned().collect();
        let over = before.iter().filter(|told| !self.problems.contains(told));
        self.replaced.over = over.cloned().collect();
        lists.told.insert(self.source, self.problems);
        lists.listed.insert(self.source);
        lists.returning.retain(|_, kept| kept.source != self.source);
        lists.returning.append(&mut self.returning);
        let elsewhere =
            |key: &Key| !self.kept.contains(key) && self.registry.reader().contains(key);
        lists.texts.retain(|key, _| elsewhere(key));
        lists.texts.append(&mut self.texts);
        (self.steps, self.replaced)
    }
}

/// The UID of a pod.
fn stated_uid(entry: &Entry) -> Option<&str> {
    let uid = entry.body["metadata"]["uid"].as_str();
    uid.filter(|_| entry.key.kind == Kind::Pod)
}

/// A key that no object has.
fn uid_key(uid: &str) -> Key {
    Key::local(Kind::Pod, "", uid)
}

enum Verdict {
    Added,
    Changed,
    Unchanged,
    /// Same text further up or down: not worth a version or a write.
    MovedLines,
}

fn compare(now: &Object, desired: &Object) -> Verdict {
    if now.standing != Standing::Accepted
        || file_of(&now.provenance) != file_of(&desired.provenance)
        || !same_but_for_versions(&now.body, &desired.body)
    {
        Verdict::Changed
    } else if now.provenance != desired.provenance {
        Verdict::MovedLines
    } else {
        Verdict::Unchanged
    }
}

/// Makes a fresh instance of what `complete` took for the continuation of the stopping one.
fn renew(object: &mut Object, desk: &Desk) {
    if let Some(metadata) = object.body["metadata"].as_object_mut() {
        metadata.remove("deletionTimestamp");
        metadata.remove("deletionGracePeriodSeconds");
        let made = seconds_text(desk.clock.wall());
        metadata.insert("creationTimestamp".to_owned(), json!(made));
        metadata.insert("generation".to_owned(), json!(1));
    }
    if let Some(body) = object.body.as_object_mut() {
        body.remove("status");
    }
}

/// What is wrong with an entry, at the line of the first field that is; and the fields that nobody
/// knows, which have no other chance to be told.
fn refusal(mut at: Provenance, lines: &FieldLines, error: Error, unknown: &[Cause]) -> Problem {
    let (reason, mut message) = match error {
        Error::Invalid { causes, .. } => {
            let first = causes.first().and_then(|(path, _)| lines.get(path));
            at.line = first.map_or(at.line, |line| *line);
            let elsewhere = |(path, what): Cause| match lines.get(&path) {
                Some(line) if *line != at.line => (path, format!("{what} (line {line})")),
                _ => (path, what),
            };
            let causes: Vec<Cause> = causes.into_iter().map(elsewhere).collect();
            ("InvalidManifest", causes_text(&causes))
        }
        Error::Denied { message, .. } => ("AdmissionDenied", message),
        // Nothing else is looked for than what admission asks after.
        Error::NotFound(missing) => ("AdmissionDenied", Error::NotFound(missing).to_string()),
        other => ("InvalidManifest", other.to_string()),
    };
    for (path, what) in unknown {
        let line = lines.get(path).copied().unwrap_or(at.line);
        message.push_str(&format!("; {what} (line {line})"));
    }
    Problem {
        at,
        reason: reason.to_owned(),
        message,
    }
}

/// Something to say about an entry that is taken.
fn warning(at: &Provenance, lines: &FieldLines, (path, message): Cause) -> Problem {
    Problem {
        at: Provenance {
            line: lines.get(&path).copied().unwrap_or(at.line),
            ..at.clone()
        },
        reason: "UnknownField".to_owned(),
        message,
    }
}

fn file_of(provenance: &Option<Provenance>) -> Option<&str> {
    provenance.as_ref().map(|at| at.file.as_str())
}

/// Where an entry was written down; sources without files are named instead.
fn place(provenance: &Option<Provenance>, source: Source) -> Provenance {
    provenance.clone().unwrap_or_else(|| Provenance {
        file: source.name().to_owned(),
        line: 1,
    })
}
