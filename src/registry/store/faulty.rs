//! A simulated disk under redb: loses unsynced writes at a power cut, fills up, breaks.
//!
//! ```text
//!  write ─► page cache ──sync──► platter        power cut: each unsynced sector made it, or not
//! ```
//!
//! For simulations and tests; deterministic under the numbers it is given. Nothing in a real node
//! makes one.

use std::fmt;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use redb::{Builder, Database, DatabaseError, StorageBackend};

use super::medium::{Aside, Medium, Stored};

/// What a disk writes in one go.
const SECTOR_BYTES: usize = 512;

/// Clones are the same disk.
#[derive(Clone, Default)]
pub struct FaultyDisk {
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    /// What survives a power cut.
    platter: Vec<u8>,
    /// What programs read.
    cache: Vec<u8>,
    /// Sectors of the cache that are not on the platter.
    unsynced: std::collections::BTreeSet<usize>,
    /// Handles from before a power cut are dead.
    boot: u64,
    failure: Option<io::ErrorKind>,
    /// Full from this sync on.
    full_at: Option<u64>,
    aside: Vec<(Aside, Vec<u8>)>,
    key: Option<Vec<u8>>,
    syncs: u64,
}

impl FaultyDisk {
    pub fn new() -> FaultyDisk {
        FaultyDisk::default()
    }

    /// Power is cut and comes back: every unsynced sector survives if `survives` says so. Whoever
    /// has the disk open gets errors from now on.
    pub fn cut_power(&self, mut survives: impl FnMut() -> bool) {
        let mut state = self.look();
        let unsynced = std::mem::take(&mut state.unsynced);
        for sector in unsynced {
            if survives() {
                state.write_through(sector);
            }
        }
        state.cache = state.platter.clone();
        state.boot += 1;
    }

    /// All writes and syncs fail from now on with this error; `None` heals.
    pub fn fail(&self, failure: Option<io::ErrorKind>) {
        let mut state = self.look();
        state.failure = failure;
        state.full_at = None;
    }

    /// After so many more syncs the disk is full.
    pub fn fill_up_after(&self, syncs: u64) {
        let mut state = self.look();
        state.full_at = Some(state.syncs + syncs);
    }

    /// Overwrites bytes, synced.
    pub fn scribble(&self, offset: usize, bytes: &[u8]) {
        let mut state = self.look();
        let State { platter, cache, .. } = &mut *state;
        for image in [platter, cache] {
            let end = image.len().min(offset + bytes.len());
            if offset < end {
                image[offset..end].copy_from_slice(&bytes[..end - offset]);
            }
        }
    }

    /// What lies on the platter.
    pub fn platter(&self) -> Vec<u8> {
        self.look().platter.clone()
    }

    /// Stores that were set aside, in order.
    pub fn aside(&self) -> Vec<Aside> {
        self.look().aside.iter().map(|(why, _)| *why).collect()
    }

    /// Syncs so far: idle disks have none.
    pub fn syncs(&self) -> u64 {
        self.look().syncs
    }

    fn look(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for FaultyDisk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("FaultyDisk")
    }
}

impl State {
    fn write_through(&mut self, sector: usize) {
        let start = sector * SECTOR_BYTES;
        let end = (start + SECTOR_BYTES).min(self.cache.len());
        if start >= end {
            return;
        }
        if self.platter.len() < end {
            self.platter.resize(end, 0);
        }
        self.platter[start..end].copy_from_slice(&self.cache[start..end]);
    }
}

impl Medium for FaultyDisk {
    fn name(&self) -> String {
        "simulated disk".to_owned()
    }

    fn open(&self, builder: &Builder) -> Result<Database, DatabaseError> {
        let boot = self.look().boot;
        builder.create_with_backend(Handle {
            disk: self.clone(),
            boot,
        })
    }

    fn bytes(&self) -> io::Result<Vec<u8>> {
        Ok(self.look().cache.clone())
    }

    fn replace(&self, image: &[u8]) -> io::Result<()> {
        let mut state = self.look();
        if let Some(failure) = state.failure {
            return Err(failure.into());
        }
        // A rename: the new file was flushed before.
        state.platter = image.to_vec();
        state.cache = image.to_vec();
        state.unsynced.clear();
        Ok(())
    }

    fn set_aside(&self, why: Aside) -> io::Result<Stored> {
        let mut state = self.look();
        if let Some(failure) = state.failure {
            return Err(failure.into());
        }
        let bytes = std::mem::take(&mut state.cache);
        state.platter.clear();
        state.unsynced.clear();
        state.aside.push((why, bytes));
        Ok(Stored {
            at: format!("simulated-{}", state.aside.len()),
            replaced: false,
        })
    }

    fn key(&self) -> io::Result<Option<Vec<u8>>> {
        Ok(self.look().key.clone())
    }

    fn keep_key(&self, key: &[u8]) -> io::Result<()> {
        let mut state = self.look();
        match state.failure {
            Some(failure) => Err(failure.into()),
            None => {
                state.key = Some(key.to_vec());
                Ok(())
            }
        }
    }
}

/// The disk as one boot has it open.
#[derive(Debug)]
struct Handle {
    disk: FaultyDisk,
    boot: u64,
}

impl Handle {
    fn read_state(&self) -> io::Result<MutexGuard<'_, State>> {
        let state = self.disk.look();
        if state.boot == self.boot {
            Ok(state)
        } else {
            Err(io::Error::other("power was cut"))
        }
    }

    fn write_state(&self) -> io::Result<MutexGuard<'_, State>> {
        let state = self.read_state()?;
        match state.failure {
            Some(failure) => Err(failure.into()),
            None => Ok(state),
        }
    }
}

impl StorageBackend for Handle {
    fn len(&self) -> io::Result<u64> {
        Ok(self.read_state()?.cache.len() as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let state = self.read_state()?;
        let start = usize::try_from(offset).map_err(io::Error::other)?;
        let bytes = state.cache.get(start..start + out.len());
        out.copy_from_slice(bytes.ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let mut state = self.write_state()?;
        let len = usize::try_from(len).map_err(io::Error::other)?;
        state.cache.resize(len, 0);
        // A file's length is journalled by the file system; its bytes are not.
        state.platter.resize(len, 0);
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        let mut state = self.write_state()?;
        let unsynced = std::mem::take(&mut state.unsynced);
        for sector in unsynced {
            state.write_through(sector);
        }
        state.syncs += 1;
        if state.full_at.is_some_and(|full_at| state.syncs >= full_at) {
            state.failure = Some(io::ErrorKind::StorageFull);
        }
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let mut state = self.write_state()?;
        let start = usize::try_from(offset).map_err(io::Error::other)?;
        let end = start + data.len();
        let target = state.cache.get_mut(start..end);
        target
            .ok_or(io::ErrorKind::UnexpectedEof)?
            .copy_from_slice(data);
        let sectors = start / SECTOR_BYTES..end.div_ceil(SECTOR_BYTES);
        state.unsynced.extend(sectors);
        Ok(())
    }
}
