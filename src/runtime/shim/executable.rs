//! The program that becomes shim and pause: a read-only view of the running binary.
//!
//! ```text
//!   the agent's own image ──bind, read-only──► RUN/bin/lowtide-<inode>-<changed> ──► shim ──► pause
//! ```
//! A process in a container that gets hold of `/proc/PID/exe` of one of ours must not be able to
//! write through it (CVE-2019-5736). A bind costs nothing; a sealed copy in memory would pin the
//! whole binary. An upgrade makes another view; the old one goes when its last shim has gone.

use std::fs::{self, DirBuilder, File};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};

use crate::os::mount;

const PREFIX: &str = "lowtide-";

/// Where to start shims from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Executable {
    pub path: PathBuf,
    /// Why it is the plain binary and no read-only view; to be said once.
    pub warning: Option<String>,
}

/// Makes the view, or finds it, and removes views that nobody uses any more.
/// Errors: only if the own program cannot be found at all.
pub fn prepare(run_dir: &Path) -> io::Result<Executable> {
    let directory = run_dir.join("bin");
    match view(&directory) {
        Ok(path) => {
            remove_unused(&directory, &path);
            Ok(Executable {
                path,
                warning: None,
            })
        }
        Err(error) => Ok(Executable {
            path: std::env::current_exe()?,
            warning: Some(format!(
                "bind {} read-only below {}: {error}; containers are started from the binary \
                 itself",
                "/proc/self/exe",
                directory.display()
            )),
        }),
    }
}

fn view(directory: &Path) -> io::Result<PathBuf> {
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(directory)?;
    let own = fs::metadata("/proc/self/exe")?;
    let path = directory.join(format!("{PREFIX}{:x}-{:x}", own.ino(), own.ctime()));
    match fs::metadata(&path) {
        // The agent before us has made it.
        Ok(there) if (there.dev(), there.ino()) == (own.dev(), own.ino()) => return Ok(path),
        Ok(_) | Err(_) => {}
    }
    File::create(&path)?;
    if let Err(error) = mount::bind_read_only(Path::new("/proc/self/exe"), &path) {
        let _best_effort = fs::remove_file(&path);
        return Err(error);
    }
    Ok(path)
}

/// A view that a shim or pause runs from is busy and stays.
fn remove_unused(directory: &Path, keep: &Path) {
    let entries = fs::read_dir(directory).into_iter().flatten();
    for path in entries.filter_map(Result::ok).map(|entry| entry.path()) {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        if path == keep || !name.starts_with(PREFIX) {
            continue;
        }
        match mount::unmount(&path) {
            Err(error) if error.kind() == io::ErrorKind::ResourceBusy => {}
            Ok(()) | Err(_) => {
                let _best_effort = fs::remove_file(&path);
            }
        }
    }
}

/// Removes all views below RUN, once no shim runs any more; a busy one stays.
pub fn remove_all(run_dir: &Path) {
    remove_unused(&run_dir.join("bin"), Path::new(""));
}
