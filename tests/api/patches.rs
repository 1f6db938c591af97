//! The four kinds of patches on several kinds of objects, and who is said to hold which field.

use std::io::Write;

use serde_json::{Value, json};

use crate::node::{Answer, Node};

const PODS: &str = "/api/v1/namespaces/default/pods";
const MAPS: &str = "/api/v1/namespaces/default/configmaps";
const SERVICES: &str = "/api/v1/namespaces/default/services";
const JSON: &str = "application/json-patch+json";
const MERGE: &str = "application/merge-patch+json";
const STRATEGIC: &str = "application/strategic-merge-patch+json";
const APPLY: &str = "application/apply-patch+yaml";

fn patch(node: &Node, path: &str, form: &str, patch: &Value) -> Answer {
    node.send_as("PATCH", path, form, &patch.to_string())
}

fn patched(node: &Node, path: &str, form: &str, body: &Value) -> Value {
    let answer = patch(node, path, form, body);
    let code = answer.code;
    let object = answer.json();
    assert!(code == 200 || code == 201, "{code} {object}");
    object
}

fn refused(answer: Answer, code: u16, reason: &str, message: &str) -> Value {
    let (got, status) = (answer.code, answer.json());
    assert_eq!(status["message"], message);
    assert_eq!((got, &status["reason"]), (code, &json!(reason)));
    status
}

fn map(name: &str, data: Value) -> Value {
    json!({
        "apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": data,
    })
}

fn pod(name: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": name},
        "spec": {"containers": [
            {"name": "a", "image": "busybox:1"}, {"name": "b", "image": "busybox:1"},
        ]},
    })
}

/// `fieldsV1` of a manager; null if it holds nothing.
fn held(object: &Value, manager: &str) -> Value {
    let entries = object["metadata"]["managedFields"].as_array();
    let mut entries = entries.into_iter().flatten();
    let found = entries.find(|entry| entry["manager"] == manager);
    found.cloned().unwrap_or_default()["fieldsV1"].clone()
}

#[test]
fn each_form_patches_a_config_map() {
    let node = Node::start();
    let path = &format!("{MAPS}/c");
    node.send("POST", MAPS, &map("c", json!({"a": "1", "b": "1"})));
    let replace = json!([
        {"op": "test", "path": "/data/a", "value": "1"},
        {"op": "replace", "path": "/data/a", "value": "2"},
    ]);
    assert_eq!(patched(&node, path, JSON, &replace)["data"]["a"], "2");
    let merge = json!({"data": {"a": null, "c": "3"}});
    let object = patched(&node, path, MERGE, &merge);
    assert_eq!(object["data"], json!({"b": "1", "c": "3"}));
    let strategic = json!({"data": {"$patch": "replace", "d": "4"}});
    let object = patched(&node, path, STRATEGIC, &strategic);
    assert_eq!(object["data"], json!({"d": "4"}));
    let same = patched(&node, path, MERGE, &json!({"data": {"d": "4"}}));
    assert_eq!(same, object, "no change, no version");
    let dry = patched(
        &node,
        &format!("{path}?dryRun=All"),
        MERGE,
        &json!({"data": {"d": "5"}}),
    );
    assert_eq!(dry["data"]["d"], "5");
    assert_eq!(node.get(path).json(), object);
}

#[test]
fn patches_that_do_not_fit_are_told_apart() {
    let node = Node::start();
    let path = &format!("{MAPS}/c");
    node.send("POST", MAPS, &map("c", json!({"a": "1"})));
    let failing = json!([{"op": "test", "path": "/data/a", "value": "2"}]);
    let message = "the server rejected our request due to an error in our request";
    let status = refused(patch(&node, path, JSON, &failing), 422, "Invalid", message);
    let cause = status["details"]["causes"][0]["message"].as_str();
    assert!(cause.expect("a cause").contains("/data/a"), "{status}");
    assert_eq!(patch(&node, path, JSON, &json!({"op": "test"})).code, 400);
    assert_eq!(node.send_as("PATCH", path, MERGE, "{").code, 400);
    let many: Vec<Value> = (0..10_001)
        .map(|_| json!({"op": "test", "path": "/data/a", "value": "1"}))
        .collect();
    let large = patch(&node, path, JSON, &json!(many));
    assert_eq!(large.code, 413);
    assert_eq!(large.json()["reason"], "RequestEntityTooLarge");
    assert_eq!(
        node.send_as("PATCH", path, "application/json", "{}").code,
        415
    );
    let stale = json!({"metadata": {"resourceVersion": "1"}, "data": {"a": "2"}});
    let message = "Operation cannot be fulfilled on configmaps \"c\": the object has been modified; \
                   please apply your changes to the latest version and try again";
    refused(patch(&node, path, MERGE, &stale), 409, "Conflict", message);
    let renamed = json!({"metadata": {"name": "d"}});
    let message = "the name of the object (d) does not match the name on the URL (c)";
    refused(
        patch(&node, path, MERGE, &renamed),
        400,
        "BadRequest",
        message,
    );
    let gone = patch(&node, &format!("{MAPS}/gone"), MERGE, &json!({}));
    refused(gone, 404, "NotFound", "configmaps \"gone\" not found");
}

#[test]
fn lists_of_pods_merge_by_key_and_what_may_not_change_does_not() {
    let node = Node::start();
    let path = &format!("{PODS}/web");
    node.send("POST", PODS, &pod("web"));
    let image = json!({"spec": {"containers": [{"name": "b", "image": "busybox:2"}]}});
    let object = patched(&node, path, STRATEGIC, &image);
    let images = |object: &Value| {
        let containers = object["spec"]["containers"].as_array().cloned();
        let containers = containers.expect("containers").into_iter();
        containers.map(|c| c["image"].clone()).collect::<Value>()
    };
    assert_eq!(images(&object), json!(["busybox:1", "busybox:2"]));
    assert_eq!(object["metadata"]["generation"], 2);
    let label = json!([{"op": "add", "path": "/metadata/labels", "value": {"app": "x"}}]);
    assert_eq!(
        patched(&node, path, JSON, &label)["metadata"]["labels"]["app"],
        "x"
    );
    let command = json!({"spec": {"containers": [{"name": "b", "command": ["x"]}]}});
    let answer = patch(&node, path, STRATEGIC, &command);
    assert_eq!(answer.code, 422);
    assert_eq!(answer.json()["details"]["causes"][0]["field"], "spec");
    let condition = json!({"status": {"conditions": [
        {"type": "example.com/ready", "status": "True"},
    ]}});
    let object = patched(&node, &format!("{path}/status"), STRATEGIC, &condition);
    assert_eq!(
        object["status"]["conditions"][0]["type"],
        "example.com/ready"
    );
    assert_eq!(object["status"]["phase"], "Pending");
    let object = patched(&node, path, MERGE, &json!({"status": {"phase": "Failed"}}));
    assert_eq!(
        object["status"]["phase"], "Pending",
        "not through this door"
    );
}

#[test]
fn a_node_is_cordoned_and_a_service_gets_a_port() {
    let node = Node::start();
    let body = json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "pi"}});
    node.create(lowtide::object::Kind::Node, "pi", body);
    let cordon = json!({"spec": {"unschedulable": true}});
    let object = patched(&node, "/api/v1/nodes/pi", STRATEGIC, &cordon);
    assert_eq!(object["spec"]["unschedulable"], true);
    let object = patched(
        &node,
        "/api/v1/nodes/pi",
        MERGE,
        &json!({"spec": {"unschedulable": null}}),
    );
    assert_eq!(object["spec"].get("unschedulable"), None);

    let service = json!({
        "apiVersion": "v1", "kind": "Service", "metadata": {"name": "s"},
        "spec": {"ports": [{"name": "a", "port": 80}]},
    });
    let made = node.send("POST", SERVICES, &service);
    assert_eq!(made.code, 201);
    let port = json!({"spec": {"ports": [{"name": "b", "port": 81}]}});
    let object = patched(&node, &format!("{SERVICES}/s"), STRATEGIC, &port);
    assert_eq!(object["spec"]["ports"].as_array().map(Vec::len), Some(2));
}

#[test]
fn an_apply_makes_changes_and_prunes() {
    let node = Node::start();
    let path = &format!("{MAPS}/c?fieldManager=one");
    let nobody = patch(&node, &format!("{MAPS}/c"), APPLY, &map("c", json!({})));
    let message = "PatchOptions.meta.k8s.io \"\" is invalid: fieldManager: Required value: is \
                   required for apply patch";
    refused(nobody, 422, "Invalid", message);
    let answer = patch(&node, path, APPLY, &map("c", json!({"a": "1", "b": "1"})));
    assert_eq!(answer.code, 201, "made by an apply");
    let object = answer.json();
    assert_eq!(
        held(&object, "one"),
        json!({"f:data": {"f:a": {}, "f:b": {}}})
    );
    let again = patch(&node, path, APPLY, &map("c", json!({"a": "1", "b": "1"})));
    assert_eq!(again.code, 200);
    assert_eq!(again.json(), object, "no change, no version");
    let yaml = "apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: c\ndata:\n  b: \"1\"\n";
    let pruned = node.send_as("PATCH", path, APPLY, yaml).json();
    assert_eq!(pruned["data"], json!({"b": "1"}));
    let other = map("c", json!({"b": "2"}));
    let other_path = format!("{MAPS}/c?fieldManager=two");
    let message = "Apply failed with 1 conflict: conflict with \"one\": .data.b";
    let status = refused(
        patch(&node, &other_path, APPLY, &other),
        409,
        "Conflict",
        message,
    );
    let cause = json!({
        "reason": "FieldManagerConflict", "message": "conflict with \"one\"", "field": ".data.b",
    });
    assert_eq!(status["details"]["causes"], json!([cause]));
    let taken = patched(&node, &format!("{other_path}&force=true"), APPLY, &other);
    assert_eq!(taken["data"]["b"], "2");
    assert_eq!(held(&taken, "one"), Value::Null);
    let wrong = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "c"}});
    assert_eq!(patch(&node, path, APPLY, &wrong).code, 400);
}

#[test]
fn other_writes_hold_what_they_change() {
    let node = Node::start();
    let made = node.send(
        "POST",
        &format!("{MAPS}?fieldManager=make"),
        &map("c", json!({"a": "1"})),
    );
    let made = made.json();
    assert_eq!(held(&made, "make"), json!({"f:data": {".": {}, "f:a": {}}}));
    let path = format!("{MAPS}/c");
    let mut edited = made.clone();
    edited["data"]["a"] = json!("2");
    let edited = node
        .send("PUT", &format!("{path}?fieldManager=edit"), &edited)
        .json();
    assert_eq!(held(&edited, "edit"), json!({"f:data": {"f:a": {}}}));
    assert_eq!(held(&edited, "make"), json!({"f:data": {}}));
    let merge = json!({"data": {"b": "1"}});
    let merged = patched(&node, &format!("{path}?fieldManager=merge"), MERGE, &merge);
    assert_eq!(held(&merged, "merge"), json!({"f:data": {"f:b": {}}}));

    let pods = format!("{PODS}?fieldManager=make");
    let made = node.send("POST", &pods, &pod("web")).json();
    let holds = &held(&made, "make")["f:spec"]["f:containers"]["k:{\"name\":\"a\"}"];
    assert_eq!(holds["f:image"], json!({}), "{holds}");
}

#[test]
fn an_applied_pod_keeps_what_others_set() {
    let node = Node::start();
    let path = format!("{PODS}/web?fieldManager=one");
    let answer = patch(&node, &path, APPLY, &pod("web"));
    assert_eq!(answer.code, 201);
    let made = answer.json();
    assert_eq!(made["spec"]["nodeName"], "pi");
    let label = json!({"metadata": {"labels": {"by": "hand"}}});
    patched(
        &node,
        &format!("{PODS}/web?fieldManager=hand"),
        MERGE,
        &label,
    );
    let mut next = pod("web");
    next["spec"]["containers"][0]["image"] = json!("busybox:2");
    let object = patched(&node, &path, APPLY, &next);
    assert_eq!(object["spec"]["containers"][0]["image"], "busybox:2");
    assert_eq!(object["metadata"]["labels"]["by"], "hand");
    assert_eq!(object["spec"]["restartPolicy"], "Always", "defaults stay");
}

#[test]
fn who_applies_a_part_of_a_pod_holds_it() {
    let node = Node::start();
    let mut made = pod("web");
    made["spec"]["containers"][0]["resources"] = json!({"requests": {"cpu": "500m"}});
    node.send("POST", PODS, &made);
    let debug = json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": "web"},
        "spec": {"ephemeralContainers": [{"name": "debug", "image": "busybox:1"}]},
    });
    let path = format!("{PODS}/web/ephemeralcontainers?fieldManager=looker");
    let object = patched(&node, &path, APPLY, &debug);
    let holds = &held(&object, "looker")["f:spec"]["f:ephemeralContainers"];
    assert!(holds["k:{\"name\":\"debug\"}"].is_object(), "{object}");
    let resources = json!({"requests": {"cpu": "1"}});
    let resize = json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": "web"},
        "spec": {"containers": [{"name": "a", "resources": resources}]},
    });
    let path = format!("{PODS}/web/resize?fieldManager=sizer&force=true");
    let object = patched(&node, &path, APPLY, &resize);
    let holds = &held(&object, "sizer")["f:spec"]["f:containers"]["k:{\"name\":\"a\"}"];
    let expected = json!({"f:requests": {"f:cpu": {}}});
    assert_eq!(holds["f:resources"], expected, "{object}");
}

#[test]
fn two_applies_that_make_one_object_both_count() {
    let node = Node::start();
    // Both see that nothing is there before the node takes the first.
    let (go, wait) = std::sync::mpsc::channel::<()>();
    let busy = node.begin(|_| Box::pin(async move { wait.recv() }));
    let ask = |manager: &str| {
        let body = map("c", json!({manager: "1"})).to_string();
        let mut stream = node.connect();
        let request = format!(
            "PATCH {MAPS}/c?fieldManager={manager} HTTP/1.1\r\nHost: x\r\nContent-Type: {APPLY}\r\n\
             Content-Length: {}\r\nConnection: close\r\n\r\n{body}",
            body.len()
        );
        stream.write_all(request.as_bytes()).expect("written");
        stream
    };
    let asked = [ask("one"), ask("two")];
    assert_eq!(node.get(&format!("{MAPS}/c")).code, 404);
    drop(go);
    let answers = asked.map(|stream| Answer::read(stream).code);
    assert!(busy.recv().expect("over").is_err());
    assert!(matches!(answers, [201, 200] | [200, 201]), "{answers:?}");
    let data = &node.get(&format!("{MAPS}/c")).json()["data"];
    assert_eq!(*data, json!({"one": "1", "two": "1"}));
}
