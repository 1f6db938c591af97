//! Whether the server lives: `/livez`, `/readyz`, `/healthz`, in upstream's words.
//!
//! Source: Kubernetes apiserver, server/healthz.

use http::StatusCode;

use super::backend::{Backend, Request};
use super::query::Query;
use super::status::{Refusal, typed_response};
use crate::net::serve::{Body, Response};

/// `ok`, or which check fails. `check` asks for one; `verbose` lists all.
/// `endpoint` is the path's first segment, named in the last line.
pub async fn health(
    backend: &Backend,
    endpoint: &str,
    check: Option<String>,
    query: &Query,
) -> Result<Response, Refusal> {
    let excluded = |name: &str| query.all("exclude").any(|excluded| excluded == name);
    let wanted = |name: &str| check.as_deref().is_none_or(|check| check == name);
    // Who reads this is served, so `ping` holds; `node` is the loop's and the store's own word.
    let mut checks = Vec::new();
    for name in ["ping", "node"].into_iter().filter(|name| wanted(name)) {
        let result = match name {
            _ if excluded(name) => None,
            "node" => Some(backend.ask(Request::Health).await?),
            _ => Some(Ok(())),
        };
        checks.push((name, result));
    }
    if checks.is_empty() {
        return Err(Refusal::no_such_path());
    }
    let failed = checks
        .iter()
        .any(|(_, result)| matches!(result, Some(Err(_))));
    let (code, end) = match failed {
        true => (StatusCode::INTERNAL_SERVER_ERROR, "failed"),
        false => (StatusCode::OK, "passed"),
    };
    let text = match failed || query.is_set("verbose") {
        true => {
            let lines: String = checks
                .iter()
                .map(|(name, result)| line(name, result))
                .collect();
            format!("{lines}{endpoint} check {end}\n")
        }
        false => "ok".to_owned(),
    };
    let body = Body::bytes(text);
    Ok(typed_response(code, "text/plain; charset=utf-8", body))
}

fn line(name: &str, result: &Option<Result<(), String>>) -> String {
    match result {
        None => format!("[+]{name} excluded: ok\n"),
        Some(Ok(())) => format!("[+]{name} ok\n"),
        Some(Err(why)) => format!("[-]{name} failed: {why}\n"),
    }
}
