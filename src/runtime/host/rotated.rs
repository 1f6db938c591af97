//! Compresses what rotation has set aside, long after it happened and in nobody's way.
//!
//! ```text
//!   container starts, is adopted ─► watch its log directory ─┐
//!   shim renames N.log (inotify) ────────────────────────────┴─► due ─► rest ─► one job ─► .gz
//! ```
//! The shim rotates and prunes, whether an agent runs or not; it only never compresses. What was
//! rotated while no agent ran is found when the container is adopted. The only timer is the rest
//! after a rotation, in which followers catch up; a job that fails (a full disk) is tried again
//! after the next rotation.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::io;
use std::mem;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::Duration;

use async_executor::LocalExecutor;
use event_listener::Event;
use futures_lite::future;

use crate::os::background;
use crate::os::moves::{MoveWatch, Moved};
use crate::os::task;
use crate::runtime::logs::compress_rotated;
use crate::world::Clock;

/// All containers' log directories of this node.
pub struct RotatedLogs(Option<Rc<Shared>>);

struct Shared {
    watch: MoveWatch,
    /// Directories to look at; as many as there are containers at most.
    due: RefCell<BTreeSet<PathBuf>>,
    added: Event,
}

impl RotatedLogs {
    /// Starts the worker. Without inotify logs are rotated all the same, and said so once.
    pub fn start(
        executor: &LocalExecutor<'static>,
        clock: Rc<dyn Clock>,
        rest: Duration,
    ) -> RotatedLogs {
        let watch = match MoveWatch::new() {
            Ok(watch) => watch,
            Err(error) => {
                log::warn!("watch for rotated logs: {error}; they stay uncompressed");
                return RotatedLogs(None);
            }
        };
        let shared = Rc::new(Shared {
            watch,
            due: RefCell::default(),
            added: Event::new(),
        });
        task::spawn(executor, work(shared.clone(), clock, rest)).detach();
        RotatedLogs(Some(shared))
    }

    /// Takes care of the directory of `log` from now on, and of what was rotated there before.
    /// A directory that is not there yet needs no care.
    pub fn watch(&self, log: &Path) {
        let (Some(shared), Some(directory)) = (&self.0, log.parent()) else {
            return;
        };
        match shared.watch.add(directory) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => return,
            Err(error) => {
                let path = directory.display();
                log::warn!("watch {path}: {error}; rotated logs there stay uncompressed");
                return;
            }
        }
        shared.due.borrow_mut().insert(directory.to_owned());
        shared.added.notify(1);
    }
}

async fn work(shared: Rc<Shared>, clock: Rc<dyn Clock>, rest: Duration) {
    loop {
        let added = shared.added.listen();
        if !shared.due.borrow().is_empty() {
            clock.sleep_until(clock.now() + rest).await;
            let due = mem::take(&mut *shared.due.borrow_mut());
            let job = move || due.iter().for_each(|directory| compress(directory));
            if let Err(error) = background::run("compress-logs", job).await {
                log::warn!("compress rotated logs: {error}; again after the next rotation");
            }
            continue;
        }
        let moved = async { Some(shared.watch.moved().await) };
        let more = async {
            added.await;
            None
        };
        match future::or(moved, more).await {
            Some(Ok(moved)) => shared.due.borrow_mut().extend(rotated_in(moved)),
            Some(Err(error)) => {
                log::warn!("watch for rotated logs: {error}; they stay uncompressed");
                return;
            }
            None => {}
        }
    }
}

/// Renames of compressed files are our own.
fn rotated_in(moved: Vec<Moved>) -> impl Iterator<Item = PathBuf> {
    moved.into_iter().filter_map(|moved| match moved {
        Moved::From(directory, name) => name
            .to_string_lossy()
            .ends_with(".log")
            .then_some(directory),
        Moved::Unknown(directory) => Some(directory),
    })
}

fn compress(directory: &Path) {
    match compress_rotated(directory) {
        Ok(_count) => {}
        // The pod has gone meanwhile, and its logs with it.
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => {
            let path = directory.display();
            log::warn!("compress rotated logs in {path}: {error}; again after the next rotation");
        }
    }
}
