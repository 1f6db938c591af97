//! Sandboxes, containers, images, volumes and the shim: what the node does to the machine.

pub mod bundle;
pub mod images;
pub mod shim;
pub mod volumes;
