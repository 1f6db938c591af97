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
    for finalizer in metadata.items("finalizers") {
        report.name(&finalizer, qualified_name_problem);
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
