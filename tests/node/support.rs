//! One node under test: its directories, its agent, its client, and the kernel around it.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::host::{PATIENCE, SLOWER};
pub use crate::host::{eventually, wait_for};
use crate::image::Recipe;
use crate::isolation::{cgroup_name, cgroup_roots, directories, run};

pub const LOWTIDE: &str = env!("CARGO_BIN_EXE_lowtide");
/// The image that every node of a test has.
pub const IMAGE: &str = "localhost/busybox:1";
/// Directories and flags of one node; the agent may be running or not.
pub struct Node {
    pub place: PathBuf,
    pub root: PathBuf,
    pub run: PathBuf,
    pub logs: PathBuf,
    pub manifests: PathBuf,
    pub images: PathBuf,
    /// What is started as `lowtide`.
    pub program: PathBuf,
    /// More flags for `lowtide run`.
    pub flags: Vec<String>,
    /// Variables of the agent's environment.
    pub variables: Vec<(&'static str, String)>,
    pub cgroup_place: PathBuf,
    agent: Option<Child>,
    starts: u32,
}

impl Node {
    /// Directories and the image archive, no agent yet.
    pub fn new(place: &Path) -> Node {
        Node::with_run(place, place.join("run"))
    }

    pub fn with_run(place: &Path, run: PathBuf) -> Node {
        let node = Node {
            root: place.join("root"),
            logs: place.join("logs/pods"),
            manifests: place.join("manifests"),
            images: place.join("images"),
            program: LOWTIDE.into(),
            flags: Vec::new(),
            variables: Vec::new(),
            cgroup_place: place.to_path_buf(),
            place: place.to_path_buf(),
            run,
            agent: None,
            starts: 0,
        };
        for directory in [&node.manifests, &node.images] {
            fs::create_dir_all(directory).unwrap();
        }
        let archive = Recipe::busybox().docker_archive(&[IMAGE]);
        fs::write(node.images.join("busybox.tar"), archive).unwrap();
        node
    }

    /// A node whose agent is ready.
    pub fn started(place: &Path) -> Node {
        let mut node = Node::new(place);
        node.start();
        node
    }

    pub fn flag(mut self, flag: &str) -> Node {
        self.flags.push(flag.to_owned());
        self
    }

    fn command(&mut self, exit: &str) -> Command {
        self.starts += 1;
        let log = File::create(self.log_path()).unwrap();
        let mut command = Command::new(&self.program);
        let value = |name: &str, path: &Path| format!("--{name}={}", path.display());
        command
            .arg("run")
            .arg(value("root-dir", &self.root))
            .arg(value("run-dir", &self.run))
            .arg(value("pod-logs-dir", &self.logs))
            .arg(value("pod-manifest-path", &self.manifests))
            .arg(value("image-dir", &self.images))
            .arg(format!("--cgroup-root={}", cgroup_name(&self.cgroup_place)))
            .args(self.hostname())
            .arg(exit)
            .args(self.thresholds())
            .args(&self.flags)
            .envs(self.variables.iter().cloned())
            .env("RUST_LOG", "info,lowtide::kubelet=debug")
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log);
        command
    }

    fn log_path(&self) -> PathBuf {
        self.place.join(format!("agent.{}.log", self.starts))
    }

    /// What the present agent has logged.
    pub fn log(&self) -> String {
        fs::read_to_string(self.log_path()).unwrap_or_default()
    }

    /// Starts an agent that stops its pods at SIGTERM, and waits until it is ready.
    pub fn start(&mut self) {
        self.start_agent("--exit-stops-pods");
    }

    /// Starts an agent that leaves its pods at SIGTERM.
    pub fn start_plain(&mut self) {
        self.start_agent("--exit-stops-pods=false");
    }

    fn hostname(&self) -> Option<&'static str> {
        let said = self.flags.iter().any(|flag| flag.contains("--hostname"));
        (!said).then_some("--hostname-override=n")
    }

    /// How full the disk of the machine is decides nothing here, unless a test says so.
    fn thresholds(&self) -> Option<&'static str> {
        let said = self
            .flags
            .iter()
            .any(|flag| flag.contains("--eviction-hard"));
        (!said).then_some("--eviction-hard=memory.available<1Mi,nodefs.available<1Mi")
    }

    fn start_agent(&mut self, exit: &str) {
        self.begin(exit);
        self.ready();
    }

    /// Starts an agent and does not wait.
    pub fn begin(&mut self, exit: &str) {
        assert!(self.agent.is_none(), "the agent runs already");
        let agent = self.command(exit).spawn().expect("lowtide starts");
        self.agent = Some(agent);
    }

    /// Waits until the agent says that it is ready.
    pub fn ready(&mut self) {
        let start = Instant::now();
        while !self.log().contains(" is ready: ") {
            let agent = self.agent.as_mut().expect("an agent");
            let ended = agent.try_wait().unwrap();
            let late = start.elapsed() > PATIENCE;
            assert!(ended.is_none() && !late, "not ready: {}", self.log());
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// The agent ends as by a crash.
    pub fn kill(&mut self) {
        let mut agent = self.agent.take().expect("an agent");
        agent.kill().unwrap();
        agent.wait().unwrap();
    }

    /// SIGTERM, and the agent's exit code.
    pub fn terminate(&mut self) -> Option<i32> {
        let mut agent = self.agent.take().expect("an agent");
        signal(agent.id(), "TERM");
        let code = wait_for("the agent ends", || agent.try_wait().unwrap());
        code.code()
    }

    /// Status code and body of an answer at `url`, whose certificate must be of the node's CA.
    pub fn curl(&self, arguments: &[&str], url: &str) -> (u16, String) {
        let output = Command::new("curl")
            .args(["--silent", "--show-error", "--max-time", "30", "--cacert"])
            .arg(self.root.join("pki/ca.crt"))
            .args(["--write-out", "\n%{http_code}"])
            .args(arguments)
            .arg(url)
            .output()
            .expect("curl");
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{arguments:?} {url}: {errors}");
        let text = String::from_utf8_lossy(&output.stdout);
        let (body, code) = text.rsplit_once('\n').expect("a code");
        (code.parse().expect("a code"), body.to_owned())
    }

    /// Stops node and pods; nothing may be left.
    pub fn finish(mut self) {
        if self.agent.is_none() {
            self.start();
        }
        assert_eq!(self.terminate(), Some(0), "{}", self.log());
        assert_eq!(self.left(), Vec::<String>::new(), "{}", self.log());
        assert_eq!(links(), ["lo"], "links left");
        assert_eq!(run("nft", &["list", "tables"]), "", "nft tables left");
    }

    /// What this node still has in the kernel and under RUN.
    pub fn left(&self) -> Vec<String> {
        let mut left = Vec::new();
        for (pid, command) in processes() {
            let cgroup = fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap_or_default();
            let ours = format!("{}/", cgroup_name(&self.cgroup_place));
            if cgroup.contains(&ours) || command.contains(&*self.run.to_string_lossy()) {
                left.push(format!("process {pid} {command}"));
            }
        }
        let below = [&self.root, &self.run].map(|path| format!("{}/", path.display()));
        let mounts = mounts();
        let mounts = mounts
            .iter()
            .filter(|m| below.iter().any(|b| m.starts_with(b)));
        left.extend(mounts.map(|mount| format!("mount {mount}")));
        for root in cgroup_roots(&self.cgroup_place) {
            let cgroups = directories(&root).into_iter();
            left.extend(cgroups.map(|path| format!("cgroup {}", path.display())));
        }
        for directory in [self.run.join("pods"), self.run.join("runc")] {
            let entries = fs::read_dir(directory).into_iter().flatten().flatten();
            left.extend(entries.map(|e| format!("directory {}", e.path().display())));
        }
        left
    }

    /// Puts a manifest there as a careful writer does: written aside, then renamed.
    pub fn manifest(&self, file: &str, text: &str) {
        let aside = self.place.join("aside.tmp");
        fs::write(&aside, text).unwrap();
        fs::rename(aside, self.manifests.join(file)).unwrap();
    }

    pub fn remove_manifest(&self, file: &str) {
        fs::remove_file(self.manifests.join(file)).unwrap();
    }

    /// Runs the client.
    pub fn client(&self, arguments: &[&str]) -> Output {
        self.client_command(arguments).output().expect("lowtide")
    }

    pub fn client_command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(LOWTIDE);
        let (verb, rest) = arguments.split_first().expect("a verb");
        command.arg(verb).arg("--run-dir").arg(&self.run).args(rest);
        command
    }

    /// Runs the client, which must succeed.
    pub fn ok(&self, arguments: &[&str]) -> String {
        let output = self.client(arguments);
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{arguments:?}: {errors}");
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// All objects of a kind; none while the API does not answer.
    pub fn list(&self, kind: &str) -> Vec<Value> {
        let output = self.client(&["get", kind, "-A", "-o", "json"]);
        let list: Value = serde_json::from_slice(&output.stdout).unwrap_or_default();
        list["items"].as_array().cloned().unwrap_or_default()
    }

    /// The pod of a manifest that names it `name`.
    pub fn pod(&self, name: &str) -> Option<Value> {
        let full = format!("{name}-n");
        let mut pods = self.list("pods").into_iter();
        pods.find(|pod| pod["metadata"]["name"] == *full)
    }

    /// Waits until the pod is as wanted.
    pub fn pod_until(&self, name: &str, what: &str, wanted: impl Fn(&Value) -> bool) -> Value {
        let start = Instant::now();
        loop {
            let pod = self.pod(name);
            if let Some(pod) = pod.as_ref().filter(|pod| wanted(pod)) {
                return pod.clone();
            }
            if start.elapsed() > PATIENCE {
                let status = pod.map(|pod| pod["status"].clone());
                let events = self.events(name).join("\n");
                panic!(
                    "{name}: {what}: not in {PATIENCE:?}\n{status:#?}\n{events}\n{}",
                    self.log()
                );
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Waits until the pod runs and is ready.
    pub fn up(&self, name: &str) -> Value {
        self.pod_until(name, "ready", |pod| {
            pod["status"]["phase"] == "Running" && condition(pod, "Ready") == Some("True")
        })
    }

    pub fn gone(&self, name: &str) {
        eventually(&format!("{name} gone"), || {
            self.client(&["get", "nodes"]).status.success() && self.pod(name).is_none()
        });
    }

    /// `Type Reason Message` of all events about a pod (or another object of that name).
    pub fn events(&self, name: &str) -> Vec<String> {
        let events = self.list("events").into_iter();
        let about = |event: &Value| {
            let involved = event["involvedObject"]["name"].as_str().unwrap_or("");
            involved == name || involved.strip_suffix("-n") == Some(name)
        };
        let text = |value: &Value| value.as_str().unwrap_or("").to_owned();
        events
            .filter(about)
            .map(|e| {
                format!(
                    "{} {} {}",
                    text(&e["type"]),
                    text(&e["reason"]),
                    text(&e["message"])
                )
            })
            .collect()
    }

    /// Waits for an event whose line contains `part`.
    pub fn event(&self, name: &str, part: &str) -> String {
        let start = Instant::now();
        loop {
            let events = self.events(name);
            if let Some(event) = events.iter().find(|event| event.contains(part)) {
                return event.clone();
            }
            let late = start.elapsed() > PATIENCE;
            assert!(
                !late,
                "no event {part:?} of {name} in {events:#?}\n{}",
                self.log()
            );
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// The output of a command in a pod's container.
    pub fn sh(&self, name: &str, script: &str) -> String {
        self.ok(&["exec", &format!("{name}-n"), "--", "sh", "-c", script])
    }

    /// Waits until the log of a pod's container has `part`, and returns it.
    pub fn said(&self, name: &str, part: &str) -> String {
        wait_for(&format!("{name} says {part}"), || {
            Some(self.logs_of(name)).filter(|log| log.contains(part))
        })
    }

    pub fn logs_of(&self, name: &str) -> String {
        let output = self.client(&["logs", &format!("{name}-n")]);
        String::from_utf8_lossy(&output.stdout).into_owned()
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        if std::thread::panicking() && std::env::var_os("LOWTIDE_TEST_LOG").is_some() {
            eprintln!("{}", self.log());
        }
        if let Some(mut agent) = self.agent.take() {
            let _ = agent.kill();
            let _ = agent.wait();
        }
    }
}

/// A pod manifest: `more` is YAML of the spec, indented by two; `container` of its only container
/// `c`, indented by four.
pub fn pod(name: &str, script: &str, container: &str, more: &str) -> String {
    let script = serde_json::to_string(script).unwrap();
    format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}}}\nspec:\n  \
         terminationGracePeriodSeconds: {SLOWER}\n{more}\n  containers:\n  - name: c\n    \
         image: {IMAGE}\n    command: [sh, -c, {script}]\n{container}\n"
    )
}

/// A script that runs until it is asked to end, and then ends at once.
pub const FOREVER: &str = "trap 'exit 0' TERM; echo started; while :; do sleep 1 & wait $!; done";

pub fn condition<'a>(object: &'a Value, kind: &str) -> Option<&'a str> {
    let conditions = object["status"]["conditions"].as_array()?;
    let found = conditions.iter().find(|c| c["type"] == kind)?;
    found["status"].as_str()
}

/// The status of a container, init containers included.
pub fn container(pod: &Value, name: &str) -> Value {
    let lists = ["containerStatuses", "initContainerStatuses"];
    let all = lists
        .iter()
        .filter_map(|list| pod["status"][list].as_array());
    let found = all.flatten().find(|status| status["name"] == name);
    found.cloned().unwrap_or_default()
}

pub fn restarts(pod: &Value, name: &str) -> u64 {
    container(pod, name)["restartCount"].as_u64().unwrap_or(0)
}

pub fn uid(pod: &Value) -> String {
    pod["metadata"]["uid"].as_str().expect("a uid").to_owned()
}

/// Living processes of the test's namespace: pid and command line, zombies left out.
pub fn processes() -> Vec<(u32, String)> {
    let entries = fs::read_dir("/proc").unwrap().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    pids.filter_map(|pid: u32| {
        let command = fs::read(format!("/proc/{pid}/cmdline")).ok()?;
        let command = String::from_utf8_lossy(&command).replace('\0', " ");
        (!command.is_empty()).then_some((pid, command))
    })
    .collect()
}

/// Pids of processes whose command line contains `part`.
pub fn pids_of(part: &str) -> Vec<u32> {
    let all = processes().into_iter();
    let found = all.filter(|(_, command)| command.contains(part));
    found.map(|(pid, _)| pid).collect()
}

pub fn signal(pid: u32, name: &str) {
    run("sh", &["-c", &format!("kill -{name} {pid}")]);
}

/// Mount points of the test's namespace.
pub fn mounts() -> Vec<String> {
    let text = fs::read_to_string("/proc/self/mountinfo").unwrap();
    let points = text.lines().filter_map(|line| line.split(' ').nth(4));
    points.map(str::to_owned).collect()
}

pub fn links() -> Vec<String> {
    let text = run("ip", &["-o", "link"]);
    let names = text.lines().filter_map(|line| line.split(": ").nth(1));
    names
        .map(|name| name.split('@').next().unwrap_or(name).to_owned())
        .collect()
}
