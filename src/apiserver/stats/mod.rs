//! Statistics over HTTP: the kubelet's five documents, and `metrics.k8s.io` for `kubectl top`.
//!
//! ```text
//!   /stats/summary  /metrics/{resource,cadvisor,probes,slis}  the node's own face
//!   /api/v1/nodes/NAME/proxy/…                                the same, as kubectl get --raw asks
//!   /apis/metrics.k8s.io/v1beta1/{nodes,pods}                 NodeMetrics, PodMetrics
//! ```
//! Each question is one look by the node (`world::Stats`); everything here renders. The figures are
//! of this node alone.

mod cadvisor;
mod exposition;
mod metrics_api;
mod probes;
mod resource;
mod slis;
mod summary;

#[cfg(test)]
mod testing;

use http::StatusCode;

use self::summary::Scope;
use super::Shared;
use super::backend::Request;
use super::format::ShownAs;
use super::query::Query;
use super::request_info::RequestInfo;
use super::route::Place;
use super::selector::Selector;
use super::status::{Refusal, json_response, typed_response};
use super::view;
use crate::net::serve::{Body, Response};
use crate::object::Kind;
use crate::world::{Detail, Sample};

/// A document of the node's own face.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Document {
    Summary,
    Resource,
    Cadvisor,
    Probes,
    /// How the checks of its health came out.
    Slis,
}

impl Document {
    /// By the segments of its path.
    pub fn of(segments: &[&str]) -> Option<Document> {
        match segments {
            ["stats", "summary"] => Some(Document::Summary),
            ["metrics", "resource"] => Some(Document::Resource),
            ["metrics", "cadvisor"] => Some(Document::Cadvisor),
            ["metrics", "probes"] => Some(Document::Probes),
            ["metrics", "slis"] => Some(Document::Slis),
            _ => None,
        }
    }
}

/// What of `metrics.k8s.io` is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Metrics {
    /// `namespace` is `None` for all of them, and for nodes.
    All {
        kind: Kind,
        namespace: Option<String>,
    },
    One(Place),
}

impl Metrics {
    /// `None` for a resource that the group does not have.
    pub fn of(info: &RequestInfo) -> Option<Metrics> {
        let kind = match (&*info.group, &*info.version, &*info.resource) {
            ("metrics.k8s.io", "v1beta1", "nodes") if info.namespace.is_empty() => Kind::Node,
            ("metrics.k8s.io", "v1beta1", "pods") => Kind::Pod,
            _ => return None,
        };
        let namespace = info.namespace.clone();
        match (info.is_collection, info.subresource.is_empty()) {
            (true, _) => Some(Metrics::All {
                kind,
                namespace: (!namespace.is_empty()).then_some(namespace),
            }),
            (false, true) if kind == Kind::Node || !namespace.is_empty() => {
                Some(Metrics::One(Place {
                    kind,
                    namespace,
                    name: info.name.clone(),
                }))
            }
            (false, _) => None,
        }
    }
}

/// A document; `node` is the name in the path, if it was asked through the API's proxy.
/// Errors: 404 for a node that is not here.
pub async fn document(
    shared: &Shared,
    document: Document,
    node: Option<&str>,
    query: &Query,
) -> Result<Response, Refusal> {
    let name = match node {
        Some(name) => {
            let place = Place {
                kind: Kind::Node,
                namespace: String::new(),
                name: name.to_owned(),
            };
            view::get(&shared.reader, &place)?.key.name.clone()
        }
        None => {
            let (nodes, _) = view::list(&shared.reader, Kind::Node, None);
            nodes
                .first()
                .map_or_else(String::new, |node| node.key().name.clone())
        }
    };
    let scope = match query.is_set("only_cpu_and_memory") {
        true => Scope::CpuAndMemory,
        false => Scope::All,
    };
    let text = match document {
        Document::Summary => {
            let detail = match scope {
                Scope::CpuAndMemory => Detail::Counters,
                Scope::All => Detail::KnownTrees,
            };
            let summary = summary::summary(&look(shared, detail).await?, &name, scope);
            return Ok(json_response(StatusCode::OK, &summary));
        }
        Document::Resource => resource::text(&look(shared, Detail::Counters).await?),
        Document::Cadvisor => cadvisor::text(&look(shared, Detail::KnownTrees).await?),
        Document::Probes => probes::text(&shared.options.figures),
        Document::Slis => slis::text(shared.backend.ask(Request::Health).await?.is_ok()),
    };
    let body = Body::bytes(text);
    Ok(typed_response(
        StatusCode::OK,
        exposition::CONTENT_TYPE,
        body,
    ))
}

/// Errors: 400 for a selector that cannot be read or is of no field of the kind, 404 for what does not
/// run here.
pub async fn metrics(
    shared: &Shared,
    metrics: Metrics,
    query: &Query,
) -> Result<Response, Refusal> {
    let of = match &metrics {
        Metrics::All { kind, .. } => *kind,
        Metrics::One(place) => place.kind,
    };
    let selector = Selector::of_query(of, ShownAs::Stored, query)?;
    let sample = look(shared, Detail::Counters).await?;
    let one = |kind: Kind| {
        let sample = &sample;
        move |object: &_| match kind {
            Kind::Node => metrics_api::node(sample, object),
            _ => metrics_api::pod(sample, object),
        }
    };
    let found = match metrics {
        Metrics::All { kind, namespace } => {
            let (objects, _) = view::list(&shared.reader, kind, namespace.as_deref());
            let name = match kind {
                Kind::Node => "NodeMetricsList",
                _ => "PodMetricsList",
            };
            metrics_api::list(name, objects.iter().map(|o| &**o), &selector, one(kind))
        }
        Metrics::One(place) => {
            let (objects, _) = view::list(&shared.reader, place.kind, None);
            let named = |key: &crate::object::Key| {
                key.name == place.name && key.namespace == place.namespace
            };
            let object = objects.iter().find(|object| named(object.key()));
            let found = object.and_then(|object| one(place.kind)(object));
            found.ok_or_else(|| absent(&place))?
        }
    };
    Ok(json_response(StatusCode::OK, &found))
}

/// `podmetrics.metrics.k8s.io "default/web" not found`
fn absent(place: &Place) -> Refusal {
    let (kind, name) = match place.kind {
        Kind::Node => ("nodemetrics", place.name.clone()),
        _ => ("podmetrics", format!("{}/{}", place.namespace, place.name)),
    };
    Refusal::detailed(
        StatusCode::NOT_FOUND,
        "NotFound",
        format!("{kind}.metrics.k8s.io {name:?} not found"),
        serde_json::json!({"name": name, "group": "metrics.k8s.io", "kind": kind}),
    )
}

async fn look(shared: &Shared, detail: Detail) -> Result<Sample, Refusal> {
    let make = |reply| Request::Stats(detail, reply);
    shared.backend.ask(make).await
}
