//! Taking away what a pod left on disk: mounts first, then directories.
//!
//! A directory is removed only when nothing is mounted below it any more, so that a removal can
//! never reach into a volume. All steps are tried; all errors are told. Blocking.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::rootfs;
use crate::os::remove;
use crate::world::RemoveError;

/// Errors of a teardown, which goes on after each: what may still live or be mounted, and files
/// that are only in the way.
#[derive(Debug, Default)]
pub struct Problems {
    held: Vec<String>,
    files: Vec<String>,
}

impl Problems {
    pub fn note<E: std::fmt::Display>(&mut self, outcome: Result<(), E>) {
        if let Err(error) = outcome {
            self.held.push(error.to_string());
        }
    }

    /// The outcome of removing files, with nothing mounted below them.
    pub fn note_files<E: std::fmt::Display>(&mut self, outcome: Result<(), E>) {
        if let Err(error) = outcome {
            self.files.push(error.to_string());
        }
    }

    pub fn note_removal(&mut self, outcome: Result<(), RemoveError>) {
        match outcome {
            Ok(()) => {}
            Err(RemoveError::Held(text)) => self.held.push(text),
            Err(RemoveError::Files(text)) => self.files.push(text),
        }
    }

    pub fn join(&mut self, other: Problems) {
        self.held.extend(other.held);
        self.files.extend(other.files);
    }

    /// All of them in one text.
    pub fn into_result(self) -> Result<(), String> {
        self.into_removal().map_err(|error| error.to_string())
    }

    /// All of them in one text, by the worst.
    pub fn into_removal(mut self) -> Result<(), RemoveError> {
        let only_files = self.held.is_empty();
        self.held.append(&mut self.files);
        let text = self.held.join("; ");
        match (self.held.is_empty(), only_files) {
            (true, _) => Ok(()),
            (false, true) => Err(RemoveError::Files(text)),
            (false, false) => Err(RemoveError::Held(text)),
        }
    }
}

/// Unmounts everything at and below `directory`, innermost first.
pub fn unmount_below(directory: &Path) -> Problems {
    let mut problems = Problems::default();
    match mounts_below(directory) {
        Ok(mounts) => {
            for mount in mounts.iter().rev() {
                problems.note(rootfs::unmount(mount));
            }
        }
        Err(error) => problems.note(Err(error)),
    }
    problems
}

/// Whether there is nothing at a path. A damaged file system may have a file where a directory above
/// it should be.
fn is_absent(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
    )
}

/// Removes a directory with all in it, after its mounts, or a file in its place. Success if there is
/// none.
pub fn remove_directory(directory: &Path) -> Problems {
    let mut problems = unmount_below(directory);
    let named = |error| format!("remove {}: {error}", directory.display());
    let left = mounts_below(directory).and_then(|left| match left.first() {
        Some(mount) => {
            let text = format!("{} is still mounted", mount.display());
            Err(io::Error::other(text))
        }
        None => Ok(()),
    });
    match left {
        Err(error) => problems.note(Err(named(error))),
        Ok(()) => problems.note_files(remove::path(directory).map_err(named)),
    }
    problems
}

/// Removes a file. Success if there is none.
pub fn remove_file(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if is_absent(&error) => Ok(()),
        Err(error) => {
            let text = format!("remove {}: {error}", path.display());
            Err(io::Error::new(error.kind(), text))
        }
        Ok(()) => Ok(()),
    }
}

/// Mount points at and below a directory, in mount order.
fn mounts_below(directory: &Path) -> io::Result<Vec<PathBuf>> {
    // Mount points are listed without symlinks.
    let directory = match fs::canonicalize(directory) {
        Err(error) if is_absent(&error) => return Ok(Vec::new()),
        outcome => outcome?,
    };
    let text = fs::read_to_string("/proc/self/mountinfo")?;
    let points = text.lines().filter_map(|line| line.split(' ').nth(4));
    let points = points.map(|point| PathBuf::from(unescaped(point)));
    Ok(points
        .filter(|point| point.starts_with(&directory))
        .collect())
}

/// mountinfo writes blank, tab, newline and backslash as `\ooo` (proc_pid_mountinfo(5)).
fn unescaped(field: &str) -> String {
    let escapes = [
        ("\\040", " "),
        ("\\011", "\t"),
        ("\\012", "\n"),
        ("\\134", "\\"),
    ];
    let replace = |text: String, (code, plain): (&str, &str)| text.replace(code, plain);
    escapes.into_iter().fold(field.to_string(), replace)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn removing_twice_is_fine_and_problems_are_joined() {
        let directory = tempfile::tempdir().expect("a directory");
        let inner = directory.path().join("a/b");
        fs::create_dir_all(&inner).expect("made");
        assert_eq!(
            remove_directory(&directory.path().join("a")).into_result(),
            Ok(())
        );
        assert_eq!(remove_directory(&inner).into_result(), Ok(()));
        let mut problems = Problems::default();
        problems.note(Err("one"));
        problems.note(Err("two"));
        assert_eq!(problems.into_result(), Err("one; two".to_string()));
    }

    #[test]
    fn a_file_in_the_place_of_a_directory_is_removed_and_holds_nobody() {
        let directory = tempfile::tempdir().expect("a directory");
        let pod = directory.path().join("uid");
        fs::write(&pod, "as a damaged file system has it").expect("written");
        let below = remove_directory(&pod.join("rootfs"));
        assert_eq!(below.into_removal(), Ok(()));
        remove_file(&pod.join("etc-hosts")).expect("nothing is there");
        assert!(pod.exists());
        assert_eq!(remove_directory(&pod).into_removal(), Ok(()));
        assert!(!pod.exists());
    }

    #[test]
    fn files_alone_hold_nobody() {
        let mut problems = Problems::default();
        problems.note_files(Err("read-only"));
        let text = "read-only".to_owned();
        assert_eq!(problems.into_removal(), Err(RemoveError::Files(text)));
        let mut problems = Problems::default();
        problems.note_files(Err("read-only"));
        problems.note(Err("busy"));
        let text = "busy; read-only".to_owned();
        assert_eq!(problems.into_removal(), Err(RemoveError::Held(text)));
        assert_eq!(Problems::default().into_removal(), Ok(()));
    }

    #[test]
    fn escaped_mount_points_are_read_back() {
        assert_eq!(unescaped("/a\\040b\\134c"), "/a b\\c");
    }
}
