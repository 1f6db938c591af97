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
    Service,
    Endpoints,
    LimitRange,
    ResourceQuota,
    Lease,
    PriorityClass,
}

/// What discovery says of a kind.
struct Description {
    name: &'static str,
    plural: &'static str,
    /// Empty for the core group.
    group: &'static str,
    version: &'static str,
    namespaced: bool,
    short_names: &'static [&'static str],
}

const fn core(
    name: &'static str,
    plural: &'static str,
    short_names: &'static [&'static str],
) -> Description {
    Description {
        name,
        plural,
        group: "",
        version: "v1",
        namespaced: true,
        short_names,
    }
}

const fn cluster_wide(description: Description) -> Description {
    Description {
        namespaced: false,
        ..description
    }
}

const fn in_group(group: &'static str, description: Description) -> Description {
    Description {
        group,
        ..description
    }
}

impl Kind {
    pub const ALL: [Kind; 13] = [
        Kind::Pod,
        Kind::Node,
        Kind::Namespace,
        Kind::ConfigMap,
        Kind::Secret,
        Kind::ServiceAccount,
        Kind::Event,
        Kind::Service,
        Kind::Endpoints,
        Kind::LimitRange,
        Kind::ResourceQuota,
        Kind::Lease,
        Kind::PriorityClass,
    ];

    const fn description(self) -> Description {
        match self {
            Kind::Pod => core("Pod", "pods", &["po"]),
            Kind::Node => cluster_wide(core("Node", "nodes", &["no"])),
            Kind::Namespace => cluster_wide(core("Namespace", "namespaces", &["ns"])),
            Kind::ConfigMap => core("ConfigMap", "configmaps", &["cm"]),
            Kind::Secret => core("Secret", "secrets", &[]),
            Kind::ServiceAccount => core("ServiceAccount", "serviceaccounts", &["sa"]),
            Kind::Event => core("Event", "events", &["ev"]),
            Kind::Service => core("Service", "services", &["svc"]),
            Kind::Endpoints => core("Endpoints", "endpoints", &["ep"]),
            Kind::LimitRange => core("LimitRange", "limitranges", &["limits"]),
            Kind::ResourceQuota => core("ResourceQuota", "resourcequotas", &["quota"]),
            Kind::Lease => in_group("coordination.k8s.io", core("Lease", "leases", &[])),
            Kind::PriorityClass => in_group(
                "scheduling.k8s.io",
                cluster_wide(core("PriorityClass", "priorityclasses", &["pc"])),
            ),
        }
    }

    /// `Pod`
    pub const fn name(self) -> &'static str {
        self.description().name
    }

    /// The resource name in URLs: `pods`.
    pub const fn plural(self) -> &'static str {
        self.description().plural
    }

    /// The API group that stores it, empty for core.
    pub const fn group(self) -> &'static str {
        self.description().group
    }

    /// `v1`
    pub const fn version(self) -> &'static str {
        self.description().version
    }

    /// `v1`, `coordination.k8s.io/v1`
    pub fn api_version(self) -> String {
        match self.group() {
            "" => self.version().to_owned(),
            group => format!("{group}/{}", self.version()),
        }
    }

    /// `po`
    pub const fn short_names(self) -> &'static [&'static str] {
        self.description().short_names
    }

    pub fn from_name(name: &str) -> Option<Kind> {
        Kind::ALL.into_iter().find(|kind| kind.name() == name)
    }

    pub fn from_plural(plural: &str) -> Option<Kind> {
        Kind::ALL.into_iter().find(|kind| kind.plural() == plural)
    }

    pub const fn namespaced(self) -> bool {
        self.description().namespaced
    }

    /// Whether an object of this kind is flushed to stable storage before it is acknowledged.
    /// Events and leases are renewed by those who make them, and kept in memory only.
    pub fn durable(self) -> bool {
        !matches!(self, Kind::Event | Kind::Lease)
    }

    /// Whether a PUT to a name that is free makes the object. Upstream: `AllowCreateOnUpdate`.
    pub fn created_by_update(self) -> bool {
        matches!(
            self,
            Kind::Event | Kind::Lease | Kind::Endpoints | Kind::LimitRange | Kind::Service
        )
    }

    /// Whether a PUT without resourceVersion replaces whatever is there. Upstream:
    /// `AllowUnconditionalUpdate`.
    pub fn updated_unconditionally(self) -> bool {
        self != Kind::Lease
    }

    /// Whether a deletion is answered with the object even when that is gone. Upstream:
    /// `ReturnDeletedObject`.
    pub fn returned_when_deleted(self) -> bool {
        matches!(
            self,
            Kind::Pod | Kind::Service | Kind::ServiceAccount | Kind::ResourceQuota
        )
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
