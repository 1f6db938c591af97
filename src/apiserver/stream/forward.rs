//! `pods/portforward`: connections to ports of a pod, many over one connection of the client.
//!
//! ```text
//!   SPDY, or SPDY inside of a WebSocket:
//!     stream error ┐ requestid, port
//!     stream data  ┴─► pair ─► connect in the pod's network namespace ─► both ways until both end
//!   WebSocket channels of old: forward_channels
//! ```
//!
//! Source: Kubernetes kubelet, cri/streaming/portforward; KEP-4006.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::net::{Shutdown, TcpStream};
use std::rc::Rc;

use async_channel::Sender;
use async_executor::LocalExecutor;
use async_io::Async;
use bytes::Bytes;
use futures_lite::{AsyncReadExt, AsyncWriteExt, FutureExt, future};

use super::forward_channels::{self, CHANNELS, CHANNELS_BASE64};
use super::upgrade::{self, Agreed, Spoken};
use super::{CREATION_TIMEOUT, Idle, spdy};
use crate::apiserver::Shared;
use crate::apiserver::backend::Request as NodeRequest;
use crate::apiserver::query::Query;
use crate::apiserver::status::Refusal;
use crate::net::serve::{Request, Response};
use crate::net::spdy::{Connection, Headers, Role, Stream};
use crate::net::websocket::UNNAMED;
use crate::net::{tunnel, websocket};
use crate::object::Object;
use crate::os::task;
use crate::world::{LocalFuture, Uid};

/// A whole SPDY connection in the messages of a WebSocket.
const TUNNEL: &str = "SPDY/3.1+portforward.k8s.io";

const SPOKEN: Spoken = Spoken {
    web_socket: &[TUNNEL, CHANNELS, CHANNELS_BASE64, UNNAMED],
    spdy: &["portforward.k8s.io"],
};

/// One read of a pod's socket.
pub(super) const CHUNK_BYTES: usize = 32 << 10;

/// Whose ports are meant.
#[derive(Clone, Debug)]
pub struct Target {
    pub uid: Uid,
    /// `name_namespace`, as upstream's messages have it.
    pub pod: String,
}

/// Answers the handshake; the session goes on by itself after the 101.
pub fn start(
    shared: &Rc<Shared>,
    request: Request,
    object: &Object,
    query: &Query,
) -> Result<Response, Refusal> {
    let phase = object.body["status"]["phase"].as_str().unwrap_or("Pending");
    if matches!(phase, "Succeeded" | "Failed") {
        let text =
            format!("unable to forward port because pod is not running. Current status={phase}");
        return Err(Refusal::bad_request(text));
    }
    let uid = Uid::new(object.uid());
    let target = Target {
        uid: uid.ok_or_else(|| Refusal::internal("the pod's uid is unusable"))?,
        pod: format!("{}_{}", object.key.name, object.key.namespace),
    };
    serve(shared, request, target, query)
}

/// Upgrades, and runs the session in a task of its own.
pub fn serve(
    shared: &Rc<Shared>,
    mut request: Request,
    target: Target,
    query: &Query,
) -> Result<Response, Refusal> {
    let agreed = match upgrade::agree(request.headers(), &SPOKEN) {
        Ok(agreed) => agreed,
        Err(refused) => return refused.response(),
    };
    let slot = shared.forwards.take(shared.options.limits.forwards);
    let slot = slot.ok_or_else(|| Refusal::too_many("forwarded ports"))?;
    let idle = Idle::new(shared.clock.clone(), shared.options.limits.stream_idle);
    let session = Rc::new(Forwarding {
        shared: shared.clone(),
        target,
        idle,
        halves: RefCell::default(),
    });
    let upgrade = hyper::upgrade::on(&mut request);
    let moved: LocalFuture<'static, Result<(), String>> = match &agreed {
        Agreed::Spdy(_) => Box::pin(session.clone().over_spdy(upgrade)),
        Agreed::WebSocket(agreed) if agreed.protocol == TUNNEL => {
            Box::pin(session.clone().tunnelled(upgrade))
        }
        Agreed::WebSocket(agreed) => {
            let ports = forward_channels::ports(query)?;
            let session = session.clone();
            Box::pin(forward_channels::run(
                session,
                upgrade,
                agreed.protocol,
                ports,
            ))
        }
    };
    let work = async move {
        let _slot = slot;
        let quiet = async {
            session.idle.ended().await;
            Err("idle".to_owned())
        };
        if let Err(error) = moved.or(quiet).await {
            log::debug!("forward ports of {}: {error}", session.target.pod);
        }
    };
    task::spawn(&shared.executor, work).detach();
    Ok(agreed.response())
}

/// One session, and the streams in it that wait for their other half.
pub(super) struct Forwarding {
    shared: Rc<Shared>,
    target: Target,
    pub(super) idle: Idle,
    halves: RefCell<BTreeMap<String, Sender<Half>>>,
}

/// One stream of a pair.
struct Half {
    kind: Kind,
    stream: Stream,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Error,
    Data,
}

impl Forwarding {
    async fn over_spdy(self: Rc<Self>, upgrade: hyper::upgrade::OnUpgrade) -> Result<(), String> {
        let clock = self.shared.clock.clone();
        let (connection, driver) = spdy::accept(upgrade, clock).await?;
        self.pairs(connection, driver).await
    }

    async fn tunnelled(self: Rc<Self>, upgrade: hyper::upgrade::OnUpgrade) -> Result<(), String> {
        let (reader, writer) = tunnel::open(websocket::accept(upgrade).await?);
        let clock = self.shared.clock.clone();
        let (connection, driver) = Connection::new(reader, writer, Role::Server, clock);
        self.pairs(connection, driver).await
    }

    /// Pairs streams and serves the pairs, until the client hangs up; then all of it is dropped.
    async fn pairs(
        self: Rc<Self>,
        connection: Connection,
        driver: LocalFuture<'static, std::io::Result<()>>,
    ) -> Result<(), String> {
        let tasks = LocalExecutor::new();
        let accepting = async {
            while let Ok(stream) = connection.accepted.recv().await {
                match asked(&stream.headers, stream.id()) {
                    Ok(asked) => self.clone().pair(stream, asked, &tasks),
                    // Dropped, it is reset, as upstream does.
                    Err(error) => log::debug!("stream of a forwarded port: {error}"),
                }
            }
            future::pending().await
        };
        let driven = async { driver.await.map_err(|error| error.to_string()) };
        driven.or(tasks.run(accepting)).await
    }

    /// The second stream of a request goes to the task that waits for it.
    fn pair(self: Rc<Self>, stream: Stream, asked: Asked, tasks: &LocalExecutor<'static>) {
        stream.reply();
        let Asked {
            request,
            kind,
            port,
        } = asked;
        let half = Half { kind, stream };
        let waiting = self.halves.borrow_mut().remove(&request);
        if let Some(waiting) = waiting {
            // The first may have given up; then this one is reset.
            let _ = waiting.try_send(half);
            return;
        }
        let (other, arrives) = async_channel::bounded(1);
        self.halves.borrow_mut().insert(request.clone(), other);
        let work = async move {
            let clock = &self.shared.clock;
            let arrived = async { arrives.recv().await.ok() };
            let late = async {
                clock.sleep_until(clock.now() + CREATION_TIMEOUT).await;
                None
            };
            let other = arrived.or(late).await;
            match (half, other) {
                (
                    Half {
                        kind: Kind::Error,
                        stream: error,
                    },
                    Some(Half {
                        kind: Kind::Data,
                        stream,
                    }),
                )
                | (
                    Half {
                        kind: Kind::Data,
                        stream,
                    },
                    Some(Half {
                        kind: Kind::Error,
                        stream: error,
                    }),
                ) => {
                    self.forward(stream, error, port).await;
                }
                (half, Some(_)) => {
                    say(
                        &half.stream,
                        &format!("{} stream already assigned", half.kind.name()),
                    )
                    .await
                }
                (half, None) => {
                    self.halves.borrow_mut().remove(&request);
                    let text = format!("(request={request}) timed out waiting for streams");
                    say(&half.stream, &text).await;
                }
            }
        };
        task::spawn(tasks, work).detach();
    }

    async fn forward(&self, data: Stream, error: Stream, port: u16) {
        match self.connect(port).await {
            Ok(Connected { socket, _slot }) => both_ways(&data, &socket, &self.idle).await,
            Err(text) => {
                log::debug!("{text}");
                say(&error, &text).await;
            }
        }
        // What the client has ended already is not reset by the drop.
        let _ = data.finish().await;
        let _ = error.finish().await;
    }

    /// Errors: in kubelet's words, for the client.
    pub(super) async fn connect(&self, port: u16) -> Result<Connected, String> {
        let Target { uid, pod } = &self.target;
        let named = |why: &dyn std::fmt::Display| {
            format!("error forwarding port {port} to pod {pod}, uid {uid}: {why}")
        };
        let limit = self.shared.options.limits.forwarded;
        let slot = self.shared.forwarded.take(limit);
        let slot = slot.ok_or_else(|| named(&format!("{limit} connections are open already")))?;
        let make = |reply| NodeRequest::Connect(uid.clone(), port, reply);
        let answer = self.shared.backend.ask(make).await;
        let answer = answer.map_err(|refusal| named(&refusal.message))?;
        let stream: TcpStream = answer.map_err(|error| named(&error))?;
        let socket = Async::new(stream).map_err(|error| named(&error))?;
        Ok(Connected {
            socket,
            _slot: slot,
        })
    }
}

/// A connection to a port of a pod.
pub(super) struct Connected {
    pub socket: Async<TcpStream>,
    pub _slot: crate::apiserver::Counted,
}

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Kind::Error => "error",
            Kind::Data => "data",
        }
    }
}

/// What a stream is opened for.
#[derive(Debug, PartialEq, Eq)]
struct Asked {
    request: String,
    kind: Kind,
    port: u16,
}

/// Errors: what is wrong with its headers, in upstream's words.
fn asked(headers: &Headers, id: u32) -> Result<Asked, String> {
    let port = headers.get("port").ok_or("\"port\" header is required")?;
    let port = match port.parse::<u16>() {
        Ok(0) => return Err(format!("port {port:?} must be > 0")),
        Ok(port) => port,
        Err(_) => return Err(format!("unable to parse {port:?} as a port")),
    };
    let (kind, first) = match headers.get("streamtype") {
        Some("error") => (Kind::Error, id),
        Some("data") => (Kind::Data, id.saturating_sub(2)),
        Some(other) => return Err(format!("invalid stream type {other:?}")),
        None => return Err("\"streamType\" header is required".to_owned()),
    };
    // Clients of old name no request: the data stream comes right behind its error stream.
    let request = headers.get("requestid").map(str::to_owned);
    let request = request.unwrap_or_else(|| first.to_string());
    Ok(Asked {
        request,
        kind,
        port,
    })
}

async fn say(stream: &Stream, text: &str) {
    let bytes = Bytes::copy_from_slice(text.as_bytes());
    // A client that has gone misses nothing.
    let _ = stream.send(bytes).await;
    let _ = stream.finish().await;
}

/// Until both sides have said all, or one of them breaks off.
async fn both_ways(data: &Stream, socket: &Async<TcpStream>, idle: &Idle) {
    let up = async {
        let mut to = socket;
        while let Some(bytes) = data.next().await {
            idle.moved();
            if to.write_all(&bytes).await.is_err() {
                // The pod reads no more, and may still write.
                return Ending::One;
            }
        }
        if !data.is_open() {
            return Ending::All;
        }
        // Fails where the pod has closed already.
        let _ = socket.get_ref().shutdown(Shutdown::Write);
        Ending::One
    };
    let down = async {
        let mut from = socket;
        let mut buffer = vec![0; CHUNK_BYTES];
        while let Ok(read @ 1..) = from.read(&mut buffer).await {
            idle.moved();
            let bytes = Bytes::copy_from_slice(&buffer[..read]);
            if data.send(bytes).await.is_err() {
                return Ending::All;
            }
        }
        let _ = data.finish().await;
        Ending::One
    };
    until_both(up, down).await;
}

/// How one direction ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ending {
    /// The other one may go on.
    One,
    All,
}

/// Waits for both, or for the first that ends all.
pub(super) async fn until_both(
    up: impl Future<Output = Ending>,
    down: impl Future<Output = Ending>,
) {
    let keep = |ending| async move {
        match ending {
            Ending::One => {}
            Ending::All => future::pending().await,
        }
    };
    let (all, told) = async_channel::bounded::<()>(1);
    let watched = |ending| {
        if ending == Ending::All {
            all.close();
        }
        keep(ending)
    };
    let up = async { watched(up.await).await };
    let down = async { watched(down.await).await };
    let both = async {
        future::zip(up, down).await;
    };
    let broken = async {
        let _ = told.recv().await;
    };
    both.or(broken).await;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn streams_are_asked_for_by_their_headers() {
        let named = Headers::of(&[("streamtype", "data"), ("port", "80"), ("requestid", "7")]);
        let expected = Asked {
            request: "7".to_owned(),
            kind: Kind::Data,
            port: 80,
        };
        assert_eq!(asked(&named, 9), Ok(expected));
        let of = |kind, id| {
            let headers = Headers::of(&[("streamtype", kind), ("port", "80")]);
            asked(&headers, id).expect("headers of old").request
        };
        assert_eq!(
            (of("error", 5), of("data", 7)),
            ("5".to_owned(), "5".to_owned())
        );
        let table: [(&[(&str, &str)], &str); 5] = [
            (&[], "\"port\" header is required"),
            (&[("port", "0")], "port \"0\" must be > 0"),
            (&[("port", "x")], "unable to parse \"x\" as a port"),
            (&[("port", "1")], "\"streamType\" header is required"),
            (
                &[("port", "1"), ("streamtype", "x")],
                "invalid stream type \"x\"",
            ),
        ];
        for (headers, error) in table {
            assert_eq!(asked(&Headers::of(headers), 1), Err(error.to_owned()));
        }
    }

    #[test]
    fn one_direction_may_outlive_the_other_unless_it_broke() {
        let never = || future::pending::<Ending>();
        let ready = |ending| future::ready(ending);
        future::block_on(until_both(ready(Ending::One), ready(Ending::One)));
        future::block_on(until_both(never(), ready(Ending::All)));
        future::block_on(until_both(ready(Ending::All), never()));
        let waits = future::poll_once(until_both(ready(Ending::One), never()));
        assert_eq!(future::block_on(waits), None);
    }
}
