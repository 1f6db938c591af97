//! `world::Cluster` over simulated connections: hyper's client, and the patience of the real door.
//!
//! What `remote::http` does around it is done here too, since a lost answer, a pooled connection that
//! died or a half-open watch is where the sync has to be right: few calls at a time, connections used
//! again, a call repeated where `remote::http` says so, time limits for each stage. TLS and
//! credentials are not simulated; who asks is said by a token.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::Duration;

use async_executor::Task;
use bytes::Bytes;
use futures_lite::future::or;
use http::{Method, Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::http1::{SendRequest, handshake};
use lowtide::net::client::{Error, Sent, Unanswered};
use lowtide::remote::http::is_asked_anew;
use lowtide::world::{
    Call, Clock, Cluster, Knock, LocalFuture, NoAnswer, NoWatch, Reply, Verb, Watch,
};
use serde_json::Value;
use smol_hyper::rt::FuturesIo;

use super::sea::Sea;
use crate::run::Executor;

/// As `remote::http` has them.
const KNOCK: Duration = Duration::from_millis(900);
const CONNECT: Duration = Duration::from_secs(10);
const FIRST_BYTE: Duration = Duration::from_secs(30);
const IDLE: Duration = Duration::from_secs(30);
const WATCH_SILENCE: Duration = Duration::from_secs(1830);
const CALLS_MAX: usize = 3;

/// Sees each call before it leaves.
pub type Overseer = Rc<dyn Fn(&Call)>;

pub struct Door {
    sea: Rc<Sea>,
    clock: Rc<dyn Clock>,
    /// Of the machine that dials: its connections end with it.
    executor: Rc<Executor>,
    /// `None`: over the cluster's own socket.
    token: Option<&'static str>,
    overseer: Option<Overseer>,
    slots: smol::lock::Semaphore,
    idle: RefCell<Vec<Session>>,
    /// How often connections were forgotten: those of before are not kept.
    epoch: Cell<u64>,
}

/// One open connection.
struct Session {
    sender: SendRequest<Full<Bytes>>,
    _connection: Task<()>,
}

/// What came to nothing because of the connection.
fn broken(error: &hyper::Error, sent: Sent) -> Unanswered {
    Unanswered {
        error: Error::Broken(error.to_string()),
        sent,
    }
}

fn no_answer(lost: Unanswered) -> NoAnswer {
    NoAnswer::Unreachable(lost.error.to_string())
}

fn method(verb: Verb) -> Method {
    match verb {
        Verb::Get => Method::GET,
        Verb::Create => Method::POST,
        Verb::Update => Method::PUT,
        Verb::Patch => Method::PATCH,
        Verb::Delete => Method::DELETE,
    }
}

impl Door {
    pub fn new(
        sea: &Rc<Sea>,
        clock: Rc<dyn Clock>,
        executor: &Rc<Executor>,
        token: Option<&'static str>,
        overseer: Option<Overseer>,
    ) -> Rc<Door> {
        Rc::new(Door {
            sea: Rc::clone(sea),
            clock,
            executor: Rc::clone(executor),
            token,
            overseer,
            slots: smol::lock::Semaphore::new(CALLS_MAX),
            idle: RefCell::default(),
            epoch: Cell::new(0),
        })
    }

    pub async fn wait(&self, span: Duration) {
        self.clock.sleep_until(self.clock.now() + span).await;
    }

    async fn within<T>(
        &self,
        span: Duration,
        what: &str,
        work: impl Future<Output = Result<T, Unanswered>>,
    ) -> Result<T, Unanswered> {
        let late = async {
            self.clock.sleep_until(self.clock.now() + span).await;
            Err(Unanswered {
                error: Error::Timeout(format!("{what}: timeout")),
                sent: Sent::Perhaps,
            })
        };
        or(work, late).await
    }

    async fn open(&self) -> Result<Session, NoAnswer> {
        let end = self.sea.connect(CONNECT).await;
        let end = end.map_err(NoAnswer::Unreachable)?;
        let shaken = handshake(FuturesIo::new(end)).await;
        let (sender, connection) = shaken.map_err(|e| NoAnswer::Unreachable(e.to_string()))?;
        let connection = async move {
            // Whoever asks learns why it ended.
            let _ = connection.await;
        };
        Ok(Session {
            sender,
            _connection: self.executor.spawn(connection),
        })
    }

    async fn send(
        &self,
        session: &mut Session,
        call: &Call,
    ) -> Result<Response<Incoming>, Unanswered> {
        let kind = match call.verb {
            Verb::Patch => "application/strategic-merge-patch+json",
            _ => "application/json",
        };
        let body = call.body.as_ref().map(Value::to_string).unwrap_or_default();
        let mut request = Request::builder()
            .method(method(call.verb))
            .uri(&call.path)
            .header("Host", "cluster")
            .header("Accept", "application/json");
        if call.body.is_some() {
            request = request.header("Content-Type", kind);
        }
        if let Some(token) = self.token {
            request = request.header("Authorization", format!("Bearer {token}"));
        }
        let request = request.body(Full::new(body.into())).expect("a request");
        self.within(FIRST_BYTE, "wait for the answer", async {
            let ready = session.sender.ready().await;
            ready.map_err(|error| broken(&error, Sent::Nothing))?;
            let answer = session.sender.try_send_request(request).await;
            answer.map_err(|lost| match lost.message() {
                Some(_) => broken(lost.error(), Sent::Nothing),
                None => broken(lost.error(), Sent::Perhaps),
            })
        })
        .await
    }

    async fn read(&self, response: Response<Incoming>) -> Result<Reply, Unanswered> {
        let status = response.status().as_u16();
        let retry_after = response.headers().get("Retry-After");
        let retry_after = retry_after.and_then(|value| value.to_str().ok()?.parse().ok());
        let mut incoming = response.into_body();
        let mut bytes = Vec::new();
        let next = |incoming: Incoming| async {
            let mut incoming = incoming;
            let frame = incoming.frame().await;
            (frame, incoming)
        };
        loop {
            let read = async { Ok(next(incoming).await) };
            let (frame, rest) = self.within(IDLE, "read the answer", read).await?;
            incoming = rest;
            match frame {
                None => break,
                Some(Ok(frame)) => bytes.extend(frame.into_data().unwrap_or_default()),
                Some(Err(error)) => return Err(broken(&error, Sent::Perhaps)),
            }
        }
        Ok(Reply {
            status,
            body: serde_json::from_slice(&bytes).unwrap_or_default(),
            retry_after: retry_after.map(Duration::from_secs),
        })
    }

    async fn exchange(&self, mut session: Session, call: &Call) -> Result<Reply, Unanswered> {
        let epoch = self.epoch.get();
        let response = self.send(&mut session, call).await?;
        let reply = self.read(response).await?;
        if epoch == self.epoch.get() {
            self.idle.borrow_mut().push(session);
        }
        Ok(reply)
    }

    async fn ask(&self, call: &Call) -> Result<Reply, NoAnswer> {
        let _slot = self.slots.acquire().await;
        if let Some(overseer) = &self.overseer {
            overseer(call);
        }
        let idle = self.idle.borrow_mut().pop();
        if let Some(session) = idle {
            match self.exchange(session, call).await {
                Err(lost) if is_asked_anew(&lost, &method(call.verb)) => {}
                decided => return decided.map_err(no_answer),
            }
        }
        let session = self.open().await?;
        let asked = self.exchange(session, call).await;
        asked.map_err(no_answer)
    }

    async fn open_watch(&self, path: String) -> Result<SimWatch, NoWatch> {
        let mut session = self.open().await.map_err(NoWatch::NoAnswer)?;
        let lost = |lost| NoWatch::NoAnswer(no_answer(lost));
        let sent = self.send(&mut session, &Call::get(path)).await;
        let response = sent.map_err(lost)?;
        if !response.status().is_success() {
            return Err(NoWatch::Refused(self.read(response).await.map_err(lost)?));
        }
        Ok(SimWatch {
            incoming: response.into_body(),
            bytes: Vec::new(),
            clock: Rc::clone(&self.clock),
            _session: session,
        })
    }
}

impl Cluster for Door {
    fn call(&self, call: Call) -> LocalFuture<'_, Result<Reply, NoAnswer>> {
        Box::pin(async move { self.ask(&call).await })
    }

    fn watch(&self, path: String) -> LocalFuture<'_, Result<Box<dyn Watch>, NoWatch>> {
        Box::pin(async move {
            let watch: Box<dyn Watch> = Box::new(self.open_watch(path).await?);
            Ok(watch)
        })
    }

    fn reconnect(&self) {
        self.epoch.set(self.epoch.get() + 1);
        self.idle.borrow_mut().clear();
    }

    fn knock(&self) -> LocalFuture<'_, Knock> {
        Box::pin(async move {
            match self.sea.connect(KNOCK).await {
                Ok(_) => Knock::Open,
                Err(_) => Knock::Shut,
            }
        })
    }
}

struct SimWatch {
    incoming: Incoming,
    bytes: Vec<u8>,
    clock: Rc<dyn Clock>,
    _session: Session,
}

impl SimWatch {
    fn line(&mut self) -> Option<Value> {
        let end = self.bytes.iter().position(|byte| *byte == b'\n')?;
        let line: Vec<u8> = self.bytes.drain(..=end).collect();
        Some(serde_json::from_slice(&line).expect("an API server writes JSON"))
    }
}

impl Watch for SimWatch {
    fn next(&mut self) -> LocalFuture<'_, Result<Option<Value>, NoAnswer>> {
        Box::pin(async move {
            let unreachable = |why: &str| Err(NoAnswer::Unreachable(why.to_owned()));
            loop {
                if let Some(event) = self.line() {
                    return Ok(Some(event));
                }
                let deadline = self.clock.now() + WATCH_SILENCE;
                let silence = async {
                    self.clock.sleep_until(deadline).await;
                    None
                };
                match or(async { Some(self.incoming.frame().await) }, silence).await {
                    None => return unreachable("read the watch: timeout"),
                    Some(None) if self.bytes.is_empty() => return Ok(None),
                    Some(None) => return unreachable("the watch ended within an event"),
                    Some(Some(Err(error))) => return unreachable(&error.to_string()),
                    Some(Some(Ok(frame))) => {
                        self.bytes.extend(frame.into_data().unwrap_or_default());
                    }
                }
            }
        })
    }
}
