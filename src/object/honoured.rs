//! Which fields of a pod lowtide does not honour yet, and what follows from that.
//!
//! Nothing is ignored in silence. Where a field bears on safety or correctness (a confinement, a
//! volume, a gate) the pod waits and its status names the field; else it runs and an event does.
//! A field that is set to what happens anyway is honoured.

use serde_json::Value;

use super::Origin;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Running without it would be unsafe or wrong.
    Wait,
    /// Waits where SELinux is on. Elsewhere nothing has a label, and no runtime gives one.
    WaitIfLabelled,
    /// Runs without it.
    Warn,
}

/// Whether the kernel knows SELinux's labels.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Selinux {
    #[default]
    Off,
    On,
}

/// A field that is set and not honoured.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unhonoured {
    /// `spec.containers[0].lifecycle.stopSignal`
    pub path: String,
    pub effect: Effect,
}

/// Volume sources that exist here; any other kind of volume waits.
const VOLUMES: [&str; 6] = [
    "emptyDir",
    "hostPath",
    "configMap",
    "secret",
    "downwardAPI",
    "projected",
];

/// Sources of a projected volume that exist here.
const PROJECTED: [&str; 4] = ["secret", "configMap", "downwardAPI", "serviceAccountToken"];

const EPHEMERAL: &str = "ephemeralContainers";

/// What a cluster sees to: a scheduler goes by it, or controllers write what it waits for.
const POD_OF_CLUSTER: [(&str, Effect); 5] = [
    ("affinity", Effect::Warn),
    ("nodeSelector", Effect::Warn),
    ("schedulingGroup", Effect::Warn),
    ("topologySpreadConstraints", Effect::Warn),
    ("readinessGates", Effect::Wait),
];

/// What the pod's safety or correctness hangs on.
const POD_WAIT: [&str; 5] = [
    "resourceClaims",
    "runtimeClassName",
    "schedulingGates",
    "overhead",
    "resources",
];

/// Everything in a pod of this origin that is set and not honoured, in field order.
pub fn unhonoured(pod: &Value, origin: Origin) -> Vec<Unhonoured> {
    let mut found = Found::default();
    let spec = &pod["spec"];
    if origin == Origin::Local {
        for (name, effect) in POD_OF_CLUSTER {
            found.if_set(spec, "spec", name, effect);
        }
    }
    for name in POD_WAIT {
        found.if_set(spec, "spec", name, Effect::Wait);
    }
    let os = &spec["os"]["name"];
    if is_set(os) && os != "linux" {
        found.push("spec.os.name".to_owned(), Effect::Wait);
    }
    if spec["hostUsers"] == Value::Bool(false) {
        found.push("spec.hostUsers".to_owned(), Effect::Wait);
    }
    security(&spec["securityContext"], "spec.securityContext", &mut found);
    for list in ["initContainers", "containers", EPHEMERAL] {
        for (n, container) in items(&spec[list]) {
            self::container(container, &format!("spec.{list}[{n}]"), &mut found);
        }
    }
    for (n, volume) in items(&spec["volumes"]) {
        self::volume(volume, &format!("spec.volumes[{n}]"), &mut found);
    }
    found.list
}

impl Unhonoured {
    /// Whether its pod, or its ephemeral container, may not run on such a kernel.
    pub fn waits(&self, selinux: Selinux) -> bool {
        match self.effect {
            Effect::Wait => true,
            Effect::WaitIfLabelled => selinux == Selinux::On,
            Effect::Warn => false,
        }
    }

    /// The ephemeral container that the field is of: it alone waits, not its pod.
    pub fn ephemeral(&self) -> Option<usize> {
        let rest = self.path.strip_prefix("spec.")?.strip_prefix(EPHEMERAL)?;
        let (index, _) = rest.strip_prefix('[')?.split_once(']')?;
        index.parse().ok()
    }
}

#[derive(Default)]
struct Found {
    list: Vec<Unhonoured>,
}

impl Found {
    fn push(&mut self, path: String, effect: Effect) {
        self.list.push(Unhonoured { path, effect });
    }

    fn if_set(&mut self, parent: &Value, path: &str, name: &str, effect: Effect) {
        if is_set(&parent[name]) {
            self.push(format!("{path}.{name}"), effect);
        }
    }
}

/// Present and not empty.
fn is_set(value: &Value) -> bool {
    match value {
        Value::Null => false,
        Value::String(text) => !text.is_empty(),
        Value::Array(items) => !items.is_empty(),
        Value::Object(fields) => fields.values().any(is_set),
        Value::Bool(_) | Value::Number(_) => true,
    }
}

fn items(list: &Value) -> impl Iterator<Item = (usize, &Value)> {
    list.as_array().into_iter().flatten().enumerate()
}

fn security(context: &Value, path: &str, found: &mut Found) {
    found.if_set(context, path, "seLinuxOptions", Effect::WaitIfLabelled);
    let confined = &context["appArmorProfile"]["type"];
    if is_set(confined) && confined != "Unconfined" {
        found.push(format!("{path}.appArmorProfile"), Effect::Wait);
    }
}

fn container(container: &Value, path: &str, found: &mut Found) {
    let context = format!("{path}.securityContext");
    security(&container["securityContext"], &context, found);
    for (name, effect) in [
        ("volumeDevices", Effect::Wait),
        ("restartPolicyRules", Effect::Wait),
    ] {
        found.if_set(container, path, name, effect);
    }
    let policy = &container["restartPolicy"];
    let is_sidecar = path.contains(".initContainers[") && policy == "Always";
    if is_set(policy) && !is_sidecar {
        found.push(format!("{path}.restartPolicy"), Effect::Wait);
    }
    for (n, variable) in items(&container["env"]) {
        if variable["valueFrom"]["fileKeyRef"].is_object() {
            let path = format!("{path}.env[{n}].valueFrom.fileKeyRef");
            found.push(path, Effect::Wait);
        }
    }
    let lifecycle = format!("{path}.lifecycle");
    found.if_set(
        &container["lifecycle"],
        &lifecycle,
        "stopSignal",
        Effect::Wait,
    );
    let resources = format!("{path}.resources");
    found.if_set(&container["resources"], &resources, "claims", Effect::Wait);
    let limits = container["resources"]["limits"].as_object();
    for name in limits.into_iter().flatten().map(|(name, _)| name) {
        // Devices and huge pages cannot be given; not giving them breaks the program.
        if name.starts_with("hugepages-") || name.contains('/') {
            found.push(format!("{resources}.limits[{name}]"), Effect::Wait);
        }
    }
    for (n, mount) in items(&container["volumeMounts"]) {
        let recursive = &mount["recursiveReadOnly"];
        if is_set(recursive) && recursive != "Disabled" {
            let path = format!("{path}.volumeMounts[{n}].recursiveReadOnly");
            found.push(path, Effect::Wait);
        }
    }
}

fn volume(volume: &Value, path: &str, found: &mut Found) {
    let fields = volume.as_object().into_iter().flatten();
    for (name, source) in fields {
        if name != "name" && !source.is_null() && !VOLUMES.contains(&name.as_str()) {
            found.push(format!("{path}.{name}"), Effect::Wait);
        }
    }
    let empty_dir = &volume["emptyDir"];
    let medium = empty_dir["medium"].as_str().unwrap_or_default();
    if medium.starts_with("HugePages") {
        found.push(format!("{path}.emptyDir.medium"), Effect::Wait);
    }
    for (n, source) in items(&volume["projected"]["sources"]) {
        let kinds = source.as_object().into_iter().flatten();
        for (name, _) in kinds.filter(|(name, _)| !PROJECTED.contains(&name.as_str())) {
            found.push(
                format!("{path}.projected.sources[{n}].{name}"),
                Effect::Wait,
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_is_not_honoured_is_named_with_its_effect() {
        let pod = json!({"spec": {
            "schedulingGroup": {"podGroupName": "g"},
            "affinity": {"nodeAffinity": {
                "requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [{}], "x": 1},
            }},
            "runtimeClassName": "gvisor",
            "hostUsers": false,
            "serviceAccountName": "robot",
            "os": {"name": "windows"},
            "nodeSelector": {"disk": "ssd"},
            "securityContext": {"appArmorProfile": {"type": "RuntimeDefault"}},
            "containers": [{
                "securityContext": {"seLinuxOptions": {"level": "s0"}, "windowsOptions": {"x": 1}},
                "resources": {"limits": {
                    "hugepages-2Mi": "4Mi", "example.com/gpu": 1, "cpu": 1,
                }},
                "restartPolicy": "Never",
                "restartPolicyRules": [{"action": "Restart"}],
                "env": [
                    {"name": "A", "value": "1"},
                    {"name": "B", "valueFrom": {"fileKeyRef": {"key": "B", "path": "x"}}},
                ],
                "lifecycle": {"stopSignal": "SIGINT"},
            }],
            "volumes": [
                {"name": "a", "persistentVolumeClaim": {"claimName": "x"}},
                {"name": "b", "image": {}},
                {"name": "c", "projected": {"sources": [{"clusterTrustBundle": {"path": "t"}}]}},
            ],
        }});
        let found: Vec<_> = unhonoured(&pod, Origin::Local)
            .into_iter()
            .map(|u| (u.path, u.effect))
            .collect();
        let expected = [
            ("spec.affinity", Effect::Warn),
            ("spec.nodeSelector", Effect::Warn),
            ("spec.schedulingGroup", Effect::Warn),
            ("spec.runtimeClassName", Effect::Wait),
            ("spec.os.name", Effect::Wait),
            ("spec.hostUsers", Effect::Wait),
            ("spec.securityContext.appArmorProfile", Effect::Wait),
            (
                "spec.containers[0].securityContext.seLinuxOptions",
                Effect::WaitIfLabelled,
            ),
            ("spec.containers[0].restartPolicyRules", Effect::Wait),
            ("spec.containers[0].restartPolicy", Effect::Wait),
            (
                "spec.containers[0].env[1].valueFrom.fileKeyRef",
                Effect::Wait,
            ),
            ("spec.containers[0].lifecycle.stopSignal", Effect::Wait),
            (
                "spec.containers[0].resources.limits[example.com/gpu]",
                Effect::Wait,
            ),
            (
                "spec.containers[0].resources.limits[hugepages-2Mi]",
                Effect::Wait,
            ),
            ("spec.volumes[0].persistentVolumeClaim", Effect::Wait),
            ("spec.volumes[1].image", Effect::Wait),
            (
                "spec.volumes[2].projected.sources[0].clusterTrustBundle",
                Effect::Wait,
            ),
        ]
        .map(|(path, effect)| (path.to_owned(), effect));
        assert_eq!(found, expected);
    }

    #[test]
    fn what_a_cluster_sees_to_is_honoured_in_its_pods() {
        let pod = json!({"spec": {
            "nodeSelector": {"disk": "ssd"}, "readinessGates": [{"conditionType": "x"}],
            "runtimeClassName": "gvisor",
        }});
        let named = |origin| -> Vec<String> {
            let found = unhonoured(&pod, origin).into_iter();
            found.map(|one| one.path).collect()
        };
        assert_eq!(
            named(Origin::Local),
            [
                "spec.nodeSelector",
                "spec.readinessGates",
                "spec.runtimeClassName"
            ]
        );
        assert_eq!(named(Origin::Remote), ["spec.runtimeClassName"]);
    }

    #[test]
    fn a_field_of_an_ephemeral_container_is_its_own_affair() {
        let pod = json!({"spec": {
            "runtimeClassName": "gvisor",
            "ephemeralContainers": [{}, {"volumeDevices": [{}, {"x": 1}]}],
        }});
        let found: Vec<_> = unhonoured(&pod, Origin::Local)
            .iter()
            .map(Unhonoured::ephemeral)
            .collect();
        assert_eq!(found, [None, Some(1)]);
    }

    #[test]
    fn what_is_honoured_or_says_nothing_is_not_named() {
        let pod = json!({"spec": {
            "affinity": {},
            "hostUsers": true,
            "os": {"name": "linux"},
            "serviceAccountName": "robot",
            "setHostnameAsFQDN": true,
            "overhead": null,
            "securityContext": {"appArmorProfile": {"type": "Unconfined"}, "fsGroup": 5},
            "containers": [{
                "livenessProbe": {"exec": {"command": ["x"]}},
                "resources": {"limits": {"cpu": "1", "memory": "1Gi", "ephemeral-storage": "1Gi"}},
                "volumeMounts": [{"recursiveReadOnly": "Disabled"}],
            }],
            "volumes": [
                {"name": "a", "emptyDir": {"medium": "Memory", "sizeLimit": "1Mi"}},
                {"name": "b", "emptyDir": {"sizeLimit": "1Gi"}},
            ],
        }});
        assert_eq!(unhonoured(&pod, Origin::Local), []);
    }
}
