//! A log as messages of a WebSocket: `binary.k8s.io`, and in base64.
//!
//! Source: Kubernetes apimachinery, httpstream/wsstream, Reader.

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::Bytes;
use futures_lite::{FutureExt, Stream, StreamExt};

use crate::net::websocket::{self, Message, UNNAMED};

pub const PROTOCOLS: &[&str] = &["binary.k8s.io", "base64.binary.k8s.io", UNNAMED];

fn message(protocol: &str, bytes: Bytes) -> Message {
    match protocol.starts_with("base64.") {
        true => Message::text(BASE64.encode(bytes)),
        false => Message::binary(bytes),
    }
}

/// Sends all of a log, or as much as the client stays for.
pub async fn send(
    upgrade: hyper::upgrade::OnUpgrade,
    protocol: &'static str,
    log: impl Stream<Item = Bytes>,
) {
    let socket = match websocket::accept(upgrade).await {
        Ok(socket) => socket,
        Err(error) => return log::debug!("log over WebSocket: {error}"),
    };
    let (mut sender, mut receiver) = socket.split();
    let sending = async {
        let mut log = std::pin::pin!(log);
        // An empty message first: the log may be silent for long.
        let mut next = Some(Bytes::new());
        while let Some(bytes) = next {
            if sender.send(message(protocol, bytes)).await.is_err() {
                return;
            }
            next = log.next().await;
        }
        let _ = sender.close(Some(websocket::goodbye())).await;
    };
    // What the client says is ignored, but for its leaving.
    let left = async {
        while let Some(Ok(message)) = receiver.next().await {
            if matches!(message, Message::Close(_)) {
                return;
            }
        }
    };
    sending.or(left).await;
}
