//! Ports of pods over SPDY, over SPDY in a WebSocket, and over WebSocket channels.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::rc::Rc;

use async_io::Async;
use async_tungstenite::tungstenite::Message;
use bytes::Bytes;
use futures_lite::{FutureExt, StreamExt, future};
use lowtide::net::spdy::{Connection, Headers, Role, Stream};
use lowtide::net::{tunnel, unix, websocket};
use lowtide::os::clock::SystemClock;
use lowtide::world::Clock;

use crate::exec::start;
use crate::node::{Node, PATIENCE};
use crate::spdy::{text, with_connection};

const PATH: &str = "/api/v1/namespaces/default/pods/web/portforward";

/// A server that sends back what it gets, each connection on a thread of its own, until its end.
#[allow(clippy::disallowed_methods, reason = "a test's own threads")]
fn echo() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("listen");
    let port = listener.local_addr().expect("address").port();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream: TcpStream = stream.expect("accept");
            std::thread::spawn(move || {
                let mut buffer = [0; 4096];
                while let Ok(read @ 1..) = stream.read(&mut buffer) {
                    if stream.write_all(&buffer[..read]).is_err() {
                        return;
                    }
                }
                let _ = stream.shutdown(Shutdown::Write);
            });
        }
    });
    port
}

/// A port that nobody listens on.
fn closed() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("listen");
    listener.local_addr().expect("address").port()
}

fn pair(connection: &Connection, port: u16, request: &str) -> (Stream, Stream) {
    let port = port.to_string();
    let open = |kind| {
        let headers = [
            ("streamtype", kind),
            ("port", &*port),
            ("requestid", request),
        ];
        connection.open(Headers::of(&headers)).expect("opened")
    };
    (open("error"), open("data"))
}

async fn exchange(connection: &Connection, port: u16, request: &str, bytes: &Bytes) {
    let (error, data) = pair(connection, port, request);
    error.finish().await.expect("nothing to say on it");
    let sending = async {
        data.send(bytes.clone()).await.expect("sent");
        data.finish().await.expect("ended");
    };
    let ((), back) = future::zip(sending, text(&data)).await;
    assert!(back.as_bytes() == bytes, "{} bytes came back", back.len());
    assert_eq!(text(&error).await, "");
}

pub async fn all_of_it(connection: &Connection) {
    let port = echo();
    // Two at once, more than all buffers on the way; then one that is refused; then one more.
    let big = Bytes::from(vec![b'x'; 2_000_000]);
    let one = exchange(connection, port, "0", &big);
    let other = exchange(connection, port, "1", &big);
    future::zip(one, other).await;
    let (error, data) = pair(connection, closed(), "2");
    let said = text(&error).await;
    assert!(said.starts_with("error forwarding port "), "{said}");
    assert!(said.contains("to pod web_default, uid "), "{said}");
    assert!(said.to_lowercase().contains("connection refused"), "{said}");
    assert_eq!(text(&data).await, "");
    exchange(connection, port, "3", &Bytes::from_static(b"small")).await;
    let senseless = Headers::of(&[("streamtype", "data"), ("port", "none")]);
    let senseless = connection.open(senseless).expect("opened");
    assert_eq!(senseless.next().await, None);
    assert!(!senseless.is_open(), "it is reset");
}

#[test]
fn connections_go_both_ways_over_spdy() {
    let node = start();
    with_connection(&node, PATH, &["portforward.k8s.io"], all_of_it);
}

pub fn in_time<T>(work: impl Future<Output = T>) -> T {
    #[allow(clippy::disallowed_methods, reason = "a test's own time limit")]
    let patience = async {
        async_io::Timer::after(PATIENCE).await;
        panic!("the session took longer than {PATIENCE:?}")
    };
    async_io::block_on(work.or(patience))
}

async fn socket(
    node: &Node,
    path: &str,
    protocol: &str,
) -> websocket::WebSocket<Box<dyn lowtide::net::serve::Duplex>> {
    let stream = Async::new(unix::connect(&node.socket()).expect("connect")).expect("async");
    let connected = websocket::connect(Box::new(stream), path, &[protocol]).await;
    let (socket, agreed) = connected.expect("upgraded");
    assert_eq!(agreed, protocol);
    socket
}

#[test]
fn connections_go_both_ways_over_spdy_in_a_web_socket() {
    let node = start();
    in_time(async {
        let socket = socket(&node, PATH, "SPDY/3.1+portforward.k8s.io").await;
        let (reader, writer) = tunnel::open(socket);
        let clock: Rc<dyn Clock> = Rc::new(SystemClock::new().expect("clock"));
        let (connection, driver) = Connection::new(reader, writer, Role::Client, clock);
        let driven = async { panic!("the connection ended: {:?}", driver.await) };
        driven.or(all_of_it(&connection)).await
    });
}

#[test]
fn ports_have_channels_of_their_own_over_a_web_socket_of_old() {
    let node = start();
    let (open, closed) = (echo(), closed());
    let path = format!("{PATH}?port={open},{closed}");
    in_time(async {
        let mut socket = socket(&node, &path, "v4.channel.k8s.io").await;
        let mut said = vec![Vec::new(); 4];
        socket
            .send(Message::binary(&b"\0hello"[..]))
            .await
            .expect("sent");
        let port = |port: u16| port.to_le_bytes().to_vec();
        let wanted = [&port(open)[..], b"hello"].concat();
        while said[0] != wanted || said[3].len() < 10 {
            let message = socket.next().await.expect("a message").expect("a message");
            let bytes = message.into_data();
            said[usize::from(bytes[0])].extend_from_slice(&bytes[1..]);
        }
        assert_eq!((&said[1], &said[2]), (&port(open), &port(closed)));
        let error = String::from_utf8_lossy(&said[3][2..]).into_owned();
        assert!(
            error.starts_with(&format!("error forwarding port {closed} ")),
            "{error}"
        );
    });
}
