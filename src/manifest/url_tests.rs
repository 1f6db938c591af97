use std::cell::RefCell;
use std::collections::VecDeque;
use std::rc::Rc;
use std::time::Duration;

use futures_lite::future::block_on;

use super::{Answer, Decoding, Fetch, HttpSource, redirect};
use crate::manifest::testing::{StillClock, memory_registry};
use crate::object::Kind;
use crate::registry::Registry;
use crate::world::{BootTime, Clock, LocalFuture};

/// Answers in order. No answer left: hangs.
#[derive(Clone, Default)]
struct Server(Rc<RefCell<VecDeque<Result<Answer, String>>>>);

impl Fetch for Server {
    fn get<'a>(
        &'a self,
        _url: &'a str,
        headers: &'a [(String, String)],
        bytes_max: u64,
    ) -> LocalFuture<'a, Result<Answer, String>> {
        assert_eq!(headers, [("authorization".to_owned(), "t".to_owned())]);
        assert_eq!(bytes_max, 10 << 20);
        match self.0.borrow_mut().pop_front() {
            Some(answer) => Box::pin(async { answer }),
            None => Box::pin(std::future::pending()),
        }
    }
}

fn answer(status: u16, body: &str) -> Result<Answer, String> {
    Ok(Answer {
        status,
        location: None,
        body: body.as_bytes().to_vec(),
    })
}

fn moved(location: &str) -> Result<Answer, String> {
    Ok(Answer {
        status: 302,
        location: Some(location.to_owned()),
        body: Vec::new(),
    })
}

/// All its timers are due.
struct Late(BootTime);

impl Clock for Late {
    fn now(&self) -> BootTime {
        self.0
    }

    fn wall(&self) -> jiff::Timestamp {
        jiff::Timestamp::UNIX_EPOCH
    }

    fn sleep_until(&self, _deadline: BootTime) -> LocalFuture<'static, ()> {
        Box::pin(async {})
    }
}

const POD: &str = "{\"apiVersion\": \"v1\", \"kind\": \"Pod\", \"metadata\": {\"name\": \"a\"}, \"spec\": {\"containers\": [{\"name\": \"c\", \"image\": \"i\"}]}}";
const LIST: &str = "apiVersion: v1\nkind: PodList\nitems:\n- metadata: {name: b}\n  spec: {containers: [{name: c, image: i}]}\n";

struct Node {
    server: Server,
    source: HttpSource<Server>,
    registry: Registry,
    clock: Rc<StillClock>,
}

impl Node {
    fn new() -> Node {
        let (server, clock) = (Server::default(), Rc::new(StillClock::default()));
        let headers = vec![("authorization".to_owned(), "t".to_owned())];
        let period = Duration::from_secs(20);
        Node {
            source: HttpSource::new(
                server.clone(),
                "https://h/m",
                headers,
                "pi",
                period,
                Decoding::Here,
            ),
            server,
            registry: memory_registry(clock.clone()),
            clock,
        }
    }

    fn pods_after(
        &mut self,
        answers: impl IntoIterator<Item = Result<Answer, String>>,
    ) -> Vec<String> {
        *self.server.0.borrow_mut() = answers.into_iter().collect();
        block_on(self.source.turn(&self.registry, &*self.clock));
        let (pods, _) = self.registry.reader().list(Kind::Pod, None);
        pods.iter()
            .filter(|pod| !pod.is_deleting())
            .map(|pod| pod.key.name.clone())
            .collect()
    }
}

#[test]
fn pods_follow_the_newest_good_answer() {
    let mut node = Node::new();
    assert_eq!(node.pods_after([answer(200, POD)]), ["a-pi"]);
    for bad in [
        answer(500, ""),
        answer(404, LIST),
        answer(200, "a: ["),
        Err("connection refused".to_owned()),
        moved("http://h/m"),
        moved("https://elsewhere/m"),
        moved("//169.254.169.254/m"),
        moved("file:///etc/shadow"),
    ] {
        assert_eq!(node.pods_after([bad]), ["a-pi"]);
    }
    assert_eq!(node.pods_after(vec![moved("/m"); 7]), ["a-pi"]);
    assert_eq!(node.pods_after([moved("/n"), answer(200, LIST)]), ["b-pi"]);
    let none: [String; 0] = [];
    assert_eq!(node.pods_after([answer(200, "")]), none);
}

#[test]
fn a_slow_server_ends_at_the_time_limit() {
    let mut node = Node::new();
    node.pods_after([answer(200, POD)]);
    // The server never answers, and the clock says that the time is up.
    block_on(
        node.source
            .turn(&node.registry, &Late(node.clock.now.get())),
    );
    let (pods, _) = node.registry.reader().list(Kind::Pod, None);
    assert_eq!(pods.len(), 1);
    assert!(!pods[0].is_deleting());
}

#[test]
fn redirects_stay_on_their_host_and_its_security() {
    for (from, location, allowed) in [
        ("http://h/a", "/b", Some("http://h/b")),
        ("https://h:8443/a", "/b?c", Some("https://h:8443/b?c")),
        ("http://h/a", "https://h/b", Some("https://h/b")),
        ("http://h/a", "http://h:81/b", Some("http://h:81/b")),
        ("https://h/a", "http://h/b", None),
        ("http://h/a", "http://other/b", None),
        ("http://h/a", "//other/b", None),
        ("http://h/a", "file:///b", None),
        ("http://h/a", "http://h@other/b", None),
    ] {
        let found = redirect(from, location).ok();
        assert_eq!(found.as_deref(), allowed, "{from} {location}");
    }
}
