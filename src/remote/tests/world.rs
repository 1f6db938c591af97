//! One thread, one virtual clock, one seed: a node's registry, its sync, and a kubelet that takes
//! every pod to its end.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use async_executor::{LocalExecutor, Task};
use jiff::Timestamp;
use serde_json::{Value, json};

use super::cluster::{Api, Door};
use crate::object::{ENDED_THERE, Key, Kind, Object, Origin, Source, Standing};
use crate::registry::{FaultyDisk, FieldLines, Incoming, Limits, Options, Place, Registry};
use crate::remote::{self, Cloud, Registration, Remote};
use crate::world::{
    BootTime, Clock, IssuedToken, LocalFuture, NoToken, Random, TokenRequest, TokenSource,
};

pub const NODE: &str = "pi";

type Timer = (Rc<Cell<bool>>, Waker);

/// Moves only when nobody has anything else to do.
#[derive(Default)]
pub struct Clockwork {
    now: Cell<Duration>,
    timers: RefCell<BTreeMap<(Duration, u64), Timer>>,
    made: Cell<u64>,
}

struct Sleep(Rc<Clockwork>, Duration, Option<(Duration, u64)>);

impl Future for Sleep {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        if self.1 <= self.0.now.get() {
            return Poll::Ready(());
        }
        let key = *self.2.get_or_insert((Duration::ZERO, 0));
        let key = match key {
            (Duration::ZERO, 0) => {
                self.0.made.set(self.0.made.get() + 1);
                (self.1, self.0.made.get())
            }
            key => key,
        };
        self.2 = Some(key);
        let timer = (Rc::new(Cell::new(false)), context.waker().clone());
        self.0.timers.borrow_mut().insert(key, timer);
        Poll::Pending
    }
}

impl Drop for Sleep {
    fn drop(&mut self) {
        if let Some(key) = self.2 {
            self.0.timers.borrow_mut().remove(&key);
        }
    }
}

#[derive(Clone, Default)]
pub struct Time(Rc<Clockwork>);

impl Time {
    /// How many timers there have been.
    pub fn sleeps(&self) -> u64 {
        self.0.made.get()
    }
}

impl Clock for Time {
    fn now(&self) -> BootTime {
        BootTime::from_duration(self.0.now.get())
    }

    fn wall(&self) -> Timestamp {
        let start = Timestamp::from_second(1_790_000_000).expect("in range");
        start + self.0.now.get()
    }

    fn sleep_until(&self, deadline: BootTime) -> LocalFuture<'static, ()> {
        Box::pin(Sleep(self.0.clone(), deadline.as_duration(), None))
    }
}

/// xorshift64*
pub struct Luck(Cell<u64>);

impl Luck {
    pub fn new(seed: u64) -> Luck {
        Luck(Cell::new(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1))
    }

    pub fn below(&self, end: u64) -> u64 {
        let mut state = self.0.get();
        state ^= state >> 12;
        state ^= state << 25;
        state ^= state >> 27;
        self.0.set(state);
        (state.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) % end
    }
}

impl Random for Luck {
    fn fill(&self, bytes: &mut [u8]) {
        for byte in bytes {
            *byte = self.below(256) as u8;
        }
    }
}

/// Pods of the cluster that run or have run here, by UID.
pub type Kernel = Rc<RefCell<BTreeMap<String, Life>>>;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Life {
    Runs,
    Ended,
}

pub struct World {
    pub time: Time,
    pub luck: Rc<Luck>,
    pub api: Rc<Api>,
    executor: Rc<LocalExecutor<'static>>,
    disk: FaultyDisk,
    /// The agent, while there is one.
    tasks: RefCell<Vec<Task<()>>>,
    pub registry: RefCell<Option<Registry>>,
    tokens: RefCell<Option<Rc<dyn TokenSource>>>,
    remote: RefCell<Option<Rc<Remote>>>,
    /// Pods of the node's own, by name: their content's hash.
    pub manifests: RefCell<BTreeMap<String, String>>,
    /// What is in the kernel, and what was: an agent's death changes nothing of it.
    pub kernel: Kernel,
    pub registration: Cell<Registration>,
    /// Of `--node-ip`; with any, a cloud has the node.
    pub node_ips: RefCell<Vec<std::net::IpAddr>>,
    /// What the flags say of the Node.
    pub stated: RefCell<Value>,
}

impl World {
    pub fn new(seed: u64) -> World {
        let time = Time::default();
        time.0.now.set(Duration::from_secs(1));
        World {
            api: Api::new(Rc::new(time.clone())),
            luck: Rc::new(Luck::new(seed)),
            time,
            executor: Rc::new(LocalExecutor::new()),
            disk: FaultyDisk::default(),
            tasks: RefCell::default(),
            registry: RefCell::default(),
            tokens: RefCell::default(),
            remote: RefCell::default(),
            registration: Cell::new(Registration::Own),
            manifests: RefCell::default(),
            kernel: Rc::default(),
            node_ips: RefCell::default(),
            stated: RefCell::new(json!({
                "metadata": {"name": NODE, "labels": {"kubernetes.io/os": "linux"}},
            })),
        }
    }

    pub fn started(seed: u64) -> World {
        let world = World::new(seed);
        world.start();
        world
    }

    /// Starts an agent on what the disk has.
    pub fn start(&self) {
        let registry = futures_lite::future::block_on(Registry::open(Options {
            place: Place::Inline(std::sync::Arc::new(self.disk.clone())),
            node_name: NODE.to_owned(),
            clock: Rc::new(self.time.clone()),
            random: self.luck.clone(),
            limits: Limits::default(),
            encryption: Default::default(),
            admission: Vec::new(),
        }));
        let (registry, _) = registry.expect("a simulated store opens");
        self.registry.replace(Some(registry.clone()));
        let clock: Rc<dyn Clock> = Rc::new(self.time.clone());
        let door = Rc::new(Door(self.api.clone()));
        let remote = Rc::new(Remote::new(door, clock, self.luck.clone()));
        self.remote.replace(Some(remote.clone()));
        self.tokens.replace(Some(remote.tokens()));
        let options = remote::Options {
            node_name: NODE.to_owned(),
            registration: self.registration.get(),
            cloud: match self.node_ips.borrow().is_empty() {
                true => Cloud::Nobody,
                false => Cloud::External,
            },
            provider_id: None,
            provided_ips: self.node_ips.borrow().clone(),
            sources: vec![Source::File],
        };
        let mut tasks = remote.start(registry.clone(), options, &self.executor);
        let kubelet = kubelet(registry.clone(), self.time.clone(), self.kernel.clone());
        tasks.push(self.executor.spawn(kubelet));
        tasks.push(
            self.executor
                .spawn(state_node(registry, self.stated.borrow().clone())),
        );
        self.tasks.replace(tasks);
        self.feed();
    }

    /// The agent is gone without a word.
    pub fn kill(&self) {
        self.tasks.borrow_mut().clear();
        self.registry.replace(None);
        // What was cancelled is dropped in its next turn, and its store closed.
        while self.executor.try_tick() {}
    }

    /// Hands the manifests over.
    pub fn feed(&self) {
        let Some(registry) = self.registry.borrow().clone() else {
            return;
        };
        let manifests = self.manifests.borrow();
        let list = manifests.iter().map(|(name, hash)| Incoming::Object {
            key: Key::local(Kind::Pod, "default", name),
            provenance: None,
            body: json!({
                "metadata": {
                    "name": name, "namespace": "default", "uid": hash,
                    "annotations": {"kubernetes.io/config.hash": hash},
                },
                "spec": {"nodeName": NODE, "containers": [{"name": "c", "image": "x"}]},
            }),
            lines: FieldLines::default(),
        });
        let list = list.collect();
        let fed = self.executor.spawn(async move {
            registry
                .replace(Source::File, list)
                .await
                .expect("a list is taken");
        });
        self.tasks.borrow_mut().push(fed);
    }

    /// Asks the cluster for a pod's token; where the answer will be.
    pub fn ask_token(&self) -> Rc<RefCell<Option<Result<IssuedToken, NoToken>>>> {
        let source = self.tokens.borrow().clone().expect("an agent");
        let answer: Rc<RefCell<_>> = Rc::default();
        let place = answer.clone();
        let asking = async move {
            let request = TokenRequest {
                namespace: "default".to_owned(),
                account: "robot".to_owned(),
                pod: "web".to_owned(),
                pod_uid: "u".to_owned(),
                audience: String::new(),
                life_s: 600,
            };
            place.replace(Some(source.request(request).await));
        };
        self.tasks.borrow_mut().push(self.executor.spawn(asking));
        answer
    }

    /// How long the agent waits before it leaves, within five seconds.
    pub fn rest(&self) -> Duration {
        let (remote, time) = (self.remote.borrow().clone(), self.time.clone());
        let (begun, ended) = (time.now(), Rc::new(Cell::new(None)));
        let place = ended.clone();
        let resting = async move {
            remote.expect("an agent").rest().await;
            place.set(Some(time.now()));
        };
        self.tasks.borrow_mut().push(self.executor.spawn(resting));
        for _ in 0..500 {
            if let Some(ended) = ended.get() {
                return BootTime::since(ended, begun);
            }
            self.run(Duration::from_millis(10));
        }
        panic!("it rests for ever");
    }

    /// Lets everybody act for so long.
    pub fn run(&self, span: Duration) {
        let end = self.time.0.now.get() + span;
        loop {
            while self.executor.try_tick() {}
            let next = self.time.0.timers.borrow_mut().pop_first();
            match next {
                Some(((at, _), (_, waker))) if at <= end => {
                    self.time.0.now.set(at.max(self.time.0.now.get()));
                    waker.wake();
                }
                Some((key, timer)) => {
                    self.time.0.timers.borrow_mut().insert(key, timer);
                    break;
                }
                None => break,
            }
        }
        self.time.0.now.set(end);
    }

    pub fn pods(&self) -> Vec<std::sync::Arc<Object>> {
        let registry = self.registry.borrow();
        let reader = registry.as_ref().expect("an agent").reader();
        reader.list(Kind::Pod, None).0
    }
}

async fn state_node(registry: Registry, body: Value) {
    let key = Key::local(Kind::Node, "", NODE);
    let node = registry
        .state_node(key.clone(), body)
        .await
        .expect("a node");
    let status = json!({"conditions": [{"type": "Ready", "status": "True"}]});
    registry.update_status(&key, node.uid(), status);
}

/// Runs every pod, says so, and ends those that shall go.
async fn kubelet(registry: Registry, time: Time, kernel: Kernel) {
    let reader = registry.reader();
    loop {
        let version = reader.version();
        let pods = reader.list(Kind::Pod, None).0;
        for pod in pods.iter().filter(|pod| pod.standing == Standing::Accepted) {
            tend(&registry, &kernel, pod);
        }
        // Another pod has the name: nobody asked this one to end, and it ends.
        for (uid, life) in kernel.borrow_mut().iter_mut() {
            if !pods.iter().any(|pod| pod.uid() == uid) {
                *life = Life::Ended;
            }
        }
        reader.changed(&[Kind::Pod], version).await;
        time.sleep_until(time.now() + Duration::from_millis(200))
            .await;
    }
}

fn tend(registry: &Registry, kernel: &Kernel, pod: &Object) {
    let told = |phase: &str, ready: &str| json!({"phase": phase, "conditions": [{"type": "Ready", "status": ready}]});
    let phase = pod.body["status"]["phase"].as_str();
    let mut kernel = kernel.borrow_mut();
    let ended_there = pod.annotation(ENDED_THERE).is_some();
    match (pod.is_deleting(), phase) {
        (false, Some("Failed")) => {}
        (false, _) if ended_there => {
            kernel.insert(pod.uid().to_owned(), Life::Ended);
            registry.update_status(&pod.key, pod.uid(), told("Failed", "False"));
        }
        (false, Some("Running")) => {}
        (false, _) => {
            let key = &pod.key;
            // The same manifest again is the same UID; a cluster never gives one twice.
            if key.origin == Origin::Remote {
                let before = kernel.insert(pod.uid().to_owned(), Life::Runs);
                assert_ne!(before, Some(Life::Ended), "{key} {} runs again", pod.uid());
            }
            registry.update_status(key, pod.uid(), told("Running", "True"));
        }
        (true, Some("Failed")) => {
            if let Some(life) = kernel.get_mut(pod.uid()) {
                *life = Life::Ended;
            }
            registry.finish_deletion(&pod.key, pod.uid());
        }
        // Nothing of it ever was: there is no end to tell of.
        (true, None) if !kernel.contains_key(pod.uid()) => {
            registry.finish_deletion(&pod.key, pod.uid());
        }
        (true, _) => registry.update_status(&pod.key, pod.uid(), told("Failed", "False")),
    }
}

pub fn pod_path(name: &str) -> String {
    format!("/api/v1/namespaces/default/pods/{name}")
}

/// A pod that the scheduler has given to this node.
pub fn bound(name: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": name, "namespace": "default"},
        "spec": {
            "nodeName": NODE,
            "containers": [{"name": "c", "image": "x", "envFrom": [{"secretRef": {"name": "s"}}]}],
        },
        "status": {"phase": "Pending"},
    })
}
