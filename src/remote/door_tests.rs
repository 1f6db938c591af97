//! A kubeconfig that comes late, is replaced, and is refused, before a scripted server.

use async_executor::LocalExecutor;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use futures_lite::future;

use super::super::testing::{Hurried, Seen, Server, Then, answer, validity};
use super::*;
use crate::net::certificates::Purpose;
use crate::os::clock::SystemClock;

/// A kubeconfig with this token.
fn config(server: &Server, token: &str) -> String {
    let authority = STANDARD.encode(&server.ca.certificate);
    format!(
        "current-context: c\nclusters:\n- name: c\n  cluster: {{server: '{}', proxy-url: '', \
         certificate-authority-data: {authority}}}\nusers:\n- name: u\n  user: {{token: {token}}}\n\
         contexts:\n- name: c\n  context: {{cluster: c, user: u}}\n",
        server.url()
    )
}

#[test]
fn a_kubeconfig_may_come_late_and_is_read_again_only_when_it_is_refused() {
    let directory = tempfile::tempdir().expect("directory");
    let path = directory.path().join("kubelet.conf");
    let executor = LocalExecutor::new();
    let script = |seen: &Seen| match seen.has("authorization: Bearer good") {
        true => (answer("200 OK", "", b"{}"), Then::Stay),
        false => (answer("401 Unauthorized", "", b"{}"), Then::Stay),
    };
    let server = Server::start(&executor, Rc::new(script));
    let clock = Rc::new(Hurried(SystemClock::new().expect("clock")));
    let door = KubeconfigCluster::new("--kubeconfig", &path, Vec::new(), clock.clone());
    let status = async || match door.call(Call::get("/version")).await {
        Ok(reply) => reply.status.to_string(),
        Err(NoAnswer::Unusable(why)) => why,
        Err(NoAnswer::Unreachable(why)) => panic!("{why}"),
    };
    let pass = async |span| clock.sleep_until(clock.now() + span).await;
    let said = async |wanted: &str| {
        // Bounded by the test's patience alone: the pauses are of the node's time.
        while status().await != wanted {
            pass(Duration::from_secs(1)).await;
        }
    };
    let story = async {
        let why = status().await;
        assert!(
            why.starts_with("--kubeconfig: ") && why.contains("No such file"),
            "{why}"
        );
        assert_eq!(door.shows(Path::new("/x")), None);
        std::fs::write(&path, "kind: Pod\n").expect("write");
        said(&format!(
            "--kubeconfig: {}:1: kind: must be Config",
            path.display()
        ))
        .await;
        std::fs::write(&path, config(&server, "bad")).expect("write");
        said("401").await;
        assert_eq!(door.shows(Path::new("/x")), Some(false));

        // Refused, read again, refused again.
        let mut refused = Box::pin(door.refused());
        while future::poll_once(&mut refused).await.is_none() {
            assert_eq!(status().await, "401");
            pass(Duration::from_secs(5)).await;
        }
        let before = server.seen.borrow().len();
        assert!(before > 2, "a single refusal may be an accident");
        std::fs::write(&path, config(&server, "good")).expect("write");
        said("200").await;
        // What is good is not looked at any more.
        std::fs::remove_file(&path).expect("remove");
        pass(DOUBT_PAUSE * 2).await;
        assert_eq!(status().await, "200");
    };
    async_io::block_on(executor.run(story));
}

#[test]
fn a_kubeconfig_is_read_again_while_nobody_answers() {
    let directory = tempfile::tempdir().expect("directory");
    let path = directory.path().join("kubelet.conf");
    let executor = LocalExecutor::new();
    let script = |_: &Seen| (answer("200 OK", "", b"{}"), Then::Stay);
    let (old, new) = (
        Server::start(&executor, Rc::new(script)),
        Server::start(&executor, Rc::new(script)),
    );
    let gone = config(&old, "any").replace(&old.url().to_string(), "https://127.0.0.1:1");
    std::fs::write(&path, gone).expect("write");
    let clock = Rc::new(Hurried(SystemClock::new().expect("clock")));
    let door = KubeconfigCluster::new("--kubeconfig", &path, Vec::new(), clock.clone());
    let story = async {
        let call = || door.call(Call::get("/version"));
        assert!(call().await.is_err());
        // The cluster has moved.
        std::fs::write(&path, config(&new, "any")).expect("write");
        assert!(call().await.is_err(), "not each time");
        clock.sleep_until(clock.now() + DOUBT_PAUSE).await;
        assert_eq!(call().await.map(|reply| reply.status), Ok(200));
        // Now that it answers the file is not looked at.
        std::fs::write(&path, config(&old, "any")).expect("write");
        clock.sleep_until(clock.now() + DOUBT_PAUSE * 2).await;
        assert!(call().await.is_ok());
        assert_eq!(new.seen.borrow().len(), 2);
    };
    async_io::block_on(executor.run(story));
}

#[test]
fn it_is_known_how_long_the_shown_certificate_counts() {
    let directory = tempfile::tempdir().expect("directory");
    let path = directory.path().join("kubelet.conf");
    let executor = LocalExecutor::new();
    let script = |_: &Seen| (answer("200 OK", "", b"{}"), Then::Stay);
    let server = Server::start(&executor, Rc::new(script));
    let purpose = Purpose::Client {
        user: "system:node:pi".into(),
        group: "system:nodes".into(),
    };
    let client = server.authority.issue(&purpose, validity()).expect("issue");
    let clock = Rc::new(SystemClock::new().expect("clock"));
    let door = KubeconfigCluster::new("--kubeconfig", &path, Vec::new(), clock);
    let ask = || async_io::block_on(executor.run(door.call(Call::get("/version"))));
    let shown = format!(
        "client-certificate-data: {}, client-key-data: {}",
        STANDARD.encode(&client.certificate),
        STANDARD.encode(&client.key)
    );
    std::fs::write(&path, config(&server, "any").replace("token: any", &shown)).expect("write");
    assert_eq!(door.validity(), None, "it was not read yet");
    assert!(ask().is_ok());
    assert_eq!(server.seen.borrow()[0].user, "system:node:pi");
    assert_eq!(door.validity(), Some(validity()));
}

#[test]
fn a_knock_tells_who_is_silent_from_who_is_gone() {
    let directory = tempfile::tempdir().expect("directory");
    let path = directory.path().join("kubelet.conf");
    let executor = LocalExecutor::new();
    let script = |_: &Seen| (answer("200 OK", "", b"{}"), Then::Stay);
    let server = Server::start(&executor, Rc::new(script));
    std::fs::write(&path, config(&server, "any")).expect("write");
    let clock = Rc::new(SystemClock::new().expect("clock"));
    let door = KubeconfigCluster::new("--kubeconfig", &path, Vec::new(), clock);
    async_io::block_on(async {
        assert_eq!(door.knock().await, Knock::Shut, "where, nobody knows yet");
        let answered = executor.run(door.call(Call::get("/version"))).await;
        assert!(answered.is_ok());
        assert_eq!(executor.run(door.knock()).await, Knock::Open);
        // The kernel takes connections for a server that does not run.
        assert_eq!(door.knock().await, Knock::Mute);
        drop(executor);
        assert_eq!(door.knock().await, Knock::Shut);
    });
}

#[test]
fn a_kubeconfig_whose_files_cannot_be_read_is_as_good_as_refused() {
    let directory = tempfile::tempdir().expect("directory");
    let path = directory.path().join("kubelet.conf");
    let executor = LocalExecutor::new();
    let script = |_: &Seen| (answer("200 OK", "", b"{}"), Then::Stay);
    let server = Server::start(&executor, Rc::new(script));
    let gone = "client-certificate: /gone/current.pem, client-key: /gone/current.pem";
    std::fs::write(&path, config(&server, "any").replace("token: any", gone)).expect("write");
    let clock = Rc::new(Hurried(SystemClock::new().expect("clock")));
    let door = KubeconfigCluster::new("--kubeconfig", &path, Vec::new(), clock.clone());
    let begun = clock.now();
    let story = async {
        let mut refused = Box::pin(door.refused());
        while future::poll_once(&mut refused).await.is_none() {
            let answer = door.call(Call::get("/version")).await;
            assert!(matches!(answer, Err(NoAnswer::Unusable(why)) if why.contains("/gone/")));
            clock
                .sleep_until(clock.now() + Duration::from_secs(5))
                .await;
            assert!(clock.now().since(begun) < DOUBT_PAUSE * 10, "never");
        }
        assert!(
            clock.now().since(begun) >= DOUBT_PAUSE,
            "it may be an accident"
        );
    };
    async_io::block_on(executor.run(story));
}
