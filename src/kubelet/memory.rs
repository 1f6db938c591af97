//! What a pod's worker knows that cannot be observed: which steps are under way, what failed last
//! and when to try again, probe results, why the pod is being ended.
//!
//! Everything here is either rebuilt by doing (steps, errors), or checkpointed under RUN
//! ([`Checkpoint`]), or durable under ROOT ([`Final`]). Nothing is ever read back from a status.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::backoff::BackOff;
use super::tokens::Tokens;
use super::view::{PodView, ProbeKind, Typed};
use crate::world::{BootTime, ContainerId, ContainerUser, Exit, Image, Stamp};

/// What a step works on. Two steps never work on one target at the same time.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Target {
    Volumes,
    Sandbox,
    Image(String),
    Container(String),
    Hook(String),
    /// Removal of one dead instance, by id.
    Garbage(ContainerId),
    Record,
    Resize,
    TearDown,
}

/// A failed step: what to show, and when to try again.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Trouble {
    /// The waiting reason: `ErrImagePull`, `CreateContainerConfigError` …
    pub reason: String,
    pub message: String,
    pub retry_at: BootTime,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Volumes {
    /// Not tried since the start, or to be refreshed.
    #[default]
    Unset,
    Ready,
    /// The retry interval in use and the errors, for the event.
    Failed(Trouble, Duration),
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum ImageState {
    #[default]
    Unknown,
    /// Good for the next start.
    Here(Arc<Image>),
    Failed(Trouble),
}

/// Results of one container instance's probes and its postStart hook.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Health {
    pub id: ContainerId,
    /// postStart has been begun; it is never run twice for one instance.
    pub hook_begun: bool,
    /// postStart ended well (or there is none).
    pub hook_done: bool,
    /// preStop has been begun; it is never run twice for one instance.
    #[serde(default)]
    pub pre_stop_begun: bool,
    /// No startup probe, or it succeeded.
    pub started: bool,
    /// The readiness probe's result (true without one).
    pub ready: bool,
    /// A probe or hook wants this instance ended.
    pub condemned: Option<Condemned>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Condemned {
    pub message: String,
    pub grace: Duration,
}

#[derive(Clone, Debug, Default)]
pub struct ContainerMemory {
    pub image: ImageState,
    pub image_back_off: BackOff,
    /// The last start failed before anything ran.
    pub trouble: Option<Trouble>,
    /// Number for the first instance after RUN was lost.
    pub attempt_base: u32,
}

/// When each condition last changed: type to status and time.
pub type Transitions = BTreeMap<String, (String, Timestamp)>;

/// The part that must survive a crash of the agent but not a reboot: RUN/pods/UID/kubelet.json.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Checkpoint {
    /// `status.startTime`, with its boot time for activeDeadlineSeconds: of a pod from before a
    /// reboot that of its return.
    pub start: Option<Stamp>,
    /// From the pod's start to its return, by wall time: no other clock goes on over a reboot.
    #[serde(default)]
    pub before: Duration,
    /// Restart back-off, keyed by `<container>/<hash>` so that a new image starts afresh.
    pub back_off: BTreeMap<String, BackOff>,
    pub health: BTreeMap<String, Health>,
    /// When each condition last changed: type to (status, time).
    pub transitions: Transitions,
    pub ending: Option<Ending>,
    /// Containers that have run, of a pod that never restarts any.
    #[serde(default)]
    pub begun: Vec<String>,
}

/// The part that must survive a power cut: ROOT/pods/UID/final.json.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Final {
    /// Set once, never changed.
    pub phase: Option<FinalPhase>,
    /// Exits of containers that must not run again, with what their status needs.
    pub exits: BTreeMap<String, FinalExit>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FinalPhase {
    /// `Succeeded` or `Failed`.
    pub phase: String,
    pub reason: Option<String>,
    pub message: Option<String>,
    pub start: Option<Timestamp>,
    /// When its conditions became those of an ended pod.
    #[serde(default)]
    pub at: Option<Timestamp>,
    /// Addresses of the last sandbox, which goes with the end; `None` if there was none.
    #[serde(default)]
    pub ips: Option<Vec<IpAddr>>,
    /// The node ended it for its own sake: the condition DisruptionTarget says so.
    #[serde(default)]
    pub disrupted: bool,
}

impl FinalPhase {
    /// An end of which nothing else is known any more.
    pub fn bare(phase: &str) -> FinalPhase {
        FinalPhase {
            phase: phase.to_owned(),
            reason: None,
            message: None,
            start: None,
            at: None,
            ips: None,
            disrupted: false,
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FinalExit {
    pub id: ContainerId,
    pub attempt: u32,
    pub image: String,
    /// As a status shows it.
    pub image_id: String,
    pub exit: Exit,
    #[serde(default)]
    pub user: Option<ContainerUser>,
    /// The end of the instance before it, if that was known.
    #[serde(default)]
    pub last: Option<LastExit>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LastExit {
    pub id: ContainerId,
    pub exit: Exit,
}

/// Why a pod is being ended, since when, and with how much patience.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ending {
    pub cause: EndCause,
    pub since: BootTime,
    pub grace: Duration,
    /// The agent leaves while the pod's time is up: it ends as a failed one all the same.
    #[serde(default)]
    pub overdue: bool,
    /// Why the node evicts or rejects it; stays when another cause comes on top.
    #[serde(default)]
    pub eviction: Option<String>,
    /// Of a pod that the node turns away or ends for another, where it is not `Evicted`.
    #[serde(default)]
    pub reason: Option<String>,
}

impl Ending {
    /// Whether the pod stays as a failed one.
    pub fn is_failure(&self) -> bool {
        match self.cause {
            EndCause::DeadlineExceeded | EndCause::Evicted | EndCause::Rejected => true,
            EndCause::Deleted | EndCause::Shutdown => false,
        }
    }

    /// When what still runs is killed. At least one second is given.
    pub fn deadline(&self) -> BootTime {
        self.since + self.grace.max(Duration::from_secs(1))
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum EndCause {
    /// Its source no longer wants it: stop, tidy up, forget.
    Deleted,
    /// `activeDeadlineSeconds` is over: stop, keep as Failed.
    DeadlineExceeded,
    /// The node is short of something, or the pod exceeds a limit: stop, keep as Failed.
    Evicted,
    /// It cannot be here and was never let in, or its cluster counts it as ended: keep as Failed.
    Rejected,
    /// The agent leaves and takes the pods along (`--exit-stops-pods`).
    Shutdown,
}

/// A pod's way to other resources, from when it may have them.
#[derive(Clone, Debug)]
pub struct Resizing {
    /// Of the spec that asks for them.
    pub generation: i64,
    /// They are in the pod's record, and the cgroups have been tried.
    pub kept: bool,
    /// The last try failed.
    pub trouble: Option<Trouble>,
}

impl Resizing {
    pub fn of(view: &PodView) -> Resizing {
        Resizing {
            generation: view.generation,
            kept: false,
            trouble: None,
        }
    }
}

#[derive(Clone, Debug, Default)]
pub struct Memory {
    pub busy: BTreeSet<Target>,
    pub volumes: Volumes,
    /// A mounted object changed: bring volumes up to date without holding anything up.
    pub volumes_stale: bool,
    /// A refresh failed: not before then again, with the pause in use.
    pub refresh_retry: Option<(BootTime, Duration)>,
    /// Service account tokens in the volumes; never recorded anywhere.
    pub tokens: Tokens,
    /// With the pause in use.
    pub sandbox_trouble: Option<(Trouble, Duration)>,
    /// Boxed: it is rare.
    pub resizing: Option<Box<Resizing>>,
    /// Kills and removals that failed: not before then again.
    pub retries: BTreeMap<Target, BootTime>,
    /// Boxed: a map makes room for eleven at once, and most pods have one.
    pub containers: BTreeMap<String, Box<ContainerMemory>>,
    pub checkpoint: Checkpoint,
    pub finals: Final,
    /// A fsync of `finals` failed: tried again then.
    pub record_retry: Option<BootTime>,
    pub tear_down_trouble: Option<Trouble>,
    pub torn_down: bool,
    /// The sandbox and volumes of a finished pod are gone.
    pub released: bool,
}

impl Memory {
    pub fn is_busy(&self, target: &Target) -> bool {
        self.busy.contains(target)
    }

    pub fn container(&self, name: &str) -> ContainerMemory {
        self.containers
            .get(name)
            .map(|known| ContainerMemory::clone(known))
            .unwrap_or_default()
    }

    pub fn container_mut(&mut self, name: &str) -> &mut ContainerMemory {
        self.containers.entry(name.to_owned()).or_default()
    }

    /// The health record of this very instance, if there is one.
    pub fn health(&self, name: &str, id: &ContainerId) -> Option<&Health> {
        let health = self.checkpoint.health.get(name)?;
        (health.id == *id).then_some(health)
    }

    pub fn back_off(&self, name: &str, hash: &str) -> BackOff {
        let key = back_off_key(name, hash);
        self.checkpoint
            .back_off
            .get(&key)
            .copied()
            .unwrap_or_default()
    }

    pub fn back_off_mut(&mut self, name: &str, hash: &str) -> &mut BackOff {
        let prefix = format!("{name}/");
        let key = back_off_key(name, hash);
        // Another hash of the same container is an older image: its past does not count.
        let keys = &mut self.checkpoint.back_off;
        keys.retain(|known, _| !known.starts_with(&prefix) || *known == key);
        keys.entry(key).or_default()
    }

    /// Fits what is remembered to a changed pod of the same UID: another image starts afresh,
    /// what failed is tried at once, and volumes may show labels that changed.
    pub fn revise(&mut self, before: &PodView, after: &PodView) {
        for view in &after.containers {
            let known = before.container(&view.name);
            if known.is_none_or(|known| known.hash != view.hash) {
                let memory = self.container_mut(&view.name);
                memory.image = ImageState::Unknown;
                memory.image_back_off = BackOff::default();
                memory.trouble = None;
            }
        }
        let (before, after) = (before.typed(), after.typed());
        let shown = |typed: &Typed| {
            let metadata = &typed.pod.metadata;
            (metadata.labels.clone(), metadata.annotations.clone())
        };
        self.volumes_stale |= shown(&before) != shown(&after) || before.pod.spec != after.pod.spec;
        self.refresh_retry = None;
        self.sandbox_trouble = None;
    }

    /// Sets a probe's verdict for an instance; returns whether anything changed.
    pub fn note_probe(
        &mut self,
        name: &str,
        id: &ContainerId,
        kind: ProbeKind,
        good: bool,
    ) -> bool {
        let Some(health) = self.checkpoint.health.get_mut(name) else {
            return false;
        };
        if health.id != *id {
            return false;
        }
        let flag = match kind {
            ProbeKind::Startup => &mut health.started,
            ProbeKind::Readiness => &mut health.ready,
            ProbeKind::Liveness => return false,
        };
        let changed = *flag != good;
        *flag = good;
        changed
    }
}

fn back_off_key(name: &str, hash: &str) -> String {
    format!("{name}/{hash}")
}
