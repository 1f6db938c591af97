//! Threads with a name and a bounded stack.

use std::io;
use std::thread::{Builder, JoinHandle};

/// Enough for TLS, JSON and image formats; the standard 2 MiB (8 on the main thread) is only
/// address space, but it is counted by `ulimit -v` and by 32-bit machines.
pub const STACK_BYTES: usize = 512 * 1024;

/// Starts a thread. `name` shows in `ps -L` and is cut to 15 bytes by the kernel.
pub fn spawn<F>(name: &str, work: F) -> io::Result<JoinHandle<()>>
where
    F: FnOnce() + Send + 'static,
{
    Builder::new()
        .name(name.to_owned())
        .stack_size(STACK_BYTES)
        .spawn(work)
}
