//! The kubelet's own endpoints, as a cluster's API server, metrics servers and Prometheus call them.
//!
//! ```text
//!   TLS on --address, --port ─► who asks? ─► may they? ─► route ─► what the API has: logs, streams,
//!                                  │            │                  figures, lists
//!         certificates, files here ┤            ├ system:masters
//!        TokenReview of the cluster┘            └ SubjectAccessReview of the cluster: nodes/…
//! ```
//! A door of its own to the same house: no mode of `--authorization-mode` opens it, no account of
//! this node's own API gets in by its token, and nobody gets in unnamed. Answers of refusal are
//! plain text, as upstream's. While the cluster is silent, `cache` says what still counts.
//!
//! Source: Kubernetes pkg/kubelet/server.

mod cache;
mod figures;
mod review;
mod route;

use std::rc::Rc;
use std::sync::Arc;

use http::{HeaderMap, Method, StatusCode};
use serde_json::json;

use self::cache::Verdict;
use self::figures::Running;
pub use self::review::Reviews;
use self::route::{Place, Rights, Route};
use super::answer::stream_slot;
use super::authn::{Claim, Peer};
use super::format::{Format, Shape, ShownAs};
use super::query::Query;
use super::request_info::RequestInfo;
use super::status::{Refusal, typed_response};
use super::stream::command::Names;
use super::stream::{collect, command, forward};
use super::{Shared, health, list, logs, metrics, stats, view};
use crate::net::serve::{Body, Request, Response};
use crate::object::user::GROUP_MASTERS;
use crate::object::{Key, Kind, Object, Origin, User};

/// Of `/exec` and `/attach`.
const NAMES: Names = Names {
    stdin: "input",
    stdout: "output",
    stderr: "error",
};

/// Answers one request. Errors: refusals, to be told as text.
pub async fn answer(
    shared: Rc<Shared>,
    peer: &Peer,
    request: Request,
    info: RequestInfo,
    query: Query,
) -> Result<Response, Refusal> {
    let user = authenticate(&shared, peer, request.headers()).await?;
    peer.introduce(&user);
    let method = request.method().clone();
    authorize(&shared, &user, &method, &info.path).await?;
    let route = Route::of(&info.path).ok_or_else(Refusal::no_such_path)?;
    match route.takes(&method) {
        true => serve(shared, request, route, query).await,
        false => Err(Refusal::method_not_allowed()),
    }
}

async fn authenticate(
    shared: &Shared,
    peer: &Peer,
    headers: &HeaderMap,
) -> Result<Arc<User>, Refusal> {
    let now = shared.clock.credible();
    let token = match shared.options.authenticator.claim(peer, headers, now) {
        Claim::User(user) => return Ok(user),
        Claim::Token(token) => token,
        Claim::Nobody => return Err(Refusal::unauthorized()),
    };
    match shared.reviews.who(shared, &token).await {
        Ok(Verdict::Yes(user)) => Ok(user),
        Ok(Verdict::No(why)) => {
            log::debug!("the cluster does not know a token: {why}");
            Err(Refusal::unauthorized())
        }
        Err(unasked) => {
            Err(unasked.refusal(StatusCode::UNAUTHORIZED, "Unauthorized", "Unauthorized"))
        }
    }
}

/// Every verb is needed, on any of the subresources.
async fn authorize(
    shared: &Shared,
    user: &Arc<User>,
    method: &Method,
    path: &str,
) -> Result<(), Refusal> {
    if user.is_in(GROUP_MASTERS) {
        return Ok(());
    }
    let rights = Rights::of(method, path);
    for verb in rights.verbs {
        let mut refused = None;
        for subresource in rights.subresources {
            let text = || {
                format!(
                    "Forbidden (user={}, verb={verb}, resource=nodes, subresource(s)=[{}])",
                    user.name,
                    rights.subresources.join(" ")
                )
            };
            let code = StatusCode::FORBIDDEN;
            match shared.reviews.may(shared, user, verb, subresource).await {
                Ok(Verdict::Yes(_)) => {
                    refused = None;
                    break;
                }
                Ok(Verdict::No(why)) => {
                    log::debug!("{}: {why}", text());
                    refused = Some(Refusal::detailed(code, "Forbidden", text(), json!({})));
                }
                Err(unasked) => refused = Some(unasked.refusal(code, "Forbidden", &text())),
            }
        }
        if let Some(refusal) = refused {
            return Err(refusal);
        }
    }
    Ok(())
}

async fn serve(
    shared: Rc<Shared>,
    request: Request,
    route: Route,
    mut query: Query,
) -> Result<Response, Refusal> {
    let missing = || not_found("pod does not exist");
    match route {
        Route::Pods => pods(&shared, ""),
        Route::RunningPods => pods(&shared, ",status.phase=Running"),
        Route::Logs(place) => {
            let gone = || not_found(&format!("pod {:?} does not exist", place.pod));
            let pod = pod(&shared, &place).ok_or_else(gone)?;
            if logs::container_named(&pod.body, Some(&place.container)).is_err() {
                let (container, name) = (&place.container, &place.pod);
                let text = format!("container {container:?} not found in pod {name:?}");
                return Err(not_found(&text));
            }
            tail(&mut query);
            let counted = stream_slot(&shared)?;
            logs::start(
                &shared,
                request,
                pod,
                Some(&place.container),
                &query,
                counted,
            )
            .await
        }
        Route::Stream(act, place) => {
            let pod = pod(&shared, &place).ok_or_else(missing)?;
            let container = Some(known(&pod, &place)?);
            command::start(&shared, request, &pod, container, &query, &NAMES, act)
        }
        Route::PortForward(place) => {
            let pod = pod(&shared, &place).ok_or_else(missing)?;
            forward::start(&shared, request, &pod, &query)
        }
        Route::Run(place) => {
            let pod = pod(&shared, &place).ok_or_else(missing)?;
            let container = known(&pod, &place)?;
            let words = query.get("cmd").unwrap_or_default().split(' ');
            let words = words.map(str::to_owned).collect();
            collect::run(&shared, &pod, container, words).await
        }
        Route::HostLogs => {
            let (code, text) = (StatusCode::METHOD_NOT_ALLOWED, "logs endpoint is disabled.");
            Err(Refusal::detailed(code, "MethodNotAllowed", text, json!({})))
        }
        Route::Checkpoint(place) => {
            let pod = pod(&shared, &place).ok_or_else(missing)?;
            Err(no_checkpoint(&pod, &place))
        }
        Route::Stats(document) => {
            let node = shared.options.node_name.clone();
            stats::document(&shared, document, Some(&node), &query).await
        }
        Route::Metrics => Ok(metrics::answer(&shared, running(&shared))),
        Route::Configuration => {
            let body = Body::bytes(shared.options.kubelet_configuration.clone());
            Ok(typed_response(StatusCode::OK, "application/json", body))
        }
        Route::Health(check) => health::health(&shared.backend, "healthz", check, &query).await,
    }
}

/// A PodList of the pods of this node; `more` field selectors begin with a comma.
fn pods(shared: &Shared, more: &str) -> Result<Response, Refusal> {
    let own = &shared.options.node_name;
    let query = Query::of("fieldSelector", &format!("spec.nodeName={own}{more}"));
    let format = Format {
        shape: Shape::Json,
        version: ShownAs::Stored,
    };
    let now = shared.clock.wall();
    list::list(&shared.reader, Kind::Pod, None, &query, format, now)
}

/// The kubelet's own part of `/metrics`.
fn running(shared: &Shared) -> String {
    let mut running = Running::default();
    for packed in view::list(&shared.reader, Kind::Pod, None).0 {
        let pod = packed.unpack().body;
        if pod["spec"]["nodeName"] == *shared.options.node_name {
            running.add(&pod["status"]);
        }
    }
    running.text(&shared.options.node_name)
}

/// The pod of this node that is meant: of two of one name that of the cluster, which asks. A mirror pod
/// has the name of what it mirrors, so its name leads to the static pod.
fn pod(shared: &Shared, place: &Place) -> Option<Arc<Object>> {
    let local = Key::local(Kind::Pod, &place.namespace, &place.pod);
    let remote = Key {
        origin: Origin::Remote,
        ..local.clone()
    };
    let mut found = [remote, local].into_iter();
    found.find_map(|key| {
        let pod = shared.reader.get(&key)?;
        let here = pod.body["spec"]["nodeName"] == *shared.options.node_name;
        let meant = place.uid.as_deref().is_none_or(|uid| uid == pod.uid());
        (here && meant).then_some(pod)
    })
}

/// Errors: 404 for a container that the pod does not have.
fn known<'a>(pod: &Object, place: &'a Place) -> Result<&'a str, Refusal> {
    match logs::container_named(&pod.body, Some(&place.container)) {
        Ok(_) => Ok(&place.container),
        Err(_) => {
            let text = format!("container not found ({:?})", place.container);
            Err(not_found(&text))
        }
    }
}

/// What a kubelet says whose container runtime knows no checkpoints.
fn no_checkpoint(pod: &Object, place: &Place) -> Refusal {
    let Place {
        namespace,
        pod: name,
        container,
        ..
    } = place;
    if known(pod, place).is_err() {
        return not_found(&format!("container {container} does not exist"));
    }
    let text = format!(
        "checkpointing of {namespace}/{name}/{container} failed (checkpoints are not implemented)"
    );
    let code = StatusCode::INTERNAL_SERVER_ERROR;
    Refusal::detailed(code, "InternalError", text, json!({}))
}

fn not_found(text: &str) -> Refusal {
    Refusal::detailed(StatusCode::NOT_FOUND, "NotFound", text, json!({}))
}

/// The older name of `tailLines`, which knows `all` too.
fn tail(query: &mut Query) {
    let tail = query.get("tail").map(str::to_owned);
    match tail.as_deref() {
        None => {}
        Some("all") => query.set("tailLines", None),
        Some(lines) => query.set("tailLines", Some(lines)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_older_name_of_tail_lines_goes_before_it() {
        for (text, lines) in [
            ("", None),
            ("tailLines=3", Some(3)),
            ("tailLines=3&tail=", Some(3)),
            ("tailLines=3&tail=5", Some(5)),
            ("tailLines=3&tail=all", None),
        ] {
            let mut query = Query::parse(text).expect("a query");
            tail(&mut query);
            assert_eq!(query.number("tailLines"), Ok(lines), "{text}");
        }
    }
}
