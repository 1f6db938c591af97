//! How much a directory holds, counted below one open descriptor.
//!
//! Directories of containers are hostile: names change while they are walked. Every step goes by
//! descriptor and follows no symlink, stays on one file system, and the whole is bounded.

use std::collections::BTreeSet;
use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::fs::{AtFlags, CWD, Dir, FileType, Mode, OFlags};

use crate::world::{FileSystem, Tree};

/// `st_blocks` counts these, whatever the file system's own blocks are (stat(2)).
const BLOCK_BYTES: u64 = 512;
/// Deepest directory that is entered; each level holds a descriptor.
const DEPTH_MAX: u32 = 128;

/// How many entries a walk may still look at: shared by the walks of one round.
#[derive(Debug)]
pub struct Budget {
    pub entries: u64,
}

const DIRECTORY: OFlags = OFlags::RDONLY
    .union(OFlags::DIRECTORY)
    .union(OFlags::NOFOLLOW)
    .union(OFlags::NONBLOCK)
    .union(OFlags::CLOEXEC);

/// Blocks and inodes below and with `path`. Zero if there is none. Blocking, and long.
/// Errors: the budget is used up (`QuotaExceeded`), or the directory cannot be opened.
pub fn measure(path: &Path, budget: &mut Budget) -> io::Result<Tree> {
    let top = match rustix::fs::openat(CWD, path, DIRECTORY, Mode::empty()) {
        Err(rustix::io::Errno::NOENT) => return Ok(Tree::default()),
        outcome => outcome?,
    };
    let stat = rustix::fs::fstat(&top)?;
    let mut walk = Walk {
        device: stat.st_dev,
        tree: Tree {
            bytes: blocks(&stat),
            inodes: 1,
        },
        linked: BTreeSet::new(),
        budget,
    };
    walk.directory(&top, DEPTH_MAX)?;
    Ok(walk.tree)
}

struct Walk<'a> {
    device: u64,
    tree: Tree,
    /// Inodes with several names that were counted.
    linked: BTreeSet<u64>,
    budget: &'a mut Budget,
}

impl Walk<'_> {
    fn directory(&mut self, directory: &OwnedFd, depth: u32) -> io::Result<()> {
        for entry in Dir::read_from(directory)? {
            let entry = entry?;
            let name = entry.file_name();
            if matches!(name.to_bytes(), b"." | b"..") {
                continue;
            }
            let left = self.budget.entries.checked_sub(1);
            self.budget.entries = left.ok_or(io::ErrorKind::QuotaExceeded)?;
            // What goes away while it is looked at is not there.
            let Ok(stat) = rustix::fs::statat(directory, name, AtFlags::SYMLINK_NOFOLLOW) else {
                continue;
            };
            if stat.st_dev != self.device {
                continue;
            }
            let is_directory = FileType::from_raw_mode(stat.st_mode) == FileType::Directory;
            if !is_directory && stat.st_nlink > 1 && !self.linked.insert(stat.st_ino) {
                continue;
            }
            self.tree.bytes += blocks(&stat);
            self.tree.inodes += 1;
            if is_directory
                && depth > 0
                && let Ok(below) = rustix::fs::openat(directory, name, DIRECTORY, Mode::empty())
            {
                self.directory(&below, depth - 1)?;
            }
        }
        Ok(())
    }
}

fn blocks(stat: &rustix::fs::Stat) -> u64 {
    u64::try_from(stat.st_blocks).unwrap_or(0) * BLOCK_BYTES
}

/// The file system that `path` is on. A network file system may make its caller wait.
pub fn file_system(path: &Path) -> io::Result<FileSystem> {
    let stat = rustix::fs::statvfs(path)?;
    let bytes = |blocks: u64| blocks.saturating_mul(stat.f_frsize);
    Ok(FileSystem {
        device: rustix::fs::stat(path)?.st_dev,
        capacity_bytes: bytes(stat.f_blocks),
        available_bytes: bytes(stat.f_bavail),
        inodes: stat.f_files,
        inodes_free: stat.f_favail,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn a_file_counts_once_and_symlinks_lead_nowhere() {
        let home = tempfile::tempdir().unwrap();
        let at = |name: &str| home.path().join(name);
        fs::create_dir(at("d")).unwrap();
        fs::write(at("d/one"), vec![1u8; 1 << 20]).unwrap();
        fs::hard_link(at("d/one"), at("two")).unwrap();
        std::os::unix::fs::symlink("/", at("root")).unwrap();
        let mut budget = Budget { entries: 100 };
        let tree = measure(home.path(), &mut budget).unwrap();
        // The directory, `d`, the file, the symlink.
        assert_eq!(tree.inodes, 4);
        assert!((1 << 20..2 << 20).contains(&tree.bytes), "{tree:?}");
        assert_eq!(budget.entries, 96);
        let none = measure(&at("absent"), &mut budget).unwrap();
        assert_eq!(none, Tree::default());
        let error = measure(home.path(), &mut Budget { entries: 2 }).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::QuotaExceeded);
    }
}
