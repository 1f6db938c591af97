//! From a request to what answers it. Pure; whether it exists is decided by others.

use http::Method;

use super::authz::review::Review;
use super::discovery::Document;
use super::events;
use super::openapi::OpenApi;
use super::query::Query;
use super::request_info::RequestInfo;
use super::stats::{self, Metrics};
use super::stream::command::Act;
use crate::object::Kind;

const GROUP_AUTHORIZATION: &str = "authorization.k8s.io";

/// What a request path names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    Version,
    /// `healthz`, `livez`, `readyz`, and one check by name.
    Health {
        endpoint: String,
        check: Option<String>,
    },
    /// Of the server itself.
    Metrics,
    Discovery(Document),
    /// `/openapi/v3`, `/openapi/v2`
    Schemas(OpenApi),
    /// `/openapi/v3/apis/GROUP/VERSION`, by what is behind `v3/`.
    Schema(String),
    /// A question about rights; `namespace` is empty for none.
    Review {
        review: Review,
        namespace: String,
    },
    /// `namespace` is `None` for all of them, and for kinds that have none.
    Collection {
        kind: Kind,
        namespace: Option<String>,
    },
    Object(Place),
    /// Figures of the node, by the node's name if they are asked through its proxy.
    Stats {
        document: stats::Document,
        node: Option<String>,
    },
    Usage(Metrics),
    Log(Place),
    Stream(Act, Place),
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
    Resize,
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
            (Kind::Pod, "resize") => Some(Part::Resize),
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
            Part::Resize => Some("resize"),
            Part::Finalize => Some("finalize"),
            Part::Binding | Part::Eviction => None,
        }
    }

    /// Whether it is got and patched; both show the whole object.
    pub fn patched(self) -> bool {
        matches!(
            self,
            Part::Status | Part::EphemeralContainers | Part::Resize
        )
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
            [endpoint @ ("healthz" | "livez" | "readyz"), check @ ..] if check.len() < 2 => {
                Some(Target::Health {
                    endpoint: (*endpoint).to_owned(),
                    check: check.first().map(|check| (*check).to_owned()),
                })
            }
            ["metrics"] => Some(Target::Metrics),
            ["openapi", "v2"] => Some(Target::Schemas(OpenApi::V2)),
            ["openapi", "v3"] => Some(Target::Schemas(OpenApi::V3)),
            ["openapi", "v3", name @ ..] => Some(Target::Schema(name.join("/"))),
            ["lowtide", "v1", rest @ ..] => own(rest),
            segments => match stats::Document::of(segments) {
                Some(document) => Some(Target::Stats {
                    document,
                    node: None,
                }),
                None => document(segments).map(Target::Discovery),
            },
        }
    }
}

fn document(segments: &[&str]) -> Option<Document> {
    let resources = |group: &str, version: &str| Document::Resources {
        group: group.to_owned(),
        version: version.to_owned(),
    };
    match segments {
        [""] => Some(Document::Paths),
        ["api"] => Some(Document::CoreVersions),
        ["api", version] => Some(resources("", version)),
        ["apis"] => Some(Document::Groups),
        ["apis", group] => Some(Document::Group((*group).to_owned())),
        ["apis", group, version] if !group.is_empty() => Some(resources(group, version)),
        _ => None,
    }
}

/// A review of `authorization.k8s.io/v1`.
fn review(info: &RequestInfo) -> Option<Target> {
    let review = Review::from_plural(&info.resource)?;
    let fits = info.version == "v1" && info.is_collection;
    (fits && review.namespaced() != info.namespace.is_empty()).then(|| Target::Review {
        review,
        namespace: info.namespace.clone(),
    })
}

fn resource(info: &RequestInfo) -> Option<Target> {
    if info.group == GROUP_AUTHORIZATION {
        return review(info);
    }
    if let Some(metrics) = Metrics::of(info) {
        return Some(Target::Usage(metrics));
    }
    let place = (&*info.group, &*info.version, &*info.namespace);
    if place == ("", "v1", "") && (&*info.resource, &*info.subresource) == ("nodes", "proxy") {
        let segments: Vec<&str> = info.rest.iter().map(String::as_str).collect();
        return stats::Document::of(&segments).map(|document| Target::Stats {
            document,
            node: Some(info.name.clone()),
        });
    }
    if (&*info.resource, &*info.group, &*info.version) == ("bindings", "", "v1")
        && info.is_collection
        && !info.namespace.is_empty()
    {
        let namespace = info.namespace.clone();
        return Some(Target::Bindings { namespace });
    }
    let kind = Kind::from_plural(&info.resource)?;
    let at = (info.group.as_str(), info.version.as_str());
    let shown = kind == Kind::Event && at == (events::GROUP, "v1");
    if (kind.group(), kind.version()) != at && !shown || !info.rest.is_empty() {
        return None;
    }
    // A namespace is in itself; other cluster-scoped kinds have none in their path. Rights were asked for
    // in the namespace of the path, so it must be what is acted on.
    let own = if info.is_collection { "" } else { &*info.name };
    if kind == Kind::Namespace && info.namespace != own {
        return None;
    }
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
        (Kind::Pod, "exec") => Some(Target::Stream(Act::Exec, place)),
        (Kind::Pod, "attach") => Some(Target::Stream(Act::Attach, place)),
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
        let resources = |group: &str, version: &str| {
            Target::Discovery(Document::Resources {
                group: group.to_owned(),
                version: version.to_owned(),
            })
        };
        let table = [
            ("/version", Target::Version),
            (
                "/readyz/ping",
                Target::Health {
                    endpoint: "readyz".to_owned(),
                    check: Some("ping".to_owned()),
                },
            ),
            ("/", Target::Discovery(Document::Paths)),
            ("/api/", Target::Discovery(Document::CoreVersions)),
            ("/api/v1", resources("", "v1")),
            ("/apis/events.k8s.io/v1/", resources("events.k8s.io", "v1")),
            (
                "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews",
                Target::Review {
                    review: Review::SelfSubjectAccess,
                    namespace: String::new(),
                },
            ),
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
                Target::Stream(Act::Exec, place(Kind::Pod, "a", "p")),
            ),
            (
                "/api/v1/namespaces/a/pods/p/attach",
                Target::Stream(Act::Attach, place(Kind::Pod, "a", "p")),
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
    fn figures_have_paths_of_the_node_and_of_the_api() {
        let summary = |node: Option<&str>| Target::Stats {
            document: stats::Document::Summary,
            node: node.map(str::to_owned),
        };
        let of_pod = Target::Usage(Metrics::One(place(Kind::Pod, "a", "p")));
        for (path, target) in [
            ("/stats/summary", summary(None)),
            ("/api/v1/nodes/n/proxy/stats/summary", summary(Some("n"))),
            ("/apis/metrics.k8s.io/v1beta1/namespaces/a/pods/p", of_pod),
        ] {
            assert_eq!(at(path), Some(target), "{path}");
        }
    }

    #[test]
    fn other_paths_name_nothing() {
        let table = [
            "/api/v1/pods/p",
            "/api/v1/nodes/n/proxy/logs",
            "/apis/metrics.k8s.io/v1beta1/pods/p",
            "/apis/authorization.k8s.io/v1/localsubjectaccessreviews",
            "/api/v2/pods",
            "/apis/coordination.k8s.io/v1/namespaces/a/pods/p",
            "/api/v1/namespaces/a/nodes",
            "/api/v1/namespaces/a/namespaces",
            "/api/v1/namespaces/a/namespaces/b",
            "/api/v1/namespaces/a/namespaces/b/status",
            "/api/v1/namespaces/a/nodes/n/proxy/stats/summary",
            "/api/v1/namespaces/a/secrets/s/log",
            "/api/v1/namespaces/a/pods/p/log/x",
            "/apis/apps/v1/deployments",
        ];
        for path in table {
            assert_eq!(at(path), None, "{path}");
        }
    }
}
