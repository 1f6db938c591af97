//! Cgroup figures, classes, out-of-memory scores.

use k8s_openapi::api::core::v1::Pod;
use serde_json::{Value, json};

use super::{container, pod};
use crate::kubelet::resources::{container_resources, cpu_shares, oom_score_adj, pod_cgroup};
use crate::object::resources::qos_class;
use crate::world::QosClass;

fn with_resources(regular: &[Value], init: &[Value]) -> Pod {
    let list = |all: &[Value], name: &str| -> Value {
        let numbered = all.iter().enumerate().map(|(at, value)| {
            let mut value = value.clone();
            value["name"] = json!(format!("{name}{at}"));
            value
        });
        numbered.collect()
    };
    pod(json!({"containers": list(regular, "c"), "initContainers": list(init, "i")}))
}

fn limits(cpu: &str, memory: &str) -> Value {
    json!({"resources": {"limits": {"cpu": cpu, "memory": memory}}})
}

fn requests(cpu: &str, memory: &str) -> Value {
    json!({"resources": {"requests": {"cpu": cpu, "memory": memory}}})
}

#[test]
fn shares_follow_upstreams_integers() {
    for (milli, shares) in [
        (0, 2),
        (1, 2),
        (100, 102),
        (250, 256),
        (1000, 1024),
        (4000, 4096),
        (1_000_000, 262_144),
    ] {
        assert_eq!(cpu_shares(milli), shares, "{milli}m");
    }
    let limited = container_resources(&container(limits("500m", "64Mi")));
    assert_eq!(
        limited.cpu_shares,
        Some(512),
        "a limit alone is the request too"
    );
    assert_eq!(
        (limited.cpu_quota_us, limited.cpu_period_us),
        (Some(50_000), Some(100_000))
    );
    assert_eq!(limited.memory_bytes_max, Some(64 << 20));
    let tiny = container_resources(&container(limits("1m", "1Mi")));
    assert_eq!(tiny.cpu_quota_us, Some(1000), "never below a millisecond");
}

#[test]
fn classes_and_pod_figures_follow_requests_and_limits() {
    let none = json!({});
    for (regular, init, class, shares, quota, memory) in [
        (
            vec![none.clone()],
            vec![],
            QosClass::BestEffort,
            2,
            None,
            None,
        ),
        (
            vec![requests("0", "0")],
            vec![],
            QosClass::BestEffort,
            2,
            None,
            None,
        ),
        (
            vec![limits("1", "1Mi")],
            vec![],
            QosClass::Guaranteed,
            1024,
            Some(100_000),
            Some(1 << 20),
        ),
        (
            vec![limits("1", "1Mi"), limits("1", "1Mi")],
            vec![limits("3", "1Mi")],
            QosClass::Guaranteed,
            3072,
            Some(300_000),
            Some(2 << 20),
        ),
        (
            vec![limits("1", "1Mi")],
            vec![none.clone()],
            QosClass::Burstable,
            1024,
            None,
            None,
        ),
        (
            vec![requests("100m", "1Mi")],
            vec![],
            QosClass::Burstable,
            102,
            None,
            None,
        ),
    ] {
        let pod = with_resources(&regular, &init);
        let cgroup = pod_cgroup(&pod, Some(64));
        assert_eq!(
            (qos_class(&pod), cgroup.qos),
            (class, class),
            "{regular:?} {init:?}"
        );
        let figures = &cgroup.resources;
        assert_eq!(figures.cpu_shares, Some(shares), "{regular:?} {init:?}");
        assert_eq!(
            (figures.cpu_quota_us, figures.memory_bytes_max),
            (quota, memory)
        );
        assert_eq!(figures.pids_max, Some(64));
    }
}

#[test]
fn sidecars_count_beside_what_runs_with_them() {
    let sidecar = |cpu: &str| {
        let mut value = requests(cpu, "1Mi");
        value["restartPolicy"] = json!("Always");
        value
    };
    for (regular, init, shares) in [
        // Regular and sidecar together, against init after the sidecar.
        (vec![requests("1", "1Mi")], vec![sidecar("1")], 2048),
        (
            vec![requests("1", "1Mi")],
            vec![sidecar("1"), requests("3", "1Mi")],
            4096,
        ),
        (
            vec![requests("1", "1Mi")],
            vec![requests("3", "1Mi"), sidecar("1")],
            3072,
        ),
    ] {
        let cgroup = pod_cgroup(&with_resources(&regular, &init), None);
        assert_eq!(
            cgroup.resources.cpu_shares,
            Some(shares),
            "{regular:?} {init:?}"
        );
    }
}

#[test]
fn oom_scores_follow_class_and_memory() {
    let score = |pod: &Pod| {
        oom_score_adj(
            pod,
            &pod.spec.as_ref().expect("a spec").containers[0],
            1 << 30,
        )
    };
    for (resources, expected) in [
        (json!({}), 1000),
        (limits("1", "64Mi"), -997),
        (requests("1", "0"), 999),
        (requests("1", "512Mi"), 500),
        (requests("1", "2Gi"), 3),
    ] {
        assert_eq!(
            score(&with_resources(std::slice::from_ref(&resources), &[])),
            expected,
            "{resources}"
        );
    }
    for (priority, expected) in [(2_000_001_000, -997), (2_000_000_000, 1000)] {
        let critical = pod(json!({"priority": priority}));
        assert_eq!(score(&critical), expected, "{priority}");
    }
    let mut sidecar = requests("1", "1Mi");
    sidecar["restartPolicy"] = json!("Always");
    let pod = with_resources(&[requests("1", "512Mi")], &[sidecar]);
    let spec = pod.spec.as_ref().expect("a spec");
    let init = &spec.init_containers.as_ref().expect("init")[0];
    assert_eq!(oom_score_adj(&pod, init, 1 << 30), 500);
}

#[test]
fn the_pod_is_limited_only_if_every_container_is() {
    let half = json!({"resources": {"limits": {"memory": "1Mi"}}});
    for (regular, quota, memory) in [
        (vec![limits("1", "1Mi"), json!({})], None, None),
        (vec![limits("1", "1Mi"), half.clone()], None, Some(2 << 20)),
        (vec![half], None, Some(1 << 20)),
    ] {
        let cgroup = pod_cgroup(&with_resources(&regular, &[]), None);
        assert_eq!(cgroup.qos, QosClass::Burstable);
        let figures = (
            cgroup.resources.cpu_quota_us,
            cgroup.resources.memory_bytes_max,
        );
        assert_eq!(figures, (quota, memory), "{regular:?}");
    }
}
