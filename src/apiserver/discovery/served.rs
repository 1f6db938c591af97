//! The one table of what is served: group versions, their resources, verbs and subresources.
//!
//! Discovery and the schemas' paths are made from it. A row promises that `route` answers.
//! Source: Kubernetes pkg/registry (storage of each group), api/discovery.

use crate::object::Kind;

/// The resources of one version of one group.
#[derive(Debug)]
pub struct GroupVersion {
    /// Empty for core.
    pub group: &'static str,
    pub version: &'static str,
    pub resources: &'static [Resource],
}

#[derive(Debug)]
pub struct Resource {
    /// `pods`
    pub plural: &'static str,
    /// `Pod`
    pub kind: &'static str,
    pub namespaced: bool,
    pub verbs: &'static [&'static str],
    pub short_names: &'static [&'static str],
    pub categories: &'static [&'static str],
    pub parts: &'static [Part],
}

/// A subresource.
#[derive(Debug)]
pub struct Part {
    /// `log`
    pub name: &'static str,
    pub kind: &'static str,
    /// Group and version of the kind, where it is from another one.
    pub of: Option<(&'static str, &'static str)>,
    pub verbs: &'static [&'static str],
}

impl GroupVersion {
    /// `v1`, `coordination.k8s.io/v1`
    pub fn name(&self) -> String {
        match self.group {
            "" => self.version.to_owned(),
            group => format!("{group}/{}", self.version),
        }
    }
}

impl Resource {
    /// What one of them is called on a command line.
    pub fn singular(&self) -> String {
        self.kind.to_ascii_lowercase()
    }
}

/// A group's preferred version comes first.
pub const SERVED: &[GroupVersion] = &[
    group("", "v1", CORE),
    group("authentication.k8s.io", "v1", AUTHENTICATION),
    group("authorization.k8s.io", "v1", AUTHORIZATION),
    group(
        "coordination.k8s.io",
        "v1",
        &[stored(Kind::Lease, ALL, &[])],
    ),
    group("events.k8s.io", "v1", &[stored(Kind::Event, ALL, &[])]),
    group("metrics.k8s.io", "v1beta1", METRICS),
    group(
        "scheduling.k8s.io",
        "v1",
        &[stored(Kind::PriorityClass, ALL, &[])],
    ),
];

const ALL: &[&str] = &[
    "create",
    "delete",
    "deletecollection",
    "get",
    "list",
    "patch",
    "update",
    "watch",
];
const ONE_BY_ONE: &[&str] = &[
    "create", "delete", "get", "list", "patch", "update", "watch",
];
const CREATED: &[&str] = &["create"];
const CHANGED: &[&str] = &["get", "patch", "update"];

const CORE: &[Resource] = &[
    posted("bindings", "Binding", Scope::Namespaced),
    stored(Kind::ConfigMap, ALL, &[]),
    stored(Kind::Endpoints, ALL, &[]),
    stored(Kind::Event, ALL, &[]),
    stored(Kind::LimitRange, ALL, &[]),
    stored(
        Kind::Namespace,
        ONE_BY_ONE,
        &[
            part("finalize", "Namespace", &["update"]),
            part("status", "Namespace", CHANGED),
        ],
    ),
    stored(Kind::Node, ALL, &[part("status", "Node", CHANGED)]),
    Resource {
        categories: &["all"],
        ..stored(Kind::Pod, ALL, POD_PARTS)
    },
    stored(
        Kind::ResourceQuota,
        ALL,
        &[part("status", "ResourceQuota", CHANGED)],
    ),
    stored(Kind::Secret, ALL, &[]),
    stored(
        Kind::ServiceAccount,
        ALL,
        &[Part {
            of: Some(("authentication.k8s.io", "v1")),
            ..part("token", "TokenRequest", CREATED)
        }],
    ),
    Resource {
        categories: &["all"],
        ..stored(Kind::Service, ALL, &[part("status", "Service", CHANGED)])
    },
];

const POD_PARTS: &[Part] = &[
    part("attach", "PodAttachOptions", &["create", "get"]),
    part("binding", "Binding", CREATED),
    part("ephemeralcontainers", "Pod", CHANGED),
    Part {
        of: Some(("policy", "v1")),
        ..part("eviction", "Eviction", CREATED)
    },
    part("exec", "PodExecOptions", &["create", "get"]),
    part("log", "Pod", &["get"]),
    part("portforward", "PodPortForwardOptions", &["create", "get"]),
    part("resize", "Pod", CHANGED),
    part("status", "Pod", CHANGED),
];

const AUTHENTICATION: &[Resource] = &[
    posted("selfsubjectreviews", "SelfSubjectReview", Scope::Cluster),
    posted("tokenreviews", "TokenReview", Scope::Cluster),
];

const AUTHORIZATION: &[Resource] = &[
    posted(
        "localsubjectaccessreviews",
        "LocalSubjectAccessReview",
        Scope::Namespaced,
    ),
    posted(
        "selfsubjectaccessreviews",
        "SelfSubjectAccessReview",
        Scope::Cluster,
    ),
    posted(
        "selfsubjectrulesreviews",
        "SelfSubjectRulesReview",
        Scope::Cluster,
    ),
    posted(
        "subjectaccessreviews",
        "SubjectAccessReview",
        Scope::Cluster,
    ),
];

const METRICS: &[Resource] = &[
    reckoned("nodes", "NodeMetrics", Scope::Cluster),
    reckoned("pods", "PodMetrics", Scope::Namespaced),
];

enum Scope {
    Namespaced,
    Cluster,
}

const fn group(
    group: &'static str,
    version: &'static str,
    resources: &'static [Resource],
) -> GroupVersion {
    GroupVersion {
        group,
        version,
        resources,
    }
}

/// A kind of the registry.
const fn stored(kind: Kind, verbs: &'static [&'static str], parts: &'static [Part]) -> Resource {
    Resource {
        plural: kind.plural(),
        kind: kind.name(),
        namespaced: kind.namespaced(),
        verbs,
        short_names: kind.short_names(),
        categories: &[],
        parts,
    }
}

/// What is answered and never stored.
const fn posted(plural: &'static str, kind: &'static str, scope: Scope) -> Resource {
    Resource {
        plural,
        kind,
        namespaced: matches!(scope, Scope::Namespaced),
        verbs: CREATED,
        short_names: &[],
        categories: &[],
        parts: &[],
    }
}

/// What is made anew for each question and never stored.
const fn reckoned(plural: &'static str, kind: &'static str, scope: Scope) -> Resource {
    Resource {
        verbs: &["get", "list"],
        ..posted(plural, kind, scope)
    }
}

const fn part(name: &'static str, kind: &'static str, verbs: &'static [&'static str]) -> Part {
    Part {
        name,
        kind,
        of: None,
        verbs,
    }
}
