//! Wakes when anything in one directory changes: written, made, renamed, removed (inotify(7)).

use std::io;
use std::path::Path;

use async_io::Async;
use nix::errno::Errno;
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};

/// A watch on one directory; ends when dropped.
pub struct ChangeWatch(Async<Inotify>);

impl ChangeWatch {
    pub fn new(directory: &Path) -> io::Result<ChangeWatch> {
        let inotify = Inotify::init(InitFlags::IN_CLOEXEC | InitFlags::IN_NONBLOCK)?;
        let changes = AddWatchFlags::IN_MODIFY
            | AddWatchFlags::IN_CREATE
            | AddWatchFlags::IN_MOVE
            | AddWatchFlags::IN_DELETE
            | AddWatchFlags::IN_ONLYDIR;
        inotify.add_watch(directory, changes)?;
        Ok(ChangeWatch(Async::new(inotify)?))
    }

    /// Resolves when something has changed since the last call; one wake-up for many changes.
    pub async fn changed(&self) -> io::Result<()> {
        loop {
            let mut any = false;
            loop {
                match self.0.get_ref().read_events() {
                    Ok(_events) => any = true,
                    Err(Errno::EAGAIN) => break,
                    Err(error) => return Err(error.into()),
                }
            }
            if any {
                return Ok(());
            }
            self.0.readable().await?;
        }
    }
}
