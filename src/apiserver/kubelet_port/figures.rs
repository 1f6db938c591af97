//! `/metrics` of a kubelet: what runs here, before the figures of the program. Pure.
//!
//! Source: Kubernetes pkg/kubelet/metrics.

use serde_json::Value;

use crate::apiserver::metrics::{head, line};

/// What dashboards count a node by.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Running {
    pods: usize,
    containers_running: usize,
    containers_exited: usize,
}

impl Running {
    /// Adds one pod, by its status.
    pub fn add(&mut self, status: &Value) {
        self.pods += usize::from(status["phase"] == "Running");
        for field in [
            "containerStatuses",
            "initContainerStatuses",
            "ephemeralContainerStatuses",
        ] {
            for container in status[field].as_array().into_iter().flatten() {
                let state = &container["state"];
                self.containers_running += usize::from(state["running"].is_object());
                self.containers_exited += usize::from(state["terminated"].is_object());
            }
        }
    }

    /// Prometheus text format 0.0.4.
    pub fn text(&self, node_name: &str) -> String {
        let mut text = String::new();
        let name = "kubelet_node_name";
        head(&mut text, name, "gauge", "The node's name.");
        line(&mut text, name, &format!("node={node_name:?}"), 1);
        let name = "kubelet_running_pods";
        head(&mut text, name, "gauge", "Pods that run.");
        text.push_str(&format!("{name} {}\n", self.pods));
        let name = "kubelet_running_containers";
        head(&mut text, name, "gauge", "Containers by their state.");
        for (state, count) in [
            ("running", self.containers_running),
            ("exited", self.containers_exited),
        ] {
            line(
                &mut text,
                name,
                &format!("container_state={state:?}"),
                count,
            );
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn pods_and_containers_are_counted_by_their_state() {
        let mut running = Running::default();
        let (runs, ended) = (
            json!({"running": {}}),
            json!({"terminated": {"exitCode": 0}}),
        );
        for status in [
            json!({"phase": "Running", "containerStatuses": [{"state": runs}, {"state": ended}],
                "initContainerStatuses": [{"state": ended}],
                "ephemeralContainerStatuses": [{"state": runs}]}),
            json!({"phase": "Pending", "containerStatuses": [{"state": {"waiting": {}}}]}),
            json!({"phase": "Succeeded", "containerStatuses": [{"state": ended}]}),
            json!({}),
        ] {
            running.add(&status);
        }
        let text = running.text("pi");
        for part in [
            "kubelet_node_name{node=\"pi\"} 1\n",
            "kubelet_running_pods 1\n",
            "kubelet_running_containers{container_state=\"running\"} 2\n",
            "kubelet_running_containers{container_state=\"exited\"} 3\n",
        ] {
            assert!(text.contains(part), "{part} in {text}");
        }
    }
}
