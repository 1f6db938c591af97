//! A store's file written anew, so that nothing of what once lay in it is left in free pages.
//!
//! Needed once: when Secrets that lay in clear are sealed. The new file is built in memory (a node's
//! objects are few and small), and takes the old one's place by rename.

use std::io;
use std::sync::Arc;

use redb::backends::InMemoryBackend;
use redb::{Database, StorageBackend};

use super::engine::{self, Contents};

/// Memory that can still be read when the database over it is closed.
#[derive(Clone, Debug)]
struct Memory(Arc<InMemoryBackend>);

impl StorageBackend for Memory {
    fn len(&self) -> io::Result<u64> {
        self.0.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.0.read(offset, out)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.0.set_len(len)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.0.sync_data()
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.0.write(offset, data)
    }
}

/// The bytes of a store that holds `contents` and never held anything else.
pub(super) fn image_of(contents: &Contents) -> Result<Vec<u8>, redb::Error> {
    let memory = Memory(Arc::new(InMemoryBackend::new()));
    let database: Database = engine::builder().create_with_backend(memory.clone())?;
    engine::fill(&database, contents)?;
    drop(database);
    let length = memory.len().map_err(redb::Error::Io)?;
    let mut image = vec![0; length as usize];
    memory.read(0, &mut image).map_err(redb::Error::Io)?;
    Ok(image)
}
