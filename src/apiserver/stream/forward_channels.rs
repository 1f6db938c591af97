//! Forwarded ports on a WebSocket of old: two channels for each port of the query.
//!
//! ```text
//!   channel 2k   data of port k        each begins with the port, two bytes, little-endian
//!   channel 2k+1 error of port k
//! ```
//! A channel cannot be closed, so one port is one connection.
//!
//! Source: Kubernetes kubelet, cri/streaming/portforward/websocket.go.

use std::rc::Rc;

use async_channel::{Receiver, Sender};
use bytes::Bytes;
use futures_lite::{AsyncReadExt, AsyncWriteExt, FutureExt, StreamExt};

use super::PING_AFTER;
use super::forward::{CHUNK_BYTES, Ending, Forwarding, until_both};
use crate::apiserver::query::Query;
use crate::apiserver::status::Refusal;
use crate::net::websocket::{self, Encoding, Message};

pub const CHANNELS: &str = websocket::V4;
pub const CHANNELS_BASE64: &str = websocket::V4_BASE64;

/// Ports of one session: channels are numbered by a byte.
const PORTS_MAX: usize = 64;

/// `port=80,81&port=82`. Errors: 400 for none, too many, or what is no port.
pub fn ports(query: &Query) -> Result<Vec<u16>, Refusal> {
    let words = query.all("port").flat_map(|ports| ports.split(','));
    let ports = words.map(|word| match word.trim().parse::<u16>() {
        Ok(port @ 1..) => Ok(port),
        _ => Err(Refusal::bad_request(format!("invalid port {word:?}"))),
    });
    let ports: Vec<u16> = ports.take(PORTS_MAX + 1).collect::<Result<_, _>>()?;
    match ports.len() {
        0 => Err(Refusal::bad_request("query parameter \"port\" is required")),
        1..=PORTS_MAX => Ok(ports),
        _ => Err(Refusal::bad_request("too many ports")),
    }
}

/// Runs the session until the client hangs up.
pub(super) async fn run(
    session: Rc<Forwarding>,
    upgrade: hyper::upgrade::OnUpgrade,
    protocol: &'static str,
    ports: Vec<u16>,
) -> Result<(), String> {
    let socket = websocket::accept(upgrade).await?;
    let (mut sender, mut receiver) = socket.split();
    let encoding = Encoding::of(protocol);
    let (out, outgoing) = async_channel::bounded::<Vec<u8>>(1);
    let tasks = async_executor::LocalExecutor::new();
    let mut inboxes = Vec::new();
    for (index, port) in ports.into_iter().enumerate() {
        let (inbox, bytes) = async_channel::bounded(1);
        inboxes.push(inbox);
        let channel = u8::try_from(2 * index).expect("PORTS_MAX is small");
        let (session, out) = (session.clone(), out.clone());
        let work = async move { serve(&session, port, channel, bytes, out).await };
        crate::os::task::spawn(&tasks, work).detach();
    }
    let hearing = async {
        while let Some(Ok(message)) = receiver.next().await {
            if matches!(message, Message::Close(_)) {
                break;
            }
            let Some(bytes) = encoding.bytes(message) else {
                continue;
            };
            deliver(bytes, &inboxes).await;
        }
        Ok(())
    };
    let clock = session.idle.clock.clone();
    let telling = async {
        loop {
            let next = async {
                outgoing
                    .recv()
                    .await
                    .ok()
                    .map(|bytes| encoding.message(bytes))
            };
            let quiet = async {
                clock.sleep_until(clock.now() + PING_AFTER).await;
                Some(Message::Ping(Bytes::new()))
            };
            let Some(message) = next.or(quiet).await else {
                return Ok(());
            };
            let sent = sender.send(message).await;
            sent.map_err(|error| error.to_string())?;
        }
    };
    tasks.run(hearing.or(telling)).await
}

/// Bytes for a port's data channel; those for any other channel are dropped.
async fn deliver(mut message: Bytes, inboxes: &[Sender<Bytes>]) {
    let Some(channel) = message.first().copied() else {
        return;
    };
    let inbox = inboxes.get(usize::from(channel / 2));
    if let Some(inbox) = inbox.filter(|_| channel % 2 == 0) {
        // A connection that has ended takes nothing more.
        let _ = inbox.send(message.split_off(1)).await;
    }
}

fn tagged(channel: u8, bytes: &[u8]) -> Vec<u8> {
    [&[channel], bytes].concat()
}

async fn serve(
    session: &Forwarding,
    port: u16,
    channel: u8,
    bytes: Receiver<Bytes>,
    out: Sender<Vec<u8>>,
) {
    for channel in [channel, channel + 1] {
        let _ = out.send(tagged(channel, &port.to_le_bytes())).await;
    }
    let connected = match session.connect(port).await {
        Ok(connected) => connected,
        Err(text) => {
            let _ = out.send(tagged(channel + 1, text.as_bytes())).await;
            return;
        }
    };
    let socket = &connected.socket;
    let up = async {
        let mut to = socket;
        while let Ok(bytes) = bytes.recv().await {
            session.idle.moved();
            if to.write_all(&bytes).await.is_err() {
                return Ending::One;
            }
        }
        Ending::All
    };
    let down = async {
        let mut from = socket;
        let mut buffer = vec![0; CHUNK_BYTES];
        while let Ok(read @ 1..) = from.read(&mut buffer).await {
            session.idle.moved();
            if out.send(tagged(channel, &buffer[..read])).await.is_err() {
                return Ending::All;
            }
        }
        // The channel cannot say so: the client sees it when it hangs up.
        Ending::All
    };
    until_both(up, down).await;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_are_read_off_the_query() {
        let ports = |text: &str| ports(&Query::parse(text).expect("a query"));
        assert_eq!(ports("port=80,81&port=82"), Ok(vec![80, 81, 82]));
        let many = vec!["1"; PORTS_MAX + 1].join(",");
        for bad in [
            "",
            "port=0",
            "port=x",
            "port=70000",
            &format!("port={many}"),
        ] {
            assert!(ports(bad).is_err(), "{bad}");
        }
    }
}
