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
//! | over is over | something starts of a pod whose end the node has told by its DELETE |
//! | own business | a DELETE of what is no mirror and not asked to go; no UID; a new pod that is no mirror |
//! | no mixing | the cluster is told of containers of another pod |
//!
//! Once nothing goes wrong any more: the Node is Ready and its lease fresh, both ends agree about every
//! pod, deletions are finished, mirrors are those of the static pods.

mod check;
mod door;
mod far;
mod sea;
mod story;
mod user;
mod wire;
mod witness;

pub use story::simulate;
