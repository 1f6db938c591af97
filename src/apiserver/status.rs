//! Refusals as Kubernetes `Status` objects: code, reason, message and details as upstream has them.
//!
//! Source: Kubernetes apimachinery, api/errors. Pure.

use http::{StatusCode, header};
use serde_json::{Value, json};

use super::request_info::RequestInfo;
use super::write::refusals;
use crate::net::serve::{Body, Response};
use crate::object::apply::ApplyError;
use crate::object::patch::{self, PatchError};
use crate::object::{Kind, User};
use crate::registry::causes_text;

/// Why a request was refused; its text is what kubectl prints behind `Error from server`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    pub code: StatusCode,
    pub reason: &'static str,
    pub message: String,
    details: Option<Value>,
    /// Of the Status itself.
    metadata: Value,
}

impl Refusal {
    fn new(code: StatusCode, reason: &'static str, message: impl Into<String>) -> Refusal {
        Refusal {
            code,
            reason,
            message: message.into(),
            details: None,
            metadata: json!({}),
        }
    }

    /// One that is worded by who refuses.
    pub fn detailed(
        code: StatusCode,
        reason: &'static str,
        message: impl Into<String>,
        details: Value,
    ) -> Refusal {
        Refusal {
            details: Some(details),
            ..Refusal::new(code, reason, message)
        }
    }

    /// With one cause that a program can tell it by.
    pub fn because(mut self, cause: &Value) -> Refusal {
        self.details.get_or_insert_with(|| json!({}))["causes"] = json!([cause]);
        self
    }

    pub fn bad_request(message: impl Into<String>) -> Refusal {
        Refusal::new(StatusCode::BAD_REQUEST, "BadRequest", message)
    }

    pub fn no_such_path() -> Refusal {
        let text = "the server could not find the requested resource";
        Refusal {
            details: Some(json!({})),
            ..Refusal::new(StatusCode::NOT_FOUND, "NotFound", text)
        }
    }

    /// `pods "x" not found`
    pub fn not_found(kind: Kind, name: &str) -> Refusal {
        let text = format!("{} {name:?} not found", resource(kind));
        Refusal {
            details: Some(about(kind, name)),
            ..Refusal::new(StatusCode::NOT_FOUND, "NotFound", text)
        }
    }

    pub fn already_exists(kind: Kind, name: &str, leaving: bool) -> Refusal {
        let leaving = if leaving {
            "object is being deleted: "
        } else {
            ""
        };
        let text = format!("{leaving}{} {name:?} already exists", resource(kind));
        Refusal {
            details: Some(about(kind, name)),
            ..Refusal::new(StatusCode::CONFLICT, "AlreadyExists", text)
        }
    }

    /// 409 of a name that the server made up is worth another try; other refusals stay.
    pub fn of_generated_name(mut self) -> Refusal {
        if self.reason == "AlreadyExists" {
            self.message
                .push_str(", the server was not able to generate a unique name for the object");
            self.details.get_or_insert_with(|| json!({}))["retryAfterSeconds"] = json!(1);
        }
        self
    }

    /// 422: the kind takes no update that does not say what it is based on. Upstream names the
    /// resource where others name the kind.
    pub fn version_required(kind: Kind, name: &str) -> Refusal {
        let what = "Invalid value: 0: must be specified for an update";
        let causes = [("metadata.resourceVersion".to_owned(), what.to_owned())];
        let mut details = about(kind, name);
        details["causes"] = refusals::causes(&causes);
        let text = format!(
            "{} {name:?} is invalid: {}",
            resource(kind),
            causes_text(&causes)
        );
        Refusal {
            details: Some(details),
            ..Refusal::new(StatusCode::UNPROCESSABLE_ENTITY, "Invalid", text)
        }
    }

    pub fn conflict(kind: Kind, name: &str, why: &str) -> Refusal {
        let resource = resource(kind);
        let text = format!("Operation cannot be fulfilled on {resource} {name:?}: {why}");
        Refusal {
            details: Some(about(kind, name)),
            ..Refusal::new(StatusCode::CONFLICT, "Conflict", text)
        }
    }

    /// The same of a deletion or a binding; upstream names the kind where others name the resource.
    pub fn conflict_of_kind(kind: Kind, name: &str, why: &str) -> Refusal {
        let mut refusal = Refusal::conflict(kind, name, why);
        let (plural, named) = (resource(kind), qualified(kind));
        refusal.message = refusal.message.replacen(&plural, &named, 1);
        refusal.details.get_or_insert_with(|| json!({}))["kind"] = json!(kind.name());
        refusal
    }

    /// 403 of admission or ownership, not of authorization.
    pub fn denied(kind: Kind, name: &str, why: &str) -> Refusal {
        let text = format!("{} {name:?} is forbidden: {why}", resource(kind));
        Refusal {
            details: Some(about(kind, name)),
            ..Refusal::new(StatusCode::FORBIDDEN, "Forbidden", text)
        }
    }

    /// `Pod "x" is invalid: spec.containers[0].image: Required value`
    pub fn invalid(kind: Kind, name: &str, causes: &[(String, String)]) -> Refusal {
        let text = format!(
            "{} {name:?} is invalid: {}",
            qualified(kind),
            causes_text(causes)
        );
        let mut details = about(kind, name);
        details["kind"] = json!(kind.name());
        details["causes"] = refusals::causes(causes);
        Refusal {
            details: Some(details),
            ..Refusal::new(StatusCode::UNPROCESSABLE_ENTITY, "Invalid", text)
        }
    }

    /// The same of what is no kind that is kept: `Binding "x" is invalid: …`.
    pub fn invalid_named(what: &str, name: &str, causes: &[(String, String)]) -> Refusal {
        let text = format!("{what} {name:?} is invalid: {}", causes_text(causes));
        let details = json!({"name": name, "kind": what, "causes": refusals::causes(causes)});
        Refusal {
            details: Some(details),
            ..Refusal::new(StatusCode::UNPROCESSABLE_ENTITY, "Invalid", text)
        }
    }

    /// A patch that makes something unfit of an object; upstream names no kind here.
    pub fn invalid_patch(what: &str) -> Refusal {
        let causes = [("patch".to_owned(), what.to_owned())];
        let text = format!(" \"\" is invalid: patch: {what}");
        Refusal {
            details: Some(json!({"causes": refusals::causes(&causes)})),
            ..Refusal::new(StatusCode::UNPROCESSABLE_ENTITY, "Invalid", text)
        }
    }

    pub fn of_patch(error: PatchError) -> Refusal {
        match error {
            PatchError::Malformed(text) => Refusal::bad_request(text),
            PatchError::Rejected(text) => Refusal {
                details: Some(json!({"causes": [{"message": text, "field": "patch"}]})),
                ..Refusal::new(StatusCode::UNPROCESSABLE_ENTITY, "Invalid", patch::REJECTED)
            },
            PatchError::TooLarge(text) => {
                Refusal::new(StatusCode::PAYLOAD_TOO_LARGE, "RequestEntityTooLarge", text)
            }
        }
    }

    pub fn of_apply(error: ApplyError) -> Refusal {
        let text = error.to_string();
        let ApplyError::Conflicts(conflicts) = error else {
            return Refusal::bad_request(text);
        };
        let causes = conflicts.iter().map(|conflict| {
            json!({
                "reason": "FieldManagerConflict",
                "message": conflict.message,
                "field": conflict.field,
            })
        });
        Refusal {
            details: Some(json!({"causes": causes.collect::<Value>()})),
            ..Refusal::new(StatusCode::CONFLICT, "Conflict", text)
        }
    }

    pub fn unsupported_media_type(accepted: &[&str]) -> Refusal {
        let text = format!(
            "the body of the request was in an unknown format - accepted media types include: {}",
            accepted.join(", ")
        );
        let code = StatusCode::UNSUPPORTED_MEDIA_TYPE;
        Refusal::new(code, "UnsupportedMediaType", text)
    }

    /// As upstream's router says it, before a handler has looked at the patch.
    pub fn no_form_of_patch() -> Refusal {
        let code = StatusCode::UNSUPPORTED_MEDIA_TYPE;
        let text = "415: Unsupported Media Type";
        Refusal::detailed(code, "UnsupportedMediaType", text, json!({}))
    }

    pub fn timeout(what: &str) -> Refusal {
        let text = format!("Timeout: {what}");
        Refusal::new(StatusCode::GATEWAY_TIMEOUT, "Timeout", text)
    }

    pub fn method_not_allowed() -> Refusal {
        let text = "the server does not allow this method on the requested resource";
        Refusal {
            details: Some(json!({})),
            ..Refusal::new(StatusCode::METHOD_NOT_ALLOWED, "MethodNotAllowed", text)
        }
    }

    pub fn not_acceptable() -> Refusal {
        let text = "406: Not Acceptable\n\nAvailable representations: application/json";
        Refusal::detailed(StatusCode::NOT_ACCEPTABLE, "NotAcceptable", text, json!({}))
    }

    /// 410: the version is older than what history holds, or from before a lost store.
    pub fn expired(version: u64, oldest: u64) -> Refusal {
        let text = format!("too old resource version: {version} ({oldest})");
        Refusal::new(StatusCode::GONE, "Expired", text)
    }

    /// 410: a list of a state that is no longer known.
    pub fn list_expired() -> Refusal {
        let text = "The resourceVersion for the provided list is too old.";
        Refusal::new(StatusCode::GONE, "Expired", text)
    }

    /// 410 with the token that goes on with another state than the one it began with.
    pub fn continue_expired(token: &str) -> Refusal {
        let text = "The provided continue parameter is too old to display a consistent list result. \
                    You can start a new list without the continue parameter, or use the continue token \
                    in this response to retrieve the remainder of the results. Continuing with the \
                    provided token results in an inconsistent list - objects that were created, \
                    modified, or deleted between the time the first chunk was returned and now may \
                    show up in the list.";
        Refusal {
            metadata: json!({"continue": token}),
            ..Refusal::new(StatusCode::GONE, "Expired", text)
        }
    }

    /// 504: the version is newer than anything here.
    pub fn version_too_large(version: u64, current: u64) -> Refusal {
        let text = format!("Timeout: Too large resource version: {version}, current: {current}");
        let cause =
            json!({"reason": "ResourceVersionTooLarge", "message": "Too large resource version"});
        Refusal {
            details: Some(json!({"causes": [cause], "retryAfterSeconds": 1})),
            ..Refusal::new(StatusCode::GATEWAY_TIMEOUT, "Timeout", text)
        }
    }

    /// 422 for one request option: `ListOptions.meta.k8s.io "" is invalid: field: Forbidden: why`.
    pub fn invalid_option(options: &str, field: &str, why: &str) -> Refusal {
        Refusal::invalid_options(options, &[(field.to_owned(), why.to_owned())])
    }

    /// 422 for request options, with all that is wrong with them.
    pub fn invalid_options(options: &str, causes: &[(String, String)]) -> Refusal {
        let listed = refusals::causes(causes);
        Refusal {
            details: Some(json!({"group": "meta.k8s.io", "kind": options, "causes": listed})),
            ..Refusal::new(
                StatusCode::UNPROCESSABLE_ENTITY,
                "Invalid",
                format!(
                    "{options}.meta.k8s.io \"\" is invalid: {}",
                    causes_text(causes)
                ),
            )
        }
    }

    pub fn unauthorized() -> Refusal {
        Refusal::new(StatusCode::UNAUTHORIZED, "Unauthorized", "Unauthorized")
    }

    /// `pods "x" is forbidden: User "u" cannot get resource "pods" in API group "" in the namespace
    /// "a": why`. Source: Kubernetes apiserver, handlers/responsewriters/errors.go.
    pub fn forbidden(user: &User, request: &RequestInfo, why: &str) -> Refusal {
        let (resource, group, name) = (&request.resource, &request.group, &request.name);
        let mut text = if request.is_resource {
            let place = match request.namespace.as_str() {
                "" => "at the cluster scope".to_owned(),
                namespace => format!("in the namespace {namespace:?}"),
            };
            format!(
                "User {:?} cannot {} resource {:?} in API group {group:?} {place}",
                user.name,
                request.verb,
                request.resource_path()
            )
        } else {
            format!(
                "User {:?} cannot {} path {:?}",
                user.name, request.verb, request.path
            )
        };
        // Upstream keeps a browser that shows this from taking a path for markup.
        text = text
            .replace('&', "&amp;")
            .replace('<', "&lt;")
            .replace('>', "&gt;");
        if !why.is_empty() {
            text = format!("{text}: {why}");
        }
        let subject = match (group.as_str(), resource.as_str(), name.as_str()) {
            ("", "", _) => "forbidden".to_owned(),
            ("", resource, "") => format!("{resource} is forbidden"),
            ("", resource, name) => format!("{resource} {name:?} is forbidden"),
            (group, resource, "") => format!("{resource}.{group} is forbidden"),
            (group, resource, name) => format!("{resource}.{group} {name:?} is forbidden"),
        };
        let mut details = json!({});
        for (field, value) in [("name", name), ("group", group), ("kind", resource)] {
            if !value.is_empty() {
                details[field] = json!(value);
            }
        }
        Refusal {
            details: Some(details),
            ..Refusal::new(
                StatusCode::FORBIDDEN,
                "Forbidden",
                format!("{subject}: {text}"),
            )
        }
    }

    /// 422 for an object that is not one of the stored kinds: `Kind "" is invalid: …`.
    pub fn invalid_review(kind: &str, causes: &[(String, String)]) -> Refusal {
        let group = "authorization.k8s.io";
        let text = match causes {
            [(field, why)] => format!("{field}: {why}"),
            several => {
                let texts = several.iter().map(|(field, why)| format!("{field}: {why}"));
                format!("[{}]", texts.collect::<Vec<_>>().join(", "))
            }
        };
        let listed = causes.iter().map(
            |(field, why)| json!({"reason": "FieldValueInvalid", "message": why, "field": field}),
        );
        let causes: Vec<Value> = listed.collect();
        Refusal {
            details: Some(json!({"group": group, "kind": kind, "causes": causes})),
            ..Refusal::new(
                StatusCode::UNPROCESSABLE_ENTITY,
                "Invalid",
                format!("{kind}.{group} \"\" is invalid: {text}"),
            )
        }
    }

    pub fn too_many(what: &str) -> Refusal {
        let text = format!("too many {what}, please try again later");
        Refusal {
            details: Some(json!({"retryAfterSeconds": 1})),
            ..Refusal::new(StatusCode::TOO_MANY_REQUESTS, "TooManyRequests", text)
        }
    }

    pub fn unavailable(message: impl Into<String>) -> Refusal {
        Refusal::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "ServiceUnavailable",
            message,
        )
    }

    pub fn internal(message: impl Into<String>) -> Refusal {
        Refusal::new(StatusCode::INTERNAL_SERVER_ERROR, "InternalError", message)
    }

    pub fn too_large(limit: usize) -> Refusal {
        let text = format!("Request entity too large: limit is {limit}");
        Refusal::new(StatusCode::PAYLOAD_TOO_LARGE, "RequestEntityTooLarge", text)
    }

    /// The Status object.
    pub fn status(&self) -> Value {
        let mut status = json!({
            "kind": "Status",
            "apiVersion": "v1",
            "metadata": self.metadata,
            "status": "Failure",
            "message": self.message,
            "reason": self.reason,
            "code": self.code.as_u16(),
        });
        if let Some(details) = &self.details {
            status["details"] = details.clone();
        }
        status
    }

    pub fn response(&self) -> Response {
        self.with_headers(json_response(self.code, &self.status()))
    }

    /// The message alone, as kubelets answer.
    pub fn plain_response(&self) -> Response {
        let body = Body::bytes(format!("{}\n", self.message));
        self.with_headers(typed_response(self.code, "text/plain; charset=utf-8", body))
    }

    fn with_headers(&self, mut response: Response) -> Response {
        if self.code == StatusCode::UNAUTHORIZED {
            // Who is nobody holds no connection.
            let close = header::HeaderValue::from_static("close");
            response.headers_mut().insert(header::CONNECTION, close);
        }
        let again = self.details.as_ref().map(|d| &d["retryAfterSeconds"]);
        if let Some(seconds) = again.and_then(Value::as_u64) {
            let headers = response.headers_mut();
            headers.insert(header::RETRY_AFTER, seconds.into());
        }
        response
    }
}

/// The resource as messages name it: `pods`, `leases.coordination.k8s.io`.
fn resource(kind: Kind) -> String {
    match kind.group() {
        "" => kind.plural().to_owned(),
        group => format!("{}.{group}", kind.plural()),
    }
}

/// The kind as messages name it: `Pod`, `Lease.coordination.k8s.io`.
fn qualified(kind: Kind) -> String {
    match kind.group() {
        "" => kind.name().to_owned(),
        group => format!("{}.{group}", kind.name()),
    }
}

/// `details` about one object.
pub fn about(kind: Kind, name: &str) -> Value {
    let mut details = json!({"kind": kind.plural()});
    if !name.is_empty() {
        details["name"] = json!(name);
    }
    if !kind.group().is_empty() {
        details["group"] = json!(kind.group());
    }
    details
}

/// A JSON answer, ending in a line feed as Kubernetes' does.
pub fn json_response(code: StatusCode, value: &Value) -> Response {
    let mut bytes = serde_json::to_vec(value).expect("a Value is JSON");
    bytes.push(b'\n');
    typed_response(code, "application/json", Body::bytes(bytes))
}

pub fn typed_response(code: StatusCode, content_type: &'static str, body: Body) -> Response {
    http::Response::builder()
        .status(code)
        .header(header::CONTENT_TYPE, content_type)
        .header(header::CACHE_CONTROL, "no-cache, private")
        .body(body)
        .expect("constant headers")
}
