//! ROOT without space and ROOT read-only, under running pods.

use crate::isolation::{isolated, run};
use crate::support::{FOREVER, Node, condition, eventually, pod, restarts, uid};

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
