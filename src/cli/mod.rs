//! Flags and the small client.

pub mod client;
