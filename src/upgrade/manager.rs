//! Who starts the agent again, and how they are asked.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::os::output::output;
use crate::os::process::PidFd;
use crate::os::signal::Signal;
use crate::os::spawn::Spawn;

/// A service manager answers within this time or is not waited for.
const ANSWER_MAX: Duration = Duration::from_secs(60);
/// Of what it says, this much is shown.
const SAID_BYTES_MAX: u64 = 4096;

/// The agent that runs, as its lock names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Agent {
    pub pid: i32,
    /// The file it was started from.
    pub program: PathBuf,
}

impl Agent {
    /// `None`: no agent holds the lock of this RUN.
    pub fn of(run_dir: &Path) -> io::Result<Option<Agent>> {
        let path = run_dir.join("agent.lock");
        let text = match fs::read_to_string(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            text => text?,
        };
        if crate::os::file::lock(&path).is_ok() {
            return Ok(None);
        }
        let pid = text.trim().parse();
        let pid = pid.map_err(|_| io::Error::other("agent.lock names no process"))?;
        let program = fs::read_link(format!("/proc/{pid}/exe"))?;
        // A file that was replaced by hand is still where the next agent comes from.
        let program = program.to_string_lossy();
        let program = program.strip_suffix(" (deleted)").unwrap_or(&program);
        Ok(Some(Agent {
            pid,
            program: program.into(),
        }))
    }

    pub fn signal(&self, signal: Signal) {
        // Gone already is as good.
        let _ = PidFd::open(self.pid).and_then(|pidfd| pidfd.signal(signal as i32));
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Manager {
    /// The unit's name.
    Systemd(String),
    OpenRc,
    /// A command of the operator.
    Command(String),
    /// Whoever sees the agent end.
    Unknown,
}

impl Manager {
    pub fn find(command: Option<&str>, agent: Option<&Agent>) -> Manager {
        if let Some(command) = command {
            return Manager::Command(command.to_owned());
        }
        let cgroups = agent.map(|agent| format!("/proc/{}/cgroup", agent.pid));
        let cgroups = cgroups.and_then(|path| fs::read_to_string(path).ok());
        if let Some(unit) = cgroups.as_deref().and_then(unit) {
            return Manager::Systemd(unit.to_owned());
        }
        let script = Path::new("/etc/init.d/lowtide").exists();
        match script && Path::new("/run/openrc").exists() {
            true => Manager::OpenRc,
            false => Manager::Unknown,
        }
    }

    /// Ends the agent and has it started again; returns before it is ready.
    pub fn restart(&self, agent: Option<&Agent>) -> Result<(), String> {
        let spawn = match self {
            Manager::Systemd(unit) => {
                Spawn::new("systemctl").args(["restart", "--no-block", unit.as_str()])
            }
            Manager::OpenRc => Spawn::new("rc-service").args(["lowtide", "restart"]),
            // An agent that it leaves in the background would hold our ends of its pipes.
            Manager::Command(line) => {
                Spawn::new("/bin/sh").args(["-c", &format!("exec >/dev/null 2>&1\n{line}")])
            }
            Manager::Unknown => {
                if let Some(agent) = agent {
                    agent.signal(Signal::SIGTERM);
                }
                return Ok(());
            }
        };
        let said = output(spawn, SAID_BYTES_MAX, ANSWER_MAX);
        let said = said.map_err(|error| format!("{self}: {error}"))?;
        match said.ended.code() {
            0 => Ok(()),
            code => {
                let text = String::from_utf8_lossy(&said.stderr);
                Err(format!("{self}: exit code {code}: {}", text.trim()))
            }
        }
    }
}

impl std::fmt::Display for Manager {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Manager::Systemd(unit) => write!(f, "systemctl restart {unit}"),
            Manager::OpenRc => f.write_str("rc-service lowtide restart"),
            Manager::Command(line) => f.write_str(line),
            Manager::Unknown => f.write_str("SIGTERM, and whoever starts it again"),
        }
    }
}

/// The system unit of a process, from its `/proc/PID/cgroup`.
fn unit(cgroups: &str) -> Option<&str> {
    let ours = |line: &&str| line.starts_with("0::") || line.contains(":name=systemd:");
    let paths = cgroups.lines().filter(ours);
    let mut paths = paths.filter_map(|line| line.splitn(3, ':').nth(2));
    paths.find_map(|path| {
        let (slice, unit) = path.rsplit_once('/')?;
        (unit.ends_with(".service") && !slice.contains("/user@")).then_some(unit)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_unit_is_read_from_either_hierarchy() {
        for (text, expected) in [
            (
                "0::/system.slice/lowtide.service\n",
                Some("lowtide.service"),
            ),
            (
                "12:pids:/a\n1:name=systemd:/system.slice/node.service\n0::/x\n",
                Some("node.service"),
            ),
            ("0::/user.slice/user-0.slice/session-3.scope\n", None),
            (
                "0::/user.slice/user-0.slice/user@0.service/app.slice/a.service\n",
                None,
            ),
            ("4:memory:/system.slice/lowtide.service\n", None),
            ("0::/\n", None),
            ("", None),
        ] {
            assert_eq!(unit(text), expected, "{text}");
        }
    }
}
