//! What an object costs, by the names that a quota limits. Pure.
//!
//! Source: Kubernetes `pkg/quota/v1/evaluator/core`, `apiserver/pkg/quota/v1`.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::admission::pod::{items, placed, text};
use crate::object::gather::Gather;
use crate::object::{Kind, Quantity, resources};

pub type Amounts = BTreeMap<String, Quantity>;

/// Kinds that a quota can count. Events are ignored, as upstream has it.
pub const COUNTED: [Kind; 9] = [
    Kind::Pod,
    Kind::Service,
    Kind::ConfigMap,
    Kind::Secret,
    Kind::ServiceAccount,
    Kind::ResourceQuota,
    Kind::LimitRange,
    Kind::Endpoints,
    Kind::Lease,
];

/// Of pods, where every container must say what it wants if the quota limits it.
const MUST_BE_SAID: [&str; 6] = [
    "cpu",
    "memory",
    "requests.cpu",
    "requests.memory",
    "limits.cpu",
    "limits.memory",
];

/// `count/leases.coordination.k8s.io`
fn count_name(kind: Kind) -> String {
    match kind.group() {
        "" => format!("count/{}", kind.plural()),
        group => format!("count/{}.{group}", kind.plural()),
    }
}

/// Whether a limit of this name is about objects of this kind.
pub fn is_about(kind: Kind, name: &str) -> bool {
    if name == count_name(kind) {
        return true;
    }
    match kind {
        Kind::Pod => {
            let plain = matches!(name, "pods" | "cpu" | "memory" | "ephemeral-storage");
            let parts = name
                .strip_prefix("requests.")
                .or_else(|| name.strip_prefix("limits."));
            plain
                || name.starts_with("hugepages-")
                || parts.is_some_and(|part| part != "storage")
                    && !name.ends_with("storageclass.storage.k8s.io/requests.storage")
        }
        Kind::Service => {
            matches!(
                name,
                "services" | "services.loadbalancers" | "services.nodeports"
            )
        }
        Kind::ConfigMap | Kind::Secret | Kind::ResourceQuota => name == kind.plural(),
        _ => false,
    }
}

/// What one object costs.
pub fn usage(kind: Kind, object: &Value) -> Amounts {
    let mut used = Amounts::from([(count_name(kind), Quantity::from_units(1))]);
    match kind {
        Kind::Pod => {
            let over = matches!(text(&object["status"], "phase"), "Failed" | "Succeeded");
            if !over {
                let spec = &object["spec"];
                used.extend(asked(
                    &resources::pod_requests(spec),
                    &resources::pod_limits(spec),
                ));
            }
        }
        Kind::Service => used.extend(service(&object["spec"])),
        Kind::ConfigMap | Kind::Secret | Kind::ResourceQuota => {
            used.insert(kind.plural().to_owned(), Quantity::from_units(1));
        }
        _ => {}
    }
    used
}

/// Requests and limits under the names that quotas have for them, and one pod.
fn asked(requests: &Amounts, limits: &Amounts) -> Amounts {
    let mut used = Amounts::from([("pods".to_owned(), Quantity::from_units(1))]);
    for (name, amount) in requests {
        let plain = matches!(name.as_str(), "cpu" | "memory" | "ephemeral-storage");
        if plain || name.starts_with("hugepages-") {
            used.insert(name.clone(), *amount);
            used.insert(format!("requests.{name}"), *amount);
        } else if name.contains('/') {
            used.insert(format!("requests.{name}"), *amount);
        }
    }
    for name in ["cpu", "memory", "ephemeral-storage"] {
        if let Some(amount) = limits.get(name) {
            used.insert(format!("limits.{name}"), *amount);
        }
    }
    used
}

fn service(spec: &Value) -> Amounts {
    let ports = items(spec, "ports").count() as i64;
    let chosen = items(spec, "ports").filter(|port| port["nodePort"].as_i64().unwrap_or(0) != 0);
    let (balancers, node_ports) = match text(spec, "type") {
        "NodePort" => (0, ports),
        "LoadBalancer" if spec["allocateLoadBalancerNodePorts"] == false => {
            (1, chosen.count() as i64)
        }
        "LoadBalancer" => (1, ports),
        _ => (0, 0),
    };
    let named = [
        ("services", 1),
        ("services.loadbalancers", balancers),
        ("services.nodeports", node_ports),
    ];
    let named = named.into_iter();
    named
        .map(|(name, n)| (name.to_owned(), Quantity::from_units(n)))
        .gathered()
}

/// What containers leave out though the quota limits it: `cpu for: a,b; memory for: a`.
pub fn unsaid(hard: &Amounts, pod: &Value) -> Option<String> {
    let spec = &pod["spec"];
    if !resources::amounts(&spec["resources"]["requests"]).is_empty()
        || !resources::amounts(&spec["resources"]["limits"]).is_empty()
    {
        return None;
    }
    let mut missing: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for (_, container) in placed(spec, &["containers", "initContainers"]) {
        let of = |list: &str| resources::amounts(&container["resources"][list]);
        let said = asked(&of("requests"), &of("limits"));
        for name in MUST_BE_SAID {
            if hard.contains_key(name) && !said.contains_key(name) {
                missing
                    .entry(name)
                    .or_default()
                    .push(text(container, "name"));
            }
        }
    }
    let each = missing.into_iter().map(|(name, mut containers)| {
        containers.sort_unstable();
        format!("{name} for: {}", containers.join(","))
    });
    let each: Vec<String> = each.collect();
    (!each.is_empty()).then(|| each.join("; "))
}

/// Whether the quota's scopes take the object in. Only pods have scopes.
pub fn is_in_scope(quota: &Value, kind: Kind, object: &Value) -> bool {
    let spec = &quota["spec"];
    let plain = items(spec, "scopes")
        .map(|scope| (scope.as_str().unwrap_or_default(), "Exists", &Value::Null));
    let selected = items(&spec["scopeSelector"], "matchExpressions");
    let selected = selected.map(|one| {
        (
            text(one, "scopeName"),
            text(one, "operator"),
            &one["values"],
        )
    });
    plain.chain(selected).all(|(scope, operator, values)| {
        kind == Kind::Pod && is_in(scope, operator, values, &object["spec"])
    })
}

fn is_in(scope: &str, operator: &str, values: &Value, spec: &Value) -> bool {
    let ends = spec["activeDeadlineSeconds"]
        .as_i64()
        .is_some_and(|seconds| seconds >= 0);
    match scope {
        "Terminating" => ends,
        "NotTerminating" => !ends,
        "BestEffort" => is_best_effort(spec),
        "NotBestEffort" => !is_best_effort(spec),
        "PriorityClass" => {
            let class = text(spec, "priorityClassName");
            let listed = values
                .as_array()
                .into_iter()
                .flatten()
                .any(|value| value == class);
            match operator {
                "Exists" => !class.is_empty(),
                "DoesNotExist" => class.is_empty(),
                "In" => !class.is_empty() && listed,
                "NotIn" => !listed,
                _ => false,
            }
        }
        "CrossNamespacePodAffinity" => reaches_other_namespaces(&spec["affinity"]),
        _ => false,
    }
}

/// No container asks for CPU or memory.
fn is_best_effort(spec: &Value) -> bool {
    placed(spec, &["containers", "initContainers"])
        .into_iter()
        .all(|(_, container)| {
            ["requests", "limits"].into_iter().all(|list| {
                let amounts = resources::amounts(&container["resources"][list]);
                ["cpu", "memory"]
                    .into_iter()
                    .all(|name| amounts.get(name).is_none_or(|a| a.is_zero()))
            })
        })
}

fn reaches_other_namespaces(affinity: &Value) -> bool {
    let reaches = |term: &Value| {
        items(term, "namespaces").next().is_some() || term["namespaceSelector"].is_object()
    };
    ["podAffinity", "podAntiAffinity"].into_iter().any(|kind| {
        let of = &affinity[kind];
        items(of, "requiredDuringSchedulingIgnoredDuringExecution").any(reaches)
            || items(of, "preferredDuringSchedulingIgnoredDuringExecution")
                .any(|weighted| reaches(&weighted["podAffinityTerm"]))
    })
}
