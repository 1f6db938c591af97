//! The tasks that turn changes anywhere into wake-ups of the right workers.

use std::rc::Rc;

use async_executor::Task;

use super::Kubelet;
use super::memory::{ImageState, Volumes};
use crate::object::{Key, Kind, Object};
use crate::registry::{ChangeType, Packed, PackedChange};
use crate::world::Uid;

/// From the list of pods of `version` on.
pub fn all(kubelet: &Rc<Kubelet>, version: u64) -> Vec<Task<()>> {
    let core = &kubelet.core;
    vec![
        core.spawn(pods(kubelet.clone(), version)),
        core.spawn(references(kubelet.clone(), Kind::ConfigMap)),
        core.spawn(references(kubelet.clone(), Kind::Secret)),
        core.spawn(references(kubelet.clone(), Kind::ServiceAccount)),
        core.spawn(runtime(kubelet.clone())),
        core.spawn(images(kubelet.clone())),
        core.spawn(departures(kubelet.clone())),
    ]
}

/// Desired pods. A cursor that fell off the history starts again from a list.
async fn pods(kubelet: Rc<Kubelet>, mut version: u64) {
    loop {
        if let Ok(mut cursor) = kubelet.core.reader.watch(Kind::Pod, version) {
            while let Ok(changes) = cursor.next_packed().await {
                for change in changes {
                    pod_changed(&kubelet, &change);
                }
            }
        }
        version = look(&kubelet);
    }
}

/// Takes the whole list of pods; its version.
pub fn look(kubelet: &Rc<Kubelet>) -> u64 {
    let (list, version) = kubelet.core.reader.list_packed(Kind::Pod, None);
    let known: Vec<Uid> = kubelet.workers.borrow().keys().cloned().collect();
    for uid in known {
        if !list.iter().any(|object| object.uid() == uid.as_str()) {
            kubelet.drop_pod(&uid, None);
        }
    }
    for object in list {
        kubelet.take(&object);
    }
    version
}

fn pod_changed(kubelet: &Rc<Kubelet>, change: &PackedChange) {
    let object = &change.object;
    match change.change {
        ChangeType::Added => kubelet.take(object),
        ChangeType::Modified => {
            let same = change
                .previous
                .as_ref()
                .is_some_and(|before| is_same(before, object));
            if !same {
                kubelet.take(object);
            }
        }
        ChangeType::Deleted => {
            if let Some(uid) = Uid::new(object.uid()) {
                kubelet.drop_pod(&uid, Some(object.key()));
            }
        }
    }
}

/// Whether nothing changed but the status: our own writes must not wake us.
fn is_same(before: &Packed, after: &Packed) -> bool {
    if before.shares_all_but_status(after) {
        return true;
    }
    let (before, after) = (before.unpack(), after.unpack());
    let meta = |object: &Object, field: &str| object.metadata()[field].clone();
    let fields = [
        "uid",
        "deletionTimestamp",
        "deletionGracePeriodSeconds",
        "annotations",
        "labels",
    ];
    before.standing == after.standing
        && before.body["spec"] == after.body["spec"]
        && fields
            .iter()
            .all(|field| meta(&before, field) == meta(&after, field))
}

/// configMaps, secrets and accounts: pods that wait for them try at once, pods that mount them (or
/// tokens of them) refresh.
async fn references(kubelet: Rc<Kubelet>, kind: Kind) {
    loop {
        let version = kubelet.core.reader.version();
        let Ok(mut cursor) = kubelet.core.reader.watch(kind, version) else {
            continue;
        };
        while let Ok(changes) = cursor.next_packed().await {
            for change in changes {
                reference_changed(&kubelet, change.object.key());
            }
        }
        // Changes were missed: whatever shows such objects looks again.
        for worker in kubelet.workers.borrow().values() {
            let mut memory = worker.shared.memory.borrow_mut();
            memory.volumes_stale = true;
            memory.refresh_retry = None;
            drop(memory);
            worker.shared.wake();
        }
    }
}

fn reference_changed(kubelet: &Kubelet, key: &Key) {
    let kind = key.kind;
    let now = kubelet.core.world.clock.now();
    for worker in kubelet.workers.borrow().values() {
        let view = worker.shared.view.borrow().clone();
        if view.key.namespace != key.namespace || view.key.origin != key.origin {
            continue;
        }
        let mut memory = worker.shared.memory.borrow_mut();
        let pulls = kind == Kind::Secret && view.pull_secrets.contains(&key.name);
        for known in memory.containers.values_mut() {
            if let Some(trouble) = &mut known.trouble
                && trouble.reason == "CreateContainerConfigError"
            {
                trouble.retry_at = now;
            }
            if pulls && let ImageState::Failed(trouble) = &mut known.image {
                trouble.retry_at = now;
            }
        }
        if view.mounts(kind, &key.name) {
            memory.refresh_retry = None;
        }
        if let Volumes::Failed(trouble, _) = &mut memory.volumes {
            trouble.retry_at = now;
        }
        memory.volumes_stale |= view.mounts(kind, &key.name);
        drop(memory);
        worker.shared.wake();
    }
}

async fn runtime(kubelet: Rc<Kubelet>) {
    loop {
        let uid = kubelet.core.world.runtime.next_change().await;
        if let Some(worker) = kubelet.workers.borrow().get(&uid) {
            worker.shared.wake();
        }
    }
}

/// An image that arrived ends the pull back-off of the containers that wait for it.
async fn images(kubelet: Rc<Kubelet>) {
    let mut seen = kubelet.core.world.images.generation();
    loop {
        seen = kubelet.core.world.images.changed(seen).await;
        for worker in kubelet.workers.borrow().values() {
            let view = worker.shared.view.borrow().clone();
            let mut arrived = false;
            let mut memory = worker.shared.memory.borrow_mut();
            for container in &view.containers {
                let known = memory.container_mut(&container.name);
                let waits = matches!(known.image, ImageState::Failed(_));
                if waits && kubelet.core.world.images.find(&container.image).is_some() {
                    known.image = ImageState::Unknown;
                    known.image_back_off = Default::default();
                    arrived = true;
                }
            }
            drop(memory);
            if arrived {
                worker.shared.wake();
            }
        }
    }
}

async fn departures(kubelet: Rc<Kubelet>) {
    loop {
        let listener = kubelet.core.departures.listen();
        kubelet.reap();
        listener.await;
    }
}
