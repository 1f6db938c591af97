//! The kernel, and nothing else: the only home of `nix`, `libc`, `rustix` and `unsafe`.

pub mod background;
pub mod directory_watch;
pub mod fs_at;
pub mod resolve;
