//! Where a store lies: a directory of files, or a simulated disk.

use std::fmt::Debug;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use redb::backends::FileBackend;
use redb::{Builder, Database, DatabaseError};

use crate::os::{file, thread};

/// Stores set aside, of each sort. The newest goes over the last one.
const ASIDE_MAX: u32 = 3;
/// The store while it is made, under ROOT.
const TEMPORARY: &str = "store.redb.tmp";
/// Bytes of a store key file or credential at most.
const KEY_FILE_BYTES_MAX: u64 = 4096;

/// Why a store is set aside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Aside {
    Corrupt,
    Newer,
}

impl Aside {
    fn name(self) -> &'static str {
        match self {
            Aside::Corrupt => "corrupt",
            Aside::Newer => "newer",
        }
    }
}

/// Where something was put.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stored {
    pub at: String,
    /// Something older lay there.
    pub replaced: bool,
}

/// What the store's engine asks of its place. All calls may block.
pub trait Medium: Debug + Send + Sync {
    /// For messages.
    fn name(&self) -> String;

    /// Opens or makes the store.
    fn open(&self, builder: &Builder) -> Result<Database, DatabaseError>;

    /// The store's bytes, for reading when it cannot be opened.
    fn bytes(&self) -> io::Result<Vec<u8>>;

    /// Puts these bytes in the place of the (closed) store, durably, all or nothing.
    fn replace(&self, image: &[u8]) -> io::Result<()>;

    /// Renames an unusable store; it is never deleted by itself.
    fn set_aside(&self, why: Aside) -> io::Result<Stored>;

    /// The secret that secrets are sealed with, if there is one.
    fn key(&self) -> io::Result<Option<Vec<u8>>>;

    /// Keeps a new sealing secret, durably, readable by root only.
    fn keep_key(&self, key: &[u8]) -> io::Result<()>;
}

/// `store.redb` and `store.key` under ROOT.
#[derive(Debug)]
pub struct Directory {
    pub root: PathBuf,
    /// A systemd credential that holds the key instead of `store.key`.
    pub key_credential: Option<PathBuf>,
}

impl Directory {
    fn store(&self) -> PathBuf {
        self.root.join("store.redb")
    }

    fn key_path(&self) -> PathBuf {
        self.root.join("store.key")
    }
}

impl Medium for Directory {
    fn name(&self) -> String {
        self.store().display().to_string()
    }

    fn open(&self, builder: &Builder) -> Result<Database, DatabaseError> {
        let mut making = fs::DirBuilder::new();
        making.recursive(true).mode(0o700).create(&self.root)?;
        // Made under another name: a power cut meanwhile must not leave what looks like a store.
        let path = match self.store().try_exists()? {
            true => self.store(),
            false => self.root.join(TEMPORARY),
        };
        let store = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(&path)?;
        // The lock comes first.
        let backend = FileBackend::new(store.try_clone()?)?;
        if path != self.store() {
            store.set_len(0)?;
        }
        let database = builder.create_with_backend(backend)?;
        if path != self.store() {
            file::rename_new(&path, &self.store())?;
        }
        // A new file is there after a power cut only if its directory entry is.
        sync_directory(&self.root)?;
        Ok(database)
    }

    fn bytes(&self) -> io::Result<Vec<u8>> {
        fs::read(self.store())
    }

    fn replace(&self, image: &[u8]) -> io::Result<()> {
        file::replace_durably(&self.store(), image, 0o600)
    }

    fn set_aside(&self, why: Aside) -> io::Result<Stored> {
        let slot = |n: u32| self.root.join(format!("store.redb.{}-{n}", why.name()));
        let free = (1..=ASIDE_MAX).find(|n| !slot(*n).exists());
        let at = slot(free.unwrap_or(ASIDE_MAX));
        fs::rename(self.store(), &at)?;
        sync_directory(&self.root)?;
        Ok(Stored {
            at: at.display().to_string(),
            replaced: free.is_none(),
        })
    }

    fn key(&self) -> io::Result<Option<Vec<u8>>> {
        if let Some(credential) = &self.key_credential {
            return read_key(credential).map(Some);
        }
        match read_key(&self.key_path()) {
            Ok(key) => Ok(Some(key)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn keep_key(&self, key: &[u8]) -> io::Result<()> {
        file::replace_durably(&self.key_path(), key, 0o600)
    }
}

fn read_key(path: &Path) -> io::Result<Vec<u8>> {
    let mut key = Vec::new();
    File::open(path)?
        .take(KEY_FILE_BYTES_MAX)
        .read_to_end(&mut key)?;
    Ok(key)
}

fn sync_directory(path: &Path) -> io::Result<()> {
    thread::flush_directory(path)
}
