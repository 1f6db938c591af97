//! Manifests of a directory, a file or a URL, handed to the registry as complete lists.
//!
//! ```text
//! inotify, rescan ─► directory ─► decode ─► defaults ─► source ─► registry.replace(File)
//! GET every 20 s  ─► url       ─► decode ─► defaults ─► source ─► registry.replace(Http)
//! ```
//!
//! A text that cannot be used becomes a problem, never an absence: the pod of the last good text
//! keeps running. A source that cannot be read hands over nothing, so nothing is removed.
//! Never here: validation and Kubernetes defaults (the registry's), what becomes of pods.

pub mod decode;
pub mod defaults;
mod directory;
mod file;
mod problems;
mod source;
#[cfg(test)]
mod testing;
mod url;

pub use directory::{Content, Directory, FileText, Listing, ManifestFiles};
pub use file::FileSource;
pub use source::{Decoding, switch_off};
pub use url::{Answer, Fetch, HttpSource};
