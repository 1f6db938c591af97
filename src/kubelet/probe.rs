//! Probe thresholds, as a value: a row of verdicts in, changes of the result out.
//!
//! ```text
//!   unknown ──successes ≥ successThreshold──► success ──failures ≥ failureThreshold──► failure
//!      └──────failures ≥ failureThreshold──────────────────────────────────────────────►┘ … and back
//! ```
//! Source: Kubernetes pkg/kubelet/prober/worker.go.

use std::time::Duration;

use k8s_openapi::api::core::v1::Probe;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    Success,
    Failure,
}

/// The whole-second figures of a probe with upstream's defaults and floors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Figures {
    pub initial_delay: Duration,
    pub period: Duration,
    pub timeout: Duration,
    pub success_threshold: u32,
    pub failure_threshold: u32,
    pub grace: Option<Duration>,
}

impl Figures {
    pub fn of(probe: &Probe) -> Figures {
        let seconds = |value: Option<i32>, default: i32, least: i32| {
            let value = value.filter(|v| *v > 0).unwrap_or(default).max(least);
            Duration::from_secs(u64::from(value.unsigned_abs()))
        };
        let count = |value: Option<i32>, default: u32| {
            let value = value.filter(|v| *v > 0);
            value.map_or(default, i32::unsigned_abs)
        };
        let grace = probe.termination_grace_period_seconds;
        Figures {
            initial_delay: seconds(probe.initial_delay_seconds, 0, 0),
            period: seconds(probe.period_seconds, 10, 1),
            timeout: seconds(probe.timeout_seconds, 1, 1),
            success_threshold: count(probe.success_threshold, 1),
            failure_threshold: count(probe.failure_threshold, 3),
            grace: grace.map(|s| Duration::from_secs(s.max(0).unsigned_abs())),
        }
    }
}

/// Counts verdicts in a row; the result changes when a row is long enough.
#[derive(Clone, Debug)]
pub struct Threshold {
    success: u32,
    failure: u32,
    result: Option<Verdict>,
    last: Option<Verdict>,
    row: u32,
}

impl Threshold {
    /// `result`: what holds before the first verdict (liveness starts as success, readiness as
    /// failure, startup unknown; a probe that goes on after a restart of the agent with what was).
    pub fn new(figures: &Figures, result: Option<Verdict>) -> Threshold {
        Threshold {
            success: figures.success_threshold,
            failure: figures.failure_threshold,
            result,
            last: None,
            row: 0,
        }
    }

    /// Takes a verdict; `Some` when the result changes with it.
    pub fn observe(&mut self, verdict: Verdict) -> Option<Verdict> {
        if self.last == Some(verdict) {
            self.row = self.row.saturating_add(1);
        } else {
            self.last = Some(verdict);
            self.row = 1;
        }
        let needed = match verdict {
            Verdict::Success => self.success,
            Verdict::Failure => self.failure,
        };
        if self.row < needed || self.result == Some(verdict) {
            return None;
        }
        self.result = Some(verdict);
        Some(verdict)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(success: i32, failure: i32, start: Option<Verdict>, verdicts: &str) -> String {
        let probe = Probe {
            success_threshold: Some(success),
            failure_threshold: Some(failure),
            ..Probe::default()
        };
        let mut threshold = Threshold::new(&Figures::of(&probe), start);
        let letters = verdicts.chars().map(|letter| {
            let verdict = if letter == 's' {
                Verdict::Success
            } else {
                Verdict::Failure
            };
            match threshold.observe(verdict) {
                None => '.',
                Some(Verdict::Success) => 'S',
                Some(Verdict::Failure) => 'F',
            }
        });
        letters.collect()
    }

    #[test]
    fn the_result_changes_when_a_row_reaches_its_threshold() {
        use Verdict::{Failure, Success};
        for (success, failure, start, verdicts, changes) in [
            (1, 3, Some(Success), "ffsfff", ".....F"),
            (1, 1, Some(Failure), "sfs", "SFS"),
            (2, 1, Some(Failure), "ssfss", ".SF.S"),
            (1, 3, None, "ffs", "..S"),
            (1, 2, None, "ff", ".F"),
            (3, 3, Some(Success), "sss", "..."),
        ] {
            assert_eq!(
                run(success, failure, start, verdicts),
                changes,
                "{verdicts}"
            );
        }
    }

    #[test]
    fn absent_and_zero_figures_take_upstreams_defaults() {
        let figures = Figures::of(&Probe::default());
        assert_eq!(figures.period, Duration::from_secs(10));
        assert_eq!(figures.timeout, Duration::from_secs(1));
        assert_eq!(
            (figures.success_threshold, figures.failure_threshold),
            (1, 3)
        );
        assert_eq!(figures.initial_delay, Duration::ZERO);
    }
}
