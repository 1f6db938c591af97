//! Figures that the node counts while it works and others show: turns and probes.
//!
//! Counted on the node's thread, read on any; a lock is held for one map operation. What is counted
//! of a pod is forgotten with it, so the table is as large as what is probed.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use super::runtime::Uid;

/// Upper bounds of durations, in seconds. Source: Prometheus client_golang, `DefBuckets`.
pub const PROBE_BUCKETS_S: [f64; 11] = [
    0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0,
];

/// One probe of one container.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Probed {
    pub uid: Uid,
    pub namespace: String,
    pub pod: String,
    pub container: String,
    /// `Liveness`, `Readiness`, `Startup`
    pub probe: &'static str,
}

/// How a probe came out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProbeResult {
    Successful,
    Failed,
    /// It could not be made.
    Unknown,
}

#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct ProbeCounts {
    pub successful: u64,
    pub failed: u64,
    pub unknown: u64,
    /// Of the successful ones: how many took no longer than each bound.
    pub buckets: [u64; PROBE_BUCKETS_S.len()],
    pub sum_s: f64,
}

#[derive(Debug, Default)]
pub struct Figures {
    turns: AtomicU64,
    probes: Mutex<BTreeMap<Probed, ProbeCounts>>,
}

impl Figures {
    /// A worker has looked at its pod and done what was due.
    pub fn note_turn(&self) {
        self.turns.fetch_add(1, Ordering::Relaxed);
    }

    /// Turns of all workers since the start.
    pub fn turns(&self) -> u64 {
        self.turns.load(Ordering::Relaxed)
    }

    pub fn note_probe(&self, probed: Probed, result: ProbeResult, took: Duration) {
        let mut probes = self.probes.lock().unwrap_or_else(PoisonError::into_inner);
        let counts = probes.entry(probed).or_default();
        match result {
            ProbeResult::Failed => counts.failed += 1,
            ProbeResult::Unknown => counts.unknown += 1,
            ProbeResult::Successful => {
                counts.successful += 1;
                let took_s = took.as_secs_f64();
                counts.sum_s += took_s;
                for (bucket, bound) in counts.buckets.iter_mut().zip(PROBE_BUCKETS_S) {
                    *bucket += u64::from(took_s <= bound);
                }
            }
        }
    }

    /// The pod is gone.
    pub fn forget(&self, uid: &Uid) {
        let mut probes = self.probes.lock().unwrap_or_else(PoisonError::into_inner);
        probes.retain(|probed, _| probed.uid != *uid);
    }

    pub fn probes(&self) -> BTreeMap<Probed, ProbeCounts> {
        let probes = self.probes.lock().unwrap_or_else(PoisonError::into_inner);
        probes.clone()
    }
}
