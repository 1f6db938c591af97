//! Watches, and what slow or rude clients may do.

use std::io::{Read, Write};
use std::time::Duration;

use lowtide::apiserver::Limits;
use lowtide::net::serve;
use lowtide::object::{Key, Kind, Origin, Source};
use lowtide::registry::{self, Deletion, Incoming};
use serde_json::{Value, json};

use crate::node::{Answer, Node};

fn kinds(events: &[Value]) -> Vec<(String, String)> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    events
        .iter()
        .map(|e| (text(&e["type"]), text(&e["object"]["metadata"]["name"])))
        .collect()
}

fn pair(kind: &str, name: &str) -> (String, String) {
    (kind.to_owned(), name.to_owned())
}

#[test]
fn a_watch_without_a_version_begins_with_what_is_there() {
    let node = Node::start();
    node.pod("web", json!({}));
    let mut watch = node.get("/api/v1/pods?watch=1");
    assert_eq!(kinds(&watch.events()), [pair("ADDED", "web")]);
    let pod = node.pod("db", json!({}));
    assert_eq!(kinds(&watch.events()), [pair("ADDED", "db")]);
    node.status(&pod, json!({"phase": "Running"}));
    assert_eq!(kinds(&watch.events()), [pair("MODIFIED", "db")]);
}

#[test]
fn a_watch_goes_on_from_a_list() {
    let node = Node::start();
    node.pod("web", json!({}));
    let version = node.get("/api/v1/pods").json()["metadata"]["resourceVersion"]
        .as_str()
        .expect("version")
        .to_owned();
    node.pod("db", json!({}));
    let mut watch = node.get(&format!(
        "/api/v1/pods?watch=true&resourceVersion={version}"
    ));
    assert_eq!(kinds(&watch.events()), [pair("ADDED", "db")]);
}

#[test]
fn an_object_enters_and_leaves_a_selector() {
    let node = Node::start();
    let web = node.pod("web", json!({}));
    let mut watch = node.get("/api/v1/pods?watch=1&fieldSelector=status.phase%3DRunning");
    node.status(&web, json!({"phase": "Running"}));
    assert_eq!(kinds(&watch.events()), [pair("ADDED", "web")]);
    node.status(&web, json!({"phase": "Running", "podIP": "10.0.0.1"}));
    assert_eq!(kinds(&watch.events()), [pair("MODIFIED", "web")]);
    node.status(&web, json!({"phase": "Succeeded"}));
    assert_eq!(kinds(&watch.events()), [pair("DELETED", "web")]);
}

#[test]
fn a_deletion_is_told() {
    let node = Node::start();
    let body = json!({"apiVersion": "v1", "kind": "ConfigMap",
        "metadata": {"name": "c", "namespace": "default"}, "data": {"a": "b"}});
    node.create(Kind::ConfigMap, "c", body);
    let mut watch = node.get("/api/v1/namespaces/default/configmaps/c?watch=1");
    assert_eq!(kinds(&watch.events()), [pair("ADDED", "c")]);
    node.node(|registry| {
        Box::pin(async move {
            registry
                .replace(Source::Node, Vec::new())
                .await
                .expect("replace");
        })
    });
    assert_eq!(kinds(&watch.events()), [pair("DELETED", "c")]);
}

#[test]
fn initial_events_end_with_a_marked_bookmark() {
    let node = Node::start();
    node.pod("web", json!({}));
    let query = "watch=true&sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true";
    let mut watch = node.get(&format!("/api/v1/pods?{query}&resourceVersion="));
    let events = watch.events();
    assert_eq!(kinds(&events), [pair("ADDED", "web"), pair("BOOKMARK", "")]);
    let metadata = &events[1]["object"]["metadata"];
    assert_eq!(metadata["annotations"]["k8s.io/initial-events-end"], "true");
    for query in [
        "watch=1&sendInitialEvents=true",
        "watch=1&resourceVersionMatch=NotOlderThan",
    ] {
        assert_eq!(
            node.get(&format!("/api/v1/pods?{query}")).code,
            422,
            "{query}"
        );
    }
}

#[test]
fn a_watch_ends_cleanly_with_a_bookmark_of_the_newest_version() {
    let node = Node::start();
    let mut watch = node.get("/api/v1/events?watch=1&timeoutSeconds=1&allowWatchBookmarks=true");
    node.pod("web", json!({}));
    let version = node.get("/api/v1/pods").json()["metadata"]["resourceVersion"].clone();
    let events = watch.events();
    assert_eq!(kinds(&events), [pair("BOOKMARK", "")]);
    assert_eq!(events[0]["object"]["metadata"]["resourceVersion"], version);
    assert_eq!(watch.chunk(), None);
}

#[test]
fn a_version_that_fell_off_history_is_gone() {
    let limits = registry::Limits {
        history_changes: 4,
        ..registry::Limits::default()
    };
    let node = Node::with_limits(Limits::default(), limits);
    let pod = node.pod("web", json!({}));
    let first = pod["metadata"]["resourceVersion"]
        .as_str()
        .expect("version")
        .to_owned();
    for index in 0..8 {
        node.status(
            &pod,
            json!({"phase": "Running", "podIP": format!("10.0.0.{index}")}),
        );
    }
    let watch = "/api/v1/pods?watch=1&resourceVersion";
    for version in [first.as_str(), "9223372036854775807"] {
        let mut answer = node.get(&format!("{watch}={version}"));
        assert_eq!(answer.code, 200, "told in the stream");
        let events = answer.events();
        assert_eq!(events[0]["type"], "ERROR");
        assert_eq!(events[0]["object"]["reason"], "Expired");
        assert_eq!(answer.chunk(), None, "and that is all");
    }
    let exact = format!("/api/v1/pods?resourceVersion={first}&resourceVersionMatch=Exact");
    let answer = node.get(&exact);
    assert_eq!(
        (answer.code, &answer.json()["reason"]),
        (410, &json!("Expired"))
    );
}

#[test]
fn a_bookmark_has_the_form_of_the_other_events() {
    let node = Node::start();
    node.pod("web", json!({}));
    let query = "watch=true&sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true";
    let path = format!("/api/v1/pods?{query}");
    let metadata_only = "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1";
    let events = node.get_as(&path, metadata_only).events();
    assert_eq!(kinds(&events), [pair("ADDED", "web"), pair("BOOKMARK", "")]);
    for event in &events {
        let object = &event["object"];
        assert_eq!(
            (&object["kind"], &object["apiVersion"]),
            (&json!("PartialObjectMetadata"), &json!("meta.k8s.io/v1"))
        );
    }
    let without =
        "watch=true&sendInitialEvents=true&resourceVersionMatch=NotOlderThan&timeoutSeconds=1";
    let mut watch = node.get(&format!("/api/v1/pods?{without}"));
    assert_eq!(kinds(&watch.events()), [pair("ADDED", "web")]);
    assert_eq!(
        watch.chunk(),
        None,
        "no end is marked for who takes no bookmarks"
    );
}

#[test]
fn a_watch_that_is_not_read_is_told_or_dropped_and_others_are_served() {
    let limits = registry::Limits {
        history_changes: 16,
        ..registry::Limits::default()
    };
    let node = Node::with_limits(Limits::default(), limits);
    let pod = node.pod("web", json!({}));
    let mut watch = node.get("/api/v1/pods?watch=1");
    let big = "x".repeat(64 << 10);
    for index in 0..64 {
        node.status(
            &pod,
            json!({"phase": "Running", "message": format!("{index}{big}")}),
        );
    }
    assert_eq!(node.get("/version").code, 200);
    let mut text = String::new();
    while let Some(chunk) = watch.chunk() {
        text.push_str(&chunk);
    }
    let last = text.lines().last().expect("events");
    assert!(
        last.starts_with("{\"type\":\"ERROR\""),
        "{}",
        &last[..80.min(last.len())]
    );
    assert!(last.contains("\"code\":410"));
}

#[test]
fn more_watches_than_the_bound_are_refused() {
    let limits = Limits {
        streams: 2,
        ..Limits::default()
    };
    let node = Node::with_limits(limits, registry::Limits::default());
    node.pod("web", json!({}));
    let mut open: Vec<Answer> = (0..2).map(|_| node.get("/api/v1/pods?watch=1")).collect();
    assert_eq!(open[1].events().len(), 1);
    let refused = node.get("/api/v1/pods?watch=1");
    assert_eq!(refused.code, 429);
    assert!(refused.head.to_ascii_lowercase().contains("retry-after: 1"));
    assert_eq!(node.get("/api/v1/pods").code, 200, "a list is no watch");
}

#[test]
fn oversized_headers_are_refused() {
    let node = Node::start();
    let long = "x".repeat(80 << 10);
    let answer = node.open(&format!(
        "GET /version HTTP/1.1\r\nHost: x\r\nX-Long: {long}\r\n\r\n"
    ));
    assert_eq!(answer.code, 431);
    let many: String = (0..80).map(|index| format!("X-{index}: y\r\n")).collect();
    let answer = node.open(&format!("GET /version HTTP/1.1\r\nHost: x\r\n{many}\r\n"));
    assert_eq!(answer.code, 431);
}

#[test]
fn a_request_that_never_ends_is_dropped() {
    let http = serve::Limits {
        head_timeout: Duration::from_millis(100),
        idle_timeout: Duration::from_millis(100),
        ..serve::Limits::default()
    };
    let limits = Limits {
        http,
        ..Limits::default()
    };
    let node = Node::with_limits(limits, registry::Limits::default());
    for beginning in ["", "GET /version HT"] {
        let mut stream = node.connect();
        stream.write_all(beginning.as_bytes()).expect("write");
        let mut rest = Vec::new();
        stream.read_to_end(&mut rest).expect("the server closes");
        assert!(rest.is_empty());
    }
    // A quiet watch is no idle connection.
    let mut watch = node.get("/api/v1/pods?watch=1&timeoutSeconds=1");
    assert_eq!(watch.chunk(), None);
}

#[test]
fn a_connection_serves_many_requests() {
    let node = Node::start();
    let mut stream = node.connect();
    for _ in 0..3 {
        stream
            .write_all(b"GET /readyz HTTP/1.1\r\nHost: x\r\n\r\n")
            .expect("write");
        let mut answer = Answer::read(stream.try_clone().expect("clone"));
        let mut body = [0; 2];
        answer.body.read_exact(&mut body).expect("body");
        assert_eq!(&body, b"ok");
    }
}

#[test]
fn what_a_local_object_has_hidden_comes_back_when_that_goes() {
    let node = Node::start();
    let body = json!({"apiVersion": "v1", "kind": "ConfigMap",
        "metadata": {"name": "c", "namespace": "default"}});
    let local = node.create(Kind::ConfigMap, "c", body.clone());
    let mut remote = body;
    remote["metadata"]["uid"] = json!("theirs");
    node.node(|registry| {
        Box::pin(async move {
            let listed = Incoming::Object {
                key: Key {
                    origin: Origin::Remote,
                    ..Key::local(Kind::ConfigMap, "default", "c")
                },
                provenance: None,
                body: remote,
                lines: Default::default(),
            };
            let taken = registry.replace(Source::Remote, vec![listed]).await;
            assert!(taken.expect("a list").problems.is_empty());
        })
    });
    let mut watch = node.get("/api/v1/namespaces/default/configmaps?watch=1");
    let told = |events: Vec<Value>| -> Vec<(Value, Value)> {
        let event = |one: &Value| {
            (
                one["type"].clone(),
                one["object"]["metadata"]["uid"].clone(),
            )
        };
        events.iter().map(event).collect()
    };
    let uid = local["metadata"]["uid"].clone();
    assert_eq!(told(watch.events()), [(json!("ADDED"), uid.clone())]);
    node.node(|registry| {
        Box::pin(async move {
            let key = Key::local(Kind::ConfigMap, "default", "c");
            let deletion = Deletion::default();
            registry
                .delete(Source::Node, key, deletion)
                .await
                .expect("deleted");
        })
    });
    let expected = [(json!("DELETED"), uid), (json!("ADDED"), json!("theirs"))];
    assert_eq!(told(watch.events()), expected);
}
