//! `/metrics/probes`: how often probes were made, how they came out, how long they took. Pure.
//!
//! Source: Kubernetes pkg/kubelet/prober (prober_manager.go, worker.go).

use super::exposition::{Family, Type, render};
use crate::world::figures::{Figures, PROBE_BUCKETS_S};

pub fn text(figures: &Figures) -> String {
    let mut total = Family::new(
        "prober_probe_total",
        Type::Counter,
        "Cumulative number of a liveness, readiness or startup probe for a container by result.",
    );
    let mut durations = Family::new(
        "prober_probe_duration_seconds",
        Type::Histogram,
        "Duration in seconds for a probe response.",
    );
    for (probed, counts) in figures.probes() {
        let labels = [
            ("container", probed.container.as_str()),
            ("namespace", &probed.namespace),
            ("pod", &probed.pod),
            ("probe_type", probed.probe),
        ];
        for (result, count) in [
            ("successful", counts.successful),
            ("failed", counts.failed),
            ("unknown", counts.unknown),
        ] {
            if count > 0 {
                let more = [("pod_uid", probed.uid.as_str()), ("result", result)];
                total.add(&[&labels[..], &more].concat(), count as f64, None);
            }
        }
        if counts.successful > 0 {
            let buckets = PROBE_BUCKETS_S.iter().copied().zip(counts.buckets);
            durations.add_histogram(&labels, buckets, counts.successful, counts.sum_s);
        }
    }
    render(vec![total, durations])
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::world::Uid;
    use crate::world::figures::{ProbeResult, Probed};

    #[test]
    fn probes_are_counted_by_result_until_their_pod_is_gone() {
        let figures = Figures::default();
        let probed = |uid: &str| Probed {
            uid: Uid::new(uid).expect("a uid"),
            namespace: "default".to_owned(),
            pod: "web".to_owned(),
            container: "c".to_owned(),
            probe: "Readiness",
        };
        let note = |uid, result, ms| {
            figures.note_probe(probed(uid), result, Duration::from_millis(ms));
        };
        note("u1", ProbeResult::Successful, 20);
        note("u1", ProbeResult::Successful, 3000);
        note("u1", ProbeResult::Failed, 1000);
        note("u2", ProbeResult::Unknown, 1);
        let written = text(&figures);
        let labels = "container=\"c\",namespace=\"default\",pod=\"web\"";
        let (seconds, kind) = ("prober_probe_duration_seconds", "probe_type=\"Readiness\"");
        for line in [
            format!(
                "prober_probe_total{{{labels},pod_uid=\"u1\",{kind},result=\"successful\"}} 2\n"
            ),
            format!("prober_probe_total{{{labels},pod_uid=\"u1\",{kind},result=\"failed\"}} 1\n"),
            format!("prober_probe_total{{{labels},pod_uid=\"u2\",{kind},result=\"unknown\"}} 1\n"),
            "# TYPE prober_probe_duration_seconds histogram\n".to_owned(),
            format!("{seconds}_bucket{{{labels},{kind},le=\"0.01\"}} 0\n"),
            format!("{seconds}_bucket{{{labels},{kind},le=\"0.025\"}} 1\n"),
            format!("{seconds}_bucket{{{labels},{kind},le=\"10\"}} 2\n"),
            format!("{seconds}_bucket{{{labels},{kind},le=\"+Inf\"}} 2\n"),
            format!("{seconds}_sum{{{labels},{kind}}} 3.02\n"),
            format!("{seconds}_count{{{labels},{kind}}} 2\n"),
        ] {
            assert!(written.contains(&line), "{line} in {written}");
        }
        figures.forget(&Uid::new("u1").expect("a uid"));
        assert!(!text(&figures).contains("u1"));
    }
}
