//! Bundles under a real OCI runtime: what a process inside sees is what the configuration says.
//! Needs root, runc and a static busybox; says which is missing and skips otherwise.
#![allow(clippy::disallowed_methods)] // the test drives runc itself

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

use lowtide::runtime::bundle::{
    Access, Architecture, BundleInput, BundlePaths, CapabilitySet, CgroupVersion, HostFacts,
    MemoryController, OomLowering, ResolvedMount, oci_config, resolve_user, rootfs,
};
use lowtide::world::{
    Capabilities, CgroupResources, ContainerConfig, Dns, ImageConfig, NamespaceMode, Namespaces,
    PodCgroup, ProcMount, Propagation, QosClass, SandboxConfig, Seccomp, Security,
    TerminationMessagePolicy, Uid,
};

static COUNTER: AtomicU32 = AtomicU32::new(0);

/// A process with net, ipc and uts namespaces of its own, as pause would hold them.
struct Pause(Child);

impl Pause {
    fn start() -> Pause {
        let child = Command::new("unshare")
            .args(["--net", "--ipc", "--uts", "busybox", "sh", "-c"])
            .arg("hostname pod-name; echo ready; exec busybox sleep 600")
            .stdout(Stdio::piped())
            .spawn()
            .expect("unshare runs");
        let mut pause = Pause(child);
        let mut ready = [0u8; 6];
        let stdout = pause.0.stdout.as_mut().expect("piped");
        std::io::Read::read_exact(stdout, &mut ready).expect("namespaces are ready");
        pause
    }
}

impl Drop for Pause {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// One container on its way into runc.
struct Case {
    directory: tempfile::TempDir,
    pause: Pause,
    id: String,
    container: ContainerConfig,
    namespaces: Namespaces,
    image: ImageConfig,
    mounts: Vec<ResolvedMount>,
}

impl Case {
    /// `None`, with the reason printed, where no container can run.
    fn new(script: &str) -> Option<Case> {
        for program in ["runc", "busybox", "unshare"] {
            let found = Command::new("which").arg(program).output();
            if !found.is_ok_and(|output| output.status.success()) {
                eprintln!("skipped: {program} is not installed");
                return None;
            }
        }
        if !running_as_root() {
            eprintln!("skipped: not root");
            return None;
        }
        let number = COUNTER.fetch_add(1, Ordering::Relaxed);
        let case = Case {
            directory: tempfile::tempdir().expect("a temporary directory"),
            pause: Pause::start(),
            id: format!("lowtide-bundle-{}-{number}", std::process::id()),
            container: container(script),
            namespaces: Namespaces {
                network: NamespaceMode::Pod,
                ipc: NamespaceMode::Pod,
                pid: NamespaceMode::Container,
            },
            image: ImageConfig::default(),
            mounts: Vec::new(),
        };
        case.make_rootfs();
        Some(case)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn make_rootfs(&self) {
        let root = self.path("rootfs");
        for directory in ["bin", "etc", "tmp", "proc", "sys", "dev", "home/app"] {
            fs::create_dir_all(root.join(directory)).expect("made");
        }
        let busybox = Command::new("which")
            .arg("busybox")
            .output()
            .expect("runs")
            .stdout;
        let busybox = String::from_utf8(busybox).expect("a path");
        fs::copy(busybox.trim(), root.join("bin/busybox")).expect("copied");
        for applet in [
            "sh", "cat", "grep", "id", "ls", "mount", "hostname", "touch", "tty", "mknod", "head",
            "stat", "df", "unshare", "wc", "chroot", "pwd", "env",
        ] {
            symlink("busybox", root.join("bin").join(applet)).expect("linked");
        }
        let passwd = "root:x:0:0::/root:/bin/sh\napp:x:1000:1001::/home/app:/bin/sh\n";
        fs::write(root.join("etc/passwd"), passwd).expect("written");
        let group = "root:x:0:\napp:x:1001:\naudio:x:29:app\n";
        fs::write(root.join("etc/group"), group).expect("written");
        for name in ["hosts", "hostname", "resolv.conf", "termination"] {
            fs::write(self.path(name), format!("{name} of the pod\n")).expect("written");
        }
        fs::create_dir(self.path("shm")).expect("made");
    }

    /// Writes the bundle and runs it to its end.
    fn run(&self) -> Output {
        self.write_bundle();
        let mut runc = Command::new("runc");
        runc.args(self.runc_args()).stdin(Stdio::null());
        runc.output().expect("runc runs")
    }

    fn runc_args(&self) -> Vec<String> {
        let path = |path: &Path| path.display().to_string();
        vec![
            "--root".to_owned(),
            path(&self.path("runc")),
            "run".to_owned(),
            "--bundle".to_owned(),
            path(self.directory.path()),
            self.id.clone(),
        ]
    }

    fn write_bundle(&self) {
        let rootfs = self.path("rootfs");
        rootfs::check_mount_points(&rootfs).expect("a sane image");
        let (passwd, group) = rootfs::user_files(&rootfs);
        let security = &self.container.security;
        let user = resolve_user(security, &self.image.user, &passwd, &group).expect("a user");
        let bundle = oci_config(&BundleInput {
            container: &self.container,
            sandbox: &sandbox(self.namespaces),
            image: &self.image,
            user: &user,
            host: &host(),
            paths: &BundlePaths {
                rootfs,
                hosts: Some(self.path("hosts")),
                hostname: Some(self.path("hostname")),
                resolv_conf: Some(self.path("resolv.conf")),
                shm: self.path("shm"),
                termination_log: Some(self.path("termination")),
            },
            mounts: &self.mounts,
            pause_pid: self.pause.0.id(),
            target_pid: None,
            cgroups_path: &format!("/{}", self.id),
            seccomp_file: None,
        })
        .expect("a bundle");
        fs::write(self.path("config.json"), bundle.config.to_string()).expect("written");
    }

    /// The container's output; panics with runc's words if it failed.
    fn output(&self) -> String {
        let output = self.run();
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(
            output.status.success(),
            "{}: {text} {errors}",
            output.status
        );
        text
    }
}

fn running_as_root() -> bool {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    status.lines().any(|line| line.starts_with("Uid:\t0\t"))
}

fn host() -> HostFacts {
    let status = fs::read_to_string("/proc/self/status").expect("readable");
    let score = fs::read_to_string("/proc/self/oom_score_adj").expect("readable");
    let unified = Path::new("/sys/fs/cgroup/cgroup.controllers").exists();
    HostFacts {
        architecture: Architecture::NATIVE,
        cgroup: if unified {
            CgroupVersion::V2
        } else {
            CgroupVersion::V1
        },
        memory: MemoryController::WithoutSwap,
        capabilities: CapabilitySet::bounding_of_status(&status).expect("has CapBnd"),
        oom_score_adj_inherited: score.trim().parse().expect("a number"),
        oom_lowering: OomLowering::Forbidden,
        throttling_cpus: Vec::new(),
        devices: Vec::new(),
    }
}

fn container(script: &str) -> ContainerConfig {
    ContainerConfig {
        uid: Uid::new("1234").expect("a uid"),
        pod_name: "web".to_owned(),
        namespace: "default".to_owned(),
        name: "c".to_owned(),
        attempt: 0,
        hash: "1".to_owned(),
        image: "busybox".to_owned(),
        image_id: "sha256:00".to_owned(),
        image_shown: String::new(),
        command: ["/bin/sh", "-c", script].map(str::to_owned).to_vec(),
        args: Vec::new(),
        working_dir: None,
        env: Vec::new(),
        mounts: Vec::new(),
        security: Security {
            run_as_user: None,
            run_as_group: None,
            run_as_non_root: false,
            supplemental_groups: Vec::new(),
            strict_groups: false,
            fs_group: None,
            privileged: false,
            capabilities: Capabilities::default(),
            no_new_privileges: false,
            read_only_root: false,
            proc_mount: ProcMount::Default,
            seccomp: Seccomp::RuntimeDefault,
        },
        resources: CgroupResources {
            cpu_shares: Some(2),
            memory_bytes_max: Some(64 << 20),
            ..CgroupResources::default()
        },
        oom_score_adj: 1000,
        stdin: false,
        stdin_once: false,
        tty: false,
        target: None,
        termination_message_path: "/dev/termination-log".to_owned(),
        termination_message_policy: TerminationMessagePolicy::File,
    }
}

fn sandbox(namespaces: Namespaces) -> SandboxConfig {
    SandboxConfig {
        uid: Uid::new("1234").expect("a uid"),
        name: "web".to_owned(),
        namespace: "default".to_owned(),
        attempt: 0,
        hostname: "pod-name".to_owned(),
        domain: None,
        namespaces,
        ports: Vec::new(),
        dns: Dns::default(),
        host_aliases: Vec::new(),
        sysctls: Vec::new(),
        cgroup: PodCgroup {
            qos: QosClass::BestEffort,
            resources: CgroupResources::default(),
        },
    }
}

#[test]
fn a_default_container_runs_with_the_default_capabilities_and_profile() {
    let Some(case) = Case::new(
        "grep -E '^(Cap|Seccomp:|NoNewPrivs)' /proc/self/status; hostname; cat /etc/hosts \
         /etc/hostname /etc/resolv.conf; cat /proc/self/oom_score_adj; pwd; \
         echo last-words > /dev/termination-log",
    ) else {
        return;
    };
    let text = case.output();
    let field = |name: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(name));
        line.unwrap_or_else(|| panic!("{name} in {text}"))
            .trim()
            .to_owned()
    };
    assert_eq!(field("CapBnd:"), "00000000a80425fb");
    assert_eq!(field("CapEff:"), "00000000a80425fb");
    assert_eq!(
        (field("CapInh:"), field("CapAmb:")),
        ("0".repeat(16), "0".repeat(16))
    );
    assert_eq!(
        (field("Seccomp:"), field("NoNewPrivs:")),
        ("2".to_owned(), "0".to_owned())
    );
    for part in [
        "pod-name",
        "hosts of the pod",
        "hostname of the pod",
        "resolv.conf of the pod",
        "\n1000\n/\n",
    ] {
        assert!(text.contains(part), "{part} in {text}");
    }
    let words = fs::read_to_string(case.path("termination")).expect("readable");
    assert_eq!(words, "last-words\n");
}

#[test]
fn the_images_user_and_the_pods_groups_apply() {
    let Some(mut case) = Case::new("id -u; id -g; id -G; echo $HOME; touch /root-file") else {
        return;
    };
    case.image.user = "app".to_owned();
    case.container.security.fs_group = Some(2000);
    let output = case.run();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert_eq!(text, "1000\n1001\n1001 29 2000\n/home/app\n");
    assert!(!output.status.success(), "the root directory is not app's");
}

#[test]
fn a_read_only_root_and_masked_paths_hold() {
    let Some(mut case) = Case::new(
        "touch /x 2>/dev/null && echo root-written; \
         echo 1 > /proc/sys/kernel/printk 2>/dev/null && echo sysctl-written; \
         head -c1 /proc/kcore 2>/dev/null | wc -c; ls /sys/firmware | wc -l; \
         echo x > /sys/kernel/mm/ksm/run 2>/dev/null && echo sys-written; \
         touch /data/x && echo volume-written; touch /ro/x 2>/dev/null && echo ro-written; \
         touch /dev/shm/x && echo shm-written; echo done",
    ) else {
        return;
    };
    case.container.security.read_only_root = true;
    for (name, access) in [
        ("data", Access::ReadWrite),
        ("ro", Access::RecursiveReadOnly),
    ] {
        fs::create_dir(case.path(name)).expect("made");
        fs::create_dir(case.path("rootfs").join(name)).expect("made");
        case.mounts.push(ResolvedMount {
            source: case.path(name),
            container_path: format!("/{name}"),
            access,
            propagation: Propagation::Private,
        });
    }
    assert_eq!(case.output(), "0\n0\nvolume-written\nshm-written\ndone\n");
    assert!(case.path("data/x").exists() && case.path("shm/x").exists());
}

#[test]
fn the_default_profile_and_dropped_capabilities_refuse() {
    let Some(mut case) = Case::new(
        "unshare -m true 2>/dev/null && echo unshared; mount -t tmpfs x /tmp 2>/dev/null && echo \
         mounted; mknod /tmp/n c 1 3 2>/dev/null && echo made; chroot / true 2>/dev/null && echo \
         rooted; grep NoNewPrivs /proc/self/status; echo done",
    ) else {
        return;
    };
    case.container.security.capabilities.drop = vec!["ALL".to_owned()];
    case.container.security.no_new_privileges = true;
    assert_eq!(case.output(), "NoNewPrivs:\t1\ndone\n");
}

#[test]
fn a_privileged_container_has_everything_that_the_host_gives() {
    let Some(mut case) = Case::new(
        "grep -E '^(CapBnd|Seccomp:)' /proc/self/status; mount -t tmpfs x /tmp && echo mounted",
    ) else {
        return;
    };
    case.container.security.privileged = true;
    let text = case.output();
    let status = fs::read_to_string("/proc/self/status").expect("readable");
    let bounding = status
        .lines()
        .find(|line| line.starts_with("CapBnd"))
        .expect("has CapBnd");
    assert_eq!(text, format!("{bounding}\nSeccomp:\t0\nmounted\n"));
}

#[test]
fn namespaces_of_the_host_are_joined_by_leaving_them_out() {
    let Some(mut case) = Case::new("for n in net uts ipc pid; do ls -l /proc/self/ns/$n; done")
    else {
        return;
    };
    let own = |name: &str| {
        let target = fs::read_link(format!("/proc/self/ns/{name}")).expect("a namespace");
        target.display().to_string()
    };
    let apart = case.output();
    for name in ["net", "uts", "ipc", "pid"] {
        assert!(!apart.contains(&own(name)), "{name} is the pod's");
    }
    let host = NamespaceMode::Host;
    case.namespaces = Namespaces {
        network: host,
        ipc: host,
        pid: host,
    };
    case.id.push_str("-host");
    let joined = case.output();
    for name in ["net", "uts", "ipc", "pid"] {
        assert!(
            joined.contains(&own(name)),
            "{name} is the host's: {joined}"
        );
    }
}

#[test]
fn an_image_whose_proc_is_a_link_is_refused() {
    let Some(case) = Case::new("true") else {
        return;
    };
    let proc = case.path("rootfs/proc");
    fs::remove_dir(&proc).expect("removed");
    symlink("/tmp", &proc).expect("linked");
    let error = rootfs::check_mount_points(&case.path("rootfs")).expect_err("a link");
    assert_eq!(error.to_string(), "the image's /proc is not a directory");
}

#[test]
fn user_files_are_read_within_the_image() {
    let Some(case) = Case::new("true") else {
        return;
    };
    let root = case.path("rootfs");
    fs::write(case.path("secret"), "host").expect("written");
    fs::remove_file(root.join("etc/passwd")).expect("removed");
    symlink(case.path("secret"), root.join("etc/passwd")).expect("linked");
    fs::remove_file(root.join("etc/group")).expect("removed");
    let fifo = Command::new("mkfifo")
        .arg(root.join("etc/group"))
        .status()
        .expect("runs");
    assert!(fifo.success());
    assert_eq!(rootfs::user_files(&root), (String::new(), String::new()));
    fs::remove_file(root.join("etc/passwd")).expect("removed");
    fs::write(root.join("etc/real"), "inside").expect("written");
    symlink("/etc/real", root.join("etc/passwd")).expect("linked");
    assert_eq!(
        rootfs::user_files(&root).0,
        "inside",
        "absolute links mean the image's root"
    );
}

#[test]
fn a_terminal_is_a_terminal_inside() {
    let Some(mut case) = Case::new("tty; ls -l /dev/console | head -c1; echo; echo $TERM") else {
        return;
    };
    case.container.tty = true;
    case.write_bundle();
    // runc wants a terminal of its own to pass on; script(1) makes one.
    let command = format!("runc {}", case.runc_args().join(" "));
    let output = match Command::new("script")
        .args(["-qec", &command, "/dev/null"])
        .output()
    {
        Ok(output) => output,
        Err(error) => return eprintln!("skipped: script: {error}"),
    };
    let text = String::from_utf8_lossy(&output.stdout).replace('\r', "");
    // script itself may echo an end-of-file before.
    assert!(text.ends_with("/dev/pts/0\nc\nxterm\n"), "{text}");
}
