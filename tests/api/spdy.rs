//! Commands and attached clients over SPDY, as kube-apiserver and older kubectl ask for them.

use std::os::unix::net::UnixStream;
use std::rc::Rc;

use async_io::Async;
use bytes::Bytes;
use futures_lite::{AsyncReadExt, AsyncWriteExt, FutureExt, future};
use lowtide::net::spdy::{Connection, Headers, Role, Stream};
use lowtide::net::unix;
use lowtide::os::clock::SystemClock;
use lowtide::world::Clock;
use serde_json::{Value, json};

use crate::exec::start;
use crate::node::{Node, PATIENCE};

/// Asks for an upgrade: the status line and headers, and the connection behind them.
pub async fn ask(node: &Node, path: &str, protocols: &[&str]) -> (String, Async<UnixStream>) {
    let stream = unix::connect(&node.socket()).expect("connect");
    let mut stream = Async::new(stream).expect("async");
    let versions: String = protocols
        .iter()
        .map(|protocol| format!("X-Stream-Protocol-Version: {protocol}\r\n"))
        .collect();
    let request = format!(
        "POST {path} HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: SPDY/3.1\r\n\
         {versions}Content-Length: 0\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).await.expect("asked");
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte).await.expect("a head");
        head.push(byte[0]);
    }
    (String::from_utf8(head).expect("text"), stream)
}

/// Runs `work` on an upgraded connection.
pub fn with_connection<T>(
    node: &Node,
    path: &str,
    protocols: &[&str],
    work: impl AsyncFnOnce(&Connection) -> T,
) -> T {
    let session = async {
        let (head, stream) = ask(node, path, protocols).await;
        assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
        let (reader, writer) = futures_lite::io::split(stream);
        let clock: Rc<dyn Clock> = Rc::new(SystemClock::new().expect("clock"));
        let (connection, driver) = Connection::new(reader, writer, Role::Client, clock);
        let driven = async {
            // The server hangs up once all is said; what was heard is still to be looked at.
            let _ = driver.await;
            future::pending().await
        };
        driven.or(work(&connection)).await
    };
    #[allow(clippy::disallowed_methods, reason = "a test's own time limit")]
    let patience = async {
        async_io::Timer::after(PATIENCE).await;
        panic!("the session took longer than {PATIENCE:?}")
    };
    async_io::block_on(session.or(patience))
}

pub async fn text(stream: &Stream) -> String {
    let mut all = Vec::new();
    while let Some(chunk) = stream.next().await {
        all.extend_from_slice(&chunk);
    }
    String::from_utf8(all).expect("text")
}

pub fn open(connection: &Connection, kind: &str) -> Stream {
    let headers = Headers::of(&[("streamtype", kind)]);
    connection.open(headers).expect("opened")
}

const V4: &[&str] = &["v5.channel.k8s.io", "v4.channel.k8s.io", "channel.k8s.io"];

fn path(act: &str, query: &str) -> String {
    format!("/api/v1/namespaces/default/pods/web/{act}?{query}")
}

#[test]
fn output_input_and_exit_code_have_streams_of_their_own() {
    let node = start();
    let command = "command=sh&command=-c&command=cat%3B%20echo%20err%20%3E%262%3B%20exit%203";
    let path = path("exec", &format!("stdin=1&stdout=1&stderr=1&{command}"));
    for (protocols, json) in [(V4, true), (&["channel.k8s.io"], false)] {
        let (out, err, status) = with_connection(&node, &path, protocols, async |connection| {
            let [error, stdin, stdout, stderr] =
                ["error", "stdin", "stdout", "stderr"].map(|kind| open(connection, kind));
            let big = "x".repeat(300_000);
            let typing = async {
                stdin.send(Bytes::from(big.clone())).await.expect("typed");
                stdin.finish().await.expect("ended");
            };
            let ((), (out, err)) =
                future::zip(typing, future::zip(text(&stdout), text(&stderr))).await;
            assert!(out == big, "{} bytes", out.len());
            (out.len(), err, text(&error).await)
        });
        assert_eq!((out, err.as_str()), (300_000, "err\n"));
        if json {
            let status: Value = serde_json::from_str(&status).expect("a Status");
            assert_eq!(status["details"]["causes"][0]["message"], "3");
        } else {
            assert_eq!(
                status,
                "command terminated with non-zero exit code: exit status 3"
            );
        }
    }
}

#[test]
fn a_terminal_has_the_size_of_the_resize_stream() {
    let node = start();
    let query =
        "stdin=1&stdout=1&stderr=1&tty=1&command=sh&command=-c&command=read%20x%3B%20stty%20size";
    let out = with_connection(&node, &path("exec", query), V4, async |connection| {
        let [_error, stdin, stdout, resize] =
            ["error", "stdin", "stdout", "resize"].map(|kind| open(connection, kind));
        let size = Bytes::from_static(b"{\"Width\":123,\"Height\":45}\n");
        resize.send(size).await.expect("sent");
        stdin.send(Bytes::from_static(b"\n")).await.expect("sent");
        text(&stdout).await
    });
    assert!(out.contains("45 123"), "{out:?}");
}

#[test]
fn an_attached_client_types_and_hears_until_the_container_ends() {
    let node = start();
    let query = path("attach", "stdin=1&stdout=1&stderr=1");
    let (out, err, status) = with_connection(&node, &query, V4, async |connection| {
        let [error, stdin, stdout, stderr] =
            ["error", "stdin", "stdout", "stderr"].map(|kind| open(connection, kind));
        assert_eq!(stdout.next().await, Some(Bytes::from_static(b"ready\n")));
        stdin
            .send(Bytes::from_static(b"typed\n"))
            .await
            .expect("typed");
        stdin.finish().await.expect("ended");
        (text(&stdout).await, text(&stderr).await, text(&error).await)
    });
    assert_eq!((out.as_str(), err.as_str()), ("typed\n", "end\n"));
    let status: Value = serde_json::from_str(&status).expect("a Status");
    assert_eq!(status, json!({"metadata": {}, "status": "Success"}));
}

/// The command's death is seen by a file that only its end removes.
#[test]
fn a_client_that_vanishes_ends_the_command() {
    let node = start();
    let pipe = node.directory.path().join("fifo");
    let script = format!("mkfifo {0}; echo on; exec cat > {0}", pipe.display());
    let script: String = script.bytes().map(|byte| format!("%{byte:02x}")).collect();
    let query = format!("stdin=1&stdout=1&command=sh&command=-c&command={script}");
    let path = path("exec", &query);
    with_connection(&node, &path, V4, async |connection| {
        let [_error, _stdin, stdout] =
            ["error", "stdin", "stdout"].map(|kind| open(connection, kind));
        assert_eq!(stdout.next().await, Some(Bytes::from_static(b"on\n")));
    });
    // `cat` ends with its input, and the FIFO's reader sees the end.
    assert_eq!(std::fs::read(&pipe).expect("the writer is gone"), b"");
}

#[test]
fn what_is_refused_leaves_plain_http_behind() {
    let node = start();
    let exec = path("exec", "stdout=1&command=true");
    async_io::block_on(async {
        let (head, mut stream) = ask(&node, &exec, &["v9.example"]).await;
        assert!(head.starts_with("HTTP/1.1 403 "), "{head}");
        let accepted = head
            .to_ascii_lowercase()
            .matches("x-accepted-stream-protocol")
            .count();
        assert_eq!(accepted, 4, "{head}");
        // The next request on the connection is one like every other.
        let request = b"GET /version HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
        stream.write_all(request).await.expect("asked");
        let mut rest = String::new();
        stream.read_to_string(&mut rest).await.expect("answered");
        assert!(rest.contains("HTTP/1.1 200 OK"), "{rest}");
        let (head, _) = ask(&node, &exec, &[]).await;
        assert!(head.starts_with("HTTP/1.1 400 "), "{head}");
    });
}

#[test]
fn sessions_are_bounded_and_idle_ones_are_closed() {
    let limits = lowtide::apiserver::Limits {
        execs: 1,
        stream_idle: std::time::Duration::from_millis(300),
        ..Default::default()
    };
    let node = crate::exec::start_with(limits);
    let exec = path("exec", "stdin=1&stdout=1&command=cat");
    with_connection(&node, &exec, V4, async |connection| {
        let [_error, _stdin, stdout] =
            ["error", "stdin", "stdout"].map(|kind| open(connection, kind));
        let (head, _) = ask(&node, &exec, V4).await;
        assert!(head.starts_with("HTTP/1.1 429 "), "{head}");
        // Nothing moves: the stream ends without an end that was said.
        assert_eq!(stdout.next().await, None);
        assert!(!stdout.is_open());
    });
}
