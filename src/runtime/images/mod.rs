//! Images: unpacked once, found by name, imported from files or pulled from registries.
//!
//! ```text
//!   --image-dir ─► directory ─► archive ─┐
//!   lowtide import ────────────► archive ─┼─► content (layers, blobs) ─► catalog ─► find, layers
//!   registry ──► distribution ─► pull ───┘        unpack, tree
//! ```
//!
//! An image is *here* when its configuration and every layer are whole; anything less is as if it
//! were not, until a pull or an import brings the missing part. Nothing is stored compressed.
//! Blocking work runs on [`crate::os::background`] threads; state lives on the node's thread.

mod archive;
mod catalog;
mod challenge;
mod content;
mod credentials;
mod decompress;
mod digest;
mod directory;
mod distribution;
mod manifest;
mod platform;
mod pull;
mod reference;
mod registries;
mod store;
mod tree;
mod unpack;

pub use content::Depth;
pub use digest::Digest;
pub use manifest::read_document;
pub use pull::Progress;
pub use reference::{Reference, Version};
pub use registries::Registries;
pub use store::{ImageStore, Options};
pub use unpack::{Limits, unpack};
