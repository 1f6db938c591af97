//! Bytes over the network: TLS, an HTTP client, and the checks of probes. Knows no Kubernetes
//! object and no image.

pub mod certificates;
mod check;
pub mod client;
pub mod date;
mod dial;
mod grpc;
pub mod proxy;
pub mod serve;
pub mod spdy;
pub mod tls;
pub mod tls_server;
pub mod tunnel;
pub mod unix;
pub mod websocket;

pub use check::RealNet;
