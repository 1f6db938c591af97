//! Which pods make room for a critical one that does not fit: as few and as cheap as there are. Pure.
//!
//! Of each class no more go than those of the classes below leave to be done, and within a class
//! the nearest to what is missing goes first.
//! Source: Kubernetes pkg/kubelet/preemption/preemption.go.

use super::fit::{Claim, Shortage};
use crate::world::QosClass;

/// What an event and the status of who goes say, and the status's condition.
pub const REASON: &str = "Preempting";
pub const MESSAGE: &str = "Preempted in order to admit critical pod";
pub const DISRUPTION: &str = "Pod was preempted by Kubelet to accommodate a critical pod.";

/// A pod that could go.
#[derive(Clone, Copy, Debug)]
pub struct Candidate<'a> {
    pub qos: QosClass,
    pub claim: &'a Claim,
}

/// An amount of a resource that is still missing.
type Need<'a> = (&'a str, i64);

/// The places of those who go. `Err`: all of them would not be enough, with what were missing then.
pub fn victims(short: &[Shortage], pods: &[Candidate<'_>]) -> Result<Vec<usize>, String> {
    let needs: Vec<Need<'_>> = short.iter().map(|s| (&*s.resource, s.missing())).collect();
    let short = left(&needs, pods.iter().map(|pod| pod.claim));
    if !short.is_empty() {
        let listed: String = short
            .iter()
            .map(|(name, amount)| format!("(res: {name}, q: {amount}), "))
            .collect();
        return Err(format!(
            "no set of running pods found to reclaim resources: [{listed}]"
        ));
    }
    let mut chosen: Vec<usize> = Vec::new();
    for (class, below) in [
        (
            QosClass::Guaranteed,
            &[QosClass::Burstable, QosClass::BestEffort][..],
        ),
        (QosClass::Burstable, &[QosClass::BestEffort]),
        (QosClass::BestEffort, &[]),
    ] {
        let others = (0..pods.len()).filter(|n| below.contains(&pods[*n].qos));
        let others = others.chain(chosen.iter().copied());
        let needs = left(&needs, others.map(|n| pods[n].claim));
        let own = (0..pods.len()).filter(|n| pods[*n].qos == class).collect();
        chosen.extend(nearest(needs, own, pods));
    }
    chosen.reverse();
    Ok(chosen)
}

fn left<'n, 'a>(
    needs: &[Need<'n>],
    gone: impl Iterator<Item = &'a Claim> + Clone,
) -> Vec<Need<'n>> {
    let rest = needs.iter().map(|(name, amount)| {
        let freed = gone
            .clone()
            .fold(0i64, |sum, claim| sum.saturating_add(claim.units(name)));
        (*name, amount.saturating_sub(freed))
    });
    rest.filter(|(_, amount)| *amount > 0).collect()
}

/// Takes of `among` until nothing is missing.
fn nearest(mut needs: Vec<Need<'_>>, mut among: Vec<usize>, pods: &[Candidate<'_>]) -> Vec<usize> {
    let mut chosen = Vec::new();
    while !needs.is_empty() {
        let rank = |n: &usize| {
            let claim = pods[*n].claim;
            (
                distance(&needs, claim),
                claim.units("memory"),
                claim.units("cpu"),
            )
        };
        let order = |a: &usize, b: &usize| {
            let (a, b) = (rank(a), rank(b));
            a.0.total_cmp(&b.0).then((a.1, a.2).cmp(&(b.1, b.2)))
        };
        let Some(best) = among.iter().copied().min_by(order) else {
            break;
        };
        among.retain(|n| *n != best);
        needs = left(&needs, [pods[best].claim].into_iter());
        chosen.push(best);
    }
    chosen
}

/// How much of the needs would be left: 0 for none, at most 1 for each.
fn distance(needs: &[Need<'_>], claim: &Claim) -> f64 {
    let left = needs.iter().map(|(name, amount)| {
        let rest = amount.saturating_sub(claim.units(name)).max(0);
        (rest as f64 / *amount as f64).powi(2)
    });
    left.sum()
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn claim(cpu: &str, memory: &str) -> Claim {
        let requests = json!({"cpu": cpu, "memory": memory});
        Claim::of(&json!({"containers": [{"resources": {"requests": requests}}]}))
    }

    fn verdict(missing: Value, pods: &[(QosClass, &str, &str)]) -> Result<Vec<usize>, String> {
        let short = missing.as_object().unwrap().iter();
        let short = short.map(|(resource, amount)| Shortage {
            resource: resource.clone(),
            requested: amount.as_i64().unwrap() + 10,
            used: 90,
            capacity: 100,
        });
        let claims: Vec<Claim> = pods.iter().map(|(_, c, m)| claim(c, m)).collect();
        let candidates = pods.iter().zip(&claims);
        let candidates: Vec<_> = candidates
            .map(|((qos, _, _), claim)| Candidate { qos: *qos, claim })
            .collect();
        victims(&short.collect::<Vec<_>>(), &candidates)
    }

    #[test]
    fn few_go_the_lowest_class_first_and_the_nearest_of_a_class() {
        use QosClass::{BestEffort, Burstable, Guaranteed};
        let pods = [
            (Guaranteed, "1", "100"),
            (Burstable, "500m", "100"),
            (Burstable, "1", "300"),
            (Burstable, "1", "200"),
            (BestEffort, "0", "0"),
        ];
        for (missing, expected) in [
            (json!({}), vec![]),
            (json!({"cpu": 400}), vec![1]),
            // Two that are enough: who asks for less memory.
            (json!({"cpu": 900}), vec![3]),
            (json!({"cpu": 1200}), vec![1, 3]),
            // All of the lower classes are not enough; with a higher one not all of them have to go.
            (json!({"cpu": 2600}), vec![0, 2, 3]),
            // Any pod makes a place; of these the lowest class.
            (json!({"pods": 1}), vec![4]),
        ] {
            let mut found = verdict(missing.clone(), &pods).unwrap();
            let mut expected = expected;
            found.sort_unstable();
            expected.sort_unstable();
            assert_eq!(found, expected, "{missing}");
        }
        let none = verdict(json!({"cpu": 4000}), &pods).unwrap_err();
        assert_eq!(
            none,
            "no set of running pods found to reclaim resources: [(res: cpu, q: 500), ]"
        );
    }
}
