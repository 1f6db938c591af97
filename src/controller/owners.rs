//! `ownerReferences` read, and what follows from how the owners are. Pure.
//!
//! ```text
//!   an owner is there ─────────────────────► the object stays; references to others are dropped
//!   all are gone ──────────────────────────► it goes
//!   some wait for their dependants to go ──► it goes, before them
//! ```
//! Source: Kubernetes pkg/controller/garbagecollector (attemptToDeleteItem).

use serde_json::Value;

use crate::object::{Key, Kind};
use crate::registry::Propagation;

pub const ORPHAN: &str = "orphan";
pub const FOREGROUND: &str = "foregroundDeletion";

/// One entry of `metadata.ownerReferences`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Owner {
    pub api_version: String,
    pub kind: String,
    pub name: String,
    pub uid: String,
    /// Its deletion in the foreground waits for the object.
    pub blocks: bool,
}

impl Owner {
    /// What the registry calls its kind; `None` for kinds that are not served here.
    pub fn known_kind(&self) -> Option<Kind> {
        let kind = Kind::from_name(&self.kind)?;
        (kind.api_version() == self.api_version).then_some(kind)
    }

    /// Where it must be for the reference to count. `None` for kinds that are not served here, and
    /// for an owner with a namespace of an object that has none.
    pub fn key(&self, dependant: &Key) -> Option<Key> {
        let kind = self.known_kind()?;
        match (kind.namespaced(), dependant.kind.namespaced()) {
            (true, false) => None,
            (true, true) => Some(Key::local(kind, &dependant.namespace, &self.name)),
            (false, _) => Some(Key::local(kind, "", &self.name)),
        }
    }
}

pub fn owners(metadata: &Value) -> Vec<Owner> {
    let entries = metadata["ownerReferences"].as_array().into_iter().flatten();
    entries
        .map(|entry| {
            let text = |name: &str| entry[name].as_str().unwrap_or_default().to_owned();
            Owner {
                api_version: text("apiVersion"),
                kind: text("kind"),
                name: text("name"),
                uid: text("uid"),
                blocks: entry["blockOwnerDeletion"] == true,
            }
        })
        .collect()
}

pub fn has_finalizer(metadata: &Value, name: &str) -> bool {
    let finalizers = metadata["finalizers"].as_array();
    finalizers.is_some_and(|finalizers| finalizers.iter().any(|one| one == name))
}

/// How an owner is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// It is there, or nothing can be known of it: nothing is collected for its sake.
    There,
    Gone,
    /// It is being deleted in the foreground: it waits for its dependants.
    Waits,
}

/// What becomes of an object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    Stays,
    /// It stays without the references to these UIDs.
    Loses(Vec<String>),
    Goes(Propagation),
}

/// `dependants`: whether others own up to the object.
pub fn judge(states: &[(Owner, State)], metadata: &Value, dependants: bool) -> Verdict {
    let is = |state: State| states.iter().any(move |(_, known)| *known == state);
    if states.is_empty() {
        return Verdict::Stays;
    }
    if is(State::There) {
        let useless = states.iter().filter(|(_, state)| *state != State::There);
        let useless: Vec<String> = useless.map(|(owner, _)| owner.uid.clone()).collect();
        return match useless.is_empty() {
            true => Verdict::Stays,
            false => Verdict::Loses(useless),
        };
    }
    // What waits for the object waits for those that hang on it, too.
    if is(State::Waits) && dependants {
        return Verdict::Goes(Propagation::Foreground);
    }
    Verdict::Goes(if has_finalizer(metadata, ORPHAN) {
        Propagation::Orphan
    } else if has_finalizer(metadata, FOREGROUND) {
        Propagation::Foreground
    } else {
        Propagation::Background
    })
}

/// The object without references to `uids`.
pub fn without_owners(body: &Value, uids: &[String]) -> Value {
    let mut body = body.clone();
    let Some(metadata) = body["metadata"].as_object_mut() else {
        return body;
    };
    if let Some(list) = metadata
        .get_mut("ownerReferences")
        .and_then(Value::as_array_mut)
    {
        list.retain(|entry| !uids.iter().any(|uid| entry["uid"] == **uid));
        if list.is_empty() {
            metadata.remove("ownerReferences");
        }
    }
    body
}

/// The object without this finalizer.
pub fn without_finalizer(body: &Value, name: &str) -> Value {
    let mut body = body.clone();
    let Some(metadata) = body["metadata"].as_object_mut() else {
        return body;
    };
    if let Some(list) = metadata.get_mut("finalizers").and_then(Value::as_array_mut) {
        list.retain(|finalizer| finalizer != name);
        if list.is_empty() {
            metadata.remove("finalizers");
        }
    }
    body
}

/// The object whose owners no longer wait for it.
pub fn unblocked(body: &Value) -> Value {
    let mut body = body.clone();
    let list = body["metadata"]["ownerReferences"].as_array_mut();
    for entry in list.into_iter().flatten() {
        if entry["blockOwnerDeletion"] == true {
            entry["blockOwnerDeletion"] = Value::Bool(false);
        }
    }
    body
}
