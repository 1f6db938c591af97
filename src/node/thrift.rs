//! Gives back what a burst of work has left in the allocator, once the burst is over.
//!
//! Fifty pods that start at once leave some megabytes of freed pages behind. Whatever happens to a
//! pod is in the registry; when it has been quiet there for a while, the free pages go back to the
//! kernel. Nothing happens, and nothing wakes up, on a node where nothing changes.

use std::rc::Rc;
use std::time::Duration;

use crate::object::Kind;
use crate::os::allocator;
use crate::registry::Reader;
use crate::world::Clock;

/// From the first change to the trimming: long enough for a pod to start, short enough that a
/// small board has its memory back before the next one asks.
const BURST: Duration = Duration::from_secs(3);

/// Never ends.
pub async fn trim_after_bursts(reader: Reader, clock: Rc<dyn Clock>) {
    loop {
        // What changed does not matter, so a cursor that fell off is as good as one that moved.
        if let Ok(mut cursor) = reader.watch(Kind::Pod, reader.version()) {
            let _changed_or_gone = cursor.next_packed().await;
        }
        clock.sleep_until(clock.now() + BURST).await;
        allocator::trim();
    }
}
