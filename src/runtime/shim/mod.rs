//! One shim for each pod: parent of its containers, writer of their logs, keeper of their exits.
//!
//! It is a process of its own so that the agent may die, be killed or be upgraded at any moment
//! without a container noticing. It decides nothing: it does what the agent asks, and records.
//!
//! ```text
//!   agent: client ──seqpacket──► shim: server ──► pause, OCI runtime, containers, execs
//!                  (wire)             └─► record: exit.json …, logs
//! ```

pub mod client;
pub mod record;
pub mod wire;
