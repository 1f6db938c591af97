//! One request to one response: reads the path once, then branches.

use std::rc::Rc;

use http::{Method, StatusCode};

use super::authn::{self, Peer};
use super::format::Format;
use super::metrics::Labels;
use super::query::Query;
use super::request_info::RequestInfo;
use super::route::{Place, Target};
use super::status::{Refusal, json_response};
use super::stream::command;
use super::stream::forward;
use super::watch::Watched;
use super::{
    Counted, Door, Shared, authz, discovery, health, images, kubelet_port, list, logs, metrics,
    openapi, stats, view, watch, write,
};
use crate::net::serve::{Request, Response};
use crate::object::Standing;
use serde_json::json;

/// Never fails: a refusal is an answer.
pub async fn answer(shared: Rc<Shared>, peer: &Peer, request: Request) -> Response {
    let (method, path) = (request.method().clone(), request.uri().path().to_owned());
    let (started, mut labels) = (shared.clock.now(), Labels::default());
    let answered = match read_head(&request) {
        Ok((info, query)) => {
            labels = Labels::of(&info);
            match peer.door() {
                Door::Api => route(shared.clone(), peer, request, info, query).await,
                Door::Kubelet => {
                    let answered = kubelet_port::answer(shared.clone(), peer, request, info, query);
                    // A box, so that requests at the other door are no larger for it.
                    let answered = Box::pin(answered).await;
                    answered.or_else(|refusal| Ok(refusal.plain_response()))
                }
            }
        }
        Err(refusal) => Err(refusal),
    };
    let response = answered.unwrap_or_else(|refusal| refusal.response());
    let took = shared.clock.now().since(started);
    shared.metrics.note(labels, response.status(), took);
    log::debug!("{method} {path}: {}", response.status().as_u16());
    response
}

fn read_head(request: &Request) -> Result<(RequestInfo, Query), Refusal> {
    let query = Query::parse(request.uri().query().unwrap_or_default())?;
    let info = RequestInfo::parse(request.method(), request.uri().path(), &query)?;
    Ok((info, query))
}

async fn route(
    shared: Rc<Shared>,
    peer: &Peer,
    request: Request,
    info: RequestInfo,
    query: Query,
) -> Result<Response, Refusal> {
    let options = &shared.options;
    let now = shared.clock.credible();
    let user = options.authenticator.user(peer, request.headers(), now)?;
    peer.introduce(&user);
    let user = authn::impersonate(user, request.headers(), &options.authorizer)?;
    options.authorizer.check(&user, &info)?;
    if let Some(asked) = authn::Asked::of(&info) {
        return authn::answer(shared, user, request, asked).await;
    }
    let target = Target::of(&info).ok_or_else(Refusal::no_such_path)?;
    let method = match *request.method() {
        Method::GET | Method::HEAD => Method::GET,
        ref other => other.clone(),
    };
    match (target, method) {
        (Target::ImagePull, Method::POST) => images::pull(&shared, &query),
        (Target::ImageImport, Method::POST) => images::import(&shared, &user, &query).await,
        // SPDY asks by POST for what a WebSocket handshake asks by GET.
        (Target::Stream(act, place), Method::GET | Method::POST) => {
            let (pod, container) = (view::pod_here(&shared, &place)?, query.get("container"));
            let names = &command::API;
            command::start(&shared, request, &pod, container, &query, names, act)
        }
        (Target::PortForward(place), Method::GET | Method::POST) => {
            let pod = view::pod_here(&shared, &place)?;
            forward::start(&shared, request, &pod, &query)
        }
        (Target::Review { review, namespace }, Method::POST) => {
            let sent = write::body::sent(request, &shared).await?;
            let authorizer = &options.authorizer;
            let answer = authz::review::answer(review, authorizer, &user, &namespace, sent.value)?;
            Ok(json_response(StatusCode::CREATED, &answer))
        }
        (Target::Review { .. } | Target::ImagePull | Target::ImageImport, _) => {
            Err(Refusal::method_not_allowed())
        }
        (target, Method::GET) => read(shared, info, request, target, query).await,
        (target, _) => write::answer(shared, user, info, request, target, query).await,
    }
}

async fn read(
    shared: Rc<Shared>,
    info: RequestInfo,
    request: Request,
    target: Target,
    query: Query,
) -> Result<Response, Refusal> {
    let now = shared.clock.wall();
    match target {
        Target::Version => Ok(discovery::version()),
        Target::Health { endpoint, check } => {
            health::health(&shared.backend, &endpoint, check, &query).await
        }
        Target::Discovery(document) => discovery::answer(&document, request.headers()),
        Target::Metrics => Ok(metrics::answer(&shared, String::new())),
        Target::Schemas(version) => Ok(openapi::index(version, request.headers())),
        Target::Schema(name) => openapi::document(&name, request.headers(), &query),
        Target::Collection { kind, namespace } => {
            let format = Format::negotiate(&info, request.headers(), &query)?;
            if query.is_set("watch") {
                let watched = Watched {
                    kind,
                    namespace,
                    name: None,
                    format,
                };
                return start_watch(&shared, watched, &query);
            }
            list::list(
                &shared.reader,
                kind,
                namespace.as_deref(),
                &query,
                format,
                now,
            )
        }
        Target::Object(place) => {
            let format = Format::negotiate(&info, request.headers(), &query)?;
            if query.is_set("watch") {
                let watched = Watched {
                    kind: place.kind,
                    namespace: place.kind.namespaced().then_some(place.namespace),
                    name: Some(place.name),
                    format,
                };
                return start_watch(&shared, watched, &query);
            }
            list::get(&shared.reader, &place, &query, format, now)
        }
        Target::Part(place, part) if part.patched() => {
            let format = Format::negotiate(&info, request.headers(), &query)?;
            list::get(&shared.reader, &place, &query, format, now)
        }
        Target::Part(..) | Target::Bindings { .. } => Err(Refusal::method_not_allowed()),
        Target::Log(place) => log(&shared, request, &place, &query).await,
        Target::Images => images::list(&shared).await,
        Target::NodeStatus => images::status(&shared).await,
        Target::Stats { document, node } => {
            stats::document(&shared, document, node.as_deref(), &query).await
        }
        Target::Usage(metrics) => stats::metrics(&shared, metrics, &query).await,
        Target::Standing(place) => standing(&shared, &place),
        Target::Stream(..)
        | Target::PortForward(_)
        | Target::ImagePull
        | Target::ImageImport
        | Target::Review { .. } => {
            unreachable!("answered by the caller, whatever the method")
        }
    }
}

async fn log(
    shared: &Shared,
    request: Request,
    place: &Place,
    query: &Query,
) -> Result<Response, Refusal> {
    let counted = stream_slot(shared)?;
    let pod = view::pod_here(shared, place)?;
    logs::start(shared, request, pod, query.get("container"), query, counted).await
}

fn start_watch(shared: &Shared, watched: Watched, query: &Query) -> Result<Response, Refusal> {
    let counted = stream_slot(shared)?;
    let (reader, clock) = (shared.reader.clone(), shared.clock.clone());
    watch::start(reader, clock, watched, query, counted)
}

pub fn stream_slot(shared: &Shared) -> Result<Counted, Refusal> {
    let slot = shared.streams.take(shared.options.limits.streams);
    slot.ok_or_else(|| Refusal::too_many("watches"))
}

/// What lowtide knows of an object beside its JSON.
fn standing(shared: &Shared, place: &Place) -> Result<Response, Refusal> {
    let object = view::get(&shared.reader, place)?;
    let (standing, problem) = match &object.standing {
        Standing::Accepted => ("Accepted", None),
        Standing::Stale(problem) => ("Stale", Some(problem)),
        Standing::Rejected(problem) => ("Rejected", Some(problem)),
    };
    let body = json!({
        "source": object.source.name(),
        "manifest": object.provenance.as_ref().map(ToString::to_string),
        "standing": standing,
        "problem": problem.map(ToString::to_string),
    });
    Ok(json_response(StatusCode::OK, &body))
}
