//! Server-side apply with a real kubectl: managers, conflicts, force, and the way from client-side
//! apply and back.

use std::fs;
use std::process::Output;

use serde_json::Value;

use crate::isolation::isolated;
use crate::support::Node;
use crate::tls::kubectl;

fn map(name: &str, data: &str) -> String {
    format!("apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: {name}}}\ndata: {data}\n")
}

/// Managers with their operations, in order.
fn managers(object: &Value) -> Vec<String> {
    let entries = object["metadata"]["managedFields"].as_array();
    let entry = |one: &Value| {
        let text = |name: &str| one[name].as_str().unwrap_or_default().to_owned();
        format!("{} {}", text("manager"), text("operation"))
    };
    entries.into_iter().flatten().map(entry).collect()
}

// One story of one registry, told in order.
#[allow(clippy::too_many_lines)]
#[test]
fn kubectl_applies_from_both_sides() {
    isolated(|place| {
        let Some(kubectl) = kubectl() else {
            return println!("skipped: no kubectl; run tests/kubectl or set LOWTIDE_KUBECTL");
        };
        let node = Node::started(place);
        let config = node.root.join("admin.kubeconfig");
        let ask = |arguments: &[&str]| -> Output {
            let mut command = std::process::Command::new(&kubectl);
            command.arg("--kubeconfig").arg(&config).args(arguments);
            command.env("HOME", place).output().expect("kubectl")
        };
        let ok = |arguments: &[&str]| {
            let output = ask(arguments);
            let errors = String::from_utf8_lossy(&output.stderr);
            assert!(output.status.success(), "{arguments:?}: {errors}");
            String::from_utf8_lossy(&output.stdout).into_owned()
        };
        let fails = |arguments: &[&str]| {
            let output = ask(arguments);
            assert!(!output.status.success(), "{arguments:?}");
            String::from_utf8_lossy(&output.stderr).into_owned()
        };
        let file = place.join("map.yaml");
        let path = file.to_str().unwrap();
        let object = |name: &str| -> Value {
            let shown = ["get", "cm", name, "-o", "json", "--show-managed-fields"];
            serde_json::from_str(&ok(&shown)).expect("JSON")
        };

        fs::write(&file, map("c", "{a: '1', b: '1'}")).unwrap();
        assert_eq!(
            ok(&["apply", "--server-side", "-f", path]),
            "configmap/c serverside-applied\n"
        );
        assert_eq!(managers(&object("c")), ["kubectl Apply"]);
        ok(&[
            "patch",
            "cm",
            "c",
            "--field-manager=hand",
            "-p",
            "{\"data\":{\"a\":\"2\"}}",
        ]);
        assert_eq!(managers(&object("c")), ["kubectl Apply", "hand Update"]);
        let refused = fails(&["apply", "--server-side", "-f", path]);
        let told = "Apply failed with 1 conflict: conflict with \"hand\" using v1: .data.a";
        assert!(refused.contains(told), "{refused}");
        let dry = [
            "apply",
            "--server-side",
            "--force-conflicts",
            "--dry-run=server",
            "-f",
            path,
        ];
        ok(&dry);
        assert_eq!(object("c")["data"]["a"], "2", "a dry run changes nothing");
        ok(&["apply", "--server-side", "--force-conflicts", "-f", path]);
        assert_eq!(object("c")["data"]["a"], "1");
        assert_eq!(managers(&object("c")), ["kubectl Apply"]);

        // A list is taken apart, and what is not served is named.
        let two = format!("{}---\n{}", map("e", "{}"), map("f", "{}"));
        let items = two
            .split("---\n")
            .map(|one| one.trim_end().replace('\n', "\n  "));
        let items: Vec<String> = items.map(|one| format!("- {one}\n")).collect();
        fs::write(
            &file,
            format!("apiVersion: v1\nkind: List\nitems:\n{}", items.concat()),
        )
        .unwrap();
        assert_eq!(
            ok(&["apply", "-f", path]),
            "configmap/e created\nconfigmap/f created\n"
        );
        fs::write(
            &file,
            "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: d}\n",
        )
        .unwrap();
        let refused = fails(&["apply", "-f", path]);
        let told = "no matches for kind \"Deployment\" in version \"apps/v1\"";
        assert!(refused.contains(told), "{refused}");
        fs::write(&file, map("c", "{a: '1', b: '1'}")).unwrap();

        // Another manager shares a field; what one gives up stays while the other holds it.
        ok(&["apply", "--server-side", "--field-manager=two", "-f", path]);
        fs::write(&file, map("c", "{b: '1'}")).unwrap();
        ok(&["apply", "--server-side", "-f", path]);
        assert_eq!(object("c")["data"]["a"], "1");
        ok(&["apply", "--server-side", "--field-manager=two", "-f", path]);
        assert_eq!(
            object("c")["data"].get("a"),
            None,
            "nobody holds it any more"
        );

        // From the client's side to the server's.
        fs::write(&file, map("d", "{a: '1', b: '1'}")).unwrap();
        assert_eq!(ok(&["apply", "-f", path]), "configmap/d created\n");
        assert_eq!(managers(&object("d")), ["kubectl-client-side-apply Update"]);
        assert_eq!(ok(&["diff", "-f", path]), "");
        fs::write(&file, map("d", "{a: '2'}")).unwrap();
        let differs = ask(&["diff", "-f", path]);
        let shown = String::from_utf8_lossy(&differs.stdout).into_owned();
        assert_eq!(differs.status.code(), Some(1), "{shown}");
        assert!(
            shown.contains("+  a: \"2\"") && shown.contains("-  b: \"1\""),
            "{shown}"
        );
        ok(&["apply", "--server-side", "-f", path]);
        let migrated = object("d");
        assert_eq!(
            migrated["data"],
            serde_json::json!({"a": "2"}),
            "b was the client's to remove"
        );
        // kubectl keeps the annotation of its own side under a name of its own. Whose second is earlier
        // comes first.
        let both = ["kubectl Apply", "kubectl-last-applied Apply"];
        let mut found = managers(&migrated);
        found.sort();
        assert_eq!(found, both);

        // And back: nothing is left to do, then something is.
        fs::write(&file, map("d", "{a: '3'}")).unwrap();
        assert_eq!(ok(&["apply", "-f", path]), "configmap/d configured\n");
        assert_eq!(object("d")["data"]["a"], "3");
        assert_eq!(ok(&["apply", "-f", path]), "configmap/d unchanged\n");
        node.finish();
    });
}
