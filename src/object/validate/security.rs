//! Security contexts: ranges, and settings that contradict each other.

use std::collections::BTreeSet;

use super::pod::unique;
use super::report::{At, Report};

const ID_MAX: i64 = i32::MAX as i64;
/// Upstream: `SysctlMaxLength`.
const SYSCTL_NAME_BYTES_MAX: usize = 253;

pub(super) fn validate_pod(spec: &At<'_>, report: &mut Report) {
    let context = spec.get("securityContext");
    ids(&context, &["runAsUser", "runAsGroup", "fsGroup"], report);
    for group in context.items("supplementalGroups") {
        report.between(&group, 0, ID_MAX);
    }
    report.one_of_if_set(
        &context.get("fsGroupChangePolicy"),
        &["Always", "OnRootMismatch"],
    );
    report.one_of_if_set(
        &context.get("supplementalGroupsPolicy"),
        &["Merge", "Strict"],
    );
    if spec.get("shareProcessNamespace").is_true() && spec.get("hostPID").is_true() {
        let why = "ShareProcessNamespace and HostPID cannot both be enabled";
        report.invalid(&spec.get("shareProcessNamespace"), why);
    }
    profile(&context.get("seccompProfile"), "seccomp", report);
    profile(&context.get("appArmorProfile"), "AppArmor", report);
    sysctls(spec, &context, report);
}

pub(super) fn validate_container(container: &At<'_>, report: &mut Report) {
    let context = container.get("securityContext");
    if !context.is_set() {
        return;
    }
    ids(&context, &["runAsUser", "runAsGroup"], report);
    report.one_of_if_set(&context.get("procMount"), &["Default", "Unmasked"]);
    profile(&context.get("seccompProfile"), "seccomp", report);
    profile(&context.get("appArmorProfile"), "AppArmor", report);
    if context.get("allowPrivilegeEscalation").value.as_bool() == Some(false) {
        if context.get("privileged").is_true() {
            let why = "cannot set `allowPrivilegeEscalation` to false and `privileged` to true";
            report.invalid(&context, why);
        }
        let added = context.get("capabilities").items("add");
        if added.iter().any(|c| c.text() == "CAP_SYS_ADMIN") {
            let why = "cannot set `allowPrivilegeEscalation` to false and `capabilities.Add` \
                       CAP_SYS_ADMIN";
            report.invalid(&context, why);
        }
    }
}

fn ids(context: &At<'_>, names: &[&str], report: &mut Report) {
    for name in names {
        report.between(&context.get(name), 0, ID_MAX);
    }
}

fn profile(at: &At<'_>, what: &str, report: &mut Report) {
    if !at.is_set() {
        return;
    }
    let kind = at.get("type");
    report.one_of(&kind, &["Localhost", "RuntimeDefault", "Unconfined"]);
    let file = at.get("localhostProfile");
    // An empty name once meant unconfined: CVE-2023-2431.
    match (kind.text(), file.text()) {
        ("Localhost", "") => {
            let why = format!("must be set when {what} type is Localhost");
            report.required_since(&file, why);
        }
        ("Localhost", _) => report.inner_path(&file),
        (_, _) if file.is_set() => {
            let why = format!("can only be set when {what} type is Localhost");
            report.invalid(&file, why);
        }
        _ => {}
    }
}

fn sysctls(spec: &At<'_>, context: &At<'_>, report: &mut Report) {
    let mut names = BTreeSet::new();
    for sysctl in context.items("sysctls") {
        let name = sysctl.get("name");
        let text = name.text();
        if text.is_empty() {
            report.required(&name);
            continue;
        }
        if text.len() > SYSCTL_NAME_BYTES_MAX || !is_sysctl(text) {
            let why = format!(
                "must have at most {SYSCTL_NAME_BYTES_MAX} characters and match regex \
                 ^([a-z0-9]([-_a-z0-9]*[a-z0-9])?[\\./])*[a-z0-9]([-_a-z0-9]*[a-z0-9])?$"
            );
            report.invalid(&name, why);
            continue;
        }
        unique(&name, &mut names, report);
        let dotted = text.replace('/', ".");
        if spec.get("hostNetwork").is_true() && dotted.starts_with("net.") {
            report.invalid(&name, "may not be specified when 'hostNetwork' is true");
        }
        if spec.get("hostIPC").is_true() && dotted.starts_with("kernel.") {
            report.invalid(&name, "may not be specified when 'hostIPC' is true");
        }
    }
}

fn is_sysctl(name: &str) -> bool {
    let end = |b: Option<&u8>| b.is_some_and(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
    name.split(['.', '/']).all(|part| {
        let bytes = part.as_bytes();
        let inner = |b: &u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b"-_".contains(b);
        end(bytes.first()) && end(bytes.last()) && bytes.iter().all(inner)
    })
}
