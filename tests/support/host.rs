//! Programs that tests drive, and waiting for what they do.
//!
//! Include it with `#[path = "../support/host.rs"] mod host;`.

// Tests may wait and start programs.
#![allow(clippy::disallowed_methods)]

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

/// An emulated processor (`tests/vm/run host`) takes that many times as long.
pub const SLOWER: u64 = match option_env!("LOWTIDE_EMULATED") {
    Some(_) => 8,
    None => 1,
};

/// How long anything may take that is not a matter of a Kubernetes timer. The machine is shared.
pub const PATIENCE: Duration = Duration::from_secs(45 * SLOWER);

/// Whether a program is in the path, or where administrators' programs are.
pub fn installed(name: &str) -> bool {
    let path = std::env::var("PATH").unwrap_or_default();
    let mut directories = path.split(':').chain(["/usr/sbin", "/sbin"]);
    directories.any(|directory| Path::new(directory).join(name).is_file())
}

/// Runs a program that must succeed and returns what it prints.
pub fn run(name: &str, arguments: &[&str]) -> String {
    let output = Command::new(name).args(arguments).output().expect(name);
    assert!(
        output.status.success(),
        "{name} {arguments:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Polls until `look` finds something; panics with `what` otherwise.
pub fn wait_for<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(start.elapsed() < PATIENCE, "{what}: not in {PATIENCE:?}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Polls until `condition` holds.
pub fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    wait_for(what, || condition().then_some(()));
}
