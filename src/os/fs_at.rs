//! File operations relative to a directory that nothing can leave.
//!
//! Contents of images are hostile: their names hold `..`, symlinks point anywhere. [`Root`] walks
//! paths with openat2(2) and `RESOLVE_IN_ROOT`, so that absolute symlinks and `..` stay inside;
//! [`Directory`] then works on single names, never following a symlink at the last component.
//! Linux 5.6 is required.

use std::ffi::{CString, OsStr};
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use rustix::fs::{AtFlags, FileType, Gid, Mode, OFlags, ResolveFlags, Timespec, Timestamps, Uid};

use super::{remove, thread};

/// A directory that is `/` to every path resolved under it.
pub struct Root(OwnedFd);

/// One directory below a [`Root`], open.
pub struct Directory(OwnedFd);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Directory,
    Other,
}

/// A file that is neither regular, directory nor symlink.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Node {
    Character { major: u32, minor: u32 },
    Block { major: u32, minor: u32 },
    Fifo,
}

/// Numeric owner.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Owner {
    pub uid: u32,
    pub gid: u32,
}

/// Modification time: seconds since 1970, nanoseconds below 10^9.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Modified {
    pub seconds: i64,
    pub nanoseconds: u32,
}

const DIRECTORY: OFlags = OFlags::RDONLY
    .union(OFlags::DIRECTORY)
    .union(OFlags::CLOEXEC);

impl Root {
    pub fn open(path: &Path) -> io::Result<Root> {
        let flags = DIRECTORY | OFlags::NOFOLLOW;
        Ok(Root(rustix::fs::open(path, flags, Mode::empty())?))
    }

    /// Opens the directory at `path` (empty: the root itself). Symlinks on the way, the last
    /// component included, are followed as if the root were `/`.
    pub fn directory(&self, path: &[u8]) -> io::Result<Directory> {
        let path = if path.is_empty() { b"." } else { path };
        let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
        let opened = rustix::fs::openat2(
            &self.0,
            OsStr::from_bytes(path),
            DIRECTORY,
            Mode::empty(),
            resolve,
        )?;
        Ok(Directory(opened))
    }

    /// Bytes that an unprivileged writer may still take.
    pub fn free_bytes(&self) -> io::Result<u64> {
        free_bytes(self.0.as_fd())
    }
}

impl AsFd for Root {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl Directory {
    /// What `name` is, or `None` if there is nothing. Never follows it.
    pub fn kind(&self, name: &[u8]) -> io::Result<Option<Kind>> {
        match rustix::fs::statat(&self.0, os(name), AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) if FileType::from_raw_mode(stat.st_mode) == FileType::Directory => {
                Ok(Some(Kind::Directory))
            }
            Ok(_) => Ok(Some(Kind::Other)),
            Err(rustix::io::Errno::NOENT) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Whether `name` is a character device 0/0, overlayfs's sign for "removed here".
    pub fn is_whiteout(&self, name: &[u8]) -> io::Result<bool> {
        match rustix::fs::statat(&self.0, os(name), AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => Ok(
                FileType::from_raw_mode(stat.st_mode) == FileType::CharacterDevice
                    && stat.st_rdev == 0,
            ),
            Err(rustix::io::Errno::NOENT) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    /// Makes a directory with mode 0755.
    pub fn make_directory(&self, name: &[u8]) -> io::Result<()> {
        rustix::fs::mkdirat(&self.0, os(name), Mode::from_raw_mode(0o755))?;
        self.set_mode(name, 0o755)
    }

    /// Makes a new regular file, open for writing, readable by its owner only.
    pub fn make_file(&self, name: &[u8]) -> io::Result<File> {
        let flags =
            OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = rustix::fs::openat(&self.0, os(name), flags, Mode::from_raw_mode(0o600))?;
        Ok(file.into())
    }

    pub fn make_symlink(&self, target: &[u8], name: &[u8]) -> io::Result<()> {
        Ok(rustix::fs::symlinkat(os(target), &self.0, os(name))?)
    }

    /// Makes `name` another name of `target_name` in `target`; a symlink is linked, not followed.
    pub fn make_hard_link(
        &self,
        target: &Directory,
        target_name: &[u8],
        name: &[u8],
    ) -> io::Result<()> {
        Ok(rustix::fs::linkat(
            &target.0,
            os(target_name),
            &self.0,
            os(name),
            AtFlags::empty(),
        )?)
    }

    pub fn make_node(&self, name: &[u8], node: Node) -> io::Result<()> {
        let (kind, device) = match node {
            Node::Character { major, minor } => {
                (FileType::CharacterDevice, rustix::fs::makedev(major, minor))
            }
            Node::Block { major, minor } => {
                (FileType::BlockDevice, rustix::fs::makedev(major, minor))
            }
            Node::Fifo => (FileType::Fifo, 0),
        };
        let mode = Mode::from_raw_mode(0o600);
        Ok(rustix::fs::mknodat(&self.0, os(name), kind, mode, device)?)
    }

    /// Removes a name that is not a directory; success if there is none.
    pub fn remove_file(&self, name: &[u8]) -> io::Result<()> {
        match rustix::fs::unlinkat(&self.0, os(name), AtFlags::empty()) {
            Ok(()) | Err(rustix::io::Errno::NOENT) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Removes a directory and all below it, following no symlink.
    pub fn remove_tree(&self, name: &[u8]) -> io::Result<()> {
        remove::tree(self.0.as_fd(), name)
    }

    /// Owner of `name` itself, also of a symlink.
    pub fn set_owner(&self, name: &[u8], owner: Owner) -> io::Result<()> {
        Ok(rustix::fs::chownat(
            &self.0,
            os(name),
            Some(Uid::from_raw(owner.uid)),
            Some(Gid::from_raw(owner.gid)),
            AtFlags::SYMLINK_NOFOLLOW,
        )?)
    }

    /// Mode of `name`, which must not be a symlink. Bits: 0o7777.
    pub fn set_mode(&self, name: &[u8], mode: u32) -> io::Result<()> {
        let mode = Mode::from_raw_mode(mode & 0o7777);
        Ok(rustix::fs::chmodat(
            &self.0,
            os(name),
            mode,
            AtFlags::empty(),
        )?)
    }

    /// Modification and access time of `name` itself, also of a symlink.
    pub fn set_modified(&self, name: &[u8], modified: Modified) -> io::Result<()> {
        let time = Timespec {
            tv_sec: modified.seconds,
            tv_nsec: modified.nanoseconds.into(),
        };
        let times = Timestamps {
            last_access: time,
            last_modification: time,
        };
        Ok(rustix::fs::utimensat(
            &self.0,
            os(name),
            &times,
            AtFlags::SYMLINK_NOFOLLOW,
        )?)
    }

    /// Sets an extended attribute of a regular file or directory `name` (`.`: the directory
    /// itself).
    pub fn set_xattr(&self, name: &[u8], attribute: &[u8], value: &[u8]) -> io::Result<()> {
        let attribute = CString::new(attribute)?;
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK;
        let file = rustix::fs::openat(&self.0, os(name), flags, Mode::empty())?;
        Ok(rustix::fs::fsetxattr(
            &file,
            attribute.as_c_str(),
            value,
            rustix::fs::XattrFlags::empty(),
        )?)
    }
}

/// Flushes everything that was written to the file system that holds `path`.
pub fn sync_file_system(path: &Path) -> io::Result<()> {
    thread::may_wait("syncfs");
    Ok(rustix::fs::syncfs(File::open(path)?)?)
}

/// Flushes a directory's entries: what makes a rename last (fsync(2)).
pub fn sync_directory(path: &Path) -> io::Result<()> {
    thread::flush_directory(path)
}

/// Size of the file system that `path` is on, and what unprivileged writers may still take.
pub fn capacity_and_free_bytes(path: &Path) -> io::Result<(u64, u64)> {
    let stat = rustix::fs::statvfs(path)?;
    let bytes = |blocks: u64| blocks.saturating_mul(stat.f_frsize);
    Ok((bytes(stat.f_blocks), bytes(stat.f_bavail)))
}

fn free_bytes(directory: BorrowedFd<'_>) -> io::Result<u64> {
    let stat = rustix::fs::fstatvfs(directory)?;
    Ok(stat.f_bavail.saturating_mul(stat.f_frsize))
}

fn os(name: &[u8]) -> &OsStr {
    OsStr::from_bytes(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn symlinks_and_dots_stay_inside_the_root() {
        let outside = tempfile::tempdir().unwrap();
        let inside = outside.path().join("root");
        std::fs::create_dir_all(inside.join("etc")).unwrap();
        std::os::unix::fs::symlink("/etc", inside.join("absolute")).unwrap();
        std::os::unix::fs::symlink("../../..", inside.join("up")).unwrap();
        std::os::unix::fs::symlink("/proc/self/root", inside.join("magic")).unwrap();
        let root = Root::open(&inside).unwrap();
        for path in ["absolute", "up/etc", "etc/../../../etc"] {
            root.directory(path.as_bytes())
                .unwrap()
                .make_file(b"here")
                .unwrap();
            assert!(inside.join("etc/here").exists(), "{path}");
            std::fs::remove_file(inside.join("etc/here")).unwrap();
        }
        assert!(root.directory(b"magic").is_err());
    }

    #[test]
    fn a_tree_is_removed_without_following_its_symlinks() {
        let outside = tempfile::tempdir().unwrap();
        let kept = outside.path().join("kept");
        std::fs::create_dir_all(&kept).unwrap();
        std::fs::write(kept.join("file"), "x").unwrap();
        let inside = outside.path().join("root");
        std::fs::create_dir_all(inside.join("dir/deep")).unwrap();
        std::os::unix::fs::symlink(&kept, inside.join("dir/deep/link")).unwrap();
        let root = Root::open(&inside).unwrap();
        root.directory(b"").unwrap().remove_tree(b"dir").unwrap();
        assert!(!inside.join("dir").exists());
        assert!(kept.join("file").exists());
    }
}
