//! Node pressure: looks how much is left, says it in the node's conditions, and evicts.
//!
//! ```text
//!   levels ─► state (pure) ─┬─► conditions ─► Node, and who may start
//!                           └─► shortage ─► disk: unused images ─► rank (pure) ─► one pod ends
//! ```
//! One file of the kernel is read every ten seconds; file systems are asked no sooner than they
//! could fill up, nothing is written, and no directory is walked unless a pod has to be chosen or
//! has a limit of its own. One pod goes at a time. Static and critical pods never do.

pub mod limits;
pub mod rank;
pub mod state;
pub mod thresholds;

use std::cell::Cell;
use std::collections::BTreeSet;
use std::rc::Rc;
use std::time::Duration;

use event_listener::Event;

use self::rank::Candidate;
use self::state::{Shortage, State};
use self::thresholds::{Condition, Kind, Policy};
use super::Kubelet;
use super::core::EventKind;
use super::image_gc;
use super::memory::EndCause;
use super::tokens;
use super::view::PodView;
use super::worker::Shared;
use crate::object::Quantity;
use crate::object::resources::pod_requests;
use crate::world::{BootTime, Detail, Levels, PodStats, QosClass, Sample, Stamp};

/// Source: Kubernetes pkg/kubelet/kubelet.go (evictionMonitoringPeriod).
const PERIOD: Duration = Duration::from_secs(10);
/// The longest that a file system far from its threshold is not looked at …
const DISK_PERIOD_MAX: Duration = Duration::from_secs(60);
/// … if nothing writes faster than this.
const FILLED_PER_SECOND: u64 = 100 << 20;
/// How often pods with limits of their own are measured: as often as directories are walked.
const LIMITS_PERIOD: Duration = Duration::from_secs(60);
/// A hard eviction gives so long. Source: eviction_manager.go (immediateEvictionGracePeriod).
const GRACE_HARD: Duration = Duration::from_secs(1);
/// A pod that ends is waited for so long beyond its grace before another goes.
/// Source: eviction_manager.go (podCleanupTimeout).
const CLEANUP_MAX: Duration = Duration::from_secs(30);

/// What one pass of the loop remembers for the next.
#[derive(Default)]
struct Memory {
    state: State,
    disk: Levels,
    disk_at: Option<BootTime>,
    limits_at: Option<BootTime>,
    /// What the clocks showed.
    clocks: Option<Stamp>,
}

/// Looks for ever. The first look is over before the first pod starts, and acts on nothing: what is
/// needed is not known yet.
pub async fn run(kubelet: Rc<Kubelet>) {
    let clock = kubelet.core.world.clock.clone();
    // Before any pod has tokens.
    let clocks = Some(tokens::follow_clock(&kubelet, None));
    let mut memory = Memory {
        clocks,
        ..Memory::default()
    };
    look(&kubelet, &mut memory).await;
    kubelet.core.pressure_known.notify(usize::MAX);
    let (limits_due, disk_due) = (Event::new(), Event::new());
    let disk_short = Cell::new(None);
    let looking = async {
        loop {
            // As often as upstream's lease is renewed; it needs no timer of its own.
            kubelet.core.registry.renew_lease();
            clock.sleep_until(clock.now() + PERIOD).await;
            memory.clocks = Some(tokens::follow_clock(&kubelet, memory.clocks));
            match look(&kubelet, &mut memory).await {
                Some(short) if short.threshold.signal.condition() == Condition::Disk => {
                    // What is freed shows at the next look, and what is written too.
                    memory.disk_at = None;
                    disk_short.set(Some(short));
                    disk_due.notify(1);
                }
                Some(shortage) => evict_one(&kubelet, &shortage).await,
                None => {}
            }
            let now = clock.now();
            if memory.limits_at.is_none_or(|at| now >= at) && limited(&kubelet).next().is_some() {
                memory.limits_at = Some(now + LIMITS_PERIOD);
                limits_due.notify(1);
            }
        }
    };
    // It walks through directories, and shortages do not wait for that.
    let keeping = async {
        loop {
            limits_due.listen().await;
            keep_limits(&kubelet).await;
        }
    };
    // Images take their time to be removed, and memory does not wait for that.
    let clearing = async {
        loop {
            disk_due.listen().await;
            if let Some(shortage) = disk_short.take() {
                clear(&kubelet, &shortage).await;
            }
        }
    };
    futures_lite::future::or(looking, futures_lite::future::or(keeping, clearing)).await
}

async fn look(kubelet: &Rc<Kubelet>, memory: &mut Memory) -> Option<Shortage> {
    let core = &kubelet.core;
    let (world, policy) = (&core.world, &core.options.eviction);
    let now = world.clock.now();
    if memory.disk_at.is_none_or(|at| now >= at) {
        memory.disk = world.stats.disk_levels().await;
        memory.disk_at = Some(world.clock.now() + disk_pause(policy, &memory.disk));
    }
    let levels = Levels {
        node_fs: memory.disk.node_fs,
        image_fs: memory.disk.image_fs,
        ..world.stats.memory_levels()
    };
    let verdict = memory.state.judge(policy, &levels, now);
    say(kubelet, verdict.conditions);
    verdict.shortage
}

async fn clear(kubelet: &Rc<Kubelet>, shortage: &Shortage) {
    let images = &kubelet.core.world.images;
    // Before that nobody knows which images came with the machine.
    let scanned = futures_lite::future::poll_once(images.first_scan()).await;
    if scanned.is_none() || !image_gc::collect_unused(kubelet).await {
        evict_one(kubelet, shortage).await;
    }
}

/// A disk is looked at again before a fast writer could have taken it below a threshold.
fn disk_pause(policy: &Policy, levels: &Levels) -> Duration {
    let bytes = policy.thresholds.iter().filter_map(|threshold| {
        let level = threshold.signal.level(levels)?;
        let disk = threshold.signal.condition() == Condition::Disk;
        let limit = threshold.amount.of(level.capacity);
        disk.then(|| match threshold.signal.resource() {
            "ephemeral-storage" => level.available.saturating_sub(limit) / FILLED_PER_SECOND,
            // Inodes: far from the limit or not.
            _ if level.available / 2 > limit => DISK_PERIOD_MAX.as_secs(),
            _ => 0,
        })
    });
    let seconds = bytes.min().unwrap_or(DISK_PERIOD_MAX.as_secs());
    Duration::from_secs(seconds).clamp(PERIOD, DISK_PERIOD_MAX)
}

/// Tells node status and waiting pods, if anything is new.
fn say(kubelet: &Rc<Kubelet>, conditions: BTreeSet<Condition>) {
    let core = &kubelet.core;
    let before = core.pressure.replace(conditions.clone());
    if before == conditions {
        return;
    }
    core.troubles.notify(usize::MAX);
    kubelet.hold_back();
}

/// Never evicted, and let in under pressure. Source: Kubernetes pkg/kubelet/types (IsCriticalPod).
pub fn is_critical(view: &PodView) -> bool {
    view.is_static || view.priority >= rank::PRIORITY_CRITICAL
}

/// Pods that run and could go.
fn evictable(kubelet: &Kubelet) -> Vec<(Rc<Shared>, Rc<PodView>)> {
    let workers = kubelet.workers.borrow();
    let found = workers.values().filter_map(|worker| {
        let shared = worker.shared.clone();
        let view = shared.view.borrow().clone();
        let memory = shared.memory.borrow();
        let active = memory.checkpoint.ending.is_none() && memory.finals.phase.is_none();
        let goes = active && !shared.gone.get() && !is_critical(&view);
        drop(memory);
        goes.then_some((shared, view))
    });
    found.collect()
}

/// Whether a pod that was told to go is still here: its share comes back first. Where its end cannot be
/// recorded it gives nothing of the disk back, and no other would.
fn is_evicting(kubelet: &Kubelet, short: Condition) -> bool {
    let now = kubelet.core.world.clock.now();
    kubelet.workers.borrow().values().any(|worker| {
        let memory = worker.shared.memory.borrow();
        let ending = memory.checkpoint.ending.as_ref();
        let evicted = ending.filter(|ending| ending.cause == EndCause::Evicted);
        let stuck = short == Condition::Disk && memory.record_retry.is_some();
        let awaited = evicted.is_some_and(|e| stuck || now.since(e.deadline()) < CLEANUP_MAX);
        awaited && !memory.released
    })
}

async fn evict_one(kubelet: &Rc<Kubelet>, shortage: &Shortage) {
    let signal = shortage.threshold.signal;
    let (text, resource) = (signal.name(), signal.resource());
    if is_evicting(kubelet, signal.condition()) || evictable(kubelet).is_empty() {
        log::debug!("{text} is below its threshold and no pod can be evicted now");
        return;
    }
    let warning = format!("Attempting to reclaim {resource}");
    kubelet
        .core
        .node_event(EventKind::Warning, "EvictionThresholdMet", warning);
    let detail = match signal.condition() {
        Condition::Disk => Detail::Trees,
        Condition::Memory | Condition::Pids => Detail::Counters,
    };
    let sample = kubelet.core.world.stats.sample(detail).await;
    // One may have gone for its own limit meanwhile.
    if is_evicting(kubelet, signal.condition()) {
        return;
    }
    // Who ended while the figures were taken is no longer here.
    let mut pods = evictable(kubelet);
    // Who does not run has nothing to give back.
    pods.retain(|(shared, _)| of_pod(&sample, shared).is_some());
    let candidates: Vec<Candidate> = pods
        .iter()
        .map(|(shared, view)| Candidate {
            priority: view.priority,
            used: of_pod(&sample, shared)
                .and_then(|pod| rank::used(signal, pod))
                .unwrap_or(0),
            requested: requested(view, resource),
        })
        .collect();
    let Some(place) = rank::order(signal, &candidates).first().copied() else {
        return;
    };
    let (shared, view) = &pods[place];
    let typed = view.typed();
    let containers = of_pod(&sample, shared)
        .into_iter()
        .flat_map(|pod| &pod.containers);
    let containers = containers.filter_map(|one| {
        let used = rank::used_by(signal, one)?;
        let spec = typed.container(view.container(&one.name)?);
        let requests = spec.resources.as_ref().and_then(|r| r.requests.as_ref());
        let request = requests.and_then(|r| r.get(resource)?.0.parse().ok());
        Some((one.name.clone(), used, request.unwrap_or(Quantity::ZERO)))
    });
    let message = rank::message(shortage, &containers.collect::<Vec<_>>());
    let grace = match shortage.threshold.kind {
        Kind::Hard => GRACE_HARD,
        Kind::Soft(_) => view.grace.min(kubelet.core.options.eviction.grace_max),
    };
    evict(shared, view, message, grace);
}

fn of_pod<'a>(sample: &'a Sample, shared: &Shared) -> Option<&'a PodStats> {
    sample.pods.iter().find(|pod| pod.uid == shared.uid)
}

fn requested(view: &PodView, resource: &str) -> u64 {
    let requests = pod_requests(&view.body()["spec"]);
    let request = requests.get(resource).map_or(0, |amount| amount.value());
    u64::try_from(request).unwrap_or(0)
}

/// Begins the end; it is told once it is on stable storage.
fn evict(shared: &Shared, view: &PodView, message: String, grace: Duration) {
    log::warn!("evicting pod {}: {message}", view.key);
    let core = &shared.core;
    core.event(view, None, EventKind::Logged, "Evicted", message.as_str());
    shared.evict(message, grace);
}

/// Pods that may exceed a limit of their own.
fn limited(kubelet: &Kubelet) -> impl Iterator<Item = (Rc<Shared>, Rc<PodView>)> {
    let pods = evictable(kubelet).into_iter();
    pods.filter(|(_, view)| view.limits_disk)
}

async fn keep_limits(kubelet: &Rc<Kubelet>) {
    let sample = kubelet.core.world.stats.sample(Detail::Trees).await;
    for (shared, view) in limited(kubelet) {
        let measured = of_pod(&sample, &shared);
        let spec = &view.body()["spec"];
        let exceeded = measured.and_then(|pod| limits::exceeded(&view.typed().pod, spec, pod));
        if let Some(message) = exceeded {
            evict(&shared, &view, message, GRACE_HARD);
        }
    }
}

/// Why a pod may not start now; `None`: go.
/// Source: Kubernetes pkg/kubelet/eviction/eviction_manager.go (Admit).
pub fn refuses(conditions: &BTreeSet<Condition>, view: &PodView) -> Option<String> {
    if conditions.is_empty() || is_critical(view) {
        return None;
    }
    let only_memory = conditions.iter().all(|one| *one == Condition::Memory);
    if only_memory && (!is_best_effort(view) || tolerates_memory(view)) {
        return None;
    }
    let names = conditions.iter().map(|condition| match condition {
        Condition::Memory => "MemoryPressure",
        Condition::Disk => "DiskPressure",
        Condition::Pids => "PIDPressure",
    });
    let names: Vec<&str> = names.collect();
    Some(format!("The node had condition: [{}]. ", names.join(" ")))
}

fn is_best_effort(view: &PodView) -> bool {
    view.qos == QosClass::BestEffort
}

fn tolerates_memory(view: &PodView) -> bool {
    const TAINT: &str = "node.kubernetes.io/memory-pressure";
    let typed = view.typed();
    let spec = typed.pod.spec.as_ref();
    let tolerations = spec.and_then(|spec| spec.tolerations.as_ref());
    tolerations.into_iter().flatten().any(|one| {
        let text = |value: &Option<String>| value.clone().unwrap_or_default();
        let effect = matches!(text(&one.effect).as_str(), "" | "NoSchedule");
        let exists = one.operator.as_deref() == Some("Exists");
        let key = text(&one.key);
        effect
            && (key == TAINT || (key.is_empty() && exists))
            && (exists || text(&one.value).is_empty())
    })
}
