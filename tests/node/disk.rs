//! ROOT without space and ROOT read-only, under running pods.

use crate::isolation::{isolated, run};
use crate::support::{FOREVER, Node, condition, container, eventually, pod, restarts, uid};

fn on_tmpfs(node: &Node) -> String {
    let root = node.root.display().to_string();
    std::fs::create_dir_all(&node.root).unwrap();
    run(
        "mount",
        &["-t", "tmpfs", "-o", "size=96m,mode=0700", "tmpfs", &root],
    );
    root
}

#[test]
fn a_full_disk_is_told_and_survived() {
    isolated(|place| {
        let mut node = Node::new(place);
        on_tmpfs(&node);
        node.start();
        node.manifest("a.yaml", &pod("p", FOREVER, "", ""));
        let first = node.up("p");
        let filler = node.root.join("filler");
        let _ = std::process::Command::new("dd")
            .args(["if=/dev/zero", "bs=4k", &format!("of={}", filler.display())])
            .output()
            .unwrap();
        node.manifest("b.yaml", &pod("late", FOREVER, "", ""));
        disk_condition(&node, "False");
        let kept = node.up("p");
        assert_eq!((uid(&kept), restarts(&kept, "c")), (uid(&first), 0));
        node.kill();
        node.start();
        let kept = node.up("p");
        assert_eq!((uid(&kept), restarts(&kept, "c")), (uid(&first), 0));
        std::fs::remove_file(filler).unwrap();
        node.up("late");
        disk_condition(&node, "True");
        node.remove_manifest("b.yaml");
        node.gone("late");
        node.finish();
    });
}

/// Waits until the node says whether its disk is in order, in its status and in `describe`.
fn disk_condition(node: &Node, wanted: &str) {
    eventually(&format!("DiskWritable {wanted}"), || {
        let nodes = node.list("nodes");
        let found = nodes
            .first()
            .and_then(|n| condition(n, "lowtide.io/DiskWritable"));
        found == Some(wanted)
    });
    let text = node.ok(&["describe", "node", "n"]);
    assert!(text.contains("DiskWritable"), "{text}");
}

#[test]
fn a_read_only_root_keeps_what_runs() {
    isolated(|place| {
        let mut node = Node::new(place);
        let root = on_tmpfs(&node);
        node.start();
        node.manifest("a.yaml", &pod("p", FOREVER, "", ""));
        let first = node.up("p");
        // The kernel refuses this while the store is open for writing; it does so by itself when
        // a disk breaks.
        node.kill();
        run("mount", &["-o", "remount,bind,ro", &root]);
        node.start();
        disk_condition(&node, "False");
        let kept = node.up("p");
        assert_eq!((uid(&kept), restarts(&kept, "c")), (uid(&first), 0));
        assert_eq!(node.sh("p", "echo in"), "in\n");
        run("mount", &["-o", "remount,bind,rw", &root]);
        disk_condition(&node, "True");
        node.manifest("b.yaml", &pod("late", FOREVER, "", ""));
        node.up("late");
        node.finish();
    });
}

#[test]
fn a_pod_is_gone_though_its_files_cannot_be_removed() {
    isolated(|place| {
        let mut node = Node::new(place);
        let root = on_tmpfs(&node);
        node.start();
        node.manifest("a.yaml", &pod("p", FOREVER, "", ""));
        node.manifest("b.yaml", &pod("away", FOREVER, "", ""));
        let first = uid(&node.up("p"));
        let away = uid(&node.up("away"));
        node.kill();
        run("mount", &["-o", "remount,bind,ro", &root]);
        node.start();
        node.up("p");
        node.manifest("a.yaml", &pod("p", &format!("true; {FOREVER}"), "", ""));
        node.remove_manifest("b.yaml");
        node.gone("away");
        node.event("away", "Warning FilesLeft");
        let second = node.pod_until("p", "no predecessor", |pod| {
            let waiting = &container(pod, "c")["state"]["waiting"];
            uid(pod) != first
                && waiting["reason"].is_string()
                && waiting["reason"] != "WaitingForPredecessor"
        });
        disk_condition(&node, "False");
        // Back under the very same UID it must not start on what is left.
        node.manifest("b.yaml", &pod("away", FOREVER, "", ""));
        node.pod_until("away", "held", |pod| {
            let waiting = &container(pod, "c")["state"]["waiting"];
            uid(pod) == away && waiting["reason"] == "WaitingForCleanup"
        });
        // The mark outlives the agent.
        node.kill();
        node.start();
        node.pod_until("away", "held again", |pod| {
            container(pod, "c")["state"]["waiting"]["reason"] == "WaitingForCleanup"
        });
        run("mount", &["-o", "remount,bind,rw", &root]);
        assert_eq!(uid(&node.up("p")), uid(&second));
        assert_eq!(restarts(&node.up("away"), "c"), 0);
        disk_condition(&node, "True");
        assert!(!node.root.join("pods").join(&first).exists());
        node.finish();
    });
}
