//! Sandboxes, containers, images, volumes and the shim: what the node does to the machine.

pub mod images;
