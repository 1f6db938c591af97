//! The kernel, and nothing above it: the only place with `nix`, `libc`, `rustix` and `unsafe`.
//!
//! Each module wraps one subject of the kernel so that the floors above can stay safe Rust and
//! need no manual pages. Errors are `io::Error`; the caller adds operation and object.
//!
//! Never here: policy, Kubernetes words, retries.

pub mod allocator;
pub mod background;
pub mod changes;
pub mod clock;
pub mod directory_watch;
pub mod disk;
pub mod early;
pub mod file;
pub mod floor;
pub mod fs_at;
pub mod inotify;
pub mod mount;
pub mod moves;
pub mod netlink;
pub mod netns;
pub mod notify;
pub mod output;
pub mod pipe;
pub mod poll;
pub mod privilege;
pub mod probe;
pub mod process;
pub mod random;
pub mod regular_file;
pub mod remove;
pub mod resolve;
pub mod signal;
pub mod socket;
pub mod spawn;
pub mod task;
pub mod tcp;
pub mod terminal;
pub mod thread;
pub mod tree;
#[cfg(all(panic = "abort", target_feature = "crt-static"))]
mod unwind;
pub mod volume_fs;
