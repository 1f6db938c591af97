//! What the plug-ins' tables share: a registry made of a list, and a write with its context.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;

use serde_json::{Value, json};

use crate::object::{Key, Kind, Object, Provenance, Source, Standing, User};
use crate::registry::{Actor, Admit, Attributes, Denial, Operation, Remarks, View};
use crate::world::Random;

/// Objects by key, and what is on its way.
#[derive(Default)]
pub struct Objects {
    pub objects: BTreeMap<Key, Arc<Object>>,
    pub flying: RefCell<Vec<Key>>,
}

impl Objects {
    pub fn of(objects: Vec<(Kind, &str, &str, Value)>) -> Objects {
        let made = objects.into_iter().map(|(kind, namespace, name, body)| {
            let object = object(kind, namespace, name, body);
            (object.key.clone(), Arc::new(object))
        });
        Objects {
            objects: made.collect(),
            flying: RefCell::default(),
        }
    }
}

impl View for Objects {
    fn get(&self, key: &Key) -> Option<Arc<Object>> {
        self.objects.get(key).cloned()
    }

    fn list(&self, kind: Kind, namespace: Option<&str>) -> Vec<Arc<Object>> {
        let here = |key: &Key| {
            key.kind == kind && namespace.is_none_or(|namespace| key.namespace == namespace)
        };
        let all = self.objects.iter().filter(|(key, _)| here(key));
        all.map(|(_, object)| object.clone()).collect()
    }

    fn in_flight(&self, key: &Key) -> bool {
        self.flying.borrow().contains(key)
    }
}

pub fn object(kind: Kind, namespace: &str, name: &str, mut body: Value) -> Object {
    body["metadata"]["name"] = json!(name);
    if !namespace.is_empty() {
        body["metadata"]["namespace"] = json!(namespace);
    }
    if body["metadata"]["uid"].is_null() {
        body["metadata"]["uid"] = json!(format!("uid-of-{name}"));
    }
    Object {
        key: Key::local(kind, namespace, name),
        source: Source::Api,
        provenance: None::<Provenance>,
        standing: Standing::Accepted,
        resource_version: 1,
        body,
    }
}

/// A write of `key`, by `kubernetes-admin` through the API unless it is said otherwise.
pub struct Write<'a> {
    pub view: &'a Objects,
    pub operation: Operation,
    pub actor: Actor,
    pub key: Key,
    pub current: Option<Object>,
    pub remarks: Remarks,
}

pub fn create<'a>(view: &'a Objects, kind: Kind, namespace: &str, name: &str) -> Write<'a> {
    Write {
        view,
        operation: Operation::Create,
        actor: Actor::new(Source::Api, Arc::new(User::new("kubernetes-admin", &[]))),
        key: Key::local(kind, namespace, name),
        current: None,
        remarks: Remarks::default(),
    }
}

impl Write<'_> {
    pub fn over(mut self, body: Value) -> Self {
        self.operation = Operation::Update;
        self.current = Some(object(
            self.key.kind,
            &self.key.namespace,
            &self.key.name,
            body,
        ));
        self
    }

    pub fn deleting(mut self, body: Value) -> Self {
        self = self.over(body);
        self.operation = Operation::Delete;
        self
    }

    pub fn by(mut self, user: &str, groups: &[&str]) -> Self {
        self.actor.user = Arc::new(User::new(user, groups));
        self
    }

    pub fn from(mut self, source: Source) -> Self {
        self.actor = source.into();
        self
    }

    fn attributes(&self) -> Attributes<'_> {
        Attributes {
            operation: self.operation,
            actor: &self.actor,
            key: &self.key,
            current: self.current.as_ref(),
            view: self.view,
            remarks: &self.remarks,
        }
    }

    /// Both phases of one plug-in: the object as it would be stored.
    pub fn admit(&self, plugin: &dyn Admit, mut body: Value) -> Result<Value, Denial> {
        let attributes = self.attributes();
        if self.operation != Operation::Delete {
            plugin.mutate(&attributes, &mut body)?;
        }
        plugin.validate(&attributes, &body)?;
        Ok(body)
    }

    /// The text of its no; panics if there is none.
    pub fn refused(&self, plugin: &dyn Admit, body: Value) -> String {
        match self.admit(plugin, body.clone()) {
            Err(Denial::Forbidden { message, .. }) => message,
            other => panic!("{body}: {other:?}"),
        }
    }

    /// Warnings and namespaces to be made.
    pub fn remarks(self) -> (Vec<String>, Vec<String>) {
        self.remarks.into_parts()
    }
}

/// Bytes that count up.
pub struct Counting(RefCell<u8>);

impl Counting {
    pub fn rc() -> Rc<dyn Random> {
        Rc::new(Counting(RefCell::new(0)))
    }
}

impl Random for Counting {
    fn fill(&self, bytes: &mut [u8]) {
        let mut next = self.0.borrow_mut();
        for byte in bytes {
            *byte = *next;
            *next = next.wrapping_add(1);
        }
    }
}
