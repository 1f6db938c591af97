//! The `lowtide` binary end to end: a real agent, real shims, real runc, looked at with the client
//! and in the kernel.
//!
//! Every test runs in network, mount and process namespaces of its own (`isolated`), so that a
//! failed test leaves nothing but empty cgroups, which are removed. Each ends with `Node::finish`,
//! which stops node and pods and demands that the kernel is as it was.
#![allow(clippy::disallowed_methods)]

mod accounts;
mod apply;
#[path = "../support/bad_link.rs"]
mod bad_link;
mod bad_links;
mod bootstrap;
mod client;
mod cluster;
mod cni;
mod disk;
mod front;
mod health;
#[path = "../support/host.rs"]
mod host;
#[path = "../support/image.rs"]
mod image;
mod isolation;
mod kubelet_port;
mod manifests;
mod pods;
mod power_cuts;
mod private;
#[path = "../images/registry.rs"]
#[allow(dead_code)]
mod registry;
mod resize;
mod secrets;
mod site;
mod stats;
mod streams;
mod support;
mod survival;
mod tls;
mod upgrade;
