//! Regular containers start in order: each once those before it have, and their postStart is over. One that
//! failed and waits for its next try holds nobody up.
//! Source: Kubernetes pkg/kubelet/kuberuntime (SyncPod).

use super::living::START_PATIENCE;
use super::{Plan, Situation};
use crate::kubelet::memory::Target;
use crate::kubelet::view::{ContainerView, Role};
use crate::world::ContainerState;

pub(super) fn has_to_queue(
    situation: &Situation<'_>,
    plan: &Plan,
    container: &ContainerView,
) -> bool {
    let regular = situation.view.with_role(Role::Regular);
    let mut before = regular.take_while(|c| c.name != container.name);
    container.role == Role::Regular && before.any(|c| is_on_its_way(situation, plan, c))
}

fn is_on_its_way(situation: &Situation<'_>, plan: &Plan, container: &ContainerView) -> bool {
    let (memory, name) = (situation.memory, &container.name);
    if let Some(made) = situation.latest(name) {
        let failed = memory.container(name).trouble.is_some();
        let due = made.created.boot + START_PATIENCE;
        match made.state {
            // Condemned, and another comes in its place.
            ContainerState::Running { .. } if made.hash != container.hash => return true,
            ContainerState::Running { .. } => {
                let health = memory.health(name, &made.id);
                return health.is_some_and(|h| !h.hook_done && h.condemned.is_none());
            }
            // An agent before this one began that start.
            ContainerState::Created if !failed && situation.now < due => return true,
            ContainerState::Created | ContainerState::Exited(_) => {}
        }
    }
    let own =
        |target: &Target| matches!(target, Target::Image(c) | Target::Container(c) if c == name);
    memory.busy.iter().any(own) || plan.steps.iter().any(|step| own(&step.target()))
}
