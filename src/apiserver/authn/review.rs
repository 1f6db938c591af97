//! What the API says of identities: TokenReview, SelfSubjectReview, and tokens of service accounts.
//!
//! Pure: a body, who asks and a snapshot in, an object or a refusal out; nothing is stored.
//! Source: Kubernetes pkg/registry/authentication and pkg/registry/core/serviceaccount/storage/token.go.

use std::time::Duration;

use http::StatusCode;
use jiff::Timestamp;
use serde_json::{Value, json};

use super::Authenticator;
use super::secret_file::authenticated;
use crate::apiserver::request_info::RequestInfo;
use crate::apiserver::status::Refusal;
use crate::object::token::{API_AUDIENCE, Bound, BoundKind, LIFETIME_MAX, LIFETIME_MIN, Wanted};
use crate::object::{Key, Kind, Object, User};

const GROUP: &str = "authentication.k8s.io";
/// Of a TokenRequest that says nothing. Source: authentication/v1 defaults.
const LIFETIME_DEFAULT_S: i64 = 3600;

/// One of the requests that are answered here; all of them are POST.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Asked {
    TokenReview,
    SelfSubjectReview,
    /// `serviceaccounts/NAME/token`
    Token {
        namespace: String,
        name: String,
    },
}

impl Asked {
    /// `None` for requests that are answered elsewhere.
    pub fn of(info: &RequestInfo) -> Option<Asked> {
        let place = (info.group.as_str(), info.version.as_str());
        let what = (info.resource.as_str(), info.subresource.as_str());
        let plain = info.is_resource && info.rest.is_empty();
        let of_all = info.name.is_empty() && info.namespace.is_empty();
        match (place, what) {
            ((GROUP, "v1"), ("tokenreviews", "")) if plain && of_all => Some(Asked::TokenReview),
            ((GROUP, "v1"), ("selfsubjectreviews", "")) if plain && of_all => {
                Some(Asked::SelfSubjectReview)
            }
            (("", "v1"), ("serviceaccounts", "token")) if plain && !info.namespace.is_empty() => {
                Some(Asked::Token {
                    namespace: info.namespace.clone(),
                    name: info.name.clone(),
                })
            }
            _ => None,
        }
    }
}

/// The answer, with code 201. Errors: as upstream words them.
pub fn answer(
    asked: &Asked,
    authenticator: &Authenticator,
    user: &User,
    body: &Value,
    now: Timestamp,
) -> Result<Value, Refusal> {
    let kind = match asked {
        Asked::TokenReview => "TokenReview",
        Asked::SelfSubjectReview => "SelfSubjectReview",
        Asked::Token { .. } => "TokenRequest",
    };
    let wrong = |field: &str, expected: &str| {
        let stated = body[field].as_str().unwrap_or_default();
        !stated.is_empty() && stated != expected
    };
    if wrong("kind", kind) || wrong("apiVersion", "authentication.k8s.io/v1") {
        let text = format!("the object provided is no {GROUP}/v1 {kind}");
        return Err(Refusal::bad_request(text));
    }
    match asked {
        Asked::TokenReview => token_review(authenticator, body, now),
        Asked::SelfSubjectReview => Ok(json!({
            "kind": kind,
            "apiVersion": "authentication.k8s.io/v1",
            "metadata": {"creationTimestamp": stamp(now)},
            "status": {"userInfo": user_info(user)},
        })),
        Asked::Token { namespace, name } => {
            token_request(authenticator, user, namespace, name, body, now)
        }
    }
}

fn token_review(
    authenticator: &Authenticator,
    body: &Value,
    now: Timestamp,
) -> Result<Value, Refusal> {
    let token = body["spec"]["token"].as_str().unwrap_or_default();
    if token.is_empty() {
        let text = "token is required for TokenReview in authentication";
        return Err(Refusal::bad_request(text));
    }
    let audiences = audiences(&body["spec"])?;
    let files = authenticator.files();
    let status = match authenticator.bearer(&files, token, &audiences, now) {
        Ok(Some(checked)) => json!({
            "authenticated": true,
            "user": user_info(&authenticated(&checked.user)),
            "audiences": checked.audiences,
        }),
        Ok(None) => json!({"user": {}}),
        Err(why) => json!({"user": {}, "error": why}),
    };
    Ok(json!({
        "kind": "TokenReview",
        "apiVersion": "authentication.k8s.io/v1",
        "metadata": {"creationTimestamp": null},
        "spec": body["spec"],
        "status": status,
    }))
}

fn token_request(
    authenticator: &Authenticator,
    user: &User,
    namespace: &str,
    name: &str,
    body: &Value,
    now: Timestamp,
) -> Result<Value, Refusal> {
    let Some((issuer, reader)) = &authenticator.accounts else {
        return Err(Refusal::unavailable("this node makes no tokens"));
    };
    let spec = &body["spec"];
    for (field, is, what) in [
        ("name", name, "name"),
        ("namespace", namespace, "namespace"),
    ] {
        let stated = body["metadata"][field].as_str().unwrap_or_default();
        if !stated.is_empty() && stated != is {
            let what = format!("must match the service account {what} if specified");
            return Err(invalid(
                name,
                &format!("metadata.{field}"),
                &json!(stated),
                &what,
            ));
        }
    }
    let key = Key::local(Kind::ServiceAccount, namespace, name);
    let account = reader.get(&key);
    let account = account.ok_or_else(|| Refusal::not_found(Kind::ServiceAccount, name))?;
    check_account_uid(body, &account)?;
    let lifetime = lifetime(&spec["expirationSeconds"])?;
    let find = |kind, name: &str| {
        let namespace = if kind == Kind::Node { "" } else { namespace };
        reader.get(&Key::local(kind, namespace, name))
    };
    let reference = Some(&spec["boundObjectRef"]).filter(|reference| reference.is_object());
    let mut pod_node = None;
    let bound = match reference {
        None => None,
        Some(reference) => {
            let (bound, object) = bound(reference, &find, name)?;
            if bound.kind == BoundKind::Pod {
                pod_node = object.body["spec"]["nodeName"].as_str().map(str::to_owned);
            }
            Some(bound)
        }
    };
    check_node_identity(user, bound.as_ref(), pod_node.as_deref(), namespace, name)?;
    let node = pod_node.and_then(|node| {
        let uid = find(Kind::Node, &node)?.uid().to_owned();
        Some((node, uid))
    });
    let audiences = match audiences(spec)? {
        none if none.is_empty() => vec![API_AUDIENCE.to_owned()],
        stated => stated,
    };
    let wanted = Wanted {
        account: &account,
        audiences: audiences.clone(),
        lifetime,
        bound,
        node,
    };
    let minted = issuer.mint(&wanted, now).map_err(Refusal::internal)?;
    let mut answered = json!({
        "kind": "TokenRequest",
        "apiVersion": "authentication.k8s.io/v1",
        "metadata": {
            "name": name, "namespace": namespace, "uid": account.uid(),
            "creationTimestamp": stamp(now),
        },
        "spec": {"audiences": audiences, "expirationSeconds": lifetime.as_secs()},
        "status": {"token": minted.token, "expirationTimestamp": stamp(minted.expires)},
    });
    answered["spec"]["boundObjectRef"] = reference.cloned().unwrap_or(Value::Null);
    Ok(answered)
}

fn lifetime(seconds: &Value) -> Result<Duration, Refusal> {
    let stated = match seconds {
        Value::Null => LIFETIME_DEFAULT_S,
        other => other.as_i64().ok_or_else(|| {
            Refusal::bad_request("spec.expirationSeconds: must be a whole number")
        })?,
    };
    let lifetime = Duration::from_secs(u64::try_from(stated).unwrap_or(0));
    let why = if lifetime < LIFETIME_MIN {
        "may not specify a duration less than 10 minutes"
    } else if lifetime > LIFETIME_MAX {
        "may not specify a duration larger than 2^32 seconds"
    } else {
        return Ok(lifetime);
    };
    Err(invalid("", "spec.expirationSeconds", &json!(stated), why))
}

/// 422 for a TokenRequest.
fn invalid(name: &str, field: &str, value: &Value, why: &str) -> Refusal {
    let message = format!("Invalid value: {value}: {why}");
    let cause = json!({"reason": "FieldValueInvalid", "message": message, "field": field});
    let mut details = json!({"group": GROUP, "kind": "TokenRequest", "causes": [cause]});
    if !name.is_empty() {
        details["name"] = name.into();
    }
    Refusal::detailed(
        StatusCode::UNPROCESSABLE_ENTITY,
        "Invalid",
        format!("TokenRequest.{GROUP} {name:?} is invalid: {field}: {message}"),
        details,
    )
}

/// Errors: the request means another account of that name.
fn check_account_uid(body: &Value, account: &Object) -> Result<(), Refusal> {
    let meant = body["metadata"]["uid"].as_str().unwrap_or_default();
    let (name, uid) = (&account.key.name, account.uid());
    if meant.is_empty() || meant == uid {
        return Ok(());
    }
    Err(Refusal::detailed(
        StatusCode::CONFLICT,
        "Conflict",
        format!(
            "Operation cannot be fulfilled on TokenRequest.{GROUP} {name:?}: the UID in the token \
             request ({meant}) does not match the UID of the service account ({uid})"
        ),
        json!({"group": GROUP, "kind": "TokenRequest", "name": name}),
    ))
}

fn audiences(spec: &Value) -> Result<Vec<String>, Refusal> {
    let list = match &spec["audiences"] {
        Value::Null => return Ok(Vec::new()),
        other => other.as_array(),
    };
    let texts = list.and_then(|list| {
        let texts = list.iter().map(|one| one.as_str().map(str::to_owned));
        texts.collect::<Option<Vec<_>>>()
    });
    texts.ok_or_else(|| Refusal::bad_request("spec.audiences: must be a list of texts"))
}

/// The object that a token shall end with.
fn bound(
    reference: &Value,
    find: &dyn Fn(Kind, &str) -> Option<std::sync::Arc<Object>>,
    account: &str,
) -> Result<(Bound, std::sync::Arc<Object>), Refusal> {
    let text = |field: &str| reference[field].as_str().unwrap_or_default();
    let (name, uid) = (text("name"), text("uid"));
    let (kind, bound_kind) = match (text("apiVersion"), text("kind")) {
        ("v1" | "", "Pod") => (Kind::Pod, BoundKind::Pod),
        ("v1" | "", "Secret") => (Kind::Secret, BoundKind::Secret),
        ("v1" | "", "Node") => (Kind::Node, BoundKind::Node),
        (version, kind) => {
            let text = format!("cannot bind token to object of type {version}, Kind={kind}");
            return Err(Refusal::bad_request(text));
        }
    };
    let object = find(kind, name).ok_or_else(|| Refusal::not_found(kind, name))?;
    let runs_as = object.body["spec"]["serviceAccountName"].as_str();
    if kind == Kind::Pod && runs_as.unwrap_or_default() != account {
        let text = format!(
            "cannot bind token for serviceaccount {account:?} to pod running with different \
             serviceaccount name."
        );
        return Err(Refusal::bad_request(text));
    }
    if !uid.is_empty() && uid != object.uid() {
        let why = format!(
            "the UID in the bound object reference ({uid}) does not match the UID in record. The \
             object might have been deleted and then recreated"
        );
        return Err(Refusal::conflict_of_kind(kind, name, &why));
    }
    let bound = Bound {
        kind: bound_kind,
        name: name.to_owned(),
        uid: object.uid().to_owned(),
    };
    Ok((bound, object))
}

/// A node gets tokens only for the pods that run on it.
/// Source: Kubernetes plugin/pkg/admission/noderestriction (admitServiceAccount).
fn check_node_identity(
    user: &User,
    bound: Option<&Bound>,
    pod_node: Option<&str>,
    namespace: &str,
    account: &str,
) -> Result<(), Refusal> {
    let Some(node) = user.node_name() else {
        return Ok(());
    };
    let why = match bound {
        Some(bound) if bound.kind == BoundKind::Pod => match pod_node {
            Some(of_pod) if of_pod == node => return Ok(()),
            _ => "node requested token bound to a pod scheduled on a different node",
        },
        _ => "node requested token not bound to a pod",
    };
    let request = RequestInfo {
        is_resource: true,
        verb: "create".to_owned(),
        version: "v1".to_owned(),
        namespace: namespace.to_owned(),
        resource: "serviceaccounts".to_owned(),
        subresource: "token".to_owned(),
        name: account.to_owned(),
        ..RequestInfo::default()
    };
    Err(Refusal::forbidden(user, &request, why))
}

fn user_info(user: &User) -> Value {
    let mut info = json!({"username": user.name});
    if !user.uid.is_empty() {
        info["uid"] = json!(user.uid);
    }
    if !user.groups.is_empty() {
        info["groups"] = json!(user.groups);
    }
    if !user.extra.is_empty() {
        info["extra"] = json!(user.extra);
    }
    info
}

fn stamp(at: Timestamp) -> String {
    at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}
