//! What the node and its pods use, measured when somebody asks and never else.
//!
//! ```text
//!   question ─► base 1 s … 60 s old? ─┬─ yes ────────────► look ─► rates = look − base ─► answer
//!                                     └─ no ─► look, 1 s ─►┘         a base of 10 s is replaced
//! ```
//! There is no sampler in the background: a rate needs two looks, and the first question of a while
//! waits a second between its own. Who asks again and again (a scraper, `watch kubectl top`)
//! compares with the look of a question before, over 10 to 60 s, and waits for nothing. Questions
//! within half a second share one answer, so no flood of them reads more than twice a second.

mod look;
mod procfs;
mod rates;
pub mod subjects;
mod trees;

pub use self::look::this_process;

use std::cell::RefCell;
use std::io;
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use futures_lite::future::or;

use self::rates::Base;
use self::trees::Trees;
use crate::os::{background, tree};
use crate::runtime::cgroup::Cgroups;
use crate::runtime::host::HostRuntime;
use crate::world::{
    BootTime, Clock, Detail, FileSystem, Images, Levels, LocalFuture, Sample, Stats,
};

/// The shortest span that a rate is reckoned over.
const WINDOW_MIN: Duration = Duration::from_secs(1);
/// A base is kept so long before a newer look takes its place …
const WINDOW_USUAL: Duration = Duration::from_secs(10);
/// … and says nothing of now when it is older than this.
const WINDOW_MAX: Duration = Duration::from_secs(60);
/// Who is content with older figures of directories waits so long for new ones.
const WALK_WAIT_MAX: Duration = Duration::from_secs(2);
/// Questions so close together get the same answer.
const SHARED: Duration = Duration::from_millis(500);

/// Implements `world::Stats` on this host.
pub struct HostStats {
    parts: Parts,
    /// One look at a time.
    turn: smol::lock::Mutex<()>,
    /// One walk too; it goes on while nobody waits for it.
    walking: smol::lock::Mutex<Option<Walk>>,
    state: RefCell<State>,
}

pub struct Parts {
    pub clock: Rc<dyn Clock>,
    pub runtime: Rc<HostRuntime>,
    pub images: Rc<dyn Images>,
    pub cgroups: Arc<Cgroups>,
    /// `--root-dir`, and where images are kept below it.
    pub root: PathBuf,
    pub images_root: PathBuf,
}

/// When it began, and what it will have found.
type Walk = (BootTime, LocalFuture<'static, io::Result<Trees>>);

#[derive(Default)]
struct State {
    base: Option<Base>,
    last: Option<(Detail, Sample)>,
    trees: Option<(BootTime, Arc<Trees>)>,
}

/// What a question has to do before its look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wait {
    /// Compare with the base as it is.
    No,
    /// The base is too young: compare with it at this time.
    Until(BootTime),
    /// There is none to compare with: make one first.
    Afresh,
}

fn wait(base: Option<BootTime>, now: BootTime) -> Wait {
    match base.map(|at| (at, now.since(at))) {
        None => Wait::Afresh,
        Some((_, age)) if age > WINDOW_MAX => Wait::Afresh,
        Some((at, age)) if age < WINDOW_MIN => Wait::Until(at + WINDOW_MIN),
        Some(_) => Wait::No,
    }
}

impl HostStats {
    pub fn new(parts: Parts) -> HostStats {
        HostStats {
            parts,
            turn: smol::lock::Mutex::new(()),
            walking: smol::lock::Mutex::new(None),
            state: RefCell::default(),
        }
    }

    async fn ask(&self, detail: Detail) -> Sample {
        let clock = &self.parts.clock;
        // A walk takes long on a slow card: whoever asks for counters does not wait for it.
        let trees = match (detail, self.shared(detail, clock.now())) {
            (_, Some(shared)) => return shared,
            (Detail::Counters, None) => None,
            (Detail::KnownTrees, None) => {
                let late = clock.sleep_until(clock.now() + WALK_WAIT_MAX);
                or(self.walk(), late).await;
                Some(self.known_trees())
            }
            (Detail::Trees, None) => {
                self.walk().await;
                Some(self.known_trees())
            }
        };
        let _turn = self.turn.lock().await;
        if let Some(shared) = self.shared(detail, clock.now()) {
            return shared;
        }
        let base = self.state.borrow().base.as_ref().map(|base| base.at);
        match wait(base, clock.now()) {
            Wait::No => {}
            Wait::Until(at) => clock.sleep_until(at).await,
            Wait::Afresh => {
                let mut first = self.look().await;
                let base = Base::of(&mut first);
                self.state.borrow_mut().base = Some(base);
                clock.sleep_until(clock.now() + WINDOW_MIN).await;
            }
        }
        let mut sample = self.look().await;
        {
            let mut state = self.state.borrow_mut();
            let next = Base::of(&mut sample);
            if let Some(base) = &mut state.base {
                rates::fill(&mut sample, base);
                if sample.window >= WINDOW_USUAL {
                    *base = next;
                }
            }
        }
        if let Some(trees) = trees {
            trees.fill(&mut sample);
            let levels = self.disk_levels().await;
            (sample.node_fs, sample.image_fs) = (levels.node_fs, levels.image_fs);
            let images = self.parts.images.list();
            sample.images_bytes = images.iter().map(|image| image.size_bytes).sum();
        }
        self.state.borrow_mut().last = Some((detail, sample.clone()));
        sample
    }

    /// The last answer, if it is that fresh and holds what is asked for.
    fn shared(&self, detail: Detail, now: BootTime) -> Option<Sample> {
        let state = self.state.borrow();
        let (had, sample) = state.last.as_ref()?;
        (*had >= detail && now.since(sample.at.boot) < SHARED).then(|| sample.clone())
    }

    async fn look(&self) -> Sample {
        let (cgroups, subjects) = (self.parts.cgroups.clone(), self.parts.runtime.subjects());
        blocking::unblock(move || look::look(&cgroups, subjects)).await
    }

    /// What the last walk found; nothing before the first.
    fn known_trees(&self) -> Arc<Trees> {
        let known = self.state.borrow().trees.clone();
        known.map(|(_, trees)| trees).unwrap_or_default()
    }

    /// Sees to it that the last walk is no older than it may be. Who does not wait for the end
    /// leaves the walk to the next who asks.
    async fn walk(&self) {
        let mut walking = self.walking.lock().await;
        loop {
            let now = self.parts.clock.now();
            let known = self.state.borrow().trees.as_ref().map(|(at, _)| *at);
            if known.is_some_and(|at| now.since(at) < trees::FRESH) {
                return;
            }
            let (began, walk) = walking.get_or_insert_with(|| {
                let subjects = self.parts.runtime.subjects();
                let walk = background::run("disk-usage", move || trees::walk(&subjects));
                (now, Box::pin(walk))
            });
            let (began, walked) = (*began, walk.await);
            *walking = None;
            match walked {
                Ok(trees) => self.state.borrow_mut().trees = Some((began, Arc::new(trees))),
                Err(error) => {
                    log::warn!("measure directories: {error}; the figures before it stay in use");
                    return;
                }
            }
            // One that somebody else began, and took long, is as good as it gets.
            if self.parts.clock.now().since(now) >= WALK_WAIT_MAX {
                return;
            }
        }
    }
}

impl Stats for HostStats {
    fn memory_levels(&self) -> Levels {
        look::levels()
    }

    fn disk_levels(&self) -> LocalFuture<'_, Levels> {
        let (root, images) = (self.parts.root.clone(), self.parts.images_root.clone());
        Box::pin(blocking::unblock(move || Levels {
            node_fs: file_system(&root),
            image_fs: file_system(&images),
            ..Levels::default()
        }))
    }

    fn sample(&self, detail: Detail) -> LocalFuture<'_, Sample> {
        Box::pin(self.ask(detail))
    }
}

fn file_system(path: &std::path::Path) -> Option<FileSystem> {
    let found = tree::file_system(path);
    let found = found.inspect_err(|error| log::debug!("statfs {}: {error}", path.display()));
    found.ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::world::{ContainerId, ContainerStats, PodStats, Stamp, Uid, Usage};

    fn stamp(seconds: u64) -> Stamp {
        Stamp {
            boot: BootTime::from_duration(Duration::from_secs(seconds)),
            wall: jiff::Timestamp::UNIX_EPOCH,
        }
    }

    /// One pod with one container, nothing measured.
    pub fn sample(at_s: u64, started_s: u64) -> Sample {
        Sample {
            at: stamp(at_s),
            window: Duration::ZERO,
            node: Usage::default(),
            node_started: stamp(0),
            cpus: 1,
            memory_bytes: 0,
            memory_available_bytes: 0,
            network: Vec::new(),
            node_fs: None,
            image_fs: None,
            images_bytes: 0,
            processes: None,
            system: Vec::new(),
            pods: vec![PodStats {
                uid: Uid::new("u").unwrap(),
                namespace: "default".to_owned(),
                name: "p".to_owned(),
                cgroup: "/p".to_owned(),
                started: stamp(started_s),
                usage: Usage::default(),
                network: Vec::new(),
                containers: vec![ContainerStats {
                    name: "c".to_owned(),
                    id: ContainerId("c".into()),
                    image: "i".to_owned(),
                    cgroup: "/p/c".to_owned(),
                    started: stamp(started_s),
                    usage: Usage::default(),
                    rootfs: None,
                    logs: None,
                }],
                volumes: None,
                ephemeral: None,
            }],
        }
    }

    #[test]
    fn a_question_waits_only_for_something_to_compare_with() {
        let at = |ms| BootTime::from_duration(Duration::from_millis(ms));
        for (base, now, wanted) in [
            (None, 5_000, Wait::Afresh),
            (Some(4_500), 5_000, Wait::Until(at(5_500))),
            (Some(4_000), 5_000, Wait::No),
            (Some(1_000), 61_000, Wait::No),
            (Some(1_000), 61_001, Wait::Afresh),
        ] {
            assert_eq!(wait(base.map(at), at(now)), wanted, "{base:?} {now}");
        }
    }
}
