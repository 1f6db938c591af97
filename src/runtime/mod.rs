//! Sandboxes and containers of one node, over the kernel, shims and an OCI runtime.

pub mod logs;
pub mod pause;
pub mod shim;
