//! Rows of pods: one status word out of phase, reasons and every container's state.

use jiff::Timestamp;
use serde_json::Value;

use super::{Column, Row, age, duration, name, plain, text_or, wide};

pub const COLUMNS: &[Column] = &[
    plain("Name"),
    plain("Ready"),
    plain("Status"),
    plain("Restarts"),
    plain("Age"),
    wide("IP"),
    wide("Node"),
    wide("Nominated Node"),
    wide("Readiness Gates"),
];

pub fn row(pod: &Value, now: Timestamp) -> Row {
    let summary = summary(pod);
    let (spec, status) = (&pod["spec"], &pod["status"]);
    let restarts = match summary.restarted.filter(|_| summary.restarts > 0) {
        Some(at) => {
            let ago = duration::human(now.as_second() - at.as_second());
            format!("{} ({ago} ago)", summary.restarts)
        }
        None => summary.restarts.to_string(),
    };
    let cells = vec![
        name(pod),
        format!("{}/{}", summary.ready, summary.containers).into(),
        summary.status.into(),
        restarts.into(),
        age(pod, now),
        text_or(
            &status["podIP"],
            text_or(&status["podIPs"][0]["ip"], "<none>"),
        )
        .into(),
        text_or(&spec["nodeName"], "<none>").into(),
        text_or(&status["nominatedNodeName"], "<none>").into(),
        readiness_gates(pod).into(),
    ];
    let ended = match status["phase"].as_str() {
        Some("Succeeded") => Some("The pod has completed successfully."),
        Some("Failed") => Some("The pod failed."),
        _ => None,
    };
    let phase = text_or(&status["phase"], "").to_owned();
    Row {
        cells,
        completed: ended.map(|message| (phase, message.to_owned())),
    }
}

/// What the cells of a pod are made from.
#[derive(Debug, PartialEq, Eq)]
pub struct Summary {
    pub status: String,
    pub ready: usize,
    /// Regular containers and sidecars.
    pub containers: usize,
    pub restarts: i64,
    /// End of the newest instance that was replaced.
    pub restarted: Option<Timestamp>,
}

pub fn summary(pod: &Value) -> Summary {
    let (spec, status) = (&pod["spec"], &pod["status"]);
    let sidecars = list(&spec["initContainers"])
        .filter(|c| is_sidecar(c))
        .count();
    let phase = text_or(&status["phase"], "");
    let mut summary = Summary {
        status: text_or(&status["reason"], phase).to_owned(),
        ready: 0,
        containers: list(&spec["containers"]).count() + sidecars,
        restarts: 0,
        restarted: None,
    };
    let scheduled = condition(status, "PodScheduled");
    if scheduled.is_some_and(|condition| condition["reason"] == "SchedulingGated") {
        summary.status = "SchedulingGated".to_owned();
    }
    let initializing = initialize(pod, &mut summary);
    let initialized = condition(status, "Initialized").is_some_and(|c| c["status"] == "True");
    if !initializing || initialized {
        // What init containers took before the pod ran is not of interest any more.
        summary.restarts = 0;
        summary.restarted = None;
        let of_sidecars = |found: &&Value| is_sidecar(declared(pod, found));
        for sidecar in list(&status["initContainerStatuses"]).filter(of_sidecars) {
            count_restarts(sidecar, &mut summary);
        }
        run(pod, &mut summary);
    }
    if pod["metadata"]["deletionTimestamp"].is_string() {
        if status["reason"] == "NodeLost" {
            summary.status = "Unknown".to_owned();
        } else if !matches!(phase, "Succeeded" | "Failed") {
            summary.status = "Terminating".to_owned();
        }
    }
    summary
}

/// Walks the init containers to the first that is not through; whether there is one.
fn initialize(pod: &Value, summary: &mut Summary) -> bool {
    let (spec, status) = (&pod["spec"], &pod["status"]);
    for (index, container) in list(&status["initContainerStatuses"]).enumerate() {
        count_restarts(container, summary);
        let (waiting, terminated) = (
            &container["state"]["waiting"],
            &container["state"]["terminated"],
        );
        if terminated["exitCode"] == 0 {
            continue;
        }
        if is_sidecar(declared(pod, container)) && container["started"] == true {
            summary.ready += usize::from(container["ready"] == true);
            continue;
        }
        let reason = text_or(&waiting["reason"], "");
        summary.status = if terminated.is_object() {
            format!("Init:{}", ended(terminated))
        } else if !matches!(reason, "" | "PodInitializing") {
            format!("Init:{reason}")
        } else {
            format!("Init:{index}/{}", list(&spec["initContainers"]).count())
        };
        return true;
    }
    false
}

/// Walks the regular containers from last to first, as upstream does: the first one's word wins.
fn run(pod: &Value, summary: &mut Summary) {
    let status = &pod["status"];
    let mut running = false;
    let mut failed = None;
    let containers = status["containerStatuses"].as_array();
    for container in containers.into_iter().flatten().rev() {
        count_restarts(container, summary);
        let state = &container["state"];
        let waiting = text_or(&state["waiting"]["reason"], "");
        if !waiting.is_empty() {
            summary.status = waiting.to_owned();
        } else if state["terminated"].is_object() {
            summary.status = ended(&state["terminated"]);
            if state["terminated"]["exitCode"] != 0 {
                failed = Some(summary.status.clone());
            }
        } else if container["ready"] == true && state["running"].is_object() {
            running = true;
            summary.ready += 1;
        }
    }
    if summary.status == "Completed" {
        let ready = condition(status, "Ready").is_some_and(|c| c["status"] == "True");
        match failed {
            _ if running && ready => summary.status = "Running".to_owned(),
            Some(failed) => summary.status = failed,
            None if running => summary.status = "NotReady".to_owned(),
            None => {}
        }
    }
}

fn ended(terminated: &Value) -> String {
    match (
        text_or(&terminated["reason"], ""),
        terminated["signal"].as_i64(),
    ) {
        ("", None | Some(0)) => {
            format!("ExitCode:{}", terminated["exitCode"].as_i64().unwrap_or(0))
        }
        ("", Some(signal)) => format!("Signal:{signal}"),
        (reason, _) => reason.to_owned(),
    }
}

fn count_restarts(container: &Value, summary: &mut Summary) {
    summary.restarts += container["restartCount"].as_i64().unwrap_or(0);
    let last = duration::parse(&container["lastState"]["terminated"]["finishedAt"]);
    summary.restarted = summary.restarted.max(last);
}

fn is_sidecar(container: &Value) -> bool {
    container["restartPolicy"] == "Always"
}

/// The init container of the spec that a status is about.
fn declared<'a>(pod: &'a Value, status: &Value) -> &'a Value {
    list(&pod["spec"]["initContainers"])
        .find(|container| container["name"] == status["name"])
        .unwrap_or(&Value::Null)
}

fn readiness_gates(pod: &Value) -> String {
    let gates: Vec<&Value> = list(&pod["spec"]["readinessGates"]).collect();
    let passed = |gate: &&&Value| {
        let kind = gate["conditionType"].as_str().unwrap_or_default();
        condition(&pod["status"], kind).is_some_and(|condition| condition["status"] == "True")
    };
    match gates.len() {
        0 => "<none>".to_owned(),
        all => format!("{}/{all}", gates.iter().filter(passed).count()),
    }
}

fn condition<'a>(status: &'a Value, kind: &str) -> Option<&'a Value> {
    list(&status["conditions"]).find(|condition| condition["type"] == kind)
}

fn list(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn waiting(reason: &str) -> Value {
        json!({"name": "a", "ready": false, "state": {"waiting": {"reason": reason}}})
    }

    fn running() -> Value {
        json!({"name": "b", "ready": true, "started": true, "state": {"running": {}}})
    }

    fn terminated(reason: &str, code: i64, signal: i64) -> Value {
        let ended = json!({"reason": reason, "exitCode": code, "signal": signal});
        json!({"name": "a", "ready": false, "state": {"terminated": ended}})
    }

    fn with(phase: &str, init: Value, containers: Value) -> Value {
        let declared = |statuses: &Value| -> Vec<Value> {
            list(statuses).map(|s| json!({"name": s["name"]})).collect()
        };
        json!({
            "metadata": {"name": "web"},
            "spec": {"containers": declared(&containers), "initContainers": declared(&init)},
            "status": {"phase": phase, "initContainerStatuses": init, "containerStatuses": containers},
        })
    }

    /// A pod, its status cell, its ready cell.
    fn status_cells() -> Vec<(Value, &'static str, &'static str)> {
        let none = || json!([]);
        vec![
            (with("Pending", none(), none()), "Pending", "0/0"),
            (
                with("Running", none(), json!([running()])),
                "Running",
                "1/1",
            ),
            (
                with("Pending", none(), json!([waiting("ContainerCreating")])),
                "ContainerCreating",
                "0/1",
            ),
            (
                with(
                    "Running",
                    none(),
                    json!([waiting("CrashLoopBackOff"), running()]),
                ),
                "CrashLoopBackOff",
                "1/2",
            ),
            (
                with("Succeeded", none(), json!([terminated("Completed", 0, 0)])),
                "Completed",
                "0/1",
            ),
            (
                with(
                    "Failed",
                    none(),
                    json!([terminated("Completed", 0, 0), terminated("Error", 1, 0)]),
                ),
                "Error",
                "0/2",
            ),
            (
                with("Failed", none(), json!([terminated("", 3, 0)])),
                "ExitCode:3",
                "0/1",
            ),
            (
                with("Failed", none(), json!([terminated("", 137, 9)])),
                "Signal:9",
                "0/1",
            ),
            (
                with(
                    "Running",
                    none(),
                    json!([terminated("Completed", 0, 0), running()]),
                ),
                "NotReady",
                "1/2",
            ),
        ]
    }

    fn cells_while_initializing() -> Vec<(Value, &'static str, &'static str)> {
        let none = || json!([]);
        vec![
            (
                with("Pending", json!([waiting("PodInitializing")]), none()),
                "Init:0/1",
                "0/0",
            ),
            (
                with("Pending", json!([waiting("ImagePullBackOff")]), none()),
                "Init:ImagePullBackOff",
                "0/0",
            ),
            (
                with("Pending", json!([terminated("", 1, 0)]), none()),
                "Init:ExitCode:1",
                "0/0",
            ),
            (
                with("Pending", json!([terminated("", 137, 9)]), none()),
                "Init:Signal:9",
                "0/0",
            ),
            (
                with("Pending", json!([terminated("Error", 1, 0)]), none()),
                "Init:Error",
                "0/0",
            ),
            (
                with(
                    "Running",
                    json!([terminated("Completed", 0, 0)]),
                    json!([running()]),
                ),
                "Running",
                "1/1",
            ),
        ]
    }

    #[test]
    fn the_status_cell_reads_as_in_kubectl() {
        for (pod, status, ready) in status_cells().into_iter().chain(cells_while_initializing()) {
            let summary = summary(&pod);
            let shown = format!("{}/{}", summary.ready, summary.containers);
            assert_eq!(
                (summary.status.as_str(), shown.as_str()),
                (status, ready),
                "{pod}"
            );
        }
    }

    #[test]
    fn reasons_and_deletion_override_the_phase() {
        let mut pod = with(
            "Running",
            json!([]),
            json!([terminated("Completed", 0, 0), running()]),
        );
        pod["status"]["conditions"] = json!([{"type": "Ready", "status": "True"}]);
        assert_eq!(summary(&pod).status, "Running");
        pod["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
        assert_eq!(summary(&pod).status, "Terminating");
        pod["status"]["reason"] = json!("NodeLost");
        assert_eq!(summary(&pod).status, "Unknown");
        let mut pod = with("Failed", json!([]), json!([]));
        pod["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
        assert_eq!(summary(&pod).status, "Failed");
        pod["status"]["reason"] = json!("Evicted");
        assert_eq!(summary(&pod).status, "Evicted");
        let rejected = json!({"status": {"phase": "Pending", "reason": "InvalidManifest"}});
        assert_eq!(summary(&rejected).status, "InvalidManifest");
        let gated = json!({"status": {"phase": "Pending", "conditions": [
            {"type": "PodScheduled", "status": "False", "reason": "SchedulingGated"}]}});
        assert_eq!(summary(&gated).status, "SchedulingGated");
    }

    #[test]
    fn a_sidecar_counts_as_a_container() {
        let mut pod = with("Running", json!([running()]), json!([running()]));
        pod["spec"]["initContainers"][0]["restartPolicy"] = json!("Always");
        pod["status"]["initContainerStatuses"][0]["restartCount"] = json!(2);
        let summary = summary(&pod);
        assert_eq!(
            (summary.ready, summary.containers, summary.restarts),
            (2, 2, 2)
        );
    }

    #[test]
    fn restarts_show_how_long_ago_the_last_was() {
        let now = "2026-01-01T00:10:00Z".parse().expect("time");
        let mut pod = with("Running", json!([]), json!([running()]));
        let cell = |pod: &Value| row(pod, now).cells[3].clone();
        assert_eq!(cell(&pod), "0");
        let container = &mut pod["status"]["containerStatuses"][0];
        container["restartCount"] = json!(3);
        assert_eq!(cell(&pod), "3");
        let container = &mut pod["status"]["containerStatuses"][0];
        container["lastState"] = json!({"terminated": {"finishedAt": "2026-01-01T00:08:00Z"}});
        assert_eq!(cell(&pod), "3 (2m ago)");
    }

    #[test]
    fn a_pod_that_ended_is_marked_completed() {
        let now = Timestamp::UNIX_EPOCH;
        let completed = |phase: &str| row(&with(phase, json!([]), json!([])), now).completed;
        assert_eq!(completed("Running"), None);
        assert_eq!(completed("Failed").expect("condition").0, "Failed");
    }
}
