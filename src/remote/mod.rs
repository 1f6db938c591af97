//! The remote cluster: one more source of pods and one more reader of statuses, sometimes absent.
//!
//! ```text
//!  cluster ── list, watch ──► reflector ──► pull ──► registry.replace(Source::Remote)
//!     ▲                          │                            │
//!     └── node, lease, status, ──┴── push compares the two ◄──┘
//!         deletions, mirrors
//! ```
//! The registry is the outbox: what should be there is worked out of it and compared with what the
//! cluster was last seen to hold, so there is no queue that overflows while the link is down. Nothing
//! of a pod is decided here, and nothing is removed because the cluster is silent.

pub mod certificates;
mod credentials;
mod exec;
pub mod http;
pub mod kubeconfig;
#[cfg(test)]
mod testing;
