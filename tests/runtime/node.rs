//! One node's host runtime in a directory of its own, with an image made of busybox.

use std::cell::RefCell;
use std::fs;
use std::future::Future;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;

use async_executor::LocalExecutor;
use lowtide::os::clock::SystemClock;
use lowtide::os::random::SystemRandom;
use lowtide::runtime::cgroup::Cgroups;
use lowtide::runtime::host::{
    HostRuntime, ImageParts, ImageSource, Layout, LogLimits, Parts, read_facts,
};
use lowtide::runtime::network::{Bridge, Cni, Network, Subnet};
use lowtide::runtime::oci::OciRuntime;
use lowtide::world::{
    Capabilities, CgroupResources, ContainerConfig, ContainerId, ContainerState, Dns, Exit,
    ImageConfig, NamespaceMode, Namespaces, PodCgroup, PodObserved, ProcMount, QosClass, Runtime,
    SandboxConfig, Seccomp, Security, TerminationMessagePolicy, Uid,
};

use crate::support::host::{SLOWER, eventually};

const BUSYBOX: &str = "/bin/busybox";
/// How long any single thing may take here.
const PATIENCE_S: u64 = 20 * SLOWER;

/// Small, so that a short script makes a log rotate.
pub const LOG_LIMITS: LogLimits = LogLimits {
    bytes_max: 16 << 10,
    files_max: 4,
    compress_after: std::time::Duration::ZERO,
};

/// A node's directories and what stays over a restart of its agent.
pub struct Node {
    pub directory: tempfile::TempDir,
    pub instance: String,
    pub pod_cidr: String,
    pub cgroup_root: String,
    agent: RefCell<Option<Agent>>,
}

/// What dies with the agent.
struct Agent {
    executor: Rc<LocalExecutor<'static>>,
    runtime: Rc<HostRuntime>,
}

struct OneImage(PathBuf);

impl ImageSource for OneImage {
    fn parts(&self, _image_id: &str) -> Result<ImageParts, String> {
        Ok(ImageParts {
            layers: vec![self.0.clone()],
            config: ImageConfig {
                env: vec!["PATH=/bin".into()],
                ..ImageConfig::default()
            },
        })
    }
}

impl Node {
    pub fn new(instance: &str, pod_cidr: &str) -> Node {
        let directory = tempfile::tempdir().expect("a directory");
        make_image(&directory.path().join("image"));
        let node = Node {
            instance: instance.into(),
            pod_cidr: pod_cidr.into(),
            cgroup_root: format!("/lowtide-test-{instance}-{}", std::process::id()),
            directory,
            agent: RefCell::new(None),
        };
        node.start_agent();
        node.wait(async |runtime| runtime.recover().await.expect("recovered"));
        node
    }

    pub fn layout(&self) -> Layout {
        let at = |name: &str| self.directory.path().join(name);
        Layout {
            root: at("root"),
            run: at("run"),
            logs: at("logs/pods"),
        }
    }

    /// A new agent on the same directories; the old one is dropped as a crash would.
    pub fn start_agent(&self) {
        drop(self.agent.take());
        let layout = self.layout();
        fs::create_dir_all(&layout.root).expect("root");
        fs::create_dir_all(&layout.run).expect("run");
        let cgroups = Cgroups::detect(&self.cgroup_root).expect("cgroups");
        cgroups.make_qos(&layout.cgroups()).expect("QoS cgroups");
        let executor = Rc::new(LocalExecutor::new());
        let runtime = HostRuntime::new(Parts {
            clock: Rc::new(SystemClock::new().expect("clock")),
            random: Rc::new(SystemRandom),
            executor: executor.clone(),
            executable: env!("CARGO_BIN_EXE_lowtide").into(),
            facts: read_facts(&cgroups).expect("facts"),
            network: Network::new(
                Bridge::new(
                    &self.instance,
                    Subnet::parse(&self.pod_cidr).expect("range"),
                    "nft",
                ),
                Cni::new(None, layout.root.join("cni")),
            ),
            oci: OciRuntime::find("runc", &layout.runtime_state()).expect("runc"),
            images: Rc::new(OneImage(self.directory.path().join("image"))),
            cgroups: Arc::new(cgroups),
            layout,
            log_limits: LOG_LIMITS,
        });
        let runtime = Rc::new(runtime);
        self.agent.replace(Some(Agent { executor, runtime }));
    }

    /// Runs one call to its end, everything else of the agent beside it.
    pub fn wait<T>(&self, work: impl AsyncFnOnce(Rc<HostRuntime>) -> T) -> T {
        let agent = self.agent.borrow();
        let agent = agent.as_ref().expect("an agent");
        let (executor, runtime) = (agent.executor.clone(), agent.runtime.clone());
        let late = async {
            let time = std::time::Duration::from_secs(PATIENCE_S);
            #[allow(clippy::disallowed_methods)]
            async_io::Timer::after(time).await;
            panic!("not within {PATIENCE_S} seconds");
        };
        let work = futures_lite::future::or(work(runtime), late);
        async_io::block_on(executor.run(work))
    }

    /// Lets the agent's own tasks run for a moment.
    #[allow(clippy::disallowed_methods)]
    pub fn rest(&self) {
        self.wait(async |_| async_io::Timer::after(std::time::Duration::from_millis(20)).await);
    }

    /// Polls `work` at most `polls` times and then drops it and the agent, as a crash would.
    /// `true` if it had come to its end by then.
    pub fn crash_after<T>(&self, polls: u32, work: impl AsyncFnOnce(Rc<HostRuntime>) -> T) -> bool {
        let finished = self.wait(async |runtime| {
            let mut work = Box::pin(work(runtime));
            let mut left = polls;
            std::future::poll_fn(move |context| {
                if left == 0 {
                    return std::task::Poll::Ready(false);
                }
                left -= 1;
                work.as_mut().poll(context).map(|_| true)
            })
            .await
        });
        drop(self.agent.take());
        eventually("what threads had begun is over", threads_rest);
        finished
    }

    pub fn observe(&self, uid: &Uid) -> PodObserved {
        self.wait(async |runtime| runtime.observe(uid))
    }

    /// Waits for an observation, from change to change.
    pub fn until(&self, uid: &Uid, what: &str, condition: impl Fn(&PodObserved) -> bool) {
        eprintln!("waiting: {what}");
        self.wait(async |runtime| {
            while !condition(&runtime.observe(uid)) {
                runtime.next_change().await;
            }
        });
    }

    /// Waits for the end of a container.
    pub fn exit(&self, uid: &Uid, id: &ContainerId) -> Exit {
        let ended = |pod: &PodObserved| {
            let found = pod.containers.iter().find(|c| c.id == *id);
            match &found.expect("recorded").state {
                ContainerState::Exited(exit) => Some(exit.clone()),
                ContainerState::Created | ContainerState::Running { .. } => None,
            }
        };
        self.until(uid, "exit", |pod| ended(pod).is_some());
        ended(&self.observe(uid)).expect("ended")
    }

    pub fn start_pod(&self, config: &SandboxConfig) {
        let uid = config.uid.clone();
        let config = Arc::new(config.clone());
        self.wait(async |runtime| runtime.start_sandbox(config).await)
            .unwrap_or_else(|error| {
                let journal = self.layout().pod_run(&uid).join("shim.log");
                let text = fs::read_to_string(journal).unwrap_or_default();
                panic!("sandbox: {error}; its shim says: {text}")
            });
    }

    pub fn start(&self, config: &ContainerConfig) -> ContainerId {
        let config = Arc::new(config.clone());
        self.wait(async |runtime| runtime.start_container(config).await)
            .expect("container")
    }

    pub fn remove(&self, uid: &Uid) {
        self.wait(async |runtime| runtime.remove_pod(uid).await)
            .expect("removed");
    }

    /// Shims of this node that live, and what lives below them, by their command lines.
    fn processes(&self) -> Vec<String> {
        let run = self.layout().run.to_string_lossy().into_owned();
        let entries = fs::read_dir("/proc").expect("proc").flatten();
        let lines = entries.filter_map(|entry| fs::read(entry.path().join("cmdline")).ok());
        let texts = lines.map(|line| String::from_utf8_lossy(&line).replace('\0', " "));
        texts.filter(|text| text.contains(&run)).collect()
    }

    /// Everything the kernel and RUN hold for this node, for comparing before and after.
    pub fn traces(&self) -> Vec<String> {
        let mounts = fs::read_to_string("/proc/self/mounts").expect("mounts");
        let mut found: Vec<String> = mounts.lines().map(str::to_owned).collect();
        found.extend(list(&self.layout().pods()));
        found.extend(list(&self.layout().runtime_state()));
        found.extend(list(&self.layout().root.join("pods")));
        for hierarchy in fs::read_dir("/sys/fs/cgroup").expect("cgroups").flatten() {
            let kubepods = hierarchy
                .path()
                .join(&self.cgroup_root[1..])
                .join("kubepods");
            for class in ["", "burstable", "besteffort"] {
                let pods = list(&kubepods.join(class));
                found.extend(pods.into_iter().filter(|path| path.contains("/pod")));
            }
        }
        found.extend(self.processes());
        let links = crate::support::run("ip", &["-o", "link"]);
        let links = links.lines().filter(|line| line.contains(&self.instance));
        // The bridge stays for the next pod.
        found.extend(links.filter(|l| !l.contains(": lt-")).map(str::to_owned));
        found
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        if self.agent.borrow().is_none() {
            self.start_agent();
        }
        let pods = list(&self.layout().pods());
        self.wait(async |runtime| {
            let _ = runtime.recover().await;
            for path in pods {
                let name = Path::new(&path).file_name().expect("a name").to_owned();
                let uid = Uid::new(&name.to_string_lossy()).expect("a uid");
                if let Err(error) = runtime.remove_pod(&uid).await {
                    eprintln!("remove pod {uid}: {error}");
                }
            }
        });
        for hierarchy in fs::read_dir("/sys/fs/cgroup").expect("cgroups").flatten() {
            let root = hierarchy.path().join(&self.cgroup_root[1..]);
            for path in ["kubepods/burstable", "kubepods/besteffort", "kubepods", ""] {
                let _ = fs::remove_dir(root.join(path));
            }
        }
    }
}

fn list(directory: &Path) -> Vec<String> {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    let mut paths: Vec<String> = entries
        .map(|entry| entry.path().to_string_lossy().into_owned())
        .collect();
    paths.sort();
    paths
}

fn make_image(root: &Path) {
    for directory in ["bin", "dev", "etc", "proc", "sys", "tmp"] {
        fs::create_dir_all(root.join(directory)).expect("image");
    }
    fs::copy(BUSYBOX, root.join("bin/busybox")).expect("busybox-static");
    for name in [
        "sh", "sleep", "cat", "hostname", "ps", "head", "env", "tail",
    ] {
        symlink("busybox", root.join("bin").join(name)).expect("link");
    }
    fs::write(root.join("etc/passwd"), "root:x:0:0::/:/bin/sh\n").expect("passwd");
}

pub fn pod(name: &str) -> SandboxConfig {
    SandboxConfig {
        uid: Uid::new(name).expect("a safe name"),
        name: name.into(),
        namespace: "default".into(),
        attempt: 0,
        hostname: name.into(),
        domain: None,
        namespaces: Namespaces {
            network: NamespaceMode::Pod,
            ipc: NamespaceMode::Pod,
            pid: NamespaceMode::Container,
        },
        ports: vec![],
        dns: Dns::default(),
        host_aliases: vec![],
        sysctls: vec![],
        cgroup: PodCgroup {
            qos: QosClass::Burstable,
            resources: CgroupResources {
                cpu_shares: Some(102),
                ..CgroupResources::default()
            },
        },
    }
}

pub fn container(pod: &SandboxConfig, name: &str, script: &str) -> ContainerConfig {
    ContainerConfig {
        uid: pod.uid.clone(),
        pod_name: pod.name.clone(),
        namespace: pod.namespace.clone(),
        name: name.into(),
        attempt: 0,
        hash: "hash".into(),
        image: "busybox".into(),
        image_id: format!("sha256:{}", "0".repeat(64)),
        image_shown: String::new(),
        command: vec!["/bin/sh".into(), "-c".into(), script.into()],
        args: vec![],
        working_dir: None,
        env: vec![],
        mounts: vec![],
        security: Security {
            run_as_user: None,
            run_as_group: None,
            run_as_non_root: false,
            supplemental_groups: vec![],
            strict_groups: false,
            fs_group: None,
            privileged: false,
            capabilities: Capabilities::default(),
            no_new_privileges: false,
            read_only_root: false,
            proc_mount: ProcMount::Default,
            seccomp: Seccomp::Unconfined,
        },
        resources: CgroupResources::default(),
        oom_score_adj: 1000,
        stdin: false,
        stdin_once: false,
        tty: false,
        target: None,
        termination_message_path: "/dev/termination-log".into(),
        termination_message_policy: TerminationMessagePolicy::FallbackToLogsOnError,
    }
}

/// Whether no thread for blocking calls is at work: each waits for something to do. A crash would end
/// them; here they go on with what they have begun.
fn threads_rest() -> bool {
    let waits = libc::SYS_futex.to_string();
    let threads = fs::read_dir("/proc/self/task").expect("threads").flatten();
    let text = |thread: &Path, file: &str| fs::read_to_string(thread.join(file));
    threads.map(|thread| thread.path()).all(|thread| {
        // One that is gone does nothing.
        let call = || text(&thread, "syscall").unwrap_or_else(|_| waits.clone());
        let name = text(&thread, "comm").unwrap_or_default();
        !name.starts_with("blocking-") || call().split(' ').next() == Some(&*waits)
    })
}
