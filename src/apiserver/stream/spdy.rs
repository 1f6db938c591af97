//! A session on SPDY: the client opens a stream for each of error, stdin, stdout, stderr, resize.
//!
//! Source: Kubernetes kubelet, cri/streaming/remotecommand/httpstream.go.

use std::rc::Rc;

use async_channel::{Receiver, Sender};
use bytes::Bytes;
use futures_lite::{AsyncReadExt, FutureExt, future};

use super::answer::Ending;
use super::web_socket::Agreement;
use super::{CREATION_TIMEOUT, Said, Session, Told, Wanted};
use crate::net::serve::take_upgraded;
use crate::net::spdy::{Connection, Role, Stream};
use crate::net::websocket::TerminalSize;
use crate::world::{Clock, LocalFuture};

/// Longest text of one change of size.
const SIZE_BYTES_MAX: usize = 256;

/// The server's end of an upgraded connection.
pub async fn accept(
    upgrade: hyper::upgrade::OnUpgrade,
    clock: Rc<dyn Clock>,
) -> Result<(Connection, LocalFuture<'static, std::io::Result<()>>), String> {
    let (io, early) = take_upgraded(upgrade).await?;
    let (reader, writer) = futures_lite::io::split(io);
    let reader = futures_lite::io::Cursor::new(early).chain(reader);
    Ok(Connection::new(reader, writer, Role::Server, clock))
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
    let (connection, driver) = match accept(upgrade, clock.clone()).await {
        Ok(accepted) => accepted,
        Err(error) => return log::debug!("stream over SPDY: {error}"),
    };
    let driven = async {
        if let Err(error) = driver.await {
            log::debug!("stream over SPDY: {error}");
        }
    };
    let work = async {
        let late = async {
            clock.sleep_until(clock.now() + CREATION_TIMEOUT).await;
            None
        };
        let expected = Expected::of(wanted, protocol);
        let gathered = async { Some(gather(&connection, expected).await) };
        let Some(streams) = gathered.or(late).await else {
            return log::debug!("stream over SPDY: timed out waiting for client to create streams");
        };
        let hearing = hear(&streams, &say);
        let telling = tell_all(&streams, &tell, Ending::of(protocol));
        hearing.or(telling).await;
        connection.finish();
        // The driver hangs up.
        future::pending().await
    };
    driven.or(work).await;
}

/// The streams of one session.
#[derive(Default)]
struct Streams {
    error: Option<Stream>,
    stdin: Option<Stream>,
    stdout: Option<Stream>,
    stderr: Option<Stream>,
    resize: Option<Stream>,
}

/// How many streams the client is to open.
struct Expected(usize);

impl Expected {
    fn of(wanted: Wanted, protocol: &str) -> Expected {
        // Versions before 3 cannot resize.
        let resizes = protocol.starts_with("v3.") || Ending::of(protocol) == Ending::Json;
        let asked = [
            true,
            wanted.stdin,
            wanted.stdout,
            wanted.stderr,
            wanted.tty && resizes,
        ];
        Expected(asked.into_iter().filter(|asked| *asked).count())
    }
}

async fn gather(connection: &Connection, expected: Expected) -> Streams {
    let mut streams = Streams::default();
    let mut count = 0;
    while count < expected.0 {
        let Ok(stream) = connection.accepted.recv().await else {
            return future::pending().await;
        };
        let place = match stream.headers.get("streamtype") {
            Some("error") => &mut streams.error,
            Some("stdin") => &mut streams.stdin,
            Some("stdout") => &mut streams.stdout,
            Some("stderr") => &mut streams.stderr,
            Some("resize") => &mut streams.resize,
            other => {
                // Dropped, it is reset.
                log::debug!("unexpected stream type: {other:?}");
                continue;
            }
        };
        if place.is_none() {
            stream.reply();
            *place = Some(stream);
            count += 1;
        }
    }
    streams
}

/// Never ends: the client's silence is no end of the session.
async fn hear(streams: &Streams, say: &Sender<Said>) {
    let stdin = async {
        let Some(stdin) = &streams.stdin else { return };
        while let Some(bytes) = stdin.next().await {
            // When nobody listens any more, the client's leaving is still waited for.
            let _nobody_listens = say.send(Said::Stdin(bytes)).await;
        }
        let _ = say.send(Said::StdinEnded).await;
    };
    let resize = async {
        let Some(resize) = &streams.resize else {
            return;
        };
        let mut text = Vec::new();
        while let Some(bytes) = resize.next().await {
            text.extend_from_slice(&bytes);
            for size in take_sizes(&mut text) {
                if say.send(Said::Resize(size)).await.is_err() {
                    return;
                }
            }
        }
    };
    future::zip(stdin, resize).await;
    future::pending().await
}

/// Whole sizes off the front of what came; the start of another stays.
fn take_sizes(text: &mut Vec<u8>) -> Vec<TerminalSize> {
    let mut parsed = serde_json::Deserializer::from_slice(text).into_iter();
    let mut sizes = Vec::new();
    let mut taken = 0;
    while let Some(Ok(size)) = parsed.next() {
        sizes.push(size);
        taken = parsed.byte_offset();
    }
    text.drain(..taken);
    if text.len() > SIZE_BYTES_MAX {
        text.clear();
    }
    sizes
}

async fn tell_all(streams: &Streams, tell: &Receiver<Told>, ending: Ending) {
    while let Ok(told) = tell.recv().await {
        let (stream, bytes) = match told {
            Told::Stdout(bytes) => (&streams.stdout, bytes),
            Told::Stderr(bytes) => (&streams.stderr, bytes),
            Told::Status(status) => match ending.text(&status) {
                Some(text) => (&streams.error, Bytes::from(text)),
                None => continue,
            },
        };
        if let Some(stream) = stream {
            // A stream that the client has reset is one that it does not want to hear.
            let _ = stream.send(bytes).await;
        }
    }
    let said = [&streams.stdout, &streams.stderr, &streams.error];
    for stream in said.into_iter().flatten() {
        let _ = stream.finish().await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_taken_off_a_stream_however_it_is_cut() {
        let size = |columns, rows| TerminalSize { columns, rows };
        let mut text = Vec::new();
        let mut feed = |bytes: &[u8]| {
            text.extend_from_slice(bytes);
            take_sizes(&mut text)
        };
        assert_eq!(feed(b"{\"Width\":80,\"Hei"), []);
        assert_eq!(
            feed(b"ght\":24}\n{\"Width\":1,\"Height\":2}{"),
            [size(80, 24), size(1, 2)]
        );
        assert_eq!(feed(b"\"Width\":3,\"Height\":4}"), [size(3, 4)]);
        assert_eq!(feed(&[b' '; SIZE_BYTES_MAX + 1]), []);
        assert_eq!(feed(b"{\"Width\":5,\"Height\":6}"), [size(5, 6)]);
    }

    #[test]
    fn a_terminal_needs_a_resize_stream_from_version_3_on() {
        let wanted = Wanted {
            stdin: true,
            stdout: true,
            stderr: false,
            tty: true,
        };
        for (protocol, count) in [("v4.channel.k8s.io", 4), ("v3.channel.k8s.io", 4)] {
            assert_eq!(Expected::of(wanted, protocol).0, count, "{protocol}");
        }
        assert_eq!(Expected::of(wanted, "channel.k8s.io").0, 3);
        assert_eq!(Expected::of(Wanted::default(), "v4.channel.k8s.io").0, 1);
    }
}
