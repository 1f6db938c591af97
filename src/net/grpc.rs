//! gRPC's health check, as a probe makes it: one call on one connection, then both are dropped.
//!
//! ```text
//!  preface, SETTINGS ─► HEADERS (POST /grpc.health.v1.Health/Check) ─► DATA (service) ─► end
//!  SETTINGS ◄─ … ◄─ HEADERS ◄─ DATA (status)         any other end is no answer
//! ```
//! Just that much of HTTP/2: header blocks of the peer are skipped, never decoded (a status of gRPC
//! other than OK comes without a message), and no window is ever opened wider than it starts.
//! Sources: RFC 9113, RFC 7541, grpc/doc/PROTOCOL-HTTP2.md, grpc.health.v1.

use std::net::TcpStream;

use async_io::Async;
use futures_lite::{AsyncReadExt, AsyncWriteExt};

use crate::world::NetError;

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const HEAD_BYTES: usize = 9;
/// Of one frame, as long as nobody has settled on more (`SETTINGS_MAX_FRAME_SIZE`).
const FRAME_BYTES_MAX: usize = 16_384;
/// Of all that a peer may say before it has answered.
const ANSWER_BYTES_MAX: usize = 4 * FRAME_BYTES_MAX;

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const GOAWAY: u8 = 7;

const END_STREAM: u8 = 1;
const ACK: u8 = 1;
const END_HEADERS: u8 = 4;
const PADDED: u8 = 8;

/// The status of `service` (empty: of the server as a whole), as the number of
/// `HealthCheckResponse.ServingStatus`. The caller bounds the time.
/// Errors: `Failed` if the connection breaks; `Protocol` if the peer gives no such answer.
pub(super) async fn status(
    mut stream: Async<TcpStream>,
    authority: &str,
    service: &str,
) -> Result<u64, NetError> {
    let broken = |error: std::io::Error| NetError::Failed(error.to_string());
    let call =
        call(authority, service).ok_or_else(|| protocol("the service's name is too long"))?;
    stream.write_all(&call).await.map_err(broken)?;
    let mut said = Vec::new();
    let mut greeted = false;
    let mut chunk = [0; 1024];
    loop {
        let read = stream.read(&mut chunk).await.map_err(broken)?;
        said.extend_from_slice(chunk.get(..read).unwrap_or_default());
        if let Some(status) = answer(&said)? {
            return Ok(status);
        }
        if read == 0 || said.len() > ANSWER_BYTES_MAX {
            return Err(protocol("the peer ended without an answer"));
        }
        // The first frame of a peer is its settings, and `answer` has seen to that.
        if !greeted && said.len() >= HEAD_BYTES {
            greeted = true;
            let thanks = frame(SETTINGS, ACK, 0, &[]);
            stream.write_all(&thanks).await.map_err(broken)?;
        }
    }
}

fn protocol(text: &str) -> NetError {
    NetError::Protocol(text.to_owned())
}

/// All that is sent but the acknowledgement. None: a name that fits into no frame.
fn call(authority: &str, service: &str) -> Option<Vec<u8>> {
    // Literals without indexing, names by their number in the static table where they have one.
    let mut block = vec![0x83, 0x86];
    for (name, value) in [
        (&b"\x04"[..], "/grpc.health.v1.Health/Check"),
        (b"\x01", authority),
        (b"\x0f\x10", "application/grpc"),
        (b"\x0f\x2b", "kube-probe/1.36"),
        (b"\x00\x02te", "trailers"),
    ] {
        block.extend_from_slice(name);
        block.push(u8::try_from(value.len()).ok().filter(|len| *len < 127)?);
        block.extend_from_slice(value.as_bytes());
    }
    let mut request = Vec::new();
    if !service.is_empty() {
        let mut len = service.len();
        request.push(0x0a);
        while len > 0x7f {
            request.push(0x80 | (len & 0x7f) as u8);
            len >>= 7;
        }
        request.push(len as u8);
        request.extend_from_slice(service.as_bytes());
    }
    let mut message = vec![0];
    message.extend_from_slice(&u32::try_from(request.len()).ok()?.to_be_bytes());
    message.append(&mut request);
    if message.len() > FRAME_BYTES_MAX {
        return None;
    }
    let frames = [
        frame(SETTINGS, 0, 0, &[]),
        frame(HEADERS, END_HEADERS, 1, &block),
        frame(DATA, END_STREAM, 1, &message),
    ];
    Some([PREFACE, &frames.concat()].concat())
}

fn frame(kind: u8, flags: u8, stream: u8, payload: &[u8]) -> Vec<u8> {
    let [_, a, b, c] = (payload.len() as u32).to_be_bytes();
    let head = [a, b, c, kind, flags, 0, 0, 0, stream];
    [&head[..], payload].concat()
}

/// What the frames so far amount to; None if there has to be more of them.
fn answer(mut said: &[u8]) -> Result<Option<u64>, NetError> {
    let mut message = Vec::new();
    let mut first = true;
    while let Some((&[a, b, c, kind, flags, _, _, _, stream], rest)) = said.split_first_chunk() {
        let len = u32::from_be_bytes([0, a, b, c]) as usize;
        if (first && kind != SETTINGS) || len > FRAME_BYTES_MAX {
            return Err(protocol("the peer does not speak HTTP/2"));
        }
        first = false;
        let Some((payload, next)) = rest.split_at_checked(len) else {
            break;
        };
        said = next;
        let ends = match (kind, stream) {
            (DATA, 1) => {
                let padding = match flags & PADDED {
                    0 => (0, 0),
                    _ => (1, usize::from(*payload.first().unwrap_or(&0))),
                };
                let until = payload.len().saturating_sub(padding.1);
                message.extend_from_slice(payload.get(padding.0..until).unwrap_or_default());
                if let Some(status) = serving_status(&message)? {
                    return Ok(Some(status));
                }
                flags & END_STREAM != 0
            }
            (HEADERS, 1) => flags & END_STREAM != 0,
            (RST_STREAM, 1) | (GOAWAY, _) => true,
            _ => false,
        };
        if ends {
            return Err(protocol(
                "the service is unknown, or there is no health check",
            ));
        }
    }
    Ok(None)
}

/// Of a whole message; its one field is the status, and is left out where that is 0.
fn serving_status(message: &[u8]) -> Result<Option<u64>, NetError> {
    let Some((&[compressed, a, b, c, d], body)) = message.split_first_chunk() else {
        return Ok(None);
    };
    let len = u32::from_be_bytes([a, b, c, d]) as usize;
    match (compressed, body.get(..len)) {
        (0, None) if len <= FRAME_BYTES_MAX => Ok(None),
        (0, Some([])) => Ok(Some(0)),
        (0, Some([0x08, status, ..])) if *status < 0x80 => Ok(Some(u64::from(*status))),
        _ => Err(protocol("the answer is no HealthCheckResponse")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_is_a_preface_settings_a_head_and_a_message() {
        let sent = call("10.88.0.2:9", "db").unwrap();
        let (preface, frames) = sent.split_at(PREFACE.len());
        assert_eq!(preface, PREFACE);
        assert_eq!(frames[..9], [0, 0, 0, 4, 0, 0, 0, 0, 0]);
        assert_eq!(frames[12..18], [1, 4, 0, 0, 0, 1]);
        assert!(
            frames.ends_with(b"\x00\x00\x09\x00\x01\x00\x00\x00\x01\x00\x00\x00\x00\x04\x0a\x02db")
        );
        let long = call("h:1", &"x".repeat(300)).unwrap();
        assert!(long.ends_with(&[&b"\x0a\xac\x02"[..], &[b'x'; 300]].concat()));
        assert_eq!(call("h:1", &"x".repeat(FRAME_BYTES_MAX)), None);
    }

    #[test]
    fn an_answer_is_a_message_and_every_other_end_is_none() {
        let settings = frame(SETTINGS, 0, 0, &[0, 3, 0, 0, 0, 250]);
        let head = frame(HEADERS, END_HEADERS, 1, b"\x88");
        let data = |flags, payload: &[u8]| frame(DATA, flags, 1, payload);
        let serving = b"\x00\x00\x00\x00\x02\x08\x01";
        let ping = frame(6, 0, 0, &[0; 8]);
        for (what, frames, expected) in [
            ("serving", vec![&head, &data(0, serving)], Ok(Some(1))),
            (
                "padded",
                vec![&head, &data(PADDED, b"\x02\x00\x00\x00\x00\x02\x08\x02..")],
                Ok(Some(2)),
            ),
            ("unset", vec![&ping, &head, &data(1, &[0; 5])], Ok(Some(0))),
            (
                "split",
                vec![&head, &data(0, &serving[..3]), &data(0, &serving[3..])],
                Ok(Some(1)),
            ),
            ("half", vec![&head, &data(0, &serving[..6])], Ok(None)),
            (
                "trailers alone",
                vec![&frame(HEADERS, END_HEADERS | END_STREAM, 1, b"\x88")],
                Err(()),
            ),
            ("reset", vec![&frame(RST_STREAM, 0, 1, &[0; 4])], Err(())),
            ("away", vec![&frame(GOAWAY, 0, 0, &[0; 8])], Err(())),
            ("ended early", vec![&head, &data(1, b"\x00")], Err(())),
            (
                "compressed",
                vec![&head, &data(0, b"\x01\x00\x00\x00\x01x")],
                Err(()),
            ),
            (
                "other message",
                vec![&head, &data(0, b"\x00\x00\x00\x00\x02\x12\x00")],
                Err(()),
            ),
        ] {
            let said = [
                &settings[..],
                &frames.into_iter().flatten().copied().collect::<Vec<_>>(),
            ]
            .concat();
            assert_eq!(answer(&said).map_err(|_| ()), expected, "{what}");
            // However it arrives, nothing is made of a part that is not there in the whole.
            for end in 0..said.len() {
                let part = answer(&said[..end]);
                assert!(
                    part.is_ok_and(|status| status.is_none() || expected == Ok(status)),
                    "{what} at {end}"
                );
            }
        }
        assert!(answer(b"HTTP/1.1 400 Bad Request\r\n").is_err());
        assert!(answer(&frame(HEADERS, 0, 1, &[])).is_err());
        assert!(
            answer(&[&settings[..], b"\xff\xff\xff\x00\x00\x00\x00\x00\x01"].concat()).is_err()
        );
    }
}
