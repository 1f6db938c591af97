//! Watches one directory for files that are ready to be read, through inotify(7).
//!
//! ```text
//! created, modified ──► unfinished ──► closed after writing, renamed, removed, chmod ──► reported
//! ```
//!
//! Never reads the files and never debounces: a rename is reported at once.

use std::collections::BTreeSet;
use std::ffi::{OsStr, OsString};
use std::io;
use std::path::Path;

use async_io::Async;
use nix::errno::Errno;
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify, WatchDescriptor};

const INTERESTING: AddWatchFlags = AddWatchFlags::IN_CLOSE_WRITE
    .union(AddWatchFlags::IN_MOVED_TO)
    .union(AddWatchFlags::IN_MOVED_FROM)
    .union(AddWatchFlags::IN_DELETE)
    .union(AddWatchFlags::IN_CREATE)
    .union(AddWatchFlags::IN_MODIFY)
    .union(AddWatchFlags::IN_ATTRIB)
    .union(AddWatchFlags::IN_MOVE_SELF)
    .union(AddWatchFlags::IN_DELETE_SELF)
    .union(AddWatchFlags::IN_ONLYDIR);

/// Names kept as unfinished; beyond it the oldest knowledge is dropped and the file is read early.
const UNFINISHED_MAX: usize = 1024;

/// One watched directory and the names in it that somebody is still writing.
pub struct FileWatch {
    inotify: Async<Inotify>,
    watched: Option<WatchDescriptor>,
    unfinished: BTreeSet<OsString>,
    /// Named by any event since `catch_up`.
    touched: BTreeSet<OsString>,
    /// Of what was noted since then.
    news: Meaning,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Meaning {
    Nothing,
    Ready,
}

impl FileWatch {
    pub fn new() -> io::Result<FileWatch> {
        let flags = InitFlags::IN_CLOEXEC | InitFlags::IN_NONBLOCK;
        Ok(FileWatch {
            inotify: Async::new(Inotify::init(flags)?)?,
            watched: None,
            unfinished: BTreeSet::new(),
            touched: BTreeSet::new(),
            news: Meaning::Nothing,
        })
    }

    /// Watches `directory` and nothing else. Watching the same inode again changes nothing; after
    /// the path came to name another one, the old watch ends.
    pub fn watch(&mut self, directory: &Path) -> io::Result<()> {
        let descriptor = match self.inotify.get_ref().add_watch(directory, INTERESTING) {
            Ok(descriptor) => descriptor,
            Err(errno) => {
                self.forget();
                return Err(errno.into());
            }
        };
        if self.watched != Some(descriptor) {
            self.forget();
            self.watched = Some(descriptor);
        }
        Ok(())
    }

    fn forget(&mut self) {
        if let Some(old) = self.watched.take() {
            // Fails when the directory itself is gone, and the watch with it.
            let _ = self.inotify.get_ref().rm_watch(old);
        }
        self.unfinished.clear();
    }

    /// Names that were created or written and not closed since.
    pub fn unfinished(&self) -> &BTreeSet<OsString> {
        &self.unfinished
    }

    /// Takes note of everything until now, without waiting. Called before files are read: what is
    /// noted here needs no further look.
    pub fn catch_up(&mut self, directory: &Path) -> io::Result<()> {
        let noted = self.drain(directory);
        self.news = Meaning::Nothing;
        self.touched.clear();
        noted
    }

    /// Names that something happened to since `catch_up`: what was read of them meanwhile may be
    /// half of it. `ready` tells when to look again.
    pub fn touched(&mut self, directory: &Path) -> io::Result<&BTreeSet<OsString>> {
        self.drain(directory)?;
        Ok(&self.touched)
    }

    /// Resolves after at least one file became ready to be read or went away.
    pub async fn ready(&mut self, directory: &Path) -> io::Result<()> {
        while self.news == Meaning::Nothing {
            self.inotify.readable().await?;
            self.drain(directory)?;
        }
        self.news = Meaning::Nothing;
        Ok(())
    }

    /// Takes what is queued: the kernel bounds its queue (`max_queued_events`).
    fn drain(&mut self, directory: &Path) -> io::Result<()> {
        loop {
            let events = match self.inotify.get_ref().read_events() {
                Ok(events) => events,
                Err(Errno::EAGAIN) => return Ok(()),
                Err(error) => return Err(error.into()),
            };
            for event in events {
                if self.note(directory, event.mask, event.name.as_deref()) == Meaning::Ready {
                    self.news = Meaning::Ready;
                }
                if self.touched.len() < UNFINISHED_MAX {
                    self.touched.extend(event.name);
                }
            }
        }
    }

    fn note(&mut self, directory: &Path, mask: AddWatchFlags, name: Option<&OsStr>) -> Meaning {
        // Something about the directory itself, or events were lost: look again.
        let Some(name) = name else {
            if mask.contains(AddWatchFlags::IN_Q_OVERFLOW) {
                self.unfinished.clear();
            }
            return Meaning::Ready;
        };
        let being_written = AddWatchFlags::IN_CREATE | AddWatchFlags::IN_MODIFY;
        let finished = AddWatchFlags::IN_CLOSE_WRITE
            | AddWatchFlags::IN_MOVED_TO
            | AddWatchFlags::IN_MOVED_FROM
            | AddWatchFlags::IN_DELETE;
        if mask.intersects(finished) {
            self.unfinished.remove(name);
            return Meaning::Ready;
        }
        if mask.intersects(being_written) {
            // Links are complete when they appear; no close will follow.
            if mask.contains(AddWatchFlags::IN_CREATE) && is_link(&directory.join(name)) {
                return Meaning::Ready;
            }
            if self.unfinished.len() < UNFINISHED_MAX {
                self.unfinished.insert(name.to_owned());
            }
            return Meaning::Nothing;
        }
        Meaning::Ready
    }
}

fn is_link(path: &Path) -> bool {
    use std::os::unix::fs::MetadataExt;
    std::fs::symlink_metadata(path).is_ok_and(|meta| {
        meta.file_type().is_symlink() || meta.file_type().is_dir() || meta.nlink() > 1
    })
}
