//! One shim for each pod: parent of its containers, writer of their logs, keeper of their exits.
//!
//! It is a process of its own so that the agent may die, be killed or be upgraded at any moment
//! without a container noticing. It decides nothing: it does what the agent asks, and records.
//!
//! ```text
//!   agent: client ──seqpacket──► shim: server ──► pause, OCI runtime, containers, execs
//!                  (wire)             └─► record: exit.json …, logs
//! ```

mod attach;
pub mod client;
mod container;
mod exec;
pub mod executable;
mod infra;
mod job;
mod kill;
mod reap;
pub mod record;
mod server;
mod start;
mod watch;
pub mod wire;

use crate::os::early::Arguments;
use crate::os::process;
use crate::runtime::pause;

/// Becomes shim or pause if the arguments say so, and then never returns. Small roles are chosen
/// before `main`, so that they never touch the pages that the node needs.
pub fn early_dispatch(arguments: Arguments) {
    match arguments.get(1).and_then(|role| role.to_str()) {
        Some("shim") => process::exit_now(server::main(arguments)),
        Some("pause") => process::exit_now(pause::main(arguments)),
        Some(_) | None => {}
    }
}
