//! Against a cluster that signs with a CA of its own.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::path::Path;

use super::super::door::KubeconfigCluster;
use super::super::link::Link;
use super::super::member::Member;
use super::super::serving::Serving;
use super::*;
use crate::net::certificates::Authority;
use crate::os::disk::SystemDisk;
use crate::os::random::SystemRandom;
use crate::world::{BootTime, Knock, LocalFuture, NoWatch, Watch};

/// Time that passes only by waiting for it.
#[derive(Clone, Default)]
struct Leap(Rc<Cell<u64>>);

/// 2030: after any build.
const START_S: u64 = 1_900_000_000;

impl Clock for Leap {
    fn now(&self) -> BootTime {
        BootTime::from_duration(Duration::from_millis(self.0.get()))
    }

    fn wall(&self) -> Timestamp {
        Timestamp::from_second((START_S + self.0.get() / 1000) as i64).expect("a date")
    }

    fn sleep_until(&self, deadline: BootTime) -> LocalFuture<'static, ()> {
        let until = deadline.as_duration().as_millis() as u64;
        self.0.set(self.0.get().max(until));
        Box::pin(futures_lite::future::yield_now())
    }
}

/// What the cluster does with one call, before the plain course of things.
enum Fate {
    Lost,
    /// Carried out, and the answer lost.
    Unheard,
    Status(u16),
}

struct FakeCluster {
    authority: Authority,
    clock: Leap,
    life: Duration,
    requests: RefCell<BTreeMap<String, Value>>,
    fates: RefCell<Vec<Fate>>,
    /// Names of requests that were made.
    made: RefCell<Vec<String>>,
    made_at: RefCell<Vec<BootTime>>,
    deny: Cell<u32>,
    calls: Cell<u32>,
}

impl FakeCluster {
    fn carry_out(&self, call: Call) -> Reply {
        let reply = |status, body| Reply {
            status,
            body,
            retry_after: None,
        };
        if let Some(mut object) = call.body {
            assert_eq!(call.path, REQUESTS);
            let name = object["metadata"]["name"]
                .as_str()
                .expect("a name")
                .to_owned();
            if self.requests.borrow().contains_key(&name) {
                return reply(409, json!({"message": "already exists"}));
            }
            let usage = match object["spec"]["signerName"].as_str() {
                Some("kubernetes.io/kube-apiserver-client-kubelet") => "client auth",
                Some("kubernetes.io/kubelet-serving") => "server auth",
                other => panic!("signer {other:?}"),
            };
            let usages = json!(["digital signature", usage]);
            assert_eq!(object["spec"]["usages"], usages);
            let pem = STANDARD
                .decode(object["spec"]["request"].as_str().unwrap())
                .unwrap();
            object["status"] = match self.deny.get() {
                0 => {
                    let from = self.clock.wall();
                    let until = from + jiff::SignedDuration::try_from(self.life).unwrap();
                    let signed = self.authority.sign(&pem, Validity { from, until });
                    json!({ "certificate": STANDARD.encode(signed.expect("sign")) })
                }
                count => {
                    self.deny.set(count - 1);
                    json!({ "conditions": [{ "type": "Denied", "message": "who are you" }] })
                }
            };
            self.made.borrow_mut().push(name.clone());
            self.made_at.borrow_mut().push(self.clock.now());
            self.requests.borrow_mut().insert(name, object.clone());
            return reply(201, object);
        }
        let name = call.path.rsplit('/').next().unwrap_or_default();
        match self.requests.borrow().get(name) {
            Some(object) => reply(200, object.clone()),
            None => reply(404, json!({"message": "not found"})),
        }
    }
}

impl Cluster for FakeCluster {
    fn call(&self, call: Call) -> LocalFuture<'_, Result<Reply, NoAnswer>> {
        self.calls.set(self.calls.get() + 1);
        let lost = Err(NoAnswer::Unreachable("cut".into()));
        let fate = self.fates.borrow_mut().pop();
        let answer = match fate {
            Some(Fate::Lost) => lost,
            Some(Fate::Unheard) => {
                self.carry_out(call);
                lost
            }
            Some(Fate::Status(status)) => Ok(Reply {
                status,
                body: json!({"message": "no"}),
                retry_after: None,
            }),
            None => Ok(self.carry_out(call)),
        };
        Box::pin(async move { answer })
    }

    fn watch(&self, _path: String) -> LocalFuture<'_, Result<Box<dyn Watch>, NoWatch>> {
        unreachable!("requests are looked at, not watched")
    }

    fn reconnect(&self) {}

    fn knock(&self) -> LocalFuture<'_, Knock> {
        Box::pin(async { Knock::Open })
    }
}

fn cluster(clock: &Leap, life: Duration) -> Rc<FakeCluster> {
    let always = Validity {
        from: Timestamp::from_second(1_000_000_000).unwrap(),
        until: Timestamp::from_second(4_000_000_000).unwrap(),
    };
    let (authority, _) = Authority::make("cluster", always).expect("CA");
    Rc::new(FakeCluster {
        authority,
        clock: clock.clone(),
        life,
        requests: RefCell::default(),
        fates: RefCell::default(),
        made: RefCell::default(),
        made_at: RefCell::default(),
        deny: Cell::new(0),
        calls: Cell::new(0),
    })
}

fn node(root: &Path, clock: &Leap) -> NodeCertificate {
    let disk = SystemDisk::open(root, root).expect("disk");
    NodeCertificate {
        purpose: &CLIENT,
        names: Box::new(Names::default),
        disk: Rc::new(disk),
        clock: Rc::new(clock.clone()),
        random: Rc::new(SystemRandom),
        node_name: "pi".into(),
        own: None,
        bootstrap: None,
        past: Past::default(),
    }
}

/// What a member does, without the kubeconfig.
async fn keep(node: &NodeCertificate, refused: &event_listener::Event) {
    let kept = node.kept().await;
    let mut held = match kept {
        Some(kept) => kept,
        None => node.obtain().await,
    };
    loop {
        node.settle().await;
        held = node.renew(held, refused.listen()).await;
    }
}

/// Until something is done, or so much time has passed.
fn keep_until(node: &NodeCertificate, done: &dyn Fn() -> bool) {
    let done = futures_lite::future::poll_fn(|context| match done() {
        true => std::task::Poll::Ready(()),
        false => {
            context.waker().wake_by_ref();
            std::task::Poll::Pending
        }
    });
    let never = event_listener::Event::new();
    async_io::block_on(futures_lite::future::or(done, keep(node, &never)));
}

const DAY: Duration = Duration::from_secs(24 * 3600);

#[test]
fn a_certificate_comes_over_a_bad_link_by_one_request() {
    let root = tempfile::tempdir().expect("root");
    let clock = Leap::default();
    let cluster = cluster(&clock, DAY);
    // Popped from the end.
    cluster.fates.borrow_mut().extend([
        Fate::Status(503),
        Fate::Unheard,
        Fate::Status(404),
        Fate::Lost,
    ]);
    let node = NodeCertificate {
        bootstrap: Some(cluster.clone()),
        ..node(root.path(), &clock)
    };
    let validity = async_io::block_on(node.obtain());
    assert_eq!(cluster.made.borrow().len(), 1);
    assert_eq!(async_io::block_on(node.kept()), Some(validity));
    let text = std::fs::read_to_string(root.path().join(CLIENT.current)).expect("kept");
    let facts = facts(&first_certificate(&text).expect("PEM")).expect("facts");
    assert_eq!(facts.common_name, "system:node:pi");
    assert_eq!(facts.organizations, ["system:nodes"]);
    assert!(
        root.path().join(CLIENT.key).exists(),
        "it is not in use yet"
    );
    async_io::block_on(node.settle());
    assert!(!root.path().join(CLIENT.key).exists());
}

#[test]
fn a_restart_in_the_middle_finds_the_same_request_again() {
    let root = tempfile::tempdir().expect("root");
    let clock = Leap::default();
    let cluster = cluster(&clock, DAY);
    let start = || NodeCertificate {
        bootstrap: Some(cluster.clone()),
        ..node(root.path(), &clock)
    };
    let begun = async_io::block_on(start().attempt(Turn::First));
    assert!(matches!(begun, Ok(Progress::Pending)));
    assert!(root.path().join(CLIENT.key).exists());
    async_io::block_on(start().obtain());
    // And after one between the certificate and the kubeconfig that names it.
    async_io::block_on(start().obtain());
    assert_eq!(cluster.made.borrow().len(), 1);
}

#[test]
fn after_a_denial_another_key_asks_later() {
    let root = tempfile::tempdir().expect("root");
    let clock = Leap::default();
    let cluster = cluster(&clock, DAY);
    cluster.deny.set(1);
    let node = NodeCertificate {
        bootstrap: Some(cluster.clone()),
        ..node(root.path(), &clock)
    };
    async_io::block_on(node.obtain());
    let made = cluster.made.borrow();
    assert!(made.len() == 2 && made[0] != made[1], "{made:?}");
    assert!(clock.now().as_duration() >= DENIED_PAUSE);
}

#[test]
fn a_certificate_is_renewed_in_time_with_itself_and_after_its_end_with_the_bootstrap() {
    let root = tempfile::tempdir().expect("root");
    let clock = Leap::default();
    let (own, bootstrap) = (cluster(&clock, DAY), cluster(&clock, DAY));
    let node = NodeCertificate {
        own: Some(own.clone()),
        bootstrap: Some(bootstrap.clone()),
        ..node(root.path(), &clock)
    };
    let until = |done: &dyn Fn() -> bool| keep_until(&node, done);
    // Nothing is kept: the bootstrap opens.
    until(&|| bootstrap.made.borrow().len() == 1 && root.path().join(CLIENT.current).exists());
    assert_eq!(own.calls.get(), 0);
    until(&|| own.made.borrow().len() == 1);
    let share = clock.now().as_duration().as_secs_f64() / DAY.as_secs_f64();
    assert!((0.7..0.95).contains(&share), "{share}");
    let renewed = async_io::block_on(node.obtain());
    // Two days without a link.
    let expired = renewed.until.as_second() as u64 - START_S + 2 * 86_400;
    clock.0.set(expired * 1000);
    until(&|| bootstrap.made.borrow().len() == 2);
    assert_eq!(own.made.borrow().len(), 1);
}

#[test]
fn a_refused_certificate_gives_way_to_the_bootstrap() {
    let root = tempfile::tempdir().expect("root");
    let clock = Leap::default();
    let (own, bootstrap) = (cluster(&clock, DAY), cluster(&clock, DAY));
    let mut node = NodeCertificate {
        bootstrap: Some(bootstrap.clone()),
        ..node(root.path(), &clock)
    };
    async_io::block_on(node.obtain());
    async_io::block_on(node.settle());
    node.own = Some(own.clone());
    own.fates.borrow_mut().push(Fate::Status(401));
    async_io::block_on(node.obtain());
    assert_eq!((own.calls.get(), bootstrap.made.borrow().len()), (1, 2));
}

#[test]
fn a_certificate_of_another_node_is_no_use() {
    let root = tempfile::tempdir().expect("root");
    let clock = Leap::default();
    let cluster = cluster(&clock, DAY);
    let mut node = NodeCertificate {
        bootstrap: Some(cluster),
        ..node(root.path(), &clock)
    };
    async_io::block_on(node.obtain());
    node.node_name = "other".into();
    assert_eq!(async_io::block_on(node.kept()), None);
}

#[test]
fn a_clock_that_is_years_ahead_renews_no_more_than_a_few_times_a_week() {
    let root = tempfile::tempdir().expect("root");
    let clock = Leap::default();
    let own = cluster(&clock, DAY);
    let mut node = NodeCertificate {
        bootstrap: Some(own.clone()),
        ..node(root.path(), &clock)
    };
    async_io::block_on(node.obtain());
    async_io::block_on(node.settle());
    // The cluster's clock is right, and it still takes the certificate.
    let ahead = Leap(Rc::new(Cell::new(10 * 365 * 86_400_000)));
    node.clock = Rc::new(ahead.clone());
    node.own = Some(own.clone());
    node.bootstrap = None;
    let start = ahead.now();
    keep_until(&node, &|| ahead.now().since(start) > DAY * 7);
    let made = own.made.borrow().len();
    assert!((2..14).contains(&made), "{made}");
    assert!(root.path().join(CLIENT.current).exists());
}

#[test]
fn a_refusal_that_lasts_forces_one_renewal_an_hour() {
    let root = tempfile::tempdir().expect("root");
    let clock = Leap::default();
    let cluster = cluster(&clock, DAY * 4000);
    let node = NodeCertificate {
        bootstrap: Some(cluster.clone()),
        ..node(root.path(), &clock)
    };
    let refused = event_listener::Event::new();
    let refusing = async {
        while cluster.made.borrow().len() < 5 {
            refused.notify(usize::MAX);
            futures_lite::future::yield_now().await;
        }
    };
    async_io::block_on(futures_lite::future::or(refusing, keep(&node, &refused)));
    // The first is the node's first, the second follows the first refusal at once.
    for pair in cluster.made_at.borrow()[1..].windows(2) {
        assert!(pair[1].since(pair[0]) >= FUTILE_PAUSE_MIN, "{pair:?}");
    }
}

#[test]
fn another_address_within_the_hour_waits_a_minute_and_the_same_one_the_hour() {
    let at = |seconds| BootTime::from_duration(Duration::from_secs(seconds));
    let names = |ip: &str| Names {
        dns_names: Vec::new(),
        ips: vec![ip.parse().unwrap()],
    };
    let past = Past::default();
    assert_eq!(past.force(at(100), names("10.0.0.1")), at(100));
    assert_eq!(past.force(at(110), names("10.0.0.2")), at(160));
    assert_eq!(past.force(at(200), names("10.0.0.2")), at(160 + 3600));
    assert_eq!(past.force(at(165), names("10.0.0.1")), at(160 + 3600 + 60));
    assert_eq!(past.force(at(9000), names("10.0.0.1")), at(9000));
}

#[test]
fn a_serving_certificate_follows_the_nodes_addresses() {
    let root = tempfile::tempdir().expect("root");
    let clock = Leap::default();
    let cluster = cluster(&clock, DAY * 4000);
    let ips = Rc::new(RefCell::new(vec!["10.0.0.1"]));
    let mine = ips.clone();
    let names = move || Names {
        dns_names: vec!["pi".into()],
        ips: mine.borrow().iter().map(|ip| ip.parse().unwrap()).collect(),
    };
    let shown: Rc<RefCell<Vec<Vec<String>>>> = Rc::default();
    let record = shown.clone();
    let show = move |text: &str| {
        let facts = facts(&first_certificate(text).expect("PEM")).expect("facts");
        assert_eq!(facts.common_name, "system:node:pi");
        assert_eq!(facts.dns_names, ["pi"]);
        let ips = facts.ips.iter().map(ToString::to_string);
        record.borrow_mut().push(ips.collect());
    };
    let random: Rc<dyn Random> = Rc::new(SystemRandom);
    let link = Rc::new(Link::new(cluster.clone(), Rc::new(clock.clone()), random));
    let serving = Serving {
        certificate: NodeCertificate {
            purpose: &SERVING,
            names: Box::new(names),
            bootstrap: Some(cluster.clone()),
            ..node(root.path(), &clock)
        },
        link: link.clone(),
        show: Box::new(show),
    };
    let story = async {
        let until = async |count: usize| {
            while shown.borrow().len() < count {
                futures_lite::future::yield_now().await;
            }
        };
        // Nothing is asked before the cluster answers.
        link.call(Call::get("/x")).await.expect("answered");
        until(1).await;
        // One that went away does no harm; one that came does.
        *ips.borrow_mut() = Vec::new();
        link.nudge();
        for _ in 0..100 {
            futures_lite::future::yield_now().await;
        }
        assert_eq!(cluster.made.borrow().len(), 1);
        *ips.borrow_mut() = vec!["10.0.0.2", "fd00::2"];
        until(2).await;
        assert_eq!(
            *shown.borrow(),
            [vec!["10.0.0.1"], vec!["10.0.0.2", "fd00::2"]]
        );
        assert_eq!(cluster.made.borrow().len(), 2);
    };
    async_io::block_on(futures_lite::future::or(story, serving.run()));
}

#[test]
fn a_member_whose_kubeconfig_is_gone_writes_it_anew_without_asking() {
    let root = tempfile::tempdir().expect("root");
    let clock = Leap::default();
    let bootstrap = cluster(&clock, DAY);
    let had = NodeCertificate {
        bootstrap: Some(bootstrap),
        ..node(root.path(), &clock)
    };
    async_io::block_on(had.obtain());
    async_io::block_on(had.settle());
    // Nobody is there, and who knows how long the token counts.
    let text = "current-context: c\nclusters: [{name: c, cluster: {server: 'https://127.0.0.1:1'}}]\n\
                users: [{name: u, user: {token: t}}]\ncontexts: [{name: c, context: {cluster: c, user: u}}]\n";
    std::fs::write(root.path().join("bootstrap.conf"), text).expect("write");
    let door = |name: &str| {
        let (path, clock) = (root.path().join(name), Rc::new(clock.clone()));
        Rc::new(KubeconfigCluster::new(
            "--kubeconfig",
            &path,
            Vec::new(),
            clock,
        ))
    };
    let (main, bootstrap) = (door("kubelet.conf"), door("bootstrap.conf"));
    let random: Rc<dyn Random> = Rc::new(SystemRandom);
    let current = root.path().join(CLIENT.current);
    let member = Member {
        certificate: NodeCertificate {
            own: Some(main.clone()),
            bootstrap: Some(bootstrap.clone()),
            ..node(root.path(), &clock)
        },
        current: current.clone(),
        link: Rc::new(Link::new(main.clone(), Rc::new(clock.clone()), random)),
        door: main.clone(),
        bootstrap: Some(bootstrap),
    };
    let shown = async {
        while main.shows(&current) != Some(true) {
            assert!(clock.now().as_duration() < DAY, "the certificate has ended");
            futures_lite::future::yield_now().await;
        }
    };
    async_io::block_on(futures_lite::future::or(shown, member.run()));
}
