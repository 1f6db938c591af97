//! Killing everything in a cgroup, however fast it forks.
//!
//! v2 has one write for it (`cgroup.kill`, Linux 5.14). Elsewhere the cgroup is frozen first where
//! there is a freezer, and signalled in rounds: a process that has SIGKILL pending forks no more,
//! so each round can only find children made before its parents were hit.

use std::fs;
use std::io;
use std::path::Path;

use crate::os::process::PidFd;

use super::hierarchy::{Hierarchy, Version, named};

/// Rounds of listing and signalling. Source: Kubernetes pkg/kubelet/cm, tryKillingCgroupProcesses.
const ROUNDS_MAX: usize = 5;
/// signal(7), the same on all our architectures.
const SIGKILL: i32 = 9;

/// Signals every process in `path` and below, in all hierarchies.
pub fn everything(hierarchies: &[Hierarchy], path: &str) -> io::Result<()> {
    for hierarchy in hierarchies.iter().filter(|h| h.version == Version::V2) {
        let file = hierarchy.directory(path).join("cgroup.kill");
        match fs::write(&file, "1") {
            // No such cgroup, or a kernel without the file: the rounds below do it.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            // The file cannot be created in a cgroup file system.
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied && !file.exists() => {}
            outcome => outcome.map_err(|error| named("write", &file, &error))?,
        }
    }
    let freezer = hierarchies.iter().find(|h| h.has("freezer"));
    let state = freezer.map(|h| h.directory(path).join("freezer.state"));
    if let Some(state) = &state {
        freeze(state, "FROZEN");
    }
    let outcome = signal_in_rounds(hierarchies, path);
    // Frozen processes die only once they are thawed: always, whatever happened above.
    if let Some(state) = &state {
        freeze(state, "THAWED");
    }
    outcome
}

/// Best effort: without it the rounds still work, only less surely against a fork bomb.
fn freeze(state: &Path, value: &str) {
    if let Err(error) = fs::write(state, value)
        && error.kind() != io::ErrorKind::NotFound
    {
        log::debug!("write {value} to {}: {error}", state.display());
    }
}

fn signal_in_rounds(hierarchies: &[Hierarchy], path: &str) -> io::Result<()> {
    let mut outcome = Ok(());
    for hierarchy in hierarchies {
        let mut hit: Vec<i32> = Vec::new();
        for _ in 0..ROUNDS_MAX {
            let mut listed = hierarchy.processes(path)?;
            listed.retain(|pid| !hit.contains(pid));
            if listed.is_empty() {
                break;
            }
            outcome = outcome.and(signal_all(hierarchy, path, &listed));
            hit.extend(listed);
        }
    }
    outcome
}

/// The second listing makes sure that each descriptor is of a process that is in the cgroup, and
/// not of a stranger with a number used again.
fn signal_all(hierarchy: &Hierarchy, path: &str, pids: &[i32]) -> io::Result<()> {
    let open = |pid: &i32| PidFd::open(*pid).ok().map(|fd| (*pid, fd));
    let opened: Vec<(i32, PidFd)> = pids.iter().filter_map(open).collect();
    let still = hierarchy.processes(path)?;
    let mut outcome = Ok(());
    for (_, fd) in opened.iter().filter(|(pid, _)| still.contains(pid)) {
        match fd.signal(SIGKILL) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            signalled => outcome = outcome.and(signalled),
        }
    }
    outcome
}
