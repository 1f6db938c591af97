//! The kernel, and nothing above it: the only place with `nix`, `libc`, `rustix` and `unsafe`.

pub mod netns;
pub mod pipe;
pub mod process;
pub mod spawn;
pub mod thread;
