//! A pod's sandbox as data: the records of what was made, and the files its containers share.
//!
//! The acts (cgroup, shim, pause, network) are `host`'s; nothing here touches the kernel beyond
//! small files.

pub mod files;
pub mod record;
