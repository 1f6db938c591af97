//! Wakes when directories change, through inotify(7). Says that, not what: callers look again.

use std::io;
use std::path::Path;

use async_io::Async;
use nix::errno::Errno;
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};

/// Changes of a directory that matter to a reader of whole files: one closed after writing, one
/// renamed in or out, one removed, a directory made.
const INTERESTING: AddWatchFlags = AddWatchFlags::IN_CLOSE_WRITE
    .union(AddWatchFlags::IN_MOVED_TO)
    .union(AddWatchFlags::IN_MOVED_FROM)
    .union(AddWatchFlags::IN_DELETE)
    .union(AddWatchFlags::IN_CREATE)
    .union(AddWatchFlags::IN_MOVE_SELF)
    .union(AddWatchFlags::IN_DELETE_SELF)
    .union(AddWatchFlags::IN_ONLYDIR);

/// A set of watched directories.
pub struct DirectoryWatch(Async<Inotify>);

impl DirectoryWatch {
    pub fn new() -> io::Result<DirectoryWatch> {
        let flags = InitFlags::IN_CLOEXEC | InitFlags::IN_NONBLOCK;
        Ok(DirectoryWatch(Async::new(Inotify::init(flags)?)?))
    }

    /// Also watches `directory`; adding one twice is one watch.
    pub fn add(&self, directory: &Path) -> io::Result<()> {
        self.0.get_ref().add_watch(directory, INTERESTING)?;
        Ok(())
    }

    /// Resolves after at least one change since the last call; takes all that are queued.
    pub async fn changed(&self) -> io::Result<()> {
        self.0.readable().await?;
        loop {
            match self.0.get_ref().read_events() {
                Ok(_) => {}
                Err(Errno::EAGAIN) => return Ok(()),
                Err(error) => return Err(error.into()),
            }
        }
    }
}
