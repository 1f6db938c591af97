//! Files of deleted pods that could not be removed: a disk that takes no changes must not keep a
//! pod from being gone.
//!
//! ```text
//!   TearDown ─► nothing lives or is mounted ─► files removed ──────────────────────► gone
//!                                                  └─ not now: mark, note ─► gone, swept later
//! ```
//! Only a pod of the very same UID waits for the sweep: the files would be taken for its own. The
//! mark under RUN says so to the next agent. After a reboot there is none, and the records are
//! again those of a pod whose end no one had asked for: a finished one stays finished.
//!
//! What a cluster has deleted is deleted, whether the store takes that or not. While it does not, a next
//! agent would find such a pod there as one that is wanted: that it has ended stays on record until then.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

use event_listener::Event;

use super::core::Core;
use super::memory::FinalPhase;
use super::plan::Waiting;
use super::view::PodView;
use crate::object::{Key, Origin};
use crate::world::{Area, DiskError, RemoveError, Uid};

/// Between two tries while the disk is not known to have changed; doubled each time.
const PAUSE_MIN: Duration = Duration::from_secs(10);
const PAUSE_MAX: Duration = Duration::from_secs(300);

/// Deleted pods whose files are still there.
#[derive(Default)]
pub struct Leftovers {
    pods: RefCell<BTreeMap<Uid, Left>>,
    /// Pods of a cluster whose deletion the store has not taken yet.
    ends: RefCell<BTreeMap<Uid, Key>>,
    added: Event,
}

#[derive(Clone)]
struct Left {
    key: Key,
    why: String,
}

impl Leftovers {
    pub fn note(&self, uid: &Uid, key: &Key, why: &str) {
        let left = Left {
            key: key.clone(),
            why: why.to_owned(),
        };
        self.pods.borrow_mut().insert(uid.clone(), left);
        self.added.notify(usize::MAX);
    }

    fn note_end(&self, uid: &Uid, key: &Key) {
        self.ends.borrow_mut().insert(uid.clone(), key.clone());
        self.added.notify(usize::MAX);
    }

    fn is_empty(&self) -> bool {
        self.pods.borrow().is_empty() && self.ends.borrow().is_empty()
    }

    pub fn contains(&self, uid: &Uid) -> bool {
        self.pods.borrow().contains_key(uid)
    }

    /// Why a pod of this UID may not start.
    pub fn holds(&self, uid: &Uid) -> Option<Waiting> {
        let pods = self.pods.borrow();
        let why = &pods.get(uid)?.why;
        let text = format!("files of the deleted pod of the same UID are still there: {why}");
        Some(Waiting::new("WaitingForCleanup", text))
    }

    /// For the node's conditions.
    pub fn trouble(&self) -> Option<String> {
        let pods = self.pods.borrow();
        let first = pods.values().next()?;
        let count = pods.len();
        Some(format!(
            "files of {count} deleted pods are still there: {}",
            first.why
        ))
    }
}

/// Removes everything of a pod that nobody wants any more: kernel, volumes, logs, records. How it
/// ended is forgotten last, so that an agent which has to go on with this still knows it.
pub async fn clear(core: &Core, uid: &Uid, key: &Key) -> Result<(), RemoveError> {
    let given = give_back(core, uid).await;
    if let Err(RemoveError::Held(_)) = given {
        return given;
    }
    let outlasts = must_be_known(core, key);
    if outlasts {
        keep_end(core, uid, key).await;
    }
    let runtime = &core.world.runtime;
    let logs = runtime.remove_logs(uid, &key.namespace, &key.name).await;
    let logs = logs.map_err(|error| RemoveError::Files(error.to_string()));
    let files = |error: DiskError| RemoveError::Files(error.to_string());
    let records = core.records.forget_start(uid).await.map_err(files);
    worst([given, logs, records])?;
    match outlasts {
        true => Ok(()),
        false => forget_end(core, uid).await,
    }
}

/// Keeps the end that was told of the pod.
async fn keep_end(core: &Core, uid: &Uid, key: &Key) {
    let mut finals = core.records.finals(uid).await;
    finals.phase.get_or_insert_with(|| {
        let told = core.reader.get(key);
        let told = told.filter(|object| object.body["status"]["phase"] == "Succeeded");
        FinalPhase::bare(if told.is_some() {
            "Succeeded"
        } else {
            "Failed"
        })
    });
    if let Err(error) = core.records.keep_finals_anywhere(uid, &finals).await {
        log::warn!("{error}; after a crash of the agent {key} may run again");
    }
    core.leftovers.note_end(uid, key);
}

async fn forget_end(core: &Core, uid: &Uid) -> Result<(), RemoveError> {
    let forgotten = core.records.forget_end(uid).await;
    forgotten.map_err(|error| RemoveError::Files(error.to_string()))?;
    // The last of the pod's directory is gone with the records in it.
    core.world.volumes.tear_down(uid).await
}

/// Whether a next agent could find this pod as one that nobody has deleted. Manifests are listed before
/// anything of them starts, and the API deletes nothing that the store does not take.
fn must_be_known(core: &Core, key: &Key) -> bool {
    key.origin == Origin::Remote && !core.registry.is_stored(key)
}

/// Everything in the kernel and the volumes. The records stay. Both are tried.
pub async fn give_back(core: &Core, uid: &Uid) -> Result<(), RemoveError> {
    let removed = core.world.runtime.remove_pod(uid).await;
    let unmounted = core.world.volumes.tear_down(uid).await;
    worst([removed, unmounted])
}

/// The same, but what volumes hold stays for the pod's return.
pub async fn let_go(core: &Core, uid: &Uid) -> Result<(), RemoveError> {
    let removed = core.world.runtime.remove_pod(uid).await;
    let unmounted = core.world.volumes.unmount(uid).await;
    worst([removed, unmounted])
}

/// The first that holds somebody up, else the first of any kind.
fn worst<const N: usize>(outcomes: [Result<(), RemoveError>; N]) -> Result<(), RemoveError> {
    let mut worst = Ok(());
    for outcome in outcomes {
        worst = match (worst, outcome) {
            (Err(RemoveError::Held(text)), _) => Err(RemoveError::Held(text)),
            (Err(error), Ok(()) | Err(RemoveError::Files(_))) => Err(error),
            (_, outcome) => outcome,
        };
    }
    worst
}

/// Remembers that the pod is gone though its files are not, over a crash of the agent as well.
pub async fn leave(core: &Core, view: &PodView, why: &str) {
    core.leftovers.note(&view.uid, &view.key, why);
    if must_be_known(core, &view.key) {
        log::debug!("{}: a next agent finds it as it ended", view.key);
    } else if let Err(error) = core.records.mark_forgotten(&view.uid).await {
        log::warn!(
            "{error}; a next agent takes the files of pod {} for a pod's",
            view.uid
        );
    }
    // Tells the node's conditions whether it is ROOT that takes no changes.
    core.note_disk(Area::Root, &core.records.try_area(Area::Root).await);
}

/// Removes what was left when there is a chance: ROOT can be written again, or time has passed.
pub async fn sweep(core: Rc<Core>) {
    let mut pause = PAUSE_MIN;
    loop {
        let added = core.leftovers.added.listen();
        let changed = core.troubles.listen();
        if core.leftovers.is_empty() {
            pause = PAUSE_MIN;
            added.await;
            continue;
        }
        let clock = &core.world.clock;
        let later = clock.sleep_until(clock.now() + pause);
        futures_lite::future::or(changed, later).await;
        let left = core.leftovers.pods.borrow().clone();
        for (uid, left) in left {
            let cleared = clear(&core, &uid, &left.key).await;
            match &cleared {
                Ok(()) => unmark(&core, &uid).await,
                Err(error) => log::debug!("files of deleted pod {uid}: {error}; trying again"),
            }
        }
        forget_ends(&core).await;
        pause = (pause * 2).min(PAUSE_MAX);
    }
}

async fn forget_ends(core: &Core) {
    let ends = core.leftovers.ends.borrow().clone();
    for (uid, key) in ends {
        if must_be_known(core, &key) {
            continue;
        }
        // A cluster that was put back to an earlier state may have given it back: its end is its own then.
        let now = core.reader.get(&key);
        let is_back = now.is_some_and(|now| now.uid() == uid.as_str());
        if is_back || forget_end(core, &uid).await.is_ok() {
            core.leftovers.ends.borrow_mut().remove(&uid);
        }
    }
}

/// The mark goes first: without it the pod of this UID is as if it had never been.
async fn unmark(core: &Core, uid: &Uid) {
    if let Err(error) = core.records.unmark_forgotten(uid).await {
        log::warn!("{error}; trying again");
        return;
    }
    log::info!("the files of deleted pod {uid} are removed");
    core.leftovers.pods.borrow_mut().remove(uid);
    core.troubles.notify(usize::MAX);
    core.departures.notify(usize::MAX);
}
