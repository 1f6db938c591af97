//! The cluster's Node of this machine, as the cluster was last seen to hold it.

use std::rc::Rc;

use serde_json::Value;

use super::link::Link;
use super::paths::{self, Selection};
use super::reflector::{Held, Reflector};
use crate::object::{Key, Kind, Origin, placement};
use crate::world::{Call, NoAnswer};

pub struct OwnNode {
    link: Rc<Link>,
    name: String,
    pub reflector: Rc<Reflector>,
}

impl OwnNode {
    /// Rings when `pods` does.
    pub fn new(link: Rc<Link>, name: &str, pods: &Reflector) -> OwnNode {
        let reflector = pods.beside(Selection {
            kind: Kind::Node,
            namespace: String::new(),
            fields: format!("metadata.name={name}"),
        });
        OwnNode {
            link,
            name: name.to_owned(),
            reflector,
        }
    }

    /// Of the registry's copy.
    pub fn key(&self) -> Key {
        Key {
            origin: Origin::Remote,
            ..Key::local(Kind::Node, "", &self.name)
        }
    }

    pub fn get(&self) -> Option<Rc<Held>> {
        self.reflector.get("", &self.name)
    }

    /// UID, if the cluster has spoken of it: `Some(None)` says that there is none.
    pub fn uid(&self) -> Option<Option<String>> {
        let uid = || self.get().map(|held| held.uid().to_owned());
        self.reflector.has_listed().then(uid)
    }

    /// Whether a pod's selectors choose the Node; a Node that nobody has seen is not known not to be.
    pub fn is_chosen_by(&self, spec: &Value) -> bool {
        self.get()
            .is_none_or(|held| placement::selects(spec, &held.body()))
    }

    /// Looks at once, ahead of the watch. Without an answer what is known stays.
    pub async fn ask(&self) -> Result<(), NoAnswer> {
        let path = paths::object(&self.key());
        let reply = self.link.call(Call::get(path)).await?;
        match reply.status {
            200 => self.reflector.learn(reply.body),
            status => log::debug!("look at the own node: {status} {}", reply.message()),
        }
        Ok(())
    }
}
