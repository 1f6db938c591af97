//! What the service manager is told: ready, alive, stopping.

use std::rc::Rc;
use std::time::Duration;

use crate::os::notify::{Notifier, State};
use crate::world::Clock;

pub struct Service(Notifier);

impl Service {
    pub fn new() -> Result<Service, String> {
        let notifier = Notifier::from_environment();
        let notifier = notifier.map_err(|error| format!("service manager's socket: {error}"))?;
        Ok(Service(notifier))
    }

    pub fn ready(&self) {
        self.tell(&State::Ready);
    }

    pub fn stopping(&self) {
        self.tell(&State::Stopping);
    }

    /// Feeds the watchdog for ever, from the loop whose life it proves. Without one it only waits:
    /// no timer, no wake-up.
    pub async fn feed_watchdog(&self, clock: Rc<dyn Clock>) {
        let Some(limit) = self.0.watchdog() else {
            return std::future::pending().await;
        };
        let period = (limit / 2).max(Duration::from_millis(100));
        loop {
            self.tell(&State::Watchdog);
            clock.sleep_until(clock.now() + period).await;
        }
    }

    fn tell(&self, state: &State<'_>) {
        if let Err(error) = self.0.send(state) {
            log::warn!("tell the service manager {state:?}: {error}");
        }
    }
}
