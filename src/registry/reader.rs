//! The reading side: snapshots and watch cursors, from any thread.

use std::collections::BTreeMap;
use std::sync::Arc;

use event_listener::EventListener;

use super::packed::{Packed, PackedChange};
use super::published::Shared;
use super::{Change, Gone};
use crate::object::{Key, Kind, Object, Source, Standing};

/// Most changes that one step of a cursor hands over.
const CHANGES_PER_STEP: usize = 64;

/// The reading side: `Send`, never blocks the writer for long, sees whole states only.
#[derive(Clone)]
pub struct Reader {
    pub(super) shared: Arc<Shared>,
}

impl Reader {
    pub fn get(&self, key: &Key) -> Option<Arc<Object>> {
        self.get_packed(key).map(|packed| Arc::new(packed.unpack()))
    }

    /// The same without reading its text.
    pub fn get_packed(&self, key: &Key) -> Option<Arc<Packed>> {
        self.shared.look().get(key).cloned()
    }

    pub fn contains(&self, key: &Key) -> bool {
        self.shared.look().get(key).is_some()
    }

    /// Objects of one kind in key order, and the version that the list shows. A value is about ten
    /// times its text: who can take objects one by one takes `list_packed`.
    pub fn list(&self, kind: Kind, namespace: Option<&str>) -> (Vec<Arc<Object>>, u64) {
        let (packed, version) = self.list_packed(kind, namespace);
        let unpacked = packed.iter().map(|packed| Arc::new(packed.unpack()));
        (unpacked.collect(), version)
    }

    /// The same without reading their text.
    pub fn list_packed(&self, kind: Kind, namespace: Option<&str>) -> (Vec<Arc<Packed>>, u64) {
        let (objects, version) = {
            let state = self.shared.look();
            (state.objects(kind), state.version())
        };
        let inside = |object: &&Arc<Packed>| {
            namespace.is_none_or(|namespace| object.key().namespace == namespace)
        };
        (objects.values().filter(inside).cloned().collect(), version)
    }

    /// The same as it was at `version`: the changes since are taken back. Errors: history does not
    /// reach so far. The version must not be newer than the newest.
    pub fn list_packed_at(
        &self,
        kind: Kind,
        namespace: Option<&str>,
        version: u64,
    ) -> Result<Vec<Arc<Packed>>, Gone> {
        let (objects, since) = {
            let state = self.shared.look();
            let (since, _) = state.after(kind, version, usize::MAX)?;
            (state.objects(kind), since)
        };
        // Oldest first: what was there before the first change of an object is what was there.
        let mut before: BTreeMap<&Key, Option<&Arc<Packed>>> = BTreeMap::new();
        for change in &since {
            let first = before.entry(change.object.key());
            first.or_insert(change.previous.as_ref());
        }
        let unchanged = objects
            .values()
            .filter(|one| !before.contains_key(one.key()));
        let changed = before.values().flatten().copied();
        let inside = |object: &&Arc<Packed>| {
            namespace.is_none_or(|namespace| object.key().namespace == namespace)
        };
        Ok(unchanged.chain(changed).filter(inside).cloned().collect())
    }

    /// What of that file goes on while nothing can be read from it.
    pub fn accepted_from(&self, source: Source, file: &str) -> Vec<Arc<Packed>> {
        let mut owned = self.owned_by(source);
        owned.retain(|now| {
            let is_of_file = now.provenance().is_some_and(|at| at.file == file);
            is_of_file && !matches!(now.standing(), Standing::Rejected(_))
        });
        owned
    }

    pub(super) fn owned_by(&self, source: Source) -> Vec<Arc<Packed>> {
        let state = self.shared.look();
        let durable = Kind::ALL.into_iter().filter(|kind| kind.durable());
        let all = durable.flat_map(|kind| {
            let objects = state.objects(kind);
            let ours: Vec<_> = objects
                .values()
                .filter(|now| now.source() == source)
                .cloned()
                .collect();
            ours
        });
        all.collect()
    }

    /// The newest version given out.
    pub fn version(&self) -> u64 {
        self.shared.look().version()
    }

    /// Changes of `kind` after `version`.
    pub fn watch(&self, kind: Kind, version: u64) -> Result<Cursor, Gone> {
        // Asking for no change at all tells whether the version is still within history.
        self.shared.look().after(kind, version, 0)?;
        Ok(Cursor {
            shared: self.shared.clone(),
            kind,
            after: version,
        })
    }
}

/// A watch: yields changes after a version, in order, without gaps.
pub struct Cursor {
    shared: Arc<Shared>,
    kind: Kind,
    after: u64,
}

impl Cursor {
    /// Waits until there is at least one change; at most 64 at a time. Dropping the future loses
    /// nothing. `Gone` once the cursor fell behind history: list again.
    pub async fn next(&mut self) -> Result<Vec<Arc<Change>>, Gone> {
        self.next_packed().await.map(unpack)
    }

    /// Rings when objects of the kind change.
    pub(super) fn listen(&self) -> EventListener {
        self.shared.bell(self.kind).listen()
    }

    /// The same without reading the objects' text.
    pub async fn next_packed(&mut self) -> Result<Vec<Arc<PackedChange>>, Gone> {
        loop {
            // Listen first: a change between the look and the wait still rings.
            let bell = self.listen();
            if let Some(changes) = self.ready_packed()? {
                return Ok(changes);
            }
            bell.await;
        }
    }

    /// What there is now, without waiting; `None` if nothing.
    pub fn ready(&mut self) -> Result<Option<Vec<Arc<Change>>>, Gone> {
        Ok(self.ready_packed()?.map(unpack))
    }

    /// The same without reading the objects' text.
    pub fn ready_packed(&mut self) -> Result<Option<Vec<Arc<PackedChange>>>, Gone> {
        let (changes, complete_to) =
            self.shared
                .look()
                .after(self.kind, self.after, CHANGES_PER_STEP)?;
        self.after = complete_to;
        Ok((!changes.is_empty()).then_some(changes))
    }
}

fn unpack(changes: Vec<Arc<PackedChange>>) -> Vec<Arc<Change>> {
    let unpacked = changes.iter().map(|change| Arc::new(change.unpack()));
    unpacked.collect()
}
