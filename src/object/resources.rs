//! Lists of resources and what a whole pod asks for. Pure.
//!
//! Sources: Kubernetes `component-helpers/resource/helpers.go`, `pkg/apis/core/v1/helper/qos`.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Pod, ResourceRequirements};
use serde_json::Value;

use super::Quantity;
use super::references::items;
use crate::object::gather::Gather;
use crate::world::QosClass;

/// `{"cpu": "1", …}`; what is no quantity is left out: validation tells of it.
pub fn amounts(list: &Value) -> BTreeMap<String, Quantity> {
    let entries = list.as_object().into_iter().flatten();
    let read = entries.filter_map(|(name, amount)| Some((name.clone(), quantity(amount)?)));
    read.gathered()
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

#[derive(Clone, Copy)]
pub enum Which {
    Request,
    Limit,
}

/// One amount as it is written; `None` also if it is no quantity.
pub fn stated(resources: &ResourceRequirements, which: Which, name: &str) -> Option<Quantity> {
    let list = match which {
        Which::Limit => resources.limits.as_ref(),
        Which::Request => resources.requests.as_ref(),
    };
    list?.get(name)?.0.parse().ok()
}

/// Class of a pod by its requests and limits of processor and memory; init containers count, and
/// what the pod states as a whole goes before what its containers do.
pub fn qos_class(pod: &Pod) -> QosClass {
    const COUNTED: [&str; 2] = ["cpu", "memory"];
    let Some(spec) = &pod.spec else {
        return QosClass::BestEffort;
    };
    let amounts = |resources: &ResourceRequirements| {
        let both = [Which::Request, Which::Limit];
        let all = COUNTED.map(|name| both.map(|which| stated(resources, which, name)));
        all.into_iter().flatten().flatten().collect::<Vec<_>>()
    };
    let whole = spec.resources.as_ref();
    let whole = whole.filter(|resources| !amounts(resources).is_empty());
    let init = spec.init_containers.as_deref().unwrap_or_default();
    let of_containers = spec.containers.iter().chain(init);
    let lists: Vec<Option<&ResourceRequirements>> = match whole {
        Some(whole) => vec![Some(whole)],
        None => of_containers.map(|c| c.resources.as_ref()).collect(),
    };
    let mut stated_any = lists.iter().flatten().flat_map(|list| amounts(list));
    if !stated_any.any(|amount| amount > Quantity::ZERO) {
        return QosClass::BestEffort;
    }
    let guaranteed = |resources: &ResourceRequirements| {
        COUNTED.iter().all(|name| {
            let limit = stated(resources, Which::Limit, name).filter(|q| *q > Quantity::ZERO);
            let request = stated(resources, Which::Request, name);
            limit.is_some() && (request.is_none() || request == limit)
        })
    };
    match lists.iter().all(|list| list.is_some_and(guaranteed)) {
        true => QosClass::Guaranteed,
        false => QosClass::Burstable,
    }
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
