//! Statistics of real containers: over the socket, through kubectl and the small client.

use std::process::Command;

use serde_json::Value;

use crate::isolation::isolated;
use crate::support::{FOREVER, Node, eventually, pod};
use crate::tls::kubectl;

/// Half a processor is busy, whatever else the machine does.
const BUSY_NANO_CORES: u64 = 20_000_000;
/// What the container with a file in memory holds at least.
const HELD_BYTES: u64 = 32 << 20;

const BUSY: &str = "while :; do :; done";
const HOLDS: &str = "head -c 33554432 /dev/zero >/dev/shm/held; echo held; exec sleep 1000000";

fn get(node: &Node, path: &str) -> String {
    let socket = node.run.join("api.sock");
    let output = Command::new("curl")
        .args([
            "--silent",
            "--show-error",
            "--max-time",
            "30",
            "--unix-socket",
        ])
        .arg(socket)
        .arg(format!("http://localhost{path}"))
        .output()
        .expect("curl");
    assert!(output.status.success(), "{path}: {output:?}");
    String::from_utf8(output.stdout).expect("UTF-8")
}

fn of_pod(summary: &Value, name: &str) -> Option<Value> {
    let mut pods = summary["pods"].as_array()?.iter();
    pods.find(|pod| pod["podRef"]["name"] == name).cloned()
}

#[test]
fn a_busy_container_shows_in_cpu_and_a_large_one_in_memory() {
    isolated(|place| {
        let node = Node::started(place);
        node.manifest("busy.yaml", &pod("busy", BUSY, "", ""));
        node.manifest("large.yaml", &pod("large", HOLDS, "", ""));
        node.up("busy");
        node.said("large", "held");
        let summary = || -> Value {
            let text = get(&node, "/api/v1/nodes/n/proxy/stats/summary");
            serde_json::from_str(&text).expect("JSON")
        };
        let number = |value: &Value| value.as_u64().unwrap_or(0);
        eventually("the busy container's rate", || {
            let busy = of_pod(&summary(), "busy-n").unwrap_or_default();
            number(&busy["containers"][0]["cpu"]["usageNanoCores"]) > BUSY_NANO_CORES
        });
        let all = summary();
        let large = of_pod(&all, "large-n").expect("the pod");
        assert!(
            number(&large["memory"]["workingSetBytes"]) > HELD_BYTES,
            "{large}"
        );
        assert!(
            number(&large["containers"][0]["cpu"]["usageCoreNanoSeconds"]) > 0,
            "{large}"
        );
        assert_eq!(large["network"]["name"], "eth0", "{large}");
        assert!(
            number(&large["containers"][0]["logs"]["usedBytes"]) > 0,
            "{large}"
        );
        assert!(
            number(&large["ephemeral-storage"]["usedBytes"]) > 0,
            "{large}"
        );
        for part in ["cpu", "memory", "fs", "network"] {
            assert!(all["node"][part].is_object(), "{part}: {}", all["node"]);
        }
        assert!(number(&all["node"]["fs"]["capacityBytes"]) > 0);

        let resource = get(&node, "/metrics/resource");
        let line = "container_memory_working_set_bytes{container=\"c\",namespace=\"default\",pod=\"large-n\"}";
        assert!(resource.contains(line), "{resource}");
        let cadvisor = get(&node, "/metrics/cadvisor");
        assert!(
            cadvisor.contains("container_cpu_usage_seconds_total{container=\"c\",cpu=\"total\"")
        );
        assert!(
            cadvisor.contains("container_network_receive_bytes_total{"),
            "{cadvisor}"
        );

        let top = node.ok(&["top", "pod"]);
        assert!(top.contains("busy-n") && top.contains("large-n"), "{top}");
        let top = node.ok(&["top", "node"]);
        assert!(top.contains('%') && !top.contains("<unknown>"), "{top}");
        node.finish();
    });
}

#[test]
fn kubectl_top_shows_nodes_pods_and_containers() {
    isolated(|place| {
        let Some(kubectl) = kubectl() else {
            return println!("skipped: no kubectl; run tests/kubectl or set LOWTIDE_KUBECTL");
        };
        let node = Node::started(place);
        node.manifest("a.yaml", &pod("web", FOREVER, "", ""));
        node.up("web");
        let top = |arguments: &[&str]| {
            let output = Command::new(&kubectl)
                .arg("--kubeconfig")
                .arg(node.root.join("admin.kubeconfig"))
                .arg("top")
                .args(arguments)
                .env("HOME", place)
                .output()
                .expect("kubectl");
            let errors = String::from_utf8_lossy(&output.stderr);
            assert!(output.status.success(), "{arguments:?}: {errors}");
            String::from_utf8_lossy(&output.stdout).into_owned()
        };
        let nodes = top(&["node"]);
        assert!(nodes.starts_with("NAME") && nodes.contains('%'), "{nodes}");
        assert!(top(&["pod", "-A"]).contains("web-n"));
        let containers = top(&["pod", "--containers", "web-n"]);
        let words: Vec<&str> = containers.split_whitespace().collect();
        assert!(
            words.windows(2).any(|pair| pair == ["web-n", "c"]),
            "{containers}"
        );
        node.finish();
    });
}
