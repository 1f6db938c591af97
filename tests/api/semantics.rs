//! Tables of what upstream's generic registry does with writes: preconditions, grace, gates, names.

use serde_json::{Value, json};

use crate::node::{Answer, Node};

const PODS: &str = "/api/v1/namespaces/default/pods";
const MAPS: &str = "/api/v1/namespaces/default/configmaps";
const LEASES: &str = "/apis/coordination.k8s.io/v1/namespaces/default/leases";
const CLASSES: &str = "/apis/scheduling.k8s.io/v1/priorityclasses";

fn pod(name: &str) -> Value {
    json!({
        "metadata": {"name": name},
        "spec": {"containers": [{"name": "web", "image": "busybox:1"}]},
    })
}

fn map(name: &str) -> Value {
    json!({"metadata": {"name": name}, "data": {"a": "1"}})
}

/// Code and message of a refusal.
fn told(answer: Answer) -> (u16, String) {
    let (code, status) = (answer.code, answer.json());
    (
        code,
        status["message"].as_str().unwrap_or_default().to_owned(),
    )
}

fn text(object: &Value, name: &str) -> String {
    object["metadata"][name].as_str().expect(name).to_owned()
}

#[test]
fn what_a_write_demands_of_the_object_is_held_against_it() {
    let node = Node::start();
    let made = node.send("POST", MAPS, &map("c")).json();
    let (uid, version) = (text(&made, "uid"), text(&made, "resourceVersion"));
    let one = format!("{MAPS}/c");
    let with = |field: &str, value: &str| {
        let mut body = map("c");
        body["metadata"][field] = json!(value);
        body
    };
    let demand = |field: &str| json!({"preconditions": {field: "7"}});
    let conflict = "Operation cannot be fulfilled on configmaps \"c\": ";
    // Upstream names the kind here.
    let deletion = "Operation cannot be fulfilled on ConfigMap \"c\": ";
    let table = [
        (
            "PUT",
            one.clone(),
            with("uid", "7"),
            409,
            format!(
                "{conflict}Precondition failed: UID in precondition: 7, UID in object meta: {uid}"
            ),
        ),
        (
            "DELETE",
            one.clone(),
            demand("uid"),
            409,
            format!(
                "{deletion}the UID in the precondition (7) does not match the UID in record ({uid}). \
                 The object might have been deleted and then recreated"
            ),
        ),
        (
            "DELETE",
            one.clone(),
            demand("resourceVersion"),
            409,
            format!(
                "{deletion}the ResourceVersion in the precondition (7) does not match the \
                 ResourceVersion in record ({version}). The object might have been modified"
            ),
        ),
        (
            "PUT",
            format!("{MAPS}/gone"),
            json!({"metadata": {"name": "gone", "uid": "7"}}),
            404,
            "configmaps \"gone\" not found".to_owned(),
        ),
    ];
    for (method, path, body, code, message) in table {
        let answer = told(node.send(method, &path, &body));
        assert_eq!(answer, (code, message), "{method} {path} {body}");
    }
}

#[test]
fn what_is_made_by_a_write_to_its_name_was_never_another() {
    let node = Node::start();
    let lease = json!({"metadata": {"name": "l", "uid": "7"}});
    let unversioned = json!({"metadata": {"name": "l"}});
    let table = [
        (
            "PUT",
            format!("{LEASES}/l"),
            lease,
            409,
            "Operation cannot be fulfilled on leases.coordination.k8s.io \"l\": Precondition failed: \
             UID in precondition: 7, UID in object meta: "
                .to_owned(),
        ),
        ("PUT", format!("{LEASES}/l"), unversioned.clone(), 201, String::new()),
        (
            "PUT",
            format!("{LEASES}/l"),
            unversioned,
            422,
            "leases.coordination.k8s.io \"l\" is invalid: metadata.resourceVersion: Invalid value: 0: \
             must be specified for an update"
                .to_owned(),
        ),
    ];
    for (method, path, body, code, message) in table {
        let answer = told(node.send(method, &path, &body));
        assert_eq!(answer, (code, message), "{method} {path} {body}");
    }
    let path = format!("{MAPS}/new?fieldManager=me");
    let body = "{apiVersion: v1, kind: ConfigMap, metadata: {name: new, uid: \"7\"}}";
    let applied = node.send_as("PATCH", &path, "application/apply-patch+yaml", body);
    assert_eq!(
        told(applied),
        (
            409,
            "Operation cannot be fulfilled on configmaps \"new\": uid mismatch: the provided object \
             specified uid 7, and no existing object was found"
                .to_owned()
        )
    );
}

#[test]
fn grace_of_a_pod_that_stops_only_shrinks_and_counts_from_the_first_request() {
    let node = Node::start();
    let one = format!("{PODS}/web");
    node.send("POST", PODS, &pod("web"));
    let ask = |options: Value| {
        let pod = node.send("DELETE", &one, &options).json();
        let seconds = pod["metadata"]["deletionGracePeriodSeconds"].as_i64();
        let end = text(&pod, "deletionTimestamp");
        let held = pod["metadata"].get("finalizers").cloned();
        (
            seconds,
            end.parse::<jiff::Timestamp>().expect("a time"),
            held,
        )
    };
    let (seconds, end, _) = ask(json!({"gracePeriodSeconds": 90}));
    assert_eq!(seconds, Some(90), "more than the pod's own 30");
    for (options, wanted, earlier_s) in [
        (json!({}), 90, 0),
        (json!({"gracePeriodSeconds": 95}), 90, 0),
        (json!({"propagationPolicy": "Foreground"}), 90, 0),
        (json!({"gracePeriodSeconds": 60}), 60, 30),
        (json!({}), 60, 30),
    ] {
        let (seconds, then, held) = ask(options.clone());
        assert_eq!(seconds, Some(wanted), "{options}");
        assert_eq!((end - then).get_seconds(), earlier_s, "{options}");
        assert_eq!(
            held, None,
            "what becomes of dependants is settled: {options}"
        );
    }
}

#[test]
fn only_who_asks_the_older_way_is_told_that_a_deletion_is_not_over() {
    let node = Node::start();
    for (name, options, code) in [
        ("a", json!({"orphanDependents": false}), 202),
        ("b", json!({"propagationPolicy": "Background"}), 200),
    ] {
        node.send("POST", PODS, &pod(name));
        let answer = node.send("DELETE", &format!("{PODS}/{name}"), &options);
        assert_eq!(answer.code, code, "{options}");
    }
    node.send("POST", MAPS, &map("c"));
    let gone = node.send(
        "DELETE",
        &format!("{MAPS}/c"),
        &json!({"orphanDependents": false}),
    );
    assert_eq!(gone.code, 200, "it is over");
    let [x, y, z] = ["x", "y", "z"];
    [x, y, z].into_iter().for_each(|name| {
        node.send("POST", MAPS, &map(name));
    });
    let some = node.delete(&format!("{MAPS}?limit=2")).json();
    assert_eq!(some["items"].as_array().map(Vec::len), Some(2));
    assert_eq!(node.get(&format!("{MAPS}/{z}")).code, 200);
    let both = format!("{MAPS}?resourceVersionMatch=Exact");
    assert_eq!(
        node.delete(&both).code,
        422,
        "its options are those of a list"
    );
}

#[test]
fn a_gated_pod_waits_and_runs_here_once_its_gates_are_taken_away() {
    let node = Node::start();
    let mut body = pod("web");
    body["spec"]["schedulingGates"] = json!([{"name": "example.com/a"}]);
    let made = node.send("POST", PODS, &body).json();
    assert_eq!(made["spec"].get("nodeName"), None);
    assert_eq!(made["status"]["conditions"][0]["reason"], "SchedulingGated");
    let patch = |text: &str| {
        let path = format!("{PODS}/web");
        node.send_as("PATCH", &path, "application/merge-patch+json", text)
    };
    let more =
        r#"{"spec":{"schedulingGates":[{"name":"example.com/a"},{"name":"example.com/b"}]}}"#;
    assert_eq!(
        told(patch(more)).1,
        "Pod \"web\" is invalid: spec.schedulingGates[1].name: Forbidden: only deletion is allowed, \
         but found new scheduling gate 'example.com/b'"
    );
    let freed = patch(r#"{"spec":{"schedulingGates":null}}"#).json();
    assert_eq!(freed["spec"]["nodeName"], "pi");
}

#[test]
fn a_status_brings_the_metadata_that_upstream_lets_it() {
    let node = Node::start();
    node.send("POST", PODS, &pod("web"));
    let owner = json!([{"apiVersion": "v1", "kind": "ConfigMap", "name": "c", "uid": "7"}]);
    let mut body = node.get(&format!("{PODS}/web")).json();
    body["status"]["reason"] = json!("Because");
    body["spec"]["containers"][0]["image"] = json!("other");
    body["metadata"]["labels"] = json!({"a": "b"});
    body["metadata"]["finalizers"] = json!(["example.com/x"]);
    body["metadata"]["ownerReferences"] = owner;
    body["metadata"]["generation"] = json!(7);
    let answer = node
        .send("PUT", &format!("{PODS}/web/status"), &body)
        .json();
    assert_eq!(answer["status"]["reason"], "Because");
    assert_eq!(answer["spec"]["containers"][0]["image"], "busybox:1");
    let metadata = &answer["metadata"];
    assert_eq!(metadata["labels"], json!({"a": "b"}));
    assert_eq!(metadata["finalizers"], json!(["example.com/x"]));
    assert_eq!(
        metadata.get("ownerReferences"),
        None,
        "old kubelets broke them"
    );
    assert_eq!(metadata["generation"], 1);
}

#[test]
fn an_eviction_holds_what_it_demands_and_says_why() {
    let node = Node::start();
    let made = node.send("POST", PODS, &pod("web")).json();
    let evict = |options: Value| {
        let body = json!({
            "apiVersion": "policy/v1", "kind": "Eviction",
            "metadata": {"name": "web"}, "deleteOptions": options,
        });
        node.send("POST", &format!("{PODS}/web/eviction"), &body)
    };
    let demand = |version: &str| json!({"preconditions": {"resourceVersion": version}});
    assert_eq!(evict(demand("7")).code, 409);
    let untouched = node.get(&format!("{PODS}/web")).json();
    assert_eq!(untouched["status"].get("conditions"), None);
    assert_eq!(evict(demand(&text(&made, "resourceVersion"))).code, 201);
    let leaving = node.get(&format!("{PODS}/web")).json();
    let condition = &leaving["status"]["conditions"][0];
    assert_eq!(condition["reason"], "EvictionByEvictionAPI");
    assert!(leaving["metadata"]["deletionTimestamp"].is_string());
    let wrong = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "web"}});
    let wrong = node.send("POST", &format!("{PODS}/web/eviction"), &wrong);
    assert_eq!(
        told(wrong),
        (
            400,
            "Pod in version \"v1\" cannot be handled as a Eviction".to_owned()
        )
    );
}

#[test]
fn a_priority_class_has_a_generation_and_a_value_that_stays() {
    let node = Node::start();
    let class = json!({"metadata": {"name": "high"}, "value": 5});
    let made = node.send("POST", CLASSES, &class).json();
    assert_eq!(made["metadata"]["generation"], 1);
    let one = format!("{CLASSES}/high");
    let patch = |text: &str| node.send_as("PATCH", &one, "application/merge-patch+json", text);
    let refused = "PriorityClass.scheduling.k8s.io \"high\" is invalid: ";
    for (text, message) in [
        (
            r#"{"value":6}"#,
            "value: Forbidden: may not be changed in an update.",
        ),
        (
            r#"{"preemptionPolicy":"Never"}"#,
            "preemptionPolicy: Invalid value: \"Never\": field is immutable",
        ),
    ] {
        assert_eq!(
            told(patch(text)),
            (422, format!("{refused}{message}")),
            "{text}"
        );
    }
    assert_eq!(patch(r#"{"description":"x"}"#).code, 200);
}
