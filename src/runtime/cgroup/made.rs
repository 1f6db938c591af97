//! The cgroup directories that the node as a whole made (kubepods, its QoS classes, the parents of
//! these), by record, so that they can be taken away without touching a neighbour's.
//!
//! ```text
//!  record ─► mkdir ─► … ─► rmdir, deepest first ─► record removed
//! ```
//! A directory that was there before is never recorded; one that somebody uses meanwhile is left.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::hierarchy::named;

/// Notes those of `directories` that do not exist yet, and their missing parents, beside what the
/// record holds already. Blocking; the record lies on a tmpfs, like the cgroups it is gone after
/// a reboot.
pub fn note(record: &Path, directories: &[PathBuf]) -> io::Result<()> {
    let recorded = read(record)?;
    let mut all = recorded.clone();
    for directory in directories {
        let missing = directory.ancestors().take_while(|path| !path.exists());
        all.extend(missing.map(Path::to_path_buf));
    }
    match all == recorded {
        true => Ok(()),
        false => write(record, &all),
    }
}

/// Removes what is recorded and empty; what others use stays on record. Errors: what could not be
/// removed though nobody uses it; all others were tried.
pub fn remove(record: &Path) -> io::Result<()> {
    let mut outcome = Ok(());
    let mut left = BTreeSet::new();
    // In reverse order a child comes before its parent.
    for directory in read(record)?.into_iter().rev() {
        match fs::remove_dir(&directory) {
            Ok(()) => continue,
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) if is_used(&error) => {
                log::info!("{} is left: others use it", directory.display());
            }
            Err(error) => outcome = outcome.and(Err(named("remove cgroup", &directory, &error))),
        }
        left.insert(directory);
    }
    outcome.and(write(record, &left))
}

/// A cgroup with processes or children: `EBUSY`; another file system says `ENOTEMPTY`.
fn is_used(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ResourceBusy | io::ErrorKind::DirectoryNotEmpty
    )
}

fn read(record: &Path) -> io::Result<BTreeSet<PathBuf>> {
    match fs::read_to_string(record) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(BTreeSet::new()),
        Err(error) => Err(named("read", record, &error)),
        Ok(text) => Ok(text.lines().map(PathBuf::from).collect()),
    }
}

fn write(record: &Path, directories: &BTreeSet<PathBuf>) -> io::Result<()> {
    let lines = directories.iter();
    let text: String = lines.map(|path| format!("{}\n", path.display())).collect();
    fs::write(record, text).map_err(|error| named("write", record, &error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_was_made_here_is_removed_and_only_when_nobody_uses_it() {
        let place = tempfile::tempdir().expect("a directory");
        let (record, top) = (place.path().join("record"), place.path().join("cgroup"));
        let theirs = top.join("others");
        fs::create_dir_all(&theirs).expect("made");
        let ours = [
            theirs.join("kubepods/burstable"),
            top.join("kubepods/burstable"),
        ];
        note(&record, &ours).expect("noted");
        for directory in &ours {
            fs::create_dir_all(directory).expect("made");
        }
        // The next agent finds them there, and the record too.
        note(&record, &ours).expect("noted");
        let neighbour = top.join("kubepods/besteffort");
        fs::create_dir(&neighbour).expect("made");

        remove(&record).expect("removed");
        assert!(theirs.is_dir() && !theirs.join("kubepods").exists());
        assert!(neighbour.is_dir() && !ours[1].exists());
        fs::remove_dir(&neighbour).expect("the neighbour goes too");
        remove(&record).expect("removed");
        assert!(top.is_dir() && !top.join("kubepods").exists());
        assert!(read(&record).expect("readable").is_empty());
    }
}
