//! emptyDir: a directory or a tmpfs that every user of the pod may write to.

use std::path::Path;

use super::{force_mode, mounts};
use crate::world::FileMedium;

/// Any container of the pod may write, whatever user it runs as. Source: pkg/volume/emptydir.
const MODE: u32 = 0o777;

/// Makes the directory usable; content that is there stays (containers restart on it).
pub(super) fn set_up(
    directory: &Path,
    medium: FileMedium,
    size_bytes: Option<u64>,
) -> Result<(), String> {
    match medium {
        FileMedium::Disk => {}
        FileMedium::Tmpfs => {
            let options = match size_bytes {
                Some(bytes) => format!("mode=777,size={bytes}"),
                None => "mode=777".to_owned(),
            };
            mounts::ensure_tmpfs(directory, &options)
                .map_err(|error| format!("mount tmpfs on {}: {error}", directory.display()))?;
        }
    }
    // Only what mkdir made is widened: fsGroup adds setgid later, which must stay.
    let mode = std::fs::metadata(directory).map(|found| {
        use std::os::unix::fs::PermissionsExt;
        found.permissions().mode() & 0o777
    });
    match mode {
        Ok(MODE) => Ok(()),
        Ok(_) => force_mode(directory, MODE)
            .map_err(|error| format!("chmod {}: {error}", directory.display())),
        Err(error) => Err(format!("stat {}: {error}", directory.display())),
    }
}
