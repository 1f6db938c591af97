//! Which pods may start, worked out anew at each change: who waits, who is turned away for good.
//!
//! Who was let in stays in. A pod of a cluster that comes now and cannot be here is turned away, so that
//! another is made elsewhere; all others wait: a manifest has no elsewhere, and after a reboot nobody
//! would make another in place of a pod that was here before.

use std::collections::BTreeMap;
use std::rc::Rc;

use super::core::EventKind;
use super::fit::{self, Claim, Refusal, Shortage};
use super::memory::Target;
use super::node_status::NETWORK_NOT_READY;
use super::plan::Waiting;
use super::preempt::{self, Candidate};
use super::view::PodView;
use super::worker::Shared;
use super::{Kubelet, hold, pressure};
use crate::object::{Key, Kind, Origin};
use crate::world::{PodNetwork, Uid};

pub(super) type Views = [(Rc<Shared>, Rc<PodView>)];

impl Kubelet {
    /// Works out anew which pods may start.
    pub(super) fn hold_back(&self) {
        let views = self.views();
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

    /// The pods whose workers have not ended.
    pub(super) fn views(&self) -> Vec<(Rc<Shared>, Rc<PodView>)> {
        let workers = self.workers.borrow();
        let there = workers.values().filter(|w| !w.shared.gone.get());
        let view = |shared: &Rc<Shared>| shared.view.borrow().clone();
        there.map(|w| (w.shared.clone(), view(&w.shared))).collect()
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
            .or_else(|| self.contested_name(view))
            .or_else(|| self.under_pressure(shared, view))
            .or_else(|| self.room_is_made(view, views))
            .or_else(|| self.ports_are_given_back(view, views))
            .or_else(|| self.no_network(view))
    }

    /// Two of one name must not run side by side, where a manifest is the pod's source.
    fn contested_name(&self, view: &PodView) -> Option<Waiting> {
        if !view.is_static {
            return None;
        }
        let contested = self.contested.borrow();
        let mut others = contested.iter();
        let (_, other) = others.find(|(key, uid)| *key == view.key && *uid != view.uid)?;
        let text =
            format!("pod {other} of the same name runs, and nobody has said yet which is wanted");
        Some(Waiting::new(hold::PREDECESSOR, text))
    }

    /// What runs goes on, and pods on the host's network start.
    fn no_network(&self, view: &PodView) -> Option<Waiting> {
        let ready = self.core.node().pod_network != PodNetwork::NotReady;
        if ready || view.host_network || self.runs(view) {
            return None;
        }
        let text = format!("network is not ready: {NETWORK_NOT_READY}");
        Some(Waiting::new("NetworkNotReady", text))
    }

    /// Whether there is a sandbox of it.
    fn runs(&self, view: &PodView) -> bool {
        let observed = self.core.world.runtime.observe(&view.uid);
        observed.sandbox.is_some()
    }

    /// A critical pod has its place, and starts when those who leave it have gone. Upstream's kubelet
    /// waits for them with everything else.
    fn room_is_made(&self, view: &PodView, views: &Views) -> Option<Waiting> {
        let critical = view.key.origin == Origin::Remote && pressure::is_critical(view);
        let leaves = |(other, _): &(Rc<Shared>, _)| is_there(other) && !is_active(other);
        if !critical || !views.iter().any(leaves) || self.runs(view) {
            return None;
        }
        let text = "pods that make room for it are still ending";
        Some(Waiting::new(hold::PREDECESSOR, text))
    }

    /// Who is being removed has ended, and has its ports until it is gone.
    fn ports_are_given_back(&self, view: &PodView, views: &Views) -> Option<Waiting> {
        let mut others = views.iter().filter(|(_, of)| of.uid != view.uid);
        let holds = |(other, of): &&(Rc<Shared>, Rc<PodView>)| {
            is_leaving(other) && self.runs(of) && view.claim.clashes(&of.claim)
        };
        let (_, of) = others.find(holds)?;
        if self.runs(view) {
            return None;
        }
        let text = format!(
            "{}, which is being removed, still has its host ports",
            of.key
        );
        Some(Waiting::new(hold::PREDECESSOR, text))
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
                    .event(view, None, EventKind::Logged, &held.reason, text);
            }
            None => {}
        }
    }

    /// Whether nothing has been decided on the pod yet, and nothing of it ever ran.
    fn is_at_the_door(&self, shared: &Shared, view: &PodView) -> bool {
        shared.recalled.get() && !shared.let_in.get() && is_there(shared) && !self.runs(view)
    }

    /// Turns a pod of a cluster away that comes now and cannot be here.
    fn turn_away(&self, shared: &Shared, view: &PodView, views: &Views) -> bool {
        let comes = view.key.origin == Origin::Remote && shared.fresh.get();
        if !comes || !self.is_at_the_door(shared, view) {
            return false;
        }
        let others = room_takers(views, &view.uid);
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
        let (spec, claim) = (&body["spec"], &view.claim);
        let fits = || {
            let refusal = fit::refusal(spec, claim, &others, &own.body, listed)?;
            let short = fit::shortages(claim, &others, &own.body);
            match pressure::is_critical(view) && !short.is_empty() {
                true => fit::misfit(spec, claim, &others, listed)
                    .or_else(|| make_room(view, views, &short).err()),
                false => Some(refusal),
            }
        };
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
        self.core.event(view, None, EventKind::Logged, reason, text);
        shared.reject(refusal);
    }

    /// Why the pod waits until the node has more of something. Who comes now is turned away for good, as
    /// upstream's node does.
    fn under_pressure(&self, shared: &Shared, view: &PodView) -> Option<Waiting> {
        if !is_there(shared) || !shared.recalled.get() {
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
        let active: Vec<_> = views
            .iter()
            .filter(|(shared, _)| is_there(shared))
            .collect();
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

/// Ends the pods that a critical one has to have the room of. Who goes has its time to do so.
fn make_room(view: &PodView, views: &Views, short: &[Shortage]) -> Result<(), Refusal> {
    let goes = |(other, of): &&(Rc<Shared>, Rc<PodView>)| {
        let lower = !pressure::is_critical(of) || of.priority < view.priority;
        of.uid != view.uid && lower && is_active(other)
    };
    let others: Vec<_> = views.iter().filter(goes).collect();
    let candidates = others.iter().map(|(_, of)| Candidate {
        qos: of.qos,
        claim: &of.claim,
    });
    let victims = preempt::victims(short, &candidates.collect::<Vec<_>>());
    let victims = victims.map_err(|why| {
        let text = "Unexpected error while attempting to recover from admission failure: preemption: \
                    error finding a set of pods to preempt";
        Refusal::new("UnexpectedAdmissionError", format!("{text}: {why}"))
    })?;
    for place in victims {
        let (shared, of) = others[place];
        log::warn!("{} makes room for {}", of.key, view.key);
        let (reason, text) = (preempt::REASON, preempt::MESSAGE);
        shared.core.event(of, None, EventKind::Logged, reason, text);
        shared.preempt(of.grace);
    }
    Ok(())
}

/// Not over.
fn is_there(shared: &Shared) -> bool {
    shared.memory.borrow().finals.phase.is_none()
}

/// Over, as the cluster knows, and what was of it is being removed.
fn is_leaving(shared: &Shared) -> bool {
    let memory = shared.memory.borrow();
    let ends = memory.checkpoint.ending.is_some();
    ends && (memory.is_busy(&Target::TearDown) || memory.tear_down_trouble.is_some())
}

/// Not over, nor about to be so that another has its room.
fn is_active(shared: &Shared) -> bool {
    let memory = shared.memory.borrow();
    let reason = memory
        .checkpoint
        .ending
        .as_ref()
        .and_then(|ending| ending.reason.as_deref());
    is_there(shared) && reason != Some(preempt::REASON)
}

/// What the other pods have of the node.
pub(super) fn room_takers<'a>(views: &'a Views, uid: &Uid) -> Vec<&'a Claim> {
    let there = |(other, of): &&(Rc<Shared>, Rc<PodView>)| {
        of.uid != *uid
            && is_active(other)
            && !is_leaving(other)
            && (other.let_in.get() || !other.fresh.get())
    };
    let others = views.iter().filter(there);
    others.map(|(_, of)| &of.claim).collect()
}

/// UIDs of pods that are being ended: a static pod of the same name waits for them.
fn ended(views: &Views) -> Vec<Uid> {
    let ending = views.iter().filter(|(shared, _)| {
        let memory = shared.memory.borrow();
        memory.checkpoint.ending.is_some()
    });
    ending.map(|(shared, _)| shared.uid.clone()).collect()
}
