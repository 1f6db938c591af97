//! A joined node behind bad links, and a cluster that comes back older than it was: what runs goes
//! on, and afterwards both sides agree.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use lowtide::os::clock::wall_time;
use serde_json::Value;

use crate::bad_link::{BadLink, Mode, Way};
use crate::cluster::{SECRET, apply, bound, is_ready, node_of, pair};
use crate::isolation::{isolated, run};
use crate::support::{FOREVER, Node, container, eventually, pod, restarts, wait_for};

/// 2 s there and back, 10 kB/s: a satellite.
const SLOW: Mode = Mode::Slow {
    delay: Duration::from_secs(1),
    bytes_per_s: 10_000,
};
/// A renewal every 10 s and some trouble: less than a call that hangs would take.
const PROMPT: Duration = Duration::from_secs(20);
/// How long a lease lasts.
const LEASE: Duration = Duration::from_secs(40);
/// Of answers: past the handshake, in the middle of a list.
const PIECE: u64 = 4_000;

/// Cluster and node with a link between them, and the pod `app` that runs all the time.
struct World {
    cloud: Node,
    edge: Node,
    link: BadLink,
    id: Value,
}

impl World {
    fn started(place: &Path) -> World {
        let (mut cloud, edge) = pair(place);
        let link = BadLink::start("127.0.0.1:6443");
        let mut edge = edge.flag(&format!("--api-server=https://{}", link.address));
        cloud.start();
        apply(&cloud, "secret.json", SECRET);
        apply(&cloud, "app.json", &bound("app"));
        edge.start();
        let id = container(&cloud.up("app"), "c")["containerID"].clone();
        assert!(id.is_string());
        World {
            cloud,
            edge,
            link,
            id,
        }
    }

    /// What must be true whatever the link does.
    fn app_goes_on(&self) {
        let app = self.edge.up("app");
        assert_eq!(container(&app, "c")["containerID"], self.id);
        assert_eq!(restarts(&app, "c"), 0);
    }

    fn renewed(&self) -> String {
        let lease = lease_of(&self.cloud);
        lease["spec"]["renewTime"].as_str().unwrap_or("").to_owned()
    }

    /// The link is good again: the cluster hears of the node at once, and that `app` runs.
    fn heal(&self, what: &str, within: Duration) {
        let (start, now) = (Instant::now(), wall_time().to_string());
        self.link.set(Mode::Pass);
        eventually("the lease is fresh", || self.renewed() > now);
        let took = start.elapsed();
        println!("{what}: the lease is renewed {took:.1?} after its end");
        assert!(took < within, "{what}: renewed after {took:?}");
        self.agree();
    }

    /// The cluster says of the node what is true.
    fn agree(&self) {
        eventually("the node is ready", || {
            node_of(&self.cloud).is_some_and(|node| is_ready(&node))
        });
        let app = self.cloud.up("app");
        assert_eq!(container(&app, "c")["containerID"], self.id);
        self.app_goes_on();
    }

    /// Requests that the cluster has answered, of those whose labels have all `parts`.
    fn requests(&self, parts: &[&str]) -> u64 {
        let socket = self.cloud.run.join("api.sock");
        let socket = socket.to_str().unwrap();
        let text = run("curl", &["-s", "--unix-socket", socket, "http://x/metrics"]);
        let lines = text.lines();
        let lines = lines.filter(|line| line.starts_with("apiserver_request_total{"));
        let lines = lines.filter(|line| parts.iter().all(|part| line.contains(part)));
        let counts = lines.filter_map(|line| line.rsplit_once(' ')?.1.parse::<u64>().ok());
        counts.sum()
    }

    fn finish(mut self) {
        self.cloud.ok(&["delete", "pod", "app-n"]);
        self.cloud.gone("app");
        self.edge.terminate();
        self.edge.finish();
        self.cloud.finish();
    }
}

fn lease_of(cloud: &Node) -> Value {
    let leases = cloud.list("leases").into_iter();
    let mut leases = leases.filter(|lease| lease["metadata"]["name"] == "n");
    leases.next().unwrap_or_default()
}

/// A pod in a namespace that is soon taken away.
fn passenger() -> String {
    bound("passenger").replace("\"default\"", "\"brief\"")
}

#[test]
fn a_bad_link_stops_nothing_and_all_is_told_when_it_is_better() {
    isolated(|place| {
        let world = World::started(place);
        let (cloud, edge, link) = (&world.cloud, &world.edge, &world.link);
        let space = r#"{"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "brief"}}"#;
        apply(cloud, "space.json", space);
        apply(
            cloud,
            "its.json",
            &SECRET.replace("\"default\"", "\"brief\""),
        );
        apply(cloud, "passenger.json", &passenger());
        cloud.up("passenger");

        // Slow: later, but everything.
        link.set(SLOW);
        apply(cloud, "slow.json", &bound("slow"));
        cloud.up("slow");
        assert!(node_of(cloud).is_some_and(|node| is_ready(&node)));
        world.heal("slow", PROMPT);

        // What the node says is lost. A deletion, and a namespace that goes: both are heard of, and
        // nobody can be told that they are done.
        link.set(Mode::Mute(Way::ToServer));
        let mut deleting = cloud.client_command(&["delete", "pod", "slow-n"]);
        let mut deleting = deleting.spawn().unwrap();
        cloud.ok(&["delete", "namespace", "brief", "--no-wait"]);
        edge.gone("slow");
        edge.gone("passenger");
        edge.manifest("own.yaml", &pod("own", FOREVER, "", ""));
        edge.up("own");
        assert!(cloud.pod("slow").is_some() && cloud.pod("own").is_none());
        world.app_goes_on();
        world.heal("nothing arrives", PROMPT);
        assert!(deleting.wait().unwrap().success());
        cloud.gone("passenger");
        eventually("the namespace is gone", || {
            let spaces = cloud.list("namespaces");
            !spaces
                .iter()
                .any(|space| space["metadata"]["name"] == "brief")
        });
        cloud.up("own");

        // What the cluster says is lost.
        link.set(Mode::Mute(Way::ToClient));
        apply(cloud, "new.json", &bound("new"));
        edge.remove_manifest("own.yaml");
        edge.gone("own");
        assert_eq!(edge.pod("new"), None);
        world.app_goes_on();
        // Renewals arrived all the time.
        link.set(Mode::Pass);
        world.agree();
        cloud.up("new");
        cloud.gone("own");

        // Half of an answer is none: nothing is missing because it was not in it.
        for mode in [
            Mode::Reset { after: PIECE },
            Mode::Truncate { after: PIECE },
        ] {
            link.set(mode);
            let before = link.carried().connections;
            eventually("the node tries", || link.carried().connections > before + 2);
            world.app_goes_on();
            edge.up("new");
        }
        world.heal("half of everything", PROMPT);
        cloud.ok(&["delete", "pod", "new-n"]);
        cloud.gone("new");
        world.finish();
    });
}

#[test]
fn dead_connections_are_given_up_and_dropped_ones_cause_no_storm() {
    isolated(|place| {
        let world = World::started(place);
        let (cloud, link) = (&world.cloud, &world.link);

        // Every watch is dropped every second. The test itself asks for no Secrets.
        let lists = || world.requests(&["verb=\"LIST\"", "resource=\"secrets\""]);
        let before = (lists(), link.carried().connections);
        assert!(before.0 > 0, "the node has listed its Secret");
        link.set(Mode::ShortLived(Duration::from_secs(1)));
        let start = Instant::now();
        apply(cloud, "new.json", &bound("new"));
        cloud.up("new");
        std::thread::sleep(Duration::from_secs(6).saturating_sub(start.elapsed()));
        let seconds = start.elapsed().as_secs_f64();
        let connections = link.carried().connections - before.1;
        println!("{connections} connections in {seconds:.1} s with all dropped after one");
        // Five watches, the lease, statuses.
        assert!((connections as f64) < 10.0 * seconds, "a storm");
        assert_eq!(lists(), before.0, "what was listed is listed again");
        world.heal("dropped every second", PROMPT);

        // Nobody says that the connections are dead: the lease does not run out by that, and what
        // happened meanwhile is heard of.
        link.set(Mode::HalfOpen);
        std::thread::sleep(Duration::from_millis(500));
        let mut deleting = cloud.client_command(&["delete", "pod", "new-n"]);
        let mut deleting = deleting.spawn().unwrap();
        world.heal("half-open", LEASE);
        assert!(deleting.wait().unwrap().success());
        cloud.gone("new");
        world.finish();
    });
}

fn word_of(node: &Node) -> Value {
    let secrets = node.list("secrets").into_iter();
    let mut secrets = secrets.filter(|secret| secret["metadata"]["name"] == "s");
    secrets.next().unwrap_or_default()["data"]["word"].clone()
}

fn version(object: &Value) -> u64 {
    let text = object["metadata"]["resourceVersion"].as_str().unwrap();
    text.parse().unwrap()
}

#[test]
fn a_cluster_restored_from_an_older_backup_is_followed_and_nothing_restarts() {
    isolated(|place| {
        let (mut cloud, mut edge) = pair(place);
        let (store, backup) = (cloud.root.join("store.redb"), place.join("backup"));
        cloud.start();
        apply(&cloud, "secret.json", SECRET);
        apply(&cloud, "app.json", &bound("app"));
        cloud.terminate();
        fs::copy(&store, &backup).unwrap();

        // After the backup: the node joins, a pod comes, a Secret changes.
        cloud.start();
        edge.start();
        let id = |pod: &Value| container(pod, "c")["containerID"].clone();
        let app = cloud.up("app");
        let newer = cloud.place.join("newer.json");
        fs::write(&newer, SECRET.replace("tide", "ebb")).unwrap();
        cloud.ok(&["apply", "-f", newer.to_str().unwrap()]);
        eventually("the Secret is here", || word_of(&edge) == "ZWJi");
        apply(&cloud, "later.json", &bound("later"));
        let later = version(&cloud.up("later"));
        // So much that the restored cluster does not get there in this test.
        let map = |n| format!("apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: map{n}}}\n---\n");
        apply(&cloud, "maps.yaml", &(0..50).map(map).collect::<String>());
        eventually("the lease is renewed", || {
            version(&lease_of(&cloud)) > later + 50
        });

        cloud.kill();
        fs::copy(&backup, &store).unwrap();
        cloud.start();
        let node = wait_for("the node registers again", || {
            node_of(&cloud).filter(is_ready)
        });
        assert!(version(&node) < later, "the versions fell");
        edge.gone("later");
        eventually("the Secret is the old one", || word_of(&edge) == "dGlkZQ==");
        let after = cloud.up("app");
        assert_eq!(id(&after), id(&app));
        assert_eq!(restarts(&edge.up("app"), "c"), 0);

        cloud.ok(&["delete", "pod", "app-n"]);
        cloud.gone("app");
        edge.terminate();
        edge.finish();
        cloud.finish();
    });
}
