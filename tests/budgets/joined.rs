//! What a cluster costs a node: requests, bytes and memory while nothing happens, and how long a pod
//! takes that comes from there.
//!
//! A second node of the same binary is the cluster, and a link that counts is between them. The floor
//! of a pod from the cluster is the same pod made at the node's own API, in turn in the same run.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::Value;

use super::bad_link::{BadLink, Mode};
use super::node::{self, Node};
use super::support::eventually;
use super::{Figure, MANY, SETTLE, processes, ratio};

/// Six renewals of the lease.
const IDLE: Duration = Duration::from_secs(60);
/// Pods started one after another, here and there.
const TURNS: usize = 5;
/// As many as a node takes by default.
const FULL: usize = 110;
/// Nobody is connected, and whoever tries is turned away.
const DOWN: Mode = Mode::ShortLived(Duration::ZERO);
const PODS: &str = "/api/v1/namespaces/default/pods";

struct Pair {
    cloud: Node,
    edge: Node,
    link: BadLink,
    /// Here as there.
    pods: usize,
}

#[allow(clippy::disallowed_methods, reason = "a benchmark measures real time")]
fn now() -> Instant {
    Instant::now()
}

impl Pair {
    /// The node knows where the cluster is and cannot reach it.
    fn start(binary: &Path, place: &Path) -> Pair {
        let tokens = place.join("tokens.csv");
        fs::write(&tokens, "n0de,system:node:budget,1,system:nodes\n").expect("tokens");
        fs::set_permissions(&tokens, fs::Permissions::from_mode(0o600)).expect("tokens");
        let flags = [
            "--secure-port=6443",
            "--authorization-mode=Node",
            "--enable-admission-plugins=NodeRestriction",
        ];
        let mut flags = flags.map(str::to_owned).to_vec();
        flags.push(format!("--token-auth-file={}", tokens.display()));
        let cloud = Node::named("cloud", binary, flags);
        let link = BadLink::start("127.0.0.1:6443");
        link.set(DOWN);
        let config = place.join("edge.kubeconfig");
        let text = format!(
            "apiVersion: v1\nkind: Config\ncurrent-context: c\nclusters:\n- name: c\n  cluster:\n    \
             server: https://{}\n    certificate-authority: {}\nusers:\n- name: edge\n  \
             user: {{token: n0de}}\ncontexts:\n- name: c\n  context: {{cluster: c, user: edge}}\n",
            link.address,
            cloud.path("root/pki/ca.crt").display()
        );
        fs::write(&config, text).expect("kubeconfig");
        let flags = [
            "--secure-port=0".to_owned(),
            format!("--kubeconfig={}", config.display()),
        ];
        let edge = Node::named("budget", binary, flags.to_vec());
        Pair {
            cloud,
            edge,
            link,
            pods: 0,
        }
    }

    /// A pod of the node's image, bound to the node.
    fn pod(&self, name: &str) -> String {
        let mut pod = self.edge.manifest(name);
        pod["spec"]["nodeName"] = "budget".into();
        pod.to_string()
    }

    /// Time from the link's return until the cluster has heard that the node is ready, and that all
    /// of so many pods are.
    fn link_up(&mut self, count: usize) -> (Duration, Duration) {
        self.link.set(DOWN);
        let more = self.pods..count;
        for number in more.clone() {
            let pod = self.pod(&format!("bound{number}"));
            self.cloud.ask("POST", PODS, &pod).expect("a pod");
        }
        self.pods = count;
        let before = self.renewed();
        node::pause(Duration::from_secs(1));
        let start = now();
        self.link.set(Mode::Pass);
        eventually("the node is ready", || {
            let node = object(&self.cloud, "/api/v1/nodes/budget");
            let conditions = node["status"]["conditions"]
                .as_array()
                .into_iter()
                .flatten();
            let mut ready = conditions.filter(|c| c["type"] == "Ready" && c["status"] == "True");
            ready.next().is_some() && self.renewed() != before
        });
        let ready = start.elapsed();
        self.cloud.await_pods(count);
        let all = start.elapsed();
        for _ in more {
            self.edge.await_line();
        }
        (ready, all)
    }

    fn renewed(&self) -> Value {
        let leases = "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases";
        object(&self.cloud, &format!("{leases}/budget"))["spec"]["renewTime"].take()
    }

    /// Requests that the cluster has answered: for the lease, and for anything else that has a name.
    fn requests(&self) -> (u64, u64) {
        let text = self.cloud.get("/metrics").expect("metrics");
        let (mut leases, mut others) = (0, 0);
        let lines = text.lines();
        for line in lines.filter(|line| line.starts_with("apiserver_request_total{")) {
            let count = line
                .rsplit_once(' ')
                .and_then(|(_, count)| count.parse::<u64>().ok());
            let count = count.expect("a count");
            match line {
                _ if line.contains("resource=\"leases\"") => leases += count,
                _ if line.contains("resource=\"\"") => {}
                _ => others += count,
            }
        }
        (leases, others)
    }

    fn idle(&self) -> Vec<Figure> {
        let pid = self.edge.agent_pid();
        let look = || {
            (
                self.requests(),
                self.link.carried(),
                processes::activity(pid),
            )
        };
        let (requests, link, activity) = look();
        node::pause(IDLE);
        let (requests_after, link_after, activity_after) = look();
        let hours = IDLE.as_secs_f64() / 3600.0;
        let up = link_after.to_server - link.to_server;
        let down = link_after.to_client - link.to_client;
        println!("idle and joined: {up} bytes up, {down} down in {IDLE:?}");
        let figure = |name, unit, value: u64, budget, limit| Figure {
            name,
            unit,
            value: value as f64,
            budget,
            limit,
        };
        let kilobytes = (up + down) as f64 / 1000.0 / hours;
        vec![
            figure(
                "joined: renewals in 60 s",
                "",
                requests_after.0 - requests.0,
                6.0,
                7.0,
            ),
            // The status is repeated every five minutes, perhaps just now.
            figure(
                "joined: other requests in 60 s",
                "",
                requests_after.1 - requests.1,
                0.2,
                1.0,
            ),
            figure(
                "joined: new connections in 60 s",
                "",
                link_after.connections - link.connections,
                0.0,
                1.0,
            ),
            figure(
                "joined: kilobytes an hour",
                "kB",
                kilobytes as u64,
                700.0,
                900.0,
            ),
            figure(
                "joined: bytes written in 60 s",
                "B",
                activity_after.bytes_to_disk - activity.bytes_to_disk,
                0.0,
                0.0,
            ),
        ]
    }

    /// The same pod from the cluster and from the node's own API, in turn.
    fn race(&mut self) -> Figure {
        let mut times: [Vec<Duration>; 2] = Default::default();
        for turn in 0..TURNS {
            for (side, name) in ["there", "here"].into_iter().enumerate() {
                let pod = self.pod(&format!("{name}{turn}"));
                let at = [&self.cloud, &self.edge][side];
                let start = now();
                at.ask("POST", PODS, &pod).expect("a pod");
                self.edge.await_line();
                times[side].push(start.elapsed());
                self.pods += 1;
                // The node's own have mirrors.
                self.cloud.await_pods(self.pods);
            }
        }
        let [there, here] = &mut times;
        there.sort();
        here.sort();
        println!("from the cluster {there:.1?}\nfrom the own API {here:.1?}");
        Figure {
            name: "pod of the cluster / of the own API",
            unit: "x",
            value: ratio(there[TURNS / 2], here[TURNS / 2]),
            budget: 1.3,
            limit: 3.0,
        }
    }

    fn memory(&self, names: [&'static str; 2], budgets: [f64; 2]) -> [Figure; 2] {
        let memory = processes::memory(self.edge.agent_pid());
        let figure = |name, kb: u64, budget, limit| Figure {
            name,
            unit: "MB",
            value: kb as f64 * 1024.0 / 1e6,
            budget,
            limit,
        };
        [
            figure(names[0], memory.pss, budgets[0], budgets[0] + 1.0),
            figure(names[1], memory.private_dirty, budgets[1], budgets[1] + 1.0),
        ]
    }
}

pub fn measure(binary: &Path) -> Vec<Figure> {
    let place = tempfile::tempdir().expect("temporary directory");
    let mut pair = Pair::start(binary, place.path());
    let mut ready_after = Vec::new();
    for count in [1, 10] {
        let (_, pods) = pair.link_up(count);
        // Once more, with nothing new to do.
        let (ready, all) = pair.link_up(count);
        println!(
            "link up: ready after {ready:.1?}, {count} pods after {all:.1?}, new ones {pods:.1?}"
        );
        ready_after.push(ready);
    }
    node::pause(SETTLE);
    let mut figures = pair.idle();
    figures.push(pair.race());
    let (_, many) = pair.link_up(MANY);
    println!(
        "link up: {} more pods after {many:.1?}",
        MANY - 10 - 2 * TURNS
    );
    node::pause(SETTLE);
    let names = ["joined, 50 pods: PSS", "joined, 50 pods: private dirty"];
    figures.extend(pair.memory(names, [8.0, 5.0]));
    pair.link_up(FULL);
    let (ready, all) = pair.link_up(FULL);
    let more = ratio(ready, ready_after[0]);
    println!("link up: ready after {ready:.1?} ({more:.1} x one pod), {FULL} pods after {all:.1?}");
    node::pause(SETTLE);
    let names = ["joined, 110 pods: PSS", "joined, 110 pods: private dirty"];
    figures.extend(pair.memory(names, [11.0, 9.0]));
    figures
}

fn object(at: &Node, path: &str) -> Value {
    let answer = at.get(path).unwrap_or_default();
    let body = answer.split_once("\r\n\r\n").map_or("", |(_, body)| body);
    serde_json::from_str(body).unwrap_or_default()
}
