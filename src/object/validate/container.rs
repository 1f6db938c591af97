//! Containers: names, image, ports, env, resources, mounts.

use std::collections::BTreeSet;

use serde_json::{Map, Value};

use super::limits::whole_amount;
use super::pod::unique;
use super::report::{At, Report};
use super::{probe, security, volume};
use crate::object::Quantity;
use crate::object::names::{
    data_key_problem, env_name_problem, label_problem, port_name_problem, qualified_name_problem,
    subdomain_problem,
};

/// Which list a container stands in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Role {
    Init,
    /// An init container with `restartPolicy: Always`.
    Sidecar,
    Regular,
    /// Added to a pod that runs.
    Ephemeral,
}

/// Fields of a container that one who only looks into a pod does not have.
const NOT_EPHEMERAL: [&str; 9] = [
    "ports",
    "resources",
    "livenessProbe",
    "readinessProbe",
    "startupProbe",
    "lifecycle",
    "restartPolicy",
    "restartPolicyRules",
    "resizePolicy",
];

pub(super) fn validate_all(spec: &At<'_>, volumes: &BTreeSet<String>, report: &mut Report) {
    let mut names = BTreeSet::new();
    let mut host_ports = BTreeSet::new();
    let regular = spec.items("containers");
    if regular.is_empty() {
        report.required(&spec.get("containers"));
    }
    let init = spec.items("initContainers");
    let with_role = regular.into_iter().map(|c| (Role::Regular, c));
    let with_role = with_role.chain(init.into_iter().map(
        |c| match c.get("restartPolicy").text() {
            "Always" => (Role::Sidecar, c),
            _ => (Role::Init, c),
        },
    ));
    let added = spec.items("ephemeralContainers").into_iter();
    for (role, container) in with_role.chain(added.map(|c| (Role::Ephemeral, c))) {
        unique(&container.get("name"), &mut names, report);
        validate_one(role, spec, &container, volumes, report);
        ports(spec, role, &container, &mut host_ports, report);
    }
}

fn validate_one(
    role: Role,
    spec: &At<'_>,
    container: &At<'_>,
    volumes: &BTreeSet<String>,
    report: &mut Report,
) {
    report.name(&container.get("name"), label_problem);
    let image = container.get("image");
    if image.text().is_empty() {
        report.required(&image);
    } else if image.text().trim() != image.text() {
        report.invalid(&image, "must not have leading or trailing whitespace");
    }
    let policies = ["Always", "OnFailure", "Never"];
    report.one_of_if_set(&container.get("restartPolicy"), &policies);
    report.one_of_if_set(
        &container.get("imagePullPolicy"),
        &["Always", "IfNotPresent", "Never"],
    );
    report.one_of_if_set(
        &container.get("terminationMessagePolicy"),
        &["FallbackToLogsOnError", "File"],
    );
    match role {
        Role::Ephemeral => ephemeral(spec, container, report),
        _ => probe::validate_all(role, spec, container, report),
    }
    env(container, report);
    resources(container, report);
    volume::validate_mounts(container, volumes, report);
    security::validate_container(container, report);
}

fn ephemeral(spec: &At<'_>, container: &At<'_>, report: &mut Report) {
    const WHY: &str = "cannot be set for an Ephemeral Container";
    let target = container.get("targetContainerName");
    let is_target = |list: &str| {
        let mut others = spec.items(list).into_iter();
        others.any(|other| other.get("name").text() == target.text())
    };
    if !target.text().is_empty() && !is_target("containers") && !is_target("initContainers") {
        report.not_found(&target);
    }
    for name in NOT_EPHEMERAL {
        let at = container.get(name);
        // Defaults leave an empty list of resources.
        let empty = at.value.as_object().is_some_and(Map::is_empty)
            || at.value.as_array().is_some_and(Vec::is_empty);
        if at.is_set() && !empty {
            report.forbidden(&at, WHY);
        }
    }
    for mount in container.items("volumeMounts") {
        for at in [mount.get("subPath"), mount.get("subPathExpr")] {
            if !at.text().is_empty() {
                report.forbidden(&at, WHY);
            }
        }
    }
}

fn ports(
    spec: &At<'_>,
    role: Role,
    container: &At<'_>,
    host_ports: &mut BTreeSet<String>,
    report: &mut Report,
) {
    let mut names = BTreeSet::new();
    for port in container.items("ports") {
        let name = port.get("name");
        report.name_if_set(&name, port_name_problem);
        unique(&name, &mut names, report);
        let inner = port.get("containerPort");
        match inner.number() {
            None | Some(0) => report.required(&inner),
            Some(_) => report.between(&inner, 1, 65535),
        }
        report.one_of(&port.get("protocol"), &["SCTP", "TCP", "UDP"]);
        let outer = port.get("hostPort");
        let Some(number) = outer.number().filter(|n| *n != 0) else {
            continue;
        };
        report.between(&outer, 1, 65535);
        if spec.get("hostNetwork").is_true() && outer.number() != inner.number() {
            report.invalid(
                &outer,
                "must match `containerPort` when `hostNetwork` is true",
            );
        }
        // Init containers come one after another: they may share a port.
        if role != Role::Init {
            let protocol = port.get("protocol");
            let place = format!("{}/{}/{number}", protocol.text(), port.get("hostIP").text());
            if !host_ports.insert(place.clone()) {
                report.duplicate(&outer, &place);
            }
        }
    }
}

const ENV_SOURCES: [&str; 5] = [
    "fieldRef",
    "resourceFieldRef",
    "configMapKeyRef",
    "secretKeyRef",
    "fileKeyRef",
];

fn env(container: &At<'_>, report: &mut Report) {
    for variable in container.items("env") {
        report.name(&variable.get("name"), env_name_problem);
        let from = variable.get("valueFrom");
        if !from.is_set() {
            continue;
        }
        let set = from.set_of(&ENV_SOURCES);
        if set.is_empty() {
            let why = "must specify one of: `fieldRef`, `resourceFieldRef`, `configMapKeyRef` or \
                       `secretKeyRef`";
            report.invalid(&from, why);
        } else if !variable.get("value").text().is_empty() {
            report.invalid(&from, "may not be specified when `value` is not empty");
        } else if set.len() > 1 {
            report.invalid(
                &from,
                "may not have more than one field specified at a time",
            );
        }
        for source in ["configMapKeyRef", "secretKeyRef"] {
            let reference = from.get(source);
            if reference.is_set() {
                report.name_if_set(&reference.get("name"), subdomain_problem);
                report.name(&reference.get("key"), data_key_problem);
            }
        }
        if from.get("fieldRef").is_set() {
            env_field(&from.get("fieldRef").get("fieldPath"), report);
        }
        if from.get("resourceFieldRef").is_set() {
            resource_field(&from.get("resourceFieldRef").get("resource"), report);
        }
    }
    for from in container.items("envFrom") {
        report.name_if_set(&from.get("prefix"), env_name_problem);
        let set = from.set_of(&["configMapRef", "secretRef"]);
        match set.as_slice() {
            [one] => report.name_if_set(&from.get(one).get("name"), subdomain_problem),
            [] => report.invalid(&from, "must specify one of: `configMapRef` or `secretRef`"),
            _ => report.invalid(
                &from,
                "may not have more than one field specified at a time",
            ),
        }
    }
}

/// Fields that may stand in an environment variable.
const ENV_FIELDS: [&str; 9] = [
    "metadata.name",
    "metadata.namespace",
    "metadata.uid",
    "spec.nodeName",
    "spec.serviceAccountName",
    "status.hostIP",
    "status.hostIPs",
    "status.podIP",
    "status.podIPs",
];

fn env_field(at: &At<'_>, report: &mut Report) {
    if !is_subscript(at.text()) {
        report.one_of(at, &ENV_FIELDS);
    }
}

/// `metadata.labels['key']`, `metadata.annotations['key']`
pub(super) fn is_subscript(path: &str) -> bool {
    ["metadata.labels['", "metadata.annotations['"]
        .iter()
        .any(|start| path.starts_with(start) && path.ends_with("']"))
}

pub(super) fn resource_field(at: &At<'_>, report: &mut Report) {
    let page = |text: &str| {
        text.starts_with("limits.hugepages-") || text.starts_with("requests.hugepages-")
    };
    if !page(at.text()) {
        report.one_of(
            at,
            &[
                "limits.cpu",
                "limits.ephemeral-storage",
                "limits.memory",
                "requests.cpu",
                "requests.ephemeral-storage",
                "requests.memory",
            ],
        );
    }
}

/// `at`: the amount under the name.
pub(super) fn resource_name(at: &At<'_>, name: &str, report: &mut Report) {
    let known = matches!(name, "cpu" | "memory" | "ephemeral-storage");
    let problem = match qualified_name_problem(name) {
        Some(problem) => problem,
        None if known || name.starts_with("hugepages-") || name.contains('/') => return,
        None => "must be a standard resource for containers".to_owned(),
    };
    let (value, path) = (&Value::from(name), at.path.clone());
    report.invalid(&At { value, path }, problem);
}

fn resources(container: &At<'_>, report: &mut Report) {
    let resources = container.get("resources");
    let amount = |at: &At<'_>| at.text().parse::<Quantity>();
    for list in ["limits", "requests"] {
        for (name, at) in resources.entries(list) {
            resource_name(&at, name, report);
            whole_amount(&at, report);
        }
    }
    for (name, at) in resources.entries("requests") {
        let limit = resources.get("limits").get(name);
        if let (true, Ok(limit), Ok(request)) = (limit.is_set(), amount(&limit), amount(&at))
            && request > limit
        {
            let why = format!("must be less than or equal to {name} limit of {limit}");
            let path = resources.get("requests").path;
            let value = at.value;
            report.invalid(&At { value, path }, why);
        }
    }
}
