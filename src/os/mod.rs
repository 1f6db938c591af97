//! (being written)

pub mod volume_fs;
