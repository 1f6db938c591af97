//! Removing a directory tree that strangers have had their hands on.
//!
//! Links are removed, never followed (CVE-2017-1002102). A place where something is mounted is an
//! error, not something to empty: it may be the host's. Directories may be nested deeper than any
//! stack or table of descriptors: what lies too deep is moved up first.

use std::ffi::{CStr, CString};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use rustix::fs::{AtFlags, CWD, Mode, OFlags, RawDir, SeekFrom, renameat, seek, unlinkat};
use rustix::io::Errno;

use super::volume_fs::{attributes_of, open_child_directory};

/// Directories that are open at a time, one within the other.
const LEVELS_MAX: usize = 32;
/// Entries are read in pieces of this size.
const PIECE_BYTES: usize = 8192;
/// A directory that fills while it is emptied is given up after so many passes.
const PASSES_MAX: u32 = 4;

/// Removes what is at `path`, as [`tree`] does. Symlinks on the way there are followed.
pub fn path(path: &Path) -> io::Result<()> {
    let name = path.file_name().ok_or(io::ErrorKind::InvalidInput)?;
    let above = path.parent().filter(|above| !above.as_os_str().is_empty());
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let above = above.unwrap_or(Path::new("."));
    match rustix::fs::openat(CWD, above, flags, Mode::empty()) {
        // A damaged file system may have a file where a directory above it should be.
        Err(Errno::NOENT | Errno::NOTDIR) => Ok(()),
        Err(error) => Err(error.into()),
        Ok(above) => tree(above.as_fd(), name.as_bytes()),
    }
}

/// Removes the entry `name` of `parent` with all that is below it. Success if it is not there.
/// Constant in stack and descriptors, whatever lies there.
pub fn tree(parent: BorrowedFd<'_>, name: &[u8]) -> io::Result<()> {
    let mut removal = Removal {
        parent,
        mount: attributes_of(parent)?.mount,
        levels: Vec::new(),
        moved: 0,
    };
    let name = CString::new(name)?;
    if !is_gone(parent, &name)? {
        removal.enter(name)?;
    }
    while let depth @ 1.. = removal.levels.len() {
        let level = &mut removal.levels[depth - 1];
        match level.pending.pop() {
            Some(below) if depth < LEVELS_MAX => removal.enter(below)?,
            Some(below) => removal.move_up(&below)?,
            None if level.read()? => {}
            None => removal.leave()?,
        }
    }
    Ok(())
}

struct Removal<'a> {
    parent: BorrowedFd<'a>,
    mount: u64,
    /// The outermost first.
    levels: Vec<Level>,
    /// Makes the names of directories that were moved up.
    moved: u64,
}

struct Level {
    directory: OwnedFd,
    /// In the level above.
    name: CString,
    /// Directories of the last piece that are not empty.
    pending: Vec<CString>,
    passes: u32,
}

impl Removal<'_> {
    /// The directory that holds level `depth`.
    fn above(&self, depth: usize) -> BorrowedFd<'_> {
        match depth.checked_sub(1) {
            Some(above) => self.levels[above].directory.as_fd(),
            None => self.parent,
        }
    }

    fn enter(&mut self, name: CString) -> io::Result<()> {
        let directory = match open_child_directory(self.above(self.levels.len()), &*name) {
            // Somebody else removes it too.
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            outcome => outcome?,
        };
        if attributes_of(directory.as_fd())?.mount != self.mount {
            return Err(mounted(&name));
        }
        self.levels.push(Level {
            directory,
            name,
            pending: Vec::new(),
            passes: 0,
        });
        Ok(())
    }

    /// Moves a directory of the innermost level to the outermost one, which is read again.
    fn move_up(&mut self, name: &CStr) -> io::Result<()> {
        loop {
            self.moved += 1;
            let target = self.moved.to_string();
            match renameat(self.above(LEVELS_MAX), name, self.above(1), &*target) {
                // A stranger's, to be removed in its turn.
                Err(Errno::NOTEMPTY | Errno::EXIST | Errno::NOTDIR) => {}
                Err(Errno::NOENT) => return Ok(()),
                outcome => {
                    outcome?;
                    break;
                }
            }
        }
        self.levels[0].passes = 0;
        Ok(())
    }

    /// Removes the innermost level, which was read to its end, or begins it anew.
    fn leave(&mut self) -> io::Result<()> {
        let depth = self.levels.len() - 1;
        match unlinkat(
            self.above(depth),
            &*self.levels[depth].name,
            AtFlags::REMOVEDIR,
        ) {
            Ok(()) | Err(Errno::NOENT) => drop(self.levels.pop()),
            Err(Errno::NOTEMPTY | Errno::EXIST) if self.levels[depth].passes < PASSES_MAX => {
                let level = &mut self.levels[depth];
                level.passes += 1;
                seek(&level.directory, SeekFrom::Start(0))?;
            }
            Err(error) => return Err(error.into()),
        }
        Ok(())
    }
}

impl Level {
    /// Reads one piece, removes what is in it and notes what is to be emptied first. False at the
    /// end.
    fn read(&mut self) -> io::Result<bool> {
        let mut piece = Vec::with_capacity(PIECE_BYTES);
        let mut entries = RawDir::new(self.directory.as_fd(), piece.spare_capacity_mut());
        while let Some(entry) = entries.next() {
            let entry = entry?;
            let name = entry.file_name();
            if !matches!(name.to_bytes(), b"." | b"..") && !is_gone(self.directory.as_fd(), name)? {
                self.pending.push(name.to_owned());
            }
            if entries.is_buffer_empty() {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

/// Removes anything but a directory with something in it, for which it says false.
fn is_gone(parent: BorrowedFd<'_>, name: &CStr) -> io::Result<bool> {
    let removed = match unlinkat(parent, name, AtFlags::empty()) {
        Err(Errno::ISDIR) => unlinkat(parent, name, AtFlags::REMOVEDIR),
        outcome => outcome,
    };
    match removed {
        Ok(()) | Err(Errno::NOENT) => Ok(true),
        Err(Errno::NOTEMPTY | Errno::EXIST) => Ok(false),
        Err(Errno::BUSY) => Err(mounted(name)),
        Err(error) => Err(error.into()),
    }
}

fn mounted(name: &CStr) -> io::Error {
    let name = name.to_string_lossy();
    io::Error::other(format!("something is mounted on {name}"))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::os::volume_fs::{make_directory, open_directory};

    /// Makes a directory `top` with one in it, and so on, some with links and a name of the moved.
    fn nest(home: &Path, depth: u32) {
        let mut directory = open_directory(home).unwrap();
        directory = make_directory(directory.as_fd(), "top", 0o755).unwrap();
        for level in 0..depth {
            let below = make_directory(directory.as_fd(), "1", 0o700).unwrap();
            if level % 100 == 0 {
                make_directory(directory.as_fd(), "2", 0o700).unwrap();
                rustix::fs::symlinkat(home.join("kept"), &directory, "link").unwrap();
                rustix::fs::symlinkat("/nowhere", &below, "broken").unwrap();
            }
            directory = below;
        }
    }

    #[test]
    fn depth_and_width_take_no_more_of_stack_and_descriptors_and_no_link_is_followed() {
        let home = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir());
        let home = home.unwrap();
        fs::create_dir(home.path().join("kept")).unwrap();
        fs::write(home.path().join("kept/file"), "x").unwrap();
        nest(home.path(), 20_000);
        for wide in 0..1000 {
            fs::create_dir_all(home.path().join(format!("top/wide/{wide}/below"))).unwrap();
        }
        let top = home.path().join("top");
        let small = std::thread::Builder::new().stack_size(128 << 10);
        let removed = small.spawn(move || path(&top)).unwrap().join().unwrap();
        removed.unwrap();
        assert!(!home.path().join("top").exists());
        assert!(home.path().join("kept/file").exists());
    }

    #[test]
    fn what_is_not_there_is_removed_and_a_file_or_link_is_no_tree() {
        let home = tempfile::tempdir().unwrap();
        let at = |name: &str| home.path().join(name);
        fs::create_dir(at("kept")).unwrap();
        std::os::unix::fs::symlink("kept", at("link")).unwrap();
        fs::write(at("file"), "x").unwrap();
        for name in ["absent", "absent/below", "file/below", "file", "link"] {
            path(&at(name)).unwrap();
        }
        let left = fs::read_dir(home.path()).unwrap();
        assert_eq!(left.count(), 1);
    }

    #[test]
    fn what_is_mounted_below_is_not_emptied() {
        let home = tempfile::tempdir().unwrap();
        let inner = home.path().join("top/a/b");
        fs::create_dir_all(&inner).unwrap();
        let top = home.path().join("top");
        let looked = move || {
            if crate::os::volume_fs::isolate_mounts().is_err() {
                return eprintln!("skipped: no mount namespace");
            }
            crate::os::volume_fs::mount_tmpfs(&inner, "size=64k").unwrap();
            fs::write(inner.join("file"), "x").unwrap();
            let error = path(&top).unwrap_err();
            assert!(error.to_string().contains("mounted on b"), "{error}");
            assert!(inner.join("file").exists());
            crate::os::volume_fs::unmount(&inner).unwrap();
            path(&top).unwrap();
        };
        let looking = crate::os::thread::spawn("mounts", looked);
        looking.unwrap().join().unwrap();
    }
}
