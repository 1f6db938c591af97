//! `lowtide pause`: the pod's infra process. It holds the namespaces that the containers join.
//!
//! ```text
//!   unshare net ipc uts ─► host name, sysctls ─► empty read-only root ─► no privileges ─► "ready"
//!                                                                    └─► sleep; reap; SIGTERM ends
//! ```
//! A container that shares the pid namespace can look at it through /proc/1: there is nothing to
//! see, nothing to write to and nothing to gain. Its arguments are its whole configuration; it
//! runs before `main` and allocates next to nothing.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use super::shim::wire::{Own, PauseConfig};
use crate::os::early::Arguments;
use crate::os::mount::{self, Flags, Spread};
use crate::os::privilege::{self, Namespace};
use crate::os::process;
use crate::os::signal::{Signal, SignalWait};

/// Unprivileged owner of the infra process. Source: the pause image of Kubernetes (`USER 65535`).
const NOBODY: u32 = 65535;

/// Arguments behind `lowtide pause`; `scratch` is any directory, hidden by the empty root in
/// pause's own mount namespace.
pub fn arguments(config: &PauseConfig, scratch: &Path) -> Vec<String> {
    let mut list = vec![format!("--scratch={}", scratch.display())];
    for (namespace, own) in [
        ("network", config.network),
        ("ipc", config.ipc),
        ("uts", config.uts),
    ] {
        match own {
            Own::Pod => list.push(format!("--own={namespace}")),
            Own::Host => {}
        }
    }
    if config.uts == Own::Pod && !config.hostname.is_empty() {
        list.push(format!("--hostname={}", config.hostname));
    }
    if let Some(score) = config.oom_score_adj {
        list.push(format!("--oom-score-adj={score}"));
    }
    let sysctls = config.sysctls.iter();
    list.extend(sysctls.map(|(name, value)| format!("--sysctl={name}={value}")));
    list
}

/// The process; writes `ready` or one line with the reason to its standard output, once.
#[inline(never)]
pub fn main(arguments: Arguments) -> i32 {
    let Ok(report) = process::inherited_descriptor(1) else {
        return 1;
    };
    let mut report = File::from(report);
    match prepare(arguments) {
        Ok(signals) => {
            let _told = report.write_all(b"ready\n");
            // The report's descriptor goes with all the others.
            std::mem::forget(report);
            privilege::close_all_descriptors();
            sleep(&signals)
        }
        Err(error) => {
            let _told = writeln!(report, "{error}");
            1
        }
    }
}

fn prepare(arguments: Arguments) -> io::Result<SignalWait> {
    // Blocked before anybody knows the pid: as PID 1 a signal with its default action is dropped.
    let signals = SignalWait::block(&[Signal::SIGTERM, Signal::SIGCHLD])?;
    let mut scratch = None;
    for argument in arguments.iter().skip(2).filter_map(OsStr::to_str) {
        let (flag, value) = argument.split_once('=').unwrap_or((argument, ""));
        match flag {
            "--scratch" => scratch = Some(value),
            "--own" => privilege::unshare(namespace(value)?).map_err(step("unshare", value))?,
            "--hostname" => privilege::set_hostname(value).map_err(step("set host name", value))?,
            "--oom-score-adj" => set_oom_score(value),
            "--sysctl" => set_sysctl(value)?,
            other => return Err(invalid("unknown flag", other)),
        }
    }
    let scratch = scratch.ok_or_else(|| invalid("missing flag", "--scratch"))?;
    enter_empty_root(Path::new(scratch)).map_err(step("pivot into an empty root on", scratch))?;
    privilege::drop_all(NOBODY, NOBODY).map_err(step("drop privileges of", "pause"))?;
    Ok(signals)
}

fn namespace(name: &str) -> io::Result<Namespace> {
    match name {
        "network" => Ok(Namespace::Network),
        "ipc" => Ok(Namespace::Ipc),
        "uts" => Ok(Namespace::Uts),
        other => Err(invalid("unknown namespace", other)),
    }
}

/// A lower score than our own needs CAP_SYS_RESOURCE; without it the inherited one has to do.
fn set_oom_score(score: &str) {
    let _clamped = fs::write("/proc/self/oom_score_adj", score);
}

/// `name=value`, the name with dots; `/` stands for a dot within a component (an interface's name),
/// as in sysctl(8). With a `-` before it, it does not matter whether it can be set, as in sysctl.d(5).
fn set_sysctl(assignment: &str) -> io::Result<()> {
    if let Some(optional) = assignment.strip_prefix('-') {
        let _may_not_be_set = set_sysctl(optional);
        return Ok(());
    }
    let (name, value) = assignment.split_once('=').unwrap_or((assignment, ""));
    let path = sysctl_path(name).ok_or_else(|| invalid("malformed sysctl", name))?;
    fs::write(path, value).map_err(step("set sysctl", name))
}

fn sysctl_path(name: &str) -> Option<PathBuf> {
    let swapped: String = name
        .chars()
        .map(|c| match c {
            '.' => '/',
            '/' => '.',
            other => other,
        })
        .collect();
    let sound = |part: &str| !part.is_empty() && part != "." && part != "..";
    swapped
        .split('/')
        .all(sound)
        .then(|| Path::new("/proc/sys").join(&swapped))
}

/// A tmpfs without room for a single file, as root of a mount namespace of our own.
fn enter_empty_root(scratch: &Path) -> io::Result<()> {
    privilege::unshare(Namespace::Mount)?;
    mount::set_propagation(Path::new("/"), Spread::Private)?;
    let flags = Flags::RDONLY | Flags::NOSUID | Flags::NODEV | Flags::NOEXEC;
    let options = c"size=4k,nr_inodes=1,mode=0555";
    mount::mount("pause", scratch, "tmpfs", flags, options)?;
    privilege::pivot_into(scratch)
}

/// Waits for SIGTERM; as PID 1 of a shared pid namespace it also reaps orphans.
fn sleep(signals: &SignalWait) -> i32 {
    loop {
        match signals.wait() {
            Ok(Signal::SIGTERM) => return 0,
            Ok(_) => while process::reap_any().is_some() {},
            // Only a broken mask could fail here; ending beats spinning.
            Err(_) => return 1,
        }
    }
}

fn step(what: &'static str, object: &str) -> impl FnOnce(io::Error) -> io::Error {
    let object = object.to_owned();
    move |cause| io::Error::new(cause.kind(), format!("{what} {object}: {cause}"))
}

fn invalid(what: &str, object: &str) -> io::Error {
    let text = format!("{what} {object:?}");
    io::Error::new(io::ErrorKind::InvalidInput, text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sysctl_names_become_paths_below_proc_sys_only() {
        for (name, path) in [
            (
                "net.ipv4.tcp_syncookies",
                Some("/proc/sys/net/ipv4/tcp_syncookies"),
            ),
            (
                "net.ipv4.conf.eth0/1.forwarding",
                Some("/proc/sys/net/ipv4/conf/eth0.1/forwarding"),
            ),
            ("kernel.shmmax", Some("/proc/sys/kernel/shmmax")),
            ("net.//.//.x", None),
            ("..", None),
            ("", None),
        ] {
            assert_eq!(sysctl_path(name).as_deref(), path.map(Path::new), "{name}");
        }
    }

    #[test]
    fn arguments_name_what_is_the_pods_own_and_nothing_of_the_hosts() {
        let config = PauseConfig {
            network: Own::Pod,
            hostname: "ignored".into(),
            sysctls: vec![("a.b".into(), "1 2".into())],
            ..PauseConfig::default()
        };
        let list = arguments(&config, Path::new("/run/x"));
        assert_eq!(
            list,
            ["--scratch=/run/x", "--own=network", "--sysctl=a.b=1 2"]
        );
    }
}
