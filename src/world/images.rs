//! Images as the node loop sees them: names, presence, pulls.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::LocalFuture;

/// The part of an OCI image configuration that a container is built from.
/// Source: OCI image-spec, config.md ("config" object).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImageConfig {
    pub user: String,
    /// `NAME=value`, as the image lists them.
    pub env: Vec<String>,
    pub entrypoint: Vec<String>,
    pub cmd: Vec<String>,
    pub working_dir: String,
    pub stop_signal: Option<String>,
    /// Paths that the image declares as volumes.
    pub volumes: Vec<String>,
    pub labels: BTreeMap<String, String>,
}

/// An image that is wholly here and checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Image {
    /// Digest of the image configuration: `sha256:<64 hex>`.
    pub id: String,
    /// `docker.io/library/busybox:1.36`
    pub tags: Vec<String>,
    /// `docker.io/library/busybox@sha256:…`
    pub digests: Vec<String>,
    /// Unpacked size.
    pub size_bytes: u64,
    /// Imported from `--image-dir`, so never collected.
    pub pinned: bool,
    pub config: ImageConfig,
}

impl Image {
    /// What a status shows as imageID: where it came from, to the byte, or the identifier of an image
    /// that came from no registry. Source: containerd's CRI (imageRef).
    pub fn shown(&self) -> &str {
        self.digests.first().unwrap_or(&self.id)
    }
}

#[derive(Clone, PartialEq, Eq)]
pub enum Credential {
    Basic { username: String, password: String },
    IdentityToken(String),
}

impl fmt::Debug for Credential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Credential::Basic { username, .. } => write!(f, "Basic({username}, …)"),
            Credential::IdentityToken(_) => f.write_str("IdentityToken(…)"),
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PullRequest {
    /// As written in the pod.
    pub reference: String,
    /// docker config.json documents from the pod's pull secrets, in order; the node's own files
    /// are tried after them.
    pub docker_configs: Vec<Vec<u8>>,
}

/// Why a pull failed, by what the node does next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PullError {
    /// The reference cannot be parsed: `InvalidImageName`.
    InvalidName(String),
    /// No answer, time-out, 5xx, 429, broken connection: a cached image may be used instead.
    Unreachable(String),
    /// The registry answered and said no (401, 403, 404, wrong digest, wrong platform).
    Refused(String),
    /// The image came but could not be used (a bad archive, a limit of this node).
    Local(String),
    /// The disk does not take or give it now: full, read-only, input/output error. The same again
    /// may work later.
    Disk(String),
}

impl fmt::Display for PullError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            PullError::InvalidName(text)
            | PullError::Unreachable(text)
            | PullError::Refused(text)
            | PullError::Local(text)
            | PullError::Disk(text) => f.write_str(text),
        }
    }
}

impl std::error::Error for PullError {}

/// The file system that holds the images.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DiskUse {
    pub capacity_bytes: u64,
    /// For writers without privileges.
    pub free_bytes: u64,
}

pub trait Images {
    /// The image that `reference` (as written in a pod) names here, checked, or `None`.
    fn find(&self, reference: &str) -> Option<Arc<Image>>;

    fn list(&self) -> Vec<Arc<Image>>;

    /// Resolves when the first scan of `--image-dir` has ended: no image is pulled before.
    fn first_scan(&self) -> LocalFuture<'_, ()>;

    /// Counts imports and finished pulls; a change clears pull back-off of images that are here.
    fn generation(&self) -> u64;

    /// Resolves when `generation()` differs from `seen`.
    fn changed(&self, seen: u64) -> LocalFuture<'_, u64>;

    /// Errors: a text with the cause.
    fn disk_use(&self) -> LocalFuture<'_, Result<DiskUse, String>>;

    /// Removes an image by id, with all its names. It cannot be found from the call on, unless it
    /// fails. `in_use`: ids of images whose layers must stay.
    fn discard<'a>(
        &'a self,
        id: &'a str,
        in_use: Vec<String>,
    ) -> LocalFuture<'a, Result<(), PullError>>;

    /// Fetches and unpacks; returns at once if the registry's digest is already here.
    /// Pulls of one image at the same time are one pull.
    fn pull(&self, request: PullRequest) -> LocalFuture<'_, Result<Arc<Image>, PullError>>;
}
