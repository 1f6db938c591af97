//! PodSecurity: what pods may do to their node, by labels of their namespace.
//!
//! ```text
//!  pod-security.kubernetes.io/enforce ─► refused     …/warn ─► a warning     …/audit ─► nothing yet
//!  privileged (all) < baseline (no known way out) < restricted (hardened); -version: of which release
//! ```
//! Without labels all is allowed. Source: Kubernetes `pod-security-admission`; checks are named as
//! there, in the order of their names, baseline before restricted.

mod baseline;
mod checks;
mod policy;
mod restricted;
#[cfg(test)]
mod tests;

use serde_json::Value;

use self::policy::{Level, Policy, Rank};
use super::pod::{LISTS, items, text};
use crate::object::{Key, Kind, Object};
use crate::registry::{Admit, Attributes, Denial, Operation};

/// Pods looked at when a namespace gets stricter. Upstream: `defaultNamespaceMaxPodsToCheck`.
const PODS_CHECKED_MAX: usize = 3000;

pub struct PodSecurity;

impl Admit for PodSecurity {
    fn name(&self) -> &'static str {
        "PodSecurity"
    }

    fn validate(&self, attributes: &Attributes<'_>, object: &Value) -> Result<(), Denial> {
        match (attributes.key.kind, attributes.operation) {
            (_, Operation::Delete) => Ok(()),
            (Kind::Namespace, _) if attributes.actor.subresource.is_empty() => {
                namespace(attributes, object)
            }
            (Kind::Pod, _) => pod(attributes, object),
            _ => Ok(()),
        }
    }
}

fn namespace(attributes: &Attributes<'_>, object: &Value) -> Result<(), Denial> {
    let (policy, problems) = Policy::of(&object["metadata"]["labels"]);
    let before = attributes
        .current
        .map(|now| Policy::of(&now.metadata()["labels"]));
    let Some((old, old_problems)) = before else {
        return match problems.is_empty() {
            true => Ok(()),
            false => Err(Denial::Invalid(problems)),
        };
    };
    if !problems.is_empty() && problems != old_problems {
        return Err(Denial::Invalid(problems));
    }
    let (new, old) = (policy.enforce, old.enforce);
    let weaker = new.version == old.version && new.rank <= old.rank;
    if new != old && new.rank != Rank::Privileged && !weaker {
        for warning in existing(attributes, new) {
            attributes.remarks.warn(warning);
        }
    }
    Ok(())
}

/// What the pods that are there say to a stricter rule.
fn existing(attributes: &Attributes<'_>, level: Level) -> Vec<String> {
    let name = &attributes.key.name;
    let pods = attributes.view.list(Kind::Pod, Some(name));
    // Reason, first pod by name, how many more.
    let mut found: Vec<(String, String, usize)> = Vec::new();
    for pod in pods.iter().take(PODS_CHECKED_MAX) {
        let violations = checks::evaluate(level, &pod.body);
        if violations.is_empty() {
            continue;
        }
        let reasons: Vec<&str> = violations
            .iter()
            .map(|violation| violation.reason)
            .collect();
        let reasons = reasons.join(", ");
        match found.iter_mut().find(|(told, _, _)| *told == reasons) {
            None => found.push((reasons, pod.key.name.clone(), 0)),
            Some((_, first, more)) => {
                *more += 1;
                if pod.key.name < *first {
                    first.clone_from(&pod.key.name);
                }
            }
        }
    }
    let mut warnings = Vec::new();
    if pods.len() > PODS_CHECKED_MAX {
        warnings.push(format!(
            "new PodSecurity enforce level only checked against the first {PODS_CHECKED_MAX} of {} \
             existing pods",
            pods.len()
        ));
    }
    if !found.is_empty() {
        warnings.push(format!(
            "existing pods in namespace {name:?} violate the new PodSecurity enforce level \"{level}\""
        ));
    }
    let told = found.into_iter().map(|(reasons, first, more)| match more {
        0 => format!("{first}: {reasons}"),
        1 => format!("{first} (and 1 other pod): {reasons}"),
        more => format!("{first} (and {more} other pods): {reasons}"),
    });
    let mut told: Vec<String> = told.collect();
    told.sort_unstable();
    warnings.extend(told);
    warnings
}

fn pod(attributes: &Attributes<'_>, object: &Value) -> Result<(), Denial> {
    if !matches!(
        attributes.actor.subresource,
        "" | "ephemeralcontainers" | "resize"
    ) {
        return Ok(());
    }
    let key = Key::local(Kind::Namespace, "", &attributes.key.namespace);
    let Some(namespace) = attributes.view.get(&key) else {
        return Ok(());
    };
    let (policy, problems) = Policy::of(&namespace.metadata()["labels"]);
    if problems.is_empty() && policy.is_privileged() {
        return Ok(());
    }
    let update = attributes.operation == Operation::Update;
    if update
        && attributes
            .current
            .is_some_and(|now| !is_significant(object, now))
    {
        return Ok(());
    }
    let violations = checks::evaluate(policy.enforce, object);
    if !violations.is_empty() {
        return Err(Denial::forbidden(format!(
            "violates PodSecurity \"{}\": {}",
            policy.enforce,
            checks::detail(&violations)
        )));
    }
    let violations = checks::evaluate(policy.warn, object);
    if !violations.is_empty() {
        attributes.remarks.warn(format!(
            "would violate PodSecurity \"{}\": {}",
            policy.warn,
            checks::detail(&violations)
        ));
    }
    Ok(())
}

/// Whether an update brings containers or images.
fn is_significant(object: &Value, current: &Object) -> bool {
    let images = |body: &Value| -> Vec<(String, String)> {
        let lists = LISTS.iter().flat_map(|list| items(&body["spec"], list));
        let named = lists.map(|c| (text(c, "name").to_owned(), text(c, "image").to_owned()));
        named.collect()
    };
    images(object) != images(&current.body)
}
