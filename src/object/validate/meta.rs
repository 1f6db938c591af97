//! Metadata: names, labels, annotations.

use super::report::{At, Report};
use crate::object::names::{
    label_problem, label_value_problem, qualified_name_problem, subdomain_problem,
};
use crate::object::{Key, Kind};

/// All annotations of an object together. Upstream: `TotalAnnotationSizeLimitB`.
const ANNOTATIONS_BYTES_MAX: usize = 256 << 10;

pub(super) fn validate(key: &Key, top: &At<'_>, report: &mut Report) {
    let metadata = top.get("metadata");
    let name = metadata.get("name");
    let check = match key.kind {
        Kind::Namespace => label_problem,
        _ => subdomain_problem,
    };
    if name.text().is_empty() {
        report.required_since(&name, "name or generateName is required");
    } else {
        report.name(&name, check);
    }
    if key.kind.namespaced() {
        let namespace = metadata.get("namespace");
        if key.namespace.is_empty() {
            report.required(&namespace);
        }
        report.name_if_set(&namespace, label_problem);
    }
    labels(&metadata, "labels", report);
    let annotations = metadata.entries("annotations");
    let mut bytes = 0;
    for (key, at) in &annotations {
        // Upstream checks annotation keys in lower case.
        if let Some(problem) = qualified_name_problem(&key.to_lowercase()) {
            named(&metadata.get("annotations"), key, &problem, report);
        }
        bytes += key.len() + at.text().len();
    }
    if bytes > ANNOTATIONS_BYTES_MAX {
        report.too_long(&metadata.get("annotations"), ANNOTATIONS_BYTES_MAX);
    }
    finalizers(key.kind, &metadata, report);
    owners(&metadata, report);
}

fn finalizers(kind: Kind, metadata: &At<'_>, report: &mut Report) {
    const STANDARD: [&str; 3] = ["kubernetes", "orphan", "foregroundDeletion"];
    let listed = metadata.items("finalizers");
    for finalizer in &listed {
        report.name(finalizer, qualified_name_problem);
        let name = finalizer.text();
        // Core kinds ask for more than their neighbours do.
        if kind.group().is_empty() && !name.contains('/') && !STANDARD.contains(&name) {
            let why = "name is neither a standard finalizer name nor is it fully qualified";
            report.invalid(finalizer, why);
        }
    }
    let has = |name: &str| listed.iter().any(|one| one.text() == name);
    if has("orphan") && has("foregroundDeletion") {
        let why = "finalizer orphan and foregroundDeletion cannot be both set";
        report.invalid(&metadata.get("finalizers"), why);
    }
}

fn owners(metadata: &At<'_>, report: &mut Report) {
    let mut controller: Option<String> = None;
    for owner in metadata.items("ownerReferences") {
        for field in ["apiVersion", "kind", "name", "uid"] {
            if owner.get(field).text().is_empty() {
                report.required_since(&owner.get(field), "must not be empty");
            }
        }
        let (version, kind) = (owner.get("apiVersion"), owner.get("kind"));
        let slashes = version.text().matches('/').count();
        if slashes > 1 || version.text().ends_with('/') {
            report.invalid(&version, "must be <group>/<version> or <version>");
        }
        if (version.text(), kind.text()) == ("v1", "Event") {
            report.invalid(&owner, "/v1, Kind=Event is disallowed from being an owner");
        }
        if owner.get("controller").is_true() {
            let name = format!("{}/{}", kind.text(), owner.get("name").text());
            if let Some(first) = &controller {
                let why = format!(
                    "Only one reference can have Controller set to true. Found \"true\" in references \
                     for {first} and {name}"
                );
                report.invalid(&metadata.get("ownerReferences"), why);
            }
            controller.get_or_insert(name);
        }
    }
}

/// Labels, or a selector's map of them.
pub(super) fn labels(parent: &At<'_>, name: &str, report: &mut Report) {
    let map = parent.get(name);
    for (key, at) in parent.entries(name) {
        if let Some(problem) = qualified_name_problem(key) {
            named(&map, key, &problem, report);
        }
        if let Some(problem) = label_value_problem(at.text()) {
            named(&map, at.text(), &problem, report);
        }
    }
}

/// Something wrong with a key or value of a map: upstream names the map.
fn named(map: &At<'_>, what: &str, problem: &str, report: &mut Report) {
    let text = format!("Invalid value: {what:?}: {problem}");
    report.causes.push((map.path.clone(), text));
}
