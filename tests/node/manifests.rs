//! What happens to manifests happens to pods: rename in, edit, break, remove, swap, wait, a URL.

use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::sync::{Arc, Mutex};

use crate::isolation::isolated;
use crate::support::{FOREVER, Node, eventually, pod, restarts, uid};

#[test]
fn an_edit_replaces_a_break_keeps_and_a_removal_stops() {
    isolated(|place| {
        let node = Node::started(place);
        node.manifest("a.yaml", &pod("edited", FOREVER, "", ""));
        let first = node.up("edited");
        node.manifest(
            "a.yaml",
            &pod("edited", FOREVER, "    env: [{name: X, value: two}]", ""),
        );
        let second = node.pod_until("edited", "replaced", |pod| {
            uid(pod) != uid(&first) && pod["status"]["phase"] == "Running"
        });
        assert_eq!(node.sh("edited", "echo $X"), "two\n");

        node.manifest(
            "a.yaml",
            "apiVersion: v1\nkind: Pod\nmetadata: {name: edited\nspec: [",
        );
        eventually("the log names the file", || node.log().contains("a.yaml"));
        let described = wait_described(&node, "edited-n", "a.yaml");
        node.event(
            "edited",
            "Warning InvalidManifest running the last good version; ",
        );
        let kept = node.pod("edited").expect("kept");
        assert_eq!(uid(&kept), uid(&second), "{described}");
        assert_eq!(kept["status"]["phase"], "Running");
        let listed = node.ok(&["get", "pods", "-A"]);
        assert!(listed.contains("edited-n"), "{listed}");

        // The same text again as before the break: the very pod goes on.
        node.manifest(
            "a.yaml",
            &pod("edited", FOREVER, "    env: [{name: X, value: two}]", ""),
        );
        eventually("described without the error", || {
            !node
                .ok(&["describe", "pod", "edited-n"])
                .contains("Manifest Problem")
        });
        assert_eq!(uid(&node.up("edited")), uid(&second));
        assert_eq!(restarts(&node.up("edited"), "c"), 0);
        node.remove_manifest("a.yaml");
        node.gone("edited");
        let pods = std::fs::read_dir(node.run.join("pods")).unwrap();
        assert_eq!(pods.count(), 0, "directories left");
        node.finish();
    });
}

fn wait_described(node: &Node, name: &str, part: &str) -> String {
    let mut text = String::new();
    eventually("described", || {
        let output = node.client(&["describe", "pod", name]);
        text = String::from_utf8_lossy(&output.stdout).into_owned();
        text.contains(part)
    });
    text
}

#[test]
fn rejected_manifests_are_shown_and_pods_wait_for_what_they_name() {
    isolated(|place| {
        let node = Node::started(place);
        let long = pod("wrong", FOREVER, "    ports: [{containerPort: 99999}]", "");
        node.manifest("wrong.yaml", &long);
        let from = "    envFrom: [{secretRef: {name: later}}]";
        node.manifest("waits.yaml", &pod("waits", FOREVER, from, ""));
        let volume = "  volumes: [{name: v, configMap: {name: later}}]";
        let mount = "    volumeMounts: [{name: v, mountPath: /v}]";
        node.manifest("mounts.yaml", &pod("mounts", FOREVER, mount, volume));
        let several = format!(
            "{}---\n{}",
            pod("one", FOREVER, "", ""),
            pod("two", FOREVER, "", "")
        );
        node.manifest("several.yaml", &several);
        node.up("one");
        node.up("two");

        eventually("the rejected one is listed", || {
            node.ok(&["get", "pods", "-A"]).contains("wrong")
        });
        let listed = node.ok(&["get", "pods", "-A"]);
        let name = listed
            .split_whitespace()
            .find(|word| word.contains("wrong"))
            .unwrap();
        let text = wait_described(&node, name, "containerPort");
        assert!(text.contains("wrong.yaml"), "{text}");

        node.event("waits", "secret \"later\" not found");
        node.event("mounts", "configmap \"later\" not found");
        let later = "apiVersion: v1\nkind: Secret\nmetadata: {name: later}\nstringData: {WORD: now}\n---\n\
            apiVersion: v1\nkind: ConfigMap\nmetadata: {name: later}\ndata: {k: v}\n";
        node.manifest("later.yaml", later);
        node.up("waits");
        assert_eq!(node.sh("waits", "echo $WORD"), "now\n");
        node.up("mounts");

        node.manifest("wrong.yaml", &pod("wrong", FOREVER, "", ""));
        node.up("wrong");
        node.finish();
    });
}

#[test]
fn two_files_that_swap_names_lose_no_pod() {
    isolated(|place| {
        let node = Node::started(place);
        node.manifest("a.yaml", &pod("left", FOREVER, "", ""));
        node.manifest("b.yaml", &pod("right", FOREVER, "", ""));
        node.up("left");
        node.up("right");
        let (a, b) = (node.manifests.join("a.yaml"), node.manifests.join("b.yaml"));
        let spare = node.place.join("spare");
        std::fs::rename(&a, &spare).unwrap();
        std::fs::rename(&b, &a).unwrap();
        std::fs::rename(&spare, &b).unwrap();
        node.manifest("c.yaml", &pod("after", FOREVER, "", ""));
        node.up("after");
        for name in ["left", "right"] {
            node.up(name);
        }
        node.finish();
    });
}

#[test]
fn pods_of_a_url_survive_its_outage_and_follow_its_changes() {
    isolated(|place| {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let answer = Arc::new(Mutex::new((200, pod("far", FOREVER, "", ""))));
        let served = answer.clone();
        let asked = Arc::new(Mutex::new(0));
        let count = asked.clone();
        std::thread::spawn(move || {
            for mut stream in listener.incoming().flatten() {
                let mut reader = BufReader::new(stream.try_clone().unwrap());
                let mut line = String::new();
                while reader.read_line(&mut line).is_ok_and(|n| n > 2) {
                    line.clear();
                }
                let (status, body) = served.lock().unwrap().clone();
                let length = body.len();
                let head = format!(
                    "HTTP/1.1 {status} x\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n"
                );
                let _ = stream.write_all(format!("{head}{body}").as_bytes());
                *count.lock().unwrap() += 1;
            }
        });
        let polls = |n: u32| {
            let goal = *asked.lock().unwrap() + n;
            eventually("asked again", || *asked.lock().unwrap() >= goal);
        };
        let node = Node::new(place);
        // The name resolves nowhere: the one who answers is a proxy to the node.
        let node = node.flag("--manifest-url=http://manifests.test/pod");
        let mut node = node.flag("--http-check-frequency=200ms");
        node.variables = vec![("HTTP_PROXY", format!("http://{address}"))];
        node.start();
        let first = node.up("far");
        *answer.lock().unwrap() = (500, "broken".to_owned());
        polls(4);
        *answer.lock().unwrap() = (200, "kind: [".to_owned());
        polls(4);
        let kept = node.up("far");
        assert_eq!((uid(&kept), restarts(&kept, "c")), (uid(&first), 0));
        *answer.lock().unwrap() = (
            200,
            pod("far", FOREVER, "    env: [{name: X, value: new}]", ""),
        );
        node.pod_until("far", "changed", |pod| {
            uid(pod) != uid(&first) && pod["status"]["phase"] == "Running"
        });
        assert_eq!(node.sh("far", "echo $X"), "new\n");
        node.finish();
    });
}
