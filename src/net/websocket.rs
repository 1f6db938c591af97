//! WebSockets on upgraded connections, and the channels that Kubernetes multiplexes on them.
//!
//! A message is one byte naming the channel, then its bytes:
//!
//! ```text
//!   0 stdin   1 stdout   2 stderr   3 error (a Status, at the end)   4 resize {"Width","Height"}
//!   255 n     half-close of channel n (v5 only)
//! ```
//!
//! Source: RFC 6455; Kubernetes KEP-4006. Knows nothing of pods or commands.

use async_tungstenite::tungstenite::handshake::derive_accept_key;
use async_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use async_tungstenite::tungstenite::protocol::{CloseFrame, Role, WebSocketConfig};
use async_tungstenite::{WebSocketStream, tungstenite};
use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::Bytes;
use http::header::{self, HeaderMap, HeaderValue};
use http::response::Builder;
use http::{Request, Response, StatusCode};
use serde::{Deserialize, Serialize};

use super::serve::{Duplex, Paced, take_upgraded};

pub use async_tungstenite::WebSocketStream as WebSocket;
pub use tungstenite::Message;

/// Largest message taken from a peer; kubectl sends stdin in pieces of 32 KiB.
const MESSAGE_BYTES_MAX: usize = 1 << 20;

pub const V5: &str = "v5.channel.k8s.io";
pub const V4: &str = "v4.channel.k8s.io";
pub const V4_BASE64: &str = "v4.base64.channel.k8s.io";
pub const V1: &str = "channel.k8s.io";
pub const V1_BASE64: &str = "base64.channel.k8s.io";
/// Of a client that names none.
pub const UNNAMED: &str = "";

const STDIN: u8 = 0;
const STDOUT: u8 = 1;
const STDERR: u8 = 2;
const ERROR: u8 = 3;
const RESIZE: u8 = 4;
const CLOSE: u8 = 255;

/// Size of a terminal in characters. JSON names are Go's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TerminalSize {
    #[serde(rename = "Width")]
    pub columns: u16,
    #[serde(rename = "Height")]
    pub rows: u16,
}

/// One message of a command's session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Frame {
    Stdin(Bytes),
    Stdout(Bytes),
    Stderr(Bytes),
    /// The Status that ends the session, as JSON.
    Error(Bytes),
    Resize(TerminalSize),
    /// The sender's stdin has ended; everything else goes on.
    StdinClosed,
}

impl Frame {
    pub fn encode(&self) -> Vec<u8> {
        let tagged = |channel: u8, bytes: &[u8]| {
            let mut message = Vec::with_capacity(1 + bytes.len());
            message.push(channel);
            message.extend_from_slice(bytes);
            message
        };
        match self {
            Frame::Stdin(bytes) => tagged(STDIN, bytes),
            Frame::Stdout(bytes) => tagged(STDOUT, bytes),
            Frame::Stderr(bytes) => tagged(STDERR, bytes),
            Frame::Error(bytes) => tagged(ERROR, bytes),
            Frame::Resize(size) => tagged(
                RESIZE,
                &serde_json::to_vec(size).expect("two numbers are JSON"),
            ),
            Frame::StdinClosed => vec![CLOSE, STDIN],
        }
    }

    /// `None` for what no peer has a reason to send: an empty message, an unknown channel, a
    /// broken size. Upstream ignores those as well.
    pub fn decode(message: &Bytes) -> Option<Frame> {
        let bytes = || message.slice(1..);
        match *message.first()? {
            STDIN => Some(Frame::Stdin(bytes())),
            STDOUT => Some(Frame::Stdout(bytes())),
            STDERR => Some(Frame::Stderr(bytes())),
            ERROR => Some(Frame::Error(bytes())),
            RESIZE => serde_json::from_slice(&bytes()).ok().map(Frame::Resize),
            CLOSE => (message.get(1) == Some(&STDIN)).then_some(Frame::StdinClosed),
            _ => None,
        }
    }
}

/// How a message carries bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Encoding {
    Binary,
    /// Text: the channel as a digit, the rest in base64. For browsers of old.
    Base64,
}

impl Encoding {
    pub fn of(protocol: &str) -> Encoding {
        match protocol.contains("base64.") {
            true => Encoding::Base64,
            false => Encoding::Binary,
        }
    }

    /// `bytes`: a channel's number, then what is said on it.
    pub fn message(self, bytes: Vec<u8>) -> Message {
        match (self, bytes.split_first()) {
            (Encoding::Base64, Some((channel, rest))) => {
                let digit = char::from(b'0'.wrapping_add(*channel));
                Message::text(format!("{digit}{}", BASE64.encode(rest)))
            }
            _ => Message::binary(bytes),
        }
    }

    /// The other way. `None` for pings and the like, and for broken base64.
    pub fn bytes(self, message: Message) -> Option<Bytes> {
        let bytes: Bytes = match message {
            Message::Binary(bytes) => bytes,
            Message::Text(text) => Bytes::from(text),
            Message::Ping(_) | Message::Pong(_) | Message::Close(_) | Message::Frame(_) => {
                return None;
            }
        };
        match (self, bytes.split_first()) {
            (Encoding::Base64, Some((digit, rest))) => {
                let mut decoded = vec![digit.wrapping_sub(b'0')];
                BASE64.decode_vec(rest, &mut decoded).ok()?;
                Some(Bytes::from(decoded))
            }
            _ => Some(bytes),
        }
    }
}

/// Why a request is no WebSocket handshake that we take: status code and text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HandshakeError {
    /// 400
    NotAWebSocket,
    /// 400; the client speaks none of our protocols.
    NoProtocol,
}

/// An agreed handshake, to be answered with [`Agreed::response`].
#[derive(Debug, PartialEq, Eq)]
pub struct Agreed {
    accept: String,
    /// One of ours; [`UNNAMED`] if the client asked for none.
    pub protocol: &'static str,
}

/// Whether a header of words with commas between has this one, in any case.
pub fn lists(headers: &HeaderMap, name: &header::HeaderName, word: &str) -> bool {
    let values = headers.get_all(name).iter();
    values
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .any(|item| item.trim().eq_ignore_ascii_case(word))
}

/// Whether a request asks for a WebSocket.
pub fn is_asked(headers: &HeaderMap) -> bool {
    lists(headers, &header::UPGRADE, "websocket") && lists(headers, &header::CONNECTION, "upgrade")
}

/// Checks a handshake (RFC 6455, 4.2.1) and chooses the first of `ours` that the client names.
pub fn agree(headers: &HeaderMap, ours: &[&'static str]) -> Result<Agreed, HandshakeError> {
    let key = headers.get(header::SEC_WEBSOCKET_KEY);
    let version = headers.get(header::SEC_WEBSOCKET_VERSION);
    let (Some(key), Some(b"13")) = (key, version.map(HeaderValue::as_bytes)) else {
        return Err(HandshakeError::NotAWebSocket);
    };
    if !is_asked(headers) {
        return Err(HandshakeError::NotAWebSocket);
    }
    let names_any = headers.contains_key(header::SEC_WEBSOCKET_PROTOCOL);
    let agreed = |protocol: &&&str| match names_any {
        true => lists(headers, &header::SEC_WEBSOCKET_PROTOCOL, protocol),
        false => **protocol == UNNAMED,
    };
    let protocol = ours.iter().find(agreed).ok_or(HandshakeError::NoProtocol)?;
    Ok(Agreed {
        accept: derive_accept_key(key.as_bytes()),
        protocol,
    })
}

impl Agreed {
    /// The 101 answer.
    pub fn response<B>(&self, empty: B) -> Response<B> {
        let named = Some(self.protocol).filter(|name| *name != UNNAMED);
        let answer = Response::builder()
            .status(StatusCode::SWITCHING_PROTOCOLS)
            .header(header::UPGRADE, "websocket")
            .header(header::CONNECTION, "Upgrade")
            .header(header::SEC_WEBSOCKET_ACCEPT, &self.accept);
        let add = |answer: Builder, name| answer.header(header::SEC_WEBSOCKET_PROTOCOL, name);
        let answer = named.into_iter().fold(answer, add);
        answer
            .body(empty)
            .expect("constant header names, and values made of ASCII")
    }
}

/// The server's end, once the 101 is on its way.
pub async fn accept(on: hyper::upgrade::OnUpgrade) -> Result<WebSocketStream<Paced>, String> {
    let (io, early) = take_upgraded(on).await?;
    let early = early.to_vec();
    Ok(WebSocketStream::from_partially_read(io, early, Role::Server, Some(config())).await)
}

/// What ends a connection well. Without a code Go's clients take the end for a break, and with it
/// forget what they have read.
pub fn goodbye() -> CloseFrame {
    CloseFrame {
        code: CloseCode::Normal,
        reason: Default::default(),
    }
}

/// The client's handshake for `path` over an open connection. Returns the agreed protocol.
/// Errors: the server's refusal with its status code and body, or what broke.
pub async fn connect(
    io: Box<dyn Duplex>,
    path: &str,
    protocols: &[&str],
) -> Result<(WebSocketStream<Box<dyn Duplex>>, String), ConnectError> {
    let key = tungstenite::handshake::client::generate_key();
    let request = Request::builder()
        .uri(format!("ws://localhost{path}"))
        .header(header::HOST, "localhost")
        .header(header::CONNECTION, "Upgrade")
        .header(header::UPGRADE, "websocket")
        .header(header::SEC_WEBSOCKET_VERSION, "13")
        .header(header::SEC_WEBSOCKET_KEY, key)
        .header(header::SEC_WEBSOCKET_PROTOCOL, protocols.join(", "))
        .body(())
        .map_err(|error| ConnectError::Broken(error.to_string()))?;
    match async_tungstenite::client_async_with_config(request, io, Some(config())).await {
        Ok((stream, response)) => {
            let chosen = response.headers().get(header::SEC_WEBSOCKET_PROTOCOL);
            let chosen = chosen.and_then(|value| value.to_str().ok());
            Ok((stream, chosen.unwrap_or_default().to_owned()))
        }
        Err(tungstenite::Error::Http(response)) => Err(ConnectError::Refused {
            code: response.status().as_u16(),
            body: response.into_body().unwrap_or_default(),
        }),
        Err(error) => Err(ConnectError::Broken(error.to_string())),
    }
}

#[derive(Debug)]
pub enum ConnectError {
    /// The server answered something else than 101.
    Refused {
        code: u16,
        body: Vec<u8>,
    },
    Broken(String),
}

fn config() -> WebSocketConfig {
    WebSocketConfig::default()
        .read_buffer_size(16 << 10)
        .write_buffer_size(0)
        .max_write_buffer_size(MESSAGE_BYTES_MAX)
        .max_message_size(Some(MESSAGE_BYTES_MAX))
        .max_frame_size(Some(MESSAGE_BYTES_MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_survive_encoding_and_decoding() {
        let text = Bytes::from_static(b"text");
        let size = TerminalSize {
            columns: 80,
            rows: 24,
        };
        let table = [
            (Frame::Stdin(text.clone()), &b"\0text"[..]),
            (Frame::Stdin(Bytes::new()), b"\0"),
            (Frame::Stdout(text.clone()), b"\x01text"),
            (Frame::Stderr(text.clone()), b"\x02text"),
            (Frame::Error(text), b"\x03text"),
            (Frame::Resize(size), b"\x04{\"Width\":80,\"Height\":24}"),
            (Frame::StdinClosed, b"\xff\0"),
        ];
        for (frame, bytes) in table {
            assert_eq!(frame.encode(), bytes);
            assert_eq!(Frame::decode(&Bytes::from(bytes)), Some(frame));
        }
    }

    #[test]
    fn base64_has_the_channel_as_a_digit() {
        let frame = Frame::Stdout(Bytes::from_static(b"text"));
        let message = Encoding::Base64.message(frame.encode());
        assert_eq!(message, Message::text("1dGV4dA=="));
        let bytes = Encoding::Base64.bytes(message).expect("bytes");
        assert_eq!(Frame::decode(&bytes), Some(frame));
        let broken = Encoding::Base64.bytes(Message::text("0=="));
        assert_eq!(broken, None);
        assert_eq!(Encoding::of(V4_BASE64), Encoding::Base64);
        assert_eq!(Encoding::of(V5), Encoding::Binary);
    }

    #[test]
    fn senseless_messages_are_ignored() {
        let table: [&'static [u8]; 6] = [b"", b"\x05x", b"\x04{", b"\xff", b"\xff\x01", b"\x04{}"];
        for bytes in table {
            assert_eq!(Frame::decode(&Bytes::from_static(bytes)), None, "{bytes:?}");
        }
    }

    #[test]
    fn a_handshake_agrees_on_the_newest_common_protocol() {
        let mut headers = HeaderMap::new();
        let mut set = |name: &'static str, value: &'static str| {
            headers.insert(name, HeaderValue::from_static(value));
            agree(&headers, &[V5, V4]).map(|agreed| agreed.protocol)
        };
        assert_eq!(
            set("upgrade", "WebSocket"),
            Err(HandshakeError::NotAWebSocket)
        );
        set("connection", "keep-alive, Upgrade").ok();
        set("sec-websocket-version", "13").ok();
        let keyed = set("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ==");
        assert_eq!(keyed, Err(HandshakeError::NoProtocol));
        let other = set("sec-websocket-protocol", "channel.k8s.io");
        assert_eq!(other, Err(HandshakeError::NoProtocol));
        let both = set(
            "sec-websocket-protocol",
            "v4.channel.k8s.io, v5.channel.k8s.io",
        );
        assert_eq!(both, Ok(V5));
        assert_eq!(set("sec-websocket-protocol", "v4.channel.k8s.io"), Ok(V4));
        assert_eq!(
            set("sec-websocket-version", "8"),
            Err(HandshakeError::NotAWebSocket)
        );
    }
}
