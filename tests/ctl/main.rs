//! A current, unmodified kubectl against a real node over TLS: what its users do, and what it
//! prints.
//!
//! Skipped with the reason where no kubectl is: `LOWTIDE_KUBECTL` names one, `tests/kubectl` gets
//! one.
#![allow(clippy::disallowed_methods)]

mod ctl;
#[path = "../support/host.rs"]
#[allow(dead_code, reason = "shared with tests that need more of it")]
mod host;
#[path = "../support/image.rs"]
mod image;
#[path = "../node/isolation.rs"]
#[allow(dead_code, reason = "shared with tests that need more of it")]
mod isolation;
mod nodes;
mod reads;
#[path = "../node/support.rs"]
#[allow(dead_code, reason = "shared with tests that need more of it")]
mod support;
mod writes;
