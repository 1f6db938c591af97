//! lowtide's own endpoints: images and the node's health, for the small client.

use http::StatusCode;
use serde_json::{Value, json};

use super::Shared;
use super::backend::{PROGRESS_QUEUED_MAX, Request};
use super::query::Query;
use super::status::{Refusal, json_response, typed_response};
use crate::net::serve::{Body, Response};
use crate::object::user::{GROUP_MASTERS, User};
use bytes::Bytes;
use futures_lite::stream;

/// `GET /lowtide/v1/images`
pub async fn list(shared: &Shared) -> Result<Response, Refusal> {
    let images = shared.backend.ask(Request::Images).await?;
    let items: Value = images
        .iter()
        .map(|image| {
            json!({
                "id": image.id,
                "tags": image.tags,
                "digests": image.digests,
                "sizeBytes": image.size_bytes,
                "pinned": image.pinned,
            })
        })
        .collect();
    Ok(json_response(StatusCode::OK, &json!({"items": items})))
}

/// `POST /lowtide/v1/images/pull?reference=REF`: one JSON object for each step, the last one says
/// how it ended. The pull goes on if the client leaves: others may wait for the same image.
pub fn pull(shared: &Shared, query: &Query) -> Result<Response, Refusal> {
    let reference = query
        .get("reference")
        .ok_or_else(|| Refusal::bad_request("reference: an image reference is required"))?
        .to_owned();
    let (progress, steps) = async_channel::bounded(PROGRESS_QUEUED_MAX);
    shared.backend.send(Request::Pull {
        reference,
        progress,
    })?;
    let lines = stream::unfold(steps, |steps| async move {
        let step = steps.recv().await.ok()?;
        let mut line = serde_json::to_vec(&step).expect("strings and numbers are JSON");
        line.push(b'\n');
        Some((Bytes::from(line), steps))
    });
    let body = Body::stream(lines);
    Ok(typed_response(StatusCode::OK, "application/x-ndjson", body))
}

/// `POST /lowtide/v1/images/import?path=/absolute/path`: the node reads the file itself, so nothing
/// is copied. Who may use the local socket may read it anyway; nobody else learns what is there.
pub async fn import(shared: &Shared, user: &User, query: &Query) -> Result<Response, Refusal> {
    if !user.is_in(GROUP_MASTERS) {
        return Err(Refusal::no_such_path());
    }
    let path = query.get("path").filter(|path| path.starts_with('/'));
    let path = path.ok_or_else(|| Refusal::bad_request("path: an absolute path is required"))?;
    let make = |reply| Request::Import(path.into(), reply);
    let references = shared.backend.ask(make).await?;
    let references = references.map_err(Refusal::bad_request)?;
    Ok(json_response(
        StatusCode::OK,
        &json!({"references": references}),
    ))
}

/// `GET /lowtide/v1/status`
pub async fn status(shared: &Shared) -> Result<Response, Refusal> {
    let status = shared.backend.ask(Request::Status).await?;
    let status = serde_json::to_value(status).expect("strings are JSON");
    Ok(json_response(StatusCode::OK, &status))
}
