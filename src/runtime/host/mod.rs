//! (being written)
pub mod exit;
pub mod layout;
pub mod rootfs;
