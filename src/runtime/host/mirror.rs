//! What exists of every pod, in memory, so that observing costs no system call.
//!
//! Kept current from two sides: acts change it when their record is written, shims' wake-ups make
//! `watch` look again. Records on RUN come first; this never knows more than they do.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::rc::Rc;

use event_listener::Event;

use crate::runtime::sandbox::record::{
    ContainerPhase, ContainerRecord, SandboxPhase, SandboxRecord,
};
use crate::runtime::shim::client::Client;
use crate::world::{
    CgroupResources, ContainerId, ContainerObserved, ContainerState, NamespaceMode, PodObserved,
    RuntimeError, SandboxObserved, SandboxState, Uid,
};

/// A container's place in its pod: name, then attempt.
pub type Slot = (String, u32);

/// One pod.
#[derive(Default)]
pub struct Pod {
    pub sandbox: Option<SandboxRecord>,
    /// Why a sandbox that was ready is no more.
    pub dead: Option<String>,
    /// Boxed: a map makes room for eleven at once, and most pods have one.
    pub containers: BTreeMap<Slot, Box<ContainerRecord>>,
    pub client: Option<Client>,
    /// Being removed: a shim that goes now is no loss, and none is started.
    pub leaving: bool,
    /// Held by those who are on their way to its shim.
    connecting: Rc<()>,
}

/// All pods, and which of them changed since somebody asked.
#[derive(Default)]
pub struct Mirror {
    /// Boxed, as above.
    pods: RefCell<BTreeMap<Uid, Box<Pod>>>,
    changed: RefCell<BTreeSet<Uid>>,
    event: Event,
}

impl Mirror {
    pub fn observe(&self, uid: &Uid) -> PodObserved {
        let pods = self.pods.borrow();
        pods.get(uid).map(|pod| observed(pod)).unwrap_or_default()
    }

    /// Resolves with a pod that changed; one consumer.
    pub async fn next_change(&self) -> Uid {
        loop {
            let listener = self.event.listen();
            if let Some(uid) = self.changed.borrow_mut().pop_first() {
                return uid;
            }
            listener.await;
        }
    }

    /// Reads one pod. `None` if it is not known.
    pub fn read<T>(&self, uid: &Uid, look: impl FnOnce(&Pod) -> T) -> Option<T> {
        self.pods.borrow().get(uid).map(|pod| look(pod))
    }

    /// Changes a pod (made if unknown) and wakes the consumer if what is observed differs.
    pub fn change<T>(&self, uid: &Uid, change: impl FnOnce(&mut Pod) -> T) -> T {
        let mut pods = self.pods.borrow_mut();
        let pod = pods.entry(uid.clone()).or_default();
        let before = observed(pod);
        let outcome = change(pod);
        let differs = observed(pod) != before;
        drop(pods);
        if differs {
            self.wake(uid);
        }
        outcome
    }

    pub fn forget(&self, uid: &Uid) {
        if self.pods.borrow_mut().remove(uid).is_some() {
            self.wake(uid);
        }
    }

    pub fn uids(&self) -> Vec<Uid> {
        self.pods.borrow().keys().cloned().collect()
    }

    pub fn client(&self, uid: &Uid) -> Option<Client> {
        let client = self.read(uid, |pod| pod.client.clone())?;
        client.filter(|client| !client.is_lost())
    }

    /// The record of an instance. Errors: `NotFound`.
    pub fn container(&self, uid: &Uid, id: &ContainerId) -> Result<ContainerRecord, RuntimeError> {
        let found = self.read(uid, |pod| {
            pod.containers
                .values()
                .find(|record| record.id == *id)
                .cloned()
        });
        let missing = || RuntimeError::NotFound(format!("container {id} of pod {uid} is not here"));
        found.flatten().map(|record| *record).ok_or_else(missing)
    }

    /// What a removal waits for, until it is dropped. `None` if the pod is leaving or not known.
    pub fn begin_connecting(&self, uid: &Uid) -> Option<Rc<()>> {
        let held = |pod: &Pod| (!pod.leaving).then(|| pod.connecting.clone());
        self.read(uid, held).flatten()
    }

    /// Whether somebody holds what `begin_connecting` gave.
    pub fn is_connecting(&self, uid: &Uid) -> bool {
        self.read(uid, |pod| Rc::strong_count(&pod.connecting) > 1) == Some(true)
    }

    fn wake(&self, uid: &Uid) {
        self.changed.borrow_mut().insert(uid.clone());
        self.event.notify(1);
    }
}

/// Addresses a sandbox has; none for hostNetwork.
pub fn ips(record: &SandboxRecord) -> Vec<IpAddr> {
    let leased = record.lease.iter().map(|lease| IpAddr::V4(lease.address));
    leased.chain(record.addresses.iter().copied()).collect()
}

fn observed(pod: &Pod) -> PodObserved {
    let sandbox = pod.sandbox.as_ref().map(|record| SandboxObserved {
        attempt: record.config.attempt,
        state: match (&record.phase, &pod.dead) {
            (SandboxPhase::Ready { .. }, None) => SandboxState::Ready,
            (SandboxPhase::Ready { .. }, Some(why)) => SandboxState::Dead(why.clone()),
            (SandboxPhase::Making, _) => SandboxState::Dead("it is not complete".into()),
            (SandboxPhase::Stopped, _) => SandboxState::Dead("it was stopped".into()),
        },
        ips: ips(record),
        host_network: record.config.namespaces.network == NamespaceMode::Host,
        created: record.created,
        resources: Some(CgroupResources {
            pids_max: None,
            ..record.config.cgroup.resources.clone()
        }),
    });
    PodObserved {
        sandbox,
        containers: pod
            .containers
            .values()
            .map(|record| container(record))
            .collect(),
    }
}

fn container(record: &ContainerRecord) -> ContainerObserved {
    ContainerObserved {
        id: record.id.clone(),
        name: record.name.clone(),
        attempt: record.attempt,
        hash: record.hash.clone(),
        image: record.image.clone(),
        image_id: record.image_id.clone(),
        image_shown: record.image_shown.clone(),
        created: record.created,
        state: match &record.phase {
            ContainerPhase::Making => ContainerState::Created,
            ContainerPhase::Started { started } => ContainerState::Running { started: *started },
            ContainerPhase::Ended(exit) => ContainerState::Exited(exit.clone()),
        },
        user: record.user.clone(),
        resources: record.resources.clone(),
    }
}
