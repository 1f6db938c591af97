//! Clients that follow a container's own streams.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::AsFd;

use lowtide::os::pipe;
use lowtide::os::terminal::{self, Size};
use lowtide::runtime::shim::client::{Attached, Client};
use lowtide::runtime::shim::wire::{AttachRequest, RunRequest, Stdin, Terminal};
use serde_json::json;

use crate::pod::{Pod, with_pod};

fn reading(pod: &Pod<'_>, name: &str, script: &str, stdin_once: bool) -> RunRequest {
    RunRequest {
        stdin: Stdin::Open,
        stdin_once,
        ..pod.bundle(name, script, |_| {})
    }
}

/// Attaches with input and output; the output's read end.
async fn attach(client: &Client, name: &str) -> (Attached, File) {
    let ends = pipe::pipe().expect("pipe");
    let request = AttachRequest {
        container: name.to_owned(),
        stdin: true,
        stdout: true,
        stderr: false,
    };
    let attached = client.attach(request, &[ends.write.as_fd()]).await;
    (attached.expect("attached"), ends.read.into())
}

/// Reads to the end on a thread, so that the shim's messages are taken meanwhile.
async fn all(mut output: File) -> String {
    blocking::unblock(move || {
        let mut text = String::new();
        output.read_to_string(&mut text).expect("text");
        text
    })
    .await
}

#[test]
fn with_stdin_once_the_input_ends_with_the_session_and_the_output_goes_on() {
    with_pod(async |pod| {
        let (client, _changes) = pod.connect().await;
        let script = "cat; echo end";
        client
            .run(reading(pod, "c.0", script, true))
            .await
            .expect("runs");
        let (attached, output) = attach(&client, "c.0").await;
        let mut input = File::from(attached.input.expect("an input"));
        input.write_all(b"hello\n").expect("type");
        drop(input);
        client.close_input("c.0");
        assert_eq!(all(output).await, "hello\nend\n");
        assert_eq!(pod.exit("c.0").await.code, 0);
        assert_eq!(pod.lines("c.0"), ["hello", "end"]);
    });
}

#[test]
fn an_agent_that_dies_ends_the_session_and_with_it_an_input_that_is_read_once() {
    with_pod(async |pod| {
        let (client, _changes) = pod.connect().await;
        for (name, once) in [("once.0", true), ("open.0", false)] {
            let request = reading(pod, name, "read x || echo end; sleep 1000", once);
            client.run(request).await.expect("runs");
            let (attached, output) = attach(&client, name).await;
            drop((attached, output));
        }
        client.hang_up();
        let (client, _changes) = pod.connect().await;
        pod.until("the end of the input", || {
            (pod.lines("once.0") == ["end"]).then_some(())
        })
        .await;
        // The other still waits for somebody who types.
        assert_eq!(pod.lines("open.0"), [""; 0]);
        let (attached, _output) = attach(&client, "open.0").await;
        assert!(attached.input.is_some());
        let (attached, _output) = attach(&client, "once.0").await;
        assert!(attached.input.is_none() && attached.stdin == Stdin::Closed);
    });
}

#[test]
fn a_slow_reader_gets_every_byte_and_one_that_left_holds_nothing_up() {
    with_pod(async |pod| {
        let (client, _changes) = pod.connect().await;
        let script = "read line; seq 1 60000; read line; seq 1 60000; echo end";
        let request = reading(pod, "loud.0", script, false);
        client.run(request).await.expect("runs");
        let (attached, output) = attach(&client, "loud.0").await;
        let mut input = File::from(attached.input.expect("an input"));
        let (_second, unread) = attach(&client, "loud.0").await;
        input.write_all(b"go\n").expect("type");
        // Longer than the pipe: the container waits for its readers.
        pod.pass(std::time::Duration::from_millis(300)).await;
        drop(unread);
        input.write_all(b"go\n").expect("type");
        let text = all(output).await;
        let half: String = (1..=60000).map(|n| format!("{n}\n")).collect();
        assert!(text == format!("{half}{half}end\n"), "{} bytes", text.len());
        assert_eq!(pod.exit("loud.0").await.code, 0);
        assert_eq!(pod.lines("loud.0").len(), 120_001);
    });
}

#[test]
fn an_attached_terminal_is_typed_into_resized_and_heard() {
    with_pod(async |pod| {
        let (client, _changes) = pod.connect().await;
        let script = "read line; echo got $line; stty size; exit 3";
        let mut request = pod.bundle("tty.0", script, |config| {
            config["process"]["terminal"] = json!(true);
        });
        request.terminal = Terminal::Yes;
        request.stdin = Stdin::Open;
        request.stdin_once = true;
        client.run(request).await.expect("runs");
        let (attached, output) = attach(&client, "tty.0").await;
        let master = attached.terminal.expect("a terminal");
        let size = Size {
            rows: 33,
            columns: 99,
        };
        terminal::resize(&master, size).expect("resize");
        // The session's end is not the end of a terminal.
        client.close_input("tty.0");
        File::from(master).write_all(b"hello\n").expect("type");
        let text = all(output).await;
        assert!(
            text.contains("got hello") && text.contains("33 99"),
            "{text:?}"
        );
        assert_eq!(pod.exit("tty.0").await.code, 3);
    });
}
