//! The local API over its real socket: a real registry, a real serve thread, a fake node behind.

mod abuse;
mod admitted;
mod callers;
mod client;
mod exec;
mod forward;
mod golden;
mod kubelet_port;
mod logs;
mod matrix;
mod node;
mod objects;
mod office;
mod patches;
mod reviews;
mod semantics;
mod spdy;
mod streams;
mod writes;
