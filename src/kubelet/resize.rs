//! Resources of a pod that change while it runs (`pods/resize`).
//!
//! ```text
//!   spec ─► room? ── no ──► PodResizePending: the view keeps what the pod has; asked again when
//!             │             another pod goes or shrinks
//!             yes ─► the view has it ─► PodResizeInProgress ─► cgroups, or a new instance ─► done
//! ```
//! What a pod was given is the spec in its view, and in the record of it under ROOT: a next agent
//! goes on from there. Source: Kubernetes pkg/kubelet/allocation, KEP-1287.

use std::rc::Rc;

use serde_json::{Value, json};

use super::core::EventKind;
use super::entrance::room_takers;
use super::fit;
use super::memory::{Resizing, Trouble};
use super::view::{ContainerView, Pending, PodView, Role};
use super::worker::Shared;
use super::{Core, Kubelet};
use crate::object::references::items;
use crate::object::{Key, Kind, Object};
use crate::registry::Packed;
use crate::world::{CgroupResources, ContainerObserved, ContainerState, PodObserved, Resize};

/// What other resources mean to a running instance.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    None,
    InPlace,
    Restart,
}

/// `resizePolicy`: whether a change of it needs a new instance.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ResizePolicy {
    pub cpu_restarts: bool,
    pub memory_restarts: bool,
}

pub fn change(view: &ContainerView, instance: &ContainerObserved) -> Change {
    let wanted = &view.resources;
    let Some(given) = instance.resources.as_ref().filter(|given| *given != wanted) else {
        return Change::None;
    };
    let memory = given.memory_bytes_max != wanted.memory_bytes_max;
    let cpu = |of: &CgroupResources| (of.cpu_shares, of.cpu_quota_us, of.cpu_period_us);
    let policy = view.resize_policy;
    let restarts =
        memory && policy.memory_restarts || cpu(given) != cpu(wanted) && policy.cpu_restarts;
    match restarts {
        true => Change::Restart,
        false => Change::InPlace,
    }
}

fn running<'a>(
    view: &'a PodView,
    observed: &'a PodObserved,
) -> impl Iterator<Item = (&'a ContainerView, &'a ContainerObserved)> {
    let running = observed.containers.iter();
    let running = running.filter(|c| matches!(c.state, ContainerState::Running { .. }));
    running.filter_map(|instance| Some((view.container(&instance.name)?, instance)))
}

/// What can be given to what runs as it runs; `None`: it has all of it.
pub fn in_place(view: &PodView, observed: &PodObserved) -> Option<Resize> {
    let given = observed.sandbox.as_ref()?.resources.as_ref();
    let changed = running(view, observed).filter(|(view, c)| change(view, c) == Change::InPlace);
    let containers: Vec<_> = changed
        .map(|(view, instance)| (instance.id.clone(), view.resources.clone()))
        .collect();
    let same = given.is_none_or(|given| *given == view.cgroup);
    (!same || !containers.is_empty()).then(|| Resize {
        uid: view.uid.clone(),
        pod: view.cgroup.clone(),
        containers,
    })
}

/// Whether something that runs has other limits than its spec.
pub fn is_under_way(view: &PodView, observed: &PodObserved) -> bool {
    let restarts = |(view, c): (&ContainerView, _)| change(view, c) == Change::Restart;
    in_place(view, observed).is_some() || running(view, observed).any(restarts)
}

/// What events say of a resize: which resources it asks for.
pub fn summary(prefix: &str, spec: &Value, generation: i64, error: &str) -> String {
    // In upstream's order, which a map of values has not.
    let mut text = format!("{prefix}: {{");
    for role in [Role::Init, Role::Regular] {
        let of = |one: &Value| {
            let resources = one.get("resources").cloned().unwrap_or_else(|| json!({}));
            format!("{{\"name\":{},\"resources\":{resources}}}", one["name"])
        };
        let listed: Vec<String> = items(spec, role.list()).map(of).collect();
        if !listed.is_empty() {
            text.push_str(&format!("\"{}\":[{}],", role.list(), listed.join(",")));
        }
    }
    text.push_str(&format!("\"generation\":{generation}"));
    if !error.is_empty() {
        text.push_str(&format!(",\"error\":{}", json!(error)));
    }
    text.push('}');
    text
}

fn tell(core: &Core, view: &PodView, (kind, reason): (EventKind, &str), prefix: &str, more: &str) {
    let spec = &view.body()["spec"];
    let text = summary(prefix, spec, view.generation, more);
    core.event(view, None, kind, reason, text);
}

/// Takes note of a resize that begins or has come to its end. Called with a fresh observation.
pub(super) fn follow(shared: &Shared, view: &PodView, observed: &PodObserved) {
    let under_way = is_under_way(view, observed);
    let memory = &mut *shared.memory.borrow_mut();
    match &memory.resizing {
        // An agent that died has begun it.
        None if under_way => memory.resizing = Some(Resizing::of(view).into()),
        Some(known) if known.kept && !under_way => {
            memory.resizing = None;
            let what = (EventKind::Normal, "ResizeCompleted");
            tell(&shared.core, view, what, "Pod resize completed", "");
            // What has become smaller makes room.
            shared.core.departures.notify(usize::MAX);
        }
        None | Some(_) => {}
    }
}

/// A step on the way failed, or is done.
pub(super) fn note(shared: &Shared, view: &PodView, trouble: Option<Trouble>) {
    let mut memory = shared.memory.borrow_mut();
    let Some(resizing) = &mut memory.resizing else {
        return;
    };
    resizing.kept = true;
    let before = std::mem::replace(&mut resizing.trouble, trouble);
    let told = before.map(|trouble| trouble.message);
    let message = resizing
        .trouble
        .as_ref()
        .map(|trouble| trouble.message.clone());
    drop(memory);
    if let Some(message) = message.filter(|message| told.as_ref() != Some(message)) {
        let what = (EventKind::Warning, "ResizeError");
        tell(&shared.core, view, what, "Pod resize error", &message);
    }
}

impl Kubelet {
    /// The pod as it may be now: as the registry has it, or with the resources of `before` as long
    /// as there is no room for those it asks for.
    pub(super) fn allocated(
        &self,
        shared: &Shared,
        before: &PodView,
        object: &Object,
        wanted: Rc<PodView>,
    ) -> Rc<PodView> {
        let over = wanted.deletion_grace.is_some() || shared.memory.borrow().finals.phase.is_some();
        let runs = || {
            self.core
                .world
                .runtime
                .observe(&wanted.uid)
                .sandbox
                .is_some()
        };
        if over || wanted.asks_as(before) || !runs() {
            return wanted;
        }
        let Some(message) = self.no_room(before, &wanted) else {
            shared.memory.borrow_mut().resizing = Some(Resizing::of(&wanted).into());
            let what = (EventKind::Normal, "ResizeStarted");
            tell(&self.core, &wanted, what, "Pod resize started", "");
            return wanted;
        };
        let told = before.pending.as_ref().map(|pending| pending.generation);
        if told != Some(wanted.generation) {
            let what = (EventKind::Warning, "ResizeDeferred");
            tell(&self.core, &wanted, what, "Pod resize Deferred", &message);
        }
        let pending = Pending {
            message,
            generation: wanted.generation,
        };
        let held = PodView::pending(object, &before.body()["spec"], pending);
        held.unwrap_or(wanted)
    }

    fn no_room(&self, before: &PodView, wanted: &PodView) -> Option<String> {
        let node = Key::local(Kind::Node, "", &self.core.node().node_name);
        let own = self.core.reader.get(&node)?;
        let views = self.views();
        let others = room_takers(&views, &wanted.uid);
        let refusal = fit::no_room_for_more(&before.claim, &wanted.claim, &others, &own.body);
        refusal.map(|refusal| refusal.message)
    }

    /// Asks again for the pods that wait for room.
    pub(super) fn retry_resizes(self: &Rc<Self>) {
        for (_, view) in self.views() {
            if view.pending.is_some()
                && let Some(packed) = self.core.reader.get_packed(&view.key)
                && packed.uid() == view.uid.as_str()
            {
                self.take(&packed);
            }
        }
    }

    /// Of a pod that an earlier agent has run: what it was given then counts.
    pub(super) async fn recall_resources(&self, shared: &Shared) {
        let core = &self.core;
        let view = shared.view.borrow().clone();
        let registered = |packed: &Packed| packed.uid() == view.uid.as_str();
        if view.generation < 2 || core.world.runtime.observe(&view.uid).sandbox.is_none() {
            return;
        }
        let before = core.records.pod(&view.uid).await;
        let before = before.and_then(|object| PodView::new(&object).ok());
        let packed = core.reader.get_packed(&view.key);
        if let (Some(before), Some(packed)) = (before, packed.filter(|p| registered(p))) {
            let object = packed.unpack();
            let wanted = PodView::registered(&packed, &object);
            let view = wanted.map(|wanted| self.allocated(shared, &before, &object, wanted));
            if let Ok(view) = view {
                shared.view.replace(view);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_say_what_is_asked_for_in_upstreams_order() {
        let spec = json!({"containers": [
            {"name": "c0", "image": "i", "resources": {"requests": {"cpu": "100m"}}}, {"name": "c1"},
        ]});
        assert_eq!(
            summary("Pod resize Deferred", &spec, 1, "Node didn't have \"it\""),
            "Pod resize Deferred: {\"containers\":[{\"name\":\"c0\",\"resources\":\
             {\"requests\":{\"cpu\":\"100m\"}}},{\"name\":\"c1\",\"resources\":{}}],\
             \"generation\":1,\"error\":\"Node didn't have \\\"it\\\"\"}"
        );
    }
}
