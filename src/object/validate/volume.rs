//! Volumes and the mounts that refer to them.

use std::collections::BTreeSet;

use super::container::{is_subscript, resource_field};
use super::pod::unique;
use super::report::{At, Report};
use crate::object::Quantity;
use crate::object::names::{data_key_problem, label_problem, subdomain_problem};

const MODE_MAX: i64 = 0o777;
/// Upstream refuses tokens that live shorter or longer, in seconds.
const TOKEN_LIFE_S_MIN: i64 = 600;
const TOKEN_LIFE_S_MAX: i64 = 1 << 32;

/// Returns the names that mounts may use.
pub(super) fn validate_all(spec: &At<'_>, report: &mut Report) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    for volume in spec.items("volumes") {
        let name = volume.get("name");
        report.name(&name, label_problem);
        unique(&name, &mut names, report);
        one_source(&volume, report);
    }
    names
}

fn one_source(volume: &At<'_>, report: &mut Report) {
    let fields = volume.value.as_object().into_iter().flatten();
    let sources = fields.filter(|(name, value)| *name != "name" && !value.is_null());
    for (n, (plugin, _)) in sources.enumerate() {
        let at = volume.get(plugin);
        if n > 0 {
            report.forbidden(&at, "may not specify more than 1 volume type");
            continue;
        }
        match plugin.as_str() {
            "emptyDir" => empty_dir(&at, report),
            "hostPath" => host_path(&at, report),
            "configMap" => files_of(&at, "name", report),
            "secret" => files_of(&at, "secretName", report),
            "downwardAPI" => {
                mode(&at.get("defaultMode"), report);
                downward(&at, report);
            }
            "projected" => projected(&at, report),
            _ => {}
        }
    }
}

fn empty_dir(at: &At<'_>, report: &mut Report) {
    let limit = at.get("sizeLimit");
    if limit.is_set() {
        match limit.text().parse::<Quantity>() {
            Err(problem) => report.invalid(&limit, problem),
            Ok(amount) if amount.is_negative() => {
                report.forbidden(&limit, "SizeLimit field must be a valid resource quantity");
            }
            Ok(_) => {}
        }
    }
}

fn host_path(at: &At<'_>, report: &mut Report) {
    let path = at.get("path");
    if path.text().is_empty() {
        report.required(&path);
        return;
    }
    report.no_parent(&path);
    report.one_of_if_set(
        &at.get("type"),
        &[
            "BlockDevice",
            "CharDevice",
            "Directory",
            "DirectoryOrCreate",
            "File",
            "FileOrCreate",
            "Socket",
        ],
    );
}

fn mode(at: &At<'_>, report: &mut Report) {
    if at.number().is_some_and(|m| !(0..=MODE_MAX).contains(&m)) {
        let why = "must be a number between 0 and 0777 (octal), both inclusive";
        report.invalid(at, why);
    }
}

/// A volume made of one ConfigMap or Secret.
fn files_of(at: &At<'_>, name: &str, report: &mut Report) {
    report.name(&at.get(name), subdomain_problem);
    mode(&at.get("defaultMode"), report);
    items(at, report);
}

/// Which key goes to which path.
fn items(at: &At<'_>, report: &mut Report) {
    for item in at.items("items") {
        report.name(&item.get("key"), data_key_problem);
        file_path(&item.get("path"), report);
        mode(&item.get("mode"), report);
    }
}

/// A file below a volume: relative, no `..`, and not one of the atomic writer's own names.
fn file_path(at: &At<'_>, report: &mut Report) {
    if at.text().is_empty() {
        report.required(at);
        return;
    }
    report.inner_path(at);
    let first = at.text().split('/').next().unwrap_or_default();
    if first.starts_with("..") && first.len() > 2 {
        report.invalid(at, "must not start with '..'");
    }
}

fn downward(at: &At<'_>, report: &mut Report) {
    for item in at.items("items") {
        file_path(&item.get("path"), report);
        mode(&item.get("mode"), report);
        let (field, resource) = (item.get("fieldRef"), item.get("resourceFieldRef"));
        match (field.is_set(), resource.is_set()) {
            (true, true) => {
                let why = "fieldRef and resourceFieldRef can not be specified simultaneously";
                report.invalid(&item, why);
            }
            (false, false) => {
                report.required_since(&item, "one of fieldRef and resourceFieldRef is required");
            }
            (true, false) => {
                let path = field.get("fieldPath");
                if !is_subscript(path.text()) {
                    report.one_of(
                        &path,
                        &[
                            "metadata.annotations",
                            "metadata.labels",
                            "metadata.name",
                            "metadata.namespace",
                            "metadata.uid",
                        ],
                    );
                }
            }
            (false, true) => {
                if resource.get("containerName").text().is_empty() {
                    report.required(&resource.get("containerName"));
                }
                resource_field(&resource.get("resource"), report);
            }
        }
    }
}

fn projected(at: &At<'_>, report: &mut Report) {
    mode(&at.get("defaultMode"), report);
    for source in at.items("sources") {
        let set = source.set_of(&[
            "secret",
            "configMap",
            "downwardAPI",
            "serviceAccountToken",
            "clusterTrustBundle",
            "podCertificate",
        ]);
        match set.as_slice() {
            [] => report.required_since(&source, "must specify a volume source type"),
            [kind @ ("secret" | "configMap")] => {
                let inner = source.get(kind);
                report.name(&inner.get("name"), subdomain_problem);
                items(&inner, report);
            }
            ["downwardAPI"] => downward(&source.get("downwardAPI"), report),
            ["serviceAccountToken"] => {
                let token = source.get("serviceAccountToken");
                file_path(&token.get("path"), report);
                let life = token.get("expirationSeconds");
                match life.number() {
                    Some(s) if s < TOKEN_LIFE_S_MIN => {
                        report.invalid(&life, "may not specify a duration less than 10 minutes");
                    }
                    Some(s) if s > TOKEN_LIFE_S_MAX => {
                        report
                            .invalid(&life, "may not specify a duration larger than 2^32 seconds");
                    }
                    _ => {}
                }
            }
            [_] => {}
            several => {
                for kind in &several[1..] {
                    let why = "may not specify more than 1 volume type per source";
                    report.forbidden(&source.get(kind), why);
                }
            }
        }
    }
}

pub(super) fn validate_mounts(container: &At<'_>, volumes: &BTreeSet<String>, report: &mut Report) {
    let mut paths = BTreeSet::new();
    let privileged = container.get("securityContext").get("privileged").is_true();
    for mount in container.items("volumeMounts") {
        let name = mount.get("name");
        if name.text().is_empty() {
            report.required(&name);
        } else if !volumes.contains(name.text()) {
            report.not_found(&name);
        }
        let path = mount.get("mountPath");
        if path.text().is_empty() {
            report.required(&path);
        } else if !paths.insert(path.text()) {
            report.invalid(&path, "must be unique");
        }
        let (sub, expression) = (mount.get("subPath"), mount.get("subPathExpr"));
        report.inner_path(&sub);
        report.inner_path(&expression);
        if !sub.text().is_empty() && !expression.text().is_empty() {
            let why = "subPathExpr and subPath are mutually exclusive";
            report.invalid(&expression, why);
        }
        let propagation = mount.get("mountPropagation");
        report.one_of_if_set(&propagation, &["Bidirectional", "HostToContainer", "None"]);
        if propagation.text() == "Bidirectional" && !privileged {
            let why = "Bidirectional mount propagation is available only to privileged containers";
            report.forbidden(&propagation, why);
        }
    }
}
