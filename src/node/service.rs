//! What the service manager is told: ready, alive, stopping.

use std::rc::Rc;
use std::time::Duration;

use crate::os::notify::{Notifier, State};
use crate::world::Clock;

/// Between two requests for more time to start.
const PATIENCE_PERIOD: Duration = Duration::from_secs(30);
/// What each asks for.
const PATIENCE: Duration = Duration::from_secs(90);
/// Half an hour: a start that takes longer hangs.
const PATIENCE_TIMES: u32 = 60;

#[derive(Clone)]
pub struct Service(Rc<Notifier>);

impl Service {
    pub fn new() -> Result<Service, String> {
        let notifier = Notifier::from_environment();
        let notifier = notifier.map_err(|error| format!("service manager's socket: {error}"))?;
        Ok(Service(Rc::new(notifier)))
    }

    pub fn ready(&self) {
        self.tell(&State::Ready);
    }

    /// Asks for time, while the node opens: the first start of a boot looks at every layer of the images.
    pub async fn ask_for_patience(self, clock: Rc<dyn Clock>) {
        for _ in 0..PATIENCE_TIMES {
            clock.sleep_until(clock.now() + PATIENCE_PERIOD).await;
            self.tell(&State::Patience(PATIENCE));
        }
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
