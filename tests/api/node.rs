//! A node for these tests: registry and backend on one thread, the serve thread beside it.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::{Arc, Mutex, mpsc};
use std::time::Duration;

use async_executor::LocalExecutor;
use lowtide::admission;
use lowtide::apiserver::authn::Authenticator;
use lowtide::apiserver::authz::{Authorizer, Mode, PolicyFile};
use lowtide::apiserver::backend::{
    self, AttachSession, AttachStart, Backend, ExecExit, ExecIo, ExecSession, ExecStart, NodeSide,
    NodeStatus, PullProgress, Reply,
};
use lowtide::apiserver::{Limits, Options, Secure, ServeThread, Sockets};
use lowtide::net::unix;
use lowtide::object::{Key, Kind, Source};
use lowtide::os::clock::SystemClock;
use lowtide::os::random::SystemRandom;
use lowtide::os::terminal;
use lowtide::registry::{self, Reader, Registry};
use lowtide::world::{
    self, Call, Clock, Cpu, Detail, Image, LocalFuture, Memory, NoAnswer, PullError, Random,
    RuntimeError, Sample, Uid, Usage,
};
use serde_json::{Value, json};

/// Longest that any of these tests waits for anything.
pub const PATIENCE: Duration = match option_env!("LOWTIDE_EMULATED") {
    Some(_) => Duration::from_secs(60),
    None => Duration::from_secs(10),
};

/// What a node is besides the rule.
#[derive(Default)]
pub struct Setup {
    pub limits: Limits,
    pub registry_limits: registry::Limits,
    /// Admission plug-ins by name, in order.
    pub admission: Vec<&'static str>,
    /// Lines of an ABAC policy; empty: only root may do anything.
    pub policy: &'static str,
    /// `None`: ABAC.
    pub modes: Option<Vec<Mode>>,
    /// What a cluster says of others.
    pub cluster: Arc<Cluster>,
    /// Who is believed, and where TLS is served; `None`: the local socket alone.
    pub front: Option<Front>,
}

pub type Front = Box<dyn FnOnce(&Reader) -> (Authenticator, Secure)>;

type Work = Box<dyn FnOnce(Registry) -> LocalFuture<'static, ()> + Send>;

pub struct Node {
    pub directory: tempfile::TempDir,
    /// For another server beside the one that listens.
    pub reader: Reader,
    pub backend: Backend,
    work: Option<async_channel::Sender<Work>>,
    serve: Option<ServeThread>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Node {
    pub fn start() -> Node {
        Node::with_limits(Limits::default(), registry::Limits::default())
    }

    pub fn with_limits(limits: Limits, registry_limits: registry::Limits) -> Node {
        Node::with(Setup {
            limits,
            registry_limits,
            ..Setup::default()
        })
    }

    pub fn with(setup: Setup) -> Node {
        let directory = tempfile::tempdir().expect("temporary directory");
        let listener = unix::listen(directory.path(), "api.sock").expect("listen");
        let (backend, requests) = backend::channel();
        let (work, todo) = async_channel::bounded::<Work>(8);
        let (ready, started) = mpsc::channel();
        let (plugins, registry_limits) = (setup.admission, setup.registry_limits);
        let cluster = setup.cluster;
        #[allow(clippy::disallowed_methods, reason = "a test's own thread")]
        let thread = std::thread::spawn(move || {
            let executor = Rc::new(LocalExecutor::new());
            let ours = executor.clone();
            async_io::block_on(executor.run(async move {
                let random: Rc<dyn Random> = Rc::new(SystemRandom);
                let options = registry::Options {
                    place: registry::Place::Memory,
                    node_name: "pi".to_owned(),
                    clock: Rc::new(SystemClock::new().expect("clock")),
                    admission: admission::make(&plugins, &random),
                    random,
                    limits: registry_limits,
                    encryption: Default::default(),
                };
                let (registry, _) = Registry::open(options).await.expect("registry");
                ready.send(registry.reader()).expect("the test waits");
                let side = Rc::new(FakeNode(cluster));
                let work = backend::run(requests, side, registry.clone(), ours.clone());
                ours.spawn(work).detach();
                while let Ok(work) = todo.recv().await {
                    ours.spawn(work(registry.clone())).detach();
                }
            }));
        });
        let reader = started.recv_timeout(PATIENCE).expect("the registry opens");
        let policy_path = directory.path().join("policy");
        std::fs::write(&policy_path, setup.policy).expect("policy");
        let policy = PolicyFile::open(Some(&policy_path)).expect("policy");
        let modes = setup.modes.unwrap_or(vec![Mode::Abac]);
        let (authenticator, secure) = match setup.front {
            None => (Authenticator::default(), Vec::new()),
            Some(front) => {
                let (authenticator, secure) = front(&reader);
                (authenticator, vec![secure])
            }
        };
        let options = Options {
            node_name: "pi".to_owned(),
            kubelet_configuration: "{}".to_owned(),
            pod_logs_dir: directory.path().join("logs"),
            figures: Default::default(),
            authenticator,
            authorizer: Authorizer::new(&modes, &policy, &reader),
            limits: setup.limits,
        };
        let clock = || Ok(Rc::new(SystemClock::new()?) as Rc<dyn Clock>);
        let sockets = Sockets {
            local: listener,
            secure,
        };
        let serve = ServeThread::start(sockets, reader.clone(), backend.clone(), clock, options);
        Node {
            directory,
            reader,
            backend,
            work: Some(work),
            serve: Some(serve.expect("serve thread")),
            thread: Some(thread),
        }
    }

    /// Runs `work` on the node thread and waits for it.
    pub fn node<T, F>(&self, work: F) -> T
    where
        T: Send + 'static,
        F: FnOnce(Registry) -> LocalFuture<'static, T> + Send + 'static,
    {
        let result = self.begin(work);
        result.recv_timeout(PATIENCE).expect("the node answers")
    }

    /// The same without waiting.
    pub fn begin<T, F>(&self, work: F) -> mpsc::Receiver<T>
    where
        T: Send + 'static,
        F: FnOnce(Registry) -> LocalFuture<'static, T> + Send + 'static,
    {
        let (done, result) = mpsc::channel();
        let work: Work = Box::new(move |registry| {
            Box::pin(async move {
                let _ = done.send(work(registry).await);
            })
        });
        let sender = self.work.as_ref().expect("until drop");
        sender.send_blocking(work).expect("the node runs");
        result
    }

    pub fn create(&self, kind: Kind, name: &str, body: Value) -> Value {
        let name = name.to_owned();
        self.node(move |registry| {
            Box::pin(async move {
                let namespace = if kind.namespaced() { "default" } else { "" };
                let key = Key::local(kind, namespace, &name);
                let source = if kind == Kind::Pod {
                    Source::Api
                } else {
                    Source::Node
                };
                let created = registry.create(source, key, body).await;
                created.expect("create").body.clone()
            })
        })
    }

    pub fn pod(&self, name: &str, labels: Value) -> Value {
        let body = json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {"name": name, "namespace": "default", "labels": labels},
            "spec": {"nodeName": "pi", "containers": [{"name": "web", "image": "busybox"}]},
        });
        self.create(Kind::Pod, name, body)
    }

    pub fn status(&self, pod: &Value, status: Value) {
        let name = pod["metadata"]["name"].as_str().expect("name").to_owned();
        let uid = pod["metadata"]["uid"].as_str().expect("uid").to_owned();
        self.node(move |registry| {
            Box::pin(async move {
                registry.update_status(&Key::local(Kind::Pod, "default", &name), &uid, status);
            })
        });
    }

    pub fn socket(&self) -> PathBuf {
        self.directory.path().join("api.sock")
    }

    pub fn connect(&self) -> UnixStream {
        let stream = UnixStream::connect(self.socket()).expect("connect");
        stream.set_read_timeout(Some(PATIENCE)).expect("time-out");
        stream
    }

    pub fn open(&self, request: &str) -> Answer {
        let mut stream = self.connect();
        stream.write_all(request.as_bytes()).expect("write");
        Answer::read(stream)
    }

    pub fn get(&self, path: &str) -> Answer {
        self.get_as(path, "application/json")
    }

    pub fn send(&self, method: &str, path: &str, body: &Value) -> Answer {
        self.send_as(method, path, "application/json", &body.to_string())
    }

    pub fn send_as(&self, method: &str, path: &str, content_type: &str, body: &str) -> Answer {
        let length = body.len();
        self.open(&format!(
            "{method} {path} HTTP/1.1\r\nHost: x\r\nContent-Type: {content_type}\r\n\
             Content-Length: {length}\r\nConnection: close\r\n\r\n{body}"
        ))
    }

    /// As somebody else, whom root may stand for, in groups with commas between.
    pub fn post_by(&self, user: &str, group: &str, path: &str, body: &Value) -> Answer {
        let (body, group) = (
            body.to_string(),
            group.replace(',', "\r\nImpersonate-Group: "),
        );
        let length = body.len();
        self.open(&format!(
            "POST {path} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n\
             Impersonate-User: {user}\r\nImpersonate-Group: {group}\r\n\
             Content-Length: {length}\r\nConnection: close\r\n\r\n{body}"
        ))
    }

    pub fn delete(&self, path: &str) -> Answer {
        self.open(&format!(
            "DELETE {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
        ))
    }

    pub fn get_as(&self, path: &str, accept: &str) -> Answer {
        self.open(&format!(
            "GET {path} HTTP/1.1\r\nHost: x\r\nAccept: {accept}\r\nConnection: close\r\n\r\n"
        ))
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        drop(self.serve.take());
        drop(self.work.take());
        if let Some(thread) = self.thread.take() {
            thread.join().expect("the node thread ends well");
        }
    }
}

/// A response whose head is read and whose body may still come.
pub struct Answer {
    pub code: u16,
    pub head: String,
    pub body: BufReader<UnixStream>,
}

impl Answer {
    pub fn read(stream: UnixStream) -> Answer {
        let mut body = BufReader::new(stream);
        let (mut head, mut line) = (String::new(), String::new());
        while line != "\r\n" {
            line.clear();
            let read = body.read_line(&mut line).expect("head of the answer");
            assert!(read > 0, "the connection ended in the head: {head}");
            head.push_str(&line);
        }
        let code = head.split(' ').nth(1).and_then(|code| code.parse().ok());
        Answer {
            code: code.expect("status code"),
            head,
            body,
        }
    }

    fn is_chunked(&self) -> bool {
        self.head
            .to_ascii_lowercase()
            .contains("transfer-encoding: chunked")
    }

    /// The whole body.
    pub fn text(mut self) -> String {
        let mut text = String::new();
        if self.is_chunked() {
            while let Some(chunk) = self.chunk() {
                text.push_str(&chunk);
            }
        } else {
            self.body.read_to_string(&mut text).expect("body");
        }
        text
    }

    pub fn json(self) -> Value {
        let text = self.text();
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"))
    }

    /// One chunk of a stream; `None` at its end.
    pub fn chunk(&mut self) -> Option<String> {
        let mut size = String::new();
        self.body.read_line(&mut size).expect("size of a chunk");
        let size = usize::from_str_radix(size.trim(), 16).expect("hexadecimal size");
        let mut chunk = vec![0; size + 2];
        self.body.read_exact(&mut chunk).expect("chunk");
        chunk.truncate(size);
        (size > 0).then(|| String::from_utf8(chunk).expect("UTF-8"))
    }

    /// The events of the next chunk of a watch.
    pub fn events(&mut self) -> Vec<Value> {
        let chunk = self.chunk().unwrap_or_default();
        chunk
            .lines()
            .map(|line| serde_json::from_str(line).expect("JSON line"))
            .collect()
    }
}

/// A cluster that answers reviews, or does not.
#[derive(Default)]
pub struct Cluster {
    pub state: Mutex<ClusterState>,
}

#[derive(Default)]
pub struct ClusterState {
    pub answers: bool,
    /// With this status, whatever is asked.
    pub refuses: Option<u16>,
    /// It says nothing until the other end is dropped.
    pub gate: Option<async_channel::Receiver<()>>,
    /// Token and user.
    pub tokens: Vec<(String, &'static str)>,
    /// User, verb, subresource of nodes.
    pub rights: Vec<(&'static str, &'static str, &'static str)>,
    /// What it was asked so far.
    pub asked: Vec<Value>,
}

impl Cluster {
    fn review(&self, call: &Call) -> Result<world::Reply, NoAnswer> {
        let mut state = self.state.lock().expect("no panic");
        if !state.answers {
            return Err(NoAnswer::Unreachable("no route to host".to_owned()));
        }
        let body = call.body.clone().expect("a body");
        state.asked.push(body.clone());
        let reply = |status, body| world::Reply {
            status,
            body,
            retry_after: None,
        };
        if let Some(status) = state.refuses {
            return Ok(reply(status, Value::Null));
        }
        let spec = &body["spec"];
        let status = match body["kind"].as_str() {
            Some("TokenReview") => {
                let mut tokens = state.tokens.iter();
                let user = tokens.find(|(token, _)| spec["token"] == **token);
                match user {
                    Some((_, user)) => json!({"authenticated": true, "user": {"username": user}}),
                    None => json!({"error": "unknown"}),
                }
            }
            _ => {
                let what = &spec["resourceAttributes"];
                assert_eq!(
                    (&what["resource"], &what["name"]),
                    (&json!("nodes"), &json!("pi"))
                );
                let allowed = state.rights.iter().any(|(user, verb, part)| {
                    spec["user"] == **user
                        && what["verb"] == **verb
                        && what["subresource"] == **part
                });
                json!({"allowed": allowed})
            }
        };
        Ok(reply(201, json!({"status": status})))
    }
}

/// Runs commands on this host instead of in containers.
struct FakeNode(Arc<Cluster>);

impl NodeSide for FakeNode {
    fn exec(&self, start: ExecStart) -> LocalFuture<'_, Result<ExecSession, RuntimeError>> {
        Box::pin(async move {
            if start.command[0] == "missing" {
                let message = "exec: \"missing\": executable file not found in $PATH".to_owned();
                return Err(RuntimeError::Start { code: 127, message });
            }
            Ok(spawn(start))
        })
    }

    /// Every container runs the same script. Who is attached without standard error is cut off: the
    /// container goes on.
    fn attach(&self, start: AttachStart) -> LocalFuture<'_, Result<AttachSession, RuntimeError>> {
        Box::pin(async move {
            let script = "echo ready; cat; echo end >&2";
            let cut = !start.stderr;
            let session = spawn(ExecStart {
                uid: start.uid,
                container: start.container,
                command: ["sh", "-c", script].map(str::to_owned).to_vec(),
                stdin: start.stdin,
                stdout: start.stdout,
                stderr: start.stderr,
                tty: false,
            });
            let ExecIo::Pipes {
                stdin,
                stdout,
                stderr,
            } = session.io
            else {
                unreachable!("no terminal was asked for");
            };
            let terminal = None;
            let typing = start.stdin.then(|| async_channel::bounded(1).0);
            let (attached, asked) = async_channel::bounded::<Reply<bool>>(1);
            if cut {
                let answer = move || {
                    while let Ok(reply) = asked.recv_blocking() {
                        let _ = reply.try_send(true);
                    }
                };
                blocking::unblock(answer).detach();
            }
            Ok(AttachSession {
                terminal,
                stdin,
                stdout,
                stderr,
                typing,
                attached,
            })
        })
    }

    fn connect(&self, _uid: Uid, port: u16) -> LocalFuture<'_, Result<TcpStream, RuntimeError>> {
        Box::pin(async move {
            let stream = TcpStream::connect(("127.0.0.1", port));
            stream.map_err(|error| RuntimeError::Failed(error.to_string()))
        })
    }

    fn images(&self) -> Vec<Arc<Image>> {
        vec![Arc::new(Image {
            id: format!("sha256:{}", "ab".repeat(32)),
            tags: vec!["docker.io/library/busybox:1.36".to_owned()],
            digests: Vec::new(),
            size_bytes: 4_260_000,
            pinned: true,
            config: Default::default(),
        })]
    }

    fn pull(
        &self,
        reference: String,
        progress: async_channel::Sender<PullProgress>,
    ) -> LocalFuture<'_, Result<Arc<Image>, PullError>> {
        Box::pin(async move {
            let _ = progress.try_send(PullProgress::Blob {
                digest: "sha256:cd".to_owned(),
                done_bytes: 5,
                total_bytes: 10,
            });
            match reference.as_str() {
                "busybox" => Ok(self.images().remove(0)),
                _ => Err(PullError::Unreachable(format!(
                    "{reference}: no route to host"
                ))),
            }
        })
    }

    fn import(&self, path: PathBuf) -> LocalFuture<'_, Result<Vec<String>, String>> {
        Box::pin(async move { Ok(vec![format!("imported:{}", path.display())]) })
    }

    fn status(&self) -> NodeStatus {
        NodeStatus {
            node_name: "pi".to_owned(),
            ..NodeStatus::default()
        }
    }

    /// A machine that runs nothing.
    fn stats(&self, _: Detail) -> LocalFuture<'_, Sample> {
        let now = lowtide::os::clock::stamp();
        let cpu = Cpu {
            nano_cores: Some(250_000_000),
            ..Cpu::default()
        };
        let node = Usage {
            cpu: Some(cpu),
            memory: Some(Memory::default()),
            ..Usage::default()
        };
        let sample = Sample {
            at: now,
            window: std::time::Duration::from_secs(10),
            node,
            node_started: now,
            cpus: 1,
            memory_bytes: 1 << 30,
            memory_available_bytes: 1 << 29,
            network: Vec::new(),
            node_fs: None,
            image_fs: None,
            images_bytes: 0,
            processes: None,
            system: Vec::new(),
            pods: Vec::new(),
        };
        Box::pin(async move { sample })
    }

    fn review(&self, call: Call) -> LocalFuture<'_, Result<world::Reply, NoAnswer>> {
        Box::pin(async move {
            let gate = self.0.state.lock().expect("no panic").gate.clone();
            if let Some(gate) = gate {
                let _ = gate.recv().await;
            }
            self.0.review(&call)
        })
    }

    fn health(&self) -> Result<(), String> {
        Ok(())
    }
}

/// The command as a child of this process, with pipes or a terminal.
#[allow(clippy::disallowed_methods, reason = "a test's own child")]
fn spawn(start: ExecStart) -> ExecSession {
    use std::process::{Command, Stdio};
    let mut command = Command::new(&start.command[0]);
    command.args(&start.command[1..]);
    let io = if start.tty {
        let pty = terminal::open_pty().expect("pty");
        let end = || Stdio::from(pty.slave.try_clone().expect("slave"));
        command.stdin(end()).stdout(end()).stderr(end());
        ExecIo::Terminal(pty.master)
    } else {
        let (stdin, child_stdin) = UnixStream::pair().expect("pair");
        let (stdout, child_stdout) = UnixStream::pair().expect("pair");
        let (stderr, child_stderr) = UnixStream::pair().expect("pair");
        command
            .stdin(OwnedFd::from(child_stdin))
            .stdout(OwnedFd::from(child_stdout))
            .stderr(OwnedFd::from(child_stderr));
        ExecIo::Pipes {
            stdin: start.stdin.then(|| stdin.into()),
            stdout: start.stdout.then(|| stdout.into()),
            stderr: start.stderr.then(|| stderr.into()),
        }
    };
    let mut child = command.spawn().expect("spawn");
    drop(command);
    let (ended, exit) = async_channel::bounded(1);
    std::thread::spawn(move || {
        let code = child.wait().expect("wait").code().unwrap_or(137);
        let _ = ended.send_blocking(ExecExit::Code(code));
    });
    ExecSession { io, exit }
}
