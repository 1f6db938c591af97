//! Servers that say nothing, slots that are taken, programs that fail: who waits, and for how long.

use std::net::TcpListener;
use std::path::Path;

use async_executor::LocalExecutor;
use futures_lite::future::or;

use super::super::kubeconfig::{Exec, Login};
use super::super::testing::{Hurried, Seen, Server, Then, answer};
use super::*;
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
