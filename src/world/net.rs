//! What probes and hooks ask of the network.

use std::fmt;
use std::time::Duration;

use super::LocalFuture;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scheme {
    Http,
    Https,
}

/// One HTTP check of a probe or a hook: GET, no proxy, no keep-alive, TLS not verified.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HttpCheck {
    pub scheme: Scheme,
    pub host: String,
    pub port: u16,
    /// Path with query, starting with `/`.
    pub path: String,
    /// In the order given; `Host` is honoured.
    pub headers: Vec<(String, String)>,
    pub timeout: Duration,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HttpAnswer {
    pub status: u16,
    /// At most 10 KiB.
    pub body: Vec<u8>,
    /// The answer was a redirect to another host, which is not followed.
    pub redirected_elsewhere: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NetError {
    /// The whole check took longer than its timeout.
    Timeout,
    /// The peer was reached and answered something else than HTTP or TLS.
    Protocol(String),
    /// Connection refused, unreachable, reset, name not found.
    Failed(String),
}

impl fmt::Display for NetError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            NetError::Timeout => f.write_str("context deadline exceeded"),
            NetError::Protocol(text) | NetError::Failed(text) => f.write_str(text),
        }
    }
}

impl std::error::Error for NetError {}

pub trait Net {
    /// Opens a TCP connection to `host:port` and closes it again.
    fn tcp_check(
        &self,
        host: &str,
        port: u16,
        timeout: Duration,
    ) -> LocalFuture<'_, Result<(), NetError>>;

    /// One GET. Redirects are followed to the same host name only, ten at most.
    /// Source: Kubernetes pkg/probe/http.
    fn http_check(&self, check: HttpCheck) -> LocalFuture<'_, Result<HttpAnswer, NetError>>;

    /// Asks gRPC's health service for the status of `service`, by its number: 1 is serving.
    /// Source: Kubernetes pkg/probe/grpc; grpc.health.v1.
    fn grpc_check(
        &self,
        host: &str,
        port: u16,
        service: &str,
        timeout: Duration,
    ) -> LocalFuture<'_, Result<u64, NetError>>;
}
