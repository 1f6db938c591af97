//! Secrets of a real node: keys from a file, rotated while pods use them; nothing in clear on disk.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use crate::isolation::{isolated, run};
use crate::support::{FOREVER, Node, eventually, pids_of, pod, signal};

/// Value, as it must not be found; the first is long enough to be found in base64 too.
const MARKER: &str = "Qv9-marker-of-a-secret-value";
const CHANGED: &str = "Rw3-marker-of-the-next-value";

/// Two keys: 32 bytes of 1, and of 2.
fn write_keys(path: &Path, keys: &[u8]) {
    let line = |key: &u8| match key {
        1 => format!("{}AQE=\n", "AQEB".repeat(10)),
        _ => format!("{}AgI=\n", "AgIC".repeat(10)),
    };
    fs::write(path, keys.iter().map(line).collect::<String>()).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o600)).unwrap();
}

fn secret(value: &str) -> String {
    format!("apiVersion: v1\nkind: Secret\nmetadata: {{name: s}}\nstringData: {{word: {value}}}\n")
}

/// Whether a file of ROOT's own file system holds the value, as text or in base64.
fn on_disk(node: &Node, value: &str) -> String {
    let script = "b=$(printf %s \"$2\" | base64 | cut -c1-32)
        find \"$1\" -xdev -type f -exec grep -laF -e \"$2\" -e \"$b\" {} +; true";
    run(
        "sh",
        &["-c", script, "sh", node.root.to_str().unwrap(), value],
    )
}

#[test]
fn keys_are_rotated_under_running_pods_and_no_disk_shows_a_secret() {
    isolated(|place| {
        let keys = place.join("keys");
        write_keys(&keys, &[1]);
        let mut node = Node::new(place).flag(&format!("--encryption-key-file={}", keys.display()));
        node.start();
        let file = place.join("secret.yaml");
        let apply = |node: &Node, value: &str| {
            fs::write(&file, secret(value)).unwrap();
            node.ok(&["apply", "-f", file.to_str().unwrap()])
        };
        assert_eq!(apply(&node, MARKER), "secret/s serverside-applied\n");
        let more = "  volumes:\n  - {name: v, secret: {secretName: s}}";
        let container = "    volumeMounts: [{name: v, mountPath: /s}]\n    \
                         env: [{name: WORD, valueFrom: {secretKeyRef: {name: s, key: word}}}]";
        node.manifest("p.yaml", &pod("p", FOREVER, container, more));
        node.up("p");
        assert_eq!(
            node.sh("p", "cat /s/word; echo $WORD"),
            format!("{MARKER}{MARKER}\n")
        );

        write_keys(&keys, &[2, 1]);
        for pid in pids_of(" run --root-dir") {
            signal(pid, "HUP");
        }
        eventually("the secret is sealed anew", || {
            node.log()
                .contains("1 stored secrets lie under the present key")
        });
        apply(&node, CHANGED);
        eventually("the volume follows", || {
            node.sh("p", "cat /s/word") == CHANGED
        });
        node.kill();
        write_keys(&keys, &[2]);
        node.start();
        let shown = node.ok(&["get", "secret", "s", "-o", "yaml"]);
        assert!(
            shown.contains("word: UnczLW1hcmtlci1vZi10aGUtbmV4dC12YWx1ZQ=="),
            "{shown}"
        );
        for value in [MARKER, CHANGED] {
            assert_eq!(on_disk(&node, value), "", "{value}");
        }
        assert_eq!(
            node.ok(&["delete", "secret", "s"]),
            "secret \"s\" deleted from default namespace\n"
        );
        assert_eq!(on_disk(&node, CHANGED), "");
        node.finish();
    });
}
