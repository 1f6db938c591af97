//! Whether a client wants a WebSocket or SPDY, and which protocol inside of it. Pure.
//!
//! Nothing but a 101 gives the connection away: after any other answer it is plain HTTP still, and
//! what comes next on it is a request like every other.

use http::header::{CONNECTION, HeaderMap, HeaderName, HeaderValue, UPGRADE};
use http::{Response as HttpResponse, StatusCode};

use crate::apiserver::status::{Refusal, typed_response};
use crate::net::serve::{Body, Response};
use crate::net::websocket::{self, HandshakeError, lists};

const SPDY: &str = "SPDY/3.1";
const PROTOCOL: HeaderName = HeaderName::from_static("x-stream-protocol-version");
const ACCEPTED: HeaderName = HeaderName::from_static("x-accepted-stream-protocol-versions");

/// What both sides speak from now on.
#[derive(Debug, PartialEq, Eq)]
pub enum Agreed {
    WebSocket(websocket::Agreed),
    Spdy(&'static str),
}

/// Why there is no upgrade.
#[derive(Debug, PartialEq, Eq)]
pub enum Refused {
    Because(Refusal),
    /// None of the client's protocols is one of these.
    NoProtocol {
        asked: String,
        ours: Vec<&'static str>,
    },
}

/// Protocols that are spoken on each, the best first.
pub struct Spoken {
    pub web_socket: &'static [&'static str],
    pub spdy: &'static [&'static str],
}

pub fn agree(headers: &HeaderMap, spoken: &Spoken) -> Result<Agreed, Refused> {
    let because = |text: &str| Refused::Because(Refusal::bad_request(text));
    if websocket::is_asked(headers) {
        let agreed = websocket::agree(headers, spoken.web_socket);
        return agreed.map(Agreed::WebSocket).map_err(|error| match error {
            HandshakeError::NotAWebSocket => because("the WebSocket handshake is incomplete"),
            HandshakeError::NoProtocol => because(&format!(
                "no common protocol: supported are {}",
                spoken.web_socket.join(" ").trim_end()
            )),
        });
    }
    if !lists(headers, &UPGRADE, SPDY) || !lists(headers, &CONNECTION, "upgrade") {
        return Err(because("Upgrade request required"));
    }
    let asked = headers.get_all(PROTOCOL).iter();
    let asked = asked.filter_map(|value| value.to_str().ok());
    let asked: Vec<&str> = asked
        .flat_map(|value| value.split(','))
        .map(str::trim)
        .collect();
    if asked.is_empty() {
        return Err(because(
            "unable to upgrade: X-Stream-Protocol-Version is required",
        ));
    }
    // The client's order counts.
    let both = |name: &&str| spoken.spdy.iter().find(|own| *own == name);
    match asked.iter().find_map(both) {
        Some(protocol) => Ok(Agreed::Spdy(protocol)),
        None => Err(Refused::NoProtocol {
            asked: asked.join(" "),
            ours: spoken.spdy.to_vec(),
        }),
    }
}

impl Agreed {
    /// The 101.
    pub fn response(&self) -> Response {
        match self {
            Agreed::WebSocket(agreed) => agreed.response(Body::empty()),
            Agreed::Spdy(protocol) => HttpResponse::builder()
                .status(StatusCode::SWITCHING_PROTOCOLS)
                .header(CONNECTION, "Upgrade")
                .header(UPGRADE, SPDY)
                .header(PROTOCOL, *protocol)
                .body(Body::empty())
                .expect("constant headers"),
        }
    }
}

impl Refused {
    /// An answer, so that it is one for whoever asked in a way that has no Status.
    /// Source: Kubernetes apimachinery, httpstream.Handshake.
    pub fn response(self) -> Result<Response, Refusal> {
        match self {
            Refused::Because(refusal) => Err(refusal),
            Refused::NoProtocol { asked, ours } => {
                let text = format!(
                    "unable to upgrade: unable to negotiate protocol: client supports [{asked}], \
                     server accepts [{}]\n",
                    ours.join(" ")
                );
                let body = Body::bytes(text);
                let mut response = typed_response(StatusCode::FORBIDDEN, "text/plain", body);
                for protocol in ours {
                    let value = HeaderValue::from_static(protocol);
                    response.headers_mut().append(ACCEPTED, value);
                }
                Ok(response)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SPOKEN: Spoken = Spoken {
        web_socket: &["v5", "v4"],
        spdy: &["v4", "v3"],
    };

    fn asked(pairs: &[(&'static str, &'static str)]) -> Result<Agreed, Refused> {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.append(
                HeaderName::from_static(name),
                HeaderValue::from_static(value),
            );
        }
        agree(&headers, &SPOKEN)
    }

    #[test]
    fn spdy_is_agreed_on_in_the_clients_order() {
        let upgrade = [("connection", "Upgrade"), ("upgrade", "spdy/3.1")];
        let with = |versions: &[&'static str]| {
            let versions = versions.iter().map(|v| ("x-stream-protocol-version", *v));
            let headers: Vec<_> = upgrade.into_iter().chain(versions).collect();
            asked(&headers)
        };
        assert_eq!(with(&["v5", "v3", "v4"]), Ok(Agreed::Spdy("v3")));
        assert_eq!(with(&["v5, v4"]), Ok(Agreed::Spdy("v4")));
        let refused = with(&["v5"]).expect_err("no common protocol");
        let response = refused.response().expect("an answer");
        assert_eq!(response.status(), StatusCode::FORBIDDEN);
        assert_eq!(response.headers().get_all(ACCEPTED).iter().count(), 2);
        let response = with(&["v4"]).expect("agreed").response();
        assert_eq!(response.status(), StatusCode::SWITCHING_PROTOCOLS);
        assert_eq!(response.headers()[PROTOCOL], "v4");
    }

    #[test]
    fn anything_else_is_no_upgrade() {
        let table: [&[(&str, &str)]; 4] = [
            &[],
            &[("connection", "keep-alive"), ("upgrade", "SPDY/3.1")],
            &[("connection", "Upgrade"), ("upgrade", "h2c")],
            &[("connection", "Upgrade"), ("upgrade", "SPDY/3.1")],
        ];
        for pairs in table {
            assert!(
                matches!(asked(pairs), Err(Refused::Because(_))),
                "{pairs:?}"
            );
        }
    }
}
