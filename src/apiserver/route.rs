//! From a request to what answers it. Pure; whether it exists is decided by others.

use http::Method;

use super::query::Query;
use super::request_info::RequestInfo;
use crate::object::Kind;

/// What a request path names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    Version,
    /// `healthz`, `livez`, `readyz`, and one check by name.
    Health(Option<String>),
    /// `/api`
    CoreVersions,
    /// `/apis`
    Groups,
    /// `/api/v1`
    CoreResources,
    /// `namespace` is `None` for all of them, and for kinds that have none.
    Collection {
        kind: Kind,
        namespace: Option<String>,
    },
    Object(Place),
    Log(Place),
    Exec(Place),
    Attach(Place),
    PortForward(Place),
    Part(Place, Part),
    /// `bindings`: pods are given to nodes, by names in the bodies.
    Bindings {
        namespace: String,
    },
    /// `/lowtide/v1/images`
    Images,
    ImagePull,
    ImageImport,
    NodeStatus,
    /// `/lowtide/v1/standing/…`: where an object was written down and whether that text is in use.
    Standing(Place),
}

/// One object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    pub kind: Kind,
    /// Empty for kinds that have none.
    pub namespace: String,
    pub name: String,
}

/// A subresource that is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    Status,
    EphemeralContainers,
    Finalize,
    Binding,
    Eviction,
}

impl Part {
    fn of(kind: Kind, name: &str) -> Option<Part> {
        match (kind, name) {
            (
                Kind::Pod | Kind::Node | Kind::Namespace | Kind::Service | Kind::ResourceQuota,
                "status",
            ) => Some(Part::Status),
            (Kind::Pod, "ephemeralcontainers") => Some(Part::EphemeralContainers),
            (Kind::Namespace, "finalize") => Some(Part::Finalize),
            (Kind::Pod, "binding") => Some(Part::Binding),
            (Kind::Pod, "eviction") => Some(Part::Eviction),
            _ => None,
        }
    }

    /// Its name, if a PUT replaces what it shows of the object.
    pub fn replaced(self) -> Option<&'static str> {
        match self {
            Part::Status => Some("status"),
            Part::EphemeralContainers => Some("ephemeralcontainers"),
            Part::Finalize => Some("finalize"),
            Part::Binding | Part::Eviction => None,
        }
    }

    /// Whether it is got and patched; both show the whole object.
    pub fn patched(self) -> bool {
        matches!(self, Part::Status | Part::EphemeralContainers)
    }
}

impl Target {
    /// `None` for a request that nothing is at.
    pub fn of(info: &RequestInfo) -> Option<Target> {
        if info.is_resource {
            return resource(info);
        }
        let segments: Vec<&str> = info.path.split('/').skip(1).collect();
        match segments.as_slice() {
            ["version"] => Some(Target::Version),
            ["healthz" | "livez" | "readyz"] => Some(Target::Health(None)),
            ["healthz" | "livez" | "readyz", check] => {
                Some(Target::Health(Some((*check).to_owned())))
            }
            ["api"] => Some(Target::CoreVersions),
            ["apis"] => Some(Target::Groups),
            ["api", "v1"] => Some(Target::CoreResources),
            ["lowtide", "v1", rest @ ..] => own(rest),
            _ => None,
        }
    }
}

fn resource(info: &RequestInfo) -> Option<Target> {
    if (&*info.resource, &*info.group, &*info.version) == ("bindings", "", "v1")
        && info.is_collection
        && !info.namespace.is_empty()
    {
        let namespace = info.namespace.clone();
        return Some(Target::Bindings { namespace });
    }
    let kind = Kind::from_plural(&info.resource)?;
    if (kind.group(), kind.version()) != (&info.group, &info.version) || !info.rest.is_empty() {
        return None;
    }
    // A namespace is a request in itself; other cluster-scoped kinds have none in their path.
    let namespaced = !info.namespace.is_empty() && kind != Kind::Namespace;
    if namespaced && !kind.namespaced() {
        return None;
    }
    if info.is_collection {
        return Some(Target::Collection {
            kind,
            namespace: namespaced.then(|| info.namespace.clone()),
        });
    }
    if kind.namespaced() && !namespaced {
        return None;
    }
    let place = Place {
        kind,
        namespace: if namespaced {
            info.namespace.clone()
        } else {
            String::new()
        },
        name: info.name.clone(),
    };
    match (kind, info.subresource.as_str()) {
        (_, "") => Some(Target::Object(place)),
        (Kind::Pod, "log") => Some(Target::Log(place)),
        (Kind::Pod, "exec") => Some(Target::Exec(place)),
        (Kind::Pod, "attach") => Some(Target::Attach(place)),
        (Kind::Pod, "portforward") => Some(Target::PortForward(place)),
        (kind, sub) => Part::of(kind, sub).map(|part| Target::Part(place, part)),
    }
}

fn own(segments: &[&str]) -> Option<Target> {
    match segments {
        ["images"] => Some(Target::Images),
        ["images", "pull"] => Some(Target::ImagePull),
        ["images", "import"] => Some(Target::ImageImport),
        ["status"] => Some(Target::NodeStatus),
        ["standing", rest @ ..] => {
            let path = format!("/api/v1/{}", rest.join("/"));
            let info = RequestInfo::parse(&Method::GET, &path, &Query::default()).ok()?;
            match resource(&info)? {
                Target::Object(place) => Some(Target::Standing(place)),
                _ => None,
            }
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(path: &str) -> Option<Target> {
        let info = RequestInfo::parse(&Method::GET, path, &Query::default()).ok()?;
        Target::of(&info)
    }

    fn place(kind: Kind, namespace: &str, name: &str) -> Place {
        Place {
            kind,
            namespace: namespace.to_owned(),
            name: name.to_owned(),
        }
    }

    #[test]
    fn paths_name_what_they_say() {
        let collection = |kind, namespace: Option<&str>| Target::Collection {
            kind,
            namespace: namespace.map(str::to_owned),
        };
        let table = [
            ("/version", Target::Version),
            ("/readyz/ping", Target::Health(Some("ping".to_owned()))),
            ("/api/", Target::CoreVersions),
            ("/api/v1", Target::CoreResources),
            ("/api/v1/pods", collection(Kind::Pod, None)),
            ("/api/v1/namespaces", collection(Kind::Namespace, None)),
            (
                "/api/v1/namespaces/a%2Db/pods",
                collection(Kind::Pod, Some("a-b")),
            ),
            (
                "/api/v1/namespaces/a",
                Target::Object(place(Kind::Namespace, "", "a")),
            ),
            (
                "/api/v1/nodes/n.x",
                Target::Object(place(Kind::Node, "", "n.x")),
            ),
            (
                "/api/v1/namespaces/a/pods/p/log",
                Target::Log(place(Kind::Pod, "a", "p")),
            ),
            (
                "/api/v1/namespaces/a/pods/p/exec",
                Target::Exec(place(Kind::Pod, "a", "p")),
            ),
            (
                "/api/v1/namespaces/a/pods/p/attach",
                Target::Attach(place(Kind::Pod, "a", "p")),
            ),
            (
                "/api/v1/namespaces/a/pods/p/portforward",
                Target::PortForward(place(Kind::Pod, "a", "p")),
            ),
            (
                "/lowtide/v1/standing/namespaces/a/pods/p",
                Target::Standing(place(Kind::Pod, "a", "p")),
            ),
        ];
        for (path, target) in table {
            assert_eq!(at(path), Some(target), "{path}");
        }
    }

    #[test]
    fn other_paths_name_nothing() {
        let table = [
            "/",
            "/api/v1/pods/p",
            "/api/v2/pods",
            "/apis/coordination.k8s.io/v1/namespaces/a/pods/p",
            "/api/v1/namespaces/a/nodes",
            "/api/v1/namespaces/a/secrets/s/log",
            "/api/v1/namespaces/a/pods/p/log/x",
            "/apis/apps/v1/deployments",
        ];
        for path in table {
            assert_eq!(at(path), None, "{path}");
        }
    }
}
