//! The messages of a WebSocket as plain bytes both ways, for a protocol of streams inside of it.
//!
//! Pings and empty messages carry nothing; a closing message is the end.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use async_tungstenite::WebSocketReceiver;
use async_tungstenite::bytes::ByteWriter;
use bytes::{Buf, Bytes};
use futures_lite::{AsyncRead, AsyncWrite, Stream};

use super::websocket::{Message, WebSocket};

/// What the peer sends.
pub struct Reader<S> {
    messages: WebSocketReceiver<S>,
    rest: Bytes,
}

/// Both directions. Every write is one message.
pub fn open<S>(socket: WebSocket<S>) -> (Reader<S>, impl AsyncWrite + Unpin + use<S>)
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let (sender, messages) = socket.split();
    let rest = Bytes::new();
    (Reader { messages, rest }, ByteWriter::new(sender))
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for Reader<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        while self.rest.is_empty() {
            match ready!(Pin::new(&mut self.messages).poll_next(cx)) {
                Some(Ok(Message::Binary(bytes))) => self.rest = bytes,
                Some(Ok(Message::Text(text))) => self.rest = Bytes::from(text),
                Some(Ok(Message::Close(_))) | None => return Poll::Ready(Ok(0)),
                Some(Ok(Message::Ping(_) | Message::Pong(_) | Message::Frame(_))) => {}
                Some(Err(error)) => return Poll::Ready(Err(io::Error::other(error))),
            }
        }
        let length = self.rest.len().min(buf.len());
        self.rest.copy_to_slice(&mut buf[..length]);
        Poll::Ready(Ok(length))
    }
}
