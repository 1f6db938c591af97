//! Watching several kinds at once.

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;

use super::Gone;
use super::packed::PackedChange;
use super::reader::{Cursor, Reader};
use crate::object::{Kind, order};

/// A watch over several kinds: changes of all of them, in the order of their versions.
pub struct Cursors(Vec<Cursor>);

impl Reader {
    /// Changes of `kinds` after `version`.
    pub fn watch_all(&self, kinds: &[Kind], version: u64) -> Result<Cursors, Gone> {
        let cursors = kinds.iter().map(|kind| self.watch(*kind, version));
        Ok(Cursors(cursors.collect::<Result<_, _>>()?))
    }

    /// Waits for a change of one of `kinds` after `version`. History that does not reach back so far
    /// means changes too.
    pub async fn changed(&self, kinds: &[Kind], version: u64) {
        if let Ok(mut cursors) = self.watch_all(kinds, version) {
            // Which, or that some were missed, is all the same.
            let _ = cursors.next().await;
        }
    }
}

impl Cursors {
    /// Waits until there is at least one change. Dropping the future loses nothing. `Gone` once a
    /// cursor fell behind history: list again.
    pub async fn next(&mut self) -> Result<Vec<Arc<PackedChange>>, Gone> {
        loop {
            // Listen first: a change between the look and the wait still rings.
            let mut bells: Vec<_> = self.0.iter().map(Cursor::listen).collect();
            if let Some(changes) = self.ready()? {
                return Ok(changes);
            }
            poll_fn(|context| {
                let mut rung = bells
                    .iter_mut()
                    .map(|bell| Future::poll(Pin::new(bell), context).is_ready());
                match rung.any(|rung| rung) {
                    true => Poll::Ready(()),
                    false => Poll::Pending,
                }
            })
            .await;
        }
    }

    /// What there is now, without waiting; `None` if nothing.
    pub fn ready(&mut self) -> Result<Option<Vec<Arc<PackedChange>>>, Gone> {
        let mut all = Vec::new();
        for cursor in &mut self.0 {
            all.extend(cursor.ready_packed()?.into_iter().flatten());
        }
        order::sort_by_key(&mut all, |change| change.resource_version());
        Ok((!all.is_empty()).then_some(all))
    }
}
