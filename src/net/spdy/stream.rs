//! One stream of a connection: bytes both ways, each direction ended by itself.

use std::cell::Cell;
use std::rc::Rc;

use async_channel::Receiver;
use bytes::Bytes;

use super::CHUNK_BYTES;
use super::frame::More;
use super::headers::Headers;
use super::link::{Data, Link};

/// The stream or its connection takes no more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Closed;

/// Dropping it resets what has not been ended by both sides.
pub struct Stream {
    id: u32,
    /// What the peer opened it with, or we did.
    pub headers: Headers,
    pub(super) link: Rc<Link>,
    inbox: Receiver<Bytes>,
    finished: Cell<bool>,
}

impl Stream {
    pub(super) fn new(id: u32, headers: Headers, link: Rc<Link>, inbox: Receiver<Bytes>) -> Stream {
        Stream {
            id,
            headers,
            link,
            inbox,
            finished: Cell::new(false),
        }
    }

    pub fn id(&self) -> u32 {
        self.id
    }

    /// Tells the peer that its stream is taken.
    pub fn reply(&self) {
        self.link.reply(self.id);
    }

    /// What comes next; `None` once the peer has said all, or is gone (see [`Stream::is_open`]).
    pub async fn next(&self) -> Option<Bytes> {
        let chunk = self.inbox.recv().await.ok()?;
        self.link.taken(&chunk);
        Some(chunk)
    }

    /// Neither side has reset it, and the connection stands.
    pub fn is_open(&self) -> bool {
        self.link.is_open(self.id)
    }

    /// Sends bytes, waiting until the connection takes them.
    pub async fn send(&self, mut bytes: Bytes) -> Result<(), Closed> {
        while !bytes.is_empty() {
            let chunk = bytes.split_to(bytes.len().min(CHUNK_BYTES));
            self.put(More::Follows, chunk).await?;
        }
        Ok(())
    }

    /// The end of what we say. The peer may go on.
    pub async fn finish(&self) -> Result<(), Closed> {
        if self.finished.replace(true) {
            return Ok(());
        }
        self.put(More::Last, Bytes::new()).await?;
        self.link.said_all(self.id);
        Ok(())
    }

    async fn put(&self, more: More, bytes: Bytes) -> Result<(), Closed> {
        if !self.is_open() {
            return Err(Closed);
        }
        let stream = self.id;
        let data = Data {
            stream,
            more,
            bytes,
        };
        self.link.data.send(data).await.map_err(|_| Closed)
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.link.leave(self.id);
        while let Ok(chunk) = self.inbox.try_recv() {
            self.link.taken(&chunk);
        }
    }
}
