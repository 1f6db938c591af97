//! A session on a WebSocket: the first byte of a message names its channel.
//!
//! Source: Kubernetes apimachinery, httpstream/wsstream; KEP-4006.

use std::rc::Rc;

use async_channel::{Receiver, Sender};
use bytes::Bytes;
use futures_lite::{FutureExt, StreamExt};

use super::answer::Ending;
use super::{LINGER, PING_AFTER, Said, Session, Told, Wanted};
use crate::net::websocket::{self, Encoding, Frame, Message};
use crate::world::Clock;

/// What a connection was agreed to speak.
pub struct Agreement {
    pub upgrade: hyper::upgrade::OnUpgrade,
    pub protocol: &'static str,
    pub wanted: Wanted,
}

pub fn session(agreement: Agreement, clock: Rc<dyn Clock>) -> Session {
    Session::carried(|say, tell| carry(agreement, say, tell, clock))
}

async fn carry(
    agreement: Agreement,
    say: Sender<Said>,
    tell: Receiver<Told>,
    clock: Rc<dyn Clock>,
) {
    let Agreement {
        upgrade,
        protocol,
        wanted,
    } = agreement;
    let socket = match websocket::accept(upgrade).await {
        Ok(socket) => socket,
        Err(error) => return log::debug!("stream over WebSocket: {error}"),
    };
    let (mut sender, mut receiver) = socket.split();
    let encoding = Encoding::of(protocol);
    let hearing = async {
        while let Some(Ok(message)) = receiver.next().await {
            if matches!(message, Message::Close(_)) {
                return;
            }
            let bytes = encoding.bytes(message);
            let said = bytes.and_then(|bytes| said(&bytes));
            if let Some(said) = said {
                // When nobody listens any more, the client's leaving is still waited for.
                let _nobody_listens = say.send(said).await;
            }
        }
    };
    let telling = async {
        // An empty message tells the client that the channels are there.
        let mut next = Some(encoding.message(greeting(wanted).encode()));
        loop {
            if let Some(message) = next.take()
                && sender.send(message).await.is_err()
            {
                return;
            }
            let told = async { Some(tell.recv().await) };
            let quiet = async {
                clock.sleep_until(clock.now() + PING_AFTER).await;
                None
            };
            next = match told.or(quiet).await {
                Some(Ok(told)) => {
                    frame(told, protocol).map(|frame| encoding.message(frame.encode()))
                }
                Some(Err(_)) => break,
                None => Some(Message::Ping(Bytes::new())),
            };
        }
        // A client that has gone misses nothing.
        let _ = sender.close(Some(websocket::goodbye())).await;
        clock.sleep_until(clock.now() + LINGER).await;
    };
    hearing.or(telling).await;
}

fn said(bytes: &Bytes) -> Option<Said> {
    match Frame::decode(bytes)? {
        Frame::Stdin(bytes) => Some(Said::Stdin(bytes)),
        Frame::StdinClosed => Some(Said::StdinEnded),
        Frame::Resize(size) => Some(Said::Resize(size)),
        Frame::Stdout(_) | Frame::Stderr(_) | Frame::Error(_) => None,
    }
}

/// The lowest channel that the client reads.
fn greeting(wanted: Wanted) -> Frame {
    match wanted {
        Wanted { stdout: true, .. } => Frame::Stdout(Bytes::new()),
        Wanted { stderr: true, .. } => Frame::Stderr(Bytes::new()),
        _ => Frame::Error(Bytes::new()),
    }
}

fn frame(told: Told, protocol: &str) -> Option<Frame> {
    match told {
        Told::Stdout(bytes) => Some(Frame::Stdout(bytes)),
        Told::Stderr(bytes) => Some(Frame::Stderr(bytes)),
        Told::Status(status) => {
            let text = Ending::of(protocol).text(&status)?;
            Some(Frame::Error(Bytes::from(text)))
        }
    }
}
