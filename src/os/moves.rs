//! Tells of files that are renamed away in watched directories (inotify(7)): rotation of logs.
//!
//! Writing to a file is no event here: a busy log wakes nobody.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};

use async_io::Async;
use nix::errno::Errno;
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify, WatchDescriptor};

/// What the kernel told.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Moved {
    /// This name left this directory.
    From(PathBuf, OsString),
    /// Events were lost; anything may have moved in this one.
    Unknown(PathBuf),
}

/// A set of watched directories; one that is removed leaves it by itself.
pub struct MoveWatch {
    inotify: Async<Inotify>,
    directories: RefCell<BTreeMap<WatchDescriptor, PathBuf>>,
}

impl MoveWatch {
    /// Errors: no descriptor or no inotify instance to be had.
    pub fn new() -> io::Result<MoveWatch> {
        let flags = InitFlags::IN_CLOEXEC | InitFlags::IN_NONBLOCK;
        Ok(MoveWatch {
            inotify: Async::new(Inotify::init(flags)?)?,
            directories: RefCell::default(),
        })
    }

    /// Also watches `directory`; adding one twice is one watch.
    pub fn add(&self, directory: &Path) -> io::Result<()> {
        let flags = AddWatchFlags::IN_MOVED_FROM | AddWatchFlags::IN_ONLYDIR;
        let descriptor = self.inotify.get_ref().add_watch(directory, flags)?;
        let mut directories = self.directories.borrow_mut();
        directories.insert(descriptor, directory.to_owned());
        Ok(())
    }

    /// What has moved since the last call, at least one.
    pub async fn moved(&self) -> io::Result<Vec<Moved>> {
        loop {
            self.inotify.readable().await?;
            let mut found = Vec::new();
            loop {
                match self.inotify.get_ref().read_events() {
                    Ok(events) => {
                        for event in events {
                            self.note(event.wd, event.mask, event.name, &mut found);
                        }
                    }
                    Err(Errno::EAGAIN) => break,
                    Err(error) => return Err(error.into()),
                }
            }
            if !found.is_empty() {
                return Ok(found);
            }
        }
    }

    fn note(
        &self,
        descriptor: WatchDescriptor,
        mask: AddWatchFlags,
        name: Option<OsString>,
        found: &mut Vec<Moved>,
    ) {
        let mut directories = self.directories.borrow_mut();
        if mask.contains(AddWatchFlags::IN_Q_OVERFLOW) {
            found.extend(directories.values().cloned().map(Moved::Unknown));
        } else if mask.contains(AddWatchFlags::IN_IGNORED) {
            directories.remove(&descriptor);
        } else if let (Some(directory), Some(name)) = (directories.get(&descriptor), name) {
            found.push(Moved::From(directory.clone(), name));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn only_renames_are_told_and_removed_directories_are_forgotten() {
        let home = tempfile::tempdir().expect("temporary directory");
        let (one, two) = (home.path().join("one"), home.path().join("two"));
        let watch = MoveWatch::new().expect("inotify");
        for directory in [&one, &two, &one] {
            fs::create_dir_all(directory).expect("directory");
            watch.add(directory).expect("watched");
        }
        fs::write(one.join("0.log"), "text").expect("write");
        fs::remove_dir_all(&two).expect("remove");
        fs::rename(one.join("0.log"), one.join("0.log.old")).expect("rename");
        let moved = async_io::block_on(watch.moved()).expect("events");
        assert_eq!(moved, [Moved::From(one.clone(), "0.log".into())]);
        let left: Vec<PathBuf> = watch.directories.borrow().values().cloned().collect();
        assert_eq!(left, [one]);
    }
}
