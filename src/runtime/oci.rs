//! The OCI runtime: which program, which version, how it is called.
//!
//! runc, crun and youki share one command line. The shim runs what is composed here, so that the
//! containers are its children; nothing here starts a container.

use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use crate::os::pipe::pipe;
use crate::os::process::Ended;
use crate::os::spawn::{Spawn, find_program};

/// Tried in this order for `--runtime=auto`: the reference first, though it is the slowest.
const KNOWN: [&str; 3] = ["runc", "crun", "youki"];
/// `--version` prints a few lines.
const VERSION_BYTES_MAX: u64 = 4096;

/// One installed runtime.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OciRuntime {
    pub program: PathBuf,
    /// `runc 1.1.5`, as it prints it.
    pub version: String,
    /// Its `--root`: state of our containers only, apart from other users of the same runtime.
    pub state_root: PathBuf,
}

impl fmt::Display for OciRuntime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.version, self.program.display())
    }
}

impl OciRuntime {
    /// Finds the runtime that `--runtime` names (`auto`, a name on PATH or a path) and asks for
    /// its version. Blocking. Errors: a sentence for the user.
    pub fn find(wanted: &str, state_root: &Path) -> Result<OciRuntime, String> {
        let program = match wanted {
            "auto" => KNOWN.iter().find_map(|name| find_program(name)),
            path if path.contains('/') => Some(PathBuf::from(path)),
            name => find_program(name),
        };
        let Some(program) = program else {
            return Err(match wanted {
                "auto" => "no OCI runtime on PATH: install runc, crun or youki".to_string(),
                name => format!("OCI runtime {name:?} is not on PATH"),
            });
        };
        let text = output(&program, "--version")
            .map_err(|error| format!("ask {} for its version: {error}", program.display()))?;
        Ok(OciRuntime {
            version: version_of(&text).unwrap_or_else(|| "unknown version".into()),
            program,
            state_root: state_root.to_owned(),
        })
    }

    /// `runc://1.1.5`, as nodes name their runtime.
    pub fn uri(&self) -> String {
        self.version.replacen(' ', "://", 1)
    }

    /// How every command line starts; the shim adds `run`, `exec` and their arguments.
    pub fn prefix(&self) -> Vec<String> {
        let text = |path: &Path| path.to_string_lossy().into_owned();
        vec![text(&self.program), "--root".into(), text(&self.state_root)]
    }

    /// Deletes the runtime's state of an ended container; success if it has none. Blocking.
    ///
    /// Never with `--force`: on a live container that costs 100 ms of polling in runc; we kill the
    /// cgroup and wait for the exit instead.
    pub fn delete_now(&self, id: &str) -> io::Result<()> {
        if !self.state_root.join(id).exists() {
            return Ok(());
        }
        let child = self.command().args(["delete", id]).start()?;
        match async_io::block_on(child.wait())? {
            Ended::Exited(0) => Ok(()),
            // Deleted by somebody between the look and the call.
            _ if !self.state_root.join(id).exists() => Ok(()),
            ended => Err(io::Error::other(format!(
                "{} delete {id}: exit {}",
                self.program.display(),
                ended.code()
            ))),
        }
    }

    fn command(&self) -> Spawn {
        let prefix = self.prefix();
        Spawn::new(&prefix[0]).args(&prefix[1..])
    }
}

/// What a program prints on stdout.
fn output(program: &Path, argument: &str) -> io::Result<String> {
    let ends = pipe()?;
    let spawn = Spawn::new(program).arg(argument).descriptor(1, ends.write);
    let child = spawn.start()?;
    let mut text = String::new();
    File::from(ends.read)
        .take(VERSION_BYTES_MAX)
        .read_to_string(&mut text)?;
    async_io::block_on(child.wait())?;
    Ok(text)
}

/// `runc version 1.1.5+ds1` gives `runc 1.1.5+ds1`; crun and youki print the same first line.
fn version_of(text: &str) -> Option<String> {
    let mut words = text.lines().next()?.split_ascii_whitespace();
    let name = words.next()?;
    let version = words.find(|word| *word != "version")?;
    Some(format!("{name} {version}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_of_all_known_runtimes_are_read() {
        for (text, version) in [
            (
                "runc version 1.1.5+ds1\ncommit: x\n",
                Some("runc 1.1.5+ds1"),
            ),
            ("crun version 1.8.1\n", Some("crun 1.8.1")),
            ("youki 0.5.7\n", Some("youki 0.5.7")),
            ("", None),
        ] {
            assert_eq!(version_of(text).as_deref(), version, "{text:?}");
        }
    }

    #[test]
    fn every_command_names_our_own_state_directory() {
        let runtime = OciRuntime {
            program: "/usr/sbin/runc".into(),
            version: "runc 1".into(),
            state_root: "/run/lowtide/runc".into(),
        };
        let prefix = ["/usr/sbin/runc", "--root", "/run/lowtide/runc"];
        assert_eq!(runtime.prefix(), prefix);
    }
}
