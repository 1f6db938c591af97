//! Verbs that write.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use crate::ctl::{Ctl, pod, with_node};

const MAP: &str =
    "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: m, namespace: default}\ndata: {a: '1'}\n";

#[test]
fn apply_and_diff_on_either_side() {
    with_node(|place| {
        let ctl = Ctl::started(place);
        assert_eq!(
            ctl.fed_ok(MAP, &["apply", "-f", "-"]),
            "configmap/m created\n"
        );
        assert_eq!(
            ctl.fed_ok(MAP, &["apply", "-f", "-"]),
            "configmap/m unchanged\n"
        );
        let changed = MAP.replace("'1'", "'2'");
        let diff = ctl.fed(&changed, &["diff", "-f", "-"]);
        let text = String::from_utf8_lossy(&diff.stdout);
        assert_eq!(
            diff.status.code(),
            Some(1),
            "{}",
            String::from_utf8_lossy(&diff.stderr)
        );
        assert!(text.contains("-  a: \"1\"\n+  a: \"2\"\n"), "{text}");
        assert_eq!(
            ctl.fed_ok(&changed, &["apply", "-f", "-"]),
            "configmap/m configured\n"
        );
        let value = "-o=jsonpath={.data}";
        assert_eq!(ctl.ok(&["get", "cm", "m", value]), r#"{"a":"2"}"#);
        applies_by_the_server(&ctl);
        fields_are_checked(&ctl);
        ctl.finish();
    });
}

fn applies_by_the_server(ctl: &Ctl) {
    let other = MAP.replace("name: m,", "name: s,");
    let server = ["apply", "--server-side", "-f", "-"];
    assert_eq!(
        ctl.fed_ok(&other, &server),
        "configmap/s serverside-applied\n"
    );
    let stranger = ["apply", "--server-side", "--field-manager=x", "-f", "-"];
    let conflict = ctl.fed(&other.replace("'1'", "'3'"), &stranger);
    let why = String::from_utf8_lossy(&conflict.stderr);
    assert!(why.contains("conflict with \"kubectl\": .data.a"), "{why}");
    let force = [
        "apply",
        "--server-side",
        "--field-manager=x",
        "--force-conflicts",
        "-f",
        "-",
    ];
    assert_eq!(
        ctl.fed_ok(&other.replace("'1'", "'3'"), &force),
        "configmap/s serverside-applied\n"
    );
}

fn fields_are_checked(ctl: &Ctl) {
    let typo = MAP.replace("\ndata:", "\ndota:");
    let refused = ctl.fed(&typo, &["create", "-f", "-"]);
    let why = String::from_utf8_lossy(&refused.stderr);
    assert!(
        why.contains("strict decoding error: unknown field \"dota\""),
        "{why}"
    );
    let (_, errors) = {
        let output = ctl.fed(
            &typo.replace("name: m", "name: w"),
            &["create", "--validate=warn", "-f", "-"],
        );
        assert!(output.status.success());
        (
            output.stdout,
            String::from_utf8_lossy(&output.stderr).into_owned(),
        )
    };
    assert_eq!(errors, "Warning: unknown field \"dota\"\n");
    let dry = ["apply", "--dry-run=server", "-f", "-"];
    let third = MAP.replace("name: m,", "name: d,");
    assert_eq!(
        ctl.fed_ok(&third, &dry),
        "configmap/d created (server dry run)\n"
    );
    ctl.fails(&["get", "cm", "d"]);
}

#[test]
fn objects_are_changed_in_place() {
    with_node(|place| {
        let ctl = Ctl::started(place);
        assert_eq!(
            ctl.ok(&["create", "configmap", "m", "--from-literal=a=1"]),
            "configmap/m created\n"
        );
        let merge = [
            "patch",
            "cm",
            "m",
            "--type=merge",
            "-p",
            r#"{"data":{"b":"2"}}"#,
        ];
        assert_eq!(ctl.ok(&merge), "configmap/m patched\n");
        let json = r#"[{"op":"replace","path":"/data/a","value":"3"}]"#;
        assert_eq!(
            ctl.ok(&["patch", "cm", "m", "--type=json", "-p", json]),
            "configmap/m patched\n"
        );
        let strategic = ["patch", "cm", "m", "-p", r#"{"data":{"b":null}}"#];
        assert_eq!(ctl.ok(&strategic), "configmap/m patched\n");
        let nothing = ["patch", "cm", "m", "-p", "{}"];
        assert_eq!(ctl.ok(&nothing), "configmap/m patched (no change)\n");
        assert_eq!(
            ctl.ok(&["label", "cm", "m", "tier=x"]),
            "configmap/m labeled\n"
        );
        assert_eq!(
            ctl.ok(&["annotate", "cm", "m", "why=this"]),
            "configmap/m annotated\n"
        );
        let (_, why) = ctl.fails(&["label", "cm", "m", "tier=y"]);
        assert!(why.contains("already has a value (x)"), "{why}");
        assert_eq!(
            ctl.ok(&["get", "cm", "-l", "tier=x", "-o", "name"]),
            "configmap/m\n"
        );
        let shown = "-o=jsonpath={.data.a} {.metadata.annotations.why}";
        assert_eq!(ctl.ok(&["get", "cm", "m", shown]), "3 this");

        let editor = place.join("editor");
        fs::write(&editor, "#!/bin/sh\nsed -i 's/a: \"3\"/a: \"4\"/' \"$1\"\n").unwrap();
        fs::set_permissions(&editor, fs::Permissions::from_mode(0o755)).unwrap();
        let mut edit = ctl.command(&["edit", "cm", "m"]);
        let output = edit
            .env("KUBE_EDITOR", &editor)
            .output()
            .expect("kubectl runs");
        let text = String::from_utf8_lossy(&output.stdout);
        assert_eq!(
            text,
            "configmap/m edited\n",
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );

        let replaced = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: m}\ndata: {z: '9'}\n";
        assert_eq!(
            ctl.fed_ok(replaced, &["replace", "-f", "-"]),
            "configmap/m replaced\n"
        );
        assert_eq!(
            ctl.ok(&["get", "cm", "m", "-o=jsonpath={.data}"]),
            r#"{"z":"9"}"#
        );
        let deleted = "configmap \"m\" deleted from default namespace\n";
        assert_eq!(ctl.ok(&["delete", "cm", "m"]), deleted);
        let gone = ["delete", "cm", "m", "--ignore-not-found"];
        assert_eq!(ctl.ok(&gone), "");
        ctl.finish();
    });
}

#[test]
fn pods_come_and_go() {
    with_node(|place| {
        let ctl = Ctl::started(place);
        let image = crate::support::IMAGE;
        let run = [
            "run",
            "r",
            &format!("--image={image}"),
            "--image-pull-policy=Never",
            "--",
            "sleep",
            "1000",
        ];
        assert_eq!(ctl.ok(&run), "pod/r created\n");
        let wait = ["wait", "--for=condition=Ready", "pod/r", "--timeout=60s"];
        assert_eq!(ctl.ok(&wait), "pod/r condition met\n");
        let phase = [
            "wait",
            "--for=jsonpath={.status.phase}=Running",
            "pod/r",
            "--timeout=60s",
        ];
        assert_eq!(ctl.ok(&phase), "pod/r condition met\n");
        let (_, why) = ctl.fails(&["create", "-f", "/dev/null"]);
        assert!(why.contains("no objects passed to create"), "{why}");
        let again = ctl.fed(&pod("r"), &["create", "-f", "-"]);
        let why = String::from_utf8_lossy(&again.stderr);
        assert!(
            why.contains("(AlreadyExists)") && why.contains("pods \"r\" already exists"),
            "{why}"
        );
        let deleted = ctl.ok(&["delete", "pod", "r", "--grace-period=1"]);
        assert_eq!(deleted, "pod \"r\" deleted from default namespace\n");
        ctl.fails(&["get", "pod", "r"]);
        ctl.pod("a");
        ctl.pod("b");
        let all = ctl.ok(&["delete", "pods", "--all", "--grace-period=1"]);
        assert_eq!(all.lines().count(), 2, "{all}");
        assert_eq!(
            ctl.ok_with_errors(&["get", "pods"]).1,
            "No resources found in default namespace.\n"
        );
        ctl.finish();
    });
}

#[test]
fn other_kinds_are_made_by_command() {
    with_node(|place| {
        let ctl = Ctl::started(place);
        let table: [(&[&str], &str); 6] = [
            (&["create", "namespace", "shop"], "namespace/shop created\n"),
            (
                &["create", "secret", "generic", "s", "--from-literal=k=v"],
                "secret/s created\n",
            ),
            (
                &["create", "serviceaccount", "robot"],
                "serviceaccount/robot created\n",
            ),
            (
                &["create", "quota", "q", "--hard=pods=5"],
                "resourcequota/q created\n",
            ),
            (
                &["create", "service", "clusterip", "svc", "--tcp=80:8080"],
                "service/svc created\n",
            ),
            (
                &["create", "priorityclass", "high", "--value=1000"],
                "priorityclass.scheduling.k8s.io/high created\n",
            ),
        ];
        for (arguments, said) in table {
            assert_eq!(ctl.ok(arguments), said);
        }
        let listed = ctl.ok(&["get", "secret,sa,quota,svc,pc", "-o", "name"]);
        for name in [
            "secret/s",
            "serviceaccount/robot",
            "resourcequota/q",
            "service/svc",
        ] {
            assert!(listed.contains(name), "{name}: {listed}");
        }
        let quota = ctl.ok(&["describe", "quota", "q"]);
        assert!(quota.contains("pods"), "{quota}");
        let token = ctl.ok(&["create", "token", "default"]);
        assert_eq!(token.matches('.').count(), 2, "{token}");
        ctl.finish();
    });
}
