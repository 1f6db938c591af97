//! Tables: what is edited into a good object, and what is said about it.

use serde_json::{Value, json};

use super::*;
use crate::object::apply_defaults;

fn good_pod() -> Value {
    json!({
        "metadata": {"name": "web", "namespace": "default"},
        "spec": {
            "initContainers": [{"name": "first", "image": "i"}],
            "containers": [{
                "name": "web", "image": "i",
                "ports": [{"containerPort": 80, "name": "http"}],
                "volumeMounts": [{"name": "data", "mountPath": "/data"}],
            }],
            "volumes": [{"name": "data"}, {"name": "cfg", "configMap": {"name": "c"}}],
        },
    })
}

fn causes(kind: Kind, mut body: Value) -> Vec<String> {
    apply_defaults(kind, &mut body);
    let name = body["metadata"]["name"].as_str().unwrap_or_default();
    let key = Key::local(kind, "default", name);
    let causes = validate(&key, &body);
    causes
        .iter()
        .map(|(path, text)| format!("{path}: {text}"))
        .collect()
}

#[test]
fn a_good_pod_passes() {
    assert_eq!(causes(Kind::Pod, good_pod()), Vec::<String>::new());
}

fn set(body: &mut Value, pointer: &str, value: Value) {
    let (parent, last) = pointer.rsplit_once('/').expect("a pointer");
    match body.pointer_mut(parent).expect("the parent is there") {
        Value::Array(items) => items[last.parse::<usize>().expect("an index")] = value,
        parent => parent[last] = value,
    }
}

#[test]
fn each_mistake_in_a_pod_is_named_once_with_its_path() {
    let rows = include_str!("pod_mistakes.txt").lines();
    for row in rows.filter(|row| !row.starts_with('#')) {
        let columns: Vec<&str> = row.splitn(3, " | ").collect();
        let [pointer, value, expected] = columns[..] else {
            panic!("three columns: {row}");
        };
        let mut pod = good_pod();
        set(&mut pod, pointer, serde_json::from_str(value).expect(row));
        let found = causes(Kind::Pod, pod);
        let right = found.iter().filter(|cause| cause.starts_with(expected));
        assert_eq!(right.count(), 1, "want {expected}\ngot {found:#?}");
    }
}

#[test]
fn annotations_are_bounded() {
    let mut pod = good_pod();
    pod["metadata"]["annotations"] = json!({"a": "x".repeat(256 << 10)});
    let expected = "metadata.annotations: Too long: may not be more than 262144 bytes";
    assert_eq!(causes(Kind::Pod, pod), [expected]);
}

#[test]
fn what_looks_odd_but_is_legal_passes() {
    for (pointer, value) in [
        ("/spec/initContainers/0/restartPolicy", json!("Always")),
        (
            "/spec/containers/0/resources",
            json!({"limits": {"cpu": 1, "memory": "1e3"}}),
        ),
        (
            "/spec/containers/0/resources",
            json!({"limits": {"hugepages-2Mi": "2Mi", "example.com/gpu": 1}}),
        ),
        ("/spec/containers/0/volumeMounts/0/subPath", json!("a..b/c")),
        (
            "/spec/containers/0/env",
            json!([{"name": "A", "valueFrom": {"fieldRef": {"fieldPath": "metadata.labels['x']"}}}]),
        ),
        (
            "/spec/containers/0/ports",
            json!([{"containerPort": 53, "hostPort": 53, "protocol": "UDP"}, {"containerPort": 53, "hostPort": 53}]),
        ),
        (
            "/spec/tolerations",
            json!([{"operator": "Exists", "effect": "NoExecute"}]),
        ),
        (
            "/spec/containers/0/livenessProbe",
            json!({"httpGet": {"port": "http"}}),
        ),
        (
            "/spec/ephemeralContainers",
            json!([{"name": "x", "image": "i", "targetContainerName": "web"}]),
        ),
        ("/spec/hostNetwork", json!(true)),
    ] {
        let mut pod = good_pod();
        set(&mut pod, pointer, value);
        assert_eq!(causes(Kind::Pod, pod), Vec::<String>::new(), "{pointer}");
    }
}

#[test]
fn secrets_keep_the_promise_of_their_type() {
    let secret = |kind: &str, data: Value| {
        let body = json!({"metadata": {"name": "s", "namespace": "default"}, "type": kind, "stringData": data});
        causes(Kind::Secret, body)
    };
    let docker = "kubernetes.io/dockerconfigjson";
    for (kind, data, expected) in [
        ("", json!({"any": "x"}), None),
        ("my/own", json!({}), None),
        (
            docker,
            json!({}),
            Some("data[.dockerconfigjson]: Required value"),
        ),
        (
            docker,
            json!({".dockerconfigjson": "x"}),
            Some("data[.dockerconfigjson]: Invalid value: \"<secret contents redacted>\""),
        ),
        (docker, json!({".dockerconfigjson": "{}"}), None),
        (
            "kubernetes.io/tls",
            json!({"tls.crt": "x"}),
            Some("data[tls.key]: Required value"),
        ),
        (
            "kubernetes.io/ssh-auth",
            json!({"ssh-privatekey": ""}),
            Some("data[ssh-privatekey]: Required value"),
        ),
        ("kubernetes.io/basic-auth", json!({"username": "x"}), None),
        (
            "Opaque",
            json!({"../x": "x"}),
            Some("data[../x]: Invalid value: \"../x\": a valid config key"),
        ),
        ("Opaque", json!({"a": "x".repeat(1 << 20)}), None),
        (
            "Opaque",
            json!({"a": "x".repeat((1 << 20) + 1)}),
            Some("data: Too long: may not be more than 1048576 bytes"),
        ),
    ] {
        let found = secret(kind, data);
        match expected {
            None => assert_eq!(found, Vec::<String>::new(), "{kind}"),
            Some(text) => assert!(found[0].starts_with(text), "{kind}: {found:?}"),
        }
    }
}

#[test]
fn what_is_immutable_stays() {
    let frozen = json!({"immutable": true, "data": {"a": "1"}});
    let thawed = json!({"data": {"a": "2"}});
    let paths = |kind, new: &Value, old: &Value| -> Vec<String> {
        let causes = validate_update(kind, "", new, old);
        causes.into_iter().map(|(path, _)| path).collect()
    };
    assert_eq!(
        paths(Kind::ConfigMap, &thawed, &frozen),
        ["immutable", "data"]
    );
    assert!(paths(Kind::ConfigMap, &frozen, &thawed).is_empty());

    let old = good_pod();
    let mut image = good_pod();
    set(&mut image, "/spec/containers/0/image", json!("j"));
    assert!(paths(Kind::Pod, &image, &old).is_empty());
    let mut command = good_pod();
    set(&mut command, "/spec/containers/0/command", json!(["x"]));
    assert_eq!(paths(Kind::Pod, &command, &old), ["spec"]);
}

#[test]
fn a_pod_changes_in_few_ways_only() {
    let pod = |spec: Value| {
        let mut pod = good_pod();
        let fields = spec.as_object().expect("a spec").clone();
        pod["spec"].as_object_mut().expect("a spec").extend(fields);
        pod
    };
    let toleration = |value: &str, seconds: u32| json!([{"key": "k", "value": value, "tolerationSeconds": seconds}]);
    let deadline = |seconds: u32| json!({"activeDeadlineSeconds": seconds});
    let gates = |names: &[&str]| {
        let gates: Vec<Value> = names.iter().map(|name| json!({"name": name})).collect();
        json!({"schedulingGates": gates})
    };
    let farther = "spec.activeDeadlineSeconds: Invalid value: 20: must be less than or equal to \
                   previous value";
    let lost = "spec.activeDeadlineSeconds: Invalid value: null: must not update from a positive \
                integer to nil value";
    let tolerated = "spec.tolerations: Forbidden: existing toleration can not be modified except its \
                     tolerationSeconds";
    let gate = "spec.schedulingGates[0].name: Forbidden: only deletion is allowed, but found new \
                scheduling gate 'b'";
    let grace = |seconds: i32| json!({"terminationGracePeriodSeconds": seconds});
    for (before, after, told) in [
        (json!({}), deadline(10), None),
        (deadline(10), deadline(5), None),
        (deadline(10), deadline(20), Some(farther)),
        (deadline(10), json!({}), Some(lost)),
        (
            json!({"tolerations": toleration("v", 3)}),
            json!({"tolerations": toleration("v", 9)}),
            None,
        ),
        (
            json!({"tolerations": toleration("v", 3)}),
            json!({"tolerations": toleration("w", 3)}),
            Some(tolerated),
        ),
        (gates(&["a", "b"]), gates(&["b"]), None),
        (gates(&["a"]), gates(&["b"]), Some(gate)),
        (grace(-1), grace(1), None),
        (
            grace(5),
            grace(1),
            Some("spec: Forbidden: pod updates may not change fields"),
        ),
    ] {
        let causes = validate_update(Kind::Pod, "", &pod(after.clone()), &pod(before.clone()));
        let first = causes.first().map(|(path, text)| format!("{path}: {text}"));
        let fits = match (told, &first) {
            (None, None) => true,
            (Some(told), Some(first)) => first.starts_with(told) && causes.len() == 1,
            _ => false,
        };
        assert!(fits, "{before} to {after}: {causes:?}");
    }
}

#[test]
fn finalizers_and_owners_are_what_they_say() {
    let told = |metadata: Value| {
        let mut body = json!({"metadata": {"name": "c", "namespace": "default"}});
        let fields = metadata.as_object().expect("metadata").clone();
        body["metadata"]
            .as_object_mut()
            .expect("metadata")
            .extend(fields);
        causes(Kind::ConfigMap, body)
    };
    let owner = |name: &str, more: Value| {
        let mut owner =
            json!({"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": name, "uid": "u"});
        let fields = more.as_object().expect("fields").clone();
        owner.as_object_mut().expect("owner").extend(fields);
        owner
    };
    let controller = |name: &str| owner(name, json!({"controller": true}));
    for (metadata, expected) in [
        (json!({"finalizers": ["orphan", "example.com/x"]}), &[][..]),
        (
            json!({"finalizers": ["mine"]}),
            &[
                "metadata.finalizers[0]: Invalid value: \"mine\": name is neither a standard finalizer name",
            ],
        ),
        (
            json!({"finalizers": ["orphan", "foregroundDeletion"]}),
            &[
                "metadata.finalizers: Invalid value: [\"orphan\",\"foregroundDeletion\"]: finalizer orphan and",
            ],
        ),
        (
            json!({"ownerReferences": [controller("a"), owner("b", json!({}))]}),
            &[],
        ),
        (
            json!({"ownerReferences": [owner("", json!({"uid": ""}))]}),
            &[
                "metadata.ownerReferences[0].name: Required value: must not be empty",
                "metadata.ownerReferences[0].uid: Required value: must not be empty",
            ],
        ),
        (
            json!({"ownerReferences": [owner("a", json!({"apiVersion": "a/b/c"}))]}),
            &[
                "metadata.ownerReferences[0].apiVersion: Invalid value: \"a/b/c\": must be <group>/<version>",
            ],
        ),
        (
            json!({"ownerReferences": [owner("a", json!({"apiVersion": "v1", "kind": "Event"}))]}),
            &["metadata.ownerReferences[0]: Invalid value:"],
        ),
        (
            json!({"ownerReferences": [controller("a"), controller("b")]}),
            &["metadata.ownerReferences: Invalid value:"],
        ),
    ] {
        let found = told(metadata.clone());
        assert_eq!(found.len(), expected.len(), "{metadata}: {found:?}");
        for (found, expected) in found.iter().zip(expected) {
            assert!(found.starts_with(expected), "{found}");
        }
    }
}

/// Of an object with these fields one cause, which begins so; none if that is empty.
fn told(kind: Kind, name: &str, more: Value, expected: &str) {
    let mut body = json!({"metadata": {"name": name}});
    let fields = more.as_object().expect("fields").clone();
    body.as_object_mut().expect("an object").extend(fields);
    let found = causes(kind, body.clone());
    let fits = match expected {
        "" => found.is_empty(),
        text => found.iter().any(|one| one.starts_with(text)),
    };
    assert!(fits, "{body}: {found:?}");
}

#[test]
fn limits_of_a_range_are_amounts_in_order() {
    for (limit, expected) in [
        (r#"{"min": {"cpu": "1"}, "max": {"cpu": 2}}"#, ""),
        (
            r#"{"type": "Conatiner"}"#,
            ".type: Invalid value: \"Conatiner\": must be a standard limit type",
        ),
        (
            r#"{"min": {"cpu": "lots"}}"#,
            ".min[cpu]: Invalid value: \"lots\": quantities must match",
        ),
        (
            r#"{"min": {"cqu": "1"}}"#,
            ".min[cqu]: Invalid value: \"cqu\": must be a standard resource",
        ),
        (
            r#"{"min": {"cpu": "3"}, "max": {"cpu": "2"}}"#,
            ".min[cpu]: Invalid value: \"3\": min value 3 is greater than max value 2",
        ),
        (
            r#"{"max": {"cpu": "2"}, "defaultRequest": {"cpu": "3"}}"#,
            ".defaultRequest[cpu]: Invalid value: \"3\": default request value 3 is greater than max \
             value 2",
        ),
        (
            r#"{"type": "Pod", "default": {"cpu": "1"}}"#,
            ".default[cpu]: Forbidden: may not be specified when `type` is 'Pod'",
        ),
    ] {
        let mut one: Value = serde_json::from_str(limit).expect(limit);
        if one["type"].is_null() {
            one["type"] = json!("Container");
        }
        let at = match expected {
            "" => String::new(),
            text => format!("spec.limits[0]{text}"),
        };
        told(
            Kind::LimitRange,
            "l",
            json!({"spec": {"limits": [one]}}),
            &at,
        );
    }
}

#[test]
fn quotas_and_classes_stay_within_bounds() {
    for (name, amount, expected) in [
        ("pods", "4", ""),
        ("count/pods", "4", ""),
        ("requests.cpu", "500m", ""),
        (
            "podz",
            "4",
            "spec.hard[podz]: Invalid value: \"podz\": must be a standard resource for quota",
        ),
        (
            "pods",
            "-1",
            "spec.hard[pods]: Invalid value: \"-1\": must be greater than or equal to 0",
        ),
        (
            "pods",
            "x",
            "spec.hard[pods]: Invalid value: \"x\": quantities must match",
        ),
    ] {
        let spec = json!({"spec": {"hard": {name: amount}}});
        told(Kind::ResourceQuota, "q", spec, expected);
    }
    for (name, value, expected) in [
        ("high", 1_000_000_000, ""),
        ("system-node-critical", 2_000_001_000_i64, ""),
        (
            "higher",
            1_000_000_001,
            "value: Forbidden: maximum allowed value of a user defined priority is 1000000000",
        ),
        (
            "system-mine",
            5,
            "metadata.name: Forbidden: priority class names with 'system-' prefix are reserved",
        ),
    ] {
        told(Kind::PriorityClass, name, json!({"value": value}), expected);
    }
}
