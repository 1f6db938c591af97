//! What identifies an object: origin, kind, namespace, name.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Which world an object belongs to. References of a pod resolve within its own origin: both have
/// a `default` account, a `kubernetes` service and a Node of this name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Origin {
    /// Made here: manifests, the local API, the node itself.
    Local,
    /// A copy of what the remote cluster holds; read-only in the local API.
    Remote,
}

/// The kinds that the node knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Kind {
    Pod,
    Node,
    Namespace,
    ConfigMap,
    Secret,
    ServiceAccount,
    Event,
}

impl Kind {
    pub const ALL: [Kind; 7] = [
        Kind::Pod,
        Kind::Node,
        Kind::Namespace,
        Kind::ConfigMap,
        Kind::Secret,
        Kind::ServiceAccount,
        Kind::Event,
    ];

    /// `Pod`
    pub fn name(self) -> &'static str {
        match self {
            Kind::Pod => "Pod",
            Kind::Node => "Node",
            Kind::Namespace => "Namespace",
            Kind::ConfigMap => "ConfigMap",
            Kind::Secret => "Secret",
            Kind::ServiceAccount => "ServiceAccount",
            Kind::Event => "Event",
        }
    }

    /// The resource name in URLs: `pods`.
    pub fn plural(self) -> &'static str {
        match self {
            Kind::Pod => "pods",
            Kind::Node => "nodes",
            Kind::Namespace => "namespaces",
            Kind::ConfigMap => "configmaps",
            Kind::Secret => "secrets",
            Kind::ServiceAccount => "serviceaccounts",
            Kind::Event => "events",
        }
    }

    pub fn from_name(name: &str) -> Option<Kind> {
        Kind::ALL.into_iter().find(|kind| kind.name() == name)
    }

    pub fn from_plural(plural: &str) -> Option<Kind> {
        Kind::ALL.into_iter().find(|kind| kind.plural() == plural)
    }

    pub fn namespaced(self) -> bool {
        !matches!(self, Kind::Node | Kind::Namespace)
    }

    /// Whether an object of this kind is flushed to stable storage before it is acknowledged.
    /// Events and the node's own Node object are derived and kept in memory only.
    pub fn durable(self) -> bool {
        !matches!(self, Kind::Event | Kind::Node)
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Key {
    pub kind: Kind,
    /// Empty for cluster-scoped kinds.
    pub namespace: String,
    pub name: String,
    pub origin: Origin,
}

impl Key {
    pub fn local(kind: Kind, namespace: &str, name: &str) -> Key {
        Key {
            kind,
            namespace: namespace.to_owned(),
            name: name.to_owned(),
            origin: Origin::Local,
        }
    }
}

impl fmt::Display for Key {
    /// `Pod default/web`, `Node pi-4`; remote ones are marked.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let remote = match self.origin {
            Origin::Local => "",
            Origin::Remote => " (remote)",
        };
        if self.namespace.is_empty() {
            write!(f, "{} {}{remote}", self.kind, self.name)
        } else {
            write!(f, "{} {}/{}{remote}", self.kind, self.namespace, self.name)
        }
    }
}
