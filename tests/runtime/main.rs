//! The host runtime on a real kernel: namespaces, links, nft, cgroups, runc.
//!
//! Every test runs in network and mount namespaces of its own (`isolated`), so that nothing of the
//! machine is touched and a failed test leaves nothing in the kernel but processes it started,
//! which are killed by pid.

mod guests;
mod network;
mod node;
mod pods;
mod support;
