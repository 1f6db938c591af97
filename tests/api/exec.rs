//! Commands over WebSocket.

use std::os::unix::net::UnixStream;
use std::time::Duration;

use async_io::Async;
use async_tungstenite::tungstenite::Message;
use futures_lite::{FutureExt, StreamExt};
use lowtide::net::unix;
use lowtide::net::websocket::{self, ConnectError, Frame, TerminalSize};
use serde_json::{Value, json};

use crate::node::{Node, PATIENCE};

pub fn start() -> Node {
    start_with(lowtide::apiserver::Limits::default())
}

pub fn start_with(limits: lowtide::apiserver::Limits) -> Node {
    let node = Node::with_limits(limits, lowtide::registry::Limits::default());
    let pod = node.pod("web", json!({}));
    node.status(
        &pod,
        json!({"phase": "Running", "containerStatuses": [{"name": "web",
        "containerID": format!("lowtide://{}", "a".repeat(64)), "state": {"running": {}}}]}),
    );
    node
}

fn run(
    node: &Node,
    query: &str,
    protocols: &[&str],
    frames: Vec<Frame>,
) -> (String, String, Value) {
    session(node, &format!("exec?{query}"), protocols, frames)
}

/// Runs a session: sends `frames`, collects output until the Status. Returns stdout, stderr, Status.
fn session(
    node: &Node,
    what: &str,
    protocols: &[&str],
    frames: Vec<Frame>,
) -> (String, String, Value) {
    let path = format!("/api/v1/namespaces/default/pods/web/{what}");
    let session = async {
        let stream: Async<UnixStream> =
            Async::new(unix::connect(&node.socket()).expect("connect")).expect("async");
        let connected = websocket::connect(Box::new(stream), &path, protocols).await;
        let (mut socket, _) = match connected {
            Ok(connected) => connected,
            Err(ConnectError::Refused { body, .. }) => {
                return (
                    String::new(),
                    String::new(),
                    serde_json::from_slice(&body).expect("Status"),
                );
            }
            Err(ConnectError::Broken(error)) => panic!("{error}"),
        };
        for frame in frames {
            socket
                .send(Message::from(frame.encode()))
                .await
                .expect("send");
        }
        let (mut stdout, mut stderr) = (String::new(), String::new());
        loop {
            let message = socket
                .next()
                .await
                .expect("the session ends with a Status")
                .expect("message");
            let Message::Binary(bytes) = message else {
                continue;
            };
            match Frame::decode(&bytes) {
                Some(Frame::Stdout(bytes)) => stdout.push_str(&String::from_utf8_lossy(&bytes)),
                Some(Frame::Stderr(bytes)) => stderr.push_str(&String::from_utf8_lossy(&bytes)),
                Some(Frame::Error(bytes)) => {
                    return (
                        stdout,
                        stderr,
                        serde_json::from_slice(&bytes).expect("Status"),
                    );
                }
                other => panic!("unexpected {other:?}"),
            }
        }
    };
    #[allow(clippy::disallowed_methods, reason = "a test's own time limit")]
    let patience = async {
        async_io::Timer::after(PATIENCE).await;
        panic!("the session took longer than {PATIENCE:?}")
    };
    async_io::block_on(session.or(patience))
}

const V5: &[&str] = &[websocket::V5];

#[test]
fn output_and_exit_code_come_back_on_their_channels() {
    let node = start();
    let query = "stdout=1&stderr=1&command=sh&command=-c&command=echo%20out%3B%20echo%20err%20%3E%262%3B%20exit%203";
    for protocol in [V5, &[websocket::V4]] {
        let (stdout, stderr, status) = run(&node, query, protocol, Vec::new());
        assert_eq!((stdout.as_str(), stderr.as_str()), ("out\n", "err\n"));
        assert_eq!(status["reason"], "NonZeroExitCode");
        assert_eq!(status["details"]["causes"][0]["message"], "3");
    }
    let (_, _, status) = run(&node, "stdout=1&command=true", V5, Vec::new());
    assert_eq!(status["status"], "Success");
}

#[test]
fn protocols_of_old_tell_the_end_as_text_and_bytes_in_base64() {
    let node = start();
    let path = "/api/v1/namespaces/default/pods/web/exec?stdout=1&command=sh&command=-c&command=echo%20out%3B%20exit%203";
    let message = "command terminated with non-zero exit code: exit status 3";
    let texts = |protocol: &'static str| {
        async_io::block_on(async {
            let stream = Async::new(unix::connect(&node.socket()).expect("connect"));
            let stream = Box::new(stream.expect("async"));
            let connected = websocket::connect(stream, path, &[protocol]).await;
            let (mut socket, _) = connected.expect("upgraded");
            let mut all = Vec::new();
            while let Some(Ok(message)) = socket.next().await {
                if message.is_binary() || message.is_text() {
                    all.push(String::from_utf8_lossy(&message.into_data()).into_owned());
                } else if let Message::Close(frame) = message {
                    // Go's clients take an end without a code for a break.
                    let frame = frame.expect("a reason");
                    assert_eq!(u16::from(frame.code), 1000);
                    all.push("closed".to_owned());
                }
            }
            all
        })
    };
    let binary = [
        "\u{1}".to_owned(),
        "\u{1}out\n".to_owned(),
        format!("\u{3}{message}"),
        "closed".to_owned(),
    ];
    assert_eq!(texts("channel.k8s.io"), binary);
    let base64 = texts("v4.base64.channel.k8s.io");
    assert_eq!(base64[..2], ["1".to_owned(), "1b3V0Cg==".to_owned()]);
    assert!(base64[2].starts_with("3ey"), "{}", base64[2]);
}

#[test]
fn half_closed_input_ends_the_command_and_not_its_output() {
    let node = start();
    let frames = vec![Frame::Stdin("a\nb\n".into()), Frame::StdinClosed];
    let query = "stdin=1&stdout=1&stderr=1&command=wc&command=-l";
    let (stdout, _, status) = run(&node, query, V5, frames);
    assert_eq!(stdout.trim(), "2");
    assert_eq!(status["status"], "Success");
}

#[test]
fn large_output_arrives_whole() {
    let node = start();
    let query = "stdout=1&command=head&command=-c&command=3000000&command=/dev/zero";
    let (stdout, _, status) = run(&node, query, V5, Vec::new());
    assert_eq!(stdout.len(), 3_000_000);
    assert_eq!(status["status"], "Success");
}

#[test]
fn a_terminal_has_the_size_that_was_sent() {
    let node = start();
    let size = Frame::Resize(TerminalSize {
        columns: 123,
        rows: 45,
    });
    let frames = vec![size, Frame::Stdin("\n".into())];
    let query = "stdin=1&stdout=1&tty=1&command=sh&command=-c&command=read%20x%3B%20stty%20size%3B%20test%20-t%201";
    let (stdout, stderr, status) = run(&node, query, V5, frames);
    assert!(stdout.contains("45 123"), "{stdout:?}");
    assert_eq!(
        (stderr.as_str(), &status["status"]),
        ("", &json!("Success"))
    );
}

#[test]
fn what_a_command_leaves_behind_does_not_hold_the_session() {
    let node = start();
    let query = "stdout=1&command=sh&command=-c&command=sleep%20300%20%26%20echo%20done";
    let (stdout, _, status) = run(&node, query, V5, Vec::new());
    assert_eq!(
        (stdout.as_str(), &status["status"]),
        ("done\n", &json!("Success"))
    );
    assert!(PATIENCE < Duration::from_secs(300));
}

#[test]
fn a_client_that_is_cut_off_is_told_so_and_one_that_saw_the_end_is_not() {
    let node = start();
    for (query, code) in [("stdout=1&stderr=1", Value::Null), ("stdout=1", json!(500))] {
        let what = format!("attach?{query}");
        let (stdout, _, status) = session(&node, &what, V5, Vec::new());
        assert_eq!((stdout.as_str(), &status["code"]), ("ready\n", &code));
        let cut = status["message"]
            .as_str()
            .unwrap_or_default()
            .contains("not read for too long");
        assert_eq!(cut, code != Value::Null, "{status}");
    }
}

#[test]
fn what_cannot_run_is_said_on_the_error_channel_or_refused() {
    let node = start();
    let (_, _, status) = run(&node, "stdout=1&command=missing", V5, Vec::new());
    assert!(
        status["message"]
            .as_str()
            .expect("message")
            .contains("executable file not found")
    );
    let table = [
        ("stdout=1", V5, "you must specify at least 1 command"),
        (
            "command=true",
            V5,
            "you must specify at least 1 of stdin, stdout, stderr",
        ),
        (
            "stdout=1&command=true&container=x",
            V5,
            "container x is not valid",
        ),
        (
            "stdout=1&command=true",
            &["v6.example"],
            "no common protocol",
        ),
    ];
    for (query, protocols, message) in table {
        let (_, _, status) = run(&node, query, protocols, Vec::new());
        let text = status["message"].as_str().expect("message");
        assert!(text.contains(message), "{query}: {text}");
    }
    let attach = node.get("/api/v1/namespaces/default/pods/web/attach?stdout=1");
    assert_eq!(attach.code, 400);
    let plain = node.get("/api/v1/namespaces/default/pods/web/exec?stdout=1&command=true");
    assert_eq!(plain.code, 400);
}
