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

/// (JSON pointer, value to set there, start of the only cause)
fn pod_table() -> Vec<(&'static str, Value, &'static str)> {
    vec![
        (
            "/spec/containers",
            json!([]),
            "spec.containers: Required value",
        ),
        (
            "/spec/containers/0/image",
            json!(""),
            "spec.containers[0].image: Required value",
        ),
        (
            "/spec/containers/0/image",
            json!(" i"),
            "spec.containers[0].image: Invalid value: \" i\": must not have leading",
        ),
        (
            "/spec/containers/0/name",
            json!("Web"),
            "spec.containers[0].name: Invalid value: \"Web\": a lowercase RFC 1123 label must consist of",
        ),
        (
            "/spec/initContainers/0/name",
            json!("web"),
            "spec.initContainers[0].name: Duplicate value: \"web\"",
        ),
        (
            "/spec/initContainers/0/livenessProbe",
            json!({"exec": {"command": ["x"]}}),
            "spec.initContainers[0].livenessProbe: Forbidden: may not be set for init containers without",
        ),
        (
            "/spec/initContainers/0/restartPolicy",
            json!("Never"),
            "spec.initContainers[0].restartPolicy: Unsupported value: \"Never\": supported values: \"Always\"",
        ),
        (
            "/spec/containers/0/restartPolicy",
            json!("Always"),
            "spec.containers[0].restartPolicy: Forbidden",
        ),
        (
            "/spec/restartPolicy",
            json!("x"),
            "spec.restartPolicy: Unsupported value: \"x\": supported values: \"Always\", \"Never\", \"OnFailure\"",
        ),
        (
            "/spec/dnsPolicy",
            json!("None"),
            "spec.dnsConfig: Required value: must provide at least one DNS nameserver",
        ),
        (
            "/spec/dnsConfig",
            json!({"nameservers": ["x"]}),
            "spec.dnsConfig.nameservers[0]: Invalid value: \"x\": must be a valid IP",
        ),
        (
            "/spec/activeDeadlineSeconds",
            json!(0),
            "spec.activeDeadlineSeconds: Invalid value: 0: must be between 1 and 2147483647",
        ),
        (
            "/spec/terminationGracePeriodSeconds",
            json!(-1),
            "spec.terminationGracePeriodSeconds: Invalid value: -1",
        ),
        (
            "/spec/hostAliases",
            json!([{"ip": "x", "hostnames": ["a"]}]),
            "spec.hostAliases[0].ip: Invalid value",
        ),
        (
            "/spec/containers/0/ports/0/containerPort",
            json!(70000),
            "spec.containers[0].ports[0].containerPort: Invalid value: 70000: must be between 1 and 65535, inclusive",
        ),
        (
            "/spec/containers/0/ports/0/name",
            json!("way-too-long-name"),
            "spec.containers[0].ports[0].name: Invalid value",
        ),
        (
            "/spec/containers/0/ports/0/protocol",
            json!("ICMP"),
            "spec.containers[0].ports[0].protocol: Unsupported value: \"ICMP\": supported values: \"SCTP\", \"TCP\", \"UDP\"",
        ),
        (
            "/spec/containers/0/ports",
            json!([{"containerPort": 1, "hostPort": 8080}, {"containerPort": 2, "hostPort": 8080}]),
            "spec.containers[0].ports[1].hostPort: Duplicate value: \"TCP//8080\"",
        ),
        (
            "/spec/containers/0/volumeMounts/0/name",
            json!("nope"),
            "spec.containers[0].volumeMounts[0].name: Not found: \"nope\"",
        ),
        (
            "/spec/containers/0/volumeMounts/0/mountPath",
            json!(""),
            "spec.containers[0].volumeMounts[0].mountPath: Required value",
        ),
        (
            "/spec/containers/0/volumeMounts/0/subPath",
            json!("../x"),
            "spec.containers[0].volumeMounts[0].subPath: Invalid value: \"../x\": must not contain '..'",
        ),
        (
            "/spec/containers/0/volumeMounts/0/subPath",
            json!("/x"),
            "spec.containers[0].volumeMounts[0].subPath: Invalid value: \"/x\": must be a relative path",
        ),
        (
            "/spec/containers/0/volumeMounts/0/mountPropagation",
            json!("Bidirectional"),
            "spec.containers[0].volumeMounts[0].mountPropagation: Forbidden",
        ),
        (
            "/spec/containers/0/volumeMounts",
            json!([{"name": "data", "mountPath": "/a"}, {"name": "cfg", "mountPath": "/a"}]),
            "spec.containers[0].volumeMounts[1].mountPath: Invalid value: \"/a\": must be unique",
        ),
        (
            "/spec/volumes/1",
            json!({"name": "data"}),
            "spec.volumes[1].name: Duplicate value: \"data\"",
        ),
        (
            "/spec/volumes/1",
            json!({"name": "x", "hostPath": {"path": "/a/../b"}}),
            "spec.volumes[1].hostPath.path: Invalid value: \"/a/../b\": must not contain '..'",
        ),
        (
            "/spec/volumes/1",
            json!({"name": "x", "hostPath": {"path": "/a", "type": "Fifo"}}),
            "spec.volumes[1].hostPath.type: Unsupported value",
        ),
        (
            "/spec/volumes/1",
            json!({"name": "x", "emptyDir": {}, "secret": {"secretName": "s"}}),
            "spec.volumes[1].secret: Forbidden: may not specify more than 1 volume type",
        ),
        (
            "/spec/volumes/1",
            json!({"name": "x", "emptyDir": {"sizeLimit": "1Q"}}),
            "spec.volumes[1].emptyDir.sizeLimit: Invalid value: \"1Q\": quantities must match",
        ),
        (
            "/spec/volumes/1",
            json!({"name": "x", "secret": {}}),
            "spec.volumes[1].secret.secretName: Required value",
        ),
        (
            "/spec/volumes/1",
            json!({"name": "x", "configMap": {"name": "c", "defaultMode": 512}}),
            "spec.volumes[1].configMap.defaultMode: Invalid value: 512: must be a number between 0 and 0777",
        ),
        (
            "/spec/volumes/1",
            json!({"name": "x", "configMap": {"name": "c", "items": [{"key": "k", "path": "..data"}]}}),
            "spec.volumes[1].configMap.items[0].path: Invalid value: \"..data\": must not start with '..'",
        ),
        (
            "/spec/volumes/1",
            json!({"name": "x", "projected": {"sources": [{}]}}),
            "spec.volumes[1].projected.sources[0]: Required value",
        ),
        (
            "/spec/volumes/1",
            json!({"name": "x", "projected": {"sources": [{"serviceAccountToken": {"path": "t", "expirationSeconds": 5}}]}}),
            "spec.volumes[1].projected.sources[0].serviceAccountToken.expirationSeconds: Invalid value: 5: may not specify",
        ),
        (
            "/spec/containers/0/env",
            json!([{"name": "a=b"}]),
            "spec.containers[0].env[0].name: Invalid value: \"a=b\": a valid environment variable name",
        ),
        (
            "/spec/containers/0/env",
            json!([{"name": "A", "valueFrom": {}}]),
            "spec.containers[0].env[0].valueFrom: Invalid value: {}: must specify one of",
        ),
        (
            "/spec/containers/0/env",
            json!([{"name": "A", "valueFrom": {"fieldRef": {"fieldPath": "spec.x"}}}]),
            "spec.containers[0].env[0].valueFrom.fieldRef.fieldPath: Unsupported value: \"spec.x\"",
        ),
        (
            "/spec/containers/0/env",
            json!([{"name": "A", "valueFrom": {"secretKeyRef": {"name": "s"}}}]),
            "spec.containers[0].env[0].valueFrom.secretKeyRef.key: Required value",
        ),
        (
            "/spec/containers/0/envFrom",
            json!([{}]),
            "spec.containers[0].envFrom[0]: Invalid value: {}: must specify one of",
        ),
        (
            "/spec/containers/0/livenessProbe",
            json!({}),
            "spec.containers[0].livenessProbe: Required value: must specify a handler type",
        ),
        (
            "/spec/containers/0/livenessProbe",
            json!({"exec": {"command": ["x"]}, "tcpSocket": {"port": 1}}),
            "spec.containers[0].livenessProbe.tcpSocket: Forbidden: may not specify more than 1 handler type",
        ),
        (
            "/spec/containers/0/livenessProbe",
            json!({"exec": {"command": ["x"]}, "successThreshold": 2}),
            "spec.containers[0].livenessProbe.successThreshold: Invalid value: 2: must be 1",
        ),
        (
            "/spec/containers/0/readinessProbe",
            json!({"httpGet": {"port": 0}}),
            "spec.containers[0].readinessProbe.httpGet.port: Invalid value: 0: must be between 1 and 65535",
        ),
        (
            "/spec/containers/0/readinessProbe",
            json!({"tcpSocket": {"port": 1}, "terminationGracePeriodSeconds": 5}),
            "spec.containers[0].readinessProbe.terminationGracePeriodSeconds: Invalid value: 5: must not be set for readinessProbes",
        ),
        (
            "/spec/containers/0/lifecycle",
            json!({"preStop": {"sleep": {"seconds": 99}}}),
            "spec.containers[0].lifecycle.preStop.sleep.seconds: Invalid value: 99",
        ),
        (
            "/spec/containers/0/resources",
            json!({"limits": {"cpu": "1"}, "requests": {"cpu": "2"}}),
            "spec.containers[0].resources.requests: Invalid value: \"2\": must be less than or equal to cpu limit of 1",
        ),
        (
            "/spec/containers/0/resources",
            json!({"limits": {"memory": "-1"}, "requests": {"memory": "-2"}}),
            "spec.containers[0].resources.limits[memory]: Invalid value: \"-1\": must be greater than or equal to 0",
        ),
        (
            "/spec/containers/0/securityContext",
            json!({"privileged": true, "allowPrivilegeEscalation": false}),
            "spec.containers[0].securityContext: Invalid value",
        ),
        (
            "/spec/containers/0/securityContext",
            json!({"runAsUser": -5}),
            "spec.containers[0].securityContext.runAsUser: Invalid value: -5: must be between 0 and 2147483647",
        ),
        (
            "/spec/containers/0/securityContext",
            json!({"seccompProfile": {"type": "Localhost"}}),
            "spec.containers[0].securityContext.seccompProfile.localhostProfile: Required value: must be set when seccomp type is Localhost",
        ),
        (
            "/spec/containers/0/securityContext",
            json!({"seccompProfile": {"type": "Localhost", "localhostProfile": "../x"}}),
            "spec.containers[0].securityContext.seccompProfile.localhostProfile: Invalid value: \"../x\": must not contain '..'",
        ),
        (
            "/spec/securityContext",
            json!({"sysctls": [{"name": "net.ipv4+x", "value": "1"}]}),
            "spec.securityContext.sysctls[0].name: Invalid value: \"net.ipv4+x\": must have at most 253",
        ),
        (
            "/spec/tolerations",
            json!([{"operator": "Equal"}]),
            "spec.tolerations[0].operator: Invalid value",
        ),
        (
            "/metadata/name",
            json!("Web_1"),
            "metadata.name: Invalid value: \"Web_1\": a lowercase RFC 1123 subdomain must consist of",
        ),
        (
            "/metadata/labels",
            json!({"a b": "c"}),
            "metadata.labels: Invalid value: \"a b\": name part must consist of",
        ),
        (
            "/metadata/annotations",
            json!({"a": "x".repeat(256 << 10)}),
            "metadata.annotations: Too long: may not be more than 262144 bytes",
        ),
    ]
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
    for (pointer, value, expected) in pod_table() {
        let mut pod = good_pod();
        set(&mut pod, pointer, value);
        let found = causes(Kind::Pod, pod);
        let right = found.iter().filter(|cause| cause.starts_with(expected));
        assert_eq!(
            right.count(),
            1,
            "{pointer}: want {expected}\ngot {found:#?}"
        );
    }
}

#[test]
fn what_looks_odd_but_is_legal_passes() {
    for (pointer, value) in [
        ("/spec/initContainers/0/restartPolicy", json!("Always")),
        (
            "/spec/containers/0/resources",
            json!({"limits": {"cpu": 1, "memory": "1e3"}}),
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
        let causes = validate_update(kind, new, old);
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
