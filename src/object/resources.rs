//! Lists of resources and what a whole pod asks for. Pure.
//!
//! Source: Kubernetes `component-helpers/resource/helpers.go`.

use std::collections::BTreeMap;

use serde_json::Value;

use super::Quantity;
use super::references::items;

/// `{"cpu": "1", …}`; what is no quantity is left out: validation tells of it.
pub fn amounts(list: &Value) -> BTreeMap<String, Quantity> {
    let entries = list.as_object().into_iter().flatten();
    let read = entries.filter_map(|(name, amount)| Some((name.clone(), quantity(amount)?)));
    read.collect()
}

/// A quantity written as text or as a number.
pub fn quantity(amount: &Value) -> Option<Quantity> {
    match amount {
        Value::String(text) => text.parse().ok(),
        Value::Number(number) => number.to_string().parse().ok(),
        _ => None,
    }
}

/// What all containers of a pod's spec request together: init containers run one after the other,
/// but sidecars beside all that come after them. Overhead is included.
pub fn pod_requests(spec: &Value) -> BTreeMap<String, Quantity> {
    of_pod(spec, "requests")
}

/// The same of limits.
pub fn pod_limits(spec: &Value) -> BTreeMap<String, Quantity> {
    of_pod(spec, "limits")
}

fn of_pod(spec: &Value, list: &str) -> BTreeMap<String, Quantity> {
    let of = |container: &Value| amounts(&container["resources"][list]);
    let mut total = BTreeMap::new();
    for container in items(spec, "containers") {
        add(&mut total, of(container));
    }
    let mut sidecars = BTreeMap::new();
    let mut starting = BTreeMap::new();
    for container in items(spec, "initContainers") {
        let mut asked = of(container);
        if container["restartPolicy"] == "Always" {
            add(&mut total, asked.clone());
            add(&mut sidecars, asked);
            asked = sidecars.clone();
        } else {
            add(&mut asked, sidecars.clone());
        }
        at_least(&mut starting, asked);
    }
    at_least(&mut total, starting);
    for (name, amount) in amounts(&spec["resources"][list]) {
        if matches!(name.as_str(), "cpu" | "memory") {
            total.insert(name, amount);
        }
    }
    for (name, amount) in amounts(&spec["overhead"]) {
        // A limit that does not exist is not made finite by the overhead.
        if list == "requests" || total.contains_key(&name) {
            add(&mut total, BTreeMap::from([(name, amount)]));
        }
    }
    total
}

/// Adds each amount to the one of its name.
pub fn add(to: &mut BTreeMap<String, Quantity>, more: BTreeMap<String, Quantity>) {
    for (name, amount) in more {
        let sum = to.get(&name).map_or(amount, |now| now.plus(amount));
        to.insert(name, sum);
    }
}

fn at_least(of: &mut BTreeMap<String, Quantity>, other: BTreeMap<String, Quantity>) {
    for (name, amount) in other {
        if of.get(&name).is_none_or(|now| *now < amount) {
            of.insert(name, amount);
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn init_containers_count_by_their_peak_and_sidecars_beside_them() {
        let asks = |cpu: &str| json!({"resources": {"requests": {"cpu": cpu}}});
        let sidecar = |cpu: &str| {
            let mut container = asks(cpu);
            container["restartPolicy"] = json!("Always");
            container
        };
        let table = [
            (json!({"containers": [asks("1"), asks("500m")]}), "1500m"),
            (
                json!({"containers": [asks("1")], "initContainers": [asks("3"), asks("2")]}),
                "3",
            ),
            (
                json!({"containers": [asks("1")], "initContainers": [sidecar("2"), asks("3")]}),
                "5",
            ),
            (
                json!({"containers": [asks("4")], "initContainers": [sidecar("2"), asks("3")]}),
                "6",
            ),
            (
                json!({"containers": [asks("1")], "overhead": {"cpu": "250m"}}),
                "1250m",
            ),
            (
                json!({"containers": [asks("1")], "resources": {"requests": {"cpu": "7"}}}),
                "7",
            ),
        ];
        for (spec, cpu) in table {
            assert_eq!(pod_requests(&spec)["cpu"].to_string(), cpu, "{spec}");
        }
        let spec = json!({"containers": [{}], "overhead": {"cpu": "1"}});
        assert!(pod_limits(&spec).is_empty());
    }
}
