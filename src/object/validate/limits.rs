//! What bounds others: limit ranges, quotas, priority classes.

use std::collections::BTreeSet;

use super::container::resource_name;
use super::pod::unique;
use super::report::{At, Report};
use crate::object::Quantity;

/// Source: Kubernetes `pkg/apis/scheduling`, `HighestUserDefinablePriority`.
const PRIORITY_MAX: i64 = 1_000_000_000;
/// Source: Kubernetes `pkg/apis/scheduling/v1/helpers.go`.
const SYSTEM: [(&str, i64); 2] = [
    ("system-node-critical", 2_000_001_000),
    ("system-cluster-critical", 2_000_000_000),
];

/// Amounts of a limit range, and what they are called.
const AMOUNTS: [(&str, &str); 5] = [
    ("max", "max"),
    ("min", "min"),
    ("default", "default"),
    ("defaultRequest", "default request"),
    ("maxLimitRequestRatio", "ratio"),
];

/// Which of them is no greater than which, and of which that is said.
const ORDER: [(usize, usize, usize); 6] = [
    (1, 0, 1),
    (1, 3, 3),
    (3, 0, 3),
    (3, 2, 3),
    (1, 2, 2),
    (2, 0, 2),
];

/// What a quota bounds but for `hugepages-*` and what is qualified.
const QUOTA: [&str; 19] = [
    "cpu",
    "memory",
    "ephemeral-storage",
    "requests.cpu",
    "requests.memory",
    "requests.storage",
    "requests.ephemeral-storage",
    "limits.cpu",
    "limits.memory",
    "limits.ephemeral-storage",
    "pods",
    "resourcequotas",
    "services",
    "replicationcontrollers",
    "secrets",
    "persistentvolumeclaims",
    "configmaps",
    "services.nodeports",
    "services.loadbalancers",
];

/// Tells of what is no quantity.
pub(super) fn amount(at: &At<'_>, report: &mut Report) -> Option<Quantity> {
    let parsed = at.text().parse::<Quantity>();
    if let Err(problem) = parsed {
        report.invalid(at, problem);
    }
    parsed.ok()
}

/// The same of what must not be negative either.
pub(super) fn whole_amount(at: &At<'_>, report: &mut Report) {
    if amount(at, report).is_some_and(Quantity::is_negative) {
        report.invalid(at, "must be greater than or equal to 0");
    }
}

pub(super) fn validate_limit_range(spec: &At<'_>, report: &mut Report) {
    let mut types = BTreeSet::new();
    for limit in spec.items("limits") {
        let of = limit.get("type");
        unique(&of, &mut types, report);
        let standard = ["Container", "PersistentVolumeClaim", "Pod"];
        if of.text().is_empty() {
            report.required(&of);
        } else if !standard.contains(&of.text()) && !of.text().contains('/') {
            report.invalid(&of, "must be a standard limit type or fully qualified");
        }
        for (list, _) in AMOUNTS {
            for (name, at) in limit.entries(list) {
                if of.text() == "Pod" && list.starts_with("default") {
                    report.forbidden(&at, "may not be specified when `type` is 'Pod'");
                } else if of.text() == "Pod" || of.text() == "Container" {
                    resource_name(&at, name, report);
                }
                amount(&at, report);
            }
        }
        for (low, high, told) in ORDER {
            in_order(
                &limit,
                (AMOUNTS[low], AMOUNTS[high]),
                AMOUNTS[told].0,
                report,
            );
        }
    }
}

type Named = (&'static str, &'static str);

fn in_order(limit: &At<'_>, (low, high): (Named, Named), told: &str, report: &mut Report) {
    for (name, at) in limit.entries(low.0) {
        let bound = limit.get(high.0);
        let bound = bound.get(name).text().parse::<Quantity>();
        let (Ok(least), Ok(most)) = (at.text().parse::<Quantity>(), bound) else {
            continue;
        };
        if least > most {
            let why = format!(
                "{} value {least} is greater than {} value {most}",
                low.1, high.1
            );
            let path = format!("{}.{told}[{name}]", limit.path);
            let value = at.value;
            report.invalid(&At { value, path }, why);
        }
    }
}

pub(super) fn validate_quota(spec: &At<'_>, report: &mut Report) {
    for (name, at) in spec.entries("hard") {
        let pages = name.starts_with("hugepages-") || name.starts_with("requests.hugepages-");
        if !QUOTA.contains(&name) && !pages && !name.contains('/') {
            let (value, path) = (&name.into(), at.path.clone());
            report.invalid(&At { value, path }, "must be a standard resource for quota");
        }
        whole_amount(&at, report);
    }
}

pub(super) fn validate_priority_class(name: &str, top: &At<'_>, report: &mut Report) {
    let value = top.get("value");
    let number = value.number().unwrap_or_default();
    if name.starts_with("system-") {
        if !SYSTEM.contains(&(name, number)) || top.get("globalDefault").is_true() {
            let why = "priority class names with 'system-' prefix are reserved for system use only";
            report.forbidden(&top.get("metadata").get("name"), why);
        }
    } else if number > PRIORITY_MAX {
        let why = format!("maximum allowed value of a user defined priority is {PRIORITY_MAX}");
        report.forbidden(&value, why);
    }
    let policy = top.get("preemptionPolicy");
    report.one_of_if_set(&policy, &["Never", "PreemptLowerPriority"]);
}
