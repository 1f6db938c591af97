//! Opens a file that must be a regular one, without waking a FIFO's writer or a device.
//!
//! Never blocks in open(2), never reads beyond a bound, never trusts what a path named a moment ago.

use std::fs::{File, Metadata, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;
use std::time::{Duration, SystemTime};

/// What tells one content of a file from the next without reading it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fingerprint {
    device: u64,
    inode: u64,
    size_bytes: u64,
    modified: (i64, i64),
    changed: (i64, i64),
    mode: u32,
    owner: u32,
}

impl Fingerprint {
    pub fn of(meta: &Metadata) -> Fingerprint {
        Fingerprint {
            device: meta.dev(),
            inode: meta.ino(),
            size_bytes: meta.size(),
            modified: (meta.mtime(), meta.mtime_nsec()),
            changed: (meta.ctime(), meta.ctime_nsec()),
            mode: meta.mode(),
            owner: meta.uid(),
        }
    }
}

/// Two writes within one tick of the kernel's coarse clock (4 to 10 ms) leave equal times; a
/// change this recent proves nothing. Generous, since FAT keeps times to 2 s.
const TICK_MAX: Duration = Duration::from_secs(3);

/// How long ago the file's inode last changed; `None` if the clock is behind it.
pub fn age(meta: &Metadata) -> Option<Duration> {
    let changed = SystemTime::UNIX_EPOCH.checked_add(Duration::new(
        u64::try_from(meta.ctime()).ok()?,
        u32::try_from(meta.ctime_nsec()).ok()?,
    ))?;
    #[allow(clippy::disallowed_methods)] // the file system's clock, compared with itself
    SystemTime::now().duration_since(changed).ok()
}

/// Whether equal fingerprints mean equal contents: the change is older than a clock tick.
pub fn is_settled(meta: &Metadata) -> bool {
    age(meta).is_some_and(|age| age > TICK_MAX)
}

/// Opens `path` (symlinks followed) for reading. Errors: `InvalidInput` if it is not a regular file.
pub fn open(path: &Path) -> io::Result<(File, Metadata)> {
    let file = OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY | libc::O_CLOEXEC)
        .open(path)?;
    let meta = file.metadata()?;
    if !meta.is_file() {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    Ok((file, meta))
}

/// Reads to the end; `None` if there is more than `bytes_max`.
pub fn read_at_most(file: &File, bytes_max: u64) -> io::Result<Option<Vec<u8>>> {
    let mut bytes = Vec::new();
    file.take(bytes_max + 1).read_to_end(&mut bytes)?;
    Ok((bytes.len() as u64 <= bytes_max).then_some(bytes))
}
