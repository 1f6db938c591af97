//! The API over TLS, as a client with the administrator's kubeconfig has it: what requests, watches,
//! pages and fan-out cost the agent.
//!
//! The floor is `/version` on the same connection in the same minute: HTTP, TLS and who asks, with
//! nothing to look up. Rates are printed; what is held against a limit is bytes and ratios.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use lowtide::object::yaml;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, ClientConnection, StreamOwned};
use serde_json::{Value, json};

use super::node::remove_cgroups;
use super::support::{eventually, program, run};
use super::{Figure, processes};

const ADDRESS: &str = "127.0.0.1:6443";
const MAPS: &str = "/api/v1/namespaces/default/configmaps";
const WATCHES: usize = 1_000;
const OBJECTS: usize = 10_000;
const PAGE: usize = 500;
const WATCHERS: usize = 100;
const CHANGES: usize = 50;

/// An agent with a manifest directory and TLS, without images or pods.
struct Agent {
    child: Child,
    directory: tempfile::TempDir,
}

impl Agent {
    fn start(binary: &Path) -> Agent {
        let directory = tempfile::tempdir().expect("temporary directory");
        let at = |name: &str| directory.path().join(name);
        for name in ["manifests", "run"] {
            fs::create_dir(at(name)).expect(name);
        }
        run(
            "mount",
            &["-t", "tmpfs", "run", &at("run").to_string_lossy()],
        );
        let log = File::create(at("log")).expect("log");
        let flag = |name: &str, at: PathBuf| format!("--{name}={}", at.display());
        let child = program(&binary.to_string_lossy())
            .args(["run", "--hostname-override=budget", "--secure-port=6443"])
            .arg("--eviction-hard=memory.available<1Mi,nodefs.available<1Mi")
            .arg(flag("pod-manifest-path", at("manifests")))
            .arg(flag("root-dir", at("root")))
            .arg(flag("run-dir", at("run")))
            .arg(flag("pod-logs-dir", at("logs")))
            .arg(format!("--cgroup-root={}", cgroup_root()))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .expect("the agent starts");
        let agent = Agent { child, directory };
        let config = agent.directory.path().join("root/admin.kubeconfig");
        eventually("the API answers", || {
            config.is_file() && TcpStream::connect(ADDRESS).is_ok()
        });
        agent
    }

    fn config(&self) -> Arc<ClientConfig> {
        let path = self.directory.path().join("root/admin.kubeconfig");
        let text = fs::read_to_string(path).expect("admin.kubeconfig");
        let config = yaml::parse(&text).expect("YAML");
        let pem = |value: &Value| {
            BASE64
                .decode(value.as_str().expect("text"))
                .expect("base64")
        };
        let user = &config["users"][0]["user"];
        let authority = pem(&config["clusters"][0]["cluster"]["certificate-authority-data"]);
        let mut roots = rustls::RootCertStore::empty();
        for root in CertificateDer::pem_slice_iter(&authority) {
            roots.add(root.expect("PEM")).expect("a CA");
        }
        let chain = pem(&user["client-certificate-data"]);
        let chain = CertificateDer::pem_slice_iter(&chain).collect::<Result<_, _>>();
        let key = PrivateKeyDer::from_pem_slice(&pem(&user["client-key-data"])).expect("PEM");
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("TLS")
            .with_root_certificates(roots)
            .with_client_auth_cert(chain.expect("PEM"), key);
        Arc::new(config.expect("a certificate"))
    }

    fn private_bytes(&self) -> u64 {
        processes::memory(self.child.id()).private_dirty * 1024
    }

    /// Time and processor time of `work`.
    fn cost(&self, work: impl FnOnce()) -> Cost {
        let (began, cpu) = (now(), processes::cpu_ns(self.child.id()));
        work();
        Cost {
            took: began.elapsed(),
            cpu: processes::cpu_between(&cpu, &processes::cpu_ns(self.child.id())),
        }
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        run(
            "umount",
            &["-l", &self.directory.path().join("run").to_string_lossy()],
        );
        remove_cgroups(&cgroup_root());
    }
}

fn cgroup_root() -> String {
    format!("/lowtide-budget-api-{}", std::process::id())
}

#[allow(clippy::disallowed_methods, reason = "a benchmark measures real time")]
fn now() -> Instant {
    Instant::now()
}

#[derive(Clone, Copy)]
struct Cost {
    took: Duration,
    cpu: Duration,
}

impl Cost {
    /// Processor time of one of `count`, in µs.
    fn each(&self, count: usize) -> f64 {
        self.cpu.as_secs_f64() * 1e6 / count as f64
    }

    fn report(&self, what: &str, count: usize) -> f64 {
        let rate = count as f64 / self.took.as_secs_f64();
        println!(
            "{what:<46} {rate:>9.0} a second, {:>8.1} µs of CPU each",
            self.each(count)
        );
        self.each(count)
    }
}

/// One connection.
struct Client(BufReader<StreamOwned<ClientConnection, TcpStream>>);

impl Client {
    fn connect(config: &Arc<ClientConfig>) -> Client {
        let socket = TcpStream::connect(ADDRESS).expect("connect");
        socket.set_nodelay(true).expect("no delay");
        socket
            .set_read_timeout(Some(Duration::from_secs(30)))
            .expect("time-out");
        let name = "127.0.0.1".try_into().expect("a name");
        let session = ClientConnection::new(config.clone(), name).expect("TLS");
        Client(BufReader::new(StreamOwned::new(session, socket)))
    }

    fn send(&mut self, method: &str, path: &str, body: &str) {
        let kind = match method {
            "PATCH" => "application/merge-patch+json",
            _ => "application/json",
        };
        let length = body.len();
        let request = format!(
            "{method} {path} HTTP/1.1\r\nHost: x\r\nContent-Type: {kind}\r\n\
             Content-Length: {length}\r\n\r\n{body}"
        );
        self.0
            .get_mut()
            .write_all(request.as_bytes())
            .expect("write");
    }

    /// Reads a head: its code, and the length of the body where there is one.
    fn head(&mut self) -> (u16, Option<usize>) {
        let (mut code, mut length) = (0, None);
        loop {
            let mut line = String::new();
            assert!(self.0.read_line(&mut line).expect("a line") > 0, "closed");
            let line = line.trim_end();
            if let Some(rest) = line.strip_prefix("HTTP/1.1 ") {
                code = rest[..3].parse().expect("a code");
            } else if let Some(rest) = line.strip_prefix("content-length: ") {
                length = Some(rest.parse().expect("a length"));
            } else if line.is_empty() {
                return (code, length);
            }
        }
    }

    fn ask(&mut self, method: &str, path: &str, body: &str) -> Vec<u8> {
        self.send(method, path, body);
        let (code, length) = self.head();
        let mut answer = vec![0; length.expect("a whole body")];
        self.0.read_exact(&mut answer).expect("a body");
        let text = String::from_utf8_lossy(&answer);
        assert!(code < 300, "{method} {path}: {code} {text}");
        answer
    }

    fn watch(config: &Arc<ClientConfig>, path: &str) -> Client {
        let mut client = Client::connect(config);
        client.send("GET", path, "");
        assert_eq!(client.head(), (200, None));
        client
    }

    /// The lines of the next chunk.
    fn events(&mut self) -> usize {
        let mut size = String::new();
        self.0.read_line(&mut size).expect("a size");
        let size = usize::from_str_radix(size.trim(), 16).expect("hexadecimal");
        let mut chunk = vec![0; size + 2];
        self.0.read_exact(&mut chunk).expect("a chunk");
        chunk[..size].iter().filter(|byte| **byte == b'\n').count()
    }
}

fn map(name: &str) -> String {
    let data = json!({"address": "10.0.0.1", "interval": "30", "mode": "quiet"});
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": data})
        .to_string()
}

pub fn measure(binary: &Path) -> Vec<Figure> {
    let agent = Agent::start(binary);
    let config = agent.config();
    let mut figures = Vec::new();
    let get = requests(&agent, &config, &mut figures);
    watches(&agent, &config, &mut figures);
    fan_out(&agent, &config, get, &mut figures);
    drop(agent);
    // Another one, whose heap has no room left over of watches.
    let agent = Agent::start(binary);
    pages(&agent, &agent.config(), get, &mut figures);
    figures
}

/// One client, one request after the other. Returns what a get costs.
fn requests(agent: &Agent, config: &Arc<ClientConfig>, figures: &mut Vec<Figure>) -> f64 {
    let mut client = Client::connect(config);
    for index in 0..100 {
        client.ask("POST", MAPS, &map(&format!("c{index}")));
    }
    let one = format!("{MAPS}/c7");
    let mut cost = |what: &str, count: usize, ask: &dyn Fn(&mut Client, usize)| {
        let cost = agent.cost(|| (0..count).for_each(|index| ask(&mut client, index)));
        cost.report(what, count)
    };
    cost("warm up", 500, &|client, _| {
        drop(client.ask("GET", "/version", ""))
    });
    let floor = cost("floor: GET /version", 2_000, &|client, _| {
        drop(client.ask("GET", "/version", ""))
    });
    let get = cost("get", 2_000, &|client, _| drop(client.ask("GET", &one, "")));
    let list = cost("list of 100", 500, &|client, _| {
        drop(client.ask("GET", MAPS, ""))
    });
    let create = cost("create, durable", 500, &|client, index| {
        drop(client.ask("POST", MAPS, &map(&format!("n{index}"))))
    });
    let opened = agent.cost(|| {
        for _ in 0..200 {
            drop(Client::watch(
                config,
                "/api/v1/pods?watch=1&resourceVersion=0",
            ));
        }
    });
    opened.report("connection, handshake and watch", 200);
    let figure = |name, value, budget, limit| Figure {
        name,
        unit: "x",
        value,
        budget,
        limit,
    };
    figures.push(figure("CPU of a get / floor", get / floor, 1.5, 3.0));
    figures.push(figure("CPU of a list of 100 / get", list / get, 3.0, 6.0));
    figures.push(figure(
        "CPU of a durable create / get",
        create / get,
        12.0,
        25.0,
    ));
    get
}

fn watches(agent: &Agent, config: &Arc<ClientConfig>, figures: &mut Vec<Figure>) {
    let before = agent.private_bytes();
    let path = "/api/v1/pods?watch=1&allowWatchBookmarks=true&resourceVersion=0";
    let open: Vec<Client> = (0..WATCHES).map(|_| Client::watch(config, path)).collect();
    let grown = agent.private_bytes().saturating_sub(before);
    figures.push(Figure {
        name: "1,000 idle watches over TLS, each",
        unit: "kB",
        value: grown as f64 / 1e3 / WATCHES as f64,
        budget: 25.0,
        limit: 25.0,
    });
    drop(open);
}

fn fan_out(agent: &Agent, config: &Arc<ClientConfig>, get: f64, figures: &mut Vec<Figure>) {
    let mut writer = Client::connect(config);
    let list: Value = serde_json::from_slice(&writer.ask("GET", MAPS, "")).expect("JSON");
    let version = list["metadata"]["resourceVersion"]
        .as_str()
        .expect("a version");
    let path = format!("{MAPS}?watch=1&resourceVersion={version}");
    let mut watchers: Vec<Client> = (0..WATCHERS)
        .map(|_| Client::watch(config, &path))
        .collect();
    let cost = agent.cost(|| {
        for change in 0..CHANGES {
            let patch = json!({"data": {"change": change.to_string()}}).to_string();
            writer.ask("PATCH", &format!("{MAPS}/c7"), &patch);
        }
        for watcher in &mut watchers {
            let mut seen = 0;
            while seen < CHANGES {
                seen += watcher.events();
            }
        }
    });
    let each = cost.report(
        "event of one writer to each of 100 watchers",
        CHANGES * WATCHERS,
    );
    figures.push(Figure {
        name: "CPU of an event to a watcher / get",
        unit: "x",
        value: each / get,
        budget: 0.5,
        limit: 1.5,
    });
}

/// Ten thousand objects from a manifest, listed as kubectl does.
fn pages(agent: &Agent, config: &Arc<ClientConfig>, get: f64, figures: &mut Vec<Figure>) {
    let mut client = Client::connect(config);
    let before = agent.private_bytes();
    for file in 0..OBJECTS / 1_000 {
        let items: Vec<Value> = (0..1_000)
            .map(|index| serde_json::from_str(&map(&format!("m{file}-{index}"))).expect("JSON"))
            .collect();
        let list = json!({"apiVersion": "v1", "kind": "List", "items": items});
        let staged = agent.directory.path().join("staged");
        fs::write(&staged, list.to_string()).expect("a manifest");
        let place = agent
            .directory
            .path()
            .join(format!("manifests/{file}.json"));
        fs::rename(staged, place).expect("renamed");
    }
    let last = format!("{MAPS}/m{}-999", OBJECTS / 1_000 - 1);
    eventually("ten thousand objects are there", || {
        client.send("GET", &last, "");
        let (code, length) = client.head();
        let mut body = vec![0; length.expect("a body")];
        client.0.read_exact(&mut body).expect("a body");
        code == 200
    });
    let held = agent.private_bytes().saturating_sub(before);
    let mut count = 0;
    let cost = agent.cost(|| {
        let mut go_on = String::new();
        loop {
            let path = format!("/api/v1/configmaps?limit={PAGE}&continue={go_on}");
            let page: Value = serde_json::from_slice(&client.ask("GET", &path, "")).expect("JSON");
            count += page["items"].as_array().expect("items").len();
            match page["metadata"]["continue"].as_str() {
                Some(token) => go_on = token.to_owned(),
                None => break,
            }
        }
    });
    assert!(count >= OBJECTS, "{count} objects");
    let each = cost.report("object of 10,000 in pages of 500", count);
    let grown = agent.private_bytes().saturating_sub(before + held);
    println!("listing them left {:.1} MB behind", grown as f64 / 1e6);
    figures.push(Figure {
        name: "CPU of an object in a page / get",
        unit: "x",
        value: each / get,
        budget: 0.25,
        limit: 0.5,
    });
    figures.push(Figure {
        name: "a stored ConfigMap of 10,000",
        unit: "kB",
        value: held as f64 / 1e3 / OBJECTS as f64,
        budget: 4.5,
        limit: 6.0,
    });
}
