//! Create, replace, delete: answers, what is left, and refusals in upstream's words.

use serde_json::{Value, json};

use crate::node::{Answer, Node};

const PODS: &str = "/api/v1/namespaces/default/pods";
const MAPS: &str = "/api/v1/namespaces/default/configmaps";

fn pod(name: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": name},
        "spec": {"containers": [{"name": "web", "image": "busybox:1"}]},
    })
}

fn map(name: &str, value: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name},
        "data": {"value": value},
    })
}

fn refused(answer: Answer, code: u16, reason: &str, message: &str) -> Value {
    assert_eq!(answer.code, code, "{message}");
    let status = answer.json();
    assert_eq!(status["kind"], "Status");
    assert_eq!(status["message"], message);
    assert_eq!(
        (&status["reason"], &status["code"]),
        (&json!(reason), &json!(code))
    );
    status
}

#[test]
fn a_created_object_is_answered_whole_and_is_there() {
    let node = Node::start();
    let answer = node.send("POST", PODS, &pod("web"));
    assert_eq!(answer.code, 201);
    let made = answer.json();
    assert_eq!(
        (&made["kind"], &made["apiVersion"]),
        (&json!("Pod"), &json!("v1"))
    );
    let metadata = &made["metadata"];
    assert_eq!(metadata["namespace"], "default");
    assert_eq!(metadata["generation"], 1);
    for field in ["uid", "creationTimestamp", "resourceVersion"] {
        assert!(metadata[field].is_string(), "{field}");
    }
    assert_eq!(
        made["spec"]["nodeName"], "pi",
        "a pod posted here runs here"
    );
    assert_eq!(made["spec"]["restartPolicy"], "Always", "defaulted");
    assert_eq!(made["status"]["phase"], "Pending");
    assert_eq!(node.get(&format!("{PODS}/web")).json(), made);

    refused(
        node.send("POST", PODS, &pod("web")),
        409,
        "AlreadyExists",
        "pods \"web\" already exists",
    );
}

#[test]
fn a_generated_name_begins_as_asked() {
    let node = Node::start();
    let mut body = map("", "1");
    body["metadata"] = json!({"generateName": "c-"});
    let first = node.send("POST", MAPS, &body).json();
    let second = node.send("POST", MAPS, &body).json();
    let name = |object: &Value| {
        object["metadata"]["name"]
            .as_str()
            .expect("name")
            .to_owned()
    };
    assert_ne!(name(&first), name(&second));
    let suffix = name(&first).strip_prefix("c-").expect("prefix").to_owned();
    assert_eq!(suffix.len(), 5);
    assert!(
        suffix
            .chars()
            .all(|c| "bcdfghjklmnpqrstvwxz2456789".contains(c))
    );
}

#[test]
fn an_object_is_replaced_if_it_is_the_one_that_was_read() {
    let node = Node::start();
    let path = format!("{MAPS}/c");
    let first = node.send("POST", MAPS, &map("c", "1")).json();
    let mut edited = first.clone();
    edited["data"]["value"] = json!("2");
    let answer = node.send("PUT", &path, &edited);
    assert_eq!(answer.code, 200);
    let second = answer.json();
    assert_eq!(second["data"]["value"], "2");
    assert_eq!(second["metadata"]["uid"], first["metadata"]["uid"]);
    let message = "Operation cannot be fulfilled on configmaps \"c\": the object has been modified; \
                   please apply your changes to the latest version and try again";
    let status = refused(node.send("PUT", &path, &edited), 409, "Conflict", message);
    assert_eq!(
        status["details"],
        json!({"name": "c", "kind": "configmaps"})
    );
    let same = node.send("PUT", &path, &second).json();
    assert_eq!(same, second, "no change, no version");
    let unconditional = node.send("PUT", &path, &map("c", "3"));
    assert_eq!(unconditional.json()["data"]["value"], "3");
}

#[test]
fn bodies_that_do_not_fit_their_place_are_refused() {
    let node = Node::start();
    node.send("POST", MAPS, &map("c", "1"));
    let with = |path: &str, value: Value| {
        let mut body = map("c", "1");
        *body.pointer_mut(path).expect("path") = value;
        body
    };
    let in_namespace = |namespace: &str| {
        let mut body = map("c", "1");
        body["metadata"]["namespace"] = json!(namespace);
        body
    };
    let mut versioned = map("d", "1");
    versioned["metadata"]["resourceVersion"] = json!("5");
    let one = format!("{MAPS}/c");
    let table = [
        (
            "POST",
            MAPS,
            in_namespace("other"),
            "the namespace of the provided object does not match the namespace sent on the request",
        ),
        (
            "PUT",
            &one,
            in_namespace("other"),
            "the namespace of the provided object does not match the namespace sent on the request",
        ),
        (
            "PUT",
            &one,
            with("/metadata/name", json!("d")),
            "the name of the object (d) does not match the name on the URL (c)",
        ),
        (
            "PUT",
            &one,
            with("/metadata", json!({})),
            "the name of the object (c based on URL) was undeterminable: name must be provided",
        ),
        (
            "POST",
            MAPS,
            with("/kind", json!("Secret")),
            "Secret in version \"v1\" cannot be handled as a ConfigMap",
        ),
        (
            "POST",
            MAPS,
            with("/apiVersion", json!("v2")),
            "the API version in the data (v2) does not match the expected API version (v1)",
        ),
        (
            "POST",
            MAPS,
            versioned,
            "resourceVersion should not be set on objects to be created",
        ),
    ];
    for (method, path, body, message) in table {
        refused(node.send(method, path, &body), 400, "BadRequest", message);
    }
}

#[test]
fn what_is_invalid_or_missing_is_told_as_upstream() {
    let node = Node::start();
    let invalid = node.send(
        "POST",
        PODS,
        &json!({"metadata": {"name": "x"}, "spec": {}}),
    );
    let message = "Pod \"x\" is invalid: spec.containers: Required value";
    let status = refused(invalid, 422, "Invalid", message);
    let cause = json!({
        "reason": "FieldValueRequired", "message": "Required value", "field": "spec.containers",
    });
    assert_eq!(
        status["details"],
        json!({"name": "x", "kind": "Pod", "causes": [cause]})
    );
    refused(
        node.send("PUT", &format!("{MAPS}/gone"), &map("gone", "1")),
        404,
        "NotFound",
        "configmaps \"gone\" not found",
    );
    let lease = "/apis/coordination.k8s.io/v1/namespaces/default/leases/l";
    let body = json!({"metadata": {"name": "l"}, "spec": {"holderIdentity": "a"}});
    assert_eq!(node.send("PUT", lease, &body).code, 201, "made by PUT");
    let status = node.send("PUT", lease, &body).json();
    assert_eq!(
        status["details"]["causes"][0]["message"],
        "Invalid value: 0: must be specified for an update"
    );
}

#[test]
fn unknown_and_double_fields_warn_or_refuse() {
    let node = Node::start();
    let text = |name: &str| {
        format!(r#"{{"metadata":{{"name":"{name}"}},"data":{{"a":"1","a":"2"}},"foo":1}}"#)
    };
    let post = |query: &str, name: &str| {
        let path = format!("{MAPS}{query}");
        node.send_as("POST", &path, "application/json", &text(name))
    };
    let warned = post("", "warned");
    assert_eq!(warned.code, 201);
    for text in [
        "unknown field \\\"foo\\\"",
        "duplicate field \\\"data.a\\\"",
    ] {
        let header = format!("warning: 299 - \"{text}\"");
        assert!(warned.head.contains(&header), "{}", warned.head);
    }
    let ignored = post("?fieldValidation=Ignore", "ignored");
    assert_eq!(ignored.code, 201);
    assert!(!ignored.head.contains("warning:"), "{}", ignored.head);
    refused(
        post("?fieldValidation=Strict", "strict"),
        400,
        "BadRequest",
        "ConfigMap in version \"v1\" cannot be handled as a ConfigMap: strict decoding error: \
         unknown field \"foo\", duplicate field \"data.a\"",
    );
    assert_eq!(node.get(&format!("{MAPS}/strict")).code, 404);
    assert_eq!(post("?fieldValidation=Loud", "loud").code, 422);
}

#[test]
fn a_dry_run_answers_and_leaves_nothing() {
    let node = Node::start();
    let made = node.send("POST", &format!("{MAPS}?dryRun=All"), &map("c", "1"));
    assert_eq!(made.code, 201);
    assert!(made.json()["metadata"]["uid"].is_string());
    assert_eq!(node.get(&format!("{MAPS}/c")).code, 404);

    let path = format!("{MAPS}/c");
    let kept = node.send("POST", MAPS, &map("c", "1")).json();
    let edited = node.send("PUT", &format!("{path}?dryRun=All"), &map("c", "2"));
    assert_eq!(edited.json()["data"]["value"], "2");
    assert_eq!(node.delete(&format!("{path}?dryRun=All")).code, 200);
    assert_eq!(node.get(&path).json(), kept);
    assert_eq!(node.delete(&format!("{path}?dryRun=Some")).code, 422);
}

#[test]
fn a_deletion_is_answered_by_what_is_left() {
    let node = Node::start();
    let made = node.send("POST", MAPS, &map("c", "1")).json();
    let answer = node.delete(&format!("{MAPS}/c"));
    assert_eq!(answer.code, 200);
    let expected = json!({
        "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success",
        "details": {"name": "c", "kind": "configmaps", "uid": made["metadata"]["uid"]},
    });
    assert_eq!(answer.json(), expected);
    assert_eq!(node.delete(&format!("{MAPS}/c")).code, 404);

    node.send("POST", PODS, &pod("web"));
    let options = json!({"kind": "DeleteOptions", "apiVersion": "v1", "gracePeriodSeconds": 5});
    let stopping = node.send("DELETE", &format!("{PODS}/web"), &options).json();
    assert_eq!(stopping["kind"], "Pod");
    assert_eq!(stopping["metadata"]["deletionGracePeriodSeconds"], 5);
    let forced = node.delete(&format!("{PODS}/web?gracePeriodSeconds=0"));
    assert_eq!(forced.json()["metadata"]["name"], "web");
    assert_eq!(node.get(&format!("{PODS}/web")).code, 404);

    node.send("POST", MAPS, &map("c", "1"));
    let other = json!({"preconditions": {"uid": "other"}});
    let refusal = node.send("DELETE", &format!("{MAPS}/c"), &other);
    assert_eq!(
        (refusal.code, &refusal.json()["reason"]),
        (409, &json!("Conflict"))
    );
    let nonsense = node.send("DELETE", &format!("{MAPS}/c"), &json!({"kind": "Pod"}));
    assert_eq!(nonsense.code, 400);
}

#[test]
fn a_collection_is_deleted_by_selector() {
    let node = Node::start();
    for (name, app) in [("a", "x"), ("b", "y"), ("c", "x")] {
        let mut body = map(name, "1");
        body["metadata"]["labels"] = json!({"app": app});
        node.send("POST", MAPS, &body);
    }
    let answer = node.delete(&format!("{MAPS}?labelSelector=app%3Dx")).json();
    assert_eq!(answer["kind"], "ConfigMapList");
    assert_eq!(answer["items"].as_array().map(Vec::len), Some(2));
    let left = node.get(MAPS).json();
    assert_eq!(left["items"][0]["metadata"]["name"], "b");
    assert_eq!(left["items"].as_array().map(Vec::len), Some(1));
    assert_eq!(node.delete("/api/v1/namespaces").code, 405);
    assert_eq!(node.delete("/api/v1/pods").code, 405);
}

#[test]
fn bodies_are_bounded_and_of_known_types() {
    let node = Node::start();
    let large = format!("{{\"a\":\"{}\"}}", "x".repeat(3 << 20));
    let answer = node.send_as("POST", MAPS, "application/json", &large);
    let message = "Request entity too large: limit is 3145728";
    refused(answer, 413, "RequestEntityTooLarge", message);
    for kind in ["application/cbor", "text/plain"] {
        let message = "the body of the request was in an unknown format - accepted media types \
                       include: application/json, application/yaml, application/vnd.kubernetes.protobuf";
        let answer = node.send_as("POST", MAPS, kind, "{}");
        refused(answer, 415, "UnsupportedMediaType", message);
    }
    let yaml = "metadata:\n  name: from-yaml\ndata:\n  a: b\n";
    let answer = node.send_as("POST", MAPS, "application/yaml", yaml);
    assert_eq!(answer.json()["data"]["a"], "b");
    for (text, line) in [("{", 1), ("{\n\"a\": }", 2)] {
        let answer = node.send_as("POST", MAPS, "application/json", text);
        assert_eq!(answer.code, 400);
        let message = answer.json()["message"].as_str().expect("text").to_owned();
        assert!(message.contains(&format!("line {line}")), "{message}");
    }
}

#[test]
fn nulls_among_texts_are_empty_ones() {
    let node = Node::start();
    let labels = json!({"l": null});
    let mut sent = map("c", "v");
    sent["data"]["k"] = json!(null);
    sent["metadata"]["labels"] = labels.clone();
    let answer = node.send("POST", MAPS, &sent);
    assert_eq!(answer.code, 201);
    let mut made = answer.json();
    assert_eq!(made["data"], json!({"value": "v", "k": ""}));
    assert_eq!(made["metadata"]["labels"], json!({"l": ""}));
    made["data"]["k"] = json!("x");
    made["metadata"]["annotations"] = json!({"a": null});
    let answer = node.send("PUT", &format!("{MAPS}/c"), &made);
    assert_eq!(answer.json()["metadata"]["annotations"], json!({"a": ""}));
    let form = "application/json-patch+json";
    let patch = r#"[{"op": "add", "path": "/data/k", "value": null}]"#;
    let answer = node.send_as("PATCH", &format!("{MAPS}/c"), form, patch);
    assert_eq!(answer.json()["data"]["k"], "");
    let mut sent = pod("web");
    sent["metadata"]["labels"] = labels;
    let answer = node.send("POST", PODS, &sent);
    assert_eq!(answer.json()["metadata"]["labels"], json!({"l": ""}));
}
