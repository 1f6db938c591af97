//! Sandboxes and containers of one node, over the kernel, shims and an OCI runtime.

pub mod bundle;
pub mod shim;
pub mod volumes;
