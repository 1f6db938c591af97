//! The kernel, and nothing above it: the only place with `nix`, `libc`, `rustix` and `unsafe`.

pub mod inotify;
pub mod probe;
pub mod regular_file;
pub mod volume_fs;
