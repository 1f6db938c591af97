//! Which checks a level has, and what they share. Pure.
//!
//! Source: Kubernetes `pod-security-admission/policy/{registry,checks,helpers,visitor}.go`.

use std::collections::BTreeSet;

use serde_json::Value;

use super::policy::{Level, Rank, Version};
use super::{baseline, restricted};
use crate::admission::pod::{all_containers, text};

/// One check's no: what, and in detail.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    pub reason: &'static str,
    pub detail: String,
}

/// A check: of a pod, by the rules of a version.
type Check = fn(&Value, Version) -> Option<Violation>;

/// In the order of their names.
const BASELINE: [(&str, Check); 12] = [
    ("appArmorProfile", baseline::app_armor_profile),
    ("capabilities_baseline", baseline::capabilities),
    ("hostNamespaces", baseline::host_namespaces),
    ("hostPathVolumes", baseline::host_path_volumes),
    ("hostPorts", baseline::host_ports),
    ("hostProbesAndHostLifecycle", baseline::host_probes),
    ("privileged", baseline::privileged),
    ("procMount", baseline::proc_mount),
    ("seLinuxOptions", baseline::selinux_options),
    ("seccompProfile_baseline", baseline::seccomp_profile),
    ("sysctls", baseline::sysctls),
    ("windowsHostProcess", baseline::windows_host_process),
];

/// Name, since when, the baseline check that it replaces, and the check.
const RESTRICTED: [(&str, u32, &str, Check); 7] = [
    (
        "allowPrivilegeEscalation",
        8,
        "",
        restricted::privilege_escalation,
    ),
    (
        "capabilities_restricted",
        22,
        "capabilities_baseline",
        restricted::capabilities,
    ),
    (
        "procMount_restricted",
        35,
        "procMount",
        restricted::proc_mount,
    ),
    (
        "restrictedVolumes",
        0,
        "hostPathVolumes",
        restricted::volumes,
    ),
    ("runAsNonRoot", 0, "", restricted::run_as_non_root),
    ("runAsUser", 23, "", restricted::run_as_user),
    (
        "seccompProfile_restricted",
        19,
        "seccompProfile_baseline",
        restricted::seccomp_profile,
    ),
];

/// Everything about the pod that the level forbids.
pub fn evaluate(level: Level, pod: &Value) -> Vec<Violation> {
    if level.rank == Rank::Privileged {
        return Vec::new();
    }
    let at = level.version;
    let restricted: Vec<_> = match level.rank {
        Rank::Restricted => RESTRICTED
            .iter()
            .filter(|(_, since, _, _)| since_minor(at, *since))
            .collect(),
        _ => Vec::new(),
    };
    let replaced = |name: &str| restricted.iter().any(|(_, _, of, _)| *of == name);
    let baseline = BASELINE.iter().filter(|(name, _)| !replaced(name));
    let checks = baseline.map(|(_, check)| check);
    let checks = checks.chain(restricted.iter().map(|(_, _, _, check)| check));
    checks.filter_map(|check| check(pod, at)).collect()
}

/// `reason (detail), reason`
pub fn detail(violations: &[Violation]) -> String {
    let one = |violation: &Violation| match violation.detail.as_str() {
        "" => violation.reason.to_owned(),
        detail => format!("{} ({detail})", violation.reason),
    };
    violations.iter().map(one).collect::<Vec<_>>().join(", ")
}

pub fn since_minor(at: Version, minor: u32) -> bool {
    at >= Version::Minor(minor)
}

/// Names of the containers of which `bad` holds, in order.
pub fn containers(pod: &Value, mut bad: impl FnMut(&Value) -> bool) -> Vec<String> {
    let all = all_containers(&pod["spec"]).filter(|container| bad(container));
    all.map(|container| text(container, "name").to_owned())
        .collect()
}

/// `container "a"`, `containers "a", "b"`
pub fn named(what: &str, names: &[String]) -> String {
    format!("{} {}", plural(what, names.len()), quoted(names))
}

pub fn plural(what: &str, count: usize) -> String {
    match count {
        1 => what.to_owned(),
        _ => format!("{what}s"),
    }
}

/// `"a", "b"`
pub fn quoted<'a>(items: impl IntoIterator<Item = &'a String>) -> String {
    let quoted: Vec<String> = items
        .into_iter()
        .map(|item| format!("\"{item}\""))
        .collect();
    quoted.join(", ")
}

/// `pod and container "a"`: who set what is not allowed; `None` if nobody did.
pub fn setters(pod: bool, containers: &[String]) -> Option<String> {
    let of_pod = pod.then(|| "pod".to_owned());
    let of_containers = (!containers.is_empty()).then(|| named("container", containers));
    let all: Vec<String> = of_pod.into_iter().chain(of_containers).collect();
    (!all.is_empty()).then(|| all.join(" and "))
}

/// The security context of a container or of the pod's spec.
pub fn context(of: &Value) -> &Value {
    &of["securityContext"]
}

pub type Names = BTreeSet<String>;

pub fn violation(reason: &'static str, detail: String) -> Option<Violation> {
    Some(Violation { reason, detail })
}

/// Windows pods are not asked for what their system does not have.
pub fn is_windows(pod: &Value) -> bool {
    pod["spec"]["os"]["name"] == "windows"
}

/// A pod in a user namespace of its own: root in it is nobody outside. Since 1.35.
pub fn relaxed(pod: &Value, at: Version) -> bool {
    since_minor(at, 35) && pod["spec"]["hostUsers"] == false
}
