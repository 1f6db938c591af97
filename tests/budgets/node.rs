//! A whole node of the static binary in directories of its own, and the bare runtime beside it.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::processes;
use super::support::{eventually, program, run};

/// A node that has not done it by then never will.
const PATIENCE: Duration = Duration::from_secs(60);
const IMAGE: &str = "localhost/lowtide-budget:1";

pub struct Node {
    binary: PathBuf,
    name: &'static str,
    /// More flags for `lowtide run`.
    flags: Vec<String>,
    directory: tempfile::TempDir,
    cgroup_root: String,
    agent: Option<Child>,
    /// What started containers say: one line with their name.
    started: BufReader<File>,
    bare_runs: u32,
}

#[allow(clippy::disallowed_methods, reason = "a benchmark measures real time")]
fn now() -> Instant {
    Instant::now()
}

impl Node {
    /// Makes directories and image, starts the agent and waits until the image is imported.
    pub fn start(binary: &Path) -> Node {
        Node::named("budget", binary, vec!["--secure-port=0".to_owned()])
    }

    /// Another one beside it.
    pub fn named(name: &'static str, binary: &Path, flags: Vec<String>) -> Node {
        let directory = tempfile::tempdir().expect("temporary directory");
        let at = |name: &str| directory.path().join(name);
        for name in ["manifests", "staged", "images", "run", "out", "bare"] {
            fs::create_dir(at(name)).expect(name);
        }
        let run_dir = at("run");
        run("mount", &["-t", "tmpfs", "run", &run_dir.to_string_lossy()]);
        let maker = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/make-image");
        let archive = at("images/budget.tar");
        run(maker, &[&archive.to_string_lossy(), IMAGE]);
        let fifo = at("out/started");
        run("mkfifo", &[&fifo.to_string_lossy()]);
        // Both ends: opening never waits and there is no end of file between two writers.
        let fifo = File::options().read(true).write(true).open(fifo);
        let mut node = Node {
            binary: binary.to_owned(),
            name,
            flags,
            cgroup_root: format!("/lowtide-{name}-{}", std::process::id()),
            agent: None,
            started: BufReader::new(fifo.expect("fifo")),
            bare_runs: 0,
            directory,
        };
        node.run_agent();
        eventually("the image is imported", || {
            let images = program(&node.binary.to_string_lossy())
                .args(["images", "--run-dir"])
                .arg(node.path("run"))
                .output();
            images.is_ok_and(|out| String::from_utf8_lossy(&out.stdout).contains("lowtide-budget"))
        });
        node
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn run_agent(&mut self) {
        let log = File::options()
            .create(true)
            .append(true)
            .open(self.path("agent.log"));
        let agent = program(&self.binary.to_string_lossy())
            .arg("run")
            .arg(format!("--hostname-override={}", self.name))
            .args(&self.flags)
            .arg("--eviction-hard=memory.available<1Mi,nodefs.available<1Mi")
            .args(["--exit-stops-pods", "--max-pods=200"])
            .arg(format!("--cgroup-root={}", self.cgroup_root))
            .arg("--pod-manifest-path")
            .arg(self.path("manifests"))
            .arg("--image-dir")
            .arg(self.path("images"))
            .arg("--root-dir")
            .arg(self.path("root"))
            .arg("--run-dir")
            .arg(self.path("run"))
            .arg("--pod-logs-dir")
            .arg(self.path("logs/pods"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log.expect("log"))
            .spawn();
        self.agent = Some(agent.expect("the agent starts"));
    }

    pub fn agent_pid(&self) -> u32 {
        self.agent.as_ref().expect("an agent runs").id()
    }

    /// Writes the manifests beside the directory; they are renamed into it by `publish`.
    pub fn stage(&self, names: &[String]) {
        for name in names {
            let pod = self.manifest(name);
            let path = self.path("staged").join(format!("{name}.json"));
            fs::write(path, pod.to_string()).expect("manifest");
        }
    }

    pub fn manifest(&self, name: &str) -> Value {
        let script = format!("echo {name} >/out/started; exec sleep 1000000");
        json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {"name": name},
            "spec": {
                "terminationGracePeriodSeconds": 0,
                "containers": [{
                    "name": "main", "image": IMAGE, "command": ["sh", "-c", script],
                    "volumeMounts": [{"name": "out", "mountPath": "/out"}],
                }],
                "volumes": [{"name": "out", "hostPath": {"path": self.path("out")}}],
            },
        })
    }

    /// Time from the first rename until the container of every pod has run its first command.
    pub fn publish(&mut self, names: &[String]) -> Duration {
        let start = now();
        for name in names {
            let file = format!("{name}.json");
            let staged = self.path("staged").join(&file);
            fs::rename(staged, self.path("manifests").join(&file)).expect("rename");
        }
        for _ in names {
            self.await_line();
        }
        start.elapsed()
    }

    pub fn await_line(&mut self) -> String {
        let mut line = String::new();
        self.started.read_line(&mut line).expect("a line");
        line
    }

    /// Takes all manifests away and waits until no pod is left.
    pub fn clear(&self) {
        for file in fs::read_dir(self.path("manifests")).expect("manifests") {
            fs::remove_file(file.expect("entry").path()).expect("remove");
        }
        self.await_pods(0);
    }

    /// Waits until exactly so many pods are listed and each is ready.
    pub fn await_pods(&self, count: usize) {
        let start = now();
        loop {
            if let Ok(list) = self.get("/api/v1/pods")
                && list.matches("\"phase\":\"").count() == count
                && list.matches("\"ready\":true").count() == count
            {
                return;
            }
            assert!(start.elapsed() < PATIENCE, "not {count} ready pods in time");
            pause(Duration::from_millis(5));
        }
    }

    /// Kills the agent, starts another and returns how long it took to report every pod.
    pub fn replace_agent(&mut self, count: usize) -> Duration {
        let mut agent = self.agent.take().expect("an agent runs");
        agent.kill().expect("kill -9");
        agent.wait().expect("reap");
        let start = now();
        self.run_agent();
        self.await_pods(count);
        start.elapsed()
    }

    pub fn get(&self, path: &str) -> std::io::Result<String> {
        self.ask("GET", path, "")
    }

    /// The whole answer, which has to say that it went well.
    pub fn ask(&self, verb: &str, path: &str, body: &str) -> std::io::Result<String> {
        let mut stream = UnixStream::connect(self.path("run/api.sock"))?;
        stream.set_read_timeout(Some(PATIENCE))?;
        let length = body.len();
        let head = format!("{verb} {path} HTTP/1.0\r\nHost: x\r\nContent-Type: application/json");
        write!(stream, "{head}\r\nContent-Length: {length}\r\n\r\n{body}")?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        match answer.starts_with("HTTP/1.") && answer.get(9..11) == Some("20") {
            true => Ok(answer),
            false => Err(std::io::Error::other(answer)),
        }
    }

    /// The same bundle, run by the bare runtime `count` times in a row in the namespaces of the
    /// pod's pause: time until the last one has run its first command.
    pub fn run_bare(&mut self, pod: &str, count: u32) -> Duration {
        let made = self.bundle_of(pod);
        let text = fs::read_to_string(made.join("config.json")).expect("config.json");
        let mut config: Value = serde_json::from_str(&text).expect("JSON");
        let root = made.join(config["root"]["path"].as_str().expect("root"));
        config["root"]["path"] = root.to_string_lossy().into();
        // In the pod's own cgroup: beside other work its share of the processors decides.
        let cgroup = config["linux"]["cgroupsPath"].as_str().expect("a cgroup");
        let pod_cgroup = cgroup.rsplit_once('/').expect("of a pod").0.to_owned();
        let state = self.path("bare/state").to_string_lossy().into_owned();
        let mut prepared = Vec::new();
        for _ in 0..count {
            self.bare_runs += 1;
            let id = format!("bare{}", self.bare_runs);
            config["linux"]["cgroupsPath"] = format!("{pod_cgroup}/{id}").into();
            let bundle = self.path("bare").join(&id);
            fs::create_dir(&bundle).expect("bundle");
            fs::write(bundle.join("config.json"), config.to_string()).expect("config.json");
            prepared.push((id, bundle.to_string_lossy().into_owned()));
        }
        let start = now();
        for (id, bundle) in &prepared {
            let status = program("runc")
                .args(["--root", &state, "run", "--detach", "--bundle", bundle, id])
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .status();
            assert!(status.expect("runc").success(), "bare runc run");
        }
        for _ in &prepared {
            self.await_line();
        }
        let took = start.elapsed();
        for (id, _) in &prepared {
            run("runc", &["--root", &state, "delete", "--force", id]);
        }
        took
    }

    fn bundle_of(&self, pod: &str) -> PathBuf {
        let list = self.get("/api/v1/pods").expect("pods");
        let body = list.split_once("\r\n\r\n").expect("a body").1;
        let list: Value = serde_json::from_str(body).expect("JSON");
        let wanted = format!("{pod}-{}", self.name);
        let pods = list["items"].as_array().expect("items");
        let found = pods.iter().find(|p| p["metadata"]["name"] == *wanted);
        let uid = found.expect("the pod")["metadata"]["uid"].as_str();
        self.path(&format!("run/pods/{}/containers/main.0", uid.expect("uid")))
    }

    /// Shims of this node, each with its pause.
    pub fn shims(&self) -> Vec<Vec<u32>> {
        let pods = fs::read_dir(self.path("run/pods")).expect("pods");
        let shim = |pod: fs::DirEntry| {
            let text = fs::read_to_string(pod.path().join("shim.pid")).ok()?;
            let shim = text.split_whitespace().next()?.parse().ok()?;
            let mut family = vec![shim];
            family.extend(processes::children(shim, "pause"));
            Some(family)
        };
        pods.filter_map(|pod| shim(pod.ok()?)).collect()
    }
}

impl Drop for Node {
    /// Stops the pods with the agent, so that a failed test leaves nothing running either.
    fn drop(&mut self) {
        if std::thread::panicking() {
            let log = fs::read_to_string(self.path("agent.log")).unwrap_or_default();
            eprintln!("the agent said:\n{log}");
        }
        if let Some(mut agent) = self.agent.take() {
            let _ = program("kill").arg(agent.id().to_string()).status();
            let _ = agent.wait();
        }
        remove_cgroups(&self.cgroup_root);
        let _ = program("umount").arg("-l").arg(self.path("run")).status();
    }
}

/// Takes the empty cgroups below a `--cgroup-root` away, in all hierarchies.
pub fn remove_cgroups(cgroup_root: &str) {
    let hierarchies = fs::read_dir("/sys/fs/cgroup").into_iter().flatten();
    for hierarchy in hierarchies.flatten() {
        let root = hierarchy.path().join(&cgroup_root[1..]);
        let _ = program("find")
            .arg(&root)
            .args(["-depth", "-type", "d", "-exec", "rmdir", "{}", ";"])
            .stderr(Stdio::null())
            .status();
    }
}

#[allow(clippy::disallowed_methods, reason = "polls, and leaves the node idle")]
pub fn pause(time: Duration) {
    std::thread::sleep(time);
}
