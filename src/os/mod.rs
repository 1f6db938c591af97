//! (being written)

pub mod peer;
pub mod thread;
pub mod tty;
