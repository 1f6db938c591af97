//! Probes and life-cycle hooks.

use super::container::Role;
use super::report::{At, Report};
use crate::object::names::data_key_problem;

const PROBE_HANDLERS: [&str; 4] = ["exec", "httpGet", "tcpSocket", "grpc"];
const HOOK_HANDLERS: [&str; 4] = ["exec", "httpGet", "tcpSocket", "sleep"];

pub(super) fn validate_all(role: Role, spec: &At<'_>, container: &At<'_>, report: &mut Report) {
    for name in [
        "lifecycle",
        "livenessProbe",
        "readinessProbe",
        "startupProbe",
    ] {
        let at = container.get(name);
        if !at.is_set() {
            continue;
        }
        if role == Role::Init {
            let why = "may not be set for init containers without restartPolicy=Always";
            report.forbidden(&at, why);
        } else if name == "lifecycle" {
            hooks(spec, &at, report);
        } else {
            probe(name, &at, report);
        }
    }
}

fn probe(name: &str, probe: &At<'_>, report: &mut Report) {
    handler(probe, &PROBE_HANDLERS, report);
    for number in [
        "initialDelaySeconds",
        "timeoutSeconds",
        "periodSeconds",
        "successThreshold",
        "failureThreshold",
    ] {
        report.not_negative(&probe.get(number));
    }
    let grace = probe.get("terminationGracePeriodSeconds");
    if name == "readinessProbe" {
        if grace.is_set() {
            report.invalid(&grace, "must not be set for readinessProbes");
        }
        return;
    }
    if grace.number().is_some_and(|seconds| seconds <= 0) {
        report.invalid(&grace, "must be greater than 0");
    }
    let successes = probe.get("successThreshold");
    if successes.number().is_some_and(|n| n != 1) {
        report.invalid(&successes, "must be 1");
    }
}

fn hooks(spec: &At<'_>, lifecycle: &At<'_>, report: &mut Report) {
    for name in ["postStart", "preStop"] {
        let hook = lifecycle.get(name);
        if !hook.is_set() {
            continue;
        }
        handler(&hook, &HOOK_HANDLERS, report);
        let sleep = hook.get("sleep");
        if sleep.is_set() {
            let grace = spec.get("terminationGracePeriodSeconds").number();
            let seconds = sleep.get("seconds").number().unwrap_or_default();
            let grace = grace.unwrap_or_default();
            if seconds < 0 || seconds > grace {
                let why = format!(
                    "must be non-negative and less than terminationGracePeriodSeconds ({grace})"
                );
                report.invalid(&sleep.get("seconds"), why);
            }
        }
    }
}

/// Exactly one way to ask or act.
fn handler(parent: &At<'_>, kinds: &[&str], report: &mut Report) {
    let set = parent.set_of(kinds);
    if set.is_empty() {
        report.required_since(parent, "must specify a handler type");
    }
    for (n, kind) in set.into_iter().enumerate() {
        let at = parent.get(kind);
        if n > 0 {
            report.forbidden(&at, "may not specify more than 1 handler type");
            continue;
        }
        match kind {
            "exec" if at.items("command").is_empty() => report.required(&at.get("command")),
            "httpGet" => {
                if at.get("path").text().is_empty() {
                    report.required(&at.get("path"));
                }
                report.port(&at.get("port"));
                report.one_of(&at.get("scheme"), &["HTTP", "HTTPS"]);
                for header in at.items("httpHeaders") {
                    header_name(&header.get("name"), report);
                }
            }
            "tcpSocket" => report.port(&at.get("port")),
            "grpc" => report.between(&at.get("port"), 1, 65535),
            _ => {}
        }
    }
}

fn header_name(at: &At<'_>, report: &mut Report) {
    // The same characters as a data key, `.` aside. RFC 9110 allows more; upstream does not.
    if at.text().contains('.') || data_key_problem(at.text()).is_some() {
        report.invalid(
            at,
            "a valid HTTP header must consist of alphanumeric characters or '-' (e.g. \
             'X-Header-Name', regex used for validation is '[-A-Za-z0-9]+')",
        );
    }
}
