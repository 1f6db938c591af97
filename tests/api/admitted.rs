//! What authorization and admission make of writes, as the client sees it.

use lowtide::object::Kind;
use serde_json::{Value, json};

use crate::node::{Node, Setup};

const PODS: &str = "/api/v1/namespaces/default/pods";

fn pod(name: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": name},
        "spec": {"containers": [{"name": "web", "image": "busybox:1"}]},
    })
}

fn admitting(admission: &[&'static str], labels: Value) -> Node {
    let node = Node::with(Setup {
        admission: admission.to_vec(),
        policy: r#"{"apiVersion":"abac.authorization.kubernetes.io/v1beta1","kind":"Policy","spec":{"user":"*","namespace":"*","resource":"*","apiGroup":"*"}}"#,
        ..Setup::default()
    });
    let body = json!({"metadata": {"name": "default", "labels": labels}});
    node.create(Kind::Namespace, "default", body);
    node
}

#[test]
fn what_admission_remarks_is_a_warning() {
    let labels = json!({"pod-security.kubernetes.io/warn": "baseline"});
    let node = admitting(&["PodSecurity"], labels);
    let mut body = pod("web");
    body["spec"]["hostNetwork"] = json!(true);
    let answer = node.send("POST", PODS, &body);
    assert_eq!(answer.code, 201);
    let text = "warning: 299 - \"would violate PodSecurity \\\"baseline:latest\\\": host namespaces \
                (hostNetwork=true)\"";
    assert!(answer.head.contains(text), "{}", answer.head);
}

#[test]
fn what_admission_adds_is_no_managers() {
    let node = admitting(&["DefaultTolerationSeconds"], json!({}));
    let made = node.send("POST", PODS, &pod("web")).json();
    let tolerations = made["spec"]["tolerations"].as_array().map(Vec::len);
    assert_eq!(tolerations, Some(2), "{made}");
    let held = &made["metadata"]["managedFields"][0]["fieldsV1"]["f:spec"];
    assert!(held["f:dnsPolicy"].is_object(), "defaults are: {held}");
    assert_eq!(held.get("f:tolerations"), None, "{held}");
}

#[test]
fn a_namespace_that_is_missing_or_ends_is_told() {
    let node = admitting(&["NamespaceLifecycle"], json!({}));
    let status = node.send("POST", "/api/v1/namespaces/x/pods", &pod("web"));
    assert_eq!(status.code, 404);
    let status = status.json();
    assert_eq!(status["message"], "namespaces \"x\" not found");
    assert_eq!(
        status["details"],
        json!({"name": "x", "kind": "namespaces"})
    );

    let ends = json!({
        "metadata": {"name": "ends"}, "status": {"phase": "Terminating"},
    });
    node.create(Kind::Namespace, "ends", ends);
    let status = node.send("POST", "/api/v1/namespaces/ends/pods", &pod("web"));
    assert_eq!(status.code, 403);
    let status = status.json();
    assert_eq!(
        status["message"],
        "pods \"web\" is forbidden: unable to create new content in namespace ends because it is \
         being terminated"
    );
    let cause = json!({
        "reason": "NamespaceTerminating", "message": "namespace ends is being terminated",
        "field": "metadata.namespace",
    });
    assert_eq!(status["details"]["causes"], json!([cause]));
}

#[test]
fn evictions_and_tokens_are_admitted() {
    let node = admitting(&["NodeRestriction"], json!({}));
    node.send("POST", PODS, &pod("web"));
    let account = json!({"metadata": {"name": "default"}});
    node.create(Kind::ServiceAccount, "default", account);
    let (user, groups) = ("system:node:other", "system:nodes,system:authenticated");
    let post = |path: &str, body: &Value| node.post_by(user, groups, path, body);
    let eviction = json!({
        "apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": "web"},
    });
    let refused = post(&format!("{PODS}/web/eviction"), &eviction);
    assert_eq!(refused.code, 403);
    assert_eq!(
        refused.json()["message"],
        "pods \"web\" is forbidden: node other can only evict pods with spec.nodeName set to itself"
    );
    assert_eq!(
        node.get(&format!("{PODS}/web")).json()["status"].get("conditions"),
        None
    );
    let token = post(
        "/api/v1/namespaces/default/serviceaccounts/default/token",
        &json!({"spec": {"audiences": []}}),
    );
    assert_eq!(token.code, 403);
    assert_eq!(
        token.json()["message"],
        "serviceaccounts \"default\" is forbidden: node requested token not bound to a pod"
    );
}

#[test]
fn no_way_into_a_pod_leads_past_the_secrets_of_its_account() {
    let node = admitting(&["ServiceAccount"], json!({}));
    let account = json!({
        "metadata": {
            "name": "strict",
            "annotations": {"kubernetes.io/enforce-mountable-secrets": "true"},
        },
        "secrets": [{"name": "mine"}],
    });
    node.create(Kind::ServiceAccount, "strict", account);
    let from = |name: &str| json!([{"secretRef": {"name": name}}]);
    let key = |name: &str| {
        let source = json!({"secretKeyRef": {"name": name, "key": "k"}});
        json!([{"name": "A", "valueFrom": source}])
    };
    let init = |name: &str| json!([{"name": "i", "image": "busybox:1", "envFrom": from(name)}]);
    let volume = |source: Value| {
        let mut volume = source;
        volume["name"] = json!("v");
        json!([volume])
    };
    let with = |path: &str, value: Value| {
        let mut pod = pod("p");
        pod["spec"]["serviceAccountName"] = json!("strict");
        pod["spec"]["initContainers"] = json!([]);
        pod["spec"]["volumes"] = json!([]);
        pod["spec"]["containers"][0]["env"] = json!([]);
        pod["spec"]["containers"][0]["envFrom"] = json!([]);
        *pod.pointer_mut(path).expect("a path") = value;
        pod
    };
    let pods = |name: &str| {
        let projected = json!({"projected": {"sources": [{"secret": {"name": name}}]}});
        [
            with("/spec/containers/0/env", key(name)),
            with("/spec/containers/0/envFrom", from(name)),
            with("/spec/initContainers", init(name)),
            with(
                "/spec/volumes",
                volume(json!({"secret": {"secretName": name}})),
            ),
            with("/spec/volumes", volume(projected)),
        ]
    };
    for (mine, other) in pods("mine").iter().zip(pods("other")) {
        let path = format!("{PODS}?dryRun=All");
        let admitted = node.send("POST", &path, mine);
        assert_eq!(admitted.code, 201, "{mine}");
        let refused = node.send("POST", &path, &other);
        assert_eq!(refused.code, 403, "{other}");
        let message = refused.json()["message"].to_string();
        assert!(
            message.contains("does not reference that secret"),
            "{message}"
        );
    }
    // One that is added to a pod that runs.
    let plain = with("/spec/volumes", json!([]));
    assert_eq!(node.send("POST", PODS, &plain).code, 201);
    let added = |name: &str| {
        let one = json!({"name": "debug", "image": "busybox:1", "envFrom": from(name)});
        let patch = json!({"spec": {"ephemeralContainers": [one]}}).to_string();
        let path = format!("{PODS}/p/ephemeralcontainers?dryRun=All");
        node.send_as(
            "PATCH",
            &path,
            "application/strategic-merge-patch+json",
            &patch,
        )
    };
    assert_eq!(added("mine").code, 200);
    assert_eq!(added("other").code, 403);
}
