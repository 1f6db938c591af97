//! Registries for tests: one that misbehaves to order, and Debian's real one.
#![allow(clippy::disallowed_methods)]

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use crate::image::{Recipe, digest};

/// A request as it arrived; header names in lower case.
#[derive(Clone, Debug)]
pub struct Seen {
    pub method: String,
    pub path: String,
    pub headers: BTreeMap<String, String>,
    pub body: String,
}

#[derive(Default)]
pub struct Reply {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
    /// The connection ends after so many bytes of the body.
    pub cut: Option<usize>,
}

impl Reply {
    pub fn status(status: u16) -> Reply {
        Reply {
            status,
            ..Reply::default()
        }
    }

    pub fn body(body: &[u8]) -> Reply {
        Reply {
            status: 200,
            body: body.to_vec(),
            ..Reply::default()
        }
    }

    pub fn header(mut self, name: &str, value: &str) -> Reply {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }
}

/// An HTTP server that answers each request by a function and remembers all.
pub struct Fake {
    pub address: String,
    pub seen: Arc<Mutex<Vec<Seen>>>,
    /// Bytes of bodies sent.
    pub sent: Arc<Mutex<usize>>,
}

impl Fake {
    pub fn start(answer: impl Fn(&Seen) -> Reply + Send + Sync + 'static) -> Fake {
        Fake::at("127.0.0.1:0", answer)
    }

    /// At an address that is to be the same another time; for namespaces of one's own.
    pub fn at(address: &str, answer: impl Fn(&Seen) -> Reply + Send + Sync + 'static) -> Fake {
        let listener = TcpListener::bind(address).unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let fake = Fake {
            address,
            seen: Arc::default(),
            sent: Arc::default(),
        };
        let (seen, sent, answer) = (fake.seen.clone(), fake.sent.clone(), Arc::new(answer));
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (seen, sent, answer) = (seen.clone(), sent.clone(), answer.clone());
                std::thread::spawn(move || serve(stream, &*answer, &seen, &sent));
            }
        });
        fake
    }

    /// Requests whose path contains `part`.
    pub fn seen(&self, part: &str) -> Vec<Seen> {
        let seen = self.seen.lock().unwrap();
        seen.iter()
            .filter(|seen| seen.path.contains(part))
            .cloned()
            .collect()
    }
}

fn serve(
    mut stream: TcpStream,
    answer: &dyn Fn(&Seen) -> Reply,
    log: &Mutex<Vec<Seen>>,
    sent: &Mutex<usize>,
) {
    let Some(request) = read_request(&stream) else {
        return;
    };
    log.lock().unwrap().push(request.clone());
    let reply = answer(&request);
    let mut head = format!(
        "HTTP/1.1 {} x\r\nContent-Length: {}\r\n",
        reply.status,
        reply.body.len()
    );
    for (name, value) in &reply.headers {
        head += &format!("{name}: {value}\r\n");
    }
    let end = reply.cut.unwrap_or(usize::MAX).min(reply.body.len());
    let _ = stream.write_all(format!("{head}\r\n").as_bytes());
    if stream.write_all(&reply.body[..end]).is_ok() {
        *sent.lock().unwrap() += end;
    }
}

fn read_request(stream: &TcpStream) -> Option<Seen> {
    let mut reader = BufReader::new(stream);
    let mut line = String::new();
    reader.read_line(&mut line).ok()?;
    let mut words = line.split_whitespace();
    let (method, path) = (words.next()?.to_owned(), words.next()?.to_owned());
    let mut headers = BTreeMap::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).ok()?;
        match line.trim().split_once(": ") {
            Some((name, value)) => drop(headers.insert(name.to_lowercase(), value.to_owned())),
            None => break,
        }
    }
    let length = headers
        .get("content-length")
        .and_then(|text| text.parse().ok())
        .unwrap_or(0);
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    let body = String::from_utf8_lossy(&body).into_owned();
    Some(Seen {
        method,
        path,
        headers,
        body,
    })
}

/// What an honest registry answers for one image under any tag, ranges included.
pub fn honest(recipe: &Recipe) -> impl Fn(&Seen) -> Reply + Send + Sync + 'static + use<> {
    let manifest = recipe.manifest();
    let mut blobs: BTreeMap<String, Vec<u8>> = BTreeMap::new();
    for blob in recipe
        .packed_layers()
        .into_iter()
        .chain([recipe.configuration()])
    {
        blobs.insert(digest(&blob), blob);
    }
    move |seen| {
        if seen.path.contains("/manifests/") {
            let kind = "application/vnd.oci.image.manifest.v1+json";
            return Reply::body(&manifest).header("Content-Type", kind);
        }
        let Some(blob) = blobs.get(seen.path.rsplit('/').next().unwrap()) else {
            return Reply::status(404);
        };
        let from = seen
            .headers
            .get("range")
            .map(|range| range[6..range.len() - 1].parse().unwrap());
        match from {
            None => Reply::body(blob),
            Some(from) => {
                let range = format!("bytes {from}-{}/{}", blob.len() - 1, blob.len());
                let mut reply = Reply::body(&blob[from..]).header("Content-Range", &range);
                reply.status = 206;
                reply
            }
        }
    }
}

/// Debian's docker-registry on a port of its own; killed when dropped.
pub struct Real {
    child: Child,
    pub address: String,
}

impl Real {
    /// `extra`: more YAML, with `auth:` or (for `http:`) `tls:`; `None` if it is not installed.
    pub fn start(directory: &Path, auth: &str, tls: &str) -> Option<Real> {
        let port = TcpListener::bind("127.0.0.1:0")
            .unwrap()
            .local_addr()
            .unwrap()
            .port();
        let address = format!("127.0.0.1:{port}");
        let storage = directory.join("registry");
        let text = format!(
            "version: 0.1\nlog: {{level: error}}\nstorage: {{filesystem: {{rootdirectory: {}}}}}\n\
             http:\n  addr: {address}\n{tls}{auth}",
            storage.display()
        );
        let config = directory.join("registry.yml");
        std::fs::write(&config, text).unwrap();
        let spawned = Command::new("docker-registry")
            .arg("serve")
            .arg(config)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        let child = match spawned {
            Ok(child) => child,
            Err(error) => {
                eprintln!("skipped: docker-registry: {error}");
                return None;
            }
        };
        let real = Real { child, address };
        let deadline = Instant::now() + Duration::from_secs(20);
        while TcpStream::connect(&real.address).is_err() {
            assert!(Instant::now() < deadline, "docker-registry does not listen");
            std::thread::sleep(Duration::from_millis(20));
        }
        Some(real)
    }

    /// Pushes an image by skopeo.
    pub fn push(&self, directory: &Path, recipe: &Recipe, name: &str, options: &[&str]) {
        let layout = directory.join("push");
        recipe.write_layout(&layout, "pushed");
        let pushed = Command::new("skopeo")
            .args(["--insecure-policy", "copy", "--dest-tls-verify=false"])
            .args(options)
            .arg(format!("oci:{}:pushed", layout.display()))
            .arg(format!("docker://{}/{name}", self.address))
            .output()
            .unwrap();
        assert!(
            pushed.status.success(),
            "{}",
            String::from_utf8_lossy(&pushed.stderr)
        );
    }
}

impl Drop for Real {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
