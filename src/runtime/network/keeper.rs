//! Keeps the table while others load theirs: Debian's /etc/nftables.conf begins with `flush ruleset`.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use futures_lite::future;

use super::Network;
use crate::os::netlink::Announcements;
use crate::world::Clock;

/// Between two looks. A service that is restarted flushes twice.
const PAUSE: Duration = Duration::from_millis(200);
/// nft may be installed, or a module loaded, and nobody announces it.
const RETRY: Duration = Duration::from_secs(30);

/// Looks when a table has changed, and after a failure now and then. Never ends.
pub async fn keep(network: Arc<Network>, clock: Rc<dyn Clock>) {
    let announcements = Announcements::of_tables();
    if let Err(error) = &announcements {
        log::warn!("follow nft tables: {error}; a table that is flushed is not written again");
    }
    loop {
        let failed = network.bridge.failed.listen();
        let looking = network.clone();
        let kept = blocking::unblock(move || looking.bridge.keep()).await;
        clock.sleep_until(clock.now() + PAUSE).await;
        let changed = async {
            match &announcements {
                Ok(announcements) if announcements.changed().await.is_ok() => {}
                _ => future::pending().await,
            }
        };
        let again = async {
            if kept {
                failed.await;
            }
            clock.sleep_until(clock.now() + RETRY).await;
        };
        future::or(changed, again).await;
    }
}
