//! lowtide: a Kubernetes node in one static binary that does not need its cluster.
//!
//! Modules in reading order, top floor first; floors import only downwards (`tests/tidy.rs`
//! checks it). `ARCHITECTURE.md` is the long form of this list.
//!
//! ```text
//! floor 4   cli  node          flags and the small client; the composition root
//! floor 3   kubelet  apiserver  manifest  controller  remote  upgrade    blind to each other:
//!                              they meet in the registry
//! floor 2   runtime  admission sandboxes, containers, images, volumes, shim; rules of writes
//! floor 1   registry  net  os  the one door; bytes; the kernel
//! floor 0   object  world      pure data; the seams
//! ```

pub mod admission;
pub mod apiserver;
pub mod cli;
pub mod controller;
pub mod kubelet;
pub mod manifest;
pub mod net;
pub mod node;
pub mod object;
pub mod os;
pub mod registry;
pub mod remote;
pub mod runtime;
pub mod upgrade;
pub mod world;
