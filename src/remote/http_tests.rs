//! Against a scripted server.

use std::net::TcpListener;
use std::path::Path;

use async_executor::LocalExecutor;
use futures_lite::future;
use serde_json::json;

use super::super::kubeconfig::{Content, Exec, Login};
use super::super::link::Link;
use super::super::paths::Selection;
use super::super::reflector::Reflector;
use super::super::testing::{Hurried, Script, Seen, Server, Then, answer, validity};
use super::*;
use crate::net::certificates::{Authority, Purpose};
use crate::net::tls::Verification;
use crate::object::Kind;
use crate::os::clock::SystemClock;
use crate::os::random::SystemRandom;

fn ok() -> (Vec<u8>, Then) {
    (answer("200 OK", "", br#"{"kind":"Lease"}"#), Then::Stay)
}

fn run<F: Future<Output = ()>>(test: impl FnOnce(LocalExecutor<'static>, Rc<dyn Clock>) -> F) {
    let clock = Hurried(SystemClock::new().expect("clock"));
    async_io::block_on(test(LocalExecutor::new(), Rc::new(clock)));
}

/// Runs the server and what asks it.
async fn with<T>(executor: &LocalExecutor<'static>, work: impl Future<Output = T>) -> T {
    executor.run(work).await
}

const PATH: &str = "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases/pi";

#[test]
fn calls_share_a_connection_and_say_who_asks() {
    run(|executor, clock| async move {
        let server = Server::start(&executor, Rc::new(|_| ok()));
        let purpose = Purpose::Client {
            user: "system:node:pi".into(),
            group: "system:nodes".into(),
        };
        let client = server.authority.issue(&purpose, validity()).expect("issue");
        let settings = Settings {
            certificate: Some((
                Content::Here(client.certificate.into_bytes()),
                Content::Here(client.key.into_bytes()),
            )),
            login: Login::Token("t0k".into()),
            impersonate: vec![("Impersonate-User".into(), "someone".into())],
            ..server.settings()
        };
        let cluster = HttpCluster::new(clock, settings);
        with(&executor, async {
            for verb in [Verb::Get, Verb::Update, Verb::Patch, Verb::Create] {
                let body = (verb != Verb::Get).then(|| json!({"a": 1}));
                let path = PATH.to_owned();
                let reply = cluster
                    .call(Call { verb, path, body })
                    .await
                    .expect("answered");
                assert_eq!(
                    (reply.status, &reply.body),
                    (200, &json!({"kind": "Lease"}))
                );
            }
            cluster.reconnect();
            cluster.call(Call::get(PATH)).await.expect("answered");
        })
        .await;
        assert_eq!(server.connections(), [0, 0, 0, 0, 1]);
        let seen = server.seen.borrow();
        for request in &*seen {
            assert_eq!(request.user, "system:node:pi");
            for line in [
                "accept: application/json",
                "authorization: Bearer t0k",
                "impersonate-user: someone",
            ] {
                assert!(request.has(line), "{line}: {}", request.head);
            }
            assert!(
                request.head.contains("user-agent: kubelet/v1.36.0 (linux/"),
                "{}",
                request.head
            );
        }
        assert!(
            seen[0].head.starts_with(&format!("GET {PATH} HTTP/1.1")),
            "{}",
            seen[0].head
        );
        assert!(seen[1].has("content-type: application/json") && seen[1].body == r#"{"a":1}"#);
        assert!(seen[2].has("content-type: application/strategic-merge-patch+json"));
    });
}

#[test]
fn a_connection_that_closed_while_idle_is_dialled_anew_without_an_error() {
    run(|executor, clock| async move {
        let script = |_: &Seen| (ok().0, Then::Close);
        let server = Server::start(&executor, Rc::new(script));
        let cluster = HttpCluster::new(clock, server.settings());
        with(&executor, async {
            for verb in [Verb::Get, Verb::Update, Verb::Create] {
                let path = PATH.to_owned();
                let call = Call {
                    verb,
                    path,
                    body: None,
                };
                assert!(cluster.call(call).await.expect("answered").is_success());
                // The end of the connection is here before the next call.
                while server.closed.get() < server.connections().len() {
                    future::yield_now().await;
                }
            }
        })
        .await;
        assert_eq!(server.connections(), [0, 1, 2]);
    });
}

#[test]
fn what_may_have_been_carried_out_is_repeated_only_if_it_can_be() {
    run(|executor, clock| async move {
        // The second request of each connection dies without an answer.
        let count = RefCell::new(std::collections::BTreeMap::new());
        let script = move |seen: &Seen| {
            let mut count = count.borrow_mut();
            let of_this = count.entry(seen.connection).or_insert(0);
            *of_this += 1;
            match *of_this {
                1 => ok(),
                _ => (Vec::new(), Then::Close),
            }
        };
        let server = Server::start(&executor, Rc::new(script));
        let cluster = HttpCluster::new(clock, server.settings());
        let call = |verb| {
            cluster.call(Call {
                verb,
                path: PATH.into(),
                body: None,
            })
        };
        with(&executor, async {
            call(Verb::Get).await.expect("first");
            call(Verb::Update)
                .await
                .expect("repeated over another connection");
            let lost = call(Verb::Create).await;
            assert!(matches!(lost, Err(NoAnswer::Unreachable(_))), "{lost:?}");
            call(Verb::Create).await.expect("over a new connection");
        })
        .await;
        assert_eq!(server.connections(), [0, 0, 1, 1, 2]);
    });
}

#[test]
fn a_lost_call_is_asked_anew_only_where_that_does_no_harm() {
    let (broken, late) = (|| Error::Broken("".into()), || Error::Timeout("".into()));
    for (error, sent, method, expected) in [
        (broken(), Sent::Nothing, Method::POST, true),
        (broken(), Sent::Perhaps, Method::POST, false),
        (broken(), Sent::Perhaps, Method::PATCH, false),
        (broken(), Sent::Perhaps, Method::PUT, true),
        (late(), Sent::Perhaps, Method::GET, false),
    ] {
        let lost = Unanswered { error, sent };
        assert_eq!(is_asked_anew(&lost, &method), expected, "{method} {lost:?}");
    }
}

#[test]
fn a_call_under_way_while_connections_are_forgotten_leaves_none_behind() {
    run(|executor, clock| async move {
        let slot = Rc::new(std::cell::OnceCell::new());
        let cluster = slot.clone();
        let script = move |_: &Seen| {
            cluster
                .get()
                .inspect(|cluster: &&Rc<HttpCluster>| cluster.reconnect());
            ok()
        };
        let server = Server::start(&executor, Rc::new(script));
        let cluster = Rc::new(HttpCluster::new(clock, server.settings()));
        with(&executor, async {
            let call = || cluster.call(Call::get(PATH));
            call().await.expect("kept open");
            assert!(slot.set(cluster.clone()).is_ok());
            call().await.expect("over the same, forgotten meanwhile");
            call().await.expect("over a new one");
        })
        .await;
        assert_eq!(server.connections(), [0, 0, 1]);
    });
}

#[test]
fn only_the_authority_of_the_kubeconfig_counts() {
    run(|executor, clock| async move {
        let server = Server::start(&executor, Rc::new(|_| ok()));
        let (_, other) = Authority::make("another", validity()).expect("CA");
        let ours = server.settings();
        let theirs = Settings {
            authority: Some(Content::Here(other.certificate.into_bytes())),
            ..server.settings()
        };
        let named = |name: &str| Settings {
            server_name: Some(name.to_owned()),
            ..server.settings()
        };
        let nobody = Settings {
            authority: None,
            ..server.settings()
        };
        let anybody = Settings {
            verification: Verification::Skip,
            ..nobody.clone()
        };
        with(&executor, async {
            for (settings, good) in [
                (ours.clone(), true),
                (theirs, false),
                (named("kubernetes"), true),
                (named("pi"), false),
                (nobody, false),
                (anybody, true),
            ] {
                let cluster = HttpCluster::new(clock.clone(), settings);
                match cluster.call(Call::get("/version")).await {
                    Ok(_) => assert!(good),
                    Err(NoAnswer::Unusable(why)) => {
                        assert!(!good && why.contains("certificate"), "{why}");
                    }
                    Err(why) => panic!("{why}"),
                }
            }
        })
        .await;
    });
}

/// A server that takes one token.
fn wants(token: &'static str) -> Script {
    Rc::new(
        move |seen: &Seen| match seen.has(&format!("authorization: Bearer {token}")) {
            true => ok(),
            false => (
                answer("401 Unauthorized", "", b"{\"code\":401}"),
                Then::Stay,
            ),
        },
    )
}

async fn status(cluster: &HttpCluster) -> u16 {
    cluster
        .call(Call::get("/version"))
        .await
        .expect("answered")
        .status
}

#[test]
fn a_token_that_is_refused_is_read_again_and_the_call_repeated() {
    let directory = tempfile::tempdir().expect("directory");
    let path = directory.path().join("token");
    run(|executor, clock| async move {
        let server = Server::start(&executor, wants("new"));
        std::fs::write(&path, "old\n").expect("write");
        let settings = Settings {
            login: Login::TokenFile {
                path: path.clone(),
                otherwise: None,
            },
            ..server.settings()
        };
        let cluster = HttpCluster::new(clock, settings);
        with(&executor, async {
            assert_eq!(status(&cluster).await, 401);
            std::fs::write(&path, "new\n").expect("write");
            assert_eq!(status(&cluster).await, 200);
            // What cannot be read leaves what was.
            std::fs::remove_file(&path).expect("remove");
            assert_eq!(status(&cluster).await, 200);
        })
        .await;
        assert_eq!(server.connections(), [0, 0, 0, 0]);
        let absent = Settings {
            login: Login::TokenFile {
                path: path.clone(),
                otherwise: None,
            },
            ..server.settings()
        };
        let clock = Rc::new(SystemClock::new().expect("clock"));
        let cluster = HttpCluster::new(clock, absent);
        let lost = with(&executor, cluster.call(Call::get("/version"))).await;
        assert!(matches!(lost, Err(NoAnswer::Unusable(why)) if why.contains("/token: ")));
    });
}

#[test]
fn a_program_is_asked_again_when_the_cluster_refuses_what_it_gave() {
    let directory = tempfile::tempdir().expect("directory");
    let path = directory.path().join("credential");
    let file = path.clone();
    let write = move |token: &str| {
        let object = json!({
            "kind": "ExecCredential",
            "apiVersion": "client.authentication.k8s.io/v1",
            "status": { "token": token },
        });
        std::fs::write(&file, object.to_string()).expect("write");
    };
    run(|executor, clock| async move {
        let server = Server::start(&executor, wants("new"));
        let exec = Exec {
            api_version: "client.authentication.k8s.io/v1".into(),
            command: Path::new("cat").into(),
            arguments: vec![path.display().to_string()],
            environment: Vec::new(),
            cluster: None,
            install_hint: String::new(),
        };
        let settings = Settings {
            login: Login::Exec(exec),
            ..server.settings()
        };
        let cluster = HttpCluster::new(clock.clone(), settings);
        with(&executor, async {
            write("old");
            assert_eq!(status(&cluster).await, 401);
            write("new");
            // Not before it may run again.
            clock
                .sleep_until(clock.now() + Duration::from_secs(11))
                .await;
            assert_eq!(status(&cluster).await, 200);
        })
        .await;
    });
}

#[test]
fn servers_are_tried_in_turn_and_the_last_that_answered_comes_first() {
    run(|executor, clock| async move {
        let server = Server::start(&executor, Rc::new(|_| ok()));
        let unused = TcpListener::bind("127.0.0.1:0")
            .expect("a port")
            .local_addr()
            .unwrap();
        let mut settings = server.settings();
        settings
            .servers
            .insert(0, format!("https://{unused}").parse().unwrap());
        let cluster = HttpCluster::new(clock, settings);
        with(&executor, async {
            for _ in 0..2 {
                assert_eq!(status(&cluster).await, 200);
                assert_eq!(cluster.preferred.get(), 1);
            }
        })
        .await;
        assert_eq!(server.connections(), [0, 0]);
    });
}

#[test]
fn answers_are_unpacked_and_refusals_say_when_to_come_again() {
    run(|executor, clock| async move {
        let script = |seen: &Seen| {
            if seen.head.contains("/packed") {
                let plain = json!({"items": vec!["x"; 50_000]}).to_string();
                let level = flate2::Compression::fast();
                let mut packed = Vec::new();
                let mut encoder = flate2::read::GzEncoder::new(plain.as_bytes(), level);
                std::io::Read::read_to_end(&mut encoder, &mut packed).expect("pack");
                assert!(packed.len() < plain.len() / 10);
                return (
                    answer("200 OK", "Content-Encoding: gzip\r\n", &packed),
                    Then::Stay,
                );
            }
            if seen.head.contains("/portal") {
                return (answer("200 OK", "", b"<html>log in</html>"), Then::Stay);
            }
            let body = br#"{"kind":"Status","message":"slowly"}"#;
            (
                answer("429 Too Many Requests", "Retry-After: 7\r\n", body),
                Then::Stay,
            )
        };
        let server = Server::start(&executor, Rc::new(script));
        let cluster = HttpCluster::new(clock, server.settings());
        with(&executor, async {
            let reply = cluster.call(Call::get("/packed")).await.expect("answered");
            assert_eq!(reply.body["items"].as_array().map(Vec::len), Some(50_000));
            let reply = cluster.call(Call::get("/x")).await.expect("answered");
            assert_eq!((reply.status, reply.message()), (429, "slowly"));
            assert_eq!(reply.retry_after, Some(Duration::from_secs(7)));
            let portal = cluster.call(Call::get("/portal")).await;
            assert!(matches!(portal, Err(NoAnswer::Unusable(_))), "{portal:?}");
        })
        .await;
    });
}

/// Some object of the cluster, as `Reflector` asks for it.
fn pods() -> Selection {
    Selection {
        kind: Kind::Pod,
        namespace: String::new(),
        fields: "spec.nodeName=pi".into(),
    }
}

#[test]
fn a_captive_portal_is_a_link_that_is_down_and_never_an_empty_list() {
    let html = "Content-Type: text/html; charset=utf-8\r\n";
    let elsewhere = "Location: http://login.example/\r\n";
    let page = b"<html>log in</html>".as_slice();
    let pages = [
        ("200 OK", html, page),
        ("200 OK", "", page),
        ("302 Found", elsewhere, page),
        ("307 Temporary Redirect", elsewhere, b""),
        ("401 Unauthorized", html, page),
        ("404 Not Found", html, page),
        ("503 Service Unavailable", html, page),
        ("511 Network Authentication Required", html, page),
        ("200 OK", "", br#"{"login": "here"}"#),
        ("200 OK", "", b"null"),
    ];
    run(|executor, clock| async move {
        let at = Rc::new(Cell::new(usize::MAX));
        let now = at.clone();
        let list = br#"{"kind":"PodList","metadata":{"resourceVersion":"7"},"items":null}"#;
        let script = move |seen: &Seen| match pages.get(now.get()) {
            Some((status, headers, body)) => (answer(status, headers, body), Then::Close),
            None if seen.head.contains("watch=") => (Vec::new(), Then::Close),
            None => (answer("200 OK", "", list), Then::Stay),
        };
        let server = Server::start(&executor, Rc::new(script));
        let cluster = Rc::new(HttpCluster::new(clock.clone(), server.settings()));
        let link = Rc::new(Link::new(cluster, clock.clone(), Rc::new(SystemRandom)));
        let pods = Reflector::new(link.clone(), pods());
        let story = async {
            for (index, (_, headers, body)) in pages.iter().enumerate() {
                at.set(index);
                let watched = link.watch("/api/v1/pods?watch=true".into()).await;
                let json = body.starts_with(b"{") || *body == b"null";
                match watched {
                    Err(NoWatch::NoAnswer(NoAnswer::Unusable(_))) => assert!(!link.is_up()),
                    // What a watch says is looked at line by line.
                    Ok(_) => assert!(json || headers.is_empty()),
                    Err(NoWatch::Refused(reply)) => panic!("{index}: {reply:?}"),
                    Err(NoWatch::NoAnswer(why)) => panic!("{index}: {why}"),
                }
                let reply = link.call(Call::get("/api/v1/pods")).await;
                assert!(
                    json || matches!(reply, Err(NoAnswer::Unusable(_))),
                    "{index}: {reply:?}"
                );
                assert!(link.is_up() == json && !pods.has_listed(), "{index}");
                clock
                    .sleep_until(clock.now() + Duration::from_secs(40))
                    .await;
                assert!(!pods.has_listed(), "{index}");
            }
            at.set(usize::MAX);
            while !pods.has_listed() {
                clock
                    .sleep_until(clock.now() + Duration::from_secs(1))
                    .await;
            }
        };
        with(&executor, future::or(story, pods.run())).await;
    });
}

#[test]
fn the_time_of_a_trusted_server_is_heard_and_of_no_other() {
    struct Ears(SystemClock, Rc<Cell<u32>>);
    impl Clock for Ears {
        fn now(&self) -> BootTime {
            self.0.now()
        }
        fn wall(&self) -> jiff::Timestamp {
            self.0.wall()
        }
        fn hear(&self, told: jiff::Timestamp, until: jiff::Timestamp) {
            assert_eq!((told.as_second(), until), (784_111_777, validity().until));
            self.1.set(self.1.get() + 1);
        }
        fn sleep_until(&self, deadline: BootTime) -> LocalFuture<'static, ()> {
            self.0.sleep_until(deadline)
        }
    }
    run(|executor, _| async move {
        let date = "Date: Sun, 06 Nov 1994 08:49:37 GMT\r\n";
        let script = move |_: &Seen| (answer("200 OK", date, b"{}"), Then::Stay);
        let server = Server::start(&executor, Rc::new(script));
        let believing = Settings {
            verification: Verification::Skip,
            authority: None,
            ..server.settings()
        };
        let heard = Rc::new(Cell::new(0));
        for (settings, expected) in [(believing, 0), (server.settings(), 1)] {
            let clock = SystemClock::new().expect("clock");
            let cluster = HttpCluster::new(Rc::new(Ears(clock, heard.clone())), settings);
            assert_eq!(with(&executor, status(&cluster)).await, 200);
            assert_eq!(heard.get(), expected);
        }
    });
}

#[test]
fn a_server_that_says_nothing_is_unreachable_in_the_end() {
    run(|executor, clock| async move {
        let server = Server::start(&executor, Rc::new(|_| (Vec::new(), Then::Stay)));
        let cluster = HttpCluster::new(clock, server.settings());
        let lost = with(&executor, cluster.call(Call::get("/version"))).await;
        assert!(
            matches!(&lost, Err(NoAnswer::Unreachable(why)) if why.contains("timeout")),
            "{lost:?}"
        );
    });
}

#[test]
fn a_watch_gives_events_as_they_come_and_tells_an_end_from_a_break() {
    run(|executor, clock| async move {
        let head = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
        let chunk = |text: &str| format!("{:x}\r\n{text}\r\n", text.len());
        let split = [
            chunk("{\"type\":\"ADDED\"}\n{\"type\""),
            chunk(":\"BOOKMARK\"}\n\n"),
        ]
        .concat();
        let script = move |seen: &Seen| {
            let path = seen.head.split(' ').nth(1).unwrap_or_default();
            let (rest, then) = match path.split(['/', '?']).nth(1) {
                Some("ends") => ("0\r\n\r\n".to_owned(), Then::Stay),
                Some("breaks") => (String::new(), Then::Close),
                Some("halves") => (chunk("{\"type\":") + "0\r\n\r\n", Then::Stay),
                Some("falls-silent") => (String::new(), Then::Stay),
                _ => {
                    return (
                        answer("410 Gone", "", b"{\"reason\":\"Expired\"}"),
                        Then::Stay,
                    );
                }
            };
            ([head, &split, &rest].concat().into_bytes(), then)
        };
        let server = Server::start(&executor, Rc::new(script));
        let cluster = HttpCluster::new(clock, server.settings());
        with(&executor, async {
            for (path, reachable) in [
                ("/ends", true),
                ("/breaks", false),
                ("/halves", false),
                ("/falls-silent", false),
            ] {
                let path = format!("{path}?watch=true&timeoutSeconds=1");
                let Ok(mut watch) = cluster.watch(path.clone()).await else {
                    panic!("{path} must open");
                };
                for kind in ["ADDED", "BOOKMARK"] {
                    let event = watch.next().await.expect("event").expect("no end");
                    assert_eq!(event, json!({ "type": kind }));
                }
                match watch.next().await {
                    Ok(None) => assert!(reachable, "{path}"),
                    Err(NoAnswer::Unreachable(why)) => assert!(!reachable, "{path}: {why}"),
                    other => panic!("{path}: {other:?}"),
                }
            }
            match cluster.watch("/old?watch=true".to_owned()).await {
                Err(NoWatch::Refused(reply)) => assert_eq!(reply.body["reason"], "Expired"),
                Err(NoWatch::NoAnswer(why)) => panic!("{why}"),
                Ok(_) => panic!("must be refused"),
            }
        })
        .await;
        // Each has a connection of its own.
        assert_eq!(server.connections(), [0, 1, 2, 3, 4]);
    });
}

#[test]
fn an_event_without_end_is_an_error() {
    let mut lines = Lines::default();
    lines.push(&vec![b'x'; LINE_BYTES_MAX]);
    assert_eq!(lines.next(), Ok(None));
    lines.push(b"x");
    assert!(lines.next().is_err());
}

#[test]
fn paths_go_below_that_of_the_server() {
    for (base, url_) in [
        ("https://h", "https://h/api?x=1"),
        ("https://h:1/", "https://h:1/api?x=1"),
        ("http://[::1]:8/k8s/c-1/", "http://[::1]:8/k8s/c-1/api?x=1"),
    ] {
        assert_eq!(url(&base.parse().unwrap(), "/api?x=1").unwrap(), *url_);
    }
    for (path, seconds) in [("/a?watch=1&timeoutSeconds=300", 300), ("/a", 3600)] {
        assert_eq!(watch_timeout(path), Duration::from_secs(seconds));
    }
}
