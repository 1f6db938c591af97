//! Get, list, tables, discovery, refusals.

use lowtide::apiserver::Limits;
use lowtide::object::Kind;
use lowtide::registry;
use serde_json::json;

use crate::node::Node;

const TABLE: &str = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json";

#[test]
fn a_list_shows_what_the_registry_holds() {
    let node = Node::start();
    node.pod("web", json!({"app": "web"}));
    node.pod("db", json!({"app": "db"}));
    let answer = node.get("/api/v1/pods");
    assert_eq!(answer.code, 200);
    let list = answer.json();
    assert_eq!(list["kind"], "PodList");
    let names: Vec<_> = list["items"].as_array().expect("items").iter().collect();
    assert_eq!(names.len(), 2);
    assert_eq!(names[0]["metadata"]["name"], "db");
    assert!(names[0].get("kind").is_none());
    let count = |path: &str| node.get(path).json()["items"].as_array().map(Vec::len);
    assert_eq!(
        count("/api/v1/namespaces/default/pods?labelSelector=app%3Dweb"),
        Some(1)
    );
    assert_eq!(
        count("/api/v1/namespaces/default/pods?fieldSelector=metadata.name%21%3Dweb"),
        Some(1)
    );
    assert_eq!(count("/api/v1/namespaces/other/pods"), Some(0));
}

#[test]
fn one_object_is_got_by_name() {
    let node = Node::start();
    node.pod("web", json!({}));
    let pod = node.get("/api/v1/namespaces/default/pods/web").json();
    assert_eq!(
        (&pod["kind"], &pod["metadata"]["name"]),
        (&json!("Pod"), &json!("web"))
    );
}

#[test]
fn pages_put_together_are_the_whole_list() {
    let node = Node::start();
    for index in 0..5 {
        node.pod(&format!("p{index}"), json!({}));
    }
    let (mut names, mut go_on, mut versions) = (Vec::new(), String::new(), Vec::new());
    loop {
        let page = node
            .get(&format!("/api/v1/pods?limit=2&continue={go_on}"))
            .json();
        for item in page["items"].as_array().expect("items") {
            names.push(item["metadata"]["name"].as_str().expect("name").to_owned());
        }
        versions.push(page["metadata"]["resourceVersion"].clone());
        match page["metadata"]["continue"].as_str() {
            Some(token) => go_on = token.to_owned(),
            None => break,
        }
        if versions.len() == 1 {
            assert_eq!(page["metadata"]["remainingItemCount"], 3);
            node.pod("p9", json!({}));
        }
    }
    assert_eq!(names, ["p0", "p1", "p2", "p3", "p4"]);
    versions.dedup();
    assert_eq!(versions.len(), 1, "all pages show the state of the first");
}

#[test]
fn an_earlier_state_is_listed_while_history_reaches_back_to_it() {
    let limits = registry::Limits {
        history_changes: 4,
        ..registry::Limits::default()
    };
    let node = Node::with_limits(Limits::default(), limits);
    let names = |list: &serde_json::Value| -> Vec<String> {
        let items = list["items"].as_array().expect("items");
        let name = |item: &serde_json::Value| item["metadata"]["name"].as_str().map(str::to_owned);
        items.iter().filter_map(name).collect()
    };
    let maps = "/api/v1/namespaces/default/configmaps";
    let create = |name: &str| {
        let body = json!({"metadata": {"name": name}});
        assert_eq!(node.send("POST", maps, &body).code, 201);
    };
    ["a", "b", "c"].into_iter().for_each(create);
    let first = node.get(&format!("{maps}?limit=1")).json();
    let metadata = first["metadata"].clone();
    let text = |name: &str| metadata[name].as_str().expect("text").to_owned();
    assert_eq!(node.delete(&format!("{maps}/b")).code, 200);
    create("d");
    let then = format!("{maps}?resourceVersion={}", text("resourceVersion"));
    let exact = node
        .get(&format!("{then}&resourceVersionMatch=Exact"))
        .json();
    assert_eq!(names(&exact), ["a", "b", "c"]);
    assert_eq!(
        exact["metadata"]["resourceVersion"],
        metadata["resourceVersion"]
    );
    assert_eq!(
        names(&node.get(&then).json()),
        ["a", "c", "d"],
        "not older than"
    );
    assert_eq!(
        names(&node.get(&format!("{then}&limit=2")).json()),
        ["a", "b"],
        "as of old"
    );
    let rest = format!("{maps}?continue={}", text("continue"));
    assert_eq!(names(&node.get(&rest).json()), ["b", "c"]);
    ["e", "f", "g"].into_iter().for_each(create);
    let expired = node.get(&rest);
    assert_eq!(expired.code, 410);
    let status = expired.json();
    assert_eq!(status["reason"], "Expired");
    let fresh = status["metadata"]["continue"].as_str().expect("a token");
    let rest = node.get(&format!("{maps}?continue={fresh}")).json();
    assert_eq!(names(&rest), ["c", "d", "e", "f", "g"], "what there is now");
}

#[test]
fn refusals_are_status_objects() {
    let node = Node::start();
    let table = [
        (
            "/api/v1/namespaces/default/pods/gone",
            404,
            "NotFound",
            "pods \"gone\" not found",
        ),
        (
            "/apis/apps/v1/deployments",
            404,
            "NotFound",
            "the server could not find the requested resource",
        ),
        (
            "/api/v1/pods?fieldSelector=spec.x%3D1",
            400,
            "BadRequest",
            "field label not supported: spec.x",
        ),
        (
            "/api/v1/pods?resourceVersion=9223372036854775807",
            504,
            "Timeout",
            "Timeout: Too large resource version",
        ),
        (
            "/api/v1/pods?sendInitialEvents=true",
            422,
            "Invalid",
            "sendInitialEvents is forbidden for list",
        ),
        (
            "/api/v1/pods?resourceVersionMatch=Exact",
            422,
            "Invalid",
            "resourceVersionMatch is forbidden unless",
        ),
        (
            "/api/v1/pods?continue=x",
            400,
            "BadRequest",
            "continue key is not valid",
        ),
        (
            "/api/v1/pods?labelSelector=a%20b",
            400,
            "BadRequest",
            "unable to parse requirement",
        ),
    ];
    for (path, code, reason, message) in table {
        let answer = node.get(path);
        assert_eq!(answer.code, code, "{path}");
        let status = answer.json();
        assert_eq!(status["kind"], "Status", "{path}");
        assert_eq!(status["reason"], reason, "{path}");
        assert!(
            status["message"]
                .as_str()
                .expect("message")
                .contains(message),
            "{path}: {status}"
        );
    }
}

#[test]
fn methods_and_forms_that_are_not_served_are_refused() {
    let node = Node::start();
    let post = node.open(
        "POST /api/v1/pods HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
    );
    assert_eq!(post.code, 405);
    let protobuf = node.get_as("/api/v1/pods", "application/vnd.kubernetes.protobuf");
    assert_eq!(protobuf.code, 406);
}

#[test]
fn kubectl_gets_its_table() {
    let node = Node::start();
    let pod = node.pod("web", json!({}));
    node.status(
        &pod,
        json!({"phase": "Running", "podIP": "10.88.0.2", "containerStatuses": [
        {"name": "web", "ready": true, "restartCount": 0, "state": {"running": {}}}]}),
    );
    let table = node.get_as("/api/v1/pods", TABLE).json();
    assert_eq!(table["kind"], "Table");
    assert_eq!(table["columnDefinitions"][0]["format"], "name");
    let cells = &table["rows"][0]["cells"];
    assert_eq!(cells[0], "web");
    assert_eq!(
        (&cells[1], &cells[2], &cells[5]),
        (&json!("1/1"), &json!("Running"), &json!("10.88.0.2"))
    );
    assert_eq!(table["rows"][0]["object"]["kind"], "PartialObjectMetadata");
    let bare = node.get_as("/api/v1/pods?includeObject=None", TABLE).json();
    assert!(bare["rows"][0].get("object").is_none());
}

#[test]
fn discovery_lists_what_is_served() {
    let node = Node::start();
    assert_eq!(node.get("/version").json()["major"], "1");
    assert_eq!(node.get("/api").json()["versions"][0], "v1");
    let resources = node.get("/api/v1").json();
    let names: Vec<_> = resources["resources"]
        .as_array()
        .expect("resources")
        .iter()
        .map(|r| r["name"].clone())
        .collect();
    for kind in Kind::ALL.into_iter().filter(|kind| kind.group().is_empty()) {
        assert!(names.contains(&json!(kind.plural())), "{kind}");
    }
    let groups = node.get("/apis").json();
    assert_eq!(groups["groups"][0]["name"], "authentication.k8s.io");
    let group = node.get("/apis/coordination.k8s.io").json();
    assert_eq!(
        group["preferredVersion"]["groupVersion"],
        "coordination.k8s.io/v1"
    );
    assert_eq!(node.get("/apis/apps/v1").code, 404);
    let all_in_one = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList";
    let core = node.get_as("/api", all_in_one).json();
    assert_eq!(core["items"][0]["versions"][0]["version"], "v1");
    let named = node.get_as("/apis", all_in_one).json();
    let count = |value: &serde_json::Value| value.as_array().map_or(0, Vec::len);
    assert_eq!(count(&named["items"]), count(&groups["groups"]));
    assert_eq!(node.get("/readyz").text(), "ok");
    assert_eq!(
        node.get("/livez?verbose").text(),
        "[+]ping ok\n[+]node ok\nlivez check passed\n"
    );
    assert_eq!(node.get("/healthz/nothing").code, 404);
}

#[test]
fn images_are_listed_and_pulled_with_progress() {
    let node = Node::start();
    assert_eq!(
        node.get("/lowtide/v1/images").json()["items"][0]["pinned"],
        true
    );
    let pull = |reference: &str| {
        node.open(&format!("POST /lowtide/v1/images/pull?reference={reference} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")).text()
    };
    let lines = pull("busybox");
    assert!(
        lines.starts_with("{\"type\":\"blob\",\"digest\":\"sha256:cd\",\"doneBytes\":5"),
        "{lines}"
    );
    assert!(
        lines
            .lines()
            .nth(1)
            .expect("end")
            .contains("\"type\":\"done\""),
        "{lines}"
    );
    assert!(pull("nowhere").contains("no route to host"));
}
