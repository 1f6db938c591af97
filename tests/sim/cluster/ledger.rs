//! What a user was promised: which pods are there, which are bound to the node, which are to go.
//!
//! An answer that was not heard promises nothing, and a cluster that is put back to a backup keeps no
//! promise of the time after it.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;

use lowtide::object::{Key, Kind};
use lowtide::registry::Reader;
use serde_json::Value;

use super::far::Far;
use crate::host::Host;
use crate::real::NODE_NAME;

/// Namespace and name.
type Name = (String, String);

/// A UID, and how often the cluster had been put back when it was spoken of.
type Said = (String, u64);

/// What was asked for under one name, and what the cluster has acknowledged.
#[derive(Default)]
struct Promise {
    /// A pod that nobody has asked to go since.
    there: Option<Said>,
    /// Deletions that were asked for, and those among them of which nothing was heard.
    deletions: u64,
    unheard: u64,
}

/// How things stood when something was asked for.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Asked {
    deletions: u64,
    restores: u64,
}

pub struct Ledger {
    far: Rc<Far>,
    promises: RefCell<BTreeMap<Name, Promise>>,
    bound: RefCell<Vec<Said>>,
    going: RefCell<Vec<Said>>,
    lie: RefCell<Option<String>>,
}

impl Ledger {
    pub fn new(far: &Rc<Far>) -> Ledger {
        Ledger {
            far: Rc::clone(far),
            promises: RefCell::default(),
            bound: RefCell::default(),
            going: RefCell::default(),
            lie: RefCell::default(),
        }
    }

    fn promise<T>(&self, namespace: &str, name: &str, change: impl FnOnce(&mut Promise) -> T) -> T {
        let key = (namespace.to_owned(), name.to_owned());
        change(self.promises.borrow_mut().entry(key).or_default())
    }

    pub fn ask(&self, namespace: &str, name: &str) -> Asked {
        Asked {
            deletions: self.promise(namespace, name, |promise| promise.deletions),
            restores: self.far.restores.get(),
        }
    }

    /// Somebody wants it to go.
    pub fn doubt(&self, namespace: &str, name: &str) -> Asked {
        self.promise(namespace, name, |promise| {
            promise.there = None;
            promise.deletions += 1;
            promise.unheard += 1;
        });
        self.ask(namespace, name)
    }

    pub fn heard(&self, namespace: &str, name: &str) {
        self.promise(namespace, name, |promise| promise.unheard -= 1);
    }

    /// A deletion was acknowledged with what was there. Of pods of other nodes nobody says more.
    pub fn note_deleted(&self, asked: Asked, pod: &Value) {
        let spec = &pod["spec"];
        let ours = spec["nodeName"].is_null() || spec["nodeName"] == NODE_NAME;
        if let Some(uid) = pod["metadata"]["uid"].as_str().filter(|_| ours) {
            self.note(&self.going, asked, uid);
        }
    }

    pub fn note_bound(&self, asked: Asked, uid: &str) {
        let restores = self.far.restores.get();
        let gone = (uid.to_owned(), asked.restores);
        if restores == asked.restores && self.going.borrow().contains(&gone) {
            let lie = format!("{uid} was bound after its deletion was acknowledged");
            self.lie.borrow_mut().get_or_insert(lie);
        }
        self.note(&self.bound, asked, uid);
    }

    fn note(&self, list: &RefCell<Vec<Said>>, asked: Asked, uid: &str) {
        if self.far.restores.get() == asked.restores {
            list.borrow_mut().push((uid.to_owned(), asked.restores));
        }
    }

    /// The cluster says that a pod is made.
    pub fn note_made(&self, namespace: &str, pod: &Value, asked: Asked) {
        let text = |field: &str| pod["metadata"][field].as_str().unwrap_or_default();
        let now = self.ask(namespace, text("name"));
        self.promise(namespace, text("name"), |promise| {
            if now == asked && promise.unheard == 0 {
                promise.there = Some((text("uid").to_owned(), now.restores));
            }
        });
    }

    /// Whether what the cluster has acknowledged is so, and on the node too.
    pub fn was_told_the_truth(&self, far: &Reader, host: &Host) -> Result<(), String> {
        if let Some(lie) = self.lie.borrow().clone() {
            return Err(lie);
        }
        let restores = self.far.restores.get();
        for ((namespace, name), promise) in &*self.promises.borrow() {
            let Some((uid, _)) = promise.there.as_ref().filter(|there| there.1 == restores) else {
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
        let (pods, _) = far.list(Kind::Pod, None);
        let said = |list: &RefCell<Vec<Said>>, uid: &str| {
            list.borrow().contains(&(uid.to_owned(), restores))
        };
        for pod in &pods {
            let (key, uid, node) = (&pod.key, pod.uid(), &pod.body["spec"]["nodeName"]);
            if said(&self.bound, uid) && *node != NODE_NAME {
                return Err(format!(
                    "{key} {uid} was bound to {NODE_NAME} and has {node}"
                ));
            }
            if said(&self.going, uid) {
                return Err(format!(
                    "{key} {uid} is there after its deletion was acknowledged"
                ));
            }
        }
        let kernel = host.kernel.borrow();
        match kernel
            .pods
            .keys()
            .find(|uid| said(&self.going, uid.as_str()))
        {
            Some(uid) => Err(format!(
                "{uid} is on the node after its deletion was acknowledged"
            )),
            None => Ok(()),
        }
    }
}
