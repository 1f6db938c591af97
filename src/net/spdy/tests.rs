//! Two ends of a connection over a socket pair, and a peer that breaks the rules.

use std::io;
use std::os::unix::net::UnixStream;
use std::pin::pin;

use async_io::Async;
use bytes::Bytes;
use futures_lite::{AsyncReadExt, AsyncWriteExt, FutureExt, future};

use super::frame::{Control, More, data_head};
use super::headers::Deflater;
use super::*;
use crate::os::clock::SystemClock;

fn pair() -> (Async<UnixStream>, Async<UnixStream>) {
    let (one, other) = UnixStream::pair().expect("pair");
    (
        Async::new(one).expect("async"),
        Async::new(other).expect("async"),
    )
}

fn end(io: Async<UnixStream>, role: Role) -> (Connection, LocalFuture<'static, io::Result<()>>) {
    let (reader, writer) = futures_lite::io::split(io);
    let clock: Rc<dyn Clock> = Rc::new(SystemClock::new().expect("clock"));
    Connection::new(reader, writer, role, clock)
}

/// Runs `work` while both drivers run.
fn with_both<T>(work: impl AsyncFnOnce(&Connection, &Connection) -> T) -> T {
    let (one, other) = pair();
    let (client, drive_client) = end(one, Role::Client);
    let (server, drive_server) = end(other, Role::Server);
    let drivers = async {
        let _ = future::zip(drive_client, drive_server).await;
        future::pending().await
    };
    async_io::block_on(drivers.or(work(&client, &server)))
}

/// A server against bytes written by hand; how its connection ended.
fn with_peer<T>(
    work: impl AsyncFnOnce(&Connection, &mut Async<UnixStream>) -> T,
) -> (Option<T>, Option<io::Result<()>>) {
    let (mut one, other) = pair();
    let (server, mut driver) = end(other, Role::Server);
    let work = pin!(async { (Some(work(&server, &mut one).await), None) });
    let driven = async { (None, Some(driver.as_mut().await)) };
    async_io::block_on(work.or(driven))
}

fn open(deflater: &mut Deflater, stream: u32) -> Vec<u8> {
    let headers = Headers::of(&[("streamtype", "data")]);
    let more = More::Follows;
    Control::Open {
        stream,
        more,
        headers,
    }
    .encode(deflater)
}

async fn text(stream: &Stream) -> Vec<u8> {
    let mut all = Vec::new();
    while let Some(chunk) = stream.next().await {
        all.extend_from_slice(&chunk);
    }
    all
}

#[test]
fn streams_carry_bytes_both_ways_and_end_each_by_itself() {
    with_both(async |client, server| {
        let headers = Headers::of(&[("streamtype", "stdin")]);
        let ours = client.open(headers.clone()).expect("opened");
        let theirs = server.accepted.recv().await.expect("accepted");
        assert_eq!((theirs.id(), &theirs.headers), (1, &headers));
        theirs.reply();
        let big = Bytes::from(vec![7; 3_000_000]);
        let sending = async {
            ours.send(big.clone()).await.expect("sent");
            ours.finish().await.expect("finished");
        };
        let ((), received) = future::zip(sending, text(&theirs)).await;
        assert_eq!(received, big);
        theirs
            .send(Bytes::from_static(b"back"))
            .await
            .expect("sent");
        theirs.finish().await.expect("finished");
        assert_eq!(text(&ours).await, b"back");
    });
}

#[test]
fn a_dropped_stream_is_reset_and_its_neighbour_is_not() {
    with_both(async |client, server| {
        let (one, two) = (
            client.open(Headers::default()).expect("opened"),
            client.open(Headers::default()).expect("opened"),
        );
        drop(server.accepted.recv().await.expect("accepted"));
        let second = server.accepted.recv().await.expect("accepted");
        assert_eq!(one.next().await, None);
        assert!(!one.is_open());
        assert_eq!(one.send(Bytes::from_static(b"x")).await, Err(Closed));
        second.send(Bytes::from_static(b"y")).await.expect("sent");
        assert_eq!(two.next().await, Some(Bytes::from_static(b"y")));
    });
}

#[test]
fn what_nobody_reads_is_bounded_and_goes_on_when_it_is_read() {
    with_both(async |client, server| {
        let ours = client.open(Headers::default()).expect("opened");
        let theirs = server.accepted.recv().await.expect("accepted");
        // Far more than the budget and both socket buffers.
        let big = Bytes::from(vec![1; 4 << 20]);
        let mut sending = pin!(async {
            ours.send(big.clone()).await.expect("sent");
            ours.finish().await.expect("finished");
        });
        let stuck = async {
            while theirs.link.buffered() < BUFFERED_BYTES_MAX {
                future::yield_now().await;
            }
            true
        };
        let sent = async {
            sending.as_mut().await;
            false
        };
        assert!(stuck.or(sent).await, "the sender is held up");
        assert!(theirs.link.buffered() < BUFFERED_BYTES_MAX + 2 * CHUNK_BYTES);
        let (received, ()) = future::zip(text(&theirs), sending).await;
        assert_eq!(received.len(), big.len());
        assert_eq!(theirs.link.buffered(), 0);
    });
}

#[test]
fn all_that_was_said_arrives_before_the_end() {
    let (one, other) = pair();
    let (client, drive_client) = end(one, Role::Client);
    let (server, drive_server) = end(other, Role::Server);
    let serving = async {
        let serve = async {
            let stream = server.accepted.recv().await.expect("accepted");
            stream
                .send(Bytes::from(vec![2; 500_000]))
                .await
                .expect("sent");
            stream.finish().await.expect("finished");
            server.finish();
            future::pending::<io::Result<()>>().await
        };
        drive_server.or(serve).await
    };
    let asking = async {
        let ask = async {
            let stream = client.open(Headers::default()).expect("opened");
            Ok::<_, io::Error>(text(&stream).await.len())
        };
        let driven = async { drive_client.await.map(|()| 0) };
        // Dropping the driver hangs up, which ends the other side.
        ask.or(driven).await
    };
    let (served, length) = async_io::block_on(future::zip(serving, asking));
    served.expect("a clean end");
    assert_eq!(length.expect("answer"), 500_000);
}

#[test]
fn pings_of_the_peer_are_echoed_and_our_own_are_not() {
    let (answer, _) = with_peer(async |_, peer| {
        for id in [2, 5] {
            let ping = Control::Ping(id).encode(&mut Deflater::default());
            peer.write_all(&ping).await.expect("written");
        }
        let mut pong = [0; 12];
        peer.read_exact(&mut pong).await.expect("a pong");
        pong[11]
    });
    assert_eq!(answer, Some(5));
}

#[test]
fn one_stream_too_many_is_refused_and_the_rest_go_on() {
    let (refused, _) = with_peer(async |server, peer| {
        let mut deflater = Deflater::default();
        let ids = (0..=STREAMS_MAX as u32).map(|index| 2 * index + 1);
        for id in ids {
            peer.write_all(&open(&mut deflater, id))
                .await
                .expect("written");
        }
        let mut reset = [0; 16];
        peer.read_exact(&mut reset).await.expect("a reset");
        assert_eq!(server.accepted.len(), STREAMS_MAX);
        (reset[3], reset[10], reset[11], reset[15])
    });
    // RST_STREAM of stream 257 with REFUSED_STREAM.
    assert_eq!(refused, Some((3, 1, 1, 3)));
}

#[test]
fn broken_rules_end_the_connection() {
    let mut deflater = Deflater::default();
    let table = [
        ("even id", open(&mut deflater, 2)),
        ("no SPDY", b"GET / HTTP/1.1\r\n\r\n".to_vec()),
        ("version", vec![0x80, 2, 0, 1, 0, 0, 0, 0]),
        ("huge", vec![0x80, 3, 0, 1, 0, 0xff, 0xff, 0xff]),
        ("cut", data_head(1, More::Follows, 10)[..5].to_vec()),
    ];
    for (what, bytes) in table {
        let (_, ended) = with_peer(async |_, peer| {
            peer.write_all(&bytes).await.expect("written");
            peer.get_ref()
                .shutdown(std::net::Shutdown::Write)
                .expect("shut");
            future::pending::<()>().await;
        });
        let failed = ended.is_some_and(|ended| ended.is_err());
        // Letters are the head of a data frame for a stream that is not there, and cut short.
        assert!(failed, "{what}");
    }
}

#[test]
fn a_peer_that_asks_and_reads_no_answers_loses_the_connection() {
    let (_, ended) = with_peer(async |_, peer| {
        let ping = Control::Ping(1).encode(&mut Deflater::default());
        let many = ping.repeat(1000);
        loop {
            if peer.write_all(&many).await.is_err() {
                future::pending::<()>().await;
            }
        }
    });
    let error = ended.expect("the connection ends").expect_err("an error");
    assert!(error.to_string().contains("reads no answers"), "{error}");
}
