//! Another key for Secrets: what lies in the store is written anew, a few at a time.
//!
//! ```text
//!   start   records that the writing key did not seal ─┐
//!   SIGHUP  the key file begins with another key ──────┴─► resealing ─► batch ─► batch ─► none
//! ```
//! After Secrets in clear the store's file is written anew: free pages keep what they held. Both
//! keys open everything until the end, so a crash in between costs nothing: the next start goes on
//! with what is left. Versions and watches see nothing of it.

use std::sync::Arc;

use super::store::KeyFile;
use super::{Error, Registry};
use crate::object::{Key, Kind, Object, Standing};

/// Secrets of one commit; each has at most 1 MiB of values.
const BATCH_SECRETS: usize = 8;

impl Registry {
    /// Takes a key file that was read again. Returns how many Secrets are to be sealed anew.
    pub fn use_keys(&self, file: KeyFile) -> usize {
        let mut resealing = self.desk.resealing.borrow_mut();
        if self.desk.committer.use_keys(file) {
            let (secrets, _) = self.reader().list(Kind::Secret, None);
            let kept = |secret: &&Arc<Object>| !matches!(secret.standing, Standing::Rejected(_));
            let kept = secrets.iter().filter(kept);
            resealing.extend(kept.map(|secret| secret.key.clone()));
            // Sealed the old way, and not yet to be seen.
            let busy = self.desk.committer.busy().into_iter();
            resealing.extend(busy.filter(|key| key.kind == Kind::Secret));
        }
        resealing.len()
    }

    /// Seals anew what is to be; each commit is complete by itself. Returns how many it were. Errors:
    /// `Store`: the rest is left for the next time.
    pub async fn reseal(&self) -> Result<usize, Error> {
        let desk = &self.desk;
        let mut done = 0;
        loop {
            let batch: Vec<Key> = {
                let mut resealing = desk.resealing.borrow_mut();
                let first: Vec<Key> = resealing.iter().take(BATCH_SECRETS).cloned().collect();
                first.iter().for_each(|key| drop(resealing.take(key)));
                first
            };
            if batch.is_empty() {
                let scrubbed = desk.committer.scrub().await;
                return scrubbed
                    .map(|()| done)
                    .map_err(|error| Error::Store(error.0));
            }
            // A write on its way is newer than what is visible: after it, in order.
            desk.committer.settled(|busy| batch.contains(busy)).await;
            done += batch.len();
            if let Err(error) = desk.committer.rewrite(batch.clone()).await {
                desk.resealing.borrow_mut().extend(batch);
                return Err(Error::Store(error.0));
            }
        }
    }
}
