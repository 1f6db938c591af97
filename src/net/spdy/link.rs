//! What the streams of a connection share, and the two loops that move its bytes.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::io;
use std::rc::Rc;

use async_channel::{Receiver, Sender};
use bytes::Bytes;
use event_listener::Event;
use futures_lite::io::BufReader;
use futures_lite::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, FutureExt};

use super::frame::{self, Control, Head, More, Reason};
use super::headers::{Deflater, Headers, Inflater};
use super::stream::{Closed, Stream};
use super::{
    BUFFERED_BYTES_MAX, CHUNK_BYTES, CONTROL_QUEUED_MAX, DATA_QUEUED_MAX, Error, LINGER,
    PING_AFTER, Role, STREAMS_MAX,
};
use crate::world::Clock;

/// What a small chunk costs beside its bytes.
const CHUNK_OVERHEAD_BYTES: usize = 64;

pub struct Link {
    role: Role,
    streams: RefCell<BTreeMap<u32, Entry>>,
    accepted: Sender<Stream>,
    control: Sender<Control>,
    pub(super) data: Sender<Data>,
    /// Bytes in inboxes.
    buffered: Cell<usize>,
    room: Event,
    /// The highest stream ids so far.
    last_own: Cell<u32>,
    last_peers: Cell<u32>,
}

/// A stream that is known on both sides.
struct Entry {
    /// Not bounded in number: [`BUFFERED_BYTES_MAX`] is what holds the sender up. `None` once the
    /// peer has said all.
    inbox: Option<Sender<Bytes>>,
    /// We have said all.
    said_all: bool,
}

/// A data frame to be written.
pub struct Data {
    pub stream: u32,
    pub more: More,
    pub bytes: Bytes,
}

/// The receiving ends of what is to be written.
pub struct Queues {
    control: Receiver<Control>,
    data: Receiver<Data>,
}

/// What a queued chunk counts for.
pub fn weight(chunk: &Bytes) -> usize {
    chunk.len() + CHUNK_OVERHEAD_BYTES
}

impl Link {
    pub fn new(role: Role) -> (Rc<Link>, Receiver<Stream>, Queues) {
        let (accepted, accept) = async_channel::bounded(STREAMS_MAX);
        let (control, controls) = async_channel::bounded(CONTROL_QUEUED_MAX);
        let (data, datas) = async_channel::bounded(DATA_QUEUED_MAX);
        let link = Rc::new(Link {
            role,
            streams: RefCell::default(),
            accepted,
            control,
            data,
            buffered: Cell::new(0),
            room: Event::new(),
            last_own: Cell::new(0),
            last_peers: Cell::new(0),
        });
        let queues = Queues {
            control: controls,
            data: datas,
        };
        (link, accept, queues)
    }

    pub fn open(link: &Rc<Link>, headers: Headers) -> Result<Stream, Closed> {
        let id = match (link.last_own.get(), link.role) {
            (0, Role::Client) => 1,
            (0, Role::Server) => 2,
            (last, _) => last + 2,
        };
        if link.streams.borrow().len() >= STREAMS_MAX {
            return Err(Closed);
        }
        let open = Control::Open {
            stream: id,
            more: More::Follows,
            headers: headers.clone(),
        };
        link.control.try_send(open).map_err(|_| Closed)?;
        link.last_own.set(id);
        Ok(Link::enter(link, id, headers, More::Follows))
    }

    fn enter(link: &Rc<Link>, id: u32, headers: Headers, more: More) -> Stream {
        let (inbox, chunks) = async_channel::unbounded();
        let entry = Entry {
            inbox: (more == More::Follows).then_some(inbox),
            said_all: false,
        };
        link.streams.borrow_mut().insert(id, entry);
        Stream::new(id, headers, link.clone(), chunks)
    }

    pub fn finish(&self) {
        self.accepted.close();
        self.data.close();
    }

    /// The stream's owner has taken a chunk out.
    pub fn taken(&self, chunk: &Bytes) {
        self.buffered
            .set(self.buffered.get().saturating_sub(weight(chunk)));
        self.room.notify(1);
    }

    #[cfg(test)]
    pub fn buffered(&self) -> usize {
        self.buffered.get()
    }

    pub fn reply(&self, stream: u32) {
        let (more, headers) = (More::Follows, Headers::default());
        // A full queue ends the connection at the next answer that must be given.
        let _ = self.control.try_send(Control::Reply {
            stream,
            more,
            headers,
        });
    }

    /// Whether the peer still takes what is sent on the stream.
    pub fn is_open(&self, stream: u32) -> bool {
        self.streams.borrow().contains_key(&stream)
    }

    /// We have said all on a stream: it is over once the peer has as well.
    pub fn said_all(&self, stream: u32) {
        if let Some(entry) = self.streams.borrow_mut().get_mut(&stream) {
            entry.said_all = true;
        }
    }

    /// The stream has no owner any more: what both sides ended is forgotten, the rest is reset.
    pub fn leave(&self, stream: u32) {
        let entry = self.streams.borrow_mut().remove(&stream);
        if entry.is_some_and(|entry| entry.inbox.is_some() || !entry.said_all) {
            self.reset(stream, Reason::Cancel);
        }
    }

    fn reset(&self, stream: u32, reason: Reason) {
        let reason = reason as u32;
        // See `reply`.
        let _ = self.control.try_send(Control::Reset { stream, reason });
    }

    fn accept(link: &Rc<Link>, id: u32, more: More, headers: Headers) -> Result<(), Error> {
        let parity = match link.role {
            Role::Server => 1,
            Role::Client => 0,
        };
        if id % 2 != parity || id <= link.last_peers.get() {
            return Err(Error::StreamId(id));
        }
        link.last_peers.set(id);
        if link.streams.borrow().len() >= STREAMS_MAX {
            link.reset(id, Reason::Refused);
            return Ok(());
        }
        // Dropped, it is reset.
        let _ = link.accepted.try_send(Link::enter(link, id, headers, more));
        Ok(())
    }

    fn control(link: &Rc<Link>, control: Control) -> Result<(), Error> {
        if link.control.is_full() {
            return Err(Error::Unread);
        }
        match control {
            Control::Open {
                stream,
                more,
                headers,
            } => Link::accept(link, stream, more, headers)?,
            Control::Reply { stream, more, .. } | Control::Headers { stream, more, .. } => {
                link.said(stream, more);
            }
            Control::Reset { stream, .. } => {
                link.streams.borrow_mut().remove(&stream);
            }
            Control::Ping(id) => {
                let ours = matches!((link.role, id % 2), (Role::Client, 1) | (Role::Server, 0));
                if !ours {
                    let _ = link.control.try_send(Control::Ping(id));
                }
            }
            Control::GoAway { .. } => {}
        }
        Ok(())
    }

    /// The peer may have said all on a stream.
    fn said(&self, stream: u32, more: More) {
        if more == More::Last
            && let Some(entry) = self.streams.borrow_mut().get_mut(&stream)
        {
            entry.inbox = None;
        }
    }

    /// Bytes for a stream; those for one that is gone are dropped.
    fn deliver(&self, stream: u32, chunk: Bytes) {
        let streams = self.streams.borrow();
        let inbox = streams.get(&stream).and_then(|entry| entry.inbox.as_ref());
        if let Some(inbox) = inbox {
            let weight = weight(&chunk);
            if inbox.try_send(chunk).is_ok() {
                self.buffered.set(self.buffered.get() + weight);
            }
        }
    }

    async fn wait_for_room(&self) {
        while self.buffered.get() >= BUFFERED_BYTES_MAX {
            let listener = self.room.listen();
            if self.buffered.get() >= BUFFERED_BYTES_MAX {
                listener.await;
            }
        }
    }

    /// Nothing comes or goes any more.
    fn close(&self) {
        self.finish();
        self.control.close();
        self.streams.borrow_mut().clear();
    }
}

/// Moves bytes both ways until the peer hangs up, breaks the protocol, or all is said.
pub async fn drive(
    link: Rc<Link>,
    reader: impl AsyncRead + Unpin,
    writer: impl AsyncWrite + Unpin,
    queues: Queues,
    clock: Rc<dyn Clock>,
) -> io::Result<()> {
    let written = async {
        write(writer, &queues, link.role, &*clock).await?;
        // A connection that is closed with bytes unread takes what was sent last with it.
        clock.sleep_until(clock.now() + LINGER).await;
        Ok(())
    };
    let ended = read(&link, reader).or(written).await;
    link.close();
    ended
}

async fn read(link: &Rc<Link>, reader: impl AsyncRead + Unpin) -> io::Result<()> {
    let mut reader = BufReader::with_capacity(CHUNK_BYTES, reader);
    let mut inflater = Inflater::default();
    loop {
        let mut head = [0; 8];
        if reader.read(&mut head[..1]).await? == 0 {
            return Ok(());
        }
        reader.read_exact(&mut head[1..]).await?;
        match Head::decode(head)? {
            Head::Data {
                stream,
                more,
                length,
            } => {
                let mut left = length as usize;
                while left > 0 {
                    link.wait_for_room().await;
                    let mut chunk = vec![0; left.min(CHUNK_BYTES)];
                    reader.read_exact(&mut chunk).await?;
                    left -= chunk.len();
                    link.deliver(stream, Bytes::from(chunk));
                }
                link.said(stream, more);
            }
            Head::Control { kind, more, length } => {
                let mut body = vec![0; length as usize];
                reader.read_exact(&mut body).await?;
                if let Some(control) = Control::decode(kind, more, &body, &mut inflater)? {
                    Link::control(link, control)?;
                }
            }
        }
    }
}

enum Next {
    Control(Control),
    Data(Data),
    /// Nobody has anything more to say.
    End,
    Quiet,
}

async fn write(
    mut writer: impl AsyncWrite + Unpin,
    queues: &Queues,
    role: Role,
    clock: &dyn Clock,
) -> io::Result<()> {
    let mut deflater = Deflater::default();
    let mut ping = match role {
        Role::Client => 1,
        Role::Server => 2,
    };
    loop {
        let control = async {
            match queues.control.recv().await {
                Ok(control) => Next::Control(control),
                Err(_) => Next::End,
            }
        };
        let data = async {
            match queues.data.recv().await {
                Ok(data) => Next::Data(data),
                Err(_) => Next::End,
            }
        };
        let quiet = async {
            clock.sleep_until(clock.now() + PING_AFTER).await;
            Next::Quiet
        };
        let frame = match control.or(data).or(quiet).await {
            Next::Control(control) => control.encode(&mut deflater),
            Next::Data(data) => {
                let head = frame::data_head(data.stream, data.more, data.bytes.len());
                [&head[..], &data.bytes].concat()
            }
            Next::Quiet => {
                let frame = Control::Ping(ping).encode(&mut deflater);
                ping = ping.wrapping_add(2);
                frame
            }
            Next::End => {
                let bye = Control::GoAway { last: 0 }.encode(&mut deflater);
                writer.write_all(&bye).await?;
                return writer.flush().await;
            }
        };
        writer.write_all(&frame).await?;
        writer.flush().await?;
    }
}
