//! Pods that run, or left records, without being wanted.
//!
//! They are known by their records only, and nothing is called an orphan before every configured
//! source has handed over a complete list: a lost store or a silent source ends nobody. Only who runs
//! under a name that a source has given to another meanwhile ends at once; if only the store says so,
//! the other waits until the source has spoken.

use std::rc::Rc;
use std::time::Duration;

use serde_json::json;

use super::Kubelet;
use super::memory::EndCause;
use super::view::PodView;
use crate::object::{Key, Kind, Object, Source, Standing};
use crate::world::Uid;

/// How often the sources are asked whether they have listed; doubles up to the maximum.
const PATIENCE_MIN: Duration = Duration::from_millis(100);
const PATIENCE_MAX: Duration = Duration::from_secs(20);
/// A source that is silent for so long is named.
const SILENCE_MAX: Duration = Duration::from_secs(10);

/// Ends pods that run here though another has their name by now: a manifest was renamed, or a pod
/// made anew, while no agent ran. The successor then finds whom it waits for. Nothing is awaited
/// after the first of them was looked at.
pub async fn end_replaced(kubelet: &Rc<Kubelet>, recovered: &[Uid]) {
    let mut views = Vec::new();
    for uid in recovered {
        views.extend(recorded(kubelet, uid).await);
    }
    for view in views {
        let core = &kubelet.core;
        let successor = core.reader.get(&view.key).filter(|object| {
            object.standing == Standing::Accepted && object.uid() != view.uid.as_str()
        });
        let Some(successor) = successor else {
            continue;
        };
        // What only the store says may be older than what runs: neither is ended nor begun.
        match core.registry.has_listed(successor.source) {
            true => end(kubelet, view, EndCause::Deleted),
            false => {
                let mut contested = kubelet.contested.borrow_mut();
                contested.push((view.key.clone(), view.uid.clone()));
            }
        }
    }
}

/// Waits for the sources, then ends every recorded pod that no source wants.
pub async fn end_all(kubelet: Rc<Kubelet>, recovered: Vec<Uid>) {
    let core = &kubelet.core;
    let mut patience = PATIENCE_MIN;
    let listed = |source: &Source| core.registry.has_listed(*source);
    let begun = core.world.clock.now();
    let mut said = false;
    while !core.options.sources.iter().all(listed) {
        if !said && core.world.clock.now().since(begun) >= SILENCE_MAX {
            said = true;
            let silent = core.options.sources.iter().filter(|source| !listed(source));
            let silent: Vec<&str> = silent.map(|source| source.name()).collect();
            log::warn!(
                "no complete list yet of source {}: what runs from an earlier start is kept until \
                 there is one, wanted or not",
                silent.join(", ")
            );
        }
        settle(&kubelet).await;
        let until = core.world.clock.now() + patience;
        core.world.clock.sleep_until(until).await;
        patience = (patience * 2).min(PATIENCE_MAX);
    }
    let mut suspects = recovered;
    suspects.extend(core.records.known().await);
    suspects.sort();
    suspects.dedup();
    for uid in suspects {
        if kubelet.workers.borrow().contains_key(&uid) {
            continue;
        }
        let Some(cause) = end_of(&kubelet, &uid) else {
            continue;
        };
        let view = recorded(&kubelet, &uid).await;
        end(&kubelet, view.unwrap_or_else(|| unknown_pod(&uid)), cause);
    }
    kubelet.contested.take();
    kubelet.hold_back();
}

/// Decides who keeps a name, where the source has spoken by now.
async fn settle(kubelet: &Rc<Kubelet>) {
    let contested = kubelet.contested.borrow().clone();
    for (key, uid) in contested {
        let core = &kubelet.core;
        let wanted = core.reader.get(&key);
        if wanted
            .as_ref()
            .is_some_and(|object| !core.registry.has_listed(object.source))
        {
            continue;
        }
        let view = recorded(kubelet, &uid).await;
        let replaced = wanted.is_some_and(|object| object.uid() != uid.as_str());
        if replaced && let Some(view) = view {
            end(kubelet, view, EndCause::Deleted);
        }
        kubelet
            .contested
            .borrow_mut()
            .retain(|(name, _)| *name != key);
        kubelet.hold_back();
    }
}

async fn recorded(kubelet: &Kubelet, uid: &Uid) -> Option<Rc<PodView>> {
    let object = kubelet.core.records.pod(uid).await?;
    let view = PodView::new(&object).ok()?;
    (view.uid == *uid).then_some(view)
}

fn end(kubelet: &Rc<Kubelet>, view: Rc<PodView>, cause: EndCause) {
    let (uid, grace) = (view.uid.clone(), view.grace);
    log::info!("{} (uid {uid}) is not wanted here; ending it", view.key);
    kubelet.run(view);
    if let Some(worker) = kubelet.workers.borrow().get(&uid) {
        worker.shared.end(cause, grace);
    }
}

/// How the pod ends that has something here; `None`: not at all. What is still to be under another name
/// of this node comes back with that name: it only stops, and what it left stays.
fn end_of(kubelet: &Kubelet, uid: &Uid) -> Option<EndCause> {
    let (pods, _) = kubelet.core.reader.list_packed(Kind::Pod, None);
    let mut end = Some(EndCause::Deleted);
    for object in pods.iter().filter(|object| object.uid() == uid.as_str()) {
        if kubelet.is_ours(&object.unpack()) {
            return None;
        }
        if !object.is_deleting() {
            end = kubelet.has_left(uid).then_some(EndCause::Shutdown);
        }
    }
    end
}

/// A manifest's pod from when this node had another name: whoever has its place now has another key.
/// Once its source has let it go it ends, whatever others say.
pub fn of_another_name(kubelet: &Rc<Kubelet>, object: &Object) {
    let uid = Uid::new(object.uid()).filter(|_| object.is_static());
    let Some(uid) = uid else {
        return;
    };
    let core = &kubelet.core;
    if !object.is_deleting() {
        let name = &core.node().node_name;
        log::warn!("{} is of before this node was called {name}", object.key);
    } else if kubelet.workers.borrow().contains_key(&uid) {
        // Its end is under way.
    } else if !kubelet.has_left(&uid) {
        core.registry.finish_deletion(&object.key, object.uid());
    } else if let Ok(view) = PodView::new(object) {
        end(kubelet, view, EndCause::Deleted);
    }
}

/// A stand-in for a pod of which only the UID is left: whatever runs of it is ended.
fn unknown_pod(uid: &Uid) -> Rc<PodView> {
    let name = format!("unknown-{uid}");
    let object = Object {
        key: Key::local(Kind::Pod, "default", &name),
        source: Source::Node,
        provenance: None,
        standing: Standing::Accepted,
        resource_version: 0,
        body: json!({
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": { "name": name, "namespace": "default", "uid": uid.as_str() },
            "spec": { "containers": [] },
        }),
    };
    PodView::new(&object).expect("the stand-in is a whole pod")
}
