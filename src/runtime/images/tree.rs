//! What lies in an unpacked layer, in one short record: how a broken card is noticed.
//!
//! Power cuts cannot hurt a committed layer (it was flushed first), but a worn-out card can: files
//! come back empty, short or gone. `listing` covers names, kinds, modes, owners, sizes and link
//! targets and is checked by `lstat` alone; `content` adds a CRC-32 of every file and reads all.

use std::collections::BTreeMap;
use std::fs::{File, Metadata};
use std::io::{self, Read};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::digest::{Digest, Hasher};

const BUFFER_BYTES: usize = 64 * 1024;

/// CRC-32 of file contents by inode, as they were written.
pub type Checksums = BTreeMap<u64, u32>;

/// The record of one unpacked layer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tree {
    pub entries: u64,
    /// Sum of file sizes; a hard link counts once.
    pub bytes: u64,
    /// Digest of the listing.
    pub listing: Digest,
    /// Digest of listing and contents.
    pub content: Digest,
}

impl Tree {
    /// Describes `root`. With `written` checksums nothing is read back (`content` is what was
    /// written); without, every file is read.
    pub fn of(root: &Path, written: Option<&Checksums>) -> io::Result<Tree> {
        let mut content = Hasher::default();
        let mut buffer = Vec::new();
        let mut walk = Walk::default();
        walk.run(root, &mut |line, path, metadata| {
            content.update(line);
            if metadata.is_file() {
                let sum = match written.and_then(|sums| sums.get(&metadata.ino())) {
                    Some(sum) => *sum,
                    None => checksum(path, &mut buffer)?,
                };
                content.update(&sum.to_le_bytes());
            }
            Ok(())
        })?;
        Ok(Tree {
            entries: walk.entries,
            bytes: walk.bytes,
            listing: walk.listing.finish(),
            content: content.finish(),
        })
    }

    /// Digest of the listing alone: stats every entry, reads none.
    pub fn listing_of(root: &Path) -> io::Result<Digest> {
        let mut walk = Walk::default();
        walk.run(root, &mut |_, _, _| Ok(()))?;
        Ok(walk.listing.finish())
    }
}

#[derive(Default)]
struct Walk {
    entries: u64,
    bytes: u64,
    listing: Hasher,
    /// Inodes with several names that were counted already.
    linked: std::collections::BTreeSet<u64>,
}

type Visit<'a> = &'a mut dyn FnMut(&[u8], &Path, &Metadata) -> io::Result<()>;

impl Walk {
    /// Visits all below `root` in a fixed order, following no symlink.
    fn run(&mut self, root: &Path, visit: Visit<'_>) -> io::Result<()> {
        let mut pending = vec![PathBuf::new()];
        while let Some(relative) = pending.pop() {
            let mut names = Vec::new();
            for entry in std::fs::read_dir(root.join(&relative))? {
                names.push(entry?.file_name());
            }
            names.sort();
            for name in names {
                let relative = relative.join(name);
                let path = root.join(&relative);
                let metadata = std::fs::symlink_metadata(&path)?;
                let line = line(&relative, &path, &metadata)?;
                self.count(&metadata);
                self.listing.update(&line);
                visit(&line, &path, &metadata)?;
                if metadata.is_dir() {
                    pending.push(relative);
                }
            }
        }
        Ok(())
    }

    fn count(&mut self, metadata: &Metadata) {
        self.entries += 1;
        let first = metadata.nlink() == 1 || self.linked.insert(metadata.ino());
        if metadata.is_file() && first {
            self.bytes += metadata.len();
        }
    }
}

/// One entry, unambiguous: lengths before names.
fn line(relative: &Path, path: &Path, metadata: &Metadata) -> io::Result<Vec<u8>> {
    let kind = metadata.file_type();
    let (size, target) = if kind.is_file() {
        (metadata.len(), PathBuf::new())
    } else if kind.is_symlink() {
        (0, std::fs::read_link(path)?)
    } else if kind.is_char_device() || kind.is_block_device() {
        (metadata.rdev(), PathBuf::new())
    } else {
        (0, PathBuf::new())
    };
    let name = relative.as_os_str().as_bytes();
    let target = target.as_os_str().as_bytes();
    let mut line = format!(
        "{:o} {} {} {size} {} {} ",
        metadata.mode(),
        metadata.uid(),
        metadata.gid(),
        name.len(),
        target.len()
    )
    .into_bytes();
    line.extend_from_slice(name);
    line.extend_from_slice(target);
    line.push(b'\n');
    Ok(line)
}

fn checksum(path: &Path, buffer: &mut Vec<u8>) -> io::Result<u32> {
    buffer.resize(BUFFER_BYTES, 0);
    let mut file = File::open(path)?;
    let mut sum = flate2::Crc::new();
    loop {
        match file.read(buffer)? {
            0 => return Ok(sum.sum()),
            count => sum.update(&buffer[..count]),
        }
    }
}
