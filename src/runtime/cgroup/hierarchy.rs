//! The cgroup hierarchies of this host: v1 controllers, the unified v2 tree, or both (hybrid).
//!
//! Found by their mounts, not by conventional paths. Makes and removes one directory in one
//! hierarchy; knows nothing of pods.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::object::order;

/// Controllers that containers use, where the kernel has them. Others (rdma, misc, …) stay off.
const CONTROLLERS: [&str; 6] = ["cpuset", "cpu", "io", "memory", "hugetlb", "pids"];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    V1,
    V2,
}

/// One mounted hierarchy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hierarchy {
    pub version: Version,
    pub mount: PathBuf,
    /// v1: controllers (or `name=…`) bound to it; v2: what its root offers.
    pub controllers: Vec<String>,
}

impl Hierarchy {
    pub fn has(&self, controller: &str) -> bool {
        self.controllers.iter().any(|have| have == controller)
    }

    /// `path` is absolute within the hierarchy.
    pub fn directory(&self, path: &str) -> PathBuf {
        self.mount.join(path.trim_start_matches('/'))
    }

    /// Makes `path` and its parents ready to hold processes or children. Existing ones are kept.
    pub fn make(&self, path: &str) -> io::Result<()> {
        match self.version {
            Version::V1 => self.make_v1(&self.directory(path)),
            Version::V2 => self.make_v2(path),
        }
    }

    /// From the leaf upwards: there are ten of these hierarchies, and the parents of a pod's are
    /// nearly always there.
    fn make_v1(&self, directory: &Path) -> io::Result<()> {
        let made = match fs::create_dir(directory) {
            Err(error) if error.kind() == io::ErrorKind::NotFound && directory != self.mount => {
                self.make_v1(directory.parent().unwrap_or(&self.mount))?;
                fs::create_dir(directory)
            }
            outcome => outcome,
        };
        match made {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                return Err(named("make cgroup", directory, &error));
            }
            Ok(()) | Err(_) => {}
        }
        match self.has("cpuset") {
            true => inherit_cpuset(&self.mount, directory),
            false => Ok(()),
        }
    }

    /// From the root downwards: controllers come from the parent.
    fn make_v2(&self, path: &str) -> io::Result<()> {
        let mut directory = self.mount.clone();
        for component in path.split('/').filter(|component| !component.is_empty()) {
            self.delegate_controllers(&directory);
            directory.push(component);
            match fs::create_dir(&directory) {
                Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                    return Err(named("make cgroup", &directory, &error));
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// Removes `path` and all below it, leaves first. Success if it does not exist.
    /// Errors: `ResourceBusy` while a process is in it.
    pub fn remove(&self, path: &str) -> io::Result<()> {
        remove_tree(&self.directory(path))
    }

    /// All process ids in `path` and below it.
    pub fn processes(&self, path: &str) -> io::Result<Vec<i32>> {
        let mut pids = Vec::new();
        collect_processes(&self.directory(path), &mut pids)?;
        Ok(pids)
    }

    /// Lets children of `directory` use the controllers it has. One write each: a controller that
    /// cannot be delegated here (`EBUSY`, `ENOENT`) must not take the others with it; what is then
    /// missing shows when a limit is written.
    fn delegate_controllers(&self, directory: &Path) {
        let file = directory.join("cgroup.subtree_control");
        let enabled = fs::read_to_string(&file).unwrap_or_default();
        let offered = fs::read_to_string(directory.join("cgroup.controllers")).unwrap_or_default();
        let wanted = CONTROLLERS.iter().filter(|controller| {
            let names = |list: &str| {
                list.split_ascii_whitespace()
                    .any(|name| name == **controller)
            };
            names(&offered) && !names(&enabled)
        });
        for controller in wanted {
            if let Err(error) = fs::write(&file, format!("+{controller}")) {
                log::debug!("delegate {controller} in {}: {error}", directory.display());
            }
        }
    }
}

/// A v1 cpuset without CPUs and memory nodes takes no process (`ENOSPC`): copy the parent's, which
/// may have to copy its own first.
fn inherit_cpuset(mount: &Path, directory: &Path) -> io::Result<()> {
    let read = |file: &Path| fs::read_to_string(file).map_err(|error| named("read", file, &error));
    for name in ["cpuset.cpus", "cpuset.mems"] {
        let own = directory.join(name);
        if !read(&own)?.trim().is_empty() || directory == mount {
            continue;
        }
        let parent = directory.parent().unwrap_or(mount);
        inherit_cpuset(mount, parent)?;
        let text = read(&parent.join(name))?;
        fs::write(&own, text.trim()).map_err(|error| named("write", &own, &error))?;
    }
    Ok(())
}

fn remove_tree(directory: &Path) -> io::Result<()> {
    for child in children(directory)? {
        remove_tree(&child)?;
    }
    match fs::remove_dir(directory) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(named("remove cgroup", directory, &error)),
        Ok(()) => Ok(()),
    }
}

fn collect_processes(directory: &Path, pids: &mut Vec<i32>) -> io::Result<()> {
    for child in children(directory)? {
        collect_processes(&child, pids)?;
    }
    let file = directory.join("cgroup.procs");
    let text = match fs::read_to_string(&file) {
        // Removed meanwhile (ENODEV while it dies).
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) if error.raw_os_error() == Some(ENODEV) => return Ok(()),
        outcome => outcome.map_err(|error| named("read", &file, &error))?,
    };
    // 0 is a process of a pid namespace that we cannot see.
    let listed = text.lines().filter_map(|line| line.parse::<i32>().ok());
    pids.extend(listed.filter(|pid| *pid != 0));
    Ok(())
}

/// errno(3), the same on all our architectures.
const ENODEV: i32 = 19;

/// Child cgroups; empty if the directory does not exist.
fn children(directory: &Path) -> io::Result<Vec<PathBuf>> {
    let entries = match fs::read_dir(directory) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        outcome => outcome.map_err(|error| named("list", directory, &error))?,
    };
    let mut found = Vec::new();
    for entry in entries {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            found.push(entry.path());
        }
    }
    Ok(found)
}

/// Keeps kind and errno-derived text, adds operation and object.
pub(super) fn named(operation: &str, path: &Path, error: &io::Error) -> io::Error {
    io::Error::new(
        error.kind(),
        format!("{operation} {}: {error}", path.display()),
    )
}

/// The hierarchies in a `/proc/self/mountinfo` text (proc_pid_mountinfo(5)), v1 first, each once.
pub fn parse_mountinfo(text: &str) -> Vec<Hierarchy> {
    let mut found: Vec<Hierarchy> = Vec::new();
    for line in text.lines() {
        let Some((left, right)) = line.split_once(" - ") else {
            continue;
        };
        let Some(mount) = left.split(' ').nth(4) else {
            continue;
        };
        let mut right = right.split(' ');
        let version = match right.next() {
            Some("cgroup") => Version::V1,
            Some("cgroup2") => Version::V2,
            _ => continue,
        };
        // v1 lists the controllers among the superblock's options.
        let options = right.nth(1).unwrap_or_default().split(',');
        let controllers: Vec<String> = match version {
            Version::V1 => options
                .filter(|option| !GENERIC_OPTIONS.contains(option) && !is_path_option(option))
                .map(str::to_owned)
                .collect(),
            Version::V2 => Vec::new(),
        };
        let hierarchy = Hierarchy {
            version,
            mount: PathBuf::from(mount),
            controllers,
        };
        let known = found
            .iter()
            .any(|have| have.version == version && have.controllers == hierarchy.controllers);
        if !known {
            found.push(hierarchy);
        }
    }
    order::sort_by_key(&mut found, |hierarchy| match hierarchy.version {
        Version::V1 => 0,
        Version::V2 => 1,
    });
    found
}

/// Superblock options of a v1 mount that name no controller (cgroups(7)).
const GENERIC_OPTIONS: [&str; 5] = ["rw", "ro", "xattr", "noprefix", "clone_children"];

fn is_path_option(option: &str) -> bool {
    option.starts_with("release_agent=")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn summary(text: &str) -> Vec<String> {
        let line = |h: &Hierarchy| {
            format!(
                "{:?} {} {}",
                h.version,
                h.mount.display(),
                h.controllers.join("+")
            )
        };
        parse_mountinfo(text).iter().map(line).collect()
    }

    #[test]
    fn every_layout_is_recognised() {
        let hybrid = "\
25 20 0:21 / /sys/fs/cgroup rw - tmpfs tmpfs rw,mode=755
26 25 0:22 / /sys/fs/cgroup/unified rw,nosuid - cgroup2 cgroup2 rw,nsdelegate
27 25 0:23 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,xattr,release_agent=/lib/x,name=systemd
28 25 0:24 / /sys/fs/cgroup/cpu,cpuacct rw shared:9 - cgroup cgroup rw,cpu,cpuacct
29 25 0:24 / /other rw - cgroup cgroup rw,cpu,cpuacct";
        assert_eq!(
            summary(hybrid),
            [
                "V1 /sys/fs/cgroup/systemd name=systemd",
                "V1 /sys/fs/cgroup/cpu,cpuacct cpu+cpuacct",
                "V2 /sys/fs/cgroup/unified ",
            ]
        );
        let unified = "30 20 0:26 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw";
        assert_eq!(summary(unified), ["V2 /sys/fs/cgroup "]);
        assert_eq!(summary("1 0 8:1 / / rw - ext4 /dev/sda1 rw"), [""; 0]);
    }
}
