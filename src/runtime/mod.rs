//! (being written)

pub mod bundle;
pub mod volumes;
