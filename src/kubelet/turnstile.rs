//! How many pods are made at a time.
//!
//! A boot starts every pod of the node at once. More of them under way than the machine has cores
//! for makes none of them faster, and what each holds while it is made leaves holes in the heap
//! that stay for as long as the node runs.

use std::time::Duration;

use futures_lite::future::{or, pending};
use smol::lock::Semaphore;

use crate::world::Clock;

/// Sandboxes and containers that are made at the same time.
const AT_ONCE: usize = 6;
/// Whoever takes longer no longer counts: what hangs must not keep the rest from starting.
const HELD_MAX: Duration = Duration::from_secs(3);

pub struct Turnstile(Semaphore);

impl Default for Turnstile {
    fn default() -> Self {
        Turnstile(Semaphore::new(AT_ONCE))
    }
}

impl Turnstile {
    /// Does `work` when it is its turn, in the order of asking.
    pub async fn pass<T>(&self, clock: &dyn Clock, work: impl Future<Output = T>) -> T {
        let permit = self.0.acquire().await;
        let patience = async {
            clock.sleep_until(clock.now() + HELD_MAX).await;
            drop(permit);
            pending().await
        };
        or(work, patience).await
    }
}
