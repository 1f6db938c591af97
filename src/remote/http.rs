//! The cluster over HTTPS: a few connections for calls, kept open, and one for each watch.
//!
//! ```text
//!   call ─► slot ─► credentials ─► an open connection, or a new one ─► answer ─► kept open
//!                       ▲   closed while idle, nothing lost: dialled once more │
//!                       └──────────────── 401: read anew, asked once more ─────┘
//! ```
//! A lease that is renewed every 10 s costs no handshake. What may have been carried out is not
//! repeated unless it can be. Every wait, queue and body is bounded; retries in time are the
//! caller's.

use std::cell::{Cell, RefCell};
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{ACCEPT, ACCEPT_ENCODING, CONTENT_TYPE, DATE, HeaderValue, USER_AGENT};
use http::{Method, StatusCode, Uri};
use rustls::ClientConfig;
use serde_json::Value;

use super::answer::{check_stranger, reply};
use super::credentials::{Access, Credentials};
use super::kubeconfig::Settings;
use crate::net::certificates::Validity;
use crate::net::client::{Client, Error, Request, Response, Sent, Session, Timeouts, Unanswered};
use crate::net::date::http_date;
use crate::net::proxy::Proxies;
use crate::net::tls::Verification;
use crate::world::{
    BootTime, Call, Clock, Cluster, Knock, LocalFuture, NoAnswer, NoWatch, Reply, Verb, Watch,
};

/// Three round trips of 2 s, and a chain of certificates at 10 kB/s.
const TIMEOUTS: Timeouts = Timeouts {
    connect: Duration::from_secs(10),
    first_byte: Duration::from_secs(30),
    idle: Duration::from_secs(30),
};
/// Less than it takes TCP to send a SYN once more.
const KNOCK: Duration = Duration::from_millis(900);
/// Calls at a time, besides the beat's.
const CALLS_MAX: usize = 3;
/// Watches that are opened at a time: after an outage all are, and over a slow link none in time.
const OPENINGS_MAX: usize = 4;
/// A connection that others are used before for so long is closed.
const SPARE_AGE_MAX: Duration = Duration::from_secs(30);
/// Of one event; etcd takes objects of 1.5 MiB.
const LINE_BYTES_MAX: usize = 4 << 20;
/// What a watch that names no `timeoutSeconds` is given (kube-apiserver ends it by itself after
/// 30 to 60 minutes).
const WATCH_TIMEOUT: Duration = Duration::from_secs(3600);
/// More than what a watch asks for, for the way back.
const WATCH_SLACK: Duration = Duration::from_secs(30);
/// Answers may come packed; a watch is read as it comes.
const PACKED: HeaderValue = HeaderValue::from_static("gzip");
const PLAIN: HeaderValue = HeaderValue::from_static("identity");

pub struct HttpCluster {
    clock: Rc<dyn Clock>,
    settings: Arc<Settings>,
    client: Client,
    credentials: Credentials,
    user_agent: HeaderValue,
    slots: smol::lock::Semaphore,
    openings: smol::lock::Semaphore,
    idle: RefCell<Vec<Idle>>,
    /// Which server answered last, or comes after one that did not open or is sick.
    preferred: Cell<usize>,
    /// How often connections were forgotten: those of before are not kept.
    epoch: Cell<u64>,
    /// Who took the last connection.
    peer: RefCell<Option<Peer>>,
}

struct Peer {
    address: SocketAddr,
    server: usize,
    tls: Arc<ClientConfig>,
}

/// An open connection that nobody uses now.
struct Idle {
    session: Session,
    server: usize,
    tls: Arc<ClientConfig>,
    since: BootTime,
}

/// One call as bytes.
struct Asked<'a> {
    method: Method,
    content_type: Option<&'static str>,
    path: &'a str,
    body: Bytes,
    /// In what form the answer may come.
    encoding: HeaderValue,
}

impl HttpCluster {
    pub fn new(clock: Rc<dyn Clock>, settings: Settings) -> HttpCluster {
        let proxies = settings.proxies.clone();
        let proxies = proxies.unwrap_or_else(Proxies::of_environment);
        let settings = Arc::new(settings);
        HttpCluster {
            client: Client::new(clock.clone(), TIMEOUTS).through(Rc::new(proxies)),
            credentials: Credentials::new(clock.clone(), settings.clone()),
            clock,
            settings,
            user_agent: user_agent(),
            slots: smol::lock::Semaphore::new(CALLS_MAX),
            openings: smol::lock::Semaphore::new(OPENINGS_MAX),
            idle: RefCell::default(),
            preferred: Cell::new(0),
            epoch: Cell::new(0),
            peer: RefCell::default(),
        }
    }

    /// The files that it shows were replaced: they are read before the next request.
    pub fn refresh(&self) {
        self.credentials.doubt();
        self.reconnect();
    }

    /// Whether files that it names could never be read or used.
    pub fn has_nothing_to_show(&self) -> bool {
        self.credentials.are_unreadable()
    }

    /// Of the client certificate that is shown, if there is one.
    pub fn validity(&self) -> Option<Validity> {
        self.credentials.validity()
    }

    async fn ask(&self, call: &Call) -> Result<Reply, NoAnswer> {
        let _slot = match is_of_the_beat(&call.path) {
            true => None,
            false => Some(self.slots.acquire().await),
        };
        let asked = Asked::of(call);
        let access = self.credentials.access().await?;
        let reply = self.ask_servers(&asked, &access).await?;
        if reply.status == StatusCode::UNAUTHORIZED
            && let Some(access) = self.credentials.better_than(&access).await
        {
            return self.ask_servers(&asked, &access).await;
        }
        Ok(reply)
    }

    /// The one that answered last first.
    fn servers(&self) -> impl Iterator<Item = usize> {
        let (first, count) = (self.preferred.get(), self.settings.servers.len());
        (0..count).map(move |offset| (first + offset) % count)
    }

    /// Whoever asks next begins with the server after one that did not open: a caller whose patience ends
    /// with this one still comes to the others.
    fn pass_over(&self, server: usize, lost: Unanswered) -> Error {
        if lost.sent == Sent::Nothing && self.preferred.get() == server {
            let count = self.settings.servers.len();
            self.preferred.set((server + 1) % count);
        }
        lost.error
    }

    /// The one that has answered comes first from now on, unless it is sick: then the next does, for whoever
    /// asks again. What an object of a namespace is answered may be that object's fault (its webhook's), and
    /// says nothing.
    fn prefer(&self, server: usize, asked: &Asked<'_>, status: u16) {
        let object = asked.method != Method::GET && asked.path.starts_with("/api/v1/namespaces/");
        if object && status >= 500 {
            return;
        }
        let first = server + usize::from(status >= 500);
        self.preferred.set(first % self.settings.servers.len());
    }

    async fn ask_servers(&self, asked: &Asked<'_>, access: &Access) -> Result<Reply, NoAnswer> {
        let mut failed = None;
        for server in self.servers() {
            match self.ask_server(server, asked, access).await {
                Ok(reply) => {
                    self.prefer(server, asked, reply.status);
                    return Ok(reply);
                }
                Err(lost) => {
                    let stop = lost.sent == Sent::Perhaps && !asked.method.is_idempotent();
                    failed = Some(self.pass_over(server, lost));
                    if stop {
                        break;
                    }
                }
            }
        }
        Err(no_answer(failed.expect("there is always a server")))
    }

    async fn ask_server(
        &self,
        server: usize,
        asked: &Asked<'_>,
        access: &Access,
    ) -> Result<Reply, Unanswered> {
        if let Some(session) = self.take_idle(server, access) {
            match self.exchange(session, server, asked, access).await {
                Err(lost) if is_asked_anew(&lost, &asked.method) => {}
                decided => return decided,
            }
        }
        let session = self.open(server, access).await?;
        self.exchange(session, server, asked, access).await
    }

    async fn open(&self, server: usize, access: &Access) -> Result<Session, Unanswered> {
        let url = &self.settings.servers[server];
        let name = self.settings.server_name.as_deref();
        let opened = self.client.open(url, &access.tls, name).await;
        let session = opened.map_err(|error| Unanswered {
            error,
            sent: Sent::Nothing,
        })?;
        let peer = session.peer().map(|address| Peer {
            address,
            server,
            tls: access.tls.clone(),
        });
        self.peer.replace(peer);
        Ok(session)
    }

    async fn exchange(
        &self,
        session: Session,
        server: usize,
        asked: &Asked<'_>,
        access: &Access,
    ) -> Result<Reply, Unanswered> {
        let epoch = self.epoch.get();
        let mut response = self.send(session, server, asked, access).await?;
        let reply = reply(&mut response).await.map_err(lost)?;
        if let Some(session) = response.into_session()
            && epoch == self.epoch.get()
        {
            self.idle.borrow_mut().push(Idle {
                session,
                server,
                tls: access.tls.clone(),
                since: self.clock.now(),
            });
        }
        Ok(reply)
    }

    async fn send(
        &self,
        session: Session,
        server: usize,
        asked: &Asked<'_>,
        access: &Access,
    ) -> Result<Response, Unanswered> {
        let bad = |error| Unanswered {
            error,
            sent: Sent::Nothing,
        };
        let mut headers = access.headers.clone();
        headers.insert(USER_AGENT, self.user_agent.clone());
        headers.insert(ACCEPT, HeaderValue::from_static("application/json"));
        headers.insert(ACCEPT_ENCODING, asked.encoding.clone());
        if let Some(content_type) = asked.content_type {
            headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
        }
        let request = Request {
            method: asked.method.clone(),
            url: url(&self.settings.servers[server], asked.path).map_err(bad)?,
            headers,
            body: asked.body.clone(),
            tls: access.tls.clone(),
        };
        let request = self.client.assemble(request).map_err(bad)?;
        let response = session.send(request).await?;
        check_stranger(&response).map_err(lost)?;
        self.hear(&response);
        Ok(response)
    }

    /// What time it is there, if it is certain who says so.
    fn hear(&self, response: &Response) {
        if self.settings.verification == Verification::Full
            && let Some(until) = response.peer_until()
            && let Some(told) = response.header(DATE.as_str()).and_then(http_date)
        {
            self.clock.hear(told, until);
        }
    }

    /// The connection that was used last, if one is open to the server with these certificates.
    fn take_idle(&self, server: usize, access: &Access) -> Option<Session> {
        let mut idle = self.idle.borrow_mut();
        // Those that showed another certificate have another's rights.
        idle.retain(|one| Arc::ptr_eq(&one.tls, &access.tls));
        let at = idle.iter().rposition(|one| one.server == server)?;
        let taken = idle.remove(at);
        let now = self.clock.now();
        idle.retain(|one| now.since(one.since) < SPARE_AGE_MAX);
        Some(taken.session)
    }

    async fn open_watch(&self, path: &str) -> Result<HttpWatch, NoWatch> {
        let _slot = self.openings.acquire().await;
        let asked = Asked::watch(path);
        let mut access = self.credentials.access().await.map_err(NoWatch::NoAnswer)?;
        let mut response = self.watch_servers(&asked, &access).await?;
        if response.status == StatusCode::UNAUTHORIZED
            && let Some(better) = self.credentials.better_than(&access).await
        {
            access = better;
            response = self.watch_servers(&asked, &access).await?;
        }
        if !response.status.is_success() {
            let refused = reply(&mut response).await;
            return Err(match refused {
                Ok(reply) => NoWatch::Refused(reply),
                Err(error) => NoWatch::NoAnswer(no_answer(error)),
            });
        }
        let silence = watch_timeout(path) + WATCH_SLACK;
        Ok(HttpWatch {
            deadline: self.clock.now() + silence,
            clock: self.clock.clone(),
            response,
            silence,
            lines: Lines::default(),
        })
    }

    async fn watch_servers(&self, asked: &Asked<'_>, access: &Access) -> Result<Response, NoWatch> {
        let mut failed = None;
        for server in self.servers() {
            let sent = match self.open(server, access).await {
                Ok(session) => self.send(session, server, asked, access).await,
                Err(lost) => Err(lost),
            };
            match sent {
                Ok(response) => {
                    self.prefer(server, asked, response.status.as_u16());
                    return Ok(response);
                }
                Err(lost) => failed = Some(self.pass_over(server, lost)),
            }
        }
        let error = failed.expect("there is always a server");
        Err(NoWatch::NoAnswer(no_answer(error)))
    }
}

impl Cluster for HttpCluster {
    fn call(&self, call: Call) -> LocalFuture<'_, Result<Reply, NoAnswer>> {
        Box::pin(async move { self.ask(&call).await })
    }

    fn watch(&self, path: String) -> LocalFuture<'_, Result<Box<dyn Watch>, NoWatch>> {
        Box::pin(async move {
            let watch: Box<dyn Watch> = Box::new(self.open_watch(&path).await?);
            Ok(watch)
        })
    }

    fn reconnect(&self) {
        self.epoch.set(self.epoch.get() + 1);
        self.idle.borrow_mut().clear();
    }

    fn knock(&self) -> LocalFuture<'_, Knock> {
        Box::pin(async move {
            let peer = self.peer.borrow().as_ref().map(|peer| {
                let url = self.settings.servers[peer.server].clone();
                (peer.address, url, peer.tls.clone())
            });
            let Some((address, url, tls)) = peer else {
                return Knock::Shut;
            };
            let name = self.settings.server_name.as_deref();
            let knocking = self.client.knock(address, &url, &tls, name, KNOCK);
            knocking.await
        })
    }
}

/// What the node says of itself, one after the other: it waits for no slot, or a slow link that is full of
/// lists would pass for one that is silent.
fn is_of_the_beat(path: &str) -> bool {
    path.starts_with("/apis/coordination.k8s.io/") || path.starts_with("/api/v1/nodes/")
}

/// Whether a call that came to nothing over a connection kept open is asked once more over a new one:
/// the peer may close an idle connection at any time (RFC 9112 section 9.3.1). What may have been
/// carried out is repeated only where that does no harm (RFC 9110 section 9.2.2).
pub fn is_asked_anew(lost: &Unanswered, method: &Method) -> bool {
    let harmless = lost.sent == Sent::Nothing || method.is_idempotent();
    harmless && matches!(lost.error, Error::Broken(_))
}

/// An open watch: JSON objects, one a line.
struct HttpWatch {
    response: Response,
    clock: Rc<dyn Clock>,
    silence: Duration,
    /// When silence has lasted too long.
    deadline: BootTime,
    lines: Lines,
}

impl Watch for HttpWatch {
    fn next(&mut self) -> LocalFuture<'_, Result<Option<Value>, NoAnswer>> {
        Box::pin(async move {
            loop {
                if let Some(event) = self.lines.next().map_err(NoAnswer::Unusable)? {
                    return Ok(Some(event));
                }
                match self.response.chunk_until(self.deadline).await {
                    Ok(Some(bytes)) => {
                        self.deadline = self.clock.now() + self.silence;
                        self.lines.push(&bytes);
                    }
                    Ok(None) if self.lines.is_empty() => return Ok(None),
                    Ok(None) => {
                        let text = "the watch ended in the middle of an event".to_owned();
                        return Err(NoAnswer::Unreachable(text));
                    }
                    Err(error) => return Err(no_answer(error)),
                }
            }
        })
    }
}

/// Bytes that become lines.
#[derive(Default)]
struct Lines {
    bytes: Vec<u8>,
    /// Bytes that are known to hold no end of a line.
    searched: usize,
}

impl Lines {
    fn push(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    fn is_empty(&self) -> bool {
        self.bytes.iter().all(u8::is_ascii_whitespace)
    }

    fn next(&mut self) -> Result<Option<Value>, String> {
        loop {
            let rest = &self.bytes[self.searched..];
            let Some(end) = rest.iter().position(|byte| *byte == b'\n') else {
                self.searched = self.bytes.len();
                return match self.searched > LINE_BYTES_MAX {
                    true => Err(format!("an event is larger than {LINE_BYTES_MAX} bytes")),
                    false => Ok(None),
                };
            };
            let end = self.searched + end + 1;
            let line: Vec<u8> = self.bytes.drain(..end).collect();
            self.searched = 0;
            if !line.trim_ascii().is_empty() {
                let event = serde_json::from_slice(&line);
                return event
                    .map(Some)
                    .map_err(|error| format!("an event is no JSON: {error}"));
            }
        }
    }
}

impl<'a> Asked<'a> {
    fn of(call: &'a Call) -> Asked<'a> {
        let body = call.body.as_ref().map(|body| Bytes::from(body.to_string()));
        let method = match call.verb {
            Verb::Get => Method::GET,
            Verb::Create => Method::POST,
            Verb::Update => Method::PUT,
            Verb::Patch => Method::PATCH,
            Verb::Delete => Method::DELETE,
        };
        Asked {
            content_type: body.as_ref().map(|_| match call.verb {
                Verb::Patch => "application/strategic-merge-patch+json",
                _ => "application/json",
            }),
            path: &call.path,
            body: body.unwrap_or_default(),
            method,
            encoding: PACKED,
        }
    }

    fn watch(path: &'a str) -> Asked<'a> {
        Asked {
            method: Method::GET,
            content_type: None,
            path,
            body: Bytes::new(),
            encoding: PLAIN,
        }
    }
}

/// `base` may have a path of its own (a cluster behind a proxy: `https://h/k8s/clusters/c-1`).
fn url(base: &Uri, path: &str) -> Result<Uri, Error> {
    let scheme = base.scheme_str().unwrap_or_default();
    let authority = base.authority().map_or("", |authority| authority.as_str());
    let prefix = base.path().trim_end_matches('/');
    let url = format!("{scheme}://{authority}{prefix}{path}");
    url.parse()
        .map_err(|error| Error::Request(format!("{path:?} is no path of a request: {error}")))
}

fn lost(error: Error) -> Unanswered {
    Unanswered {
        error,
        sent: Sent::Perhaps,
    }
}

/// `timeoutSeconds` of a path.
fn watch_timeout(path: &str) -> Duration {
    let query = path.split_once('?').map_or("", |(_, query)| query);
    let pairs = query.split('&').filter_map(|pair| pair.split_once('='));
    let mut values = pairs.filter(|(name, _)| *name == "timeoutSeconds");
    let seconds = values.find_map(|(_, value)| value.parse().ok());
    seconds.map_or(WATCH_TIMEOUT, Duration::from_secs)
}

fn no_answer(error: Error) -> NoAnswer {
    match error {
        Error::Timeout(text) | Error::Broken(text) => NoAnswer::Unreachable(text),
        Error::Protocol(text) | Error::Request(text) => NoAnswer::Unusable(text),
    }
}

/// Servers tell kubelets by the first word, as upstream's says it.
fn user_agent() -> HeaderValue {
    let architecture = match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    };
    let version = env!("CARGO_PKG_VERSION");
    let text = format!("kubelet/v1.36.0 (linux/{architecture}) lowtide/{version}");
    HeaderValue::try_from(text).expect("printable ASCII")
}

#[cfg(test)]
#[path = "http_patience_tests.rs"]
mod patience_tests;
#[cfg(test)]
#[path = "http_tests.rs"]
mod tests;
