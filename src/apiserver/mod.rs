//! The HTTP face of the node: the Kubernetes API, reduced, and a little of our own beside it.
//!
//! ```text
//!   TLS ─► handshake ─┐
//!   RUN/api.sock ─► accept ─► net::serve ─► authn ─► authz ─► route ─► answer ─┬─► view ─► Reader
//!                                                                              ├─► log files
//!                                                                              └─► backend ─► node thread
//!   the kubelet's port ─► kubelet_port: authn and authz of its own, the same answers
//! ```
//!
//! All of it is one thread with an executor of its own: TLS, HTTP and JSON never cost the node loop
//! anything, and what reads only needs a snapshot. What needs the node goes through [`backend`],
//! typed and bounded. Everybody who gets in over the local socket is `system:masters`.
//!
//! Never here: knowledge of how a container is run, and any write past the registry.

mod answer;
pub mod authn;
pub mod authz;
pub mod backend;
mod discovery;
mod etag;
mod events;
mod format;
mod health;
mod images;
mod kubelet_port;
mod list;
mod list_options;
mod logs;
mod metrics;
mod openapi;
pub mod query;
pub mod request_info;
mod route;
mod secure;
mod selector;
mod stats;
mod status;
mod stream;
pub mod table;
mod view;
mod watch;
mod write;

use std::cell::Cell;
use std::fmt;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::net::UnixListener;
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use async_channel::Sender;
use async_executor::LocalExecutor;
use async_io::Async;
use futures_lite::FutureExt;
use futures_lite::future::yield_now;

use self::authn::{Authenticator, Peer};
use self::authz::Authorizer;
use self::backend::Backend;
use self::secure::Crowd;
pub use self::secure::{Door, Secure, Sockets};
use crate::net::serve::{self, Duplex, Ending};
use crate::os;
use crate::os::task;
use crate::registry::Reader;
use crate::world::Clock;
use crate::world::figures::Figures;

/// How long the listener rests when it is out of descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Named bounds of the server.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Open connections, of the local socket and of each door over TLS; the next ones wait in the
    /// backlog.
    pub connections: usize,
    /// Peers at each of these doors who have not shown yet who they are; one more drops the oldest of them.
    pub strangers: usize,
    /// Watches and followed logs.
    pub streams: usize,
    /// Commands and attached clients.
    pub execs: usize,
    /// Sessions of forwarded ports.
    pub forwards: usize,
    /// Connections to ports of pods, of all sessions together.
    pub forwarded: usize,
    /// A session in which nothing moves for so long is closed.
    /// Source: Kubernetes kubelet, `streamingConnectionIdleTimeout`.
    pub stream_idle: Duration,
    /// Bodies of all requests under way together; who sends more is answered 429.
    pub body_bytes: usize,
    /// From the end of a head to the end of its body. Upstream gives whole requests 60 s.
    pub body_timeout: Duration,
    pub http: serve::Limits,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            connections: 1200,
            strangers: 128,
            streams: 1000,
            execs: 32,
            forwards: 32,
            forwarded: 256,
            stream_idle: Duration::from_secs(4 * 3600),
            body_bytes: 16 << 20,
            body_timeout: Duration::from_secs(30),
            http: serve::Limits::default(),
        }
    }
}

/// What a server needs to know.
pub struct Options {
    pub node_name: String,
    /// What `/configz` of the kubelet's port shows, as JSON.
    pub kubelet_configuration: String,
    /// `--pod-logs-dir`
    pub pod_logs_dir: PathBuf,
    /// What the node counts while it works.
    pub figures: Arc<Figures>,
    pub authenticator: Authenticator,
    pub authorizer: Authorizer,
    pub limits: Limits,
}

/// The server without its sockets: give it connections.
#[derive(Clone)]
pub struct Server(Rc<Shared>);

struct Shared {
    reader: Reader,
    backend: Backend,
    clock: Rc<dyn Clock>,
    options: Options,
    executor: Rc<LocalExecutor<'static>>,
    connections: Counter,
    at_api: Crowd,
    at_kubelet: Crowd,
    bodies: Counter,
    streams: Counter,
    execs: Counter,
    metrics: metrics::Metrics,
    reviews: kubelet_port::Reviews,
    forwards: Counter,
    forwarded: Counter,
}

impl Shared {
    fn crowd(&self, door: Door) -> &Crowd {
        match door {
            Door::Api => &self.at_api,
            Door::Kubelet => &self.at_kubelet,
        }
    }
}

impl Server {
    /// `executor` runs what outlives a request; it must be driven by the caller.
    pub fn new(
        reader: Reader,
        backend: Backend,
        clock: Rc<dyn Clock>,
        options: Options,
        executor: Rc<LocalExecutor<'static>>,
    ) -> Server {
        Server(Rc::new(Shared {
            metrics: metrics::Metrics::new(clock.wall()),
            reader,
            backend,
            clock,
            options,
            executor,
            reviews: kubelet_port::Reviews::default(),
            connections: Counter::default(),
            at_api: Crowd::default(),
            at_kubelet: Crowd::default(),
            bodies: Counter::default(),
            streams: Counter::default(),
            execs: Counter::default(),
            forwards: Counter::default(),
            forwarded: Counter::default(),
        }))
    }

    /// Serves one connection to its end.
    pub async fn serve(&self, io: Box<dyn Duplex>, peer: Peer) {
        let (shared, peer) = (self.0.clone(), Rc::new(peer));
        let handler = move |request| {
            let (shared, peer) = (shared.clone(), peer.clone());
            let answer = async move { answer::answer(shared, &peer, request).await };
            Box::pin(answer) as crate::world::LocalFuture<'static, serve::Response>
        };
        let (limits, clock) = (self.0.options.limits.http, self.0.clock.clone());
        if let Err(error) = serve::connection(io, limits, clock, handler).await {
            log::debug!("api connection: {error}");
        }
    }

    /// Accepts connections of root and of our own user, for ever.
    pub async fn listen(&self, listener: &Async<UnixListener>) {
        loop {
            let counted = match self.0.connections.take(self.0.options.limits.connections) {
                Some(counted) => counted,
                None => {
                    self.pause().await;
                    continue;
                }
            };
            // A crowd at the door must not keep those inside from being served.
            yield_now().await;
            match listener.accept().await {
                Ok((socket, _)) => match allowed(&socket) {
                    Ok(()) => {
                        let server = self.clone();
                        let work = async move {
                            server.serve(Box::new(Ending(socket)), Peer::Local).await;
                            drop(counted);
                        };
                        task::spawn(&self.0.executor, work).detach();
                    }
                    Err(error) => log::warn!("api connection refused: {error}"),
                },
                Err(error) => {
                    log::warn!("accept api connection: {error}, retrying in {ACCEPT_PAUSE:?}");
                    self.pause().await;
                }
            }
        }
    }

    async fn pause(&self) {
        let clock = &self.0.clock;
        clock.sleep_until(clock.now() + ACCEPT_PAUSE).await;
    }
}

/// Only root, and the user that the node itself runs as, may use the local socket.
fn allowed(socket: &impl AsFd) -> io::Result<()> {
    match os::socket::peer_uid(socket.as_fd())? {
        uid if is_allowed(uid, os::process::effective_uid()) => Ok(()),
        uid => Err(io::Error::other(format!("uid {uid} is not allowed"))),
    }
}

fn is_allowed(peer_uid: u32, own_uid: u32) -> bool {
    peer_uid == 0 || peer_uid == own_uid
}

/// The serve thread. Dropping it ends the thread and every connection.
pub struct ServeThread {
    stop: Sender<()>,
    thread: Option<JoinHandle<()>>,
}

impl ServeThread {
    /// Starts the thread on bound sockets. `make_clock` runs on it.
    /// Errors: no thread or no descriptor to be had.
    pub fn start(
        sockets: impl Into<Sockets>,
        reader: Reader,
        backend: Backend,
        make_clock: impl FnOnce() -> io::Result<Rc<dyn Clock>> + Send + 'static,
        options: Options,
    ) -> io::Result<ServeThread> {
        let Sockets { local, secure } = sockets.into();
        let listener = Async::new(local)?;
        let secure = secure.into_iter().map(secure::Listening::new);
        let secure = secure.collect::<io::Result<Vec<_>>>()?;
        let (stop, stopped) = async_channel::bounded::<()>(1);
        let work = move || {
            let clock = match make_clock() {
                Ok(clock) => clock,
                Err(error) => return log::error!("make the clock of the serve thread: {error}"),
            };
            let executor = Rc::new(LocalExecutor::new());
            let server = Server::new(reader, backend, clock, options, executor.clone());
            let stopped = async {
                // Only ever closed, by the drop of the other end.
                let _ = stopped.recv().await;
            };
            let secure = secure.into_iter();
            let _secure: Vec<_> = secure
                .flat_map(|one| one.serve(&server, &executor))
                .collect();
            async_io::block_on(executor.run(server.listen(&listener).or(stopped)));
        };
        let thread = Some(os::thread::spawn("serve", work)?);
        Ok(ServeThread { stop, thread })
    }
}

impl Drop for ServeThread {
    fn drop(&mut self) {
        self.stop.close();
        if let Some(thread) = self.thread.take() {
            // A panic there was already printed.
            let _ = thread.join();
        }
    }
}

impl fmt::Debug for ServeThread {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ServeThread")
    }
}

/// How many of something are under way.
#[derive(Clone, Debug, Default)]
struct Counter(Rc<Cell<usize>>);

/// So many of them, until dropped.
#[derive(Debug, Default)]
struct Counted {
    counter: Counter,
    count: usize,
}

impl Counter {
    fn none(&self) -> Counted {
        Counted {
            counter: self.clone(),
            count: 0,
        }
    }

    fn take(&self, max: usize) -> Option<Counted> {
        let mut counted = self.none();
        counted.grow(1, max).then_some(counted)
    }
}

impl Counted {
    /// Takes `more` unless that would make more than `max` of all together.
    fn grow(&mut self, more: usize, max: usize) -> bool {
        let all = &self.counter.0;
        let fits = all.get() + more <= max;
        if fits {
            all.set(all.get() + more);
            self.count += more;
        }
        fits
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        let all = &self.counter.0;
        all.set(all.get() - self.count);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_root_and_our_own_user_may_connect() {
        let table = [
            (0, 0, true),
            (0, 7, true),
            (7, 7, true),
            (7, 0, false),
            (8, 7, false),
        ];
        for (peer, own, allowed) in table {
            assert_eq!(is_allowed(peer, own), allowed, "{peer} {own}");
        }
    }

    #[test]
    fn a_counter_stops_at_its_bound_and_gives_back() {
        let counter = Counter::default();
        let first = counter.take(1);
        assert!(first.is_some() && counter.take(1).is_none());
        drop(first);
        let mut some = counter.none();
        assert!(some.grow(3, 4) && !some.grow(2, 4) && some.grow(1, 4));
        assert!(counter.take(4).is_none());
        drop(some);
        assert!(counter.take(1).is_some());
    }
}
