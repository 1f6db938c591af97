//! Whoever works at the cluster: makes pods, binds, resizes, changes and deletes them and what they
//! name, takes away the Node or a whole namespace, and sits on names that mirror pods would have.
//!
//! Over the cluster's own socket, in its own time; while the cluster is down nothing comes of it.
//! What the cluster has acknowledged is in the `Ledger`.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::Duration;

use async_executor::Task;
use lowtide::object::Key;
use lowtide::world::{Call, Cluster, Verb};
use serde_json::{Value, json};

use super::door::Door;
use super::far::Far;
use super::ledger::Ledger;
use crate::manifests::{self, Features, OBJECTS};
use crate::random::Stream;
use crate::real::NODE_NAME;
use crate::run::Executor;
use crate::trace::Trace;

const NAMES: [&str; 3] = ["w1", "w2", "w3"];
const SHOP: &str = "shop";
/// Ten seconds each: longer than any pod takes to end.
const NAMESPACE_TRIES: u32 = 60;
const NAMESPACES: [&str; 3] = ["default", "default", SHOP];

/// Kind, its plural, and where its content goes.
const MOUNTED: [(&str, &str, &str); 2] = [
    ("ConfigMap", "configmaps", "data"),
    ("Secret", "secrets", "stringData"),
];

/// Whoever binds later: the cluster leaves its pods alone.
const SCHEDULER: &str = "sim-scheduler";
/// A binding that comes to nothing is tried so often, so long apart.
const BIND_TRIES: u32 = 4;
const BIND_PAUSE: Duration = Duration::from_secs(5);

/// CPU in thousandths and MiB of memory that containers ask for. All but the last fit beside all others.
const SIZES: [(u64, u64); 4] = [(100, 64), (200, 128), (300, 96), (3000, 2048)];

/// What happens to a pod before it is bound.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Meanwhile {
    Nothing,
    Deleted,
    /// Deleted, and another has its name.
    Replaced,
}

pub struct User {
    door: Rc<Door>,
    luck: Stream,
    trace: Rc<Trace>,
    executor: Rc<Executor>,
    tasks: RefCell<Vec<Task<()>>>,
    acts: Cell<u64>,
    pub ledger: Ledger,
}

/// Limits above the requests: whatever else it has, the pod stays Burstable.
fn resources(luck: &Stream) -> Value {
    let (cpu, memory) = *luck.pick(&SIZES);
    json!({"requests": {"cpu": format!("{cpu}m"), "memory": format!("{memory}Mi")},
        "limits": {"cpu": format!("{}m", cpu * 2), "memory": format!("{}Mi", memory * 2)}})
}

fn add_resources(pod: &mut Value, luck: &Stream) {
    let never = pod["spec"]["restartPolicy"] == "Never";
    let container = &mut pod["spec"]["containers"][0];
    container["resources"] = resources(luck);
    let policies: Vec<Value> = ["cpu", "memory"]
        .into_iter()
        .filter(|_| !never && luck.chance(300))
        .map(|name| json!({"resourceName": name, "restartPolicy": "RestartContainer"}))
        .collect();
    container["resizePolicy"] = json!(policies);
}

fn pods(namespace: &str) -> String {
    format!("/api/v1/namespaces/{namespace}/pods")
}

impl User {
    pub fn new(
        door: &Rc<Door>,
        far: &Rc<Far>,
        luck: Stream,
        trace: &Rc<Trace>,
        executor: &Rc<Executor>,
    ) -> Rc<User> {
        Rc::new(User {
            door: Rc::clone(door),
            luck,
            trace: Rc::clone(trace),
            executor: Rc::clone(executor),
            tasks: RefCell::default(),
            acts: Cell::new(0),
            ledger: Ledger::new(far),
        })
    }

    /// Does something, in its own time. `mirrors`: names that pods of the node have or may have.
    pub fn act(self: &Rc<User>, mirrors: Vec<String>) {
        self.acts.set(self.acts.get() + 1);
        let luck = self.luck.fork(&format!("act {}", self.acts.get()));
        let user = Rc::clone(self);
        let act = async move { user.do_something(&luck, &mirrors).await };
        self.keep(self.executor.spawn(act));
    }

    fn keep(&self, task: Task<()>) {
        let mut tasks = self.tasks.borrow_mut();
        tasks.retain(|task| !task.is_finished());
        tasks.push(task);
    }

    /// The world ends.
    pub fn leave(&self) {
        self.tasks.take();
    }

    async fn do_something(&self, luck: &Stream, mirrors: &[String]) {
        let namespace = *luck.pick(&NAMESPACES);
        let name = *luck.pick(&NAMES);
        match luck.between(0, 17) {
            0..=3 => self.create(namespace, name, luck).await,
            4 => self.delete(namespace, name, luck).await,
            5 => {
                self.delete(namespace, name, luck).await;
                self.create(namespace, name, luck).await;
            }
            6 => self.edit(namespace, name, luck).await,
            7 | 8 => self.change_object(namespace, luck).await,
            9 if !mirrors.is_empty() => {
                let mirror: &String = luck.pick(mirrors);
                self.delete("default", mirror, luck).await;
            }
            10 if !mirrors.is_empty() => {
                let mirror: &String = luck.pick(mirrors);
                self.squat(mirror, luck).await;
            }
            11 => {
                let node = format!("/api/v1/nodes/{NODE_NAME}");
                self.ask(Verb::Delete, &node, Value::Null).await;
            }
            12 => {
                let shop = format!("/api/v1/namespaces/{SHOP}");
                for name in NAMES {
                    self.ledger.doubt(SHOP, name);
                }
                if self.ask(Verb::Delete, &shop, Value::Null).await.is_some() {
                    NAMES.iter().for_each(|name| self.ledger.heard(SHOP, name));
                }
            }
            13 | 14 => self.resize(namespace, name, luck).await,
            _ => self.create(namespace, name, luck).await,
        }
    }

    async fn ask(&self, verb: Verb, path: &str, body: Value) -> Option<Value> {
        let body = (verb != Verb::Get).then_some(body);
        let call = Call {
            verb,
            path: path.to_owned(),
            body,
        };
        let what = format!("{verb:?} {path}");
        match self.door.call(call).await {
            Ok(reply) => {
                let (status, message) = (reply.status, reply.message().to_owned());
                self.trace
                    .note(|| format!("user: {what}: {status} {message}"));
                reply.is_success().then_some(reply.body)
            }
            Err(why) => {
                self.trace.note(|| format!("user: {what}: {why}"));
                None
            }
        }
    }

    async fn create(&self, namespace: &str, name: &str, luck: &Stream) {
        if namespace == SHOP {
            self.make_namespace().await;
        }
        match luck.chance(500) {
            true => drop(self.make(namespace, name, Some(NODE_NAME), luck).await),
            false => {
                if let Some(pod) = self.make(namespace, name, None, luck).await {
                    self.place(namespace, pod, luck).await;
                }
            }
        }
    }

    async fn make(
        &self,
        namespace: &str,
        name: &str,
        node: Option<&str>,
        luck: &Stream,
    ) -> Option<Value> {
        let mut pod = manifests::pod(name, luck, Features::Full);
        if let Some(metadata) = pod["metadata"].as_object_mut() {
            metadata.remove("uid");
        }
        if luck.chance(500) {
            add_resources(&mut pod, luck);
        }
        match node {
            Some(node) => pod["spec"]["nodeName"] = json!(node),
            None => pod["spec"]["schedulerName"] = json!(SCHEDULER),
        }
        self.trace
            .note(|| format!("user: a pod {namespace}/{name}: {pod}"));
        let asked = self.ledger.ask(namespace, name);
        let made = self.ask(Verb::Create, &pods(namespace), pod).await?;
        self.ledger.note_made(namespace, &made, asked);
        Some(made)
    }

    /// What a scheduler does, in its own time. Somebody else may have thought better of it meanwhile.
    async fn place(&self, namespace: &str, pod: Value, luck: &Stream) {
        let patience = *luck.pick(&[300, 3000, 60_000]);
        let patience = Duration::from_millis(luck.between(0, patience));
        self.door.wait(patience).await;
        let meanwhile = match luck.between(0, 9) {
            0 => Meanwhile::Deleted,
            1 => Meanwhile::Replaced,
            _ => Meanwhile::Nothing,
        };
        let name = pod["metadata"]["name"].as_str().unwrap_or_default();
        if meanwhile != Meanwhile::Nothing {
            self.delete(namespace, name, luck).await;
        }
        let other = match meanwhile {
            Meanwhile::Replaced => self.make(namespace, name, None, luck).await,
            Meanwhile::Nothing | Meanwhile::Deleted => None,
        };
        self.bind(namespace, &pod).await;
        if let Some(other) = other {
            self.bind(namespace, &other).await;
        }
    }

    /// As a scheduler does: this pod and no successor of its name, again where nothing was heard.
    async fn bind(&self, namespace: &str, pod: &Value) {
        let text = |field: &str| pod["metadata"][field].as_str().unwrap_or_default();
        let (name, uid) = (text("name"), text("uid"));
        let binding = json!({"apiVersion": "v1", "kind": "Binding",
            "metadata": {"name": name, "uid": uid},
            "target": {"kind": "Node", "name": NODE_NAME}});
        let path = format!("{}/{name}/binding", pods(namespace));
        for _ in 0..BIND_TRIES {
            let asked = self.ledger.ask(namespace, name);
            let bound = self.ask(Verb::Create, &path, binding.clone()).await;
            if bound.is_some() {
                return self.ledger.note_bound(asked, uid);
            }
            self.door.wait(BIND_PAUSE).await;
        }
    }

    /// Takes the name that the picture of a pod of the node would have.
    async fn squat(&self, mirror: &str, luck: &Stream) {
        let mut pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": mirror},
            "spec": {"containers": [{"name": "c0", "image": manifests::IMAGES[0],
                "command": ["forever"]}]}});
        match luck.between(0, 2) {
            0 => pod["spec"]["nodeName"] = json!("elsewhere"),
            1 => pod["spec"]["nodeName"] = json!(NODE_NAME),
            _ => {}
        }
        self.delete("default", mirror, luck).await;
        self.ask(Verb::Create, &pods("default"), pod).await;
    }

    async fn make_namespace(&self) {
        let body = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": SHOP}});
        self.ask(Verb::Create, "/api/v1/namespaces", body).await;
    }

    async fn delete(&self, namespace: &str, name: &str, luck: &Stream) {
        let mut options = json!({"apiVersion": "v1", "kind": "DeleteOptions"});
        if luck.chance(300) {
            options["gracePeriodSeconds"] = json!(luck.between(0, 3));
        }
        self.delete_so(namespace, name, options).await;
    }

    async fn delete_so(&self, namespace: &str, name: &str, options: Value) {
        let path = format!("{}/{name}", pods(namespace));
        let asked = self.ledger.doubt(namespace, name);
        if let Some(pod) = self.ask(Verb::Delete, &path, options).await {
            self.ledger.heard(namespace, name);
            self.ledger.note_deleted(asked, &pod);
        }
    }

    /// Other resources for a pod that may be running, in place where its policy says so.
    async fn resize(&self, namespace: &str, name: &str, luck: &Stream) {
        let path = format!("{}/{name}/resize", pods(namespace));
        let resources = resources(luck);
        let patch = json!({"spec": {"containers": [{"name": "c0", "resources": resources}]}});
        self.ask(Verb::Patch, &path, patch).await;
    }

    async fn edit(&self, namespace: &str, name: &str, luck: &Stream) {
        let path = format!("{}/{name}", pods(namespace));
        let image = *luck.pick(&manifests::IMAGES);
        let patch = match luck.chance(500) {
            true => json!({"metadata": {"labels": {"revision": luck.between(0, 99).to_string()}}}),
            false => json!({"spec": {"containers": [{"name": "c0", "image": image}]}}),
        };
        self.ask(Verb::Patch, &path, patch).await;
    }

    /// A ConfigMap or a Secret that pods may name comes, changes or goes.
    async fn change_object(&self, namespace: &str, luck: &Stream) {
        let name = *luck.pick(&OBJECTS);
        let (kind, plural, field) = *luck.pick(&MOUNTED);
        let path = format!("/api/v1/namespaces/{namespace}/{plural}");
        let body = json!({"apiVersion": "v1", "kind": kind, "metadata": {"name": name},
            field: {"value": luck.next().to_string()}});
        let one = format!("{path}/{name}");
        match luck.between(0, 2) {
            0 => drop(self.ask(Verb::Delete, &one, Value::Null).await),
            1 => drop(self.ask(Verb::Patch, &one, body).await),
            _ => drop(self.ask(Verb::Create, &path, body).await),
        }
    }

    /// Nothing that a pod waits for is missing any more.
    pub async fn complete(self: Rc<User>) {
        let luck = self.luck.fork("complete");
        // One that is being emptied is made anew when it is gone.
        for _ in 0..NAMESPACE_TRIES {
            let shop = format!("/api/v1/namespaces/{SHOP}");
            match self.ask(Verb::Get, &shop, Value::Null).await {
                Some(namespace) if namespace["metadata"]["deletionTimestamp"].is_null() => break,
                Some(_) => self.door.wait(Duration::from_secs(10)).await,
                None => self.make_namespace().await,
            }
        }
        self.make_objects(&luck, 1000).await;
    }

    /// Each with a chance per mille; and news for whoever has mounted it.
    async fn make_objects(&self, luck: &Stream, chance: u64) {
        for namespace in ["default", SHOP] {
            for name in OBJECTS {
                for (kind, plural, field) in MOUNTED {
                    if !luck.chance(chance) {
                        continue;
                    }
                    let path = format!("/api/v1/namespaces/{namespace}/{plural}");
                    let body = json!({"apiVersion": "v1", "kind": kind,
                        "metadata": {"name": name}, field: {"value": "1"}});
                    self.ask(Verb::Create, &path, body).await;
                    let one = format!("{path}/{name}");
                    let news = json!({field: {"value": luck.next().to_string()}});
                    self.ask(Verb::Patch, &one, news).await;
                }
            }
        }
    }

    /// Some of what pods name is there before them.
    pub fn start_to_prepare(self: &Rc<User>) {
        let user = Rc::clone(self);
        self.keep(self.executor.spawn(async move {
            user.door.wait(Duration::from_secs(1)).await;
            user.make_namespace().await;
            let luck = user.luck.fork("prepare");
            user.make_objects(&luck, 400).await;
        }));
    }

    /// A pod is given to the node.
    pub fn start_to_create(self: &Rc<User>) {
        let user = Rc::clone(self);
        self.keep(self.executor.spawn(async move {
            let luck = user.luck.fork("last");
            user.make("default", "last", Some(NODE_NAME), &luck).await;
        }));
    }

    /// One is asked to go.
    pub fn start_to_delete(self: &Rc<User>, key: &Key, grace_s: u64) {
        let (user, key) = (Rc::clone(self), key.clone());
        self.keep(self.executor.spawn(async move {
            let options = json!({"apiVersion": "v1", "kind": "DeleteOptions",
                "gracePeriodSeconds": grace_s});
            user.delete_so(&key.namespace, &key.name, options).await;
        }));
    }

    pub fn start_to_complete(self: &Rc<User>) {
        let user = Rc::clone(self);
        self.keep(self.executor.spawn(user.complete()));
    }
}
