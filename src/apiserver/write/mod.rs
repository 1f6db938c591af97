//! The writing verbs: from a request to what the registry is asked, and back.
//!
//! ```text
//!  body ─► value ─► kind, name, fields checked ─► backend ─► registry (admit, validate, store)
//!                        │ warnings                              │ object, or why not
//!                        └──────────────► answer ◄───────────────┘
//! ```
//!
//! What is decided here needs the request only; what depends on the object's state is the
//! registry's, on the node thread. Source: Kubernetes apiserver, endpoints/handlers.

pub(super) mod body;
mod delete;
mod fields;
mod options;
mod part;
mod patch;
mod put;
pub mod refusals;

use std::rc::Rc;
use std::sync::Arc;

use http::header::{HeaderMap, HeaderName, HeaderValue};
use http::{Method, StatusCode};
use serde_json::Value;

use self::options::WriteOptions;
use super::Shared;
use super::backend::{self, WriteRequest, Written};
use super::events;
use super::format::{self, Columns, Format, ShownAs};
use super::query::Query;
use super::request_info::RequestInfo;
use super::route::{Part, Place, Target};
use super::status::{Refusal, json_response};
use super::view;
use crate::net::serve::{Request, Response};
use crate::object::{self, Key, Kind, Origin, Source, User};
use crate::registry::{self, Actor};

/// One write request, its head read.
struct Writing {
    shared: Rc<Shared>,
    user: Arc<User>,
    info: RequestInfo,
    headers: HeaderMap,
    query: Query,
    format: Format,
}

/// What came of it, before it is an answer.
struct Outcome {
    code: StatusCode,
    written: Written,
    warnings: Vec<String>,
}

/// Answers a request with a writing method. Errors: what is refused; 405 where the method has no
/// meaning.
pub async fn answer(
    shared: Rc<Shared>,
    user: Arc<User>,
    info: RequestInfo,
    request: Request,
    target: Target,
    query: Query,
) -> Result<Response, Refusal> {
    let writing = Writing {
        format: Format::negotiate(&info, request.headers(), &query)?,
        headers: request.headers().clone(),
        shared,
        user,
        info,
        query,
    };
    let method = request.method().clone();
    match (target, method) {
        (Target::Collection { kind, namespace }, Method::POST) => {
            writing.create(kind, namespace, request).await
        }
        (Target::Collection { kind, namespace }, Method::DELETE) => {
            writing.delete_collection(kind, namespace, request).await
        }
        (Target::Object(place), Method::PUT) => writing.replace(&place, "", request).await,
        (Target::Object(place), Method::DELETE) => writing.delete(&place, request).await,
        (Target::Object(place), Method::PATCH) => writing.patch(&place, "", request).await,
        (Target::Bindings { namespace }, Method::POST) => {
            writing.bind(&namespace, None, request).await
        }
        (Target::Part(place, Part::Binding), Method::POST) => {
            writing
                .bind(&place.namespace, Some(&place.name), request)
                .await
        }
        (Target::Part(place, Part::Eviction), Method::POST) => writing.evict(&place, request).await,
        (Target::Part(place, part), Method::PUT) if part.replaced().is_some() => {
            let name = part.replaced().unwrap_or_default();
            writing.replace(&place, name, request).await
        }
        (Target::Part(place, part), Method::PATCH) if part.patched() => {
            let name = part.replaced().unwrap_or_default();
            writing.patch(&place, name, request).await
        }
        _ => Err(Refusal::method_not_allowed()),
    }
}

impl Writing {
    fn actor(&self, subresource: &'static str, dry_run: bool) -> Actor {
        Actor {
            subresource,
            dry_run,
            ..Actor::new(Source::Api, self.user.clone())
        }
    }

    /// Asks the registry. Errors in upstream's words.
    async fn ask(&self, actor: Actor, key: Key, write: backend::Write) -> Result<Written, Refusal> {
        let asked = self.ask_registry(WriteRequest { actor, key, write });
        asked
            .await?
            .map_err(|error| refusals::refusal(error, &self.shared.reader))
    }

    /// The same with the registry's own errors. Errors: the node has no time, or is stopping.
    async fn ask_registry(
        &self,
        request: WriteRequest,
    ) -> Result<Result<Written, registry::Error>, Refusal> {
        let asked = |reply| backend::Request::Write(request, reply);
        self.shared.backend.ask(asked).await
    }

    async fn body(&self, request: Request) -> Result<body::Sent, Refusal> {
        let mut sent = body::sent(request, &self.shared).await?;
        object::fill_texts(&mut sent.value);
        Ok(match self.format.version {
            ShownAs::Stored => sent,
            ShownAs::NewEvent => events::sent(sent),
        })
    }

    /// What the version that is written in asks beyond the stored kind's own rules: of a new object,
    /// or of a change of `before`. Errors: 422.
    fn check_version_rules(
        &self,
        name: &str,
        before: Option<&Value>,
        body: &Value,
    ) -> Result<(), Refusal> {
        let causes = match (self.format.version, before) {
            (ShownAs::Stored, _) => Vec::new(),
            (ShownAs::NewEvent, None) => events::check_new(body),
            (ShownAs::NewEvent, Some(before)) => events::check_update(before, body),
        };
        match causes.is_empty() {
            true => Ok(()),
            false => Err(Refusal::invalid(Kind::Event, name, &causes)),
        }
    }

    /// The local object's key. Errors: 403 if what is at the place is the remote cluster's.
    fn key(&self, place: &Place) -> Result<Key, Refusal> {
        let key = Key::local(place.kind, &place.namespace, &place.name);
        if !self.shared.reader.contains(&key) {
            let shown = view::get(&self.shared.reader, place);
            if let Some(object) = shown.ok().filter(|o| o.key.origin == Origin::Remote) {
                return Err(refusals::not_owner(&object));
            }
        }
        Ok(key)
    }

    /// Whether the user may make what is not there; asked of what is authorized as another verb.
    /// Errors: 403.
    fn check_creates(&self) -> Result<(), Refusal> {
        let info = RequestInfo {
            verb: "create".to_owned(),
            ..self.info.clone()
        };
        self.shared.options.authorizer.check(&self.user, &info)
    }

    fn options(&self, name: &str) -> Result<WriteOptions, Refusal> {
        WriteOptions::parse(&self.query, name)
    }

    fn respond(&self, kind: Kind, outcome: Outcome) -> Response {
        let now = self.shared.clock.wall();
        let body = &outcome.written.object.body;
        let shown = format::object(self.format, kind, body, Columns::Defined, now);
        let mut response = json_response(outcome.code, &shown);
        warn(&mut response, &outcome.warnings);
        warn(&mut response, &outcome.written.remarks);
        response
    }
}

/// Adds `Warning` headers. Source: RFC 7234 section 5.5; Kubernetes apiserver, warning.
fn warn(response: &mut Response, warnings: &[String]) {
    for text in warnings {
        let text: String = text
            .chars()
            .filter(|c| !c.is_control())
            .flat_map(|c| match c {
                '"' | '\\' => vec!['\\', c],
                other => vec![other],
            })
            .collect();
        if let Ok(value) = HeaderValue::from_bytes(format!("299 - \"{text}\"").as_bytes()) {
            let name = HeaderName::from_static("warning");
            response.headers_mut().append(name, value);
        }
    }
}

/// Text at a path of metadata; empty if there is none.
fn metadata<'a>(body: &'a Value, name: &str) -> &'a str {
    body["metadata"][name].as_str().unwrap_or_default()
}
