//! Whoever works at the cluster: makes pods, binds, changes and deletes them and what they name, takes
//! away the Node or a whole namespace, and sits on names that mirror pods would have.
//!
//! Over the cluster's own socket, in its own time; while the cluster is down nothing comes of it.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

use async_executor::Task;
use lowtide::object::{Key, Kind};
use lowtide::registry::Reader;
use lowtide::world::{Call, Cluster, Verb};
use serde_json::{Value, json};

use super::door::Door;
use super::far::Far;
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

/// When a pod is given to the node.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Placing {
    /// It is made so.
    Said,
    /// By a binding, so long after.
    Later(Duration),
}

pub struct User {
    door: Rc<Door>,
    far: Rc<Far>,
    luck: Stream,
    trace: Rc<Trace>,
    executor: Rc<Executor>,
    tasks: RefCell<Vec<Task<()>>>,
    acts: Cell<u64>,
    promises: RefCell<BTreeMap<Name, Promise>>,
}

/// Namespace and name.
type Name = (String, String);

/// What was asked for under one name, and what the cluster has acknowledged.
#[derive(Default)]
struct Promise {
    /// UID of a pod that nobody has asked to go since, and how often the cluster had been put back.
    there: Option<(String, u64)>,
    /// Deletions that were asked for, and those among them of which nothing was heard.
    deletions: u64,
    unheard: u64,
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
            far: Rc::clone(far),
            luck,
            trace: Rc::clone(trace),
            executor: Rc::clone(executor),
            tasks: RefCell::default(),
            acts: Cell::new(0),
            promises: RefCell::default(),
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
        match luck.between(0, 15) {
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
                NAMES.iter().for_each(|name| self.doubt(SHOP, name));
                if self.ask(Verb::Delete, &shop, Value::Null).await.is_some() {
                    NAMES.iter().for_each(|name| self.heard(SHOP, name));
                }
            }
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
        let mut pod = manifests::pod(name, luck, Features::Full);
        if let Some(metadata) = pod["metadata"].as_object_mut() {
            metadata.remove("uid");
        }
        let placing = match luck.chance(500) {
            true => Placing::Said,
            false => Placing::Later(Duration::from_millis(luck.between(0, 3000))),
        };
        if placing == Placing::Said {
            pod["spec"]["nodeName"] = json!(NODE_NAME);
        }
        if namespace == SHOP {
            self.make_namespace().await;
        }
        self.trace
            .note(|| format!("user: a pod {namespace}/{name}: {pod}"));
        let asked = (self.deletions(namespace, name), self.far.restores.get());
        let made = self.ask(Verb::Create, &pods(namespace), pod).await;
        if let Some(made) = &made {
            self.note_made(namespace, made, asked);
        }
        if let (Some(pod), Placing::Later(after)) = (made, placing) {
            self.door.wait(after).await;
            self.bind(namespace, &pod).await;
        }
    }

    /// As a scheduler does: this pod and no successor of its name.
    async fn bind(&self, namespace: &str, pod: &Value) {
        let (name, uid) = (&pod["metadata"]["name"], &pod["metadata"]["uid"]);
        let name = name.as_str().unwrap_or_default();
        let binding = json!({"apiVersion": "v1", "kind": "Binding",
            "metadata": {"name": name, "uid": uid},
            "target": {"kind": "Node", "name": NODE_NAME}});
        let path = format!("{}/{name}/binding", pods(namespace));
        self.ask(Verb::Create, &path, binding).await;
    }

    /// Takes the name that the picture of a pod of the node would have.
    async fn squat(&self, mirror: &str, luck: &Stream) {
        let mut pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": mirror},
            "spec": {"containers": [{"name": "c0", "image": manifests::IMAGES[0],
                "command": ["forever"]}]}});
        if luck.chance(300) {
            pod["spec"]["nodeName"] = json!("elsewhere");
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
        let path = format!("{}/{name}", pods(namespace));
        self.doubt(namespace, name);
        if self.ask(Verb::Delete, &path, options).await.is_some() {
            self.heard(namespace, name);
        }
    }

    fn promise<T>(&self, namespace: &str, name: &str, change: impl FnOnce(&mut Promise) -> T) -> T {
        let key = (namespace.to_owned(), name.to_owned());
        change(self.promises.borrow_mut().entry(key).or_default())
    }

    fn deletions(&self, namespace: &str, name: &str) -> u64 {
        self.promise(namespace, name, |promise| promise.deletions)
    }

    /// Somebody wants it to go.
    fn doubt(&self, namespace: &str, name: &str) {
        self.promise(namespace, name, |promise| {
            promise.there = None;
            promise.deletions += 1;
            promise.unheard += 1;
        });
    }

    fn heard(&self, namespace: &str, name: &str) {
        self.promise(namespace, name, |promise| promise.unheard -= 1);
    }

    /// The cluster says that a pod is made. `asked`: deletions and restored backups until it was asked.
    fn note_made(&self, namespace: &str, pod: &Value, asked: (u64, u64)) {
        let text = |field: &str| pod["metadata"][field].as_str().unwrap_or_default();
        let restores = self.far.restores.get();
        self.promise(namespace, text("name"), |promise| {
            if (promise.deletions, restores) == asked && promise.unheard == 0 {
                promise.there = Some((text("uid").to_owned(), restores));
            }
        });
    }

    /// Whether what the cluster has acknowledged is so.
    pub fn was_told_the_truth(&self, far: &Reader) -> Result<(), String> {
        for ((namespace, name), promise) in &*self.promises.borrow() {
            let there = promise.there.as_ref();
            let Some((uid, _)) = there.filter(|there| there.1 == self.far.restores.get()) else {
                continue;
            };
            let pod = far.get(&Key::local(Kind::Pod, namespace, name));
            let found = pod.as_ref().map(|pod| pod.uid());
            if found != Some(uid) {
                return Err(format!(
                    "{namespace}/{name} was made as {uid} and is {found:?}"
                ));
            }
        }
        Ok(())
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
        let (kind, plural, field) = *luck.pick(&[
            ("ConfigMap", "configmaps", "data"),
            ("Secret", "secrets", "stringData"),
        ]);
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
        // One that is being emptied is made anew when it is gone.
        for _ in 0..NAMESPACE_TRIES {
            let shop = format!("/api/v1/namespaces/{SHOP}");
            match self.ask(Verb::Get, &shop, Value::Null).await {
                Some(namespace) if namespace["metadata"]["deletionTimestamp"].is_null() => break,
                Some(_) => self.door.wait(Duration::from_secs(10)).await,
                None => self.make_namespace().await,
            }
        }
        for namespace in ["default", SHOP] {
            for name in OBJECTS {
                for (kind, plural, field) in [
                    ("ConfigMap", "configmaps", "data"),
                    ("Secret", "secrets", "stringData"),
                ] {
                    let path = format!("/api/v1/namespaces/{namespace}/{plural}");
                    let body = json!({"apiVersion": "v1", "kind": kind,
                        "metadata": {"name": name}, field: {"value": "1"}});
                    self.ask(Verb::Create, &path, body).await;
                }
            }
        }
    }

    pub fn start_to_complete(self: &Rc<User>) {
        let user = Rc::clone(self);
        self.keep(self.executor.spawn(user.complete()));
    }
}
