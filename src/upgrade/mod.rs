//! Another program in the place of this one, under running pods, and back again if it is no good.
//!
//! ```text
//!  lowtide upgrade FILE            whoever holds agent.lock at a start         the new agent
//!  signature ► TARGET.new ► ROOT/upgrade/record: prepared
//!  restart ──────────────────────► keep the store ► TARGET := TARGET.new ► record: trying
//!                                                                            ready for 10 s ► record gone
//!  not in time: marker, restart ─► TARGET := previous ► store := kept ► report ► record gone
//! ```
//! `record.rs` says where an upgrade stands, `root.rs` in which ROOT, `advance.rs` takes the next step,
//! `command.rs` is what the operator started and waits, `manager.rs` how the agent is started again,
//! `signature.rs` whom to trust.
//!
//! Every step is taken under the agent's lock and can be taken again after a power cut. The steps
//! belong to the starts of the agent, not to the command: a terminal that is lost on the way changes
//! nothing. What the store needs on the way back is done by the program before, which is judged good.
//! A program that starts and is never ready goes back by itself after a few tries; one that cannot even
//! start needs `lowtide upgrade --guard` of the program before (systemd's ExecStartPre=), or the command
//! that still waits.

mod advance;
mod command;
mod manager;
mod record;
mod root;
mod signature;

pub use advance::{Next, at_start, reject, settle};
pub use command::{Asked, Role, run};
pub use root::announce;
