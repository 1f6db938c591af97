//! redb behind the queue: opening with every way it can fail, and commits.
//!
//! ```text
//!  open ─► integrity good, format known ─────────► records, next versions reserved
//!       ├► corrupt, or too new a format ► renamed ► empty, new store
//!       ├► cannot be opened for writing ─► read into memory ► records, degraded
//!       └► open elsewhere ──────────────► the only error: two nodes must not share a store
//! ```
//!
//! A store says which format it has and the least that a reader must know (`readable-by`). Going
//! one release back is going to a store of a newer format that says that we can read it: tables,
//! marks, fields and records that we do not know stay in it untouched.

use std::fmt;
use std::io;
use std::sync::Arc;

use redb::backends::InMemoryBackend;
use redb::{
    Builder, Database, ReadableDatabase, ReadableTable, Table, TableDefinition, TableError,
};

use super::medium::{Aside, Medium, Stored};
use super::{StoreError, Write, scrub};
use crate::registry::commit::VERSION_BLOCK;
use crate::registry::options::OpenError;

const OBJECTS: TableDefinition<&str, &[u8]> = TableDefinition::new("objects");
const META: TableDefinition<&str, u64> = TableDefinition::new("meta");
/// What this lowtide writes. Counted up with every change of meaning; a change that the release
/// before could not live with is made one release after its readers.
const FORMAT: u64 = 1;
/// The oldest format whose readers can use what this lowtide writes: at most one below `FORMAT`.
const READABLE_BY: u64 = 1;
const FORMAT_KEY: &str = "format";
/// Absent: as `FORMAT_KEY`.
const READABLE_BY_KEY: &str = "readable-by";
const VERSIONS_BELOW_KEY: &str = "versions-below";
const EXPOSED_KEY: &str = "secrets-in-clear";
/// redb's default is 1 GiB; all objects of a node fit in a fraction of this.
const CACHE_BYTES: usize = 256 << 10;

/// What a store holds.
#[derive(Debug, Default)]
pub(in crate::registry) struct Contents {
    pub records: Vec<(String, Vec<u8>)>,
    /// Versions below may have been given out. 0: unknown.
    pub versions_below: u64,
    /// Secrets were written in clear since the file is what it is.
    pub exposed: bool,
    /// 0: nothing was written yet.
    pub format: u64,
}

/// What opening gave.
#[derive(Debug, Default)]
pub(in crate::registry) struct Loaded {
    pub records: Vec<(String, Vec<u8>)>,
    /// First version of this process; `start..start + VERSION_BLOCK` is reserved.
    pub start: u64,
    /// Free pages may hold Secrets in clear.
    pub exposed: bool,
    pub messages: Vec<String>,
    /// Why nothing can be stored for now.
    pub degraded: Option<String>,
    /// What there was cannot be used.
    pub begun_anew: bool,
}

/// What a store says of its format.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::registry) struct Marks {
    pub format: u64,
    pub readable_by: u64,
}

const OURS: Marks = Marks {
    format: FORMAT,
    readable_by: READABLE_BY,
};

pub(in crate::registry) struct Engine {
    medium: Arc<dyn Medium>,
    /// `None` after an error: redb refuses to go on, the next write opens it again.
    database: Option<Database>,
}

/// Why reading gave nothing.
enum Unreadable {
    Corrupt(String),
    Newer(Marks),
    /// Cannot be opened for writing just now.
    Unavailable(String),
    InUse,
}

impl Engine {
    /// Opens the store. `fallback_version` is where versions start if the store cannot tell.
    pub fn open(
        medium: Arc<dyn Medium>,
        fallback_version: u64,
    ) -> Result<(Engine, Loaded), OpenError> {
        let mut loaded = Loaded::default();
        let mut engine = Engine {
            medium,
            database: None,
        };
        let contents = match engine.read() {
            Ok(contents) => contents,
            Err(Unreadable::InUse) => {
                let name = engine.medium.name();
                return Err(OpenError::InUse(format!(
                    "open {name}: used by another process"
                )));
            }
            Err(Unreadable::Corrupt(cause)) => {
                engine.start_over(Aside::Corrupt, &cause, &mut loaded)
            }
            Err(Unreadable::Newer(marks)) => {
                let Marks {
                    format,
                    readable_by,
                } = marks;
                let cause = format!(
                    "has format {format}, readable by {readable_by}; this lowtide knows {FORMAT}"
                );
                engine.start_over(Aside::Newer, &cause, &mut loaded)
            }
            Err(Unreadable::Unavailable(cause)) => {
                loaded.messages.push(format!("{cause}; going on read-only"));
                loaded.degraded = Some(cause);
                engine.read_copy(&mut loaded)
            }
        };
        loaded.start = match contents.versions_below {
            0 => fallback_version,
            below => below,
        };
        loaded.exposed = contents.exposed;
        loaded.records = contents.records;
        if loaded.degraded.is_none() {
            let below = loaded.start + VERSION_BLOCK;
            if let Err(error) = engine.apply(&[Write::ReserveVersions { below }]) {
                loaded
                    .messages
                    .push(format!("{error}; going on without storing"));
                loaded.degraded = Some(error.0);
            }
        }
        if loaded.degraded.is_some() {
            // Not reserved: run ahead of what an earlier process may have used unrecorded.
            loaded.start = loaded.start.max(fallback_version);
        }
        Ok((engine, loaded))
    }

    /// Makes writes durable, all or none. No writes: no disk access.
    pub fn apply(&mut self, writes: &[Write]) -> Result<(), StoreError> {
        if writes.is_empty() {
            return Ok(());
        }
        if let Some(Write::Refuse { why }) =
            writes.iter().find(|w| matches!(w, Write::Refuse { .. }))
        {
            return Err(StoreError(why.clone()));
        }
        let name = self.medium.name();
        let mut outcome = self
            .database()
            .and_then(|database| commit(database, writes).map_err(|e| text(&name, &e)));
        if outcome.is_ok() && writes.contains(&Write::Scrub) {
            outcome = self.scrub();
        }
        if outcome.is_err() {
            self.database = None;
        }
        outcome.map_err(StoreError)
    }

    /// Puts a file without a past in the place of the store's.
    fn scrub(&mut self) -> Result<(), String> {
        let name = self.medium.name();
        let database = self.database()?;
        let contents = match contents(database).map_err(|error| text(&name, &error))? {
            // What a later release keeps beside the objects would be lost.
            Ok(contents) if contents.format <= FORMAT => contents,
            _ => return Err(format!("store {name} has a newer format")),
        };
        let image = scrub::image_of(&contents).map_err(|error| text(&name, &error))?;
        self.database = None;
        let replaced = self.medium.replace(&image);
        replaced.map_err(|error| format!("write {name} anew: {error}"))?;
        self.database().map(drop)
    }

    fn database(&mut self) -> Result<&Database, String> {
        if self.database.is_none() {
            let opened = self.medium.open(&builder());
            let opened = opened.map_err(|e| text(&self.medium.name(), &e.into()))?;
            self.database = Some(opened);
        }
        Ok(self.database.as_ref().expect("opened just above"))
    }

    fn read(&mut self) -> Result<Contents, Unreadable> {
        let database = self
            .medium
            .open(&builder())
            .map_err(|e| self.sort(e.into()))?;
        let contents = contents(&database).map_err(|error| self.sort(error))??;
        self.database = Some(database);
        Ok(contents)
    }

    /// Puts an unusable store aside and begins an empty one.
    fn start_over(&mut self, aside: Aside, cause: &str, loaded: &mut Loaded) -> Contents {
        let name = self.medium.name();
        loaded.begun_anew = true;
        match self.medium.set_aside(aside) {
            Ok(Stored { at, replaced }) => {
                let over = if replaced {
                    " (over an earlier one)"
                } else {
                    ""
                };
                loaded.messages.push(format!(
                    "{name} cannot be used: {cause}; kept as {at}{over}, starting with an empty store"
                ));
                self.read().unwrap_or_default()
            }
            Err(error) => {
                let text = format!("{name} cannot be used: {cause}; set aside: {error}");
                loaded.messages.push(text.clone());
                loaded.degraded = Some(text);
                Contents::default()
            }
        }
    }

    /// Reads a store that cannot be opened for writing, from a copy in memory.
    fn read_copy(&self, loaded: &mut Loaded) -> Contents {
        look(&*self.medium).unwrap_or_else(|error| {
            loaded.messages.push(error.to_string());
            Contents::default()
        })
    }

    fn sort(&self, error: redb::Error) -> Unreadable {
        let broken = |kind| {
            matches!(
                kind,
                io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof
            )
        };
        match error {
            redb::Error::DatabaseAlreadyOpen | redb::Error::LockProtocolMismatch => {
                Unreadable::InUse
            }
            redb::Error::Io(cause) if !broken(cause.kind()) => {
                Unreadable::Unavailable(text(&self.medium.name(), &redb::Error::Io(cause)))
            }
            other => Unreadable::Corrupt(other.to_string()),
        }
    }
}

/// Reads a store without touching it, from a copy in memory.
pub(in crate::registry) fn look(medium: &dyn Medium) -> Result<Contents, LookError> {
    let name = medium.name();
    let failed = |doing: &str, error: &dyn fmt::Display| {
        LookError::Failed(format!("{doing} {name}: {error}"))
    };
    let bytes = medium.bytes().map_err(|error| failed("read", &error))?;
    let backend = InMemoryBackend::new();
    redb::StorageBackend::set_len(&backend, bytes.len() as u64)
        .and_then(|()| redb::StorageBackend::write(&backend, 0, &bytes))
        .map_err(|error| failed("copy", &error))?;
    let database = builder().create_with_backend(backend);
    let database = database.map_err(|error| failed("store", &error))?;
    match contents(&database).map_err(|error| failed("store", &error))? {
        Ok(contents) => Ok(contents),
        Err(_) => Err(LookError::Newer(format!("{name} has a newer format"))),
    }
}

/// Reserves versions in a store that nobody has open.
pub(in crate::registry) fn reserve(medium: Arc<dyn Medium>, below: u64) -> Result<(), StoreError> {
    let mut engine = Engine {
        medium,
        database: None,
    };
    engine.apply(&[Write::ReserveVersions { below }])
}

/// Why a look gave nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::registry) enum LookError {
    /// A later release may read it.
    Newer(String),
    Failed(String),
}

impl fmt::Display for LookError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            LookError::Newer(text) | LookError::Failed(text) => f.write_str(text),
        }
    }
}

/// Corruption is reported, not met by a panic later: the whole (small) file is checked first.
pub(super) fn builder() -> Builder {
    let mut builder = Database::builder();
    builder.set_cache_size(CACHE_BYTES);
    builder.set_check_integrity_on_open(true);
    builder
}

fn contents(database: &Database) -> Result<Result<Contents, Unreadable>, redb::Error> {
    let reading = database.begin_read()?;
    let mut contents = Contents::default();
    match reading.open_table(META) {
        Ok(meta) => {
            if let Some(marks) = marks(&meta)? {
                if marks.readable_by > FORMAT {
                    return Ok(Err(Unreadable::Newer(marks)));
                }
                contents.format = marks.format;
            }
            let below = meta.get(VERSIONS_BELOW_KEY)?;
            contents.versions_below = below.map_or(0, |value| value.value());
            contents.exposed = meta.get(EXPOSED_KEY)?.is_some();
        }
        Err(TableError::TableDoesNotExist(_)) => return Ok(Ok(contents)),
        // Another type under this name: not written by any lowtide of this format.
        Err(error) => return Err(error.into()),
    }
    match reading.open_table(OBJECTS) {
        Ok(objects) => {
            for record in objects.iter()? {
                let (key, value) = record?;
                let record = (key.value().to_owned(), value.value().to_vec());
                contents.records.push(record);
            }
        }
        Err(TableError::TableDoesNotExist(_)) => {}
        Err(error) => return Err(error.into()),
    }
    Ok(Ok(contents))
}

/// Writes all of `contents` into an empty store; what it holds is not exposed.
pub(super) fn fill(database: &Database, contents: &Contents) -> Result<(), redb::Error> {
    let records = contents.records.iter().cloned();
    let mut writes: Vec<Write> = records
        .map(|(key, value)| Write::Put { key, value })
        .collect();
    let below = contents.versions_below;
    writes.push(Write::ReserveVersions { below });
    commit(database, &writes)
}

/// `None`: nothing was written yet.
fn marks(meta: &impl ReadableTable<&'static str, u64>) -> Result<Option<Marks>, redb::Error> {
    let get = |key| Ok::<_, redb::Error>(meta.get(key)?.map(|value| value.value()));
    let (format, readable_by) = (get(FORMAT_KEY)?, get(READABLE_BY_KEY)?);
    Ok(format.map(|format| Marks {
        format,
        readable_by: readable_by.unwrap_or(format),
    }))
}

fn commit(database: &Database, writes: &[Write]) -> Result<(), redb::Error> {
    let writing = database.begin_write()?;
    {
        let mut objects = writing.open_table(OBJECTS)?;
        let mut meta = writing.open_table(META)?;
        // An older store holds from now on what we write; a newer one keeps its marks.
        if marks(&meta)?.is_none_or(|marks| marks.format < FORMAT) {
            mark(&mut meta, OURS)?;
        }
        for write in writes {
            match write {
                Write::Put { key, value } => {
                    objects.insert(key.as_str(), value.as_slice())?;
                }
                Write::PutExposed { key, value } => {
                    objects.insert(key.as_str(), value.as_slice())?;
                    meta.insert(EXPOSED_KEY, 1)?;
                }
                Write::Remove { key } => {
                    objects.remove(key.as_str())?;
                }
                Write::ReserveVersions { below } => {
                    meta.insert(VERSIONS_BELOW_KEY, below)?;
                }
                Write::Scrub => {}
                Write::Refuse { .. } => unreachable!("refused before the transaction"),
            }
        }
    }
    writing.commit()?;
    Ok(())
}

fn mark(meta: &mut Table<'_, &'static str, u64>, marks: Marks) -> Result<(), redb::Error> {
    meta.insert(FORMAT_KEY, marks.format)?;
    meta.insert(READABLE_BY_KEY, marks.readable_by)?;
    Ok(())
}

fn text(name: &str, error: &redb::Error) -> String {
    format!("store {name}: {error}")
}

/// Test aid: the store as another release would leave it.
#[cfg(test)]
pub(in crate::registry) mod other_release {
    use redb::ReadableTableMetadata;

    use super::*;

    const TABLE: TableDefinition<&str, &[u8]> = TableDefinition::new("of-another-release");
    const MARK: &str = "mark-of-another-release";

    /// Changes marks (`readable_by: None`: as before there was such a mark), puts records, and
    /// leaves a table and a mark that no lowtide knows yet.
    pub fn write(
        medium: &dyn Medium,
        format: u64,
        readable_by: Option<u64>,
        records: &[(&str, &[u8])],
    ) {
        let database = medium.open(&builder()).expect("a writable medium");
        let writing = database.begin_write().expect("begin");
        {
            let mut meta = writing.open_table(META).expect("table");
            meta.insert(FORMAT_KEY, format).expect("insert");
            meta.insert(MARK, 7).expect("insert");
            match readable_by {
                Some(format) => meta.insert(READABLE_BY_KEY, format),
                None => meta.remove(READABLE_BY_KEY),
            }
            .expect("change");
            let mut objects = writing.open_table(OBJECTS).expect("table");
            for (key, value) in records {
                objects.insert(*key, *value).expect("insert");
            }
            let mut theirs = writing.open_table(TABLE).expect("table");
            theirs.insert("a", &b"b"[..]).expect("insert");
        }
        writing.commit().expect("commit");
    }

    /// Format, `readable-by`, and the names of all records, if what `write` left is still there.
    pub fn read(medium: &dyn Medium) -> (u64, u64, Vec<String>) {
        let database = medium.open(&builder()).expect("a readable medium");
        let reading = database.begin_read().expect("begin");
        let meta = reading.open_table(META).expect("table");
        assert_eq!(meta.get(MARK).expect("read").expect("kept").value(), 7);
        let theirs = reading.open_table(TABLE).expect("kept");
        assert_eq!(theirs.len().expect("counted"), 1);
        let marks = marks(&meta).expect("read").expect("marked");
        let objects = reading.open_table(OBJECTS).expect("table");
        let names = objects.iter().expect("listed");
        let names = names.map(|record| record.expect("read").0.value().to_owned());
        (marks.format, marks.readable_by, names.collect())
    }
}
