//! Which Secrets and ConfigMaps a pod's spec names. Pure.
//!
//! Source: Kubernetes `pkg/api/v1/pod/util.go`, `VisitPodSecretNames`, `VisitPodConfigmapNames`.

use serde_json::Value;

/// Names of secrets, each as often as it is named: pull secrets, environments, volumes.
pub fn secrets(spec: &Value) -> impl Iterator<Item = &str> {
    let pull = items(spec, "imagePullSecrets").map(|secret| &secret["name"]);
    let environment = all_containers(spec).flat_map(|container| {
        let one = items(container, "env").map(|env| &env["valueFrom"]["secretKeyRef"]["name"]);
        let all = items(container, "envFrom").map(|env| &env["secretRef"]["name"]);
        one.chain(all)
    });
    let volumes = items(spec, "volumes").flat_map(|volume| {
        let projected = items(&volume["projected"], "sources");
        [
            &volume["secret"]["secretName"],
            &volume["azureFile"]["secretName"],
            &volume["cephfs"]["secretRef"]["name"],
            &volume["cinder"]["secretRef"]["name"],
            &volume["flexVolume"]["secretRef"]["name"],
            &volume["rbd"]["secretRef"]["name"],
            &volume["scaleIO"]["secretRef"]["name"],
            &volume["iscsi"]["secretRef"]["name"],
            &volume["storageos"]["secretRef"]["name"],
            &volume["csi"]["nodePublishSecretRef"]["name"],
        ]
        .into_iter()
        .chain(projected.map(|source| &source["secret"]["name"]))
    });
    named(pull.chain(environment).chain(volumes))
}

/// Names of config maps, each as often as it is named.
pub fn config_maps(spec: &Value) -> impl Iterator<Item = &str> {
    let environment = all_containers(spec).flat_map(|container| {
        let one = items(container, "env").map(|env| &env["valueFrom"]["configMapKeyRef"]["name"]);
        let all = items(container, "envFrom").map(|env| &env["configMapRef"]["name"]);
        one.chain(all)
    });
    let volumes = items(spec, "volumes").flat_map(|volume| {
        let projected = items(&volume["projected"], "sources");
        std::iter::once(&volume["configMap"]["name"])
            .chain(projected.map(|source| &source["configMap"]["name"]))
    });
    named(environment.chain(volumes))
}

/// Init, regular and ephemeral containers.
pub fn all_containers(spec: &Value) -> impl Iterator<Item = &Value> {
    let lists = ["initContainers", "containers", "ephemeralContainers"];
    lists.into_iter().flat_map(|list| items(spec, list))
}

/// The elements of a list; none if there is no list.
pub fn items<'a>(parent: &'a Value, list: &str) -> impl Iterator<Item = &'a Value> + use<'a> {
    parent[list].as_array().into_iter().flatten()
}

fn named<'a>(values: impl Iterator<Item = &'a Value>) -> impl Iterator<Item = &'a str> {
    values
        .filter_map(Value::as_str)
        .filter(|name| !name.is_empty())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn every_way_to_name_a_secret_or_a_config_map_is_seen() {
        let spec = json!({
            "imagePullSecrets": [{"name": "s1"}, {}],
            "initContainers": [{"env": [{"valueFrom": {"secretKeyRef": {"name": "s2"}}}, {"value": "x"}]}],
            "containers": [{
                "env": [{"valueFrom": {"configMapKeyRef": {"name": "c1"}}}],
                "envFrom": [{"secretRef": {"name": "s3"}}, {"configMapRef": {"name": "c2"}}],
            }],
            "ephemeralContainers": [{"envFrom": [{"secretRef": {"name": "s4"}}]}],
            "volumes": [
                {"secret": {"secretName": "s5"}},
                {"configMap": {"name": "c3"}},
                {"projected": {"sources": [{"secret": {"name": "s6"}}, {"configMap": {"name": "c4"}}]}},
                {"csi": {"nodePublishSecretRef": {"name": "s7"}}},
                {"emptyDir": {}},
            ],
        });
        let mut found: Vec<&str> = secrets(&spec).collect();
        found.sort_unstable();
        assert_eq!(found, ["s1", "s2", "s3", "s4", "s5", "s6", "s7"]);
        let found: Vec<&str> = config_maps(&spec).collect();
        assert_eq!(found, ["c1", "c2", "c3", "c4"]);
    }
}
