//! The pod itself; its containers, volumes and security are beside.

use std::collections::BTreeSet;
use std::net::IpAddr;

use super::report::{At, Report};
use super::{container, meta, security, volume};
use crate::object::names::{label_problem, qualified_name_problem, subdomain_problem};

/// Upstream: `MaxDNSNameservers`.
const NAMESERVERS_MAX: usize = 3;
/// Upstream: `MaxDNSSearchPaths`.
const SEARCH_PATHS_MAX: usize = 32;

pub(super) fn validate(spec: &At<'_>, report: &mut Report) {
    let volumes = volume::validate_all(spec, report);
    container::validate_all(spec, &volumes, report);
    report.one_of(
        &spec.get("restartPolicy"),
        &["Always", "OnFailure", "Never"],
    );
    dns(spec, report);
    security::validate_pod(spec, report);
    report.not_negative(&spec.get("terminationGracePeriodSeconds"));
    let deadline = spec.get("activeDeadlineSeconds");
    report.between(&deadline, 1, i64::from(i32::MAX));
    for name in ["hostname", "subdomain"] {
        report.name_if_set(&spec.get(name), label_problem);
    }
    for name in [
        "nodeName",
        "serviceAccountName",
        "priorityClassName",
        "hostnameOverride",
    ] {
        report.name_if_set(&spec.get(name), subdomain_problem);
    }
    meta::labels(spec, "nodeSelector", report);
    for alias in spec.items("hostAliases") {
        ip(&alias.get("ip"), report);
        for name in alias
            .get("hostnames")
            .value
            .as_array()
            .into_iter()
            .flatten()
        {
            let path = format!("{}.hostnames", alias.path);
            report.name(&At { value: name, path }, subdomain_problem);
        }
    }
    tolerations(spec, report);
}

fn ip(at: &At<'_>, report: &mut Report) {
    if at.text().is_empty() || at.text().parse::<IpAddr>().is_err() {
        report.invalid(
            at,
            "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)",
        );
    }
}

fn dns(spec: &At<'_>, report: &mut Report) {
    let policy = spec.get("dnsPolicy");
    report.one_of(
        &policy,
        &["ClusterFirst", "ClusterFirstWithHostNet", "Default", "None"],
    );
    let config = spec.get("dnsConfig");
    let servers = config.items("nameservers");
    if policy.text() == "None" && servers.is_empty() {
        let at = match config.is_set() {
            true => config.get("nameservers"),
            false => spec.get("dnsConfig"),
        };
        let why = "must provide at least one DNS nameserver when `dnsPolicy` is None";
        report.required_since(&at, why);
    }
    if servers.len() > NAMESERVERS_MAX {
        let why = format!("must not have more than {NAMESERVERS_MAX} nameservers");
        report.invalid(&config.get("nameservers"), why);
    }
    for server in servers {
        ip(&server, report);
    }
    let searches = config.items("searches");
    if searches.len() > SEARCH_PATHS_MAX {
        let why = format!("must not have more than {SEARCH_PATHS_MAX} search paths");
        report.invalid(&config.get("searches"), why);
    }
    for option in config.items("options") {
        if option.get("name").text().is_empty() {
            report.required(&option.get("name"));
        }
    }
}

fn tolerations(spec: &At<'_>, report: &mut Report) {
    for toleration in spec.items("tolerations") {
        let (key, operator) = (toleration.get("key"), toleration.get("operator"));
        report.name_if_set(&key, qualified_name_problem);
        report.one_of_if_set(&operator, &["Equal", "Exists"]);
        if key.text().is_empty() && operator.text() != "Exists" {
            let why = "operator must be Exists when `key` is empty, which means \"match all values \
                       and all keys\"";
            report.invalid(&operator, why);
        }
        let value = toleration.get("value");
        if operator.text() == "Exists" && !value.text().is_empty() {
            report.invalid(&value, "value must be empty when `operator` is 'Exists'");
        }
        report.one_of_if_set(
            &toleration.get("effect"),
            &["NoExecute", "NoSchedule", "PreferNoSchedule"],
        );
    }
}

/// Reports each name that came before.
pub(super) fn unique(at: &At<'_>, seen: &mut BTreeSet<String>, report: &mut Report) {
    if !at.text().is_empty() && !seen.insert(at.text().to_owned()) {
        report.duplicate(at, at.text());
    }
}
