//! Keeps the time floor over restarts: one small file, written once a day at most, and the first time
//! as soon as anything is known: certificates may be younger than this program.

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use futures_lite::future::or;
use jiff::Timestamp;

use crate::os::clock::wall_time;
use crate::os::floor::{FLOOR, Floor};
use crate::world::{Area, Clock, Disk, build_time};

/// Below ROOT: a time as RFC 3339 has it. Without the file the floor is when this program was built.
const FILE: &str = "clock-floor";
/// How often it is looked at, in memory.
const LOOK_PERIOD: Duration = Duration::from_secs(600);
/// How much later it has to be to be worth a write: a day, and less at a stop. Flash wears.
const DAY_S: i64 = 24 * 3600;
const STOP_S: i64 = 3600;

pub struct FloorFile {
    disk: Rc<dyn Disk>,
    floor: &'static Floor,
    /// `None`: there is no file yet.
    stored: Cell<Option<Timestamp>>,
}

impl FloorFile {
    /// Recalls what was known before.
    pub async fn open(disk: Rc<dyn Disk>) -> FloorFile {
        FloorFile::of(&FLOOR, disk).await
    }

    async fn of(floor: &'static Floor, disk: Rc<dyn Disk>) -> FloorFile {
        let read = disk.read(Area::Root, FILE).await;
        let read = read.map_err(|error| error.to_string()).and_then(|bytes| {
            let text = bytes.map(|bytes| String::from_utf8_lossy(&bytes).trim().to_owned());
            let parsed = text.map(|text| text.parse::<Timestamp>());
            parsed
                .transpose()
                .map_err(|error| format!("{FILE}: {error}"))
        });
        let known = read.unwrap_or_else(|why| {
            log::error!("{why}; certificates are judged without it");
            None
        });
        known.into_iter().for_each(|at| floor.recall(at));
        let (wall, at) = (wall_time(), floor.at());
        if wall < at {
            log::warn!(
                "the clock shows {wall}, but it has been {at} before: certificates are judged by the \
                 later one until the clock is right"
            );
        }
        FloorFile {
            disk,
            floor,
            stored: Cell::new(known),
        }
    }

    /// Never ends.
    pub async fn keep(self: Rc<Self>, clock: Rc<dyn Clock>) {
        loop {
            self.store(DAY_S).await;
            let raised = self.floor.raised();
            let look = clock.sleep_until(clock.now() + LOOK_PERIOD);
            match self.stored.get() {
                Some(_) => look.await,
                None => or(look, raised).await,
            }
        }
    }

    pub async fn stop(&self) {
        self.store(STOP_S).await;
    }

    async fn store(&self, more_s: i64) {
        let at = self.floor.at();
        let known = match self.stored.get() {
            Some(stored) => at.as_second() - stored.as_second() < more_s,
            None => at <= build_time(),
        };
        if known {
            return;
        }
        let text = format!("{at}\n").into_bytes();
        // A disk that takes nothing is told of by others; it is tried again a day later.
        self.stored.set(Some(at));
        if let Err(error) = self.disk.write_durable(Area::Root, FILE, text).await {
            log::debug!("{error}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::os::clock::SystemClock;
    use crate::os::disk::SystemDisk;

    #[test]
    fn the_floor_outlives_a_restart_and_is_written_once_a_day() {
        let root = tempfile::tempdir().expect("root");
        let disk = SystemDisk::open(root.path(), root.path()).expect("disk");
        let disk: Rc<dyn Disk> = Rc::new(disk);
        let open = || {
            let floor: &'static Floor = Box::leak(Box::default());
            async_io::block_on(FloorFile::of(floor, disk.clone()))
        };
        let stored = || {
            let text = std::fs::read_to_string(root.path().join(FILE)).unwrap_or_default();
            text.trim().to_owned()
        };
        let file = open();
        let start = Timestamp::from_second(4_102_444_800).expect("2100");
        let hear = |file: &FloorFile, after_s: i64| {
            let now = start + jiff::SignedDuration::from_secs(after_s);
            file.floor.hear(now, Timestamp::MAX, now);
        };
        let look = |file: &FloorFile| async_io::block_on(file.store(DAY_S));
        look(&file);
        assert_eq!(stored(), "", "nothing was heard");
        for (after_s, written) in [
            (0, "2100-01-01T00:00:00Z"),
            (DAY_S - 1, "2100-01-01T00:00:00Z"),
            (DAY_S, "2100-01-02T00:00:00Z"),
        ] {
            hear(&file, after_s);
            look(&file);
            assert_eq!(stored(), written);
        }
        hear(&file, DAY_S + STOP_S);
        async_io::block_on(file.stop());
        assert_eq!(stored(), "2100-01-02T01:00:00Z");
        assert_eq!(open().floor.at().to_string(), stored());
        std::fs::write(root.path().join(FILE), "torn").expect("write");
        assert_eq!(open().floor.at(), Floor::new().at());
    }

    #[test]
    fn the_first_that_is_known_is_written_at_once() {
        let root = tempfile::tempdir().expect("root");
        let disk = Rc::new(SystemDisk::open(root.path(), root.path()).expect("disk"));
        let floor: &'static Floor = Box::leak(Box::default());
        let clock = Rc::new(SystemClock::new().expect("clock"));
        async_io::block_on(async {
            let file = Rc::new(FloorFile::of(floor, disk).await);
            let heard = async {
                let now = Timestamp::from_second(4_102_444_800).expect("2100");
                floor.hear(now, Timestamp::MAX, now);
                while !root.path().join(FILE).exists() {
                    futures_lite::future::yield_now().await;
                }
            };
            or(file.keep(clock), heard).await;
        });
    }
}
