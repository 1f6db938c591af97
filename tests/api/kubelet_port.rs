//! The kubelet's own endpoints: who gets in while the cluster answers and while it does not, and
//! streams as a kube-apiserver asks for them.

use std::cell::Cell;
use std::os::unix::net::UnixStream;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use async_io::Async;
use bytes::Bytes;
use futures_lite::{AsyncReadExt, AsyncWriteExt, FutureExt, StreamExt, future};
use jiff::Timestamp;
use lowtide::apiserver::authz::{Authorizer, Mode, PolicyFile};
use lowtide::apiserver::{Limits, Options};
use lowtide::net::spdy::{Connection, Role};
use lowtide::net::websocket::{self, Frame, Message};
use lowtide::object::Kind;
use lowtide::os::clock::SystemClock;
use lowtide::world::{BootTime, Clock, LocalFuture};
use serde_json::{Value, json};

use crate::callers::account;
use crate::forward::{all_of_it, in_time};
use crate::node::{Cluster, ClusterState, Node, Setup};
use crate::office::{Door, From, Office, Signed};
use crate::spdy::{open, text};

/// A clock that is ahead by what a test says.
struct Ahead {
    real: SystemClock,
    by: Cell<Duration>,
}

impl Clock for Ahead {
    fn now(&self) -> BootTime {
        self.real.now() + self.by.get()
    }

    fn wall(&self) -> Timestamp {
        self.real.wall() + self.by.get()
    }

    fn sleep_until(&self, deadline: BootTime) -> LocalFuture<'static, ()> {
        let span = deadline.since(self.now());
        self.real.sleep_until(self.real.now() + span)
    }
}

/// A node of a cluster: its port is as open as can be for whoever uses the API.
pub struct Place {
    node: Node,
    office: Office,
    cluster: Arc<Cluster>,
    clock: Rc<Ahead>,
    door: Door,
}

impl Place {
    pub fn open() -> Place {
        let cluster = Arc::new(Cluster::default());
        let node = Node::with(Setup {
            cluster: cluster.clone(),
            ..Setup::default()
        });
        for (kind, name) in [(Kind::Node, "pi"), (Kind::ServiceAccount, "default")] {
            let (version, kind_name) = ("v1", kind.name());
            let body =
                json!({"apiVersion": version, "kind": kind_name, "metadata": {"name": name}});
            node.create(kind, name, body);
        }
        let pod = node.pod("web", json!({}));
        let status = json!({"phase": "Running", "containerStatuses": [{"name": "web",
            "containerID": format!("lowtide://{}", "a".repeat(64)), "state": {"running": {}}}]});
        node.status(&pod, status);
        let office = Office::open();
        let options = Options {
            node_name: "pi".to_owned(),
            kubelet_configuration: r#"{"kubeletconfig":{"maxPods":7}}"#.to_owned(),
            pod_logs_dir: node.directory.path().join("logs"),
            figures: Default::default(),
            authenticator: office.authenticator(&node, true),
            authorizer: Authorizer::new(
                &[Mode::AlwaysAllow],
                &PolicyFile::open(None).expect("no file"),
                &node.reader,
            ),
            limits: Limits::default(),
        };
        let clock = Rc::new(Ahead {
            real: SystemClock::new().expect("clock"),
            by: Cell::default(),
        });
        let door = Door::on_clock(&node, options, clock.clone());
        let place = Place {
            node,
            office,
            cluster,
            clock,
            door,
        };
        place.cluster(|state| state.answers = true);
        place
    }

    pub fn cluster<T>(&self, change: impl FnOnce(&mut ClusterState) -> T) -> T {
        change(&mut self.cluster.state.lock().expect("no panic"))
    }

    pub fn later(&self, minutes: u64) {
        let by = &self.clock.by;
        by.set(by.get() + Duration::from_secs(60 * minutes));
    }

    fn certificate(&self, user: &str, group: &str) -> From {
        From::Kubelet(Some(self.office.client(&Signed::Well, user, group)))
    }

    fn root(&self) -> From {
        self.certificate("kube-apiserver-kubelet-client", "system:masters")
    }

    fn run<T>(&self, work: impl Future<Output = T>) -> T {
        in_time(self.door.executor.run(work))
    }

    /// Code, head and body of one request on a connection of its own.
    fn ask(&self, from: &From, method: &str, path: &str, authorization: &str) -> (u16, String) {
        let request = format!(
            "{method} {path} HTTP/1.1\r\nHost: pi\r\nConnection: close\r\n{authorization}\
             Content-Length: 0\r\n\r\n"
        );
        self.run(async {
            let mut wire = self.door.wire(from);
            wire.write_all(request.as_bytes()).await.expect("asked");
            let mut answer = String::new();
            wire.read_to_string(&mut answer).await.expect("answered");
            let (head, body) = answer.split_once("\r\n\r\n").expect("a head");
            (head[9..12].parse().expect("a code"), body.to_owned())
        })
    }

    pub fn bearer(&self, token: &str, method: &str, path: &str) -> (u16, String) {
        let authorization = format!("Authorization: Bearer {token}\r\n");
        self.ask(&From::Kubelet(None), method, path, &authorization)
    }
}

fn forbidden(user: &str, verb: &str, subresources: &str) -> String {
    format!(
        "Forbidden (user={user}, verb={verb}, resource=nodes, subresource(s)=[{subresources}])\n"
    )
}

/// Questions to the cluster at one time.
const UNDER_WAY_MAX: usize = 8;

pub const NOBODY: &str = "Unauthorized\n";
pub const SILENT: &str = "Unauthorized: the cluster cannot be asked\n";

#[test]
fn who_gets_in_is_the_clusters_word_and_never_the_apis_modes() {
    let place = Place::open();
    place.cluster(|state| {
        state.tokens.push(("m3tr1cs".to_owned(), "prometheus"));
        state.rights.push(("prometheus", "get", "metrics"));
        state.rights.push(("jane", "get", "proxy"));
    });
    let nobody = From::Kubelet(None);
    let ask = |from: &From, path| place.ask(from, "GET", path, "");
    assert_eq!(ask(&nobody, "/metrics"), (401, NOBODY.to_owned()));
    assert_eq!(ask(&nobody, "/nowhere"), (401, NOBODY.to_owned()));
    assert_eq!(place.bearer("wr0ng", "GET", "/metrics").0, 401);
    assert_eq!(place.bearer("m3tr1cs", "GET", "/metrics").0, 200);
    assert_eq!(place.bearer("m3tr1cs", "GET", "/metrics/resource").0, 200);
    let told = place.bearer("m3tr1cs", "GET", "/stats/summary");
    assert_eq!(told, (403, forbidden("prometheus", "get", "stats")));
    let told = place.bearer("m3tr1cs", "GET", "/pods");
    assert_eq!(told, (403, forbidden("prometheus", "get", "pods proxy")));

    // Reading rights run nothing, however it is asked.
    let jane = place.certificate("jane", "");
    assert_eq!(ask(&jane, "/pods").0, 200);
    assert_eq!(ask(&jane, "/configz").0, 200);
    for path in [
        "/exec/default/web/web?command=id&output=1",
        "/portForward/default/web",
    ] {
        let told = ask(&jane, path);
        assert_eq!(told, (403, forbidden("jane", "create", "proxy")), "{path}");
    }
    let told = place.ask(&jane, "POST", "/run/default/web/web?cmd=id", "");
    assert_eq!(told, (403, forbidden("jane", "create", "proxy")));

    // Whom this node itself made a master needs no cluster; whom its API knows by a token is nobody
    // here: in the cluster the name is somebody else's.
    let asked = place.cluster(|state| state.asked.len());
    assert_eq!(ask(&place.root(), "/metrics").0, 200);
    assert_eq!(place.bearer("adm1n", "GET", "/metrics").0, 200);
    let own = place.office.token(&account(&place.node), "", 0);
    assert_eq!(
        place.bearer(&own, "GET", "/metrics"),
        (401, NOBODY.to_owned())
    );
    assert_eq!(place.cluster(|state| state.asked.len()), asked);
    for signed in [Signed::ByAStranger, Signed::TooEarly, Signed::TooLate] {
        let identity = place.office.client(&signed, "x", "system:masters");
        assert_eq!(ask(&From::Kubelet(Some(identity)), "/metrics").0, 401);
    }
}

#[test]
fn what_the_cluster_has_allowed_goes_on_for_an_hour_without_it() {
    let place = Place::open();
    let short = place.office.forged(&account(&place.node));
    place.cluster(|state| {
        state.tokens.push(("m3tr1cs".to_owned(), "prometheus"));
        state.tokens.push((short.clone(), "short"));
        for user in ["prometheus", "short"] {
            state.rights.push((user, "get", "metrics"));
        }
    });
    let asked = || place.cluster(|state| state.asked.len());
    let ask = |token: &str, path| place.bearer(token, "GET", path);
    assert_eq!(ask("m3tr1cs", "/metrics").0, 200);
    assert_eq!(ask(&short, "/metrics").0, 200);
    assert_eq!(
        (ask("m3tr1cs", "/metrics").0, asked()),
        (200, 4),
        "remembered"
    );
    place.later(3);
    assert_eq!(
        (ask("m3tr1cs", "/metrics").0, asked()),
        (200, 5),
        "the token alone"
    );

    place.cluster(|state| state.answers = false);
    place.later(9);
    assert_eq!(ask("m3tr1cs", "/metrics").0, 200);
    // It lives ten minutes.
    assert_eq!(ask(&short, "/metrics"), (401, SILENT.to_owned()));
    assert_eq!(ask("new", "/metrics"), (401, SILENT.to_owned()));
    let silent = |text: String| text.replace('\n', ": the cluster cannot be asked\n");
    let told = ask("m3tr1cs", "/stats/summary");
    assert_eq!(told, (403, silent(forbidden("prometheus", "get", "stats"))));
    assert_eq!(place.ask(&place.root(), "GET", "/metrics", "").0, 200);
    // The right was learned before the token was reviewed again.
    place.later(49);
    let told = ask("m3tr1cs", "/metrics");
    assert_eq!(
        told,
        (403, silent(forbidden("prometheus", "get", "metrics")))
    );
    place.later(3);
    assert_eq!(ask("m3tr1cs", "/metrics"), (401, SILENT.to_owned()));

    // It is back, and has changed its mind meanwhile.
    place.cluster(|state| {
        state.answers = true;
        state.rights.clear();
    });
    let told = ask("m3tr1cs", "/metrics");
    assert_eq!(told, (403, forbidden("prometheus", "get", "metrics")));
    place.cluster(|state| state.answers = false);
    let told = ask("m3tr1cs", "/metrics");
    assert_eq!(
        told.0, 403,
        "a no lasts as long as it is fresh, and then it is still no yes"
    );
}

#[test]
fn a_crowd_of_strangers_keeps_neither_cluster_nor_masters_busy() {
    let place = Place::open();
    let (held, gate) = async_channel::bounded(1);
    place.cluster(|state| state.gate = Some(gate));
    let root = place.root();
    let codes = place.run(async {
        let (say, said) = async_channel::unbounded();
        for number in 0..UNDER_WAY_MAX + 1 {
            let (say, mut line) = (say.clone(), place.door.walk_in(&From::Kubelet(None)));
            let work = async move {
                let answer = line
                    .ask("GET", "/metrics", &format!("Bearer {number}"))
                    .await;
                let _ = say.send(answer.code).await;
            };
            place.door.executor.spawn(work).detach();
        }
        assert_eq!(
            said.recv().await,
            Ok(429),
            "one too many, while the others wait"
        );
        let master = place.door.walk_in(&root).ask("GET", "/metrics", "").await;
        assert_eq!(master.code, 200);
        drop(held);
        let mut codes = Vec::new();
        while codes.len() < UNDER_WAY_MAX {
            codes.push(said.recv().await.expect("all are answered"));
        }
        codes
    });
    assert_eq!(codes, [401; UNDER_WAY_MAX]);
    assert_eq!(place.cluster(|state| state.asked.len()), UNDER_WAY_MAX);
}

#[test]
fn documents_logs_and_commands_are_those_of_the_node() {
    let place = Place::open();
    let (root, uid) = (place.root(), uid(&place.node));
    let logs = place
        .node
        .directory
        .path()
        .join(format!("logs/default_web_{uid}/web"));
    std::fs::create_dir_all(&logs).expect("directory");
    let line = |n: u32| format!("2026-01-01T00:00:0{n}.000000000Z stdout F line {n}\n");
    std::fs::write(logs.join("0.log"), line(1) + &line(2) + &line(3)).expect("log");
    let get = |path: &str| place.ask(&root, "GET", path, "");
    for (path, part) in [
        ("/pods", r#""name":"web""#),
        ("/runningpods/", r#""name":"web""#),
        ("/stats/summary", r#""nodeName":"#),
        ("/metrics", "kubelet_running_pods 1\n"),
        ("/metrics", "lowtide_api_connections "),
        ("/metrics/cadvisor", "machine_cpu_cores"),
        ("/metrics/resource", "node_cpu_usage_seconds_total"),
        ("/metrics/probes", ""),
        (
            "/metrics/slis",
            r#"kubernetes_healthcheck{name="syncloop",type="healthz"} 1"#,
        ),
        ("/configz", r#"{"kubeletconfig":{"maxPods":7}}"#),
        ("/healthz", "ok"),
        ("/healthz/ping", "ok"),
        ("/healthz/syncloop", "ok"),
        ("/containerLogs/default/web/web", "line 1\nline 2\nline 3\n"),
        (
            "/containerLogs/default/web/web?tailLines=9&tail=1",
            "line 3\n",
        ),
        ("/containerLogs/default/web/web?limitBytes=6", "line 1"),
    ] {
        let (code, body) = get(path);
        assert!(code == 200 && body.contains(part), "{path}: {code} {body}");
    }
    let (_, last) = get("/containerLogs/default/web/web?tail=1");
    assert!(!last.contains("line 2"), "{last}");
}

#[test]
fn a_command_is_run_for_all_of_its_output() {
    let place = Place::open();
    let (root, uid) = (place.root(), uid(&place.node));
    let run = |path: &str| place.ask(&root, "POST", path, "");
    assert_eq!(
        run("/run/default/web/web?cmd=echo+a+b"),
        (200, "a b\n".to_owned())
    );
    let exact = format!("/run/default/web/{uid}/web?cmd=echo+a");
    assert_eq!(run(&exact), (200, "a\n".to_owned()));
    let (code, body) = run("/run/default/web/web?cmd=false");
    assert!(
        code == 500 && body.contains("exit status 1"),
        "{code} {body}"
    );
    let (code, body) = run("/run/default/web/web?cmd=head+-c+2000000+/dev/zero");
    assert!(code == 500 && body.contains("1048576 bytes"), "{code}");
}

#[test]
fn what_is_not_there_is_told_in_kubelets_words() {
    let place = Place::open();
    let root = place.root();
    for (method, path, code, text) in [
        (
            "GET",
            "/containerLogs/default/gone/web",
            404,
            "pod \"gone\" does not exist\n",
        ),
        (
            "GET",
            "/containerLogs/default/web/x",
            404,
            "container \"x\" not found in pod \"web\"\n",
        ),
        (
            "POST",
            "/run/default/gone/web?cmd=id",
            404,
            "pod does not exist\n",
        ),
        (
            "POST",
            "/exec/default/web/other-uid/web?command=id",
            404,
            "pod does not exist\n",
        ),
        (
            "POST",
            "/exec/default/web/x?command=id",
            404,
            "container not found (\"x\")\n",
        ),
        (
            "POST",
            "/exec/default/web/web?command=id",
            400,
            "you must specify at least 1 of stdin, stdout, stderr\n",
        ),
    ] {
        assert_eq!(
            place.ask(&root, method, path, ""),
            (code, text.to_owned()),
            "{path}"
        );
    }
    for (method, path, code) in [
        ("GET", "/containerLogs/default/web/web?sinceSeconds=0", 422),
        ("DELETE", "/pods", 405),
        ("GET", "/run/default/web/web?cmd=id", 405),
        ("GET", "/api/v1/pods", 404),
        ("GET", "/lowtide/v1/images", 404),
    ] {
        assert_eq!(
            place.ask(&root, method, path, "").0,
            code,
            "{method} {path}"
        );
    }
}

#[test]
fn what_is_turned_off_is_told_in_kubelets_words() {
    let place = Place::open();
    let root = place.root();
    for (method, path, code, text) in [
        ("GET", "/logs/syslog", 405, "logs endpoint is disabled.\n"),
        (
            "POST",
            "/checkpoint/default/gone/web",
            404,
            "pod does not exist\n",
        ),
        (
            "POST",
            "/checkpoint/default/web/x",
            404,
            "container x does not exist\n",
        ),
        (
            "POST",
            "/checkpoint/default/web/web",
            500,
            "checkpointing of default/web/web failed (checkpoints are not implemented)\n",
        ),
    ] {
        let told = place.ask(&root, method, path, "");
        assert_eq!(told, (code, text.to_owned()), "{path}");
    }
}

fn uid(node: &Node) -> String {
    let pod = node.get("/api/v1/namespaces/default/pods/web").json();
    pod["metadata"]["uid"].as_str().expect("a uid").to_owned()
}

/// The connection behind a 101 to SPDY.
async fn upgraded(mut wire: Async<UnixStream>, path: &str, protocol: &str) -> Async<UnixStream> {
    let request = format!(
        "POST {path} HTTP/1.1\r\nHost: pi\r\nConnection: Upgrade\r\nUpgrade: SPDY/3.1\r\n\
         X-Stream-Protocol-Version: {protocol}\r\nContent-Length: 0\r\n\r\n"
    );
    wire.write_all(request.as_bytes()).await.expect("asked");
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        wire.read_exact(&mut byte).await.expect("a head");
        head.push(byte[0]);
    }
    let head = String::from_utf8(head).expect("text");
    assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
    wire
}

fn over_spdy<T>(
    place: &Place,
    path: &str,
    protocol: &str,
    work: impl AsyncFnOnce(&Connection) -> T,
) -> T {
    place.run(async {
        let wire = upgraded(place.door.wire(&place.root()), path, protocol).await;
        let (reader, writer) = futures_lite::io::split(wire);
        let (connection, driver) =
            Connection::new(reader, writer, Role::Client, place.clock.clone());
        let driven = async {
            let _ = driver.await;
            future::pending().await
        };
        driven.or(work(&connection)).await
    })
}

const SCRIPT: &str = "input=1&output=1&error=1&command=sh&command=-c\
                      &command=cat%3B%20echo%20err%20%3E%262%3B%20exit%203";

#[test]
fn a_kube_apiserver_streams_over_spdy() {
    let place = Place::open();
    let path = format!("/exec/default/web/web?{SCRIPT}");
    over_spdy(&place, &path, "v4.channel.k8s.io", async |connection| {
        let error = open(connection, "error");
        let stdin = open(connection, "stdin");
        let (stdout, stderr) = (open(connection, "stdout"), open(connection, "stderr"));
        stdin
            .send(Bytes::from_static(b"typed"))
            .await
            .expect("sent");
        stdin.finish().await.expect("ended");
        assert_eq!(text(&stdout).await, "typed");
        assert_eq!(text(&stderr).await, "err\n");
        let status: Value = serde_json::from_str(&text(&error).await).expect("a Status");
        assert_eq!(status["details"]["causes"][0]["message"], "3");
    });
    let path = "/attach/default/web/web?input=1&output=1&error=1";
    over_spdy(&place, path, "v4.channel.k8s.io", async |connection| {
        let error = open(connection, "error");
        let stdin = open(connection, "stdin");
        let (stdout, _stderr) = (open(connection, "stdout"), open(connection, "stderr"));
        stdin
            .send(Bytes::from_static(b"hello"))
            .await
            .expect("sent");
        stdin.finish().await.expect("ended");
        assert_eq!(text(&stdout).await, "ready\nhello");
        assert!(text(&error).await.contains("Success"));
    });
    let path = format!("/portForward/default/web/{}", uid(&place.node));
    over_spdy(&place, &path, "portforward.k8s.io", all_of_it);
}

#[test]
fn a_kube_apiserver_passes_web_sockets_on() {
    let place = Place::open();
    let (stdout, status) = place.run(async {
        let wire = place.door.wire(&place.root());
        let path = format!("/exec/default/web/web?{SCRIPT}");
        let connected = websocket::connect(Box::new(wire), &path, &[websocket::V5]).await;
        let (mut socket, agreed) = connected.expect("upgraded");
        assert_eq!(agreed, websocket::V5);
        for frame in [Frame::Stdin("typed".into()), Frame::StdinClosed] {
            let message = Message::from(frame.encode());
            socket.send(message).await.expect("sent");
        }
        let mut stdout = String::new();
        loop {
            let message = socket.next().await.expect("a Status at the end");
            let Message::Binary(bytes) = message.expect("a message") else {
                continue;
            };
            match Frame::decode(&bytes) {
                Some(Frame::Stdout(bytes)) => stdout.push_str(&String::from_utf8_lossy(&bytes)),
                Some(Frame::Error(bytes)) => {
                    let status: Value = serde_json::from_slice(&bytes).expect("a Status");
                    return (stdout, status);
                }
                _ => {}
            }
        }
    });
    assert_eq!(stdout, "typed");
    assert_eq!(status["details"]["causes"][0]["message"], "3");
    place.run(async {
        let wire = place.door.wire(&place.root());
        let tunnel = "SPDY/3.1+portforward.k8s.io";
        let path = "/portForward/default/web";
        let connected = websocket::connect(Box::new(wire), path, &[tunnel]).await;
        let (socket, agreed) = connected.expect("upgraded");
        assert_eq!(agreed, tunnel);
        let (reader, writer) = lowtide::net::tunnel::open(socket);
        let (connection, driver) =
            Connection::new(reader, writer, Role::Client, place.clock.clone());
        let driven = async {
            let _ = driver.await;
            future::pending().await
        };
        driven.or(all_of_it(&connection)).await;
    });
}

#[test]
fn a_pod_of_another_node_is_not_reached_from_here() {
    let place = Place::open();
    let node = &place.node;
    let body = json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": "far", "namespace": "default"},
        "spec": {"nodeName": "other", "containers": [{"name": "web", "image": "busybox"}]},
    });
    node.create(Kind::Pod, "far", body);
    for what in [
        "log",
        "exec?command=id&stdout=1",
        "attach?stdout=1",
        "portforward",
    ] {
        let answer = node.get(&format!("/api/v1/namespaces/default/pods/far/{what}"));
        assert_eq!(answer.code, 400, "{what}");
        let message = answer.json()["message"].to_string();
        assert!(message.contains("runs on node"), "{what}: {message}");
    }
    let (_, pods) = place.ask(&place.root(), "GET", "/pods", "");
    assert!(!pods.contains("\"far\""), "{pods}");
    let told = place.ask(&place.root(), "GET", "/containerLogs/default/far/web", "");
    assert_eq!(told, (404, "pod \"far\" does not exist\n".to_owned()));
}
