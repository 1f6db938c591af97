//! What an answer of the cluster says, and whether it is one of a cluster.

use std::io::Read;
use std::time::Duration;

use http::header::{CONTENT_ENCODING, CONTENT_TYPE, LOCATION, RETRY_AFTER};
use serde_json::Value;

use crate::net::client::{Error, Response};
use crate::world::Reply;

/// Of an answer, packed and unpacked.
const BODY_BYTES_MAX: u64 = 64 << 20;
/// Bodies that are unpacked and parsed on the node's thread.
const SHORT_BYTES_MAX: usize = 64 << 10;
/// A wait that a server asks for.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(3600);

/// Whoever answers with a page for people, or sends us elsewhere, is no API server but something in
/// between: a captive portal, a proxy with an error of its own.
pub(super) fn check_stranger(response: &Response) -> Result<(), Error> {
    let content_type = response.header(CONTENT_TYPE.as_str()).unwrap_or_default();
    let page = content_type.to_ascii_lowercase().starts_with("text/html");
    if !page && !response.status.is_redirection() {
        return Ok(());
    }
    let to = response.header(LOCATION.as_str()).unwrap_or_default();
    let status = response.status.as_u16();
    Err(Error::Protocol(format!(
        "no answer of an API server: HTTP status {status} {content_type} {to}"
    )))
}

/// Reads the body to its end. Errors: it broke off, is too large, or no JSON though all went well.
pub(super) async fn reply(response: &mut Response) -> Result<Reply, Error> {
    let packed = response.header(CONTENT_ENCODING.as_str()) == Some("gzip");
    let retry_after = response.header(RETRY_AFTER.as_str()).and_then(seconds);
    let bytes = response.bytes(BODY_BYTES_MAX).await?;
    let body = match bytes.len() <= SHORT_BYTES_MAX && !packed {
        true => decode(bytes, packed),
        false => blocking::unblock(move || decode(bytes, packed)).await,
    };
    let success = response.status.is_success();
    let body = match body {
        // An empty answer, or words of somebody between here and the cluster.
        Err(_) if !success => Value::Null,
        Err(why) => {
            return Err(Error::Protocol(format!(
                "no answer of an API server: {why}"
            )));
        }
        Ok(body) => body,
    };
    Ok(Reply {
        status: response.status.as_u16(),
        body,
        retry_after,
    })
}

fn decode(bytes: Vec<u8>, packed: bool) -> Result<Value, String> {
    let bytes = match packed {
        false => bytes,
        true => {
            let mut plain = Vec::new();
            let unpacked = flate2::read::GzDecoder::new(&bytes[..]);
            let read = unpacked.take(BODY_BYTES_MAX + 1).read_to_end(&mut plain);
            read.map_err(|error| format!("unpack it: {error}"))?;
            if plain.len() as u64 > BODY_BYTES_MAX {
                return Err(format!("it is larger than {BODY_BYTES_MAX} bytes"));
            }
            plain
        }
    };
    serde_json::from_slice(&bytes).map_err(|error| error.to_string())
}

/// In seconds; the form with a date would need a clock that is right.
fn seconds(text: &str) -> Option<Duration> {
    let span = Duration::from_secs(text.trim().parse().ok()?);
    Some(span.min(RETRY_AFTER_MAX))
}
