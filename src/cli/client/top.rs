//! `top`: what the node and its pods use, in kubectl's columns.

use clap::ArgMatches;
use serde_json::Value;

use super::print::{self, Columns};
use super::transport::{Client, Error};
use super::{JSON, namespace, put, text, texts};
use crate::apiserver::query::encode;
use crate::object::Quantity;

const METRICS: &str = "/apis/metrics.k8s.io/v1beta1";
const MIB: i64 = 1 << 20;

/// Which rows pods have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Rows {
    Pods,
    Containers,
}

pub fn run(client: &Client, matches: &ArgMatches) -> Result<(), Error> {
    let names = texts(matches, "names");
    let rows = match text(matches, "type") {
        Some("node" | "nodes" | "no") => nodes(client, &names)?,
        Some("pod" | "pods" | "po") => pods(client, matches, &names)?,
        other => {
            let other = other.unwrap_or_default();
            return Err(Error::Usage(format!(
                "top shows pod or node, not {other:?}"
            )));
        }
    };
    if rows.len() < 2 {
        eprintln!("Nothing that runs was found.");
        return Ok(());
    }
    let shown = match matches.get_flag("no-headers") {
        true => &rows[1..],
        false => &rows[..],
    };
    put(Columns::default().print(shown))
}

/// Errors: one of the names is of nothing that has figures.
fn all_there(list: &Value, what: &str, names: &[&str]) -> Result<(), Error> {
    let lost = names
        .iter()
        .find(|name| items(list, &[name]).next().is_none());
    lost.map_or(Ok(()), |name| {
        Err(Error::Server {
            code: 404,
            reason: "NotFound".to_owned(),
            message: format!("{what} {name:?} not found, or it does not run"),
        })
    })
}

fn items<'a>(list: &'a Value, names: &'a [&str]) -> impl Iterator<Item = &'a Value> {
    let items = list["items"].as_array().into_iter().flatten();
    items.filter(|item| {
        let name = item["metadata"]["name"].as_str().unwrap_or_default();
        names.is_empty() || names.contains(&name)
    })
}

fn nodes(client: &Client, names: &[&str]) -> Result<Vec<Vec<String>>, Error> {
    let metrics = client.block_on(client.get(&format!("{METRICS}/nodes"), JSON))?;
    all_there(&metrics, "nodes", names)?;
    let nodes = client.block_on(client.get("/api/v1/nodes", JSON))?;
    let head = ["NAME", "CPU(cores)", "CPU(%)", "MEMORY(bytes)", "MEMORY(%)"];
    let mut rows = vec![head.map(str::to_owned).to_vec()];
    for item in items(&metrics, names) {
        let name = print::cell(&item["metadata"]["name"]);
        let node =
            items(&nodes, &[]).find(|node| node["metadata"]["name"] == item["metadata"]["name"]);
        let room = node.map_or(&Value::Null, |node| &node["status"]["allocatable"]);
        let used = Used::of(&item["usage"]);
        rows.push(vec![
            name,
            used.cpu(),
            percent(used.cpu_milli, quantity(&room["cpu"]).millis()),
            used.memory(),
            percent(used.memory_bytes, quantity(&room["memory"]).value()),
        ]);
    }
    Ok(rows)
}

fn pods(client: &Client, matches: &ArgMatches, names: &[&str]) -> Result<Vec<Vec<String>>, Error> {
    let everywhere = matches.get_flag("all-namespaces");
    let mut path = match everywhere {
        true => format!("{METRICS}/pods"),
        false => format!("{METRICS}/namespaces/{}/pods", encode(namespace(matches))),
    };
    if let Some(selector) = text(matches, "selector") {
        path.push_str(&format!("?labelSelector={}", encode(selector)));
    }
    let metrics = client.block_on(client.get(&path, JSON))?;
    all_there(&metrics, "pods", names)?;
    let rows = match matches.get_flag("containers") {
        true => Rows::Containers,
        false => Rows::Pods,
    };
    let mut table = vec![head(rows, everywhere)];
    for item in items(&metrics, names) {
        table.extend(pod_rows(item, rows, everywhere));
    }
    Ok(table)
}

fn head(rows: Rows, everywhere: bool) -> Vec<String> {
    let place = everywhere.then_some("NAMESPACE");
    let names: &[&str] = match rows {
        Rows::Pods => &["NAME"],
        Rows::Containers => &["POD", "NAME"],
    };
    let figures = ["CPU(cores)", "MEMORY(bytes)"];
    let all = place
        .into_iter()
        .chain(names.iter().copied())
        .chain(figures);
    all.map(str::to_owned).collect()
}

fn pod_rows(item: &Value, rows: Rows, everywhere: bool) -> Vec<Vec<String>> {
    let place = everywhere.then(|| print::cell(&item["metadata"]["namespace"]));
    let pod = print::cell(&item["metadata"]["name"]);
    let lead: Vec<String> = place.into_iter().chain([pod]).collect();
    let containers = item["containers"].as_array().into_iter().flatten();
    let used = containers.map(|one| (print::cell(&one["name"]), Used::of(&one["usage"])));
    match rows {
        Rows::Pods => {
            let sum = used.fold(Used::default(), |sum, (_, used)| sum.plus(used));
            vec![[lead, vec![sum.cpu(), sum.memory()]].concat()]
        }
        Rows::Containers => used
            .map(|(name, used)| [&lead[..], &[name, used.cpu(), used.memory()]].concat())
            .collect(),
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Used {
    cpu_milli: i64,
    memory_bytes: i64,
}

impl Used {
    fn of(usage: &Value) -> Used {
        Used {
            cpu_milli: quantity(&usage["cpu"]).millis(),
            memory_bytes: quantity(&usage["memory"]).value(),
        }
    }

    fn plus(self, other: Used) -> Used {
        Used {
            cpu_milli: self.cpu_milli + other.cpu_milli,
            memory_bytes: self.memory_bytes + other.memory_bytes,
        }
    }

    fn cpu(self) -> String {
        format!("{}m", self.cpu_milli)
    }

    fn memory(self) -> String {
        format!("{}Mi", self.memory_bytes / MIB)
    }
}

fn quantity(value: &Value) -> Quantity {
    let text = value.as_str().unwrap_or_default();
    text.parse().unwrap_or(Quantity::ZERO)
}

fn percent(used: i64, room: i64) -> String {
    match used.saturating_mul(100).checked_div(room) {
        Some(percent) => format!("{percent}%"),
        None => "<unknown>".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn pods_are_shown_as_sums_or_by_container() {
        let pod = json!({
            "metadata": {"name": "web", "namespace": "shop"},
            "containers": [
                {"name": "a", "usage": {"cpu": "1500000n", "memory": "2048Ki"}},
                {"name": "b", "usage": {"cpu": "0", "memory": "1024Ki"}},
            ],
        });
        let sums = pod_rows(&pod, Rows::Pods, true);
        assert_eq!(sums, [["shop", "web", "2m", "3Mi"]]);
        let each = pod_rows(&pod, Rows::Containers, false);
        assert_eq!(each, [["web", "a", "2m", "2Mi"], ["web", "b", "0m", "1Mi"]]);
        assert_eq!(percent(250, 1000), "25%");
        assert_eq!(percent(1, 0), "<unknown>");
    }
}
