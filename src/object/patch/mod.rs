//! Patches: JSON (RFC 6902), merge (RFC 7386) and Kubernetes' strategic merge. Pure.
//!
//! All take the object as it is and give the object as it would be; whether that is allowed is
//! decided by others. A patch never makes an object deeper or much larger than what a request body
//! could have been, so that nobody downstream meets a tree that its stack cannot hold.

mod json;
mod merge;
mod order;
mod strategic;
#[cfg(test)]
mod strategic_tests;

use std::fmt;

pub use json::json_patch;
pub use merge::merge_patch;
pub use strategic::strategic_merge;

/// Why a patch was not applied; by what the answer is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PatchError {
    /// 400 `BadRequest` with this message: it is no patch at all.
    Malformed(String),
    /// 422 `Invalid`: it does not fit this object. Upstream's message is [`REJECTED`] for all of
    /// them; this text names the operation and the path, and belongs into a cause.
    Rejected(String),
    /// 413 `RequestEntityTooLarge` with this message.
    TooLarge(String),
}

/// The message of every 422 of a patch that does not fit.
pub const REJECTED: &str = "the server rejected our request due to an error in our request";

impl fmt::Display for PatchError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (PatchError::Malformed(text) | PatchError::Rejected(text) | PatchError::TooLarge(text)) =
            self;
        f.write_str(text)
    }
}

impl std::error::Error for PatchError {}
