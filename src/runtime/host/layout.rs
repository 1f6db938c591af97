//! Where things of one node lie on disk. Paths only.

use std::path::{Path, PathBuf};

use crate::world::{ContainerId, Uid};

/// The node's directories: `--root-dir`, `--run-dir`, `--pod-logs-dir`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layout {
    pub root: PathBuf,
    pub run: PathBuf,
    pub logs: PathBuf,
}

/// One container instance's place: name and restart count name its directories.
#[derive(Clone, Copy, Debug)]
pub struct Instance<'a> {
    pub uid: &'a Uid,
    pub container: &'a str,
    pub attempt: u32,
}

impl Instance<'_> {
    fn directory(&self) -> String {
        format!("{}.{}", self.container, self.attempt)
    }
}

/// One more than the highest `N.log` (rotated ones included) beside `log`; 0 if there is none.
pub(super) fn next_attempt(log: &Path) -> u32 {
    let directory = log.parent().map(std::fs::read_dir);
    let entries = directory.into_iter().flatten().flatten().flatten();
    let attempts = entries.filter_map(|entry| {
        let name = entry.file_name();
        let (number, _) = name.to_str()?.split_once(".log")?;
        number.parse::<u32>().ok()
    });
    attempts.max().map_or(0, |last| last.saturating_add(1))
}

/// Removes what lies beside `log` of instances before the last two: of earlier boots, whose records are gone.
pub(super) fn remove_old_logs(log: &Path, next: u32) {
    let directory = log.parent().map(std::fs::read_dir);
    for entry in directory.into_iter().flatten().flatten().flatten() {
        let name = entry.file_name();
        let number = name.to_str().and_then(|name| name.split_once(".log"));
        let number = number.and_then(|(number, _)| number.parse::<u32>().ok());
        if number.is_some_and(|number| number.saturating_add(2) < next) {
            let _tried_again_next_time = std::fs::remove_file(entry.path());
        }
    }
}

/// Removes links into `directory` that lead nowhere any more.
pub(super) fn remove_dangling(links: &Path, directory: &Path) {
    for entry in std::fs::read_dir(links).into_iter().flatten().flatten() {
        let target = std::fs::read_link(entry.path());
        if target.is_ok_and(|target| target.starts_with(directory)) && !entry.path().exists() {
            let _tried_again_next_time = std::fs::remove_file(entry.path());
        }
    }
}

/// The directory of all logs of a pod of which only the UID is known.
pub(super) fn logs_of(logs: &Path, uid: &Uid) -> Option<PathBuf> {
    let suffix = format!("_{uid}");
    let mut entries = std::fs::read_dir(logs).into_iter().flatten().flatten();
    let found = entries.find(|entry| {
        let name = entry.file_name();
        // `<namespace>_<pod>_<uid>`: neither of the first two has an underscore.
        let stem = name.to_str().and_then(|name| name.strip_suffix(&suffix));
        stem.is_some_and(|stem| stem.matches('_').count() == 1)
    });
    found.map(|entry| entry.path())
}

impl Layout {
    /// `--root` of the OCI runtime.
    pub fn runtime_state(&self) -> PathBuf {
        self.run.join("runc")
    }

    /// Boot that the records under RUN are of.
    pub fn boot_id(&self) -> PathBuf {
        self.run.join("boot-id")
    }

    /// Cgroups that the node as a whole made.
    pub fn cgroups(&self) -> PathBuf {
        self.run.join("cgroups")
    }

    /// Directory of all pods' records.
    pub fn pods(&self) -> PathBuf {
        self.run.join("pods")
    }

    pub fn pod_run(&self, uid: &Uid) -> PathBuf {
        self.pods().join(uid.as_str())
    }

    pub fn sandbox_record(&self, uid: &Uid) -> PathBuf {
        self.pod_run(uid).join("sandbox.json")
    }

    pub fn hostname(&self, uid: &Uid) -> PathBuf {
        self.pod_run(uid).join("hostname")
    }

    pub fn resolv_conf(&self, uid: &Uid) -> PathBuf {
        self.pod_run(uid).join("resolv.conf")
    }

    pub fn shm(&self, uid: &Uid) -> PathBuf {
        self.pod_run(uid).join("shm")
    }

    pub fn containers(&self, uid: &Uid) -> PathBuf {
        self.pod_run(uid).join("containers")
    }

    pub fn bundle(&self, instance: Instance<'_>) -> PathBuf {
        self.containers(instance.uid).join(instance.directory())
    }

    pub fn pod_root(&self, uid: &Uid) -> PathBuf {
        self.root.join("pods").join(uid.as_str())
    }

    pub fn etc_hosts(&self, uid: &Uid) -> PathBuf {
        self.pod_root(uid).join("etc-hosts")
    }

    /// Writable layers of all of the pod's instances.
    pub fn writable_layers(&self, uid: &Uid) -> PathBuf {
        self.pod_root(uid).join("rootfs")
    }

    pub fn writable_layer(&self, instance: Instance<'_>) -> PathBuf {
        self.writable_layers(instance.uid)
            .join(instance.directory())
    }

    /// The file behind terminationMessagePath; `token`: 8 hex digits, one for each instance.
    pub fn termination_log(&self, instance: Instance<'_>, token: &str) -> PathBuf {
        self.pod_root(instance.uid)
            .join("containers")
            .join(instance.container)
            .join(token)
    }

    /// The directory of all logs of a pod.
    pub fn pod_logs(&self, namespace: &str, pod: &str, uid: &Uid) -> PathBuf {
        self.logs.join(format!("{namespace}_{pod}_{uid}"))
    }

    /// The CRI log of an instance. Source: Kubernetes pkg/kubelet/kuberuntime, BuildPodLogsDirectory.
    pub fn log(&self, namespace: &str, pod: &str, instance: Instance<'_>) -> PathBuf {
        self.pod_logs(namespace, pod, instance.uid)
            .join(instance.container)
            .join(format!("{}.log", instance.attempt))
    }

    /// The link that log collectors look for, beside the pods' log directory.
    pub fn log_link(
        &self,
        namespace: &str,
        pod: &str,
        container: &str,
        id: &ContainerId,
    ) -> PathBuf {
        let name = format!("{pod}_{namespace}_{container}-{id}.log");
        self.log_links().join(name)
    }

    /// Where collectors of logs look.
    pub fn log_links(&self) -> PathBuf {
        let beside = self.logs.parent().unwrap_or(Path::new("/"));
        beside.join("containers")
    }

    /// A Localhost seccomp profile.
    pub fn seccomp_profile(&self, relative: &str) -> PathBuf {
        self.root.join("seccomp").join(relative)
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn the_logs_of_a_uid_are_found_and_nobody_elses() {
        let home = tempfile::tempdir().expect("a directory");
        for name in ["default_web_u1", "default_web_u11", "x_default_web_u2"] {
            std::fs::create_dir(home.path().join(name)).expect("made");
        }
        let find = |uid| logs_of(home.path(), &Uid::new(uid).expect("a uid"));
        assert_eq!(find("u1"), Some(home.path().join("default_web_u1")));
        assert_eq!(find("u2"), None);
        assert_eq!(find("1"), None);
    }

    #[test]
    fn logs_of_earlier_boots_go_but_for_the_last_two() {
        let place = tempfile::tempdir().expect("a directory");
        let logs = place.path();
        let names = |directory: &Path| {
            let entries = fs::read_dir(directory).expect("entries").flatten();
            let mut names: Vec<_> = entries
                .map(|e| e.file_name().into_string().unwrap())
                .collect();
            names.sort();
            names
        };
        for name in [
            "0.log",
            "1.log",
            "1.log.20260102-150405.gz",
            "2.log",
            "3.log",
            "x.log",
            "y",
        ] {
            fs::write(logs.join(name), "").expect("written");
        }
        let log = logs.join("0.log");
        assert_eq!(next_attempt(&log), 4);
        remove_old_logs(&log, 4);
        assert_eq!(names(logs), ["2.log", "3.log", "x.log", "y"]);
        assert_eq!(next_attempt(&log), 4);

        let links = place.path().join("links");
        fs::create_dir(&links).expect("a directory");
        for (name, target) in [
            ("a_b_c-1.log", "gone"),
            ("a_b_c-2.log", "3.log"),
            ("z_b_c-1.log", "gone"),
        ] {
            std::os::unix::fs::symlink(logs.join(target), links.join(name)).expect("a link");
        }
        remove_dangling(&links, &logs.join("elsewhere"));
        assert_eq!(names(&links).len(), 3);
        remove_dangling(&links, logs);
        assert_eq!(names(&links), ["a_b_c-2.log"]);
    }
}
