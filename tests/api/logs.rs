//! The log subresource on real files.

use std::fs;
use std::path::PathBuf;

use async_io::Async;
use futures_lite::StreamExt;
use lowtide::net::unix;
use lowtide::net::websocket::{self, Message};
use serde_json::{Value, json};

use crate::node::Node;

fn running(count: u64) -> Value {
    json!({"phase": "Running", "containerStatuses": [{"name": "web", "ready": true,
        "restartCount": count, "state": {"running": {}}, "lastState": {"terminated": {"exitCode": 1}}}]})
}

fn log_file(node: &Node, pod: &Value, attempt: u64) -> PathBuf {
    let uid = pod["metadata"]["uid"].as_str().expect("uid");
    let directory = node
        .directory
        .path()
        .join(format!("logs/default_web_{uid}/web"));
    fs::create_dir_all(&directory).expect("make log directory");
    directory.join(format!("{attempt}.log"))
}

fn record(second: u32, text: &str) -> String {
    format!("2026-01-01T00:00:{second:02}.000000000Z stdout F {text}\n")
}

fn append(path: &PathBuf, text: &str) {
    use std::io::Write;
    let mut file = fs::OpenOptions::new()
        .append(true)
        .create(true)
        .open(path)
        .expect("open log");
    file.write_all(text.as_bytes()).expect("write log");
}

const LOG: &str = "/api/v1/namespaces/default/pods/web/log";

#[test]
fn a_log_is_cut_as_asked() {
    let node = Node::start();
    let pod = node.pod("web", json!({}));
    node.status(&pod, running(1));
    for (attempt, text) in [(0, "before"), (1, "now")] {
        let lines: String = (1..=3).map(|n| record(n, &format!("{text} {n}"))).collect();
        append(&log_file(&node, &pod, attempt), &lines);
    }
    let table = [
        ("", "now 1\nnow 2\nnow 3\n"),
        ("?previous=true", "before 1\nbefore 2\nbefore 3\n"),
        ("?tailLines=1", "now 3\n"),
        ("?tailLines=0", ""),
        ("?limitBytes=7", "now 1\nn"),
        ("?sinceTime=2026-01-01T00:00:03Z", "now 3\n"),
        (
            "?tailLines=1&timestamps=true",
            "2026-01-01T00:00:03.000000000Z now 3\n",
        ),
        ("?container=web&tailLines=1", "now 3\n"),
    ];
    for (query, expected) in table {
        let answer = node.get(&format!("{LOG}{query}"));
        assert_eq!(answer.code, 200, "{query}");
        assert_eq!(answer.text(), expected, "{query}");
    }
}

#[test]
fn a_log_that_cannot_be_is_refused_in_upstreams_words() {
    let node = Node::start();
    node.pod("web", json!({}));
    let table = [
        (
            "",
            400,
            "container \"web\" in pod \"web\" is waiting to start: ContainerCreating",
        ),
        (
            "?previous=1",
            400,
            "previous terminated container \"web\" in pod \"web\" not found",
        ),
        ("?container=x", 400, "container x is not valid for pod web"),
        ("?sinceSeconds=0", 422, "must be greater than 0"),
        (
            "?sinceSeconds=1&sinceTime=2026-01-01T00:00:00Z",
            422,
            "at most one of",
        ),
        ("?tailLines=-1", 400, "invalid tailLines"),
    ];
    for (query, code, message) in table {
        let answer = node.get(&format!("{LOG}{query}"));
        assert_eq!(answer.code, code, "{query}");
        let text = answer.json()["message"]
            .as_str()
            .expect("message")
            .to_owned();
        assert!(text.contains(message), "{query}: {text}");
    }
}

#[test]
fn a_followed_log_survives_rotation_and_ends_with_its_container() {
    let node = Node::start();
    let pod = node.pod("web", json!({}));
    node.status(&pod, running(0));
    let path = log_file(&node, &pod, 0);
    append(&path, &record(1, "one"));
    let mut answer = node.get(&format!("{LOG}?follow=true"));
    assert_eq!(answer.chunk().as_deref(), Some("one\n"));
    append(&path, &record(2, "two"));
    assert_eq!(answer.chunk().as_deref(), Some("two\n"));
    fs::rename(&path, path.with_extension("log.20260101-000000")).expect("rotate");
    append(&path, &record(3, "three"));
    assert_eq!(answer.chunk().as_deref(), Some("three\n"));
    append(&path, &record(4, "four"));
    let ended = json!({"phase": "Succeeded", "containerStatuses": [{"name": "web",
        "restartCount": 0, "state": {"terminated": {"exitCode": 0}}}]});
    node.status(&pod, ended);
    assert_eq!(answer.chunk().as_deref(), Some("four\n"));
    assert_eq!(answer.chunk(), None);
}

#[test]
fn rotated_files_are_not_part_of_an_instances_log() {
    let node = Node::start();
    let pod = node.pod("web", json!({}));
    node.status(&pod, running(1));
    for attempt in [0, 1] {
        let path = log_file(&node, &pod, attempt);
        append(&path, &record(1, "rotated away"));
        let rotated = path.with_extension("log.20260101-000000");
        fs::rename(&path, rotated).expect("rotate");
        append(&path, &record(2, &format!("left of {attempt}")));
    }
    let table = [
        ("?previous=true", "left of 0\n"),
        ("?previous=true&follow=true", "left of 0\n"),
        ("?tailLines=5", "left of 1\n"),
        ("", "left of 1\n"),
    ];
    for (query, expected) in table {
        let answer = node.get(&format!("{LOG}{query}"));
        assert_eq!(answer.text(), expected, "{query}");
    }
}

#[test]
fn a_followed_log_ends_when_its_container_has_restarted_already() {
    let node = Node::start();
    let pod = node.pod("web", json!({}));
    node.status(&pod, running(0));
    append(&log_file(&node, &pod, 0), &record(1, "first"));
    let mut answer = node.get(&format!("{LOG}?follow=true"));
    assert_eq!(answer.chunk().as_deref(), Some("first\n"));
    node.status(&pod, running(1));
    assert_eq!(answer.chunk(), None);
}

/// The suite of node conformance reads logs this way.
#[test]
fn a_log_comes_as_messages_of_a_web_socket() {
    let node = Node::start();
    let pod = node.pod("web", json!({}));
    node.status(&pod, running(0));
    append(&log_file(&node, &pod, 0), &record(1, "said"));
    let read = |protocol: &'static str| {
        async_io::block_on(async {
            let stream = Async::new(unix::connect(&node.socket()).expect("connect"));
            let stream = Box::new(stream.expect("async"));
            let connected = websocket::connect(stream, LOG, &[protocol]).await;
            let (mut socket, agreed) = connected.expect("upgraded");
            assert_eq!(agreed, protocol);
            let mut messages = Vec::new();
            while let Some(Ok(message)) = socket.next().await {
                messages.push(message);
            }
            messages
        })
    };
    let closed = Message::Close(Some(websocket::goodbye()));
    let binary = [
        Message::binary(""),
        Message::binary("said\n"),
        closed.clone(),
    ];
    assert_eq!(read("binary.k8s.io"), binary);
    let base64 = [Message::text(""), Message::text("c2FpZAo="), closed];
    assert_eq!(read("base64.binary.k8s.io"), base64);
}
