//! Mirror pods: the cluster's pictures of pods that are this node's own. Pure.
//!
//! The cluster refuses a mirror that names an object of its API, so everything that does is taken
//! out of the picture: a mount goes with its volume, a variable with its source. Source: Kubernetes
//! pkg/kubelet/pod/mirror_client.go, plugin/pkg/admission/noderestriction,
//! plugin/pkg/admission/serviceaccount.

use serde_json::{Value, json};

use crate::object::references;

const MIRROR: &str = "kubernetes.io/config.mirror";
const HASH: &str = "kubernetes.io/config.hash";

/// Whether a pod of the cluster is somebody's picture, and nobody's to run.
pub fn is_mirror(body: &Value) -> bool {
    hash_of(body).is_some()
}

/// What the picture shows, as it was made.
pub fn hash_of(mirror: &Value) -> Option<&str> {
    mirror["metadata"]["annotations"][MIRROR].as_str()
}

/// What tells one content of a pod of this node from another.
pub fn content(pod: &Value) -> &str {
    let hash = pod["metadata"]["annotations"][HASH].as_str();
    hash.or(pod["metadata"]["uid"].as_str()).unwrap_or_default()
}

/// The picture of a pod of this node, for the node that the cluster knows by this name and UID.
pub fn picture(pod: &Value, node: &str, node_uid: &str) -> Value {
    let metadata = &pod["metadata"];
    let mut annotations = match &metadata["annotations"] {
        Value::Object(annotations) => annotations.clone(),
        _ => Default::default(),
    };
    annotations.insert(HASH.to_owned(), content(pod).into());
    annotations.insert(MIRROR.to_owned(), content(pod).into());
    // The cluster's own: what it says here would be about another apply.
    annotations.remove("kubectl.kubernetes.io/last-applied-configuration");
    let mut picture = json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": metadata["name"],
            "namespace": metadata["namespace"],
            "annotations": annotations,
            "ownerReferences": [{
                "apiVersion": "v1", "kind": "Node", "name": node, "uid": node_uid, "controller": true,
            }],
        },
        "spec": bare(pod["spec"].clone()),
    });
    if metadata["labels"].is_object() {
        picture["metadata"]["labels"] = metadata["labels"].clone();
    }
    picture["spec"]["nodeName"] = node.into();
    tolerate(&mut picture["spec"]["tolerations"]);
    picture
}

/// A picture that a taint drives out would be made again at once, and so on. Static pods tolerate all of
/// them anyway.
fn tolerate(tolerations: &mut Value) {
    let everything = json!({"operator": "Exists", "effect": "NoExecute"});
    match tolerations.as_array_mut() {
        Some(list) if list.contains(&everything) => {}
        Some(list) => list.push(everything),
        None => *tolerations = json!([everything]),
    }
}

/// The spec without what names objects of an API.
fn bare(mut spec: Value) -> Value {
    let mut gone = Vec::new();
    if let Some(volumes) = array(&mut spec, "volumes") {
        volumes.retain(|volume| {
            let keep = stands_alone(volume);
            if !keep {
                gone.extend(volume["name"].as_str().map(str::to_owned));
            }
            keep
        });
    }
    for list in ["initContainers", "containers"] {
        for container in array(&mut spec, list).into_iter().flatten() {
            strip(container, &gone);
        }
    }
    let class = spec["priorityClassName"].as_str().unwrap_or_default();
    let everywhere = matches!(class, "system-node-critical" | "system-cluster-critical");
    if let Some(fields) = spec.as_object_mut() {
        if !everywhere {
            fields.remove("priorityClassName");
        }
        for refused in [
            "serviceAccountName",
            "serviceAccount",
            "automountServiceAccountToken",
            "imagePullSecrets",
            "resourceClaims",
            "ephemeralContainers",
            // Worked out of the class, which the cluster may not know.
            "priority",
            "preemptionPolicy",
        ] {
            fields.remove(refused);
        }
    }
    spec
}

fn stands_alone(volume: &Value) -> bool {
    const SOURCES: [&str; 9] = [
        "secret",
        "configMap",
        "persistentVolumeClaim",
        "ephemeral",
        "csi",
        "glusterfs",
        "azureFile",
        "cephfs",
        "rbd",
    ];
    let alone = json!({"volumes": [volume]});
    if SOURCES.iter().any(|source| volume.get(source).is_some())
        || references::secrets(&alone).next().is_some()
    {
        return false;
    }
    let sources = volume["projected"]["sources"].as_array();
    let mut sources = sources.into_iter().flatten();
    sources.all(|source| source.get("downwardAPI").is_some())
}

fn strip(container: &mut Value, gone: &[String]) {
    let is_gone = |mount: &Value| gone.iter().any(|name| mount["name"] == name.as_str());
    for list in ["volumeMounts", "volumeDevices"] {
        if let Some(mounts) = array(container, list) {
            mounts.retain(|mount| !is_gone(mount));
        }
    }
    if let Some(variables) = array(container, "env") {
        variables.retain(|variable| {
            let from = &variable["valueFrom"];
            from.get("secretKeyRef").is_none() && from.get("configMapKeyRef").is_none()
        });
    }
    if let Some(fields) = container.as_object_mut() {
        fields.remove("envFrom");
        let claims = fields.get_mut("resources").and_then(Value::as_object_mut);
        claims.map(|resources| resources.remove("claims"));
    }
}

fn array<'a>(parent: &'a mut Value, list: &str) -> Option<&'a mut Vec<Value>> {
    parent.get_mut(list)?.as_array_mut()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_picture_names_nothing_that_the_cluster_would_refuse() {
        let pod = json!({
            "metadata": {
                "name": "web-pi", "namespace": "default", "uid": "u1", "labels": {"app": "web"},
                "annotations": {"kubernetes.io/config.hash": "h1", "kubernetes.io/config.source": "file"},
            },
            "spec": {
                "serviceAccountName": "robot",
                "imagePullSecrets": [{"name": "pull"}],
                "priority": 7,
                "volumes": [
                    {"name": "secret", "secret": {"secretName": "s"}},
                    {"name": "config", "configMap": {"name": "c"}},
                    {"name": "token", "projected": {"sources": [{"serviceAccountToken": {"path": "t"}}]}},
                    {"name": "down", "projected": {"sources": [{"downwardAPI": {"items": []}}]}},
                    {"name": "empty", "emptyDir": {}},
                ],
                "initContainers": [{"name": "i", "envFrom": [{"secretRef": {"name": "s"}}]}],
                "containers": [{
                    "name": "c", "image": "x",
                    "env": [
                        {"name": "A", "value": "1"},
                        {"name": "B", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}},
                        {"name": "C", "valueFrom": {"configMapKeyRef": {"name": "c", "key": "k"}}},
                        {"name": "D", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
                    ],
                    "volumeMounts": [
                        {"name": "secret", "mountPath": "/s"}, {"name": "token", "mountPath": "/t"},
                        {"name": "empty", "mountPath": "/e"}, {"name": "down", "mountPath": "/d"},
                    ],
                }],
            },
        });
        let made = picture(&pod, "pi", "node-uid");
        let wanted = json!({
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {
                "name": "web-pi", "namespace": "default", "labels": {"app": "web"},
                "annotations": {
                    "kubernetes.io/config.hash": "h1", "kubernetes.io/config.mirror": "h1",
                    "kubernetes.io/config.source": "file",
                },
                "ownerReferences": [{
                    "apiVersion": "v1", "kind": "Node", "name": "pi", "uid": "node-uid",
                    "controller": true,
                }],
            },
            "spec": {
                "nodeName": "pi",
                "tolerations": [{"operator": "Exists", "effect": "NoExecute"}],
                "volumes": [
                    {"name": "down", "projected": {"sources": [{"downwardAPI": {"items": []}}]}},
                    {"name": "empty", "emptyDir": {}},
                ],
                "initContainers": [{"name": "i"}],
                "containers": [{
                    "name": "c", "image": "x",
                    "env": [
                        {"name": "A", "value": "1"},
                        {"name": "D", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
                    ],
                    "volumeMounts": [
                        {"name": "empty", "mountPath": "/e"}, {"name": "down", "mountPath": "/d"},
                    ],
                }],
            },
        });
        assert_eq!(made, wanted);
        assert!(is_mirror(&made) && !is_mirror(&pod));
    }

    #[test]
    fn a_volume_that_names_a_secret_goes_with_its_mounts() {
        let secret = json!({"name": "s"});
        let mount = |name: &str| json!({"name": name, "mountPath": format!("/{name}")});
        let mounts = ["disk", "flex", "open"].map(mount);
        let pod = json!({"metadata": {"uid": "u"}, "spec": {
            "volumes": [
                {"name": "disk", "iscsi": {"iqn": "i", "secretRef": secret}},
                {"name": "flex", "flexVolume": {"driver": "d", "secretRef": secret}},
                {"name": "open", "iscsi": {"iqn": "i"}},
            ],
            "containers": [{"name": "c", "volumeMounts": mounts}],
        }});
        let spec = &picture(&pod, "pi", "n")["spec"];
        let open = json!([{"name": "open", "iscsi": {"iqn": "i"}}]);
        assert_eq!(spec["volumes"], open);
        assert_eq!(
            spec["containers"][0]["volumeMounts"],
            json!([mount("open")])
        );
    }

    #[test]
    fn a_picture_is_driven_out_by_no_taint() {
        let everything = json!({"operator": "Exists", "effect": "NoExecute"});
        let some = json!({"key": "k", "operator": "Exists"});
        for (before, after) in [
            (json!([some]), json!([some, everything])),
            (json!([everything]), json!([everything])),
        ] {
            let pod = json!({"metadata": {"uid": "u"}, "spec": {"tolerations": before}});
            assert_eq!(picture(&pod, "pi", "n")["spec"]["tolerations"], after);
        }
    }

    #[test]
    fn a_picture_names_a_class_that_every_cluster_has_or_none() {
        for (class, kept) in [("system-node-critical", true), ("system-own", false)] {
            let pod = json!({"metadata": {"uid": "u"}, "spec": {"priorityClassName": class}});
            let shown = &picture(&pod, "pi", "n")["spec"]["priorityClassName"];
            assert_eq!(shown == class, kept, "{class}");
        }
    }

    #[test]
    fn a_pod_of_the_local_api_is_told_by_its_uid() {
        let pod = json!({"metadata": {"name": "a", "namespace": "b", "uid": "u"}, "spec": {}});
        assert_eq!(hash_of(&picture(&pod, "pi", "n")), Some("u"));
    }
}
