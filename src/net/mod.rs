//! Bytes over the network: TLS, an HTTP client, and the checks of probes. Knows no Kubernetes
//! object and no image.

mod check;
pub mod client;
mod dial;
pub mod proxy;
pub mod serve;
pub mod tls;
pub mod unix;
pub mod websocket;

pub use check::RealNet;
