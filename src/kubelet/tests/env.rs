//! Environment of a container.

use std::collections::BTreeMap;
use std::net::IpAddr;

use serde_json::{Value, json};

use super::{container, node, objects, pod};
use crate::kubelet::env::{
    EnvContext, api_variables, environment, metadata_field, service_variables,
};

fn env_of(value: Value) -> Result<BTreeMap<String, String>, String> {
    let (objects, node) = (objects(), node());
    let ips: [IpAddr; 2] = [
        "10.88.0.5".parse().expect("v4"),
        "fd00::5".parse().expect("v6"),
    ];
    let services = [("KUBERNETES_SERVICE_HOST".to_owned(), "10.88.0.1".to_owned())];
    let context = EnvContext {
        node: &node,
        references: &objects,
        pod_ips: &ips,
        services: &services,
    };
    let pod = pod(json!({"serviceAccountName": "sa"}));
    Ok(environment(&pod, &container(value), &context)?
        .variables
        .into_iter()
        .collect())
}

#[test]
fn variables_resolve_in_upstreams_order() {
    let env = env_of(json!({
        "envFrom": [
            {"configMapRef": {"name": "settings"}},
            {"prefix": "S_", "secretRef": {"name": "login"}},
            {"configMapRef": {"name": "absent", "optional": true}},
        ],
        "env": [
            {"name": "mode", "value": "own"},
            {"name": "A", "value": "$(mode)-$(S_password)-$(LATER)-$$(mode)"},
            {"name": "LATER", "value": "x"},
            {"name": "HOST", "value": "$(KUBERNETES_SERVICE_HOST)"},
            {"name": "KEY", "valueFrom": {"configMapKeyRef": {"name": "settings", "key": "level"}}},
            {"name": "NONE", "valueFrom":
                {"secretKeyRef": {"name": "login", "key": "absent", "optional": true}}},
        ],
    }))
    .expect("resolves");
    assert_eq!(env["mode"], "own");
    assert_eq!(env["A"], "own-hunter2-$(LATER)-$(mode)");
    assert_eq!(env["HOST"], "10.88.0.1");
    assert_eq!(env["KEY"], "3");
    assert!(!env.contains_key("NONE"));
    assert_eq!(env["KUBERNETES_SERVICE_HOST"], "10.88.0.1");
}

#[test]
fn missing_references_have_upstreams_texts() {
    for (source, expected) in [
        (
            json!({"configMapKeyRef": {"name": "x", "key": "k"}}),
            "configmap \"x\" not found",
        ),
        (
            json!({"secretKeyRef": {"name": "x", "key": "k"}}),
            "secret \"x\" not found",
        ),
        (
            json!({"configMapKeyRef": {"name": "settings", "key": "k"}}),
            "couldn't find key k in ConfigMap default/settings",
        ),
        (
            json!({"secretKeyRef": {"name": "login", "key": "k"}}),
            "couldn't find key k in Secret default/login",
        ),
        (
            json!({"fieldRef": {"fieldPath": "spec.nope"}}),
            "unsupported fieldPath: spec.nope",
        ),
        (
            json!({"resourceFieldRef": {"resource": "limits.gpu"}}),
            "unsupported container resource : limits.gpu",
        ),
    ] {
        let outcome = env_of(json!({"env": [{"name": "A", "valueFrom": source}]}));
        assert_eq!(outcome, Err(expected.to_owned()));
    }
    let from = env_of(json!({"envFrom": [{"secretRef": {"name": "x"}}]}));
    assert_eq!(from, Err("secret \"x\" not found".to_owned()));
}

#[test]
fn fields_of_pod_and_resources_become_values() {
    for (source, expected) in [
        (json!({"fieldRef": {"fieldPath": "metadata.name"}}), "web"),
        (
            json!({"fieldRef": {"fieldPath": "metadata.labels['app']"}}),
            "web",
        ),
        (
            json!({"fieldRef": {"fieldPath": "metadata.annotations['no']"}}),
            "",
        ),
        (json!({"fieldRef": {"fieldPath": "spec.nodeName"}}), "pi"),
        (
            json!({"fieldRef": {"fieldPath": "spec.serviceAccountName"}}),
            "sa",
        ),
        (
            json!({"fieldRef": {"fieldPath": "status.hostIP"}}),
            "192.0.2.1",
        ),
        (
            json!({"fieldRef": {"fieldPath": "status.podIP"}}),
            "10.88.0.5",
        ),
        (
            json!({"fieldRef": {"fieldPath": "status.podIPs"}}),
            "10.88.0.5,fd00::5",
        ),
        (json!({"resourceFieldRef": {"resource": "limits.cpu"}}), "2"),
        (
            json!({"resourceFieldRef": {"resource": "limits.cpu", "divisor": "1m"}}),
            "1500",
        ),
        (
            json!({"resourceFieldRef": {"resource": "requests.cpu"}}),
            "0",
        ),
        (
            json!({"resourceFieldRef": {"resource": "limits.memory"}}),
            "1073741824",
        ),
        (
            json!({"resourceFieldRef": {"resource": "limits.memory", "divisor": "1Mi"}}),
            "1024",
        ),
        (
            json!({"resourceFieldRef": {"resource": "requests.memory", "divisor": "1Mi"}}),
            "2",
        ),
    ] {
        let env = env_of(json!({
            "resources": {"limits": {"cpu": "1500m"}, "requests": {"memory": "1048577"}},
            "env": [{"name": "A", "valueFrom": source}],
        }))
        .unwrap_or_else(|error| panic!("{source}: {error}"));
        assert_eq!(env["A"], expected, "{source}");
    }
}

#[test]
fn a_service_has_the_variables_that_upstream_gives_it() {
    let spec = json!({"clusterIP": "fd00::7", "ports": [
        {"name": "web-ui", "port": 80, "protocol": "TCP"}, {"name": "dns", "port": 53, "protocol": "UDP"},
    ]});
    let lines: Vec<_> = service_variables("my-app", &spec)
        .into_iter()
        .map(|(name, value)| format!("{name}={value}"))
        .collect();
    let expected = [
        "MY_APP_SERVICE_HOST=fd00::7",
        "MY_APP_SERVICE_PORT=80",
        "MY_APP_SERVICE_PORT_WEB_UI=80",
        "MY_APP_SERVICE_PORT_DNS=53",
        "MY_APP_PORT=tcp://[fd00::7]:80",
        "MY_APP_PORT_80_TCP=tcp://[fd00::7]:80",
        "MY_APP_PORT_80_TCP_PROTO=tcp",
        "MY_APP_PORT_80_TCP_PORT=80",
        "MY_APP_PORT_80_TCP_ADDR=fd00::7",
        "MY_APP_PORT_53_UDP=udp://[fd00::7]:53",
        "MY_APP_PORT_53_UDP_PROTO=udp",
        "MY_APP_PORT_53_UDP_PORT=53",
        "MY_APP_PORT_53_UDP_ADDR=fd00::7",
    ];
    assert_eq!(lines, expected);
    let headless = json!({"clusterIP": "None", "ports": [{"port": 1}]});
    assert_eq!(service_variables("x", &headless), []);
    let api = api_variables("10.0.0.1", 443);
    let tail = (
        "KUBERNETES_PORT_443_TCP_ADDR".to_owned(),
        "10.0.0.1".to_owned(),
    );
    assert_eq!((api.len(), api.last()), (8, Some(&tail)));
}

#[test]
fn labels_and_annotations_are_quoted_as_go_does() {
    for (value, wanted) in [
        ("a\"b\\c'd", r#"k="a\"b\\c'd""#),
        ("\u{7}\u{8}\u{c}\n\r\t\u{b}", r#"k="\a\b\f\n\r\t\v""#),
        ("\0\u{1b}\u{7f}", r#"k="\x00\x1b\x7f""#),
        ("\u{a0}\u{feff}\u{e0001}", r#"k="\u00a0\ufeff\U000e0001""#),
        ("❤\u{fe0f} e\u{301} 日本", "k=\"❤\u{fe0f} e\u{301} 日本\""),
        ("\u{301}", "k=\"\u{301}\""),
    ] {
        let mut pod = pod(json!({}));
        pod.metadata.annotations = Some(BTreeMap::from([("k".to_owned(), value.to_owned())]));
        let text = metadata_field(&pod, "metadata.annotations");
        assert_eq!(text.as_deref(), Ok(wanted), "{value:?}");
    }
}
