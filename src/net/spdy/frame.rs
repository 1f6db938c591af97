//! Frames: eight bytes of head, then a payload.
//!
//! ```text
//!   0│stream id, 31 bits      │flags, 8│length, 24│ bytes of the stream
//!   1│version, 15│kind, 16    │flags, 8│length, 24│ by its kind
//! ```
//! The payload of a data frame may be 16 MiB: it is passed on in pieces and never held whole.
//! Settings and window updates are skipped: no peer here has flow control.
//!
//! Source: SPDY Protocol Draft 3.1, 2.2. Pure.

use super::Error;
use super::headers::{Deflater, Headers, Inflater};

/// Largest payload of a control frame that is read; those of Kubernetes are some hundred bytes.
pub const CONTROL_BYTES_MAX: u32 = 16 << 10;

/// Largest payload that a frame's head can tell.
pub const LENGTH_MAX: usize = (1 << 24) - 1;

const VERSION: u16 = 3;
const FLAG_LAST: u8 = 1;

const SYN_STREAM: u16 = 1;
const SYN_REPLY: u16 = 2;
const RST_STREAM: u16 = 3;
const SETTINGS: u16 = 4;
const PING: u16 = 6;
const GOAWAY: u16 = 7;
const HEADERS: u16 = 8;
const WINDOW_UPDATE: u16 = 9;

/// Why a stream was reset (2.6.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Reason {
    Refused = 3,
    Cancel = 5,
}

/// Whether the sender of a frame says more on its stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum More {
    Follows,
    Last,
}

/// What the first eight bytes say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Head {
    Data {
        stream: u32,
        more: More,
        length: u32,
    },
    Control {
        kind: u16,
        more: More,
        length: u32,
    },
}

/// A control frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Control {
    Open {
        stream: u32,
        more: More,
        headers: Headers,
    },
    Reply {
        stream: u32,
        more: More,
        headers: Headers,
    },
    Headers {
        stream: u32,
        more: More,
        headers: Headers,
    },
    Reset {
        stream: u32,
        reason: u32,
    },
    Ping(u32),
    /// No new streams; the last one that was taken.
    GoAway {
        last: u32,
    },
}

impl More {
    fn of(flags: u8) -> More {
        match flags & FLAG_LAST {
            0 => More::Follows,
            _ => More::Last,
        }
    }

    fn flag(self) -> u8 {
        match self {
            More::Follows => 0,
            More::Last => FLAG_LAST,
        }
    }
}

impl Head {
    /// Errors: another version than 3, or a control frame beyond [`CONTROL_BYTES_MAX`].
    pub fn decode(bytes: [u8; 8]) -> Result<Head, Error> {
        let [a, b, c, d, flags, x, y, z] = bytes;
        let length = u32::from_be_bytes([0, x, y, z]);
        let more = More::of(flags);
        if a & 0x80 == 0 {
            let stream = u32::from_be_bytes([a, b, c, d]);
            return Ok(Head::Data {
                stream,
                more,
                length,
            });
        }
        match u16::from_be_bytes([a & 0x7f, b]) {
            VERSION if length <= CONTROL_BYTES_MAX => {
                let kind = u16::from_be_bytes([c, d]);
                Ok(Head::Control { kind, more, length })
            }
            VERSION => Err(Error::TooLarge),
            other => Err(Error::Version(other)),
        }
    }
}

/// The head of a data frame. `length` is at most [`LENGTH_MAX`].
pub fn data_head(stream: u32, more: More, length: usize) -> [u8; 8] {
    assert!(
        length <= LENGTH_MAX,
        "a data frame is cut before it is sent"
    );
    let [a, b, c, d] = id(stream).to_be_bytes();
    let [_, x, y, z] = (length as u32).to_be_bytes();
    [a, b, c, d, more.flag(), x, y, z]
}

/// A stream id without its reserved bit.
fn id(word: u32) -> u32 {
    word & 0x7fff_ffff
}

fn word(body: &[u8], index: usize) -> Result<u32, Error> {
    let bytes = body.get(4 * index..4 * index + 4).ok_or(Error::Short)?;
    Ok(u32::from_be_bytes(bytes.try_into().expect("four bytes")))
}

impl Control {
    /// The frame of a head's `kind` and `more`. `None` for what needs no attention.
    /// Errors: too short for its kind; no such kind; headers that cannot be read.
    pub fn decode(
        kind: u16,
        more: More,
        body: &[u8],
        inflater: &mut Inflater,
    ) -> Result<Option<Control>, Error> {
        let stream = || word(body, 0).map(id);
        let block = |skip: usize| body.get(skip..).ok_or(Error::Short);
        let control = match kind {
            SYN_STREAM => Control::Open {
                stream: stream()?,
                more,
                // The associated stream, priority and slot are for browsers.
                headers: inflater.block(block(10)?)?,
            },
            SYN_REPLY => Control::Reply {
                stream: stream()?,
                more,
                headers: inflater.block(block(4)?)?,
            },
            HEADERS => Control::Headers {
                stream: stream()?,
                more,
                headers: inflater.block(block(4)?)?,
            },
            RST_STREAM => Control::Reset {
                stream: stream()?,
                reason: word(body, 1)?,
            },
            PING => Control::Ping(word(body, 0)?),
            GOAWAY => Control::GoAway { last: stream()? },
            SETTINGS | WINDOW_UPDATE => return Ok(None),
            other => return Err(Error::Kind(other)),
        };
        Ok(Some(control))
    }

    pub fn encode(&self, deflater: &mut Deflater) -> Vec<u8> {
        let opened = |stream: u32, fixed: &[u8], headers: &Headers, deflater: &mut Deflater| {
            let mut body = stream.to_be_bytes().to_vec();
            body.extend_from_slice(fixed);
            body.extend(deflater.block(headers));
            body
        };
        let words = |a: u32, b: u32| [a.to_be_bytes(), b.to_be_bytes()].concat();
        let (kind, more, body) = match self {
            Control::Open {
                stream,
                more,
                headers,
            } => (
                SYN_STREAM,
                *more,
                opened(*stream, &[0; 6], headers, deflater),
            ),
            Control::Reply {
                stream,
                more,
                headers,
            } => (SYN_REPLY, *more, opened(*stream, &[], headers, deflater)),
            Control::Headers {
                stream,
                more,
                headers,
            } => (HEADERS, *more, opened(*stream, &[], headers, deflater)),
            Control::Reset { stream, reason } => {
                (RST_STREAM, More::Follows, words(*stream, *reason))
            }
            Control::Ping(id) => (PING, More::Follows, id.to_be_bytes().to_vec()),
            Control::GoAway { last } => (GOAWAY, More::Follows, words(*last, 0)),
        };
        let [a, b] = (VERSION | 0x8000).to_be_bytes();
        let [c, d] = kind.to_be_bytes();
        let length = u32::try_from(body.len()).expect("our own frames are short");
        let [_, x, y, z] = length.to_be_bytes();
        [&[a, b, c, d, more.flag(), x, y, z][..], &body].concat()
    }
}

/// Reads a whole connection's worth of frames and forgets them: what a fuzzer feeds.
pub fn decode_all(mut bytes: &[u8]) -> Result<usize, Error> {
    let mut inflater = Inflater::default();
    let mut frames = 0;
    while let Some((head, rest)) = bytes.split_first_chunk::<8>() {
        let (length, control) = match Head::decode(*head)? {
            Head::Data { length, .. } => (length, None),
            Head::Control { kind, more, length } => (length, Some((kind, more))),
        };
        let body = rest.split_at_checked(length as usize).ok_or(Error::Short)?;
        if let Some((kind, more)) = control {
            Control::decode(kind, more, body.0, &mut inflater)?;
        }
        frames += 1;
        bytes = body.1;
    }
    Ok(frames)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn controls() -> Vec<Control> {
        let headers = Headers::of(&[("streamtype", "stdin")]);
        let (stream, more) = (5, More::Last);
        vec![
            Control::Open {
                stream,
                more: More::Follows,
                headers: headers.clone(),
            },
            Control::Reply {
                stream,
                more,
                headers: Headers::default(),
            },
            Control::Headers {
                stream,
                more,
                headers,
            },
            Control::Reset {
                stream,
                reason: Reason::Cancel as u32,
            },
            Control::Ping(7),
            Control::GoAway { last: 5 },
        ]
    }

    #[test]
    fn frames_survive_encoding_and_decoding() {
        let (mut inflater, mut deflater) = (Inflater::default(), Deflater::default());
        for control in controls() {
            let bytes = control.encode(&mut deflater);
            let (head, body) = bytes.split_first_chunk::<8>().expect("a head");
            let Ok(Head::Control { kind, more, length }) = Head::decode(*head) else {
                panic!("{control:?}");
            };
            assert_eq!(length as usize, body.len());
            let decoded = Control::decode(kind, more, body, &mut inflater);
            assert_eq!(decoded, Ok(Some(control)));
        }
        let (stream, more, length) = (3, More::Last, 9);
        let head = Head::decode(data_head(stream, more, length));
        assert_eq!(
            head,
            Ok(Head::Data {
                stream,
                more,
                length: 9
            })
        );
    }

    #[test]
    fn bytes_on_the_wire_are_the_drafts() {
        let mut deflater = Deflater::default();
        let ping = Control::Ping(1).encode(&mut deflater);
        assert_eq!(ping, [0x80, 3, 0, 6, 0, 0, 0, 4, 0, 0, 0, 1]);
        let reset = Control::Reset {
            stream: 3,
            reason: Reason::Refused as u32,
        };
        let reset = reset.encode(&mut deflater);
        assert_eq!(reset, [0x80, 3, 0, 3, 0, 0, 0, 8, 0, 0, 0, 3, 0, 0, 0, 3]);
        assert_eq!(data_head(1, More::Last, 0x10203), [0, 0, 0, 1, 1, 1, 2, 3]);
    }

    #[test]
    fn what_is_no_frame_of_ours_is_named() {
        let table: [([u8; 8], Error); 2] = [
            ([0x80, 2, 0, 1, 0, 0, 0, 0], Error::Version(2)),
            ([0x80, 3, 0, 1, 0, 1, 0, 0], Error::TooLarge),
        ];
        for (head, error) in table {
            assert_eq!(Head::decode(head), Err(error));
        }
        let decode = |kind, body: &[u8]| {
            Control::decode(kind, More::Follows, body, &mut Inflater::default())
        };
        assert_eq!(decode(PING, &[0; 3]), Err(Error::Short));
        assert_eq!(decode(RST_STREAM, &[0; 4]), Err(Error::Short));
        assert_eq!(decode(SYN_STREAM, &[0; 9]), Err(Error::Short));
        assert_eq!(decode(99, &[]), Err(Error::Kind(99)));
        assert_eq!(decode(SETTINGS, &[1, 2, 3]), Ok(None));
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes: Vec<u8>) {
            let _ = decode_all(&bytes);
        }

        #[test]
        fn no_body_of_a_known_kind_makes_it_panic(kind in 0u16..11, body: Vec<u8>) {
            let _ = Control::decode(kind, More::Follows, &body, &mut Inflater::default());
        }
    }
}
