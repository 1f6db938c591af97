//! From counters to rates: two looks, and what was used between them. Pure.

use std::collections::BTreeMap;

use crate::object::gather::Gather;
use crate::world::{BootTime, Cpu, Sample, Usage};

/// What one look leaves behind to compare the next one with: processor time by cgroup.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Base {
    pub at: BootTime,
    counters: BTreeMap<String, u64>,
}

/// Every usage of a sample, with a name and when its counter was 0 (if that was later than boot).
fn every(sample: &mut Sample) -> Vec<(String, Option<BootTime>, &mut Usage)> {
    let mut all = vec![(String::new(), None, &mut sample.node)];
    for system in &mut sample.system {
        all.push((system.name.to_owned(), None, &mut system.usage));
    }
    for pod in &mut sample.pods {
        all.push((pod.cgroup.clone(), Some(pod.started.boot), &mut pod.usage));
        for container in &mut pod.containers {
            let started = Some(container.started.boot);
            all.push((container.cgroup.clone(), started, &mut container.usage));
        }
    }
    all
}

impl Base {
    pub fn of(sample: &mut Sample) -> Base {
        let at = sample.at.boot;
        let counters = every(sample).into_iter();
        let counters = counters.filter_map(|(name, _, usage)| Some((name, usage.cpu?.total_ns)));
        Base {
            at,
            counters: counters.gathered(),
        }
    }
}

/// Fills in `nano_cores` and `window`. What began after `base` is reckoned from its own start.
pub fn fill(sample: &mut Sample, base: &Base) {
    let now = sample.at.boot;
    sample.window = now.since(base.at);
    for (name, started, usage) in every(sample) {
        let Some(cpu) = &mut usage.cpu else {
            continue;
        };
        let (before, since) = match (base.counters.get(&name), started) {
            // A counter that fell is another cgroup of the same name.
            (Some(before), _) if *before <= cpu.total_ns => (*before, base.at),
            (_, Some(started)) if started >= base.at => (0, started),
            _ => continue,
        };
        cpu.nano_cores = rate(*cpu, before, now.since(since).as_nanos());
    }
}

fn rate(cpu: Cpu, before: u64, span_ns: u128) -> Option<u64> {
    let used = u128::from(cpu.total_ns.saturating_sub(before));
    let cores = (used * 1_000_000_000).checked_div(span_ns)?;
    u64::try_from(cores).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime::stats::tests::sample;
    use crate::world::Cpu;

    fn with_cpu(at_s: u64, started_s: u64, total_ns: u64) -> Sample {
        let mut sample = sample(at_s, started_s);
        sample.pods[0].containers[0].usage.cpu = Some(Cpu {
            total_ns,
            ..Cpu::default()
        });
        sample
    }

    fn nano_cores(sample: &Sample) -> Option<u64> {
        sample.pods[0].containers[0].usage.cpu.unwrap().nano_cores
    }

    #[test]
    fn a_rate_is_what_was_used_between_two_looks() {
        for (started, before, base_at, total, wanted) in [
            // Half a processor for ten seconds.
            (1, 1_000, 10, 5_000_001_000, Some(500_000_000)),
            // Began four seconds ago, after the first look: 1 s used.
            (16, 0, 10, 1_000_000_000, Some(250_000_000)),
            // The counter fell and the start is old: nothing is known.
            (1, 9_000, 10, 1_000, None),
        ] {
            let mut old = with_cpu(base_at, started, before);
            if started > base_at {
                old.pods.clear();
            }
            let base = Base::of(&mut old);
            let mut new = with_cpu(20, started, total);
            fill(&mut new, &base);
            assert_eq!(nano_cores(&new), wanted, "{started} {before} {total}");
            assert_eq!(new.window.as_secs(), 10);
        }
    }
}
