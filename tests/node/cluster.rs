//! A node that joins a cluster: a second lowtide is its API server, with Node authorization and
//! NodeRestriction on, and the link between the two is cut with nft.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use serde_json::{Value, json};

use crate::isolation::{isolated, run};
use crate::resize::resize;
use crate::support::{
    FOREVER, IMAGE, Node, condition, container, eventually, pod, restarts, uid, wait_for,
};

/// A cluster that knows the node by its token, and that node; neither is started.
pub fn pair(place: &Path) -> (Node, Node) {
    // Their cgroups are named after these.
    let name = place.file_name().unwrap().to_string_lossy();
    let at = |which: &str| place.join(format!("{name}-{which}"));
    let (at_cloud, at_edge) = (at("cloud"), at("edge"));
    for directory in [&at_cloud, &at_edge] {
        fs::create_dir(directory).unwrap();
    }
    let tokens = place.join("tokens.csv");
    fs::write(&tokens, "n0de,system:node:n,1,system:nodes\n").unwrap();
    fs::set_permissions(&tokens, fs::Permissions::from_mode(0o600)).unwrap();
    let cloud = Node::new(&at_cloud)
        .flag("--hostname-override=cloud")
        .flag("--authorization-mode=Node")
        .flag("--enable-admission-plugins=NodeRestriction")
        .flag(&format!("--token-auth-file={}", tokens.display()));
    let config = place.join("edge.kubeconfig");
    let text = format!(
        "apiVersion: v1\nkind: Config\ncurrent-context: c\nclusters:\n- name: c\n  cluster:\n    \
         server: https://127.0.0.1:6443\n    certificate-authority: {}\nusers:\n- name: edge\n  \
         user: {{token: n0de}}\ncontexts:\n- name: c\n  context: {{cluster: c, user: edge}}\n",
        cloud.root.join("pki/ca.crt").display()
    );
    fs::write(&config, text).unwrap();
    let edge = Node::new(&at_edge)
        .flag("--secure-port=0")
        .flag(&format!("--kubeconfig={}", config.display()));
    (cloud, edge)
}

pub fn cut() {
    let rules = "add table inet cut; add chain inet cut i { type filter hook input priority 0; }; \
                 add rule inet cut i tcp dport 6443 drop; add rule inet cut i tcp sport 6443 drop";
    run("nft", &[rules]);
}

pub fn mend() {
    run("nft", &["delete table inet cut"]);
}

pub fn node_of(cloud: &Node) -> Option<Value> {
    let mut nodes = cloud.list("nodes").into_iter();
    nodes.find(|node| node["metadata"]["name"] == "n")
}

pub fn is_ready(node: &Value) -> bool {
    condition(node, "Ready") == Some("True")
}

/// A pod as a scheduler leaves it: bound to the node, with a Secret in its environment.
pub fn bound(name: &str) -> String {
    let pod = json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": format!("{name}-n"), "namespace": "default"},
        "spec": {
            "nodeName": "n", "terminationGracePeriodSeconds": 1,
            "containers": [{
                "name": "c", "image": IMAGE, "imagePullPolicy": "Always",
                "command": ["sh", "-c", FOREVER],
                "env": [{"name": "WORD", "valueFrom": {"secretKeyRef": {"name": "s", "key": "word"}}}],
            }],
        },
    });
    pod.to_string()
}

pub fn apply(node: &Node, file: &str, text: &str) {
    let path = node.place.join(file);
    fs::write(&path, text).unwrap();
    node.ok(&["create", "-f", path.to_str().unwrap()]);
}

pub const SECRET: &str = r#"{"apiVersion": "v1", "kind": "Secret",
    "metadata": {"name": "s", "namespace": "default"}, "stringData": {"word": "tide"}}"#;

/// Also by what the cluster's Node says. One pod that can be here stays.
fn turns_away_who_cannot_be_here(cloud: &Node) {
    let labelled = r#"{"apiVersion": "v1", "kind": "Node", "metadata": {"name": "n", "labels": {"disk": "ssd"}}}"#;
    let path = cloud.place.join("node.json");
    fs::write(&path, labelled).unwrap();
    cloud.ok(&["apply", "-f", path.to_str().unwrap()]);
    for (name, part, reason) in [
        ("near", json!({"nodeSelector": {"disk": "ssd"}}), None),
        (
            "far",
            json!({"nodeSelector": {"disk": "hdd"}}),
            Some("NodeAffinity"),
        ),
        (
            "huge",
            json!({"overhead": {"cpu": "1000"}}),
            Some("OutOfcpu"),
        ),
    ] {
        let mut pod: Value = serde_json::from_str(&bound(name)).unwrap();
        let spec = pod["spec"].as_object_mut().unwrap();
        spec.extend(part.as_object().unwrap().clone());
        apply(cloud, "placed.json", &pod.to_string());
        let Some(reason) = reason else {
            cloud.up(name);
            continue;
        };
        let pod = wait_for("the pod is turned away", || {
            cloud
                .pod(name)
                .filter(|pod| pod["status"]["phase"] == "Failed")
        });
        assert_eq!(pod["status"]["reason"], reason);
        let message = pod["status"]["message"].as_str().unwrap();
        assert!(message.starts_with("Pod was rejected: "), "{message}");
    }
}

/// A pod of the cluster asks for nearly all of the node, then for little, then for much again, and goes for
/// one that has to be here.
fn gives_other_resources_and_makes_room(cloud: &Node) {
    let node = node_of(cloud).expect("the node");
    let cpus = node["status"]["allocatable"]["cpu"].as_str().unwrap();
    let much = format!("{}m", cpus.parse::<u64>().unwrap() * 1000 - 100);
    let asking = |name: &str, cpu: &str| {
        let mut pod: Value = serde_json::from_str(&bound(name)).unwrap();
        pod["spec"]["containers"][0]["resources"] = json!({"requests": {"cpu": cpu}});
        pod
    };
    // It takes its time to go.
    let mut large = asking("large", &much);
    large["spec"]["terminationGracePeriodSeconds"] = 30.into();
    let slowly = "trap 'sleep 3; exit 0' TERM; while :; do sleep 1 & wait $!; done";
    large["spec"]["containers"][0]["command"] = json!(["sh", "-c", slowly]);
    apply(cloud, "large.json", &large.to_string());
    cloud.up("large");
    for cpu in ["50m", much.as_str()] {
        let wanted = json!({"requests": {"cpu": cpu}});
        let (code, answer) = resize(cloud, "large-n", "c", &wanted);
        assert_eq!(code, 200, "{answer}");
        let pod = cloud.pod_until("large", "has what it asks for", |pod| {
            container(pod, "c")["allocatedResources"]["cpu"] == cpu
                && container(pod, "c")["resources"] == wanted
        });
        assert_eq!(restarts(&pod, "c"), 0);
    }
    let mut vital = asking("vital", "500m");
    vital["spec"]["priorityClassName"] = "system-node-critical".into();
    apply(cloud, "vital.json", &vital.to_string());
    let vital = cloud.up("vital");
    let large = wait_for("the large one has gone", || {
        let gone = |pod: &Value| pod["status"]["phase"] == "Failed";
        cloud.pod("large").filter(gone)
    });
    let ended = container(&large, "c")["state"]["terminated"]["finishedAt"].clone();
    let started = container(&vital, "c")["state"]["running"]["startedAt"].clone();
    assert!(started.as_str() >= ended.as_str(), "{started} {ended}");
    let status = &large["status"];
    assert_eq!(status["reason"], "Preempting");
    assert_eq!(
        status["message"],
        "Preempted in order to admit critical pod"
    );
    assert_eq!(condition(&large, "DisruptionTarget"), Some("True"));
}

#[test]
fn a_joined_node_runs_the_clusters_pods_and_shows_its_own() {
    isolated(|place| {
        let (mut cloud, mut edge) = pair(place);
        cloud.start();
        edge.start();
        let node = wait_for("the node is registered", || {
            node_of(&cloud).filter(is_ready)
        });
        assert!(node["status"]["nodeInfo"]["kubeletVersion"].is_string());
        apply(&cloud, "secret.json", SECRET);
        apply(&cloud, "app.json", &bound("app"));
        let there = cloud.up("app");
        let here = edge.up("app");
        assert_eq!(uid(&there), uid(&here));
        assert_eq!(there["status"]["podIP"], here["status"]["podIP"]);
        assert_eq!(edge.sh("app", "echo $WORD").trim(), "tide");
        // The token that the cluster made for it, in a volume that the cluster's admission added.
        let token = "/var/run/secrets/kubernetes.io/serviceaccount/token";
        let token = edge.sh("app", &format!("cat {token}"));
        assert_eq!(token.split('.').count(), 3, "{token}");

        // The node's own pod has a picture there, without what the cluster refuses.
        edge.manifest("own.yaml", &pod("own", FOREVER, "", ""));
        let picture = cloud.up("own");
        let own = edge.up("own");
        assert_ne!(uid(&picture), uid(&own));
        let mirror = &picture["metadata"]["annotations"]["kubernetes.io/config.mirror"];
        assert_eq!(
            *mirror,
            own["metadata"]["annotations"]["kubernetes.io/config.hash"]
        );
        edge.remove_manifest("own.yaml");
        cloud.gone("own");

        turns_away_who_cannot_be_here(&cloud);
        gives_other_resources_and_makes_room(&cloud);
        for told in [
            "Starting Starting kubelet.",
            "NodeReady Node n status is now: NodeReady",
        ] {
            cloud.event("n", &format!("Normal {told}"));
        }

        // A Node that somebody deletes is there again at once.
        cloud.ok(&["delete", "node", "n"]);
        wait_for("the node is registered again", || {
            node_of(&cloud).filter(|again| again["metadata"]["uid"] != node["metadata"]["uid"])
        });

        // Another network: the Node's address follows, and so does that of its pods.
        run("ip", &["link", "add", "w0", "type", "veth", "peer", "w1"]);
        run("ip", &["address", "add", "10.9.8.7/24", "dev", "w0"]);
        run("ip", &["link", "set", "w0", "up"]);
        run("ip", &["link", "set", "w1", "up"]);
        run("ip", &["route", "add", "default", "via", "10.9.8.1"]);
        eventually("the cluster knows the new address", || {
            let node = node_of(&cloud).unwrap_or_default();
            let address = &node["status"]["addresses"][0]["address"];
            let app = cloud.pod("app").unwrap_or_default();
            *address == "10.9.8.7" && app["status"]["hostIP"] == "10.9.8.7"
        });
        run("ip", &["link", "delete", "w0"]);

        cloud.ok(&["delete", "pod", "app-n"]);
        cloud.gone("app");
        edge.gone("app");
        // The node takes its pods along: the cluster hears of it.
        edge.finish();
        let node = node_of(&cloud).expect("the node");
        assert_eq!(condition(&node, "Ready"), Some("False"));
        cloud.finish();
    });
}

#[test]
fn a_cut_link_stops_nothing_and_all_is_told_when_it_is_mended() {
    isolated(|place| {
        let (mut cloud, mut edge) = pair(place);
        cloud.start();
        edge.start_plain();
        apply(&cloud, "secret.json", SECRET);
        apply(&cloud, "app.json", &bound("app"));
        apply(&cloud, "gone.json", &bound("gone"));
        let app = cloud.up("app");
        cloud.up("gone");
        let id = |pod: &Value| container(pod, "c")["containerID"].clone();

        cut();
        // Whatever was sent before the cut is lost: the node learns of nothing for a while.
        // It waits until the pod is gone.
        let deleting = cloud.client_command(&["delete", "pod", "gone-n"]).spawn();
        let mut deleting = deleting.unwrap();
        apply(&cloud, "new.json", &bound("new"));
        edge.kill();
        edge.start_plain();
        let here = edge.up("app");
        assert_eq!(id(&here), id(&app), "the container did not notice");
        edge.up("gone");
        edge.manifest("own.yaml", &pod("own", FOREVER, "", ""));
        edge.up("own");
        assert!(cloud.pod("gone").is_some() && cloud.pod("own").is_none());

        mend();
        assert!(deleting.wait().unwrap().success());
        cloud.gone("gone");
        cloud.up("new");
        cloud.up("own");
        let after = cloud.up("app");
        assert_eq!(id(&after), id(&app));
        eventually("the node is ready", || {
            node_of(&cloud).is_some_and(|n| is_ready(&n))
        });
        assert_eq!(edge.pod("gone"), None);
        for name in ["app-n", "new-n"] {
            cloud.ok(&["delete", "pod", name]);
        }
        cloud.gone("app");
        edge.terminate();
        edge.finish();
        cloud.finish();
    });
}
