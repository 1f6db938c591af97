//! The node loop: brings the pods of the registry to life and says how they are.
//!
//! ```text
//!  registry ──pods──► Kubelet ──view──► worker (one per UID) ──► plan ──► steps ──► world
//!     ▲                                    │  ▲                                       │
//!     └──────────── status ◄───────────────┘  └───────── observe, wake ◄──────────────┘
//! ```
//! The kubelet keeps one worker for each UID, tells it when something may have changed, and finds
//! what runs without being wanted. It never starts or stops anything itself, never reads a status
//! back, and never deletes because a source is silent: absence counts only in a complete list.

pub mod backoff;
mod check;
mod cluster_tokens;
pub mod container_config;
pub mod core;
pub mod dns;
mod entrance;
pub mod env;
pub mod expand;
pub mod facts;
mod fit;
mod follow;
mod hold;
pub mod image_gc;
mod images;
mod leftovers;
pub mod memory;
pub mod node_status;
mod orphans;
mod outcome;
pub mod plan;
mod preempt;
pub mod pressure;
pub mod probe;
mod prober;
pub mod records;
pub mod resize;
pub mod resources;
pub mod sandbox_config;
pub mod security;
pub mod status;
mod steps;
pub mod tokens;
mod turnstile;
pub mod view;
pub mod volumes;

#[cfg(test)]
mod tests;
mod worker;

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::rc::Rc;
use std::time::Duration;

use async_executor::{LocalExecutor, Task};
use futures_lite::future::zip;

pub use self::core::Options;
use self::core::{Core, EventKind};
use self::facts::{NodeFacts, Site};
use self::memory::{Checkpoint, EndCause, Final, Memory};
use self::pressure::rank::PRIORITY_CRITICAL;
use self::view::PodView;
use self::worker::{Shared, work};
use crate::object::{Key, Object, Origin, Standing};
use crate::registry::{Packed, Registry};
use crate::world::{BootTime, PodNetwork, Uid, World};

/// Critical pods wait so long for the others when all of them stop: systemd's patience is 90 s.
const ORDINARY_MAX: Duration = Duration::from_secs(60);

/// The running node loop. `abandon` cancels every task; containers go on.
pub struct Kubelet {
    core: Rc<Core>,
    workers: RefCell<BTreeMap<Uid, Worker>>,
    followers: RefCell<Vec<Task<()>>>,
    /// Who runs under a name that the store gives to another, before its source has said whose it is.
    contested: RefCell<Vec<(Key, Uid)>>,
    /// The registry's version before anything was followed.
    began_at: u64,
}

struct Worker {
    shared: Rc<Shared>,
    /// Cancels the worker and its steps when dropped.
    _task: Task<()>,
}

impl Kubelet {
    /// Adopts what runs and starts following the registry. Returns once the runtime has been
    /// asked what it knows; pods come up by themselves.
    pub async fn start(
        world: World,
        registry: Registry,
        options: Options,
        executor: Rc<LocalExecutor<'static>>,
    ) -> Rc<Kubelet> {
        let began_at = registry.reader().version();
        let core = Core::new(world, registry, options, executor);
        let recovered = core.world.runtime.recover().await.unwrap_or_else(|error| {
            log::error!("recover running pods: {error}; going on with what the registry has");
            Vec::new()
        });
        let kubelet = Rc::new(Kubelet {
            core: core.clone(),
            workers: RefCell::default(),
            followers: RefCell::default(),
            contested: RefCell::default(),
            began_at,
        });
        let known = core.pressure_known.listen();
        let pressure = core.spawn(pressure::run(kubelet.clone()));
        known.await;
        orphans::end_replaced(&kubelet, &recovered).await;
        // At once: no source can give a name to another in between.
        let version = follow::look(&kubelet);
        let mut tasks = follow::all(&kubelet, version);
        tasks.push(pressure);
        tasks.push(core.spawn(orphans::end_all(kubelet.clone(), recovered)));
        tasks.push(core.spawn(node_status::publish(core.clone())));
        tasks.push(core.spawn(leftovers::sweep(core.clone())));
        tasks.push(core.spawn(image_gc::run(kubelet.clone())));
        tasks.push(core.spawn(cluster_tokens::replace_stand_ins(kubelet.clone())));
        *kubelet.followers.borrow_mut() = tasks;
        kubelet
    }

    /// Cancels every task and forgets every worker; containers go on. Tasks and node loop hold each
    /// other, so without this call nothing of them is ever freed.
    pub fn abandon(&self) {
        // First those who would make new workers.
        self.followers.borrow_mut().clear();
        self.workers.borrow_mut().clear();
    }

    /// The machine has other addresses: the Node and the pods on its network say so.
    pub fn set_host_ips(&self, host_ips: Vec<IpAddr>) {
        let before = self.core.node();
        let facts = NodeFacts {
            host_ips,
            ..NodeFacts::clone(&before)
        };
        let (old, new) = (before.host_ips.clone(), facts.host_ips.clone());
        if self.core.set_node(facts) {
            log::info!("the node's address is {new:?} now, no longer {old:?}");
            for worker in self.workers.borrow().values() {
                worker.shared.wake();
            }
        }
    }

    /// What the place of the machine is called, by whoever provides it.
    pub fn set_site(&self, site: Site) {
        let facts = NodeFacts {
            site,
            ..NodeFacts::clone(&self.core.node())
        };
        self.core.set_node(facts);
    }

    /// What new pods can have of the pod network is another now: the Node says so, and who waited for
    /// it starts.
    pub fn set_pod_network(&self, pod_network: PodNetwork) {
        let facts = NodeFacts {
            pod_network,
            ..NodeFacts::clone(&self.core.node())
        };
        if self.core.set_node(facts) {
            // Who could not have a network may have one now.
            for worker in self.workers.borrow().values() {
                worker.shared.memory.borrow_mut().sandbox_trouble = None;
                worker.shared.wake();
            }
            self.hold_back();
        }
    }

    /// Stops the pods of every source and removes what they have in the kernel; what has ended for
    /// good stays recorded. Critical ones go last, since others may need them (DNS, VPN) to end well.
    /// Returns when the last one is gone, or at the limit.
    pub async fn stop_all(&self, limit: Duration) {
        self.core.stopping.set(true);
        let text = "Shutdown manager detected shutdown event";
        self.core.node_event(EventKind::Normal, "Shutdown", text);
        self.core.troubles.notify(usize::MAX);
        let begun = self.core.world.clock.now();
        let ordinary = |view: &PodView| view.priority < PRIORITY_CRITICAL;
        self.stop_those(&ordinary, begun + limit.min(ORDINARY_MAX))
            .await;
        let left = self.stop_those(&|_| true, begun + limit).await;
        if left > 0 {
            log::warn!("{left} pods did not stop within {} s", limit.as_secs());
        }
    }

    /// How many of them are left at that time.
    async fn stop_those(&self, those: &dyn Fn(&PodView) -> bool, until: BootTime) -> usize {
        for worker in self.workers.borrow().values() {
            let view = worker.shared.view.borrow().clone();
            if those(&view) {
                worker.shared.end(EndCause::Shutdown, view.grace);
            }
        }
        let clock = &self.core.world.clock;
        loop {
            let listener = self.core.departures.listen();
            let left = self.left(those);
            if left == 0 || clock.now() >= until {
                return left;
            }
            futures_lite::future::or(listener, clock.sleep_until(until)).await;
        }
    }

    /// Workers of such pods that have not ended.
    fn left(&self, those: &dyn Fn(&PodView) -> bool) -> usize {
        let workers = self.workers.borrow();
        let shared = workers.values().map(|worker| &worker.shared);
        let left = shared.filter(|shared| !shared.gone.get() && those(&shared.view.borrow()));
        left.count()
    }

    /// Takes a pod of the registry as it is now: a new worker, a new view, or an end.
    fn take(self: &Rc<Self>, packed: &Packed) {
        let object = &packed.unpack();
        match &object.standing {
            Standing::Rejected(_) => return,
            Standing::Accepted | Standing::Stale(_) => {}
        }
        if object.is_mirror() {
            return;
        }
        if !self.is_ours(object) {
            return orphans::of_another_name(self, object);
        }
        let view = match PodView::registered(packed, object) {
            Ok(view) => view,
            Err(error) => {
                log::error!("{}: {error}; the pod is not started", object.key);
                return;
            }
        };
        let uid = view.uid.clone();
        let known = self.workers.borrow().get(&uid).map(|w| w.shared.clone());
        // It has stopped and a finalizer keeps it: how it ended stands as it was told.
        let grace = view.deletion_grace;
        let stopped = view.key.origin == Origin::Local && grace == Some(Duration::ZERO);
        if stopped && known.is_none() && !self.has_left(&uid) {
            return;
        }
        let view = match known.filter(|shared| shared.recalled.get()) {
            Some(shared) => {
                let before = shared.view.borrow().clone();
                self.allocated(&shared, &before, object, view)
            }
            None => view,
        };
        self.run(view);
        if object.resource_version > self.began_at
            && let Some(worker) = self.workers.borrow().get(&uid)
            && !worker.shared.recalled.get()
        {
            worker.shared.fresh.set(true);
        }
    }

    /// Whether it is bound to this node, by the name that this has now.
    fn is_ours(&self, object: &Object) -> bool {
        object.body["spec"]["nodeName"] == *self.core.node().node_name
    }

    /// Whether anything of the pod is with the runtime.
    fn has_left(&self, uid: &Uid) -> bool {
        let observed = self.core.world.runtime.observe(uid);
        observed.sandbox.is_some() || !observed.containers.is_empty()
    }

    /// Gives the view to its worker, made if there is none.
    fn run(self: &Rc<Self>, view: Rc<PodView>) {
        let known = {
            let workers = self.workers.borrow();
            workers.get(&view.uid).map(|worker| worker.shared.clone())
        };
        match known {
            Some(shared) if shared.view.borrow().is_another_than(&view) => {
                let other = shared.view.borrow().key.clone();
                return log::error!("{} has the uid of {other}; it is not run", view.key);
            }
            Some(shared) => {
                let before = shared.view.replace(view.clone());
                shared.memory.borrow_mut().revise(&before, &view);
                self.apply(&shared, &view);
            }
            None if self.core.stopping.get() => return,
            None => {
                let shared = Shared::new(self.core.clone(), view.clone(), Memory::default());
                let task = self.core.spawn(live(self.clone(), shared.clone()));
                let worker = Worker {
                    shared: shared.clone(),
                    _task: task,
                };
                self.workers.borrow_mut().insert(view.uid.clone(), worker);
            }
        }
        self.hold_back();
    }

    fn apply(&self, shared: &Rc<Shared>, view: &PodView) {
        match view.deletion_grace {
            Some(grace) => shared.end(EndCause::Deleted, grace),
            None => shared.end_as_there(view),
        }
    }

    /// The pod is not in the registry any more, though nobody asked it to end: another took its
    /// name, or its record went away. It ends with the grace of its spec.
    fn drop_pod(&self, uid: &Uid, key: Option<&Key>) {
        let workers = self.workers.borrow();
        if let Some(worker) = workers.get(uid)
            && key.is_none_or(|key| worker.shared.view.borrow().key == *key)
        {
            let grace = worker.shared.view.borrow().grace;
            worker.shared.end(EndCause::Deleted, grace);
        }
    }

    /// Forgets workers that have ended and lets successors start.
    fn reap(self: &Rc<Self>) {
        let mut ended = Vec::new();
        self.workers.borrow_mut().retain(|_, worker| {
            let gone = worker.shared.gone.get();
            if gone {
                ended.push(worker.shared.view.borrow().clone());
            }
            !gone
        });
        self.hold_back();
        self.retry_resizes();
        // A manifest that was taken away and put back has the same UID: its pod may have come back
        // before its worker was gone, and nobody says so twice.
        for view in ended {
            let back = self.core.reader.get_packed(&view.key);
            let back = back.filter(|object| object.uid() == view.uid.as_str());
            if let Some(object) = back.filter(|object| !object.is_deleting()) {
                self.take(&object);
            }
        }
    }
}

/// A worker's whole life: records in, work until nothing is left.
async fn live(kubelet: Rc<Kubelet>, shared: Rc<Shared>) {
    let core = &shared.core;
    let uid = shared.uid.clone();
    let view = shared.view.borrow().clone();
    // At the same time: each goes to the disk's threads and back.
    let records = remembered(core, &view);
    let ((checkpoint, finals), bases) = zip(records, attempt_bases(core, &view)).await;
    {
        let mut memory = shared.memory.borrow_mut();
        // An end that was asked for while the records were read counts.
        let asked = memory.checkpoint.ending.take();
        memory.checkpoint = checkpoint;
        forget_shutdown(&mut memory);
        settle_hooks(&mut memory, &uid);
        memory.checkpoint.ending = asked.or(memory.checkpoint.ending.take());
        memory.finals = finals;
        for (name, base) in bases {
            // Its logs may be gone, on a tmpfs.
            let begun = u32::from(memory.checkpoint.begun.contains(&name));
            memory.container_mut(&name).attempt_base = base.max(begun);
        }
    }
    kubelet.recall_resources(&shared).await;
    shared.recalled.set(true);
    let view = shared.view.borrow().clone();
    hold::warn(core, &view);
    kubelet.apply(&shared, &view);
    kubelet.hold_back();
    work(shared).await;
}

/// What is on record of the pod; nothing, if that is of a deleted pod of the same UID.
async fn remembered(core: &Core, view: &PodView) -> (Checkpoint, Final) {
    let uid = &view.uid;
    if !core.leftovers.contains(uid) {
        if !core.records.is_forgotten(uid).await {
            // At the same time: each goes to the disk's threads and back.
            return zip(
                core.records.checkpoint(uid, core.world.stamp()),
                core.records.finals(uid),
            )
            .await;
        }
        let why = "an earlier agent could not remove them";
        core.leftovers.note(uid, &view.key, why);
    }
    (Checkpoint::default(), Final::default())
}

/// The first attempt number of containers that have no instance, by what logs there are.
async fn attempt_bases(core: &Core, view: &PodView) -> Vec<(String, u32)> {
    let observed = core.world.runtime.observe(&view.uid);
    let mut bases = Vec::new();
    for container in &view.containers {
        if plan::latest(&observed, &container.name).is_none() {
            let (namespace, name) = (&view.key.namespace, &view.key.name);
            let runtime = &core.world.runtime;
            let base = runtime.next_attempt(&view.uid, namespace, name, &container.name);
            bases.push((container.name.clone(), base.await));
        }
    }
    bases
}

/// A postStart that was under way when an agent died is not run twice, and its result is nobody's
/// to know any more: the container counts as started, as upstream counts it.
fn settle_hooks(memory: &mut Memory, uid: &Uid) {
    for (name, health) in &mut memory.checkpoint.health {
        if health.hook_begun && !health.hook_done && health.condemned.is_none() {
            log::warn!("pod {uid}: the result of postStart of {name} was lost; going on");
            health.hook_done = true;
        }
    }
}

/// An agent that left with its pods is back: the leaving is over.
fn forget_shutdown(memory: &mut Memory) {
    let Some(ending) = &mut memory.checkpoint.ending else {
        return;
    };
    match (ending.cause, ending.overdue) {
        (EndCause::Shutdown, true) if ending.eviction.is_some() => ending.cause = EndCause::Evicted,
        (EndCause::Shutdown, true) => ending.cause = EndCause::DeadlineExceeded,
        (EndCause::Shutdown, false) => memory.checkpoint.ending = None,
        (
            EndCause::Deleted | EndCause::DeadlineExceeded | EndCause::Evicted | EndCause::Rejected,
            _,
        ) => {}
    }
}
