//! Namespaces of one test, a place on disk, and what must be gone at its end.

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::Command;

pub use crate::host::{installed, run};

/// Set in the process that runs the test's body: the test's directory.
const INSIDE: &str = "LOWTIDE_TEST_INSIDE";

/// Programs that the tests drive.
const NEEDED: [&str; 5] = ["unshare", "ip", "nft", "runc", "busybox"];

/// Said past the capture of a test that passes: nobody is to think that it ran.
fn skipped(name: &str, why: &str) {
    let _ = writeln!(io::stderr(), "skipped {name}: {why}");
}

/// Runs `body` in new network, mount and process namespaces, with an empty directory: the test
/// binary is started again for this one test, whose name is read from the closure's type. Prints
/// why and passes where that is not possible. The end of the process namespace ends whatever a
/// failed test left running; its init is a shell, because a node's orphans need to be reaped.
pub fn isolated<F: FnOnce(&Path)>(body: F) {
    if let Some(place) = std::env::var_os(INSIDE) {
        run("ip", &["link", "set", "lo", "up"]);
        return body(Path::new(&place));
    }
    let path = std::any::type_name::<F>();
    let path = path.split_once("::").expect("a path in this crate").1;
    let name = path.trim_end_matches("::{{closure}}");
    if let Some(missing) = NEEDED.iter().find(|program| !installed(program)) {
        return skipped(name, &format!("{missing} is not installed"));
    }
    let mut probe = Command::new("unshare");
    let probe = probe.args(["-nmp", "--fork", "true"]).status();
    if !probe.is_ok_and(|status| status.success()) {
        return skipped(name, "needs root (unshare -nmp)");
    }
    let place = tempfile::Builder::new().prefix("lt").tempdir().unwrap();
    let status = Command::new("unshare")
        .args(["-nmp", "--fork", "--kill-child", "--mount-proc"])
        .args(["--propagation", "private"])
        .args(["sh", "-c", "\"$0\" \"$@\"; exit $?"])
        .arg(std::env::current_exe().expect("own path"))
        .args(["--exact", name, "--nocapture", "--test-threads=1"])
        .env(INSIDE, place.path())
        .status()
        .expect("unshare runs");
    for root in cgroup_roots(place.path()) {
        remove_tree(&root);
    }
    assert!(status.success(), "{name} failed inside its namespaces");
}

/// The cgroup of a test's nodes, as `--cgroup-root` has it.
pub fn cgroup_name(place: &Path) -> String {
    let name = place.file_name().expect("a directory of its own");
    format!("/lowtide-test-{}", name.to_string_lossy())
}

/// Where that cgroup exists: below every controller, or at the root of the unified hierarchy.
pub fn cgroup_roots(place: &Path) -> Vec<PathBuf> {
    let name = cgroup_name(place);
    let mount = Path::new("/sys/fs/cgroup");
    let controllers = fs::read_dir(mount).into_iter().flatten().flatten();
    let mut roots: Vec<_> = controllers.map(|entry| entry.path()).collect();
    roots.push(mount.to_path_buf());
    let roots = roots.iter().map(|root| root.join(&name[1..]));
    roots.filter(|path| path.is_dir()).collect()
}

/// Directories below `top`, deepest first, with `top` last.
pub fn directories(top: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(top).into_iter().flatten().flatten();
    let below = entries.map(|entry| entry.path());
    let below = below.filter(|path| path.is_dir() && !path.is_symlink());
    let mut found: Vec<_> = below.flat_map(|path| directories(&path)).collect();
    found.push(top.to_path_buf());
    found
}

fn remove_tree(cgroup: &Path) {
    for directory in directories(cgroup) {
        let _ = fs::remove_dir(directory);
    }
}
