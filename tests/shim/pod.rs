//! A pod directory with a busybox root, a shim from the built binary, and bundles for real runc.
//!
//! Needs root, runc and a static busybox; without them the tests say so and pass.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::Duration;

use async_channel::Receiver;
use async_executor::LocalExecutor;
use lowtide::os::clock::SystemClock;
use lowtide::os::process::{ProcessIdentity, effective_uid};
use lowtide::os::spawn::{Spawn, find_program};
use lowtide::runtime::shim::client::{self, Client, Connection};
use lowtide::runtime::shim::record::{self, ContainerRecord, ExitRecord, PodDirectory};
use lowtide::runtime::shim::wire::{
    ExecRequest, LogConfig, Own, PauseConfig, RunRequest, Stdin, Terminal,
};
use lowtide::world::{Clock, Uid};
use serde_json::{Value, json};

/// Longest that anything here is waited for; the machine may be busy.
const PATIENCE: Duration = Duration::from_secs(30);

pub struct Pod<'e> {
    pub home: tempfile::TempDir,
    pub directory: PodDirectory,
    pub clock: Rc<dyn Clock>,
    executor: &'e LocalExecutor<'static>,
    cgroup: String,
}

/// Runs a test with a pod of its own; skips it where the machine cannot.
pub fn with_pod(test: impl AsyncFnOnce(&Pod<'_>)) {
    if let Some(reason) = missing() {
        eprintln!("skipped: {reason}");
        return;
    }
    let executor = LocalExecutor::new();
    async_io::block_on(executor.run(async {
        let pod = Pod::new(&executor);
        test(&pod).await;
        pod.clean().await;
    }));
}

fn missing() -> Option<&'static str> {
    if effective_uid() != 0 {
        return Some("not root");
    }
    if find_program("runc").is_none() {
        return Some("no runc");
    }
    (!Path::new("/bin/busybox").exists()).then_some("no /bin/busybox")
}

impl<'e> Pod<'e> {
    fn new(executor: &'e LocalExecutor<'static>) -> Pod<'e> {
        let home = tempfile::tempdir().expect("temporary directory");
        let uid = Uid::new("0a1b2c3d-1111-2222-3333-444455556666").expect("a uid");
        let directory = PodDirectory::new(&home.path().join("run"), &uid);
        fs::create_dir_all(directory.containers()).expect("pod directory");
        fs::create_dir_all(home.path().join("logs")).expect("log directory");
        let name = home.path().file_name().expect("a name");
        let name = name.to_string_lossy().replace('.', "");
        let pod = Pod {
            directory,
            clock: Rc::new(SystemClock::new().expect("clock")),
            executor,
            cgroup: format!("/lowtide-shim-test-{name}"),
            home,
        };
        pod.make_root();
        pod
    }

    fn make_root(&self) {
        let root = self.root();
        for name in ["bin", "proc", "dev", "tmp", "sys"] {
            fs::create_dir_all(root.join(name)).expect("root directory");
        }
        fs::copy("/bin/busybox", root.join("bin/busybox")).expect("busybox");
        for applet in [
            "sh", "sleep", "echo", "seq", "cat", "stty", "tail", "head", "setsid", "yes",
        ] {
            symlink("busybox", root.join("bin").join(applet)).expect("applet");
        }
        fs::write(root.join("bin/text"), "no program").expect("file");
    }

    fn root(&self) -> PathBuf {
        self.home.path().join("root")
    }

    /// Connects, starting a shim if there is none, and drives the connection.
    pub async fn connect(&self) -> (Client, Receiver<()>) {
        let run_dir = self.home.path().join("run");
        let binary = Path::new(env!("CARGO_BIN_EXE_lowtide"));
        let clock = self.clock.clone();
        let opened = client::connect_or_spawn(&run_dir, &self.directory, binary, clock).await;
        let Connection {
            client,
            changes,
            driver,
        } = opened.expect("a shim");
        self.executor.spawn(driver).detach();
        (client, changes)
    }

    pub fn runtime(&self) -> Vec<String> {
        let state = self.home.path().join("runc");
        vec![
            "runc".into(),
            "--root".into(),
            state.to_string_lossy().into_owned(),
        ]
    }

    /// A bundle that runs `script`; `change` edits its config.json.
    pub fn bundle(&self, name: &str, script: &str, change: impl FnOnce(&mut Value)) -> RunRequest {
        let directory = self.directory.container(name).expect("a name");
        fs::create_dir_all(directory.path()).expect("bundle directory");
        let mut config = self.config(name, script);
        change(&mut config);
        let text = serde_json::to_vec(&config).expect("json");
        fs::write(directory.file("config.json"), text).expect("config.json");
        RunRequest {
            container: name.into(),
            id: self.id(name),
            runtime: self.runtime(),
            terminal: Terminal::No,
            stdin: Stdin::Closed,
            stdin_once: false,
            log: Some(LogConfig {
                path: self.log(name),
                bytes_max: 10 << 20,
                files_max: 5,
            }),
            oom_events: Some(self.memory_events(name)),
            deadline_ms: 20_000,
        }
    }

    pub fn id(&self, name: &str) -> String {
        format!("{name}-{}", self.cgroup.trim_start_matches('/'))
    }

    pub fn log(&self, name: &str) -> PathBuf {
        self.home.path().join("logs").join(format!("{name}.log"))
    }

    fn memory_events(&self, name: &str) -> PathBuf {
        let below = format!("{}/{name}", self.cgroup.trim_start_matches('/'));
        let v1 = Path::new("/sys/fs/cgroup/memory");
        match v1.exists() {
            true => v1.join(below).join("memory.oom_control"),
            false => Path::new("/sys/fs/cgroup")
                .join(below)
                .join("memory.events"),
        }
    }

    fn config(&self, name: &str, script: &str) -> Value {
        json!({
            "ociVersion": "1.0.2",
            "process": {
                "user": {"uid": 0, "gid": 0},
                "args": ["/bin/sh", "-c", script],
                "env": ["PATH=/bin"],
                "cwd": "/",
            },
            "root": {"path": self.root(), "readonly": true},
            "mounts": [
                {"destination": "/proc", "type": "proc", "source": "proc"},
                {"destination": "/dev", "type": "tmpfs", "source": "tmpfs",
                 "options": ["nosuid", "mode=755", "size=65536k"]},
                {"destination": "/dev/pts", "type": "devpts", "source": "devpts",
                 "options": ["newinstance", "ptmxmode=0666", "mode=0620"]},
                {"destination": "/tmp", "type": "tmpfs", "source": "tmpfs"},
            ],
            "linux": {
                "cgroupsPath": format!("{}/{name}", self.cgroup),
                "namespaces": [
                    {"type": "pid"}, {"type": "ipc"}, {"type": "uts"}, {"type": "mount"},
                ],
            },
        })
    }

    pub fn exec(&self, name: &str, args: &[&str], terminal: Terminal) -> ExecRequest {
        let process = json!({
            "terminal": terminal == Terminal::Yes,
            "user": {"uid": 0, "gid": 0},
            "args": args,
            "env": ["PATH=/bin", "TERM=xterm"],
            "cwd": "/",
        });
        let file = self
            .home
            .path()
            .join(format!("process-{}.json", args.len()));
        fs::write(&file, serde_json::to_vec(&process).expect("json")).expect("process file");
        ExecRequest {
            container: name.into(),
            id: self.id(name),
            runtime: self.runtime(),
            process_file: file,
            terminal,
            timeout_ms: None,
            deadline_ms: 20_000,
        }
    }

    pub fn pause_config(&self) -> PauseConfig {
        PauseConfig {
            network: Own::Pod,
            ipc: Own::Pod,
            uts: Own::Pod,
            hostname: "a-pod".into(),
            sysctls: vec![("net.ipv4.ip_default_ttl".into(), "77".into())],
            deadline_ms: 10_000,
            ..PauseConfig::default()
        }
    }

    /// Waits for the record of a container's end.
    pub async fn exit(&self, name: &str) -> ExitRecord {
        let directory = self.directory.container(name).expect("a name");
        self.until("an exit", || directory.exit().expect("readable"))
            .await
    }

    /// Polls until `look` finds something.
    pub async fn until<T>(&self, what: &str, mut look: impl FnMut() -> Option<T>) -> T {
        let give_up = self.clock.now() + PATIENCE;
        loop {
            if let Some(found) = look() {
                return found;
            }
            assert!(self.clock.now() < give_up, "waited in vain for {what}");
            self.pass(Duration::from_millis(5)).await;
        }
    }

    pub async fn pass(&self, span: Duration) {
        self.clock.sleep_until(self.clock.now() + span).await;
    }

    /// The texts of a container's log, rotated files first, without their frames.
    pub fn lines(&self, name: &str) -> Vec<String> {
        let mut files: Vec<PathBuf> = fs::read_dir(self.home.path().join("logs"))
            .expect("list")
            .map(|entry| entry.expect("entry").path())
            .filter(|path| path.to_string_lossy().contains(&format!("/{name}.log.")))
            .collect();
        files.sort();
        files.push(self.log(name));
        let texts = files
            .iter()
            .map(|file| fs::read_to_string(file).expect("log"));
        texts
            .flat_map(|text| {
                let lines = text.lines().map(|line| line[40..].to_owned());
                lines.collect::<Vec<String>>()
            })
            .collect()
    }

    pub async fn kill_shim(&self, client: &Client) {
        let shim = client.shim().expect("greeted");
        shim.open().expect("alive").signal(9).expect("signal");
        self.until("the shim's end", || (!shim.is_alive()).then_some(()))
            .await;
    }

    /// Ends whatever is left of the pod, by what it recorded.
    async fn clean(&self) {
        let (client, _changes) = self.connect().await;
        for listed in client.list().await.expect("list").containers {
            let _gone = client.signal(&listed.container, 9).await;
            self.exit(&listed.container).await;
        }
        client.shutdown().await.expect("shut down");
        let state = self.home.path().join("runc");
        for entry in fs::read_dir(&state)
            .into_iter()
            .flatten()
            .filter_map(Result::ok)
        {
            let delete = Spawn::new("runc").arg("--root").arg(&state);
            let delete = delete.args(["delete", "--force"]).arg(entry.file_name());
            if let Ok(child) = delete.start() {
                let _how = child.wait().await;
            }
        }
        remove_cgroups(&self.cgroup);
    }
}

/// A test that failed leaves nothing behind either: the shim first, then what it recorded.
impl Drop for Pod<'_> {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            return;
        }
        let text = fs::read_to_string(self.directory.shim_pid()).unwrap_or_default();
        let mut numbers = text.split_whitespace();
        let pid = numbers.next().and_then(|n| n.parse().ok());
        let start_ticks = numbers.next().and_then(|n| n.parse().ok());
        let mut left: Vec<ProcessIdentity> = Vec::new();
        left.extend(
            pid.zip(start_ticks)
                .map(|(pid, start_ticks)| ProcessIdentity { pid, start_ticks }),
        );
        left.extend(
            record::read::<ProcessIdentity>(&self.directory.pause())
                .ok()
                .flatten(),
        );
        let entries = fs::read_dir(self.directory.containers())
            .into_iter()
            .flatten();
        for entry in entries.filter_map(Result::ok) {
            let path = entry.path().join("shim.json");
            let container: Option<ContainerRecord> = record::read(&path).ok().flatten();
            left.extend(container.and_then(|c| c.started).map(|s| s.process));
        }
        for identity in left {
            let _already_gone = identity.open().and_then(|fd| fd.signal(9));
        }
    }
}

/// Our own cgroup in every hierarchy; its children are empty by now.
fn remove_cgroups(path: &str) {
    let below = path.trim_start_matches('/');
    let hierarchies = fs::read_dir("/sys/fs/cgroup").into_iter().flatten();
    let hierarchies = hierarchies.filter_map(Result::ok).map(|entry| entry.path());
    for hierarchy in hierarchies.chain([PathBuf::from("/sys/fs/cgroup")]) {
        let own = hierarchy.join(below);
        for child in fs::read_dir(&own)
            .into_iter()
            .flatten()
            .filter_map(Result::ok)
        {
            let _is_a_file_or_busy = fs::remove_dir(child.path());
        }
        let _not_there = fs::remove_dir(own);
    }
}

/// Whether a process with this command line lives anywhere.
pub fn command_lives(marker: &str) -> bool {
    let processes = lowtide::os::process::living().expect("/proc");
    processes.iter().any(|stat| {
        fs::read_to_string(format!("/proc/{}/cmdline", stat.pid))
            .is_ok_and(|text| text.replace('\0', " ").contains(marker))
    })
}

pub fn identity(pid: i32) -> ProcessIdentity {
    ProcessIdentity::of(pid).expect("alive")
}
