//! What the server is and has: version, health, API groups and resources.
//!
//! Source: Kubernetes apiserver, endpoints/discovery and server/healthz.

use http::StatusCode;
use serde_json::{Value, json};

use super::backend::{Backend, Request};
use super::query::Query;
use super::status::{Refusal, json_response, typed_response};
use crate::net::serve::{Body, Response};
use crate::object::Kind;

/// The Kubernetes release whose API this is; clients compare `minor` with their own.
const MAJOR: &str = "1";
const MINOR: &str = "33";

pub fn version() -> Response {
    let git_version = format!("v{MAJOR}.{MINOR}.0+lowtide-{}", env!("CARGO_PKG_VERSION"));
    let version = json!({
        "major": MAJOR,
        "minor": MINOR,
        "gitVersion": git_version,
        "gitCommit": "",
        "gitTreeState": "",
        "buildDate": "1970-01-01T00:00:00Z",
        "goVersion": "none",
        "compiler": "rustc",
        "platform": format!("{}/{}", std::env::consts::OS, go_arch()),
    });
    json_response(StatusCode::OK, &version)
}

/// This machine as Go names it.
fn go_arch() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

/// `ok`, or which check fails. `check` asks for one; `verbose` lists all.
pub async fn health(
    backend: &Backend,
    check: Option<String>,
    query: &Query,
) -> Result<Response, Refusal> {
    // Who reads this is served, so `ping` holds; `node` is the loop's and the store's own word.
    let node = match query.all("exclude").any(|name| name == "node") {
        true => Ok(()),
        false => backend.ask(Request::Health).await?,
    };
    let checks = [("ping", Ok(())), ("node", node)];
    let wanted = |name: &str| check.as_deref().is_none_or(|check| check == name);
    let checks: Vec<_> = checks
        .into_iter()
        .filter(|(name, _)| wanted(name))
        .collect();
    if checks.is_empty() {
        return Err(Refusal::no_such_path());
    }
    let failed = checks.iter().any(|(_, result)| result.is_err());
    let mut text = String::new();
    if failed || query.is_set("verbose") {
        for (name, result) in &checks {
            text.push_str(&match result {
                Ok(()) => format!("[+]{name} ok\n"),
                Err(why) => format!("[-]{name} failed: {why}\n"),
            });
        }
        text.push_str(if failed {
            "healthz check failed\n"
        } else {
            "healthz check passed\n"
        });
    } else {
        text.push_str("ok");
    }
    let code = match failed {
        true => StatusCode::INTERNAL_SERVER_ERROR,
        false => StatusCode::OK,
    };
    Ok(typed_response(
        code,
        "text/plain; charset=utf-8",
        Body::bytes(text),
    ))
}

pub fn core_versions() -> Response {
    let versions = json!({
        "kind": "APIVersions",
        "versions": ["v1"],
        "serverAddressByClientCIDRs": [],
    });
    json_response(StatusCode::OK, &versions)
}

pub fn groups() -> Response {
    let groups = json!({"kind": "APIGroupList", "apiVersion": "v1", "groups": []});
    json_response(StatusCode::OK, &groups)
}

pub fn core_resources() -> Response {
    let kinds = Kind::ALL.into_iter().filter(|kind| kind.group().is_empty());
    let kinds = kinds.map(resource);
    let parts = [
        ("pods/log", "Pod", json!(["get"])),
        ("pods/exec", "PodExecOptions", json!(["create", "get"])),
        ("pods/attach", "PodAttachOptions", json!(["create", "get"])),
        (
            "pods/portforward",
            "PodPortForwardOptions",
            json!(["create", "get"]),
        ),
    ];
    let parts = parts.into_iter().map(|(name, kind, verbs)| {
        json!({"name": name, "singularName": "", "namespaced": true, "kind": kind, "verbs": verbs})
    });
    let list = json!({
        "kind": "APIResourceList",
        "groupVersion": "v1",
        "resources": kinds.chain(parts).collect::<Value>(),
    });
    json_response(StatusCode::OK, &list)
}

fn resource(kind: Kind) -> Value {
    let mut resource = json!({
        "name": kind.plural(),
        "singularName": kind.name().to_ascii_lowercase(),
        "namespaced": kind.namespaced(),
        "kind": kind.name(),
        "verbs": ["get", "list", "watch"],
    });
    if !kind.short_names().is_empty() {
        resource["shortNames"] = json!(kind.short_names());
    }
    if kind == Kind::Pod {
        resource["categories"] = json!(["all"]);
    }
    resource
}
