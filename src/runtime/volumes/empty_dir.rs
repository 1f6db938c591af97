//! emptyDir: a directory or a tmpfs that every user of the pod may write to.
//!
//! Mode and group are given once, and a marker outside the volume remembers it: from then on they
//! are the containers' to change (a database insists on 0700 for its directory).

use std::fs;
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;

use super::{force_mode, mounts, ownership};
use crate::world::FileMedium;

/// Any container of the pod may write, whatever user it runs as. Source: pkg/volume/emptydir.
const MODE: u32 = 0o777;
/// As the kernel makes a tmpfs, and upstream leaves it: nobody removes what is another's.
const MODE_TMPFS: u32 = 0o1777;

/// Makes the directory usable; content that is there stays (containers restart on it).
/// `ready` is the marker's path. A tmpfs that a reboot took is made anew.
pub(super) fn set_up(
    directory: &Path,
    ready: &Path,
    medium: FileMedium,
    size_bytes: Option<u64>,
    group: Option<u32>,
) -> Result<(), String> {
    let error = |what: &str, cause| format!("{what} {}: {cause}", directory.display());
    let (mode, present) = match medium {
        FileMedium::Disk => (MODE, mounts::Ensured::Present),
        FileMedium::Tmpfs => {
            let options = match size_bytes {
                Some(bytes) => format!("mode=1777,size={bytes}"),
                None => "mode=1777".to_owned(),
            };
            let mounted = mounts::ensure_tmpfs(directory, &options);
            (MODE_TMPFS, mounted.map_err(|e| error("mount tmpfs on", e))?)
        }
    };
    if present == mounts::Ensured::Present && ready.exists() {
        return Ok(());
    }
    force_mode(directory, mode).map_err(|e| error("chmod", e))?;
    if let Some(group) = group {
        ownership::apply(directory, group)?;
    }
    let parent = ready.parent().expect("the marker has a directory");
    let made = fs::DirBuilder::new()
        .recursive(true)
        .mode(0o750)
        .create(parent);
    made.and_then(|()| fs::write(ready, ""))
        .map_err(|e| error("mark as ready", e))
}
