//! Threads with a name and a bounded stack.

use std::cell::Cell;
use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::thread::{Builder, JoinHandle};

/// Enough for TLS, JSON and image formats; the standard 2 MiB (8 on the main thread) is only
/// address space, but it is counted by `ulimit -v` and by 32-bit machines. The deepest YAML that is
/// read takes 180 KiB; frames that are not optimised are several times as large.
pub const STACK_BYTES: usize = match cfg!(debug_assertions) {
    true => 2 << 20,
    false => 512 << 10,
};

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

thread_local! {
    static NEVER_WAITS: Cell<bool> = const { Cell::new(false) };
}

/// From now on the calling thread never waits for a disk: it owns the node's state, and everything
/// stands still with it.
pub fn never_wait_here() {
    NEVER_WAITS.set(true);
}

/// What waits for a disk or hashes for long says so first. Debug builds panic on a thread that
/// shall not.
pub fn may_wait(what: &str) {
    debug_assert!(!NEVER_WAITS.get(), "{what} on the thread of the node");
}

/// fsync of a file or a directory; the only one there is.
pub fn flush(file: impl AsFd) -> io::Result<()> {
    may_wait("fsync");
    Ok(rustix::fs::fsync(file)?)
}

/// fsync of a directory by its path.
pub fn flush_directory(path: &std::path::Path) -> io::Result<()> {
    flush(File::open(path)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[cfg(debug_assertions)]
    fn the_thread_of_the_node_cannot_flush() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().to_owned();
        flush_directory(&path).unwrap();
        let (sender, result) = std::sync::mpsc::channel();
        let node = spawn("node", move || {
            never_wait_here();
            sender
                .send(std::panic::catch_unwind(|| flush_directory(&path)))
                .unwrap();
        });
        node.unwrap().join().unwrap();
        assert!(result.recv().unwrap().is_err());
    }
}
