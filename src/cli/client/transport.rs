//! Requests to the node over its unix socket.

use std::error::Error as _;
use std::fmt;
use std::future::Future;
use std::io;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use async_executor::LocalExecutor;
use async_io::Async;
use bytes::Bytes;
use http::{Method, Request, Response, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use serde_json::Value;
use smol_hyper::rt::FuturesIo;

use crate::net::serve::Duplex;
use crate::net::unix;
use crate::os::task;

/// Largest answer kept in memory: 1,000 objects of the largest size are less.
const ANSWER_BYTES_MAX: usize = 256 << 20;

/// What `kubectl get` asks for.
pub const TABLE: &str = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json";

/// Why a command failed, and what the user reads.
#[derive(Debug)]
pub enum Error {
    /// No node answers on the socket.
    NoNode { socket: PathBuf, cause: io::Error },
    /// The node said no: reason and message of its Status, and the code.
    Server {
        code: u16,
        reason: String,
        message: String,
    },
    /// Arguments that do not fit together: exit code 2.
    Usage(String),
    /// The connection broke, or the answer made no sense.
    Broken(String),
}

impl Error {
    /// What the node said of something that stands at this place of a file.
    pub fn at(self, place: &str) -> Error {
        match self {
            Error::Server {
                code,
                reason,
                message,
            } => Error::Server {
                code,
                reason,
                message: format!("{place}: {message}"),
            },
            other => other,
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::NoNode { socket, cause } => {
                write!(f, "no node answers on {} ({cause})", socket.display())?;
                match cause.kind() {
                    io::ErrorKind::PermissionDenied => {
                        write!(f, "\nonly root may use it: try sudo")
                    }
                    _ => write!(
                        f,
                        "\nstart one with `systemctl start lowtide` or `lowtide run`, \
                         or name its directory with --run-dir"
                    ),
                }
            }
            Error::Server {
                reason, message, ..
            } if reason.is_empty() => {
                write!(f, "Error from server: {message}")
            }
            Error::Server {
                reason, message, ..
            } => {
                write!(f, "Error from server ({reason}): {message}")
            }
            Error::Usage(text) | Error::Broken(text) => f.write_str(text),
        }
    }
}

impl std::error::Error for Error {}

impl Error {
    pub fn from_status(code: u16, body: &[u8]) -> Error {
        let status: Value = serde_json::from_slice(body).unwrap_or_default();
        let text = |field: &str| status[field].as_str().map(str::to_owned);
        Error::Server {
            code,
            reason: text("reason").unwrap_or_default(),
            message: text("message").unwrap_or_else(|| format!("HTTP status {code}")),
        }
    }

    pub fn is_not_found(&self) -> bool {
        matches!(self, Error::Server { code: 404, .. })
    }
}

/// A connection to one node.
#[derive(Clone)]
pub struct Client {
    socket: PathBuf,
    executor: Rc<LocalExecutor<'static>>,
}

impl Client {
    pub fn new(run_dir: &Path) -> Client {
        Client {
            socket: run_dir.join("api.sock"),
            executor: Rc::new(LocalExecutor::new()),
        }
    }

    /// Runs a command to its end on this thread.
    pub fn block_on<T>(&self, work: impl Future<Output = T>) -> T {
        async_io::block_on(self.executor.run(work))
    }

    /// An open connection without a request on it.
    pub fn connect(&self) -> Result<Async<UnixStream>, Error> {
        let stream = unix::connect(&self.socket).and_then(Async::new);
        stream.map_err(|cause| Error::NoNode {
            socket: self.socket.clone(),
            cause,
        })
    }

    /// Sends one request without a body. Errors: everything that is no 2xx.
    pub async fn send(
        &self,
        method: Method,
        path: &str,
        accept: &'static str,
    ) -> Result<Response<Incoming>, Error> {
        let request = Request::builder().header(header::ACCEPT, accept);
        self.send_request(request.method(method).uri(path), Bytes::new())
            .await
    }

    /// Sends one request with a body of this media type. Errors: everything that is no 2xx.
    pub async fn send_body(
        &self,
        method: Method,
        path: &str,
        content_type: &'static str,
        body: Bytes,
    ) -> Result<Response<Incoming>, Error> {
        let request = Request::builder()
            .header(header::ACCEPT, "application/json")
            .header(header::CONTENT_TYPE, content_type);
        self.send_request(request.method(method).uri(path), body)
            .await
    }

    async fn send_request(
        &self,
        request: http::request::Builder,
        body: Bytes,
    ) -> Result<Response<Incoming>, Error> {
        let stream: Box<dyn Duplex> = Box::new(self.connect()?);
        let broken = |error: hyper::Error| {
            let cause = error.source().map(ToString::to_string);
            let cause = cause.unwrap_or_else(|| error.to_string());
            Error::Broken(format!("the node broke off before it answered: {cause}"))
        };
        let (mut sender, connection) = http1::handshake(FuturesIo::new(stream))
            .await
            .map_err(broken)?;
        let driven = async {
            // What breaks here breaks the response, which says so.
            let _ = connection.await;
        };
        task::spawn(&self.executor, driven).detach();
        let request = request
            .header(header::HOST, "localhost")
            .body(Full::new(body))
            .map_err(|error| Error::Broken(format!("make the request: {error}")))?;
        let response = sender.send_request(request).await.map_err(broken)?;
        if response.status().is_success() {
            return Ok(response);
        }
        let code = response.status().as_u16();
        let body = collect(response.into_body()).await?;
        Err(Error::from_status(code, &body))
    }

    /// One JSON answer.
    pub async fn get(&self, path: &str, accept: &'static str) -> Result<Value, Error> {
        let response = self.send(Method::GET, path, accept).await?;
        read_json(response).await
    }
}

pub async fn read_json(response: Response<Incoming>) -> Result<Value, Error> {
    let body = collect(response.into_body()).await?;
    let senseless = |error| Error::Broken(format!("read the node's answer: {error}"));
    serde_json::from_slice(&body).map_err(senseless)
}

async fn collect(body: Incoming) -> Result<Bytes, Error> {
    let body = Limited::new(body, ANSWER_BYTES_MAX).collect().await;
    let broken = |error| Error::Broken(format!("read the node's answer: {error}"));
    body.map(http_body_util::Collected::to_bytes)
        .map_err(broken)
}

/// A body cut into lines; the last one may lack its line feed.
pub struct Lines {
    body: Incoming,
    waiting: Vec<u8>,
}

impl Lines {
    pub fn of(response: Response<Incoming>) -> Lines {
        Lines {
            body: response.into_body(),
            waiting: Vec::new(),
        }
    }

    /// The next line as JSON, or `None` at the end.
    pub async fn next(&mut self) -> Result<Option<Value>, Error> {
        loop {
            if let Some(end) = self.waiting.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.waiting.drain(..=end).collect();
                let senseless = |error| Error::Broken(format!("read the node's answer: {error}"));
                return serde_json::from_slice(&line).map(Some).map_err(senseless);
            }
            match self.body.frame().await {
                None => return Ok(None),
                Some(Err(error)) => {
                    return Err(Error::Broken(format!("read the node's answer: {error}")));
                }
                Some(Ok(frame)) => {
                    let data = frame.into_data().unwrap_or_default();
                    self.waiting.extend_from_slice(&data);
                    if self.waiting.len() > ANSWER_BYTES_MAX {
                        return Err(Error::Broken("the node's answer is too long".to_owned()));
                    }
                }
            }
        }
    }
}
