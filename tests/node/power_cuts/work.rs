//! A node at work on a recorded disk: API writes, pulls, pods that end for good, logs that rotate,
//! agents that are killed, images that go.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use lowtide::object::Kind;
use serde_json::Value;

use super::claims::{self, Act, WRITTEN};
use super::recorded::Recorded;
use crate::image::{Entry, Recipe, digest, tar_of};
use crate::registry::{Fake, Reply};
use crate::support::{FOREVER, IMAGE, Node, container, eventually, pod, uid};

/// Images that the registry has.
const IMAGES: usize = 4;
const PAUSE: Duration = Duration::from_millis(20);

/// A registry with images that share their lower layers.
pub fn registry() -> Fake {
    let mut files = BTreeMap::new();
    for number in 0..IMAGES {
        let mut recipe = Recipe::busybox();
        let content = |size: usize| -> Vec<u8> {
            let line = |n: usize| format!("{number} {:08x}\n", n.wrapping_mul(2_654_435_761));
            (0..size).flat_map(|n| line(n).into_bytes()).collect()
        };
        let data = [100, 1_000, 12_000].map(content);
        let names = ["data/small", "data/middle", "data/large"];
        let mut entries = vec![Entry::Directory("data", 0o755)];
        let contents = names.iter().zip(&data);
        entries.extend(contents.map(|(name, bytes)| Entry::File(name, 0o644, bytes)));
        recipe.layers.push(tar_of(&entries));
        files.insert(format!("manifests/{number}"), recipe.manifest());
        let blobs = recipe.packed_layers().into_iter();
        for blob in blobs.chain([recipe.configuration()]) {
            files.insert(format!("blobs/{}", digest(&blob)), blob);
        }
    }
    // Manifests name it, also in the record of an earlier run.
    Fake::at("127.0.0.1:5000", move |seen| {
        let name = seen.path.strip_prefix("/v2/tide/").unwrap_or_default();
        files
            .get(name)
            .map_or(Reply::status(404), |bytes| Reply::body(bytes))
    })
}

/// A node whose ROOT, logs, manifests and image archives are on a disk; RUN is not.
pub fn node(place: &Path, run: &str, disk: &Path, registry: &Fake) -> Node {
    let config = place.join("registries.yaml");
    let host = &registry.address;
    let text = format!("mirrors: {{\"{host}\": {{endpoint: [\"http://{host}\"]}}}}\n");
    fs::write(&config, text).unwrap();
    let mut node = Node::with_run(place, place.join(run))
        .flag(&format!("--registry-config={}", config.display()))
        .flag("--secure-port=0")
        .flag("--container-log-max-size=64Ki")
        .flag("--image-gc-high-threshold=1")
        .flag("--image-gc-low-threshold=0")
        .flag("--minimum-image-ttl-duration=0s");
    node.root = disk.join("root");
    node.logs = disk.join("logs");
    node.manifests = disk.join("manifests");
    node.images = disk.join("images");
    node
}

/// Puts there what a node begins with: an archive and a pod that stays, fully flushed.
pub fn provide(node: &Node) {
    for directory in [&node.manifests, &node.images] {
        fs::create_dir_all(directory).unwrap();
    }
    let archive = Recipe::busybox().docker_archive(&[IMAGE]);
    flushed(&node.images, "busybox.tar", &archive);
    flushed(
        &node.manifests,
        "steady.yaml",
        pod("steady", FOREVER, "", "").as_bytes(),
    );
}

/// As a careful operator writes a file.
fn flushed(directory: &Path, name: &str, bytes: &[u8]) {
    let aside = directory.join(format!(".{name}"));
    let mut file = File::create(&aside).unwrap();
    file.write_all(bytes)
        .and_then(|()| file.sync_all())
        .unwrap();
    fs::rename(aside, directory.join(name)).unwrap();
    File::open(directory).unwrap().sync_all().unwrap();
}

/// Works for `span` and stops. What is acknowledged is claimed on the disk.
pub fn work(mut node: Node, disk: &Recorded, registry: &Fake, span: Duration) {
    provide(&node);
    let chatty = "while :; do seq 1 2000; sleep 0.2; done";
    flushed(
        &node.manifests,
        "chatty.yaml",
        pod("chatty", chatty, "", "").as_bytes(),
    );
    flushed(
        &node.manifests,
        "restless.yaml",
        pod("restless", "exit 1", "", "").as_bytes(),
    );
    node.start_plain();
    node.up("steady");
    disk.claim(&format!("image {IMAGE}"));
    let stop = AtomicBool::new(false);
    let socket = node.run.join("api.sock");
    std::thread::scope(|scope| {
        for (kind, names) in WRITTEN {
            let (stop, socket) = (&stop, &socket);
            scope.spawn(move || write_objects(disk, socket, kind, names, stop));
        }
        churn(&mut node, disk, registry, span);
        stop.store(true, Ordering::Relaxed);
    });
    node.kill();
    node.start();
    end(node);
}

/// Node and pods end; the disk is free then, which its unmounting proves.
pub fn end(mut node: Node) {
    assert_eq!(node.terminate(), Some(0), "{}", node.log());
}

/// Images come and are used once, pods end for good, agents are killed.
fn churn(node: &mut Node, disk: &Recorded, registry: &Fake, span: Duration) {
    let start = Instant::now();
    for number in 0.. {
        let name = format!("job-{number}");
        let image = format!("{}/tide:{}", registry.address, number % IMAGES);
        node.ok(&["pull", &image]);
        disk.claim(&format!("image {image}"));
        let job = pod(&name, "cat /data/*", "", "  restartPolicy: Never").replace(IMAGE, &image);
        flushed(&node.manifests, &format!("{name}.yaml"), job.as_bytes());
        let ended = node.pod_until(&name, "succeeded", |pod| {
            pod["status"]["phase"] == "Succeeded"
        });
        let (uid, id) = (uid(&ended), container_id(&ended));
        disk.claim(&format!("ended {name} {uid} {id}"));
        if start.elapsed() > span {
            return;
        }
        if number % 2 == 1 {
            for gone in [number - 1, number] {
                disk.claim(&format!("forgets job-{gone}"));
                fs::remove_file(node.manifests.join(format!("job-{gone}.yaml"))).unwrap();
            }
            node.gone(&name);
            disk.claim("collects");
            node.kill();
            node.start_plain();
        }
    }
}

pub fn container_id(pod: &Value) -> String {
    let status = container(pod, "c");
    let id = status["containerID"].as_str().unwrap_or_default();
    id.rsplit('/').next().unwrap_or_default().to_owned()
}

/// One step after the other, of some objects in turn; each again until it is acknowledged.
fn write_objects(disk: &Recorded, socket: &Path, kind: Kind, names: &[&str], stop: &AtomicBool) {
    for step in 1.. {
        for name in names {
            let version = loop {
                if stop.load(Ordering::Relaxed) {
                    return;
                }
                match write(socket, kind, name, step) {
                    Ok(Some(version)) => break version,
                    // The agent is away just now, or came back.
                    Ok(None) | Err(_) => std::thread::sleep(PAUSE),
                }
            };
            let kind = kind.name();
            disk.claim(&format!("object {kind} {name} {step} {version}"));
        }
    }
}

/// Gives the version of an acknowledged write, 0 if it has none; `None`: not acknowledged.
fn write(socket: &Path, kind: Kind, name: &str, step: u64) -> io::Result<Option<u64>> {
    let all = format!("/api/v1/namespaces/default/{}", kind.plural());
    let one = format!("{all}/{name}");
    let body = claims::object(kind, name, step);
    let act = match (claims::act(step), kind) {
        // Most of a pod's fields can only be stated as they are.
        (Act::Update, Kind::Pod) => Act::Patch,
        (act, _) => act,
    };
    let (status, answer) = match act {
        Act::Create => ask(socket, "POST", &all, &body)?,
        Act::Update => ask(socket, "PUT", &one, &body)?,
        Act::Patch => {
            let labels = serde_json::json!({"labels": body["metadata"]["labels"]});
            let patch = serde_json::json!({"metadata": labels, "data": body["data"]});
            ask(socket, "PATCH", &one, &patch)?
        }
        Act::Delete => ask(socket, "DELETE", &one, &Value::Null)?,
    };
    let version = answer["metadata"]["resourceVersion"].as_str();
    let version = version.and_then(|text| text.parse().ok()).unwrap_or(0);
    Ok(match (act, status) {
        // A deletion is done when nothing is left to be seen.
        (Act::Delete, 200) if kind == Kind::Pod => {
            eventually("the pod is gone", || {
                ask(socket, "GET", &one, &Value::Null).is_ok_and(|(status, _)| status == 404)
            });
            Some(0)
        }
        // Nobody else writes it: this is the answer to a try whose own answer was lost.
        (Act::Create, 409) | (Act::Delete, 404) => Some(0),
        (_, 200 | 201) => Some(version),
        _ => None,
    })
}

/// Status and JSON of one exchange over the node's socket.
fn ask(socket: &Path, method: &str, path: &str, body: &Value) -> io::Result<(u16, Value)> {
    let body = match body {
        Value::Null => String::new(),
        body => body.to_string(),
    };
    let kind = match method {
        "PATCH" => "application/merge-patch+json",
        _ => "application/json",
    };
    let mut stream = UnixStream::connect(socket)?;
    write!(
        stream,
        "{method} {path} HTTP/1.1\r\nHost: node\r\nConnection: close\r\nContent-Type: {kind}\r\n\
         Content-Length: {}\r\n\r\n{body}",
        body.len()
    )?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let status = answer.get(9..12).and_then(|text| text.parse().ok());
    let content = answer
        .split_once("\r\n\r\n")
        .map_or("", |(_, content)| content);
    let value = serde_json::from_str(content).unwrap_or_default();
    Ok((status.ok_or(io::ErrorKind::UnexpectedEof)?, value))
}
