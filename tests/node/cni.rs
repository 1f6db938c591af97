//! A pod network by CNI: real plugins as Debian packages them, and one that fails.

use std::fs;
use std::path::Path;

use serde_json::Value;

use crate::isolation::{installed, isolated, run};
use crate::support::{FOREVER, Node, condition, container, eventually, pod, uid};

/// bridge, host-local and portmap, over a range of the test's own; addresses are kept in `leases`.
fn configuration(leases: &Path) -> String {
    serde_json::json!({
        "cniVersion": "1.0.0",
        "name": "pods",
        "plugins": [
            {
                "type": "bridge", "bridge": "cni-test", "isGateway": true, "hairpinMode": true,
                "ipam": {
                    "type": "host-local",
                    "dataDir": leases,
                    "ranges": [[{"subnet": "10.99.0.0/24"}]],
                    "routes": [{"dst": "0.0.0.0/0"}],
                },
            },
            {"type": "portmap", "capabilities": {"portMappings": true}},
        ],
    })
    .to_string()
}

/// The same without portmap.
fn without_host_ports(leases: &Path) -> String {
    let mut whole: Value = serde_json::from_str(&configuration(leases)).unwrap();
    whole["plugins"].as_array_mut().unwrap().pop();
    whole.to_string()
}

/// Addresses that host-local has given out.
fn given(leases: &Path) -> Vec<String> {
    let entries = fs::read_dir(leases.join("pods")).into_iter().flatten();
    let names = entries.flatten().map(|entry| entry.file_name());
    let names = names.filter_map(|name| name.into_string().ok());
    names.filter(|name| name.starts_with("10.")).collect()
}

fn node_ready(node: &Node, wanted: &str) {
    eventually(&format!("Ready is {wanted}"), || {
        let nodes = node.list("nodes");
        nodes.first().and_then(|node| condition(node, "Ready")) == Some(wanted)
    });
}

fn starts_without_a_configuration(node: &Node) {
    // Nothing there yet: only the host's network is.
    node_ready(node, "False");
    let text = node.ok(&["get", "nodes", "-o", "json"]);
    assert!(text.contains("message:Network plugin returns error: cni plugin not initialized"));
    node.manifest(
        "host.yaml",
        &pod("host", FOREVER, "", "  hostNetwork: true"),
    );
    node.up("host");
    let serve = "echo hello >/tmp/index.html; httpd -f -p 80 -h /tmp & wait";
    let port = "    ports: [{containerPort: 80, hostPort: 8099}]";
    node.manifest("web.yaml", &pod("web", serve, port, ""));
    node.event(
        "web",
        "Warning NetworkNotReady network is not ready: container runtime",
    );
}

/// Returns the pod.
fn starts_with_one(node: &Node, file: &Path, text: &str, leases: &Path) -> Value {
    // Half a file is told of, the whole one is used.
    fs::write(file, &text[..40]).unwrap();
    eventually("the broken file is named", || {
        node.log().contains("10-pods.conflist:1: EOF")
    });
    fs::write(file, text).unwrap();
    node_ready(node, "True");
    let web = node.up("web");
    let address = web["status"]["podIP"].as_str().unwrap().to_owned();
    assert!(address.starts_with("10.99.0."), "{web:#?}");
    assert_eq!(web["status"]["podIPs"][0]["ip"], *address);
    assert_eq!(given(leases), [address.as_str()]);
    assert!(node.sh("web", "cat /etc/hosts").contains(&address));
    assert!(node.sh("web", "ip addr").contains("127.0.0.1/8"));
    let url = [
        "-sf",
        "--retry",
        "20",
        "--retry-connrefused",
        "--retry-delay",
        "1",
    ];
    let own = format!("http://{address}/");
    assert_eq!(
        run("curl", &[&url[..], &[own.as_str()]].concat()),
        "hello\n"
    );
    let mapped = "http://10.99.0.1:8099/";
    assert_eq!(run("curl", &[&url[..], &[mapped]].concat()), "hello\n");
    assert!(
        !crate::support::links()
            .iter()
            .any(|link| link.starts_with("lt-"))
    );

    web
}

fn outlives_agent_and_configuration(node: &mut Node, file: &Path, web: &Value, leases: &Path) {
    let address = web["status"]["podIP"].as_str().unwrap();
    // A killed agent takes nobody along.
    node.kill();
    node.start();
    let after = node.up("web");
    assert_eq!(
        (uid(&after), &after["status"]["podIP"]),
        (uid(web), &web["status"]["podIP"])
    );

    // A configuration that is gone ends nobody either, and a pod is torn down by its own.
    fs::remove_file(file).unwrap();
    node_ready(node, "False");
    assert_eq!(node.up("web")["status"]["podIP"], address);
    node.remove_manifest("web.yaml");
    node.gone("web");
    eventually("the address is back", || given(leases).is_empty());
    assert!(!run("iptables-save", &["-t", "nat"]).contains("8099"));
}

fn gives_back_after_a_reboot_and_a_failure(
    node: &mut Node,
    file: &Path,
    text: &str,
    leases: &Path,
) {
    // After a reboot an address is given back though nobody wants the pod any more.
    fs::write(file, text).unwrap();
    node.manifest("last.yaml", &pod("last", FOREVER, "", ""));
    node.up("last");
    assert_eq!(given(leases).len(), 1);
    crate::survival::reboot(node);
    node.remove_manifest("last.yaml");
    node.start();
    eventually("the address of before the reboot is back", || {
        given(leases).is_empty()
    });

    // A plugin that fails says why.
    let broken = text.replace("10.99.0.0/24", "10.99.0.0/33");
    fs::write(file, broken).unwrap();
    node.manifest("bad.yaml", &pod("bad", FOREVER, "", ""));
    let event = node.event("bad", "FailedCreatePodSandBox");
    assert!(
        event.contains("plugin type=\"bridge\" failed (add)"),
        "{event}"
    );
    fs::write(file, text).unwrap();
    node.remove_manifest("bad.yaml");
    node.gone("bad");
    let records = fs::read_dir(node.root.join("cni")).unwrap().count();
    assert_eq!(records, 0, "records left");
}

#[test]
fn pods_get_their_network_from_plugins_and_give_it_back() {
    isolated(|place| {
        if !Path::new("/usr/lib/cni/portmap").exists() || !installed("iptables") {
            return println!("skipped: containernetworking-plugins or iptables is not installed");
        }
        let (directory, leases) = (place.join("net.d"), place.join("leases"));
        let flag = format!("--cni-conf-dir={}", directory.display());
        let mut node = Node::new(place).flag(&flag);
        node.start();
        let (file, text) = (directory.join("10-pods.conflist"), configuration(&leases));
        starts_without_a_configuration(&node);
        let web = starts_with_one(&node, &file, &text, &leases);
        outlives_agent_and_configuration(&mut node, &file, &web, &leases);
        gives_back_after_a_reboot_and_a_failure(&mut node, &file, &text, &leases);
        clear(node);
    });
}

/// Bridges of plugins are nobody's to remove.
fn clear(node: Node) {
    for link in crate::support::links().iter().filter(|link| *link != "lo") {
        run("ip", &["link", "del", link]);
    }
    run("nft", &["flush", "ruleset"]);
    node.finish();
}

#[test]
fn running_pods_keep_their_network_when_the_flag_comes_and_goes() {
    isolated(|place| {
        if !Path::new("/usr/lib/cni/bridge").exists() {
            return println!("skipped: containernetworking-plugins is not installed");
        }
        let (directory, leases) = (place.join("net.d"), place.join("leases"));
        fs::create_dir(&directory).unwrap();
        fs::write(directory.join("10.conflist"), without_host_ports(&leases)).unwrap();
        let flag = format!("--cni-conf-dir={}", directory.display());
        let address = |pod: &Value| pod["status"]["podIP"].as_str().unwrap().to_owned();

        let mut node = Node::started(place);
        node.manifest("early.yaml", &pod("early", FOREVER, "", ""));
        let early = node.up("early");
        node.kill();
        node = node.flag(&flag);
        node.start();
        let port = "    ports: [{containerPort: 80, hostPort: 8099}]";
        node.manifest("late.yaml", &pod("late", FOREVER, port, ""));
        let late = node.up("late");
        assert_eq!(given(&leases), [address(&late)]);
        node.event("late", "Warning HostPortNotMapped no plugin");
        let checked = node.client(&["check", &flag]);
        let checked = String::from_utf8_lossy(&checked.stdout).into_owned();
        let row = checked.lines().find(|line| line.contains("cni"));
        assert!(
            row.is_some_and(|row| row.contains("10.conflist")),
            "{checked}"
        );
        node.kill();
        node.flags.clear();
        node.start();
        for before in [&early, &late] {
            let name = before["metadata"]["name"].as_str().unwrap();
            let after = node.up(name.strip_suffix("-n").unwrap());
            let ids = [before, &after].map(|pod| container(pod, "c")["containerID"].clone());
            assert_eq!(ids[0], ids[1], "{name}");
            assert_eq!(address(&after), address(before), "{name}");
        }
        for name in ["early", "late"] {
            node.remove_manifest(&format!("{name}.yaml"));
            node.gone(name);
        }
        eventually("the address is back", || given(&leases).is_empty());
        clear(node);
    });
}
