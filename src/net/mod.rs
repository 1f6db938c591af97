//! (being written)

pub mod serve;
pub mod unix;
pub mod websocket;
