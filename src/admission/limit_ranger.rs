//! LimitRanger: defaults for what containers ask for, and bounds on it, by namespace.
//!
//! ```text
//!  create a pod ─► default, defaultRequest where a container says nothing ─► min, max, ratio
//! ```
//! Updates of pods are not looked at, since what a pod asks for does not change (but for `resize`).
//! Source: Kubernetes `plugin/pkg/admission/limitranger`.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::{Map, Value, json};

use super::pod::{self, items, text};
use crate::object::{Kind, Object, Quantity, apply_defaults, resources};
use crate::registry::{Admit, Attributes, Denial, Operation};

/// What was filled in is written here. Upstream: `limitRangerAnnotation`.
const ANNOTATION: &str = "kubernetes.io/limit-ranger";

type Amounts = BTreeMap<String, Quantity>;

pub struct LimitRanger;

impl Admit for LimitRanger {
    fn name(&self) -> &'static str {
        "LimitRanger"
    }

    fn mutate(&self, attributes: &Attributes<'_>, object: &mut Value) -> Result<(), Denial> {
        for range in ranges(attributes) {
            // One that was stored before it was given defaults has them too.
            let mut range = range.body.clone();
            apply_defaults(Kind::LimitRange, &mut range);
            fill(&range, object);
        }
        Ok(())
    }

    fn validate(&self, attributes: &Attributes<'_>, object: &Value) -> Result<(), Denial> {
        for range in ranges(attributes) {
            let mut wrong = problems(&range.body, object);
            // Upstream says the same thing once, in an aggregate.
            let mut told: Vec<String> = Vec::new();
            wrong.retain(|text| {
                !told.contains(text) && {
                    told.push(text.clone());
                    true
                }
            });
            match wrong.as_slice() {
                [] => {}
                [one] => return Err(Denial::forbidden(one)),
                several => return Err(Denial::forbidden(format!("[{}]", several.join(", ")))),
            }
        }
        Ok(())
    }
}

/// The limit ranges that this write is held to, in name order.
fn ranges(attributes: &Attributes<'_>) -> Vec<Arc<Object>> {
    let resize = attributes.actor.subresource == "resize";
    let concerned = attributes.key.kind == Kind::Pod
        && match attributes.operation {
            Operation::Create => attributes.is_of_pod(),
            Operation::Update => resize,
            Operation::Delete => false,
        };
    let leaves = attributes.operation == Operation::Update
        && attributes.current.is_some_and(Object::is_deleting);
    if !concerned || leaves {
        return Vec::new();
    }
    let namespace = Some(attributes.key.namespace.as_str());
    attributes.view.list(Kind::LimitRange, namespace)
}

fn fill(range: &Value, pod: &mut Value) {
    let mut limits = Map::new();
    let mut requests = Map::new();
    for limit in items(&range["spec"], "limits").filter(|l| text(l, "type") == "Container") {
        limits.extend(limit["default"].as_object().cloned().unwrap_or_default());
        requests.extend(
            limit["defaultRequest"]
                .as_object()
                .cloned()
                .unwrap_or_default(),
        );
    }
    let mut notes = Vec::new();
    let Some(spec) = pod.get_mut("spec") else {
        return;
    };
    for (list, kind) in [
        ("containers", "container"),
        ("initContainers", "init container"),
    ] {
        for container in pod::items_mut(spec, list) {
            let name = container
                .get("name")
                .and_then(Value::as_str)
                .unwrap_or_default();
            let name = name.to_owned();
            let set_limits = merge(container, "limits", &limits);
            let set_requests = merge(container, "requests", &requests);
            for (set, what) in [(set_requests, "request"), (set_limits, "limit")] {
                if !set.is_empty() {
                    notes.push(format!("{} {what} for {kind} {name}", set.join(", ")));
                }
            }
        }
    }
    if notes.is_empty() {
        return;
    }
    if !pod["metadata"]["annotations"].is_object() {
        pod["metadata"]["annotations"] = json!({});
    }
    let note = format!("LimitRanger plugin set: {}", notes.join("; "));
    pod["metadata"]["annotations"][ANNOTATION] = json!(note);
}

/// Adds what `container.resources[list]` does not have; returns the names, sorted.
fn merge(
    container: &mut Map<String, Value>,
    list: &str,
    amounts: &Map<String, Value>,
) -> Vec<String> {
    if amounts.is_empty() {
        return Vec::new();
    }
    let resources = container.entry("resources").or_insert_with(|| json!({}));
    if !resources[list].is_object() {
        resources[list] = json!({});
    }
    let Some(present) = resources[list].as_object_mut() else {
        return Vec::new();
    };
    let mut set = Vec::new();
    for (name, amount) in amounts {
        if !present.contains_key(name) {
            present.insert(name.clone(), amount.clone());
            set.push(name.clone());
        }
    }
    set.sort_unstable();
    set
}

/// Everything about the pod that is out of bounds.
fn problems(range: &Value, pod: &Value) -> Vec<String> {
    let spec = &pod["spec"];
    let mut found = Vec::new();
    for limit in items(&range["spec"], "limits") {
        match text(limit, "type") {
            "Container" => {
                for (_, container) in pod::placed(spec, &["containers", "initContainers"]) {
                    let asked = &container["resources"];
                    let requests = resources::amounts(&asked["requests"]);
                    let limits = resources::amounts(&asked["limits"]);
                    check(limit, &requests, &limits, &mut found);
                }
            }
            "Pod" => {
                let requests = resources::pod_requests(spec);
                let limits = resources::pod_limits(spec);
                check(limit, &requests, &limits, &mut found);
            }
            _ => {}
        }
    }
    found
}

fn check(limit: &Value, requests: &Amounts, limits: &Amounts, found: &mut Vec<String>) {
    let kind = text(limit, "type");
    for (name, enforced) in resources::amounts(&limit["min"]) {
        let (request, limit) = (requests.get(&name), limits.get(&name));
        found.extend(min_problem(kind, &name, enforced, request, limit));
    }
    for (name, enforced) in resources::amounts(&limit["max"]) {
        let (request, limit) = (requests.get(&name), limits.get(&name));
        found.extend(max_problem(kind, &name, enforced, request, limit));
    }
    for (name, enforced) in resources::amounts(&limit["maxLimitRequestRatio"]) {
        let (request, limit) = (requests.get(&name), limits.get(&name));
        found.extend(ratio_problem(kind, &name, enforced, request, limit));
    }
}

fn min_problem(
    kind: &str,
    name: &str,
    least: Quantity,
    request: Option<&Quantity>,
    limit: Option<&Quantity>,
) -> Option<String> {
    let bound = format!("minimum {name} usage per {kind} is {least}");
    match (request, limit) {
        (None, _) => Some(format!("{bound}.  No request is specified")),
        (Some(request), _) if *request < least => {
            Some(format!("{bound}, but request is {request}"))
        }
        (_, Some(limit)) if *limit < least => Some(format!("{bound}, but limit is {limit}")),
        _ => None,
    }
}

fn max_problem(
    kind: &str,
    name: &str,
    most: Quantity,
    request: Option<&Quantity>,
    limit: Option<&Quantity>,
) -> Option<String> {
    let bound = format!("maximum {name} usage per {kind} is {most}");
    match (request, limit) {
        (_, None) => Some(format!("{bound}.  No limit is specified")),
        (_, Some(limit)) if *limit > most => Some(format!("{bound}, but limit is {limit}")),
        (Some(request), _) if *request > most => Some(format!("{bound}, but request is {request}")),
        _ => None,
    }
}

fn ratio_problem(
    kind: &str,
    name: &str,
    most: Quantity,
    request: Option<&Quantity>,
    limit: Option<&Quantity>,
) -> Option<String> {
    let bound = format!("{name} max limit to request ratio per {kind} is {most}");
    let given = |amount: Option<&Quantity>| amount.copied().filter(|amount| !amount.is_zero());
    let Some(request) = given(request) else {
        return Some(format!(
            "{bound}, but no request is specified or request is 0"
        ));
    };
    let Some(limit) = given(limit) else {
        return Some(format!("{bound}, but no limit is specified or limit is 0"));
    };
    let ratio = limit.ratio_to(request);
    let exceeded = ratio * 1000.0 > most.millis() as f64;
    exceeded.then(|| format!("{bound}, but provided ratio is {ratio:.6}"))
}
