//! Level restricted: what hardening asks for, beside all of baseline. Pure.
//!
//! Source: Kubernetes `pod-security-admission/policy/check_*.go`.

use serde_json::Value;

use super::baseline;
use super::checks::{
    Names, Violation, containers, context, is_windows, named, plural, quoted, relaxed, setters,
    since_minor, violation,
};
use super::policy::Version;
use crate::admission::pod::{items, text};

pub fn privilege_escalation(pod: &Value, at: Version) -> Option<Violation> {
    if since_minor(at, 25) && is_windows(pod) {
        return None;
    }
    let bad = containers(pod, |container| {
        context(container)["allowPrivilegeEscalation"] != false
    });
    if bad.is_empty() {
        return None;
    }
    violation(
        "allowPrivilegeEscalation != false",
        format!(
            "{} must set securityContext.allowPrivilegeEscalation=false",
            named("container", &bad)
        ),
    )
}

pub fn capabilities(pod: &Value, at: Version) -> Option<Violation> {
    if since_minor(at, 25) && is_windows(pod) {
        return None;
    }
    let of = |container: &Value, list: &str| -> Vec<String> {
        let names = items(&context(container)["capabilities"], list).filter_map(Value::as_str);
        names.map(str::to_owned).collect()
    };
    let keeping = containers(pod, |container| {
        !of(container, "drop").iter().any(|name| name == "ALL")
    });
    let mut added = Names::new();
    let adding = containers(pod, |container| {
        let mut forbidden = of(container, "add");
        forbidden.retain(|name| name != "NET_BIND_SERVICE");
        added.extend(forbidden.iter().cloned());
        !forbidden.is_empty()
    });
    let mut details = Vec::new();
    if !keeping.is_empty() {
        let who = named("container", &keeping);
        details.push(format!(
            "{who} must set securityContext.capabilities.drop=[\"ALL\"]"
        ));
    }
    if !adding.is_empty() {
        let (who, what) = (named("container", &adding), quoted(&added));
        details.push(format!(
            "{who} must not include {what} in securityContext.capabilities.add"
        ));
    }
    match details.is_empty() {
        true => None,
        false => violation("unrestricted capabilities", details.join("; ")),
    }
}

pub fn proc_mount(pod: &Value, _at: Version) -> Option<Violation> {
    baseline::any_proc_mount(pod)
}

const VOLUMES: [&str; 9] = [
    "configMap",
    "csi",
    "downwardAPI",
    "emptyDir",
    "ephemeral",
    "image",
    "persistentVolumeClaim",
    "projected",
    "secret",
];

/// Those that have a name of their own in the message, in upstream's order.
const OTHER_VOLUMES: [&str; 21] = [
    "hostPath",
    "gcePersistentDisk",
    "awsElasticBlockStore",
    "gitRepo",
    "nfs",
    "iscsi",
    "glusterfs",
    "rbd",
    "flexVolume",
    "cinder",
    "cephfs",
    "flocker",
    "fc",
    "azureFile",
    "vsphereVolume",
    "quobyte",
    "azureDisk",
    "photonPersistentDisk",
    "portworxVolume",
    "scaleIO",
    "storageos",
];

pub fn volumes(pod: &Value, _at: Version) -> Option<Violation> {
    let has = |volume: &Value, kinds: &[&'static str]| {
        kinds.iter().copied().find(|kind| volume[*kind].is_object())
    };
    let mut kinds = Names::new();
    let bad = items(&pod["spec"], "volumes").filter(|volume| has(volume, &VOLUMES).is_none());
    let bad: Vec<String> = bad
        .map(|volume| {
            kinds.insert(has(volume, &OTHER_VOLUMES).unwrap_or("unknown").to_owned());
            text(volume, "name").to_owned()
        })
        .collect();
    if bad.is_empty() {
        return None;
    }
    let uses = if bad.len() == 1 { "uses" } else { "use" };
    let what = plural("restricted volume type", kinds.len());
    let who = named("volume", &bad);
    violation(
        "restricted volume types",
        format!("{who} {uses} {what} {}", quoted(&kinds)),
    )
}

pub fn run_as_non_root(pod: &Value, at: Version) -> Option<Violation> {
    const REASON: &str = "runAsNonRoot != true";
    if relaxed(pod, at) {
        return None;
    }
    let of = |of: &Value| context(of)["runAsNonRoot"].as_bool();
    let of_pod = of(&pod["spec"]);
    let explicit = containers(pod, |container| of(container) == Some(false));
    if let Some(setters) = setters(of_pod == Some(false), &explicit) {
        let detail = format!("{setters} must not set securityContext.runAsNonRoot=false");
        return violation(REASON, detail);
    }
    let silent = containers(pod, |container| of(container).is_none());
    if of_pod == Some(true) || silent.is_empty() {
        return None;
    }
    let who = named("container", &silent);
    violation(
        REASON,
        format!("pod or {who} must set securityContext.runAsNonRoot=true"),
    )
}

pub fn run_as_user(pod: &Value, at: Version) -> Option<Violation> {
    if relaxed(pod, at) {
        return None;
    }
    let root = |of: &Value| context(of)["runAsUser"] == 0;
    let setters = setters(root(&pod["spec"]), &containers(pod, root))?;
    violation("runAsUser=0", format!("{setters} must not set runAsUser=0"))
}

pub fn seccomp_profile(pod: &Value, at: Version) -> Option<Violation> {
    if since_minor(at, 25) && is_windows(pod) {
        return None;
    }
    if let Some(violation) = baseline::seccomp_profile(pod, at) {
        return Some(violation);
    }
    let said = |of: &Value| context(of)["seccompProfile"].is_object();
    let silent = containers(pod, |container| !said(container));
    if said(&pod["spec"]) || silent.is_empty() {
        return None;
    }
    let who = named("container", &silent);
    violation(
        "seccompProfile",
        format!(
            "pod or {who} must set securityContext.seccompProfile.type to \"RuntimeDefault\" or \
             \"Localhost\""
        ),
    )
}
