//! The local API over its real socket: a real registry, a real serve thread, a fake node behind.

mod client;
mod exec;
mod logs;
mod node;
mod objects;
mod streams;
mod writes;
