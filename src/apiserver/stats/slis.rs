//! `/metrics/slis`: how the kubelet's checks of health come out, each time somebody asks.
//!
//! Source: Kubernetes component-base, metrics/prometheus/slis; pkg/kubelet/server/server.go.

use std::sync::atomic::{AtomicU64, Ordering};

use super::exposition::{Family, Type, render};

/// Looks that found the node well, and those that did not.
static LOOKS: [AtomicU64; 2] = [AtomicU64::new(0), AtomicU64::new(0)];

/// `well`: whether the node's own check passes. Who reads this is served: the others do.
pub fn text(well: bool) -> String {
    LOOKS[usize::from(!well)].fetch_add(1, Ordering::Relaxed);
    let [good, bad] = [&LOOKS[0], &LOOKS[1]].map(|looks| looks.load(Ordering::Relaxed));
    written(well, good, bad)
}

fn written(well: bool, good: u64, bad: u64) -> String {
    let mut now = Family::new(
        "kubernetes_healthcheck",
        Type::Gauge,
        "[STABLE] This metric records the result of a single healthcheck.",
    );
    let mut total = Family::new(
        "kubernetes_healthchecks_total",
        Type::Counter,
        "[STABLE] This metric records the results of all healthcheck.",
    );
    for name in ["ping", "log", "syncloop"] {
        let (well, good, bad) = match name {
            "syncloop" => (well, good, bad),
            _ => (true, good + bad, 0),
        };
        let labels = [("name", name), ("type", "healthz")];
        now.add(&labels, f64::from(u8::from(well)), None);
        for (status, count) in [("success", good), ("error", bad)] {
            if count > 0 {
                total.add(
                    &[labels[0], labels[1], ("status", status)],
                    count as f64,
                    None,
                );
            }
        }
    }
    render(vec![now, total])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_check_has_its_result_and_its_counts() {
        let text = written(false, 2, 1);
        for line in [
            "kubernetes_healthcheck{name=\"ping\",type=\"healthz\"} 1\n",
            "kubernetes_healthcheck{name=\"syncloop\",type=\"healthz\"} 0\n",
            "kubernetes_healthchecks_total{name=\"log\",status=\"success\",type=\"healthz\"} 3\n",
            "kubernetes_healthchecks_total{name=\"syncloop\",status=\"success\",type=\"healthz\"} 2\n",
            "kubernetes_healthchecks_total{name=\"syncloop\",status=\"error\",type=\"healthz\"} 1\n",
        ] {
            assert!(text.contains(line), "{line} in {text}");
        }
        assert!(!text.contains("name=\"ping\",status=\"error\""));
    }
}
