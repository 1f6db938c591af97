//! Which pods may start, worked out anew at each change: who waits, who is turned away for good.
//!
//! Who was let in stays in. A pod of a cluster that comes now and cannot be here is turned away, so that
//! another is made elsewhere; all others wait: a manifest has no elsewhere, and after a reboot nobody
//! would make another in place of a pod that was here before.

use std::collections::BTreeMap;
use std::rc::Rc;

use super::core::EventKind;
use super::fit::{self, Claim, Refusal};
use super::plan::Waiting;
use super::view::PodView;
use super::worker::Shared;
use super::{Kubelet, hold, pressure};
use crate::object::{Key, Kind, Origin};
use crate::world::Uid;

type Views = [(Rc<Shared>, Rc<PodView>)];

impl Kubelet {
    /// Works out anew which pods may start.
    pub(super) fn hold_back(&self) {
        let workers = self.workers.borrow();
        let views: Vec<_> = workers
            .values()
            .filter(|w| !w.shared.gone.get())
            .map(|w| (w.shared.clone(), w.shared.view.borrow().clone()))
            .collect();
        let ended = ended(&views);
        let over = self.over_capacity(&views);
        for (shared, view) in &views {
            let ending = shared.memory.borrow().checkpoint.ending.is_some();
            let held = match ending || self.turn_away(shared, view, &views) {
                true => None,
                false => self
                    .reason_to_wait(shared, view, &views, &ended)
                    .or_else(|| over.get(&view.uid).cloned()),
            };
            if *shared.held.borrow() != held {
                self.tell(view, held.as_ref());
                shared.held.replace(held);
                shared.wake();
            }
        }
    }

    fn reason_to_wait(
        &self,
        shared: &Shared,
        view: &PodView,
        views: &Views,
        ended: &[Uid],
    ) -> Option<Waiting> {
        let others = views.iter().map(|(_, other)| other.as_ref());
        let node = &self.core.node();
        let held = self.core.leftovers.holds(&view.uid);
        held.or_else(|| hold::reason(view, others, node, ended))
            .or_else(|| self.under_pressure(shared, view))
    }

    fn tell(&self, view: &PodView, held: Option<&Waiting>) {
        match held {
            // Every edit of a manifest passes through here: nothing to warn of.
            Some(held) if held.reason == hold::PREDECESSOR => {
                log::info!("{} waits: {}", view.key, held.message);
            }
            Some(held) => {
                log::warn!("{} waits: {}", view.key, held.message);
                let text = held.message.clone();
                self.core
                    .event(view, None, EventKind::Warning, &held.reason, text);
            }
            None => {}
        }
    }

    /// Whether nothing has been decided on the pod yet, and nothing of it ever ran.
    fn is_at_the_door(&self, shared: &Shared, view: &PodView) -> bool {
        let over = || shared.memory.borrow().finals.phase.is_some();
        let runs = || self.core.world.runtime.observe(&view.uid).sandbox.is_some();
        shared.recalled.get() && !shared.let_in.get() && !over() && !runs()
    }

    /// Turns a pod of a cluster away that comes now and cannot be here.
    fn turn_away(&self, shared: &Shared, view: &PodView, views: &Views) -> bool {
        let comes = view.key.origin == Origin::Remote && shared.fresh.get();
        if !comes || !self.is_at_the_door(shared, view) {
            return false;
        }
        let there = |(other, of): &&(Rc<Shared>, Rc<PodView>)| {
            let active = other.memory.borrow().finals.phase.is_none();
            of.uid != view.uid && active && (other.let_in.get() || !other.fresh.get())
        };
        let others: Vec<&Claim> = views
            .iter()
            .filter(there)
            .map(|(_, of)| &of.claim)
            .collect();
        let node = |origin| Key {
            origin,
            ..Key::local(Kind::Node, "", &self.core.node().node_name)
        };
        let reader = &self.core.reader;
        let Some(own) = reader.get(&node(Origin::Local)) else {
            return false;
        };
        let listed = reader.get(&node(Origin::Remote));
        let listed = listed.as_ref().map(|node| &node.body);
        let body = view.body();
        let sysctls = hold::forbidden_sysctl(view, &self.core.node());
        let fits = || fit::refusal(&body["spec"], &view.claim, &others, &own.body, listed);
        let refusal = sysctls
            .map(|no| Refusal::new(no.reason, no.message))
            .or_else(fits);
        match refusal {
            Some(refusal) => self.reject(shared, view, refusal),
            None => return false,
        }
        true
    }

    fn reject(&self, shared: &Shared, view: &PodView, refusal: Refusal) {
        log::warn!("{} is rejected: {}", view.key, refusal.message);
        let (reason, text) = (refusal.reason.as_str(), refusal.message.as_str());
        self.core
            .event(view, None, EventKind::Warning, reason, text);
        shared.reject(refusal);
    }

    /// Why the pod waits until the node has more of something. Who comes now is turned away for good, as
    /// upstream's node does.
    fn under_pressure(&self, shared: &Shared, view: &PodView) -> Option<Waiting> {
        let over = shared.memory.borrow().finals.phase.is_some();
        if over || !shared.recalled.get() {
            return None;
        }
        let refused = pressure::refuses(&self.core.pressure.borrow(), view);
        let refused = refused.filter(|_| self.is_at_the_door(shared, view));
        shared.let_in.set(refused.is_none());
        let why = refused?;
        if !shared.fresh.get() {
            return Some(Waiting::new("NodePressure", why));
        }
        self.reject(shared, view, Refusal::new("Evicted", why));
        None
    }

    /// The pods for which `--max-pods` leaves no room.
    fn over_capacity(&self, views: &Views) -> BTreeMap<Uid, Waiting> {
        let capacity = self.core.options.machine.pods_max;
        let active = |shared: &Shared| shared.memory.borrow().finals.phase.is_none();
        let active: Vec<_> = views.iter().filter(|(shared, _)| active(shared)).collect();
        let over = match active.len() > capacity as usize {
            // The usual case, without a look at the runtime.
            false => BTreeMap::new(),
            true => {
                let applicants = active.iter().map(|(shared, view)| {
                    let runs = self.core.world.runtime.observe(&view.uid).sandbox.is_some();
                    (view.uid.clone(), runs || shared.admitted.get())
                });
                hold::over_capacity(applicants.collect(), capacity)
            }
        };
        for (shared, view) in &active {
            shared.admitted.set(!over.contains_key(&view.uid));
        }
        over
    }
}

/// UIDs of pods that are being ended: a static pod of the same name waits for them.
fn ended(views: &Views) -> Vec<Uid> {
    let ending = views.iter().filter(|(shared, _)| {
        let memory = shared.memory.borrow();
        memory.checkpoint.ending.is_some()
    });
    ending.map(|(shared, _)| shared.uid.clone()).collect()
}
