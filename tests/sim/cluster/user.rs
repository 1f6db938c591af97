//! Whoever works at the cluster: makes pods, binds, changes and deletes them, and what they name.
//!
//! Over the cluster's own socket, in its own time; while the cluster is down nothing comes of it.

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use async_executor::Task;
use lowtide::world::{Call, Cluster, Verb};
use serde_json::{Value, json};

use super::door::Door;
use crate::manifests::{self, Features, OBJECTS};
use crate::random::Stream;
use crate::real::NODE_NAME;
use crate::run::Executor;
use crate::trace::Trace;

const NAMES: [&str; 3] = ["w1", "w2", "w3"];
const SHOP: &str = "shop";
const NAMESPACES: [&str; 3] = ["default", "default", SHOP];

pub struct User {
    door: Rc<Door>,
    luck: Stream,
    trace: Rc<Trace>,
    executor: Rc<Executor>,
    tasks: RefCell<Vec<Task<()>>>,
    acts: Cell<u64>,
}

fn pods(namespace: &str) -> String {
    format!("/api/v1/namespaces/{namespace}/pods")
}

impl User {
    pub fn new(
        door: &Rc<Door>,
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
        match luck.between(0, 11) {
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
        pod["spec"]["nodeName"] = json!(NODE_NAME);
        if namespace == SHOP {
            self.make_namespace().await;
        }
        self.trace
            .note(|| format!("user: a pod {namespace}/{name}: {pod}"));
        self.ask(Verb::Create, &pods(namespace), pod).await;
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
        self.ask(Verb::Delete, &path, options).await;
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
