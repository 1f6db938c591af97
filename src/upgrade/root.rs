//! Which ROOT an upgrade is about.
//!
//! The agent's own is where the link RUN/root leads. The guard starts before any agent, also after a power
//! cut, and knows the default ROOT only: an upgrade in another one leaves it a link to the program before.

use std::fs;
use std::io;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use super::record::{DEFAULT_RUN, Files, remove, root_of, same, shift, staged};
use crate::os::thread;

/// Says where the agent's ROOT is. The caller holds the agent's lock.
pub fn announce(run_dir: &Path, root: &Path) -> io::Result<()> {
    link(root, &run_dir.join("root"))
}

/// ROOT of the agent that runs with this RUN, or did since the machine started.
pub fn announced(run_dir: &Path) -> Option<PathBuf> {
    fs::read_link(run_dir.join("root")).ok()
}

/// Where the guard's link leads, else the default.
pub fn guarded(guard: &Path) -> PathBuf {
    let previous = fs::read_link(guard);
    root_of(previous.as_deref().unwrap_or(guard)).to_owned()
}

/// Leaves the guard its link, durably, if it needs one. Before the record: a link without one does nothing.
pub fn lead(files: &Files, run_dir: &Path) -> io::Result<()> {
    let default = Files::of(root_of(&files.guard));
    // The agent of another RUN has another lock than the guard takes.
    if same(&default.directory(), &files.directory()) || run_dir != Path::new(DEFAULT_RUN) {
        return Ok(());
    }
    if default.record_path().exists() {
        return Err(io::Error::other("an upgrade there is under way"));
    }
    fs::create_dir_all(default.directory())?;
    thread::flush_directory(&default.root)?;
    link(&files.previous(), &files.guard)
}

/// Makes `path` a link, durably, in the place of any before.
fn link(to: &Path, path: &Path) -> io::Result<()> {
    let aside = staged(path);
    remove(&aside)?;
    symlink(to, &aside)?;
    shift(&aside, path)
}
