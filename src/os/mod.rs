//! The kernel, and nothing else: the only home of `nix`, `libc`, `rustix` and `unsafe`.

pub mod background;
pub mod fs_at;
pub mod resolve;
