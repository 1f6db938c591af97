//! What may not change once an object exists.

use std::borrow::Cow;

use serde_json::Value;

use super::report::{At, Report};
use super::{Cause, resize};
use crate::object::{Kind, apply_defaults};

/// Everything that makes `body` no legal successor of `current`.
pub fn validate_update(kind: Kind, subresource: &str, body: &Value, current: &Value) -> Vec<Cause> {
    let mut report = Report::default();
    // A version before may have stored less of a pod, or in other spelling.
    let (mut body, mut current) = (Cow::Borrowed(body), Cow::Borrowed(current));
    if kind == Kind::Pod {
        apply_defaults(kind, body.to_mut());
        apply_defaults(kind, current.to_mut());
    }
    let (new, old) = (At::top(&body), At::top(&current));
    metadata(&new, &old, &mut report);
    match kind {
        // What these may reach is all that they change.
        Kind::Pod if matches!(subresource, "status" | "binding") => {}
        Kind::Pod if subresource == "ephemeralcontainers" => ephemeral(&new, &old, &mut report),
        Kind::Pod if subresource == "resize" => resize::validate(&new, &old, &mut report),
        Kind::Pod => pod(&new, &old, &mut report),
        Kind::Secret => {
            let (new_type, old_type) = (new.get("type"), old.get("type"));
            if new_type.value != old_type.value {
                report.invalid(&new_type, "field is immutable");
            }
            frozen(&new, &old, &["data"], &mut report);
        }
        Kind::ConfigMap => frozen(&new, &old, &["data", "binaryData"], &mut report),
        Kind::PriorityClass => {
            let value = |top: &At<'_>| top.get("value").number().unwrap_or_default();
            if value(&new) != value(&old) {
                report.forbidden(&new.get("value"), "may not be changed in an update.");
            }
            let (policy, before) = (new.get("preemptionPolicy"), old.get("preemptionPolicy"));
            if policy.text() != before.text() {
                report.invalid(&policy, "field is immutable");
            }
        }
        _ => {}
    }
    report.causes
}

/// Source: Kubernetes apimachinery, api/validation/objectmeta.go.
fn metadata(new: &At<'_>, old: &At<'_>, report: &mut Report) {
    let (new, old) = (new.get("metadata"), old.get("metadata"));
    if !old.get("deletionTimestamp").is_set() {
        return;
    }
    let finalizers = |metadata: &At<'_>| {
        let list = metadata.get("finalizers").value.as_array();
        list.cloned().unwrap_or_default()
    };
    let before = finalizers(&old);
    let added: Vec<String> = finalizers(&new)
        .iter()
        .filter(|one| !before.contains(one))
        .map(ToString::to_string)
        .collect();
    if !added.is_empty() {
        let why = format!(
            "no new finalizers can be added if the object is being deleted, found new finalizers \
             []string{{{}}}",
            added.join(", ")
        );
        report.forbidden(&new.get("finalizers"), &why);
    }
}

/// Ephemeral containers come, and stay as they came.
fn ephemeral(new: &At<'_>, old: &At<'_>, report: &mut Report) {
    let (new, old) = (new.get("spec"), old.get("spec"));
    let list = new.get("ephemeralContainers");
    for before in old.items("ephemeralContainers") {
        let name = before.get("name").text().to_owned();
        let after = new.items("ephemeralContainers");
        let after = after.into_iter().find(|one| one.get("name").text() == name);
        match after {
            None => {
                let why = format!("existing ephemeral containers {name:?} may not be removed");
                report.forbidden(&list, &why);
            }
            Some(after) if after.value != before.value => {
                let why = format!("existing ephemeral containers {name:?} may not be changed");
                report.forbidden(&list, &why);
            }
            Some(_) => {}
        }
    }
}

fn frozen(new: &At<'_>, old: &At<'_>, fields: &[&str], report: &mut Report) {
    const WHY: &str = "field is immutable when `immutable` is set";
    if !old.get("immutable").is_true() {
        return;
    }
    if !new.get("immutable").is_true() {
        report.forbidden(&new.get("immutable"), WHY);
    }
    for field in fields {
        if new.get(field).value != old.get(field).value {
            report.forbidden(&new.get(field), WHY);
        }
    }
}

/// Whether a negative grace period is put right.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Grace {
    Stays,
    Mended,
}

/// Of a running pod only images, the deadline and further tolerations may change.
fn pod(new: &At<'_>, old: &At<'_>, report: &mut Report) {
    let (new_spec, old_spec) = (new.get("spec"), old.get("spec"));
    for list in ["containers", "initContainers"] {
        if new_spec.items(list).len() != old_spec.items(list).len() {
            let why = "pod updates may not add or remove containers";
            report.forbidden(&new_spec.get(list), why);
            return;
        }
    }
    deadline(&new_spec, &old_spec, report);
    tolerations(&new_spec, &old_spec, report);
    let before = old_spec.items("schedulingGates");
    for gate in new_spec.items("schedulingGates") {
        let (name, name_at) = (gate.get("name").text(), gate.get("name"));
        if !before.iter().any(|old| old.get("name").text() == name) {
            let why = format!("only deletion is allowed, but found new scheduling gate '{name}'");
            report.forbidden(&name_at, why);
        }
    }
    let grace = |spec: &At<'_>| spec.get("terminationGracePeriodSeconds").number();
    let grace = match (grace(&old_spec), grace(&new_spec)) {
        (Some(..0), Some(1)) => Grace::Mended,
        _ => Grace::Stays,
    };
    if changeless(old_spec.value, grace) != changeless(new_spec.value, grace) {
        let why = "pod updates may not change fields other than `spec.containers[*].image`,\
                   `spec.initContainers[*].image`,`spec.activeDeadlineSeconds`,`spec.tolerations` \
                   (only additions to existing tolerations),`spec.terminationGracePeriodSeconds` \
                   (allow it to be set to 1 if it was previously negative)";
        report.forbidden(&new_spec, why);
    }
}

/// A deadline may come and come nearer.
fn deadline(new: &At<'_>, old: &At<'_>, report: &mut Report) {
    let new = new.get("activeDeadlineSeconds");
    match (new.number(), old.get("activeDeadlineSeconds").number()) {
        (Some(after), Some(before)) if before < after => {
            report.invalid(&new, "must be less than or equal to previous value");
        }
        (None, Some(_)) => {
            report.invalid(&new, "must not update from a positive integer to nil value");
        }
        _ => {}
    }
}

/// Tolerations stay, for as long as is wished, and others may come.
fn tolerations(new: &At<'_>, old: &At<'_>, report: &mut Report) {
    let listed = |spec: &At<'_>| {
        let list = spec.get("tolerations").value.as_array();
        let mut list = list.cloned().unwrap_or_default();
        for one in list.iter_mut().filter_map(Value::as_object_mut) {
            one.remove("tolerationSeconds");
        }
        list
    };
    let kept = listed(new);
    if listed(old).iter().any(|one| !kept.contains(one)) {
        let why = "existing toleration can not be modified except its tolerationSeconds";
        report.forbidden(&new.get("tolerations"), why);
    }
}

/// The spec without what may change, as it would be stored today.
fn changeless(spec: &Value, grace: Grace) -> Value {
    let mut spec = spec.clone();
    if let Some(fields) = spec.as_object_mut() {
        fields.remove("activeDeadlineSeconds");
        fields.remove("tolerations");
        fields.remove("schedulingGates");
        if grace == Grace::Mended {
            fields.remove("terminationGracePeriodSeconds");
        }
        for list in ["containers", "initContainers"] {
            let list = fields.get_mut(list).and_then(Value::as_array_mut);
            for container in list.into_iter().flatten() {
                if let Some(container) = container.as_object_mut() {
                    container.remove("image");
                }
            }
        }
    }
    spec
}
