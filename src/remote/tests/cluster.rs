//! A cluster that behaves: objects with versions, watches that end, a link that goes away.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

use event_listener::Event;
use serde_json::{Value, json};

use crate::object::patch;
use crate::world::{
    Call, Clock, Cluster, Knock, LocalFuture, NoAnswer, NoWatch, Reply, Verb, Watch,
};

/// How long a silent link takes to be given up.
const TIMEOUT: Duration = Duration::from_secs(30);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Line {
    Up,
    /// Refused at once.
    Down,
    /// Nothing comes back.
    Silent,
    /// Somebody takes connections, and nothing comes back.
    Mute,
    /// What is asked is done, and its answer lost.
    Deaf,
    /// Nothing comes back over connections that are open; new ones are fine.
    Forgotten,
}

/// Path of an object, its version and body; `None` is a deletion.
type Change = (u64, String, Option<Value>, Value);

pub struct Api {
    pub line: Cell<Line>,
    pub objects: RefCell<BTreeMap<String, Value>>,
    history: RefCell<Vec<Change>>,
    version: Cell<u64>,
    /// Versions up to here are forgotten.
    floor: Cell<u64>,
    changed: Event,
    clock: Rc<dyn Clock>,
    pub calls: RefCell<Vec<String>>,
    /// Rings when watches shall break.
    pub broken: Event,
    /// How long a watch takes to open.
    pub opening: Cell<Duration>,
    /// Calls and watches that begin like this (`Patch /api/v1/…`), and with what they are refused.
    pub refused: RefCell<BTreeMap<String, Reply>>,
    /// Calls and watches (`Watch /api/v1/…`) that begin like this, and find nobody.
    pub dropped: RefCell<Vec<&'static str>>,
    /// How long that takes.
    pub dropping: Cell<Duration>,
    /// Whether watches say what nobody understands.
    pub garbled: Cell<bool>,
    /// The code of the error that watches end with.
    pub error: Cell<Option<u16>>,
    /// How many watches were asked for.
    pub watches: Cell<usize>,
    uids: Cell<u64>,
}

pub fn status(code: u16, message: &str) -> Reply {
    Reply {
        status: code,
        body: json!({"kind": "Status", "code": code, "message": message}),
        retry_after: None,
    }
}

fn ok(body: Value) -> Reply {
    Reply {
        status: 200,
        body,
        retry_after: None,
    }
}

impl Api {
    pub fn new(clock: Rc<dyn Clock>) -> Rc<Api> {
        Rc::new(Api {
            line: Cell::new(Line::Up),
            objects: RefCell::default(),
            history: RefCell::default(),
            version: Cell::new(100),
            floor: Cell::new(0),
            changed: Event::new(),
            clock,
            calls: RefCell::default(),
            broken: Event::new(),
            opening: Cell::default(),
            refused: RefCell::default(),
            dropped: RefCell::default(),
            dropping: Cell::default(),
            garbled: Cell::default(),
            error: Cell::default(),
            watches: Cell::default(),
            uids: Cell::new(0),
        })
    }

    /// Writes an object as somebody in the cluster does.
    pub fn put(&self, path: &str, mut body: Value) -> Value {
        let version = self.version.get() + 1;
        self.version.set(version);
        body["metadata"]["resourceVersion"] = json!(version.to_string());
        if !body["metadata"]["uid"].is_string() {
            self.uids.set(self.uids.get() + 1);
            body["metadata"]["uid"] = json!(format!("cluster-{}", self.uids.get()));
        }
        let mut objects = self.objects.borrow_mut();
        let before = objects.insert(path.to_owned(), body.clone());
        let before = before.unwrap_or_default();
        let change = (version, path.to_owned(), Some(body.clone()), before);
        self.history.borrow_mut().push(change);
        self.changed.notify(usize::MAX);
        body
    }

    pub fn remove(&self, path: &str) {
        let Some(mut before) = self.objects.borrow_mut().remove(path) else {
            return;
        };
        let version = self.version.get() + 1;
        self.version.set(version);
        before["metadata"]["resourceVersion"] = json!(version.to_string());
        let change = (version, path.to_owned(), None, before);
        self.history.borrow_mut().push(change);
        self.changed.notify(usize::MAX);
    }

    pub fn get(&self, path: &str) -> Option<Value> {
        self.objects.borrow().get(path).cloned()
    }

    /// Watches have to list again.
    pub fn forget(&self) {
        self.floor.set(self.version.get());
    }

    /// What `restore` puts back.
    pub fn backup(&self) -> (BTreeMap<String, Value>, u64) {
        (self.objects.borrow().clone(), self.version.get())
    }

    /// As after a loss of everything since: also versions are what they were.
    pub fn restore(&self, (objects, version): (BTreeMap<String, Value>, u64)) {
        self.objects.replace(objects);
        self.version.set(version);
        self.history.borrow_mut().retain(|(at, ..)| *at <= version);
        self.broken.notify(usize::MAX);
    }

    /// Somebody writes what nobody here looks at.
    pub fn count(&self, writes: u64) {
        self.version.set(self.version.get() + writes);
    }

    /// Asks for a pod's deletion, as a user does.
    pub fn delete_pod(&self, path: &str) {
        if let Some(mut pod) = self.get(path) {
            pod["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
            pod["metadata"]["deletionGracePeriodSeconds"] = json!(1);
            self.put(path, pod);
        }
    }

    async fn drops(&self, asked: &str) -> bool {
        let begins = |begin: &&'static str| asked.starts_with(begin);
        let drops = self.dropped.borrow().iter().any(begins);
        if drops {
            let clock = &self.clock;
            clock.sleep_until(clock.now() + self.dropping.get()).await;
        }
        drops
    }

    fn refuses(&self, asked: &str) -> Option<Reply> {
        let refused = self.refused.borrow();
        let mut refusals = refused.iter();
        let found = refusals.find(|(begin, _)| asked.starts_with(*begin))?;
        Some(found.1.clone())
    }

    fn answer(&self, call: &Call) -> Reply {
        if let Some(reply) = self.refuses(&format!("{:?} {}", call.verb, call.path)) {
            return reply;
        }
        let (path, _) = call.path.split_once('?').unwrap_or((&call.path, ""));
        let object = path.strip_suffix("/status").unwrap_or(path);
        let known = self.get(object);
        match (call.verb, known) {
            (Verb::Get, Some(body)) => ok(body),
            (Verb::Get, None) if call.path.contains("limit=") => {
                let items = self.matching(&call.path);
                let version = self.version.get().to_string();
                ok(
                    json!({"kind": "PodList", "metadata": {"resourceVersion": version}, "items": items}),
                )
            }
            (Verb::Create, _) => self.create(path, call.body.clone().unwrap_or_default()),
            (_, None) => status(404, "not found"),
            (Verb::Update, Some(before)) => {
                let body = call.body.clone().unwrap_or_default();
                match body["metadata"]["resourceVersion"] == before["metadata"]["resourceVersion"] {
                    true => ok(self.put(object, body)),
                    false => status(409, "the object has been modified"),
                }
            }
            (Verb::Patch, Some(before)) => {
                let patch = call.body.clone().unwrap_or_default();
                let uid = &patch["metadata"]["uid"];
                if uid.is_string() && *uid != before["metadata"]["uid"] {
                    return status(409, "the UID in the precondition does not match");
                }
                let kind = if object.contains("/pods/") {
                    "Pod"
                } else {
                    "Node"
                };
                let kind = crate::object::Kind::from_name(kind).expect("known");
                let merged = patch::strategic_merge(kind, before, patch).expect("a patch");
                ok(self.put(object, merged))
            }
            (Verb::Delete, Some(before)) => {
                let options = call.body.clone().unwrap_or_default();
                let uid = &options["preconditions"]["uid"];
                if uid.is_string() && *uid != before["metadata"]["uid"] {
                    return status(409, "the UID in the precondition does not match");
                }
                self.remove(object);
                ok(before)
            }
        }
    }

    fn create(&self, path: &str, mut body: Value) -> Reply {
        if path.ends_with("/token") {
            let expires = "2100-01-01T00:00:00Z";
            return ok(json!({"status": {"token": "t", "expirationTimestamp": expires}}));
        }
        let name = body["metadata"]["name"].as_str().unwrap_or_default();
        let object = format!("{path}/{name}");
        if self.get(&object).is_some() {
            return status(409, "already exists");
        }
        if path.ends_with("/pods") && body["metadata"]["namespace"].is_null() {
            body["metadata"]["namespace"] = json!("default");
        }
        ok(self.put(&object, body))
    }

    fn matching(&self, path: &str) -> Vec<Value> {
        let objects = self.objects.borrow();
        let all = objects.iter().filter(|(at, body)| selects(path, at, body));
        all.map(|(_, body)| body.clone()).collect()
    }
}

/// Whether a list or watch at `path` shows the object.
fn selects(path: &str, at: &str, body: &Value) -> bool {
    let (collection, query) = path.split_once('?').unwrap_or((path, ""));
    let kind = collection.rsplit('/').next().unwrap_or_default();
    let selector = query
        .split('&')
        .find_map(|part| part.strip_prefix("fieldSelector="));
    let (field, value) = selector
        .and_then(|s| s.split_once("%3D"))
        .unwrap_or_default();
    let selected = match field {
        "spec.nodeName" => body["spec"]["nodeName"] == value,
        "metadata.name" => body["metadata"]["name"] == value,
        _ => true,
    };
    let (rest, _) = at.rsplit_once('/').unwrap_or_default();
    let here = rest == collection || (rest.ends_with(kind) && !collection.contains("/namespaces/"));
    selected && here
}

struct Events {
    api: Rc<Api>,
    path: String,
    after: u64,
}

impl Events {
    fn ready(&mut self) -> Option<Value> {
        let history = self.api.history.borrow();
        let after = self.after;
        for (version, at, now, before) in history.iter().filter(|(v, ..)| *v > after) {
            self.after = *version;
            let shown = |body: &Value| selects(&self.path, at, body);
            let event = match now {
                Some(now) if shown(now) => json!({"type": "MODIFIED", "object": now}),
                _ if shown(before) => json!({"type": "DELETED", "object": before}),
                _ => continue,
            };
            return Some(event);
        }
        None
    }
}

impl Watch for Events {
    fn next(&mut self) -> LocalFuture<'_, Result<Option<Value>, NoAnswer>> {
        Box::pin(async {
            loop {
                let (changed, broken) = (self.api.changed.listen(), self.api.broken.listen());
                match self.api.line.get() {
                    Line::Up | Line::Deaf => {
                        if self.api.garbled.get() {
                            return Err(NoAnswer::Unusable("<html>".to_owned()));
                        }
                        let gone = (self.after < self.api.floor.get()).then_some(410);
                        if let Some(code) = self.api.error.get().or(gone) {
                            return Ok(Some(json!({"type": "ERROR", "object": {"code": code}})));
                        }
                        if let Some(event) = self.ready() {
                            return Ok(Some(event));
                        }
                    }
                    Line::Down => return Err(NoAnswer::Unreachable("reset".to_owned())),
                    // Half open: found out after a while.
                    Line::Silent | Line::Mute | Line::Forgotten => {
                        let clock = &self.api.clock;
                        clock.sleep_until(clock.now() + TIMEOUT).await;
                        return Err(NoAnswer::Unreachable("late".to_owned()));
                    }
                }
                let gone = async {
                    broken.await;
                    true
                };
                let news = async {
                    changed.await;
                    false
                };
                if futures_lite::future::or(gone, news).await && self.api.line.get() == Line::Up {
                    return Ok(None);
                }
            }
        })
    }
}

pub struct Door(pub Rc<Api>);

impl Cluster for Door {
    fn call(&self, call: Call) -> LocalFuture<'_, Result<Reply, NoAnswer>> {
        let api = self.0.clone();
        Box::pin(async move {
            let asked = format!("{:?} {}", call.verb, call.path);
            api.calls.borrow_mut().push(asked.clone());
            let late = || NoAnswer::Unreachable("late".to_owned());
            if api.drops(&asked).await {
                return Err(NoAnswer::Unreachable("reset".to_owned()));
            }
            match api.line.get() {
                Line::Up => Ok(api.answer(&call)),
                Line::Down => Err(NoAnswer::Unreachable("refused".to_owned())),
                Line::Silent | Line::Mute | Line::Forgotten | Line::Deaf => {
                    if api.line.get() == Line::Deaf {
                        api.answer(&call);
                    }
                    api.clock.sleep_until(api.clock.now() + TIMEOUT).await;
                    Err(late())
                }
            }
        })
    }

    fn watch(&self, path: String) -> LocalFuture<'_, Result<Box<dyn Watch>, NoWatch>> {
        let api = self.0.clone();
        Box::pin(async move {
            let unreachable =
                |text: &str| NoWatch::NoAnswer(NoAnswer::Unreachable(text.to_owned()));
            api.watches.set(api.watches.get() + 1);
            if api.drops(&format!("Watch {path}")).await {
                return Err(unreachable("reset"));
            }
            match api.line.get() {
                Line::Up | Line::Deaf => {}
                Line::Down => return Err(unreachable("refused")),
                Line::Silent | Line::Mute | Line::Forgotten => {
                    api.clock.sleep_until(api.clock.now() + TIMEOUT).await;
                    return Err(unreachable("late"));
                }
            }
            if let Some(reply) = api.refuses(&format!("Watch {path}")) {
                return Err(NoWatch::Refused(reply));
            }
            let opening = api.opening.get();
            api.clock.sleep_until(api.clock.now() + opening).await;
            let version = path
                .split(['?', '&'])
                .find_map(|part| part.strip_prefix("resourceVersion="));
            let after = version
                .and_then(|version| version.parse().ok())
                .unwrap_or(0);
            if after < api.floor.get() {
                return Err(NoWatch::Refused(status(410, "too old resource version")));
            }
            Ok(Box::new(Events { api, path, after }) as Box<dyn Watch>)
        })
    }

    fn reconnect(&self) {
        if self.0.line.get() == Line::Forgotten {
            self.0.line.set(Line::Up);
        }
    }

    fn knock(&self) -> LocalFuture<'_, Knock> {
        let knock = match self.0.line.get() {
            Line::Up | Line::Forgotten => Knock::Open,
            Line::Mute => Knock::Mute,
            Line::Down | Line::Silent | Line::Deaf => Knock::Shut,
        };
        Box::pin(async move { knock })
    }
}
