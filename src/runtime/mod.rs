//! Sandboxes and containers of one node, over the kernel, shims and an OCI runtime.
//!
//! ```text
//! host ──► sandbox (records, files) ── cgroup ── network
//!   │  ├─► shim ── oci
//!   │  └─► bundle ── volumes ── images
//!   └ implements world::Runtime
//! ```

pub mod bundle;
pub mod cgroup;
pub mod host;
pub mod images;
pub mod logs;
pub mod network;
pub mod oci;
pub mod pause;
pub mod sandbox;
pub mod shim;
pub mod stats;
pub mod volumes;
