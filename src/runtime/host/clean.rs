//! Taking away what a pod left on disk: mounts first, then directories.
//!
//! A directory is removed only when nothing is mounted below it any more, so that a removal can
//! never reach into a volume. All steps are tried; all errors are told. Blocking.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::rootfs;

/// Errors of a teardown, which goes on after each.
#[derive(Debug, Default)]
pub struct Problems(Vec<String>);

impl Problems {
    pub fn note<E: std::fmt::Display>(&mut self, outcome: Result<(), E>) {
        if let Err(error) = outcome {
            self.0.push(error.to_string());
        }
    }

    pub fn join(&mut self, other: Problems) {
        self.0.extend(other.0);
    }

    /// All of them in one text.
    pub fn into_result(self) -> Result<(), String> {
        match self.0.is_empty() {
            true => Ok(()),
            false => Err(self.0.join("; ")),
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

/// Removes a directory with all in it, after its mounts. Success if there is none.
pub fn remove_directory(directory: &Path) -> Problems {
    let mut problems = unmount_below(directory);
    let outcome = mounts_below(directory).and_then(|left| match left.first() {
        Some(mount) => Err(io::Error::other(format!(
            "{} is still mounted",
            mount.display()
        ))),
        None => match fs::remove_dir_all(directory) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            outcome => outcome,
        },
    });
    let named = |error| format!("remove {}: {error}", directory.display());
    problems.note(outcome.map_err(named));
    problems
}

/// Removes a file. Success if there is none.
pub fn remove_file(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
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
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
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
    fn escaped_mount_points_are_read_back() {
        assert_eq!(unescaped("/a\\040b\\134c"), "/a b\\c");
    }
}
