//! A pod's page.

use jiff::Timestamp;
use serde_json::Value;

use super::container;
use super::page::{Page, list, pairs, plain, time};

pub fn page(pod: &Value, standing: &Value, events: &[Value], now: Timestamp) -> Page {
    let mut page = Page::default();
    let (spec, status) = (&pod["spec"], &pod["status"]);
    header(&mut page, pod, standing);
    for (title, field, statuses) in [
        ("Init Containers", "initContainers", "initContainerStatuses"),
        ("Containers", "containers", "containerStatuses"),
        (
            "Ephemeral Containers",
            "ephemeralContainers",
            "ephemeralContainerStatuses",
        ),
    ] {
        if list(&spec[field]).next().is_some() {
            page.end_section();
            page.line(0, title, "");
        }
        for one in list(&spec[field]) {
            let mut found = list(&status[statuses]).filter(|status| status["name"] == one["name"]);
            container::describe(&mut page, one, found.next().unwrap_or(&Value::Null));
        }
    }
    conditions(&mut page, status);
    page.line(
        0,
        "Volumes",
        if spec["volumes"].is_array() {
            ""
        } else {
            "<none>"
        },
    );
    for volume in list(&spec["volumes"]) {
        container::volume(&mut page, volume);
    }
    page.end_section();
    page.line_if(0, "QoS Class", &status["qosClass"]);
    page.list(0, "Node-Selectors", &pairs(&spec["nodeSelector"], "="));
    let tolerations: Vec<String> = list(&spec["tolerations"]).map(toleration).collect();
    page.list(0, "Tolerations", &tolerations);
    page.events(events, now);
    page
}

fn header(page: &mut Page, pod: &Value, standing: &Value) {
    let (metadata, spec, status) = (&pod["metadata"], &pod["spec"], &pod["status"]);
    page.line(0, "Name", plain(&metadata["name"]));
    page.line(0, "Namespace", plain(&metadata["namespace"]));
    page.line_if(0, "Priority", &spec["priority"]);
    page.line_if(0, "Priority Class Name", &spec["priorityClassName"]);
    page.line_if(0, "Service Account", &spec["serviceAccountName"]);
    let node = [plain(&spec["nodeName"]), plain(&status["hostIP"])];
    page.line(0, "Node", node.join("/").trim_matches('/'));
    if status["startTime"].is_string() {
        page.line(0, "Start Time", time(&status["startTime"]));
    }
    page.list(0, "Labels", &pairs(&metadata["labels"], "="));
    page.list(0, "Annotations", &pairs(&metadata["annotations"], ": "));
    manifest(page, standing);
    if metadata["deletionTimestamp"].is_string() {
        page.line(
            0,
            "Status",
            format!(
                "Terminating (since {})",
                time(&metadata["deletionTimestamp"])
            ),
        );
        page.line_if(
            0,
            "Termination Grace Period (s)",
            &metadata["deletionGracePeriodSeconds"],
        );
    } else {
        page.line(0, "Status", plain(&status["phase"]));
    }
    page.line_if(0, "Reason", &status["reason"]);
    page.line_if(0, "Message", &status["message"]);
    page.line(0, "IP", plain(&status["podIP"]));
    let ips: Vec<String> = list(&status["podIPs"]).map(|ip| plain(&ip["ip"])).collect();
    page.list(0, "IPs", &ips);
}

/// Where the pod was written down, and whether that text is the one in use.
fn manifest(page: &mut Page, standing: &Value) {
    page.line_if(0, "Manifest", &standing["manifest"]);
    match standing["standing"].as_str() {
        Some("Stale") => {
            page.line(0, "Manifest Standing", "Stale: the last good version runs");
        }
        Some("Rejected") => page.line(0, "Manifest Standing", "Rejected: nothing of it runs"),
        _ => {}
    }
    page.line_if(0, "Manifest Problem", &standing["problem"]);
}

fn conditions(page: &mut Page, status: &Value) {
    let head = ["Type", "Status", "Reason", "Message"]
        .map(str::to_owned)
        .to_vec();
    let rows = list(&status["conditions"]).map(|condition| {
        ["type", "status", "reason", "message"]
            .map(|field| plain(&condition[field]))
            .to_vec()
    });
    let rows: Vec<Vec<String>> = std::iter::once(head).chain(rows).collect();
    page.table("Conditions", &rows);
}

/// `node.kubernetes.io/not-ready:NoExecute for 300s`
fn toleration(toleration: &Value) -> String {
    let mut text = plain(&toleration["key"]);
    for (mark, field) in [("=", "value"), (":", "effect")] {
        if toleration[field].is_string() {
            text.push_str(&format!("{mark}{}", plain(&toleration[field])));
        }
    }
    if toleration["operator"] == "Exists" {
        text.push_str(" op=Exists");
    }
    if let Some(seconds) = toleration["tolerationSeconds"].as_i64() {
        text.push_str(&format!(" for {seconds}s"));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_stale_manifest_says_where_and_why() {
        let pod = json!({
            "metadata": {"name": "web-pi", "namespace": "default"},
            "spec": {"containers": [{"name": "web", "image": "busybox"}]},
            "status": {"phase": "Running", "containerStatuses": [{"name": "web", "ready": true,
                "restartCount": 2, "state": {"running": {"startedAt": "2026-01-01T00:00:00Z"}},
                "lastState": {"terminated": {"exitCode": 3, "reason": "Error"}}}]},
        });
        let standing = json!({
            "manifest": "/etc/lowtide/manifests/web.yaml:1", "standing": "Stale",
            "problem": "/etc/lowtide/manifests/web.yaml:3: not YAML",
        });
        let text = page(&pod, &standing, &[], Timestamp::UNIX_EPOCH).text();
        for part in [
            "Manifest:           /etc/lowtide/manifests/web.yaml:1\n",
            "Manifest Problem:   /etc/lowtide/manifests/web.yaml:3: not YAML\n",
            "State:          Running\n",
            "Exit Code:    3\n",
            "Restart Count:  2\n",
            "Events:  <none>\n",
        ] {
            assert!(text.contains(part), "{part:?} is not in\n{text}");
        }
    }
}
