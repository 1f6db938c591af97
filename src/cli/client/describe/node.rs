//! The node's page.

use jiff::Timestamp;
use serde_json::Value;

use super::page::{Page, list, pairs, plain, time};
use crate::apiserver::table::{self, duration};
use crate::object::Kind;

pub fn page(node: &Value, pods: &Value, health: &Value, events: &[Value], now: Timestamp) -> Page {
    let mut page = Page::default();
    let (metadata, spec, status) = (&node["metadata"], &node["spec"], &node["status"]);
    page.line(0, "Name", plain(&metadata["name"]));
    let cells = table::row(Kind::Node, node, now).cells;
    page.line(0, "Roles", plain(&cells[2]));
    page.list(0, "Labels", &pairs(&metadata["labels"], "="));
    page.list(0, "Annotations", &pairs(&metadata["annotations"], ": "));
    page.line(0, "CreationTimestamp", time(&metadata["creationTimestamp"]));
    let taint = |taint: &Value| {
        let value = taint["value"].as_str().map(|value| format!("={value}"));
        let value = value.unwrap_or_default();
        format!(
            "{}{value}:{}",
            plain(&taint["key"]),
            plain(&taint["effect"])
        )
    };
    page.list(
        0,
        "Taints",
        &list(&spec["taints"]).map(taint).collect::<Vec<_>>(),
    );
    page.line(
        0,
        "Unschedulable",
        (spec["unschedulable"] == true).to_string(),
    );
    page.line_if(0, "Lowtide Version", &health["version"]);
    let problems: Vec<String> = list(&health["problems"]).map(plain).collect();
    page.list(0, "Problems", &problems);
    conditions(&mut page, status);
    page.line(0, "Addresses", "");
    for address in list(&status["addresses"]) {
        page.line(2, &plain(&address["type"]), plain(&address["address"]));
    }
    for (title, field) in [("Capacity", "capacity"), ("Allocatable", "allocatable")] {
        page.end_section();
        page.line(0, title, "");
        for (name, value) in status[field].as_object().into_iter().flatten() {
            page.line(2, name, plain(value));
        }
    }
    page.end_section();
    page.line(0, "System Info", "");
    for (name, value) in status["nodeInfo"].as_object().into_iter().flatten() {
        page.line(2, name, plain(value));
    }
    page.end_section();
    page.line_if(0, "PodCIDR", &spec["podCIDR"]);
    running(&mut page, pods, now);
    page.events(events, now);
    page
}

fn conditions(page: &mut Page, status: &Value) {
    let head = [
        "Type",
        "Status",
        "LastHeartbeatTime",
        "LastTransitionTime",
        "Reason",
        "Message",
    ];
    let rows = list(&status["conditions"]).map(|condition| {
        vec![
            plain(&condition["type"]),
            plain(&condition["status"]),
            time(&condition["lastHeartbeatTime"]),
            time(&condition["lastTransitionTime"]),
            plain(&condition["reason"]),
            plain(&condition["message"]),
        ]
    });
    let head = std::iter::once(head.map(str::to_owned).to_vec());
    page.table("Conditions", &head.chain(rows).collect::<Vec<_>>());
}

fn running(page: &mut Page, pods: &Value, now: Timestamp) {
    let head = ["Namespace", "Name", "Status", "Restarts", "Age"];
    let rows = list(&pods["items"]).map(|pod| {
        let cells = table::row(Kind::Pod, pod, now).cells;
        let metadata = &pod["metadata"];
        vec![
            plain(&metadata["namespace"]),
            plain(&metadata["name"]),
            plain(&cells[2]),
            plain(&cells[3]),
            duration::since(&metadata["creationTimestamp"], now),
        ]
    });
    let head = std::iter::once(head.map(str::to_owned).to_vec());
    page.table("Pods", &head.chain(rows).collect::<Vec<_>>());
}
