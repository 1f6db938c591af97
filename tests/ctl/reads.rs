//! Verbs that read.

use serde_json::json;

use crate::ctl::{Ctl, cells, with_node};
use crate::support::eventually;

#[test]
fn get_prints_as_from_a_cluster() {
    with_node(|place| {
        let ctl = Ctl::started(place);
        ctl.pod("web");
        let pods = ctl.ok(&["get", "pods"]);
        let rows = cells(&pods);
        assert_eq!(rows[0], ["NAME", "READY", "STATUS", "RESTARTS", "AGE"]);
        assert_eq!(rows[1][..4], ["web", "1/1", "Running", "0"]);
        let wide = ctl.ok(&["get", "po", "-A", "-o", "wide"]);
        let rows = cells(&wide);
        let headings = [
            "NAMESPACE",
            "NAME",
            "READY",
            "STATUS",
            "RESTARTS",
            "AGE",
            "IP",
            "NODE",
            "NOMINATED NODE",
            "READINESS GATES",
        ];
        assert_eq!(rows[0], headings);
        assert_eq!(rows[1][7..], ["n", "<none>", "<none>"]);
        let name = ctl.ok(&["get", "pod/web", "-o", "name"]);
        assert_eq!(name, "pod/web\n");
        let path = "-o=jsonpath={.spec.nodeName} {.status.phase}";
        assert_eq!(ctl.ok(&["get", "pod", "web", path]), "n Running");
        let yaml = ctl.ok(&["get", "pod", "web", "-o", "yaml"]);
        assert!(
            yaml.starts_with("apiVersion: v1\nkind: Pod\nmetadata:\n"),
            "{yaml}"
        );
        let columns = "-o=custom-columns=N:.metadata.name,P:.status.phase";
        assert_eq!(
            ctl.ok(&["get", "pods", columns]),
            "N     P\nweb   Running\n"
        );
        let sorted = ctl.ok(&["get", "ns", "--sort-by=.metadata.name", "--no-headers"]);
        assert!(sorted.starts_with("default"), "{sorted}");
        let selected = ctl.ok(&[
            "get",
            "pods",
            "--field-selector=status.phase=Running",
            "-o",
            "name",
        ]);
        assert_eq!(selected, "pod/web\n");
        let (code, why) = ctl.fails(&["get", "pod", "gone"]);
        assert_eq!(
            (code, &*why),
            (1, "Error from server (NotFound): pods \"gone\" not found\n")
        );
        let all = ctl.ok(&["get", "all"]);
        assert!(all.contains("pod/web"), "{all}");
        ctl.finish();
    });
}

#[test]
fn every_kind_has_upstreams_columns() {
    with_node(|place| {
        let ctl = Ctl::started(place);
        let table: [(&str, &[&str]); 12] = [
            ("nodes", &["NAME", "STATUS", "ROLES", "AGE", "VERSION"]),
            ("namespaces", &["NAME", "STATUS", "AGE"]),
            ("configmaps", &["NAME", "DATA", "AGE"]),
            ("secrets", &["NAME", "TYPE", "DATA", "AGE"]),
            ("serviceaccounts", &["NAME", "AGE"]),
            (
                "services",
                &[
                    "NAME",
                    "TYPE",
                    "CLUSTER-IP",
                    "EXTERNAL-IP",
                    "PORT(S)",
                    "AGE",
                ],
            ),
            ("endpoints", &["NAME", "ENDPOINTS", "AGE"]),
            ("limitranges", &["NAME", "CREATED AT"]),
            ("resourcequotas", &["NAME", "REQUEST", "LIMIT", "AGE"]),
            ("leases", &["NAME", "HOLDER", "AGE"]),
            (
                "events",
                &["LAST SEEN", "TYPE", "REASON", "OBJECT", "MESSAGE"],
            ),
            (
                "priorityclasses",
                &["NAME", "VALUE", "GLOBAL-DEFAULT", "AGE", "PREEMPTIONPOLICY"],
            ),
        ];
        let columns = |kind: &str| {
            let accept = "Accept: application/json;as=Table;v=v1;g=meta.k8s.io";
            let root = match kind {
                "leases" => "/apis/coordination.k8s.io/v1",
                "priorityclasses" => "/apis/scheduling.k8s.io/v1",
                _ => "/api/v1",
            };
            let output = std::process::Command::new("curl")
                .args(["--silent", "--unix-socket"])
                .arg(ctl.node.run.join("api.sock"))
                .args(["-H", accept, &format!("http://localhost{root}/{kind}")])
                .output()
                .expect("curl");
            let table: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
            table["columnDefinitions"].clone()
        };
        for (kind, headings) in table {
            let columns = columns(kind);
            let shown = columns
                .as_array()
                .expect(kind)
                .iter()
                .filter(|c| c["priority"] == 0);
            let names: Vec<_> = shown
                .map(|column| column["name"].as_str().unwrap_or_default().to_uppercase())
                .collect();
            assert_eq!(names, headings, "{kind}");
        }
        ctl.finish();
    });
}

#[test]
fn a_watch_follows_and_describe_tells_all() {
    with_node(|place| {
        let ctl = Ctl::started(place);
        let file = place.join("watched");
        let watch = ctl.started_into(&file, &["get", "pods", "-w", "--no-headers"]);
        ctl.pod("web");
        eventually("the watch shows the pod running", || {
            let text = std::fs::read_to_string(&file).unwrap_or_default();
            text.lines()
                .any(|line| line.starts_with("web") && line.contains("Running"))
        });
        drop(watch);
        let text = ctl.until(&["describe", "pod", "web"], |text| text.contains("Started"));
        for part in [
            "Name:             web\n",
            "Node:             n/",
            "Status:           Running",
            "Events:",
        ] {
            assert!(text.contains(part), "{part}: {text}");
        }
        let node = ctl.ok(&["describe", "node", "n"]);
        for part in [
            "Name:               n\n",
            "Non-terminated Pods:",
            "Allocated resources:",
        ] {
            assert!(node.contains(part), "{part}: {node}");
        }
        let events = ctl.ok(&["events", "--for", "pod/web"]);
        assert!(events.contains("Started"), "{events}");
        let events = ctl.ok(&["get", "events.events.k8s.io"]);
        assert!(events.contains("pod/web"), "{events}");
        for kind in ["ns/default", "sa/default"] {
            let text = ctl.ok(&["describe", kind]);
            assert!(text.starts_with("Name:"), "{text}");
        }
        ctl.finish();
    });
}

#[test]
fn what_the_server_has_is_found_and_explained() {
    with_node(|place| {
        let ctl = Ctl::started(place);
        let resources = ctl.ok(&["api-resources", "--no-headers"]);
        let named = |name: &str| resources.lines().any(|line| line.starts_with(name));
        for name in [
            "pods ",
            "events ",
            "leases ",
            "priorityclasses ",
            "selfsubjectreviews ",
        ] {
            assert!(named(name), "{name}: {resources}");
        }
        let line = resources
            .lines()
            .find(|line| line.starts_with("pods "))
            .expect("pods");
        let words: Vec<_> = line.split_whitespace().collect();
        assert_eq!(words, ["pods", "po", "v1", "true", "Pod"]);
        let versions = ctl.ok(&["api-versions"]);
        for version in ["v1", "events.k8s.io/v1", "coordination.k8s.io/v1"] {
            assert!(
                versions.lines().any(|line| line == version),
                "{version}: {versions}"
            );
        }
        let explained = ctl.ok(&["explain", "pod.spec.containers.image"]);
        assert!(
            explained.starts_with("KIND:       Pod\nVERSION:    v1\n\nFIELD: image <string>"),
            "{explained}"
        );
        let tree = ctl.ok(&["explain", "leases.spec", "--recursive"]);
        assert!(tree.contains("holderIdentity\t<string>"), "{tree}");
        let (_, why) = ctl.fails(&["explain", "pod.spec.nothing"]);
        assert!(why.contains("field \"nothing\" does not exist"), "{why}");
        assert_eq!(ctl.ok(&["get", "--raw", "/readyz"]), "ok");
        let verbose = ctl.ok(&["get", "--raw", "/readyz?verbose"]);
        assert_eq!(verbose, "[+]ping ok\n[+]node ok\nreadyz check passed\n");
        let metrics = ctl.ok(&["get", "--raw", "/metrics"]);
        assert!(metrics.contains("apiserver_request_total{"), "{metrics}");
        let info = ctl.ok(&["cluster-info"]);
        assert!(info.contains("is running at"), "{info}");
        // It also warns that the server is of an older release.
        let (version, _) = ctl.ok_with_errors(&["version", "-o", "json"]);
        let version: serde_json::Value = serde_json::from_str(&version).expect("JSON");
        assert_eq!(version["serverVersion"]["major"], json!("1"));
        assert_eq!(ctl.ok(&["auth", "can-i", "create", "pods"]), "yes\n");
        let me = ctl.json(&["auth", "whoami"]);
        assert_eq!(me["status"]["userInfo"]["username"], "system:admin");
        let (code, _) = ctl.fails(&["auth", "can-i", "get", "pods", "--as=nobody"]);
        assert_eq!(code, 1);
        let rights = ctl.ok(&["auth", "can-i", "--list"]);
        assert!(rights.contains("*.*"), "{rights}");
        ctl.finish();
    });
}
