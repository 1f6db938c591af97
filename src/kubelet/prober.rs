//! The probe tasks of one pod: at most one for each container and probe kind.
//!
//! ```text
//!  container runs ─► startup ──success──► liveness + readiness
//!                       └──failure──► condemned      └──failure──► condemned (liveness)
//! ```
//! A task ends with its container instance, or once it has condemned it. Readiness goes on while a
//! pod is being ended; liveness and startup do not.

use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

use async_executor::Task;

use super::check::{Action, Finding, Subject, check};
use super::core::EventKind;
use super::expand::expand;
use super::memory::Condemned;
use super::probe::{Figures, Threshold, Verdict};
use super::view::{ContainerView, PodView, ProbeKind};
use super::worker::Shared;
use crate::world::figures::{ProbeResult, Probed};
use crate::world::{BootTime, ContainerId, ContainerState, PodObserved};

/// How often a probe is tried at once when it could not be made at all.
const TRIES_MAX: u32 = 3;

#[derive(Default)]
pub struct Probers {
    tasks: BTreeMap<(String, ProbeKind), (ContainerId, Task<()>)>,
}

impl Probers {
    /// Starts and ends tasks so that they fit what runs now.
    pub fn fit(&mut self, shared: &Rc<Shared>, view: &Rc<PodView>, observed: &PodObserved) {
        let mut wanted = BTreeMap::new();
        let ending = shared.memory.borrow().checkpoint.ending.is_some();
        for instance in &observed.containers {
            let ContainerState::Running { started } = instance.state else {
                continue;
            };
            let Some(container) = view.container(&instance.name) else {
                continue;
            };
            let memory = shared.memory.borrow();
            let Some(health) = memory.health(&instance.name, &instance.id) else {
                continue;
            };
            for kind in ProbeKind::ALL {
                let Some(probe) = container.probe(kind) else {
                    continue;
                };
                let due = match kind {
                    ProbeKind::Startup => !health.started && !ending,
                    ProbeKind::Liveness => health.started && !ending,
                    ProbeKind::Readiness => health.started,
                };
                let Some(action) = Action::of_probe(probe) else {
                    continue;
                };
                let action = expanded(action, view, container);
                // As upstream, which takes a container for running once its hook is over.
                let due = due && health.hook_done;
                if due && (health.condemned.is_none() || kind == ProbeKind::Readiness) {
                    let order = Order {
                        kind,
                        action,
                        figures: Figures::of(probe),
                        name: instance.name.clone(),
                        id: instance.id.clone(),
                        since: started.boot,
                        ready: health.ready,
                    };
                    wanted.insert((instance.name.clone(), kind), order);
                }
            }
        }
        let same = |key: &(String, ProbeKind), id: &ContainerId| {
            wanted.get(key).is_some_and(|order: &Order| order.id == *id)
        };
        self.tasks.retain(|key, (id, _)| same(key, id));
        for (key, order) in wanted {
            self.tasks.entry(key).or_insert_with(|| {
                let id = order.id.clone();
                let task = probe_for_ever(shared.clone(), view.clone(), order);
                (id, shared.core.spawn(task))
            });
        }
    }
}

/// A command's `$(NAME)` means what the container's `env` states itself.
/// Source: Kubernetes pkg/kubelet/container/helpers.go (ExpandContainerCommandOnlyStatic).
fn expanded(action: Action, view: &PodView, container: &ContainerView) -> Action {
    let words = match action {
        Action::Exec(words) if words.iter().any(|word| word.contains('$')) => words,
        other => return other,
    };
    let typed = view.typed();
    let env = typed.container(container).env.as_deref();
    let env = env.unwrap_or_default().iter().rev();
    let value = |name: &str| {
        let stated = env.clone().find(|variable| variable.name == name)?;
        Some(stated.value.clone().unwrap_or_default())
    };
    Action::Exec(words.iter().map(|word| expand(word, value)).collect())
}

/// What one task is to do.
struct Order {
    kind: ProbeKind,
    action: Action,
    figures: Figures,
    name: String,
    id: ContainerId,
    /// Start of the container.
    since: BootTime,
    /// Readiness as it was left by an agent before.
    ready: bool,
}

async fn probe_for_ever(shared: Rc<Shared>, view: Rc<PodView>, order: Order) {
    let clock = shared.core.world.clock.clone();
    let mut due = first_time(&shared, &order);
    let mut threshold = Threshold::new(&order.figures, initial(&order));
    loop {
        clock.sleep_until(due).await;
        let begun = clock.now();
        let verdict = attempt(&shared, &view, &order).await;
        count(&shared, &view, &order, verdict, clock.now().since(begun));
        if let Some(verdict) = verdict
            && let Some(change) = threshold.observe(verdict)
            && apply(&shared, &view, &order, change) == Next::Stop
        {
            return;
        }
        due = (begun + order.figures.period).max(clock.now());
    }
}

fn count(shared: &Shared, view: &PodView, order: &Order, verdict: Option<Verdict>, took: Duration) {
    let probed = Probed {
        uid: view.uid.clone(),
        namespace: view.key.namespace.clone(),
        pod: view.key.name.clone(),
        container: order.name.clone(),
        probe: order.kind.name(),
    };
    let result = match verdict {
        Some(Verdict::Success) => ProbeResult::Successful,
        Some(Verdict::Failure) => ProbeResult::Failed,
        None => ProbeResult::Unknown,
    };
    let figures = &shared.core.options.figures;
    figures.note_probe(probed, result, took);
}

/// After the initial delay, or as soon as the container has started, however long that took; for one of an
/// agent before, somewhere within the next period, so that a fleet of probes does not fire as one.
fn first_time(shared: &Shared, order: &Order) -> BootTime {
    let (core, figures) = (&shared.core, &order.figures);
    let (now, due) = (core.world.clock.now(), order.since + figures.initial_delay);
    match has_missed(now, due, order.since < core.begun, figures.period) {
        false => due.max(now),
        true => {
            let period_ms = u64::try_from(figures.period.as_millis()).unwrap_or(u64::MAX);
            let jitter_ms = core.world.random.below(period_ms.max(1));
            now + Duration::from_millis(jitter_ms)
        }
    }
}

/// Whether an agent before would have probed at least once since.
fn has_missed(now: BootTime, due: BootTime, adopted: bool, period: Duration) -> bool {
    adopted && now.since(due) >= period
}

fn initial(order: &Order) -> Option<Verdict> {
    match order.kind {
        ProbeKind::Startup => None,
        ProbeKind::Liveness => Some(Verdict::Success),
        ProbeKind::Readiness if order.ready => Some(Verdict::Success),
        ProbeKind::Readiness => Some(Verdict::Failure),
    }
}

/// One probe with its immediate retries; `None` if it could not be made.
async fn attempt(shared: &Shared, view: &PodView, order: &Order) -> Option<Verdict> {
    let core = &shared.core;
    let container = view.container(&order.name)?;
    let address = shared.address(view);
    let subject = Subject {
        pod: view,
        container,
        id: &order.id,
        address: &address,
        is_hook: false,
    };
    let kind = order.kind.name();
    for tries in 1.. {
        let timeout = Some(order.figures.timeout);
        match check(core, &subject, &order.action, timeout).await {
            Finding::Good => return Some(Verdict::Success),
            Finding::Warned(text) => {
                let text = format!("{kind} probe warning: {text}");
                core.event(
                    view,
                    Some(container),
                    EventKind::Warning,
                    "ProbeWarning",
                    text,
                );
                return Some(Verdict::Success);
            }
            Finding::Bad(text) => {
                let text = format!("{kind} probe failed: {text}");
                core.event(view, Some(container), EventKind::Warning, "Unhealthy", text);
                return Some(Verdict::Failure);
            }
            Finding::Unknown(text) if tries >= TRIES_MAX => {
                let text = format!("{kind} probe errored and resulted in unknown state: {text}");
                core.event(view, Some(container), EventKind::Warning, "Unhealthy", text);
                return None;
            }
            Finding::Unknown(_) => {}
        }
    }
    None
}

#[derive(PartialEq, Eq)]
enum Next {
    Continue,
    Stop,
}

fn apply(shared: &Shared, view: &PodView, order: &Order, change: Verdict) -> Next {
    let good = change == Verdict::Success;
    let mut memory = shared.memory.borrow_mut();
    memory.note_probe(&order.name, &order.id, order.kind, good);
    let next = match (order.kind, change) {
        (ProbeKind::Readiness, _) | (ProbeKind::Liveness, Verdict::Success) => Next::Continue,
        (ProbeKind::Startup, Verdict::Success) => Next::Stop,
        (ProbeKind::Startup | ProbeKind::Liveness, Verdict::Failure) => {
            let probe = order.kind.name().to_lowercase();
            let condemned = Condemned {
                message: format!(
                    "Container {} failed {probe} probe, will be restarted",
                    order.name
                ),
                grace: order.figures.grace.unwrap_or(view.grace),
            };
            if let Some(health) = memory.checkpoint.health.get_mut(&order.name)
                && health.id == order.id
            {
                health.condemned.get_or_insert(condemned);
            }
            Next::Stop
        }
    };
    drop(memory);
    shared.wake();
    next
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_container_of_an_agent_before_can_have_missed_a_probe() {
        let at = |seconds| BootTime::from_duration(Duration::from_secs(seconds));
        let period = Duration::from_secs(30);
        // Of one that took long to start, the next probe is due at once.
        for (now, adopted, missed) in [
            (40, false, false),
            (400, false, false),
            (39, true, false),
            (40, true, true),
        ] {
            assert_eq!(has_missed(at(now), at(10), adopted, period), missed);
        }
    }
}
