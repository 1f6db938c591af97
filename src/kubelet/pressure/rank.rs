//! Who goes first when the node is short of something, and what it is told. Pure.
//!
//! Memory and disk: who uses more than it asked for, then the lower priority, then who uses most
//! beyond its request. Processes: the lower priority, then who has most of them.
//! Source: Kubernetes pkg/kubelet/eviction/helpers.go (rank*Pressure, evictionMessage).

use std::cmp::Reverse;

use super::state::Shortage;
use super::thresholds::Signal;
use crate::object::Quantity;
use crate::object::order::sort_by_key;
use crate::world::{ContainerStats, PodStats, Tree};

/// From this priority on a pod is critical. Source: scheduling.SystemCriticalPriority.
pub const PRIORITY_CRITICAL: i32 = 2_000_000_000;

/// A pod that might go.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Candidate {
    pub priority: i32,
    /// In the signal's own unit.
    pub used: u64,
    pub requested: u64,
}

/// The order of candidates: the first goes first; of equals the one that was listed first.
pub fn order(signal: Signal, candidates: &[Candidate]) -> Vec<usize> {
    let mut places: Vec<usize> = (0..candidates.len()).collect();
    sort_by_key(&mut places, |place| {
        let one = &candidates[*place];
        let over = i128::from(one.used) - i128::from(one.requested);
        match signal {
            Signal::Pids => (false, one.priority, Reverse(i128::from(one.used))),
            _ => (over <= 0, one.priority, Reverse(over)),
        }
    });
    places
}

/// What a pod uses of what there is too little of; `None`: it was not measured.
pub fn used(signal: Signal, pod: &PodStats) -> Option<u64> {
    match signal {
        Signal::Memory => Some(pod.usage.memory?.working_set),
        Signal::Pids => pod.usage.tasks,
        Signal::NodeFs | Signal::ImageFs => Some(pod.ephemeral?.bytes),
        Signal::NodeFsInodes | Signal::ImageFsInodes => Some(pod.ephemeral?.inodes),
    }
}

/// The same of one container: its layer and its logs.
pub fn used_by(signal: Signal, container: &ContainerStats) -> Option<u64> {
    let disk = |of: fn(Tree) -> u64| Some(of(container.rootfs?) + of(container.logs?));
    match signal {
        Signal::Memory => Some(container.usage.memory?.working_set),
        Signal::NodeFs | Signal::ImageFs => disk(|tree| tree.bytes),
        Signal::NodeFsInodes | Signal::ImageFsInodes | Signal::Pids => None,
    }
}

/// Name, use, request.
pub type ContainerUse = (String, u64, Quantity);

/// What the pod's status says; upstream's words, the space at the end too.
pub fn message(shortage: &Shortage, containers: &[ContainerUse]) -> String {
    let resource = shortage.threshold.signal.resource();
    let level = shortage.level;
    let quantity = quantity(shortage.threshold.amount.of(level.capacity));
    let available = self::quantity(level.available);
    let mut text = format!(
        "The node was low on resource: {resource}. Threshold quantity: {quantity}, available: \
         {available}. "
    );
    for (name, used, request) in containers {
        if i128::from(*used) > i128::from(request.value()) {
            let used = self::quantity(*used);
            text.push_str(&format!(
                "Container {name} was using {used}, request is {request}, has larger consumption \
                 of {resource}. "
            ));
        }
    }
    text
}

pub fn quantity(amount: u64) -> Quantity {
    Quantity::from_bytes(i64::try_from(amount).unwrap_or(i64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kubelet::pressure::thresholds::{Amount, Kind, Threshold};
    use crate::world::Level;

    fn candidate(priority: i32, used: u64, requested: u64) -> Candidate {
        Candidate {
            priority,
            used,
            requested,
        }
    }

    #[test]
    fn who_exceeds_its_request_goes_before_priority_and_size() {
        let all = [
            candidate(0, 900, 1000), // within its request: last of its priority
            candidate(10, 500, 100), // exceeds by 400, but more important
            candidate(0, 200, 100),  // exceeds by 100
            candidate(0, 300, 0),    // exceeds by 300: first
            candidate(-5, 10, 1000), // unimportant, but within its request
        ];
        assert_eq!(order(Signal::Memory, &all), [3, 2, 1, 4, 0]);
        assert_eq!(order(Signal::NodeFs, &all), [3, 2, 1, 4, 0]);
        // Processes have no requests.
        assert_eq!(order(Signal::Pids, &all), [4, 0, 3, 2, 1]);
    }

    #[test]
    fn the_message_is_upstreams() {
        let shortage = Shortage {
            threshold: Threshold {
                signal: Signal::Memory,
                kind: Kind::Hard,
                amount: Amount::Absolute(100 << 20),
                reclaim: Amount::Absolute(0),
            },
            level: Level {
                capacity: 1 << 30,
                available: 50 << 20,
            },
        };
        let within = ("d".to_owned(), 1, "1Ki".parse().unwrap());
        let over = ("c".to_owned(), 5 << 20, Quantity::ZERO);
        assert_eq!(
            message(&shortage, &[within, over]),
            "The node was low on resource: memory. Threshold quantity: 100Mi, available: 50Mi. \
             Container c was using 5Mi, request is 0, has larger consumption of memory. "
        );
    }
}
