//! Who comes to a container that runs: attached clients, ephemeral containers.

use std::fs::File;
use std::io::{Read, Write};

use lowtide::runtime::host::AttachStreams;

use crate::node::{Node, container, pod};
use crate::support::isolated;

#[test]
fn what_an_attached_client_types_reaches_the_container_and_its_end_ends_the_input() {
    isolated(
        "guests::what_an_attached_client_types_reaches_the_container_and_its_end_ends_the_input",
        || {
            let node = Node::new("0123abcd", "10.88.0.0/24");
            let config = pod("one");
            node.start_pod(&config);
            let mut main = container(&config, "main", "cat; echo end; echo oops >&2");
            main.stdin = true;
            main.stdin_once = true;
            let id = node.start(&main);
            let streams = AttachStreams {
                stdin: true,
                stdout: true,
                stderr: true,
            };
            let mut session = node
                .wait(async |runtime| runtime.attach(&config.uid, &id, streams).await)
                .expect("attached");
            let mut input = File::from(session.stdin.take().expect("an input"));
            input.write_all(b"hello\n").expect("type");
            drop(input);
            session.close_input();
            let exit = node.exit(&config.uid, &id);
            assert_eq!(exit.code, 0);
            for (end, wanted) in [
                (session.stdout.take(), "hello\nend\n"),
                (session.stderr.take(), "oops\n"),
            ] {
                let mut text = String::new();
                let mut end = File::from(end.expect("a stream"));
                end.read_to_string(&mut text).expect("text");
                assert_eq!(text, wanted);
            }
            let gone = node.wait(async |runtime| runtime.attach(&config.uid, &id, streams).await);
            assert!(gone.is_err());
            node.remove(&config.uid);
        },
    );
}

#[test]
fn an_ephemeral_container_sees_the_processes_of_its_target() {
    isolated(
        "guests::an_ephemeral_container_sees_the_processes_of_its_target",
        || {
            let node = Node::new("0123abcd", "10.88.0.0/24");
            let config = pod("one");
            node.start_pod(&config);
            let target = node.start(&container(&config, "main", "exec sleep 7654"));
            let script = "ps -o args | grep -q '[s]leep 7654'";
            let mut guest = container(&config, "debug", script);
            guest.target = Some(target.clone());
            let seen = node.start(&guest);
            assert_eq!(node.exit(&config.uid, &seen).code, 0);
            let stranger = node.start(&container(&config, "stranger", script));
            assert_eq!(node.exit(&config.uid, &stranger).code, 1);
            node.remove(&config.uid);
        },
    );
}
