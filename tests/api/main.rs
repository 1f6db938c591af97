//! The local API over its real socket: a real registry, a real serve thread, a fake node behind.

mod admitted;
mod client;
mod exec;
mod forward;
mod logs;
mod node;
mod objects;
mod patches;
mod semantics;
mod spdy;
mod streams;
mod writes;
