//! One pod's worker: asks `plan`, begins its steps, publishes the status, waits.
//!
//! ```text
//!        ┌────────────── wake (registry, runtime, images, step done, deadline) ◄─────┐
//!        ▼                                                                           │
//!   absorb outcomes ─► observe ─► plan ─► begin steps ─► checkpoint ─► publish ─► wait
//! ```
//! Wake-ups carry no data: whatever happened, the same question is asked of fresh facts. Steps run
//! as tasks beside the worker and leave their outcome in a list; nothing here blocks on them.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

use async_executor::Task;
use event_listener::Event;

use super::core::{Core, EventKind};
use super::fit::Refusal;
use super::memory::{Condemned, EndCause, Ending, Health, Memory, Target};
use super::outcome::{Outcome, absorb};
use super::plan::{Plan, Situation, Step, Waiting, plan};
use super::preempt;
use super::prober::Probers;
use super::records;
use super::resize::{self, Change, change};
use super::status::{Facts, status};
use super::steps;
use super::view::{ContainerView, PodView, ProbeKind, Role};
use crate::object::Problem;
use crate::object::gather::Gather;
use crate::world::{Area, BootTime, ContainerState, PodObserved, Uid};

/// What a worker and its tasks share.
pub struct Shared {
    pub core: Rc<Core>,
    pub uid: Uid,
    pub view: RefCell<Rc<PodView>>,
    pub memory: RefCell<Memory>,
    /// Why the pod may not start; set by the kubelet, read by `plan`.
    pub held: RefCell<Option<Waiting>>,
    /// One of the `--max-pods`.
    pub admitted: Cell<bool>,
    /// The node was not short of anything when it asked: what comes later does not hold it back.
    pub let_in: Cell<bool>,
    /// It was made after this agent began: nothing of it can have run before.
    pub fresh: Cell<bool>,
    /// What is on record of it is known.
    pub recalled: Cell<bool>,
    pub(super) outcomes: RefCell<Vec<(Target, Outcome)>>,
    /// Fires at every wake: tasks that wait for an exit listen too.
    pub pulse: Event,
    woken: Cell<bool>,
    /// The worker has ended; its pod left nothing behind.
    pub gone: Cell<bool>,
}

impl Shared {
    pub fn new(core: Rc<Core>, view: Rc<PodView>, memory: Memory) -> Rc<Shared> {
        Rc::new(Shared {
            core,
            uid: view.uid.clone(),
            view: RefCell::new(view),
            memory: RefCell::new(memory),
            held: RefCell::new(None),
            admitted: Cell::new(false),
            let_in: Cell::new(false),
            fresh: Cell::new(false),
            recalled: Cell::new(false),
            outcomes: RefCell::new(Vec::new()),
            pulse: Event::new(),
            woken: Cell::new(true),
            gone: Cell::new(false),
        })
    }

    pub fn wake(&self) {
        self.woken.set(true);
        self.pulse.notify(usize::MAX);
    }

    /// Ends the pod, or shortens the grace of an ending under way: patience never grows.
    pub fn end(&self, cause: EndCause, grace: Duration) {
        let now = self.core.world.clock.now();
        let ending = &mut self.memory.borrow_mut().checkpoint.ending;
        match ending {
            Some(known) => {
                let left = (known.since + known.grace).since(now);
                if grace < left {
                    known.grace = now.since(known.since) + grace;
                }
                // A pod that failed and is deleted as well is deleted.
                if known.is_failure() {
                    known.overdue = cause == EndCause::Shutdown;
                    known.cause = cause;
                }
            }
            None => {
                *ending = Some(Ending {
                    cause,
                    since: now,
                    grace,
                    overdue: false,
                    eviction: None,
                    reason: None,
                });
            }
        }
        self.wake();
    }

    /// Evicts the pod, unless it is ending already.
    pub fn evict(&self, why: String, grace: Duration) {
        self.end_by_node(EndCause::Evicted, None, why, grace);
    }

    /// Ends the pod for one that has to be here.
    pub fn preempt(&self, grace: Duration) {
        let (reason, why) = (preempt::REASON.to_owned(), preempt::MESSAGE.to_owned());
        self.end_by_node(EndCause::Evicted, Some(reason), why, grace);
    }

    /// Turns the pod away for good: nothing of it has run.
    pub fn reject(&self, refusal: Refusal) {
        let reason = Some(refusal.reason);
        self.end_by_node(EndCause::Rejected, reason, refusal.message, Duration::ZERO);
    }

    /// Ends the pod if its cluster counts it as ended, unless it has ended or is ending already.
    /// Source: Kubernetes pkg/kubelet/pod_workers.go (UpdatePod).
    pub fn end_as_there(&self, view: &PodView) {
        let over = self.memory.borrow().finals.phase.is_some();
        match view.ended_there.as_ref().filter(|_| !over) {
            Some(phase) => {
                let why = format!("the cluster counts it as {phase}");
                let reason = Some("EndedInCluster".to_owned());
                self.end_by_node(EndCause::Rejected, reason, why, view.grace);
            }
            None => self.wake(),
        }
    }

    fn end_by_node(&self, cause: EndCause, reason: Option<String>, why: String, grace: Duration) {
        let ending = &mut self.memory.borrow_mut().checkpoint.ending;
        if ending.is_none() {
            *ending = Some(Ending {
                cause,
                since: self.core.world.clock.now(),
                grace,
                overdue: false,
                eviction: Some(why),
                reason,
            });
        }
        self.wake();
    }

    /// Where the pod's containers can be reached, for probes and hooks.
    pub fn address(&self, view: &PodView) -> String {
        let observed = self.core.world.runtime.observe(&self.uid);
        let own = observed.sandbox.and_then(|s| s.ips.first().copied());
        let node = self.core.node().host_ips.first().copied();
        let address = if view.host_network { node } else { own };
        address.map_or_else(|| "127.0.0.1".to_owned(), |ip| ip.to_string())
    }
}

/// Runs until nothing of the pod is left. The caller has loaded memory from the records.
pub async fn work(shared: Rc<Shared>) {
    let saved = digest(&records::encode(&shared.memory.borrow().checkpoint));
    let mut worker = Worker {
        probers: Probers::default(),
        tasks: BTreeMap::new(),
        published: None,
        saved,
        tearing_down: false,
        told: Told::default(),
        shared,
    };
    let figures = worker.shared.core.options.figures.clone();
    while worker.turn().await == Turn::Continue {
        figures.note_turn();
    }
    figures.forget(&worker.shared.uid);
    worker.shared.gone.set(true);
    worker.shared.core.departures.notify(usize::MAX);
}

/// SHA-256.
type Digest = [u8; 32];

fn digest(text: &[u8]) -> Digest {
    let digest = ring::digest::digest(&ring::digest::SHA256, text);
    digest.as_ref().try_into().expect("SHA-256 has 32 bytes")
}

struct Worker {
    shared: Rc<Shared>,
    probers: Probers,
    /// Steps under way. Dropping one cancels it.
    tasks: BTreeMap<Target, Task<()>>,
    /// Of the last status and the last checkpoint: kept as long as the pod is, so only what tells
    /// them from others.
    published: Option<Digest>,
    saved: Digest,
    tearing_down: bool,
    /// What events have said last.
    told: Told,
}

/// States that last, each told once when it begins.
#[derive(Default)]
struct Told {
    stale: Option<Problem>,
    /// Containers in back-off, by name.
    back_off: BTreeMap<String, Waiting>,
}

#[derive(PartialEq, Eq)]
enum Turn {
    Continue,
    Done,
}

impl Worker {
    async fn turn(&mut self) -> Turn {
        let listener = self.shared.pulse.listen();
        self.shared.woken.set(false);
        let Some(wake_at) = self.decide() else {
            return Turn::Done;
        };
        self.save().await;
        if !self.shared.woken.get() {
            match wake_at {
                Some(at) => {
                    let clock = &self.shared.core.world.clock;
                    futures_lite::future::or(listener, clock.sleep_until(at)).await;
                }
                None => listener.await,
            }
        }
        Turn::Continue
    }

    /// All that takes no time, so that nothing of it is kept while the worker waits. Returns when
    /// to decide anew at the latest; `None`: the pod is gone.
    fn decide(&mut self) -> Option<Option<BootTime>> {
        let shared = self.shared.clone();
        let view = shared.view.borrow().clone();

        let outcomes = std::mem::take(&mut *shared.outcomes.borrow_mut());
        for (target, outcome) in outcomes {
            self.tasks.remove(&target);
            absorb(&shared, &view, &target, outcome);
        }
        let observed = shared.core.world.runtime.observe(&shared.uid);
        self.note_instances(&view, &observed);
        resize::follow(&shared, &view, &observed);
        let next = {
            let memory = shared.memory.borrow();
            let held = shared.held.borrow();
            plan(&Situation {
                view: &view,
                observed: &observed,
                memory: &memory,
                now: shared.core.world.clock.now(),
                wall: shared.core.world.clock.wall(),
                held: held.as_ref(),
            })
        };
        if next.done {
            return None;
        }
        for step in &next.steps {
            self.begin(&view, step);
        }
        self.probers.fit(&shared, &view, &observed);
        self.tell(&view, &next);
        self.publish(&view, &observed, &next);
        if self.tasks.is_empty() {
            view.rest();
        }
        Some(next.wake_at)
    }

    /// Keeps one health record for the running instance of each container.
    fn note_instances(&mut self, view: &PodView, observed: &PodObserved) {
        let shared = &self.shared;
        let mut memory = shared.memory.borrow_mut();
        if memory.checkpoint.start.is_none() {
            memory.checkpoint.start = Some(shared.core.world.stamp());
        }
        for instance in &observed.containers {
            if !matches!(instance.state, ContainerState::Running { .. }) {
                continue;
            }
            let Some(container) = view.container(&instance.name) else {
                continue;
            };
            if memory.health(&instance.name, &instance.id).is_some() {
                mark_replaced(&mut memory, view, instance, container);
                continue;
            }
            let hook = container.lifecycle.as_ref();
            let hook = hook.is_some_and(|l| l.post_start.is_some());
            let probe = |kind| container.probe(kind).is_some();
            let health = Health {
                id: instance.id.clone(),
                hook_begun: !hook,
                hook_done: !hook,
                pre_stop_begun: false,
                started: !probe(ProbeKind::Startup),
                ready: !probe(ProbeKind::Readiness),
                condemned: None,
            };
            memory
                .checkpoint
                .health
                .insert(instance.name.clone(), health);
        }
    }

    fn begin(&mut self, view: &Rc<PodView>, step: &Step) {
        let shared = &self.shared;
        let target = step.target();
        log::debug!("pod {}: {step:?}", shared.uid);
        if let Step::End { cause } = step {
            self.end_by_itself(view, *cause);
            return;
        }
        shared.memory.borrow_mut().busy.insert(target.clone());
        let task = steps::run(shared.clone(), view.clone(), step.clone());
        let (shared, key) = (self.shared.clone(), target.clone());
        let task = self.shared.core.spawn(async move {
            let outcome = task.await;
            shared.outcomes.borrow_mut().push((key, outcome));
            shared.wake();
        });
        self.tasks.insert(target, task);
    }

    fn end_by_itself(&self, view: &PodView, cause: EndCause) {
        let text = "Pod was active on the node longer than the specified deadline";
        let reason = "DeadlineExceeded";
        self.shared
            .core
            .event(view, None, EventKind::Normal, reason, text);
        self.shared.end(cause, view.grace);
    }

    /// Events of states that begin: a back-off, a manifest that is no longer usable.
    fn tell(&mut self, view: &PodView, next: &Plan) {
        let core = &self.shared.core;
        let told = &mut self.told;
        if told.stale != view.stale {
            if let Some(problem) = &view.stale {
                let text = format!("running the last good version; {problem}");
                core.event(view, None, EventKind::Logged, "InvalidManifest", text);
            }
            told.stale = view.stale.clone();
        }
        let waiting = next.waiting.iter();
        let backing_off = waiting.filter(|(_, waiting)| waiting.reason == "CrashLoopBackOff");
        let now: BTreeMap<_, _> = backing_off.map(|(n, w)| (n.clone(), w.clone())).gathered();
        for name in now
            .keys()
            .filter(|name| now.get(*name) != told.back_off.get(*name))
        {
            let container = view.container(name);
            let text = format!(
                "Back-off restarting failed container {name} in pod {}_{}({})",
                view.key.name, view.key.namespace, view.uid
            );
            core.event(view, container, EventKind::Warning, "BackOff", text);
        }
        told.back_off = now;
    }

    /// Publishes the status if it differs from what was published last. While an end is being made
    /// durable nothing is said: what is reported must survive.
    fn publish(&mut self, view: &PodView, observed: &PodObserved, next: &Plan) {
        let shared = &self.shared;
        let mut memory = shared.memory.borrow_mut();
        if memory.is_busy(&Target::Record) || memory.record_retry.is_some() {
            return;
        }
        // What is being removed has ended, and that was said when the removal began.
        let core = &shared.core;
        if self.tearing_down || next.untold && core.stopping.get() {
            return;
        }
        let mut steps = next.steps.iter();
        self.tearing_down = steps.any(|step| matches!(step, Step::TearDown { .. }));
        let goes = self.tearing_down && view.deletion_grace.is_some() && !view.is_static;
        let now = core.world.clock.wall();
        // By a clock that was ahead; one that is behind knows no better.
        if core.world.clock.credible().as_second() <= now.as_second() + 1 {
            let known = memory.checkpoint.transitions.values_mut();
            known.for_each(|(_, since)| *since = now.min(*since));
        }
        let status = status(&Facts {
            view,
            observed,
            memory: &memory,
            waiting: &next.waiting,
            qos: view.qos,
            node: &core.node(),
            now,
            over: goes && self.published.is_some(),
        });
        // Nothing was told by this agent, and how it ended is not to be seen: the agent before it may have
        // crashed between the removal of the pod and that of its object, and what that one said must not
        // be unsaid.
        if goes && !status.phase.is_final() {
            return;
        }
        memory.checkpoint.transitions = status.transitions;
        let digest = digest(status.value.to_string().as_bytes());
        if self.published != Some(digest) {
            let uid = shared.uid.as_str();
            core.registry.update_status(&view.key, uid, status.value);
            self.published = Some(digest);
        }
    }

    /// Writes the checkpoint if it changed; a failure costs only what an agent crash would lose. Not
    /// beside a teardown, which removes it: the pod's directory would be made again.
    async fn save(&mut self) {
        let (text, leaves) = {
            let memory = self.shared.memory.borrow();
            let leaves = memory.is_busy(&Target::TearDown);
            (records::encode(&memory.checkpoint), leaves)
        };
        let now = digest(&text);
        if now == self.saved || leaves {
            return;
        }
        let (core, uid) = (&self.shared.core, &self.shared.uid);
        let kept = core.records.keep_checkpoint(uid, text).await;
        core.note_disk(Area::Run, &kept);
        match kept {
            Ok(()) => self.saved = now,
            Err(error) => log::debug!("pod {uid}: {error}"),
        }
    }
}

/// An instance of an older definition is condemned by it, so that its end is known to be ours.
fn mark_replaced(
    memory: &mut Memory,
    view: &PodView,
    instance: &crate::world::ContainerObserved,
    container: &ContainerView,
) {
    let why = match change(container, instance) {
        _ if instance.hash != container.hash && container.role != Role::Init => {
            "definition changed, will be restarted"
        }
        Change::Restart => "resize requires restart",
        Change::None | Change::InPlace => return,
    };
    if let Some(health) = memory.checkpoint.health.get_mut(&instance.name) {
        health.condemned.get_or_insert_with(|| Condemned {
            message: format!("Container {} {why}", instance.name),
            grace: view.grace,
        });
    }
}
