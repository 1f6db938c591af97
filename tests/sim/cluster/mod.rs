//! The node of the simulation and a second lowtide as its cluster, with a link between them.
//!
//! ```text
//!   node: kubelet, registry, manifests, remote ──► door ──► sea ──► far: API server, registry, …
//!     │                                              ▲ overseer          ▲ a user, over its own socket
//!     └── host, judge (safety)                    witness ── looks at both ends at every moment
//! ```
//! Rules beside those of `judge`, checked at the very step:
//!
//! | rule | broken when |
//! |---|---|
//! | never let go | the node's registry drops or ends a pod of the cluster that the cluster never gave up |
//! | first the disk | something of a pod starts that a power cut now would take away, with what it names |
//! | ended first | a DELETE of a pod of the cluster of which something lives here |
//! | over is over | something starts of a pod whose end the node has told by its DELETE |
//! | no reason, no end | a container of a pod ends that the cluster never gave up, and for no reason of its own |
//! | own business | a DELETE of what is no mirror and not asked to go; no UID; a new pod that is no mirror |
//! | no mixing | the cluster is told of containers of another pod |
//!
//! Soon after nothing goes wrong any more the node knows each pod that it was given, even where its watch
//! was half open. In the end the Node is Ready and its lease fresh, both ends agree about every pod and
//! about what is mounted, what a user was promised is there (`ledger`: pods, bindings, deletions), one that is asked to go in fair
//! weather goes in its grace, what was resized has its new limits, deletions are finished, mirrors are those of
//! the static pods, and who has a mirror's name is told of. `liar` shows that the checkers see.

mod check;
mod door;
mod far;
mod ledger;
mod liar;
mod sea;
mod story;
mod user;
mod wire;
mod witness;

pub use liar::Mutation;
pub use story::{simulate, simulate_with};
