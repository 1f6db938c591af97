//! A store in a temporary directory, on real time.

use std::future::Future;
use std::path::Path;
use std::rc::Rc;
use std::time::Duration;

use futures_lite::future;
use jiff::Timestamp;
use lowtide::runtime::images::{ImageStore, Limits, Options, Registries};
use lowtide::world::{BootTime, Clock, LocalFuture};
use tempfile::TempDir;

/// Nothing here takes that long.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// Real time, a hundred times as fast for those who wait: retries need no patience, and a request
/// that is answered within a tenth of a second is still far from its time-out.
struct QuickClock(std::time::Instant);

impl Clock for QuickClock {
    fn now(&self) -> BootTime {
        BootTime::from_duration(self.0.elapsed() * 20)
    }

    fn wall(&self) -> Timestamp {
        Timestamp::UNIX_EPOCH
    }

    #[allow(clippy::disallowed_methods)]
    fn sleep_until(&self, deadline: BootTime) -> LocalFuture<'static, ()> {
        let span = deadline.since(self.now()) / 20;
        Box::pin(async move {
            async_io::Timer::after(span).await;
        })
    }
}

pub fn quick_clock() -> Rc<dyn Clock> {
    #[allow(clippy::disallowed_methods)]
    Rc::new(QuickClock(std::time::Instant::now()))
}

/// Options for a store below `directory`.
pub fn options(directory: &Path) -> Options {
    Options {
        root: directory.join("images"),
        checked_mark: directory.join("checked"),
        boot_id: "this-boot".into(),
        image_dir: None,
        limits: Limits::default(),
        registries: Registries::default(),
        docker_config_dirs: vec![directory.to_owned()],
        proxies: Rc::default(),
        clock: quick_clock(),
    }
}

pub fn temporary() -> TempDir {
    tempfile::Builder::new()
        .prefix("lowtide-images-")
        .tempdir()
        .unwrap()
}

/// Runs a test's future; one that hangs fails.
#[allow(clippy::disallowed_methods)]
pub fn run<T>(future: impl Future<Output = T>) -> T {
    let late = async {
        async_io::Timer::after(PATIENCE).await;
        panic!("nothing happened for {PATIENCE:?}");
    };
    future::block_on(future::or(future, late))
}

pub async fn open(options: Options) -> ImageStore {
    ImageStore::open(options).await.unwrap()
}

/// Names in `ROOT/images/layers` that are no committed layer.
pub fn leftovers(directory: &Path) -> Vec<String> {
    let Ok(entries) = std::fs::read_dir(directory.join("images/layers")) else {
        return Vec::new();
    };
    let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    names.filter(|name| name.starts_with('.')).collect()
}
