//! The way to the disk: a thread of its own, so that the node's thread never waits for an fsync.

use std::cell::RefCell;
use std::sync::Arc;

use async_channel::{Receiver, Sender, TrySendError};

use super::engine::{Engine, Loaded};
use super::medium::Medium;
use super::{Batch, StoreError, Write};
use crate::registry::options::OpenError;

/// Most batches waiting for the disk. Beyond it the disk is hopelessly behind: writes are refused,
/// and what was to be stored behind waits as keys, not as bytes.
const QUEUED_BATCHES_MAX: usize = 1024;
/// Most batches that share one commit.
const GROUP_MAX: usize = 64;
/// redb's call depth is small; the rest is one page cache on the heap.
const STACK_BYTES: usize = 256 << 10;

pub(in crate::registry) enum Queue {
    /// Nothing survives.
    Nowhere,
    /// The simulation: each batch is committed where it is submitted.
    Inline(RefCell<Engine>),
    /// The thread ends when this end of the channel is dropped, with all batches done.
    Thread(Sender<Batch>),
}

impl Queue {
    /// Starts the store's thread; it opens the store there.
    pub async fn on_thread(
        medium: Arc<dyn Medium>,
        fallback_version: u64,
    ) -> Result<(Queue, Loaded), OpenError> {
        let (sender, batches) = async_channel::bounded(QUEUED_BATCHES_MAX);
        let (opened, opening) = async_channel::bounded(1);
        let work = move || match Engine::open(medium, fallback_version) {
            Ok((engine, loaded)) => {
                if opened.try_send(Ok(loaded)).is_ok() {
                    serve(engine, &batches);
                }
            }
            Err(error) => {
                // Nobody waits for the store any more: then nobody misses the error.
                let _ = opened.try_send(Err(error));
            }
        };
        let no_thread = |cause: &dyn std::fmt::Display| {
            OpenError::NoThread(format!("start the store thread: {cause}"))
        };
        // A plain thread: it holds no descriptors but the store's and starts no process.
        std::thread::Builder::new()
            .name("store".to_owned())
            .stack_size(STACK_BYTES)
            .spawn(work)
            .map_err(|error| no_thread(&error))?;
        let loaded = opening
            .recv()
            .await
            .map_err(|_| no_thread(&"it ended while opening"))??;
        Ok((Queue::Thread(sender), loaded))
    }

    /// Hands a batch over without waiting. A full queue refuses it at once, through `done`.
    pub fn submit(&self, batch: Batch) {
        match self {
            Queue::Nowhere => (batch.done)(Ok(())),
            Queue::Inline(engine) => {
                let outcome = engine.borrow_mut().apply(&batch.writes);
                (batch.done)(outcome);
            }
            Queue::Thread(sender) => match sender.try_send(batch) {
                Ok(()) => {}
                Err(TrySendError::Full(batch)) => {
                    let text = format!("{QUEUED_BATCHES_MAX} writes are waiting for the disk");
                    (batch.done)(Err(StoreError(text)));
                }
                Err(TrySendError::Closed(batch)) => {
                    (batch.done)(Err(StoreError("the store has stopped".to_owned())));
                }
            },
        }
    }
}

/// Commits batches in order, those that wait together in one commit.
fn serve(mut engine: Engine, batches: &Receiver<Batch>) {
    while let Ok(first) = batches.recv_blocking() {
        let mut group = vec![first];
        while group.len() < GROUP_MAX
            && let Ok(next) = batches.try_recv()
        {
            group.push(next);
        }
        // A batch that may fail by itself must not take its neighbours along.
        let (alone, group): (Vec<_>, Vec<_>) = group.into_iter().partition(goes_alone);
        let writes: Vec<Write> = group.iter().flat_map(|b| b.writes.clone()).collect();
        let outcome = engine.apply(&writes);
        for batch in group {
            (batch.done)(outcome.clone());
        }
        for batch in alone {
            let outcome = engine.apply(&batch.writes);
            (batch.done)(outcome);
        }
    }
}

fn goes_alone(batch: &Batch) -> bool {
    batch
        .writes
        .iter()
        .any(|write| matches!(write, Write::Refuse { .. } | Write::Scrub))
}
