//! From a request's body to a JSON value: bounded in size and time, in the types that we read.
//!
//! Source: Kubernetes apiserver, endpoints/handlers/{rest,negotiation}.

use futures_lite::FutureExt;
use http::header::{CONTENT_TYPE, HeaderMap};
use http_body_util::BodyExt;
use serde_json::Value;

use crate::apiserver::status::Refusal;
use crate::apiserver::{Counted, Shared};
use crate::net::serve::Request;
use crate::object::{json, protobuf, yaml};

/// Upstream: `MaxRequestBodyBytes`.
const BODY_BYTES_MAX: usize = 3 << 20;

/// So much of a body that is too large is still read: a client that is cut off while it writes does
/// not see why.
const DISCARDED_BYTES_MAX: usize = 8 << 20;

const JSON: &str = "application/json";
const YAML: &str = "application/yaml";
/// What clients made from Go's types send, many of kubectl's commands among them.
const PROTOBUF: &str = "application/vnd.kubernetes.protobuf";

/// What a client sent: the value, and the keys in it that stand twice.
#[derive(Debug, Default)]
pub struct Sent {
    pub value: Value,
    /// Paths, as in `spec.containers[0].image`.
    pub duplicates: Vec<String>,
    /// Fields that the form it was sent in does not have, and the stored one has.
    pub unknown: Vec<String>,
    /// The body counts while what came of it is in use.
    pub _weight: Counted,
}

/// A whole body, and what it counts for among all that are in memory.
#[derive(Debug)]
pub struct Whole {
    pub bytes: Vec<u8>,
    pub weight: Counted,
}

/// The media type of the body, without parameters; empty if none is named.
pub fn media_type(headers: &HeaderMap) -> String {
    let named = headers
        .get(CONTENT_TYPE)
        .and_then(|value| value.to_str().ok());
    let kind = named
        .unwrap_or_default()
        .split(';')
        .next()
        .unwrap_or_default();
    kind.trim().to_ascii_lowercase()
}

/// The value that a request brings. Errors: those of [`whole`] and [`value`].
pub async fn sent(request: Request, shared: &Shared) -> Result<Sent, Refusal> {
    let media_type = media_type(request.headers());
    let Whole { bytes, weight } = whole(request, shared).await?;
    Ok(Sent {
        _weight: weight,
        ..value(&media_type, &bytes)?
    })
}

/// Reads the whole body. Errors: 413; 429 if too much is in memory already; 504 if it comes too
/// slowly; 400 if it breaks off.
pub async fn whole(request: Request, shared: &Shared) -> Result<Whole, Refusal> {
    let (clock, limits) = (&shared.clock, &shared.options.limits);
    let mut body = request.into_body();
    let whole = async {
        let (mut bytes, mut length) = (Vec::new(), 0);
        let (mut weight, mut crowded) = (shared.bodies.none(), false);
        while let Some(frame) = body.frame().await {
            let broken = |error: hyper::Error| {
                Refusal::bad_request(format!("the request's body broke off: {error}"))
            };
            let Ok(data) = frame.map_err(broken)?.into_data() else {
                continue;
            };
            length += data.len();
            if length > DISCARDED_BYTES_MAX {
                break;
            }
            crowded |= !weight.grow(data.len(), limits.body_bytes);
            if crowded || length > BODY_BYTES_MAX {
                (bytes, weight) = (Vec::new(), shared.bodies.none());
            } else {
                bytes.extend_from_slice(&data);
            }
        }
        match length {
            0..=BODY_BYTES_MAX if crowded => Err(Refusal::too_many("large requests")),
            0..=BODY_BYTES_MAX => Ok(Whole { bytes, weight }),
            _ => Err(Refusal::too_large(BODY_BYTES_MAX)),
        }
    };
    let late = async {
        clock.sleep_until(clock.now() + limits.body_timeout).await;
        Err(Refusal::timeout(
            "request did not complete within the allotted timeout",
        ))
    };
    whole.or(late).await
}

/// The value of a body in JSON, YAML or protobuf. Errors: 415 for other types, 400 for what cannot be
/// read.
pub fn value(media_type: &str, bytes: &[u8]) -> Result<Sent, Refusal> {
    if media_type == PROTOBUF {
        let value = protobuf::decode(bytes).map_err(|why| {
            Refusal::bad_request(format!("error decoding the request's body: {why}"))
        })?;
        return Ok(Sent {
            value,
            ..Sent::default()
        });
    }
    let text = std::str::from_utf8(bytes)
        .map_err(|_| Refusal::bad_request("the request's body is not UTF-8"))?;
    let unreadable = |line: u64, message: &str| {
        let what = format!("error decoding the request's body: line {line}: {message}");
        Refusal::bad_request(what)
    };
    match media_type {
        // What is sent without a type is JSON.
        JSON | "" => {
            let (value, duplicates) = json::parse_lenient(text, yaml::DEPTH_MAX)
                .map_err(|(line, message)| unreadable(line as u64, &message))?;
            Ok(Sent {
                value,
                duplicates,
                ..Sent::default()
            })
        }
        YAML => Ok(Sent {
            value: yaml::parse(text).map_err(|(line, message)| unreadable(line, &message))?,
            ..Sent::default()
        }),
        _ => Err(Refusal::unsupported_media_type(&[JSON, YAML, PROTOBUF])),
    }
}
