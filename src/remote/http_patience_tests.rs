//! Servers that say nothing, slots that are taken, programs that fail: who waits, and for how long.

use std::net::TcpListener;
use std::path::Path;

use async_executor::LocalExecutor;
use futures_lite::future::or;
use serde_json::json;

use super::super::kubeconfig::{Exec, Login};
use super::super::testing::{Hurried, Seen, Server, Then, answer};
use super::*;
use crate::net::tls::Verification;
use crate::os::clock::SystemClock;

const LEASE: &str = "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases/pi";

/// The answer's status, or `None` if there is none in time.
async fn within(cluster: &HttpCluster, path: &str, span: Duration) -> Option<u16> {
    let asked = async {
        let reply = cluster.call(Call::get(path)).await;
        Some(reply.expect("an answer").status)
    };
    let clock = &cluster.clock;
    let late = async {
        clock.sleep_until(clock.now() + span).await;
        None
    };
    or(asked, late).await
}

#[test]
fn who_gives_up_before_silent_servers_do_still_comes_to_the_others() {
    let executor = LocalExecutor::new();
    let script = |_: &Seen| (answer("200 OK", "", b"{}"), Then::Stay);
    let server = Server::start(&executor, Rc::new(script));
    let mut settings = server.settings();
    // The kernel takes connections, and nobody talks.
    let silent = [(); 2].map(|()| TcpListener::bind("127.0.0.1:0").expect("a port"));
    for one in &silent {
        let url = format!("https://{}", one.local_addr().expect("bound"));
        settings.servers.insert(0, url.parse().expect("a URL"));
    }
    let clock = Hurried(SystemClock::new().expect("clock"));
    let cluster = HttpCluster::new(Rc::new(clock), settings);
    async_io::block_on(executor.run(async {
        let patience = TIMEOUTS.connect + TIMEOUTS.connect / 2;
        let mut tries = 1;
        while within(&cluster, LEASE, patience).await.is_none() {
            tries += 1;
            assert!(tries < 8, "never past the silent ones");
        }
        assert_eq!(cluster.preferred.get(), 2);
    }));
}

#[test]
fn a_server_that_is_sick_is_left_for_the_next_at_one_call_each() {
    let executor = LocalExecutor::new();
    let begin = |status: &Rc<Cell<&'static str>>| {
        let status = status.clone();
        let script = move |_: &Seen| (answer(status.get(), "", b"{}"), Then::Stay);
        Server::start(&executor, Rc::new(script))
    };
    let states = [(); 2].map(|()| Rc::new(Cell::new("200 OK")));
    let servers = states.each_ref().map(begin);
    let mut settings = servers[0].settings();
    settings.servers.push(servers[1].url());
    (settings.authority, settings.verification) = (None, Verification::Skip);
    let clock = Rc::new(SystemClock::new().expect("clock"));
    let cluster = HttpCluster::new(clock, settings);
    let seen = || servers.each_ref().map(|server| server.seen.borrow().len());
    let pod = "/api/v1/namespaces/default/pods/web/status";
    let refused = async || match cluster.watch("/api/v1/pods?watch=true".to_owned()).await {
        Err(NoWatch::Refused(reply)) => Some(reply.status),
        Err(NoWatch::NoAnswer(why)) => panic!("{why}"),
        Ok(_) => None,
    };
    let lease = async |verb| {
        let path = LEASE.to_owned();
        let body = None;
        let reply = cluster.call(Call { verb, path, body }).await;
        reply.expect("an answer").status
    };
    async_io::block_on(executor.run(async {
        assert_eq!(lease(Verb::Get).await, 200);
        states[0].set("503 Service Unavailable");
        // It may be about this pod alone.
        let patch = cluster.call(Call::with(Verb::Patch, pod.to_owned(), json!({})));
        assert_eq!(patch.await.expect("an answer").status, 503);
        assert_eq!(lease(Verb::Update).await, 503);
        assert_eq!(lease(Verb::Update).await, 200);
        assert_eq!(refused().await, None);
        assert_eq!((cluster.preferred.get(), seen()), (1, [3, 2]));
        states[1].set("500 Internal Server Error");
        assert_eq!(refused().await, Some(500));
        assert_eq!(refused().await, Some(503));
        // All of them are.
        for _ in 0..4 {
            assert!(lease(Verb::Get).await >= 500);
        }
        assert_eq!(seen(), [6, 5]);
        states[0].set("200 OK");
        lease(Verb::Get).await;
        assert_eq!(lease(Verb::Get).await, 200);
        assert_eq!(cluster.preferred.get(), 0);
    }));
    // Connections are kept though servers take turns: one for calls, and one for each watch.
    for server in &servers {
        assert!(*server.connections().iter().max().expect("some") <= 2);
    }
}

#[test]
fn the_lease_waits_for_no_list() {
    let executor = LocalExecutor::new();
    let script = |seen: &Seen| match seen.head.contains("/pods") {
        true => (
            b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{".to_vec(),
            Then::Stay,
        ),
        false => (answer("200 OK", "", b"{}"), Then::Stay),
    };
    let server = Server::start(&executor, Rc::new(script));
    let clock = Rc::new(SystemClock::new().expect("clock"));
    let cluster = Rc::new(HttpCluster::new(clock, server.settings()));
    for _ in 0..CALLS_MAX {
        let cluster = cluster.clone();
        let list = async move { cluster.call(Call::get("/api/v1/pods")).await };
        executor.spawn(list).detach();
    }
    async_io::block_on(executor.run(async {
        while server.seen.borrow().len() < CALLS_MAX {
            futures_lite::future::yield_now().await;
        }
        let short = Duration::from_secs(10);
        assert_eq!(within(&cluster, LEASE, short).await, Some(200));
        assert_eq!(
            within(&cluster, "/api/v1/nodes/pi/status", short).await,
            Some(200)
        );
        let brief = Duration::from_millis(100);
        assert_eq!(within(&cluster, "/api/v1/services", brief).await, None);
    }));
}

#[test]
fn a_program_that_fails_is_run_less_and_less_often() {
    let directory = tempfile::tempdir().expect("directory");
    let runs = directory.path().join("runs");
    let executor = LocalExecutor::new();
    let script = |_: &Seen| (answer("200 OK", "", b"{}"), Then::Stay);
    let server = Server::start(&executor, Rc::new(script));
    let exec = Exec {
        api_version: "client.authentication.k8s.io/v1".into(),
        command: Path::new("sh").into(),
        arguments: vec!["-c".into(), format!("echo >> {}; exit 1", runs.display())],
        environment: Vec::new(),
        cluster: None,
        install_hint: String::new(),
    };
    let settings = Settings {
        login: Login::Exec(exec),
        ..server.settings()
    };
    let clock = Rc::new(Hurried(SystemClock::new().expect("clock")));
    let cluster = HttpCluster::new(clock.clone(), settings);
    let runs = || std::fs::read(&runs).map_or(0, |lines| lines.len());
    async_io::block_on(executor.run(async {
        let begun = clock.now();
        while clock.now().since(begun) < Duration::from_secs(100) {
            assert!(cluster.call(Call::get(LEASE)).await.is_err());
            clock
                .sleep_until(clock.now() + Duration::from_secs(1))
                .await;
        }
        // At 0, 10, 30 and 70 s.
        assert!((2..=4).contains(&runs()), "{}", runs());
        assert!(!cluster.has_nothing_to_show(), "it may need the network");
        // Somebody says that something has changed.
        let before = runs();
        cluster.refresh();
        assert!(cluster.call(Call::get(LEASE)).await.is_err());
        assert_eq!(runs(), before + 1);
    }));
}
