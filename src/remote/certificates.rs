//! The node's client certificate: asked of the cluster, kept, renewed in time.
//!
//! ```text
//!   key.tmp ─► CSR ─► approved, signed ─► kubelet-client-current.pem ─► 70 to 90 % of its life ─┐
//!      ▲        │ denied: another key, after a while                                            │
//!      └────────┴───────────────────────────────────────────────────────────────────────────────┘
//! ```
//! The request is named after the key, and the key stays until it has a certificate: whatever is cut
//! or restarted meanwhile, the same request is found again. Nothing here ends the node: a certificate
//! that expired while the link was down is asked for anew with the bootstrap credentials, if there
//! are any. Sources: Kubernetes, "TLS bootstrapping" and "Certificate Signing Requests".

use std::cell::Cell;
use std::path::PathBuf;
use std::rc::Rc;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use serde_json::{Value, json};

use crate::net::certificates::{Identity, RequestKey, Validity, facts, first_certificate, pem};
use crate::os::file;
use crate::world::{
    Area, Call, Clock, Cluster, Disk, NoAnswer, Random, Reply, Verb, not_before_build,
};

/// Certificate chain and key, below ROOT.
pub const CURRENT: &str = "pki/kubelet-client-current.pem";
/// The key of a request under way, below ROOT.
const KEY: &str = "pki/kubelet-client.key.tmp";
const REQUESTS: &str = "/apis/certificates.k8s.io/v1/certificatesigningrequests";
const SIGNER: &str = "kubernetes.io/kube-apiserver-client-kubelet";

/// Between two looks at a request: an approval by kube-controller-manager takes a second, one by a
/// human hours.
const PAUSE_MIN: Duration = Duration::from_secs(1);
const PAUSE_MAX: Duration = Duration::from_secs(60);
/// After a refusal, which somebody may reconsider.
const DENIED_PAUSE: Duration = Duration::from_secs(600);
/// Between two looks at the wall clock, which may jump.
const LOOK_MAX: Duration = Duration::from_secs(3600);

/// Whoever asks for the certificate, and where it is kept.
pub struct ClientCertificate {
    pub disk: Rc<dyn Disk>,
    pub clock: Rc<dyn Clock>,
    pub random: Rc<dyn Random>,
    pub node_name: String,
    /// The door that the certificate itself opens, once there is one.
    pub own: Option<Rc<dyn Cluster>>,
    /// By `--bootstrap-kubeconfig`.
    pub bootstrap: Option<Rc<dyn Cluster>>,
}

/// How far a request is.
enum Progress {
    Signed(Validity),
    Pending,
    Denied(String),
}

/// Why an attempt came to nothing.
struct Setback {
    why: String,
    after: Option<Duration>,
    door: Door,
}

/// Whether the same credentials may do next time.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Door {
    Open,
    /// 401: try the others.
    Closed,
}

impl Setback {
    fn of(why: impl Into<String>) -> Setback {
        Setback {
            why: why.into(),
            after: None,
            door: Door::Open,
        }
    }

    fn refused(what: &str, reply: &Reply) -> Setback {
        Setback {
            why: format!("{what}: HTTP status {} {}", reply.status, reply.message()),
            after: reply.retry_after,
            door: match reply.status {
                401 => Door::Closed,
                _ => Door::Open,
            },
        }
    }
}

impl From<NoAnswer> for Setback {
    fn from(error: NoAnswer) -> Setback {
        Setback::of(error.to_string())
    }
}

impl ClientCertificate {
    /// When the kept certificate counts; `None`: there is none that can be used, whatever the date.
    pub async fn kept(&self) -> Option<Validity> {
        let bytes = match self.disk.read(Area::Root, CURRENT).await {
            Ok(bytes) => bytes?,
            Err(error) => {
                log::error!("{error}");
                return None;
            }
        };
        let text = String::from_utf8_lossy(&bytes);
        match self.judge(&text) {
            Ok(validity) => Some(validity),
            Err(why) => {
                log::error!("{CURRENT} cannot be used: {why}; another is asked for");
                None
            }
        }
    }

    /// Asks until there is a certificate, which is on stable storage then.
    pub async fn obtain(&self) -> Validity {
        let mut pause = PAUSE_MIN;
        let mut said = String::new();
        // Of the two doors, the one that a refusal closed is tried every other time.
        let closed = Cell::new(false);
        loop {
            let (text, wait) = match self.attempt(closed.get()).await {
                Ok(Progress::Signed(validity)) => return validity,
                Ok(Progress::Pending) => ("it waits for approval".to_owned(), None),
                Ok(Progress::Denied(why)) => {
                    self.forget_key().await;
                    (why, Some(DENIED_PAUSE))
                }
                Err(setback) => {
                    let other = setback.door == Door::Closed && !closed.get();
                    closed.set(other);
                    (setback.why, setback.after)
                }
            };
            let wait = wait.unwrap_or(pause);
            if text != said {
                log::warn!(
                    "certificate of the node: {text}; looking again in {} s",
                    wait.as_secs()
                );
                said = text;
            }
            let jitter = Duration::from_millis(self.random.below(wait.as_millis() as u64 / 4 + 1));
            self.clock
                .sleep_until(self.clock.now() + wait + jitter)
                .await;
            pause = (pause * 2).min(PAUSE_MAX);
        }
    }

    /// Renews the certificate in time, for ever.
    pub async fn keep(&self) {
        loop {
            let Some(validity) = self.kept().await else {
                self.obtain().await;
                continue;
            };
            let due = due(validity, 70 + self.random.below(21));
            loop {
                let wall = not_before_build(self.clock.wall());
                if wall >= due {
                    break;
                }
                let left = u64::try_from(due.as_second() - wall.as_second()).unwrap_or_default();
                let span = Duration::from_secs(left.max(1)).min(LOOK_MAX);
                self.clock.sleep_until(self.clock.now() + span).await;
            }
            let renewed = self.obtain().await;
            log::info!(
                "certificate of the node: renewed, valid until {}",
                renewed.until
            );
            if renewed.until <= due {
                // One that is due already must not be asked for in a circle.
                self.clock.sleep_until(self.clock.now() + LOOK_MAX).await;
            }
        }
    }

    /// One look at the request, which is made if it is not there.
    async fn attempt(&self, own_is_closed: bool) -> Result<Progress, Setback> {
        let door = self.door(own_is_closed).await;
        let door = door.ok_or_else(|| Setback::of("there are no credentials to ask with"))?;
        let key = self.key().await.map_err(Setback::of)?;
        let name = format!("node-csr-{}", key.digest());
        let reply = door.call(Call::get(format!("{REQUESTS}/{name}"))).await?;
        match reply.status {
            200 => self.look(&reply.body, &key).await,
            404 => {
                let request = self.request(&name, &key).map_err(Setback::of)?;
                let reply = door
                    .call(Call::with(Verb::Create, REQUESTS, request))
                    .await?;
                match reply.status {
                    // 409: an answer got lost, and the request was made all the same.
                    201 | 409 => Ok(Progress::Pending),
                    _ => Err(Setback::refused("make the request", &reply)),
                }
            }
            _ => Err(Setback::refused("look at the request", &reply)),
        }
    }

    /// With the certificate itself while it counts, else with the bootstrap credentials. Without
    /// those the old one is shown all the same: whose clock is wrong is not known here.
    async fn door(&self, own_is_closed: bool) -> Option<Rc<dyn Cluster>> {
        let now = not_before_build(self.clock.wall());
        let counts = match &self.own {
            Some(_) => self.kept().await.is_some_and(|kept| now < kept.until),
            None => false,
        };
        match counts && !own_is_closed {
            true => self.own.clone(),
            false => self.bootstrap.clone().or_else(|| self.own.clone()),
        }
    }

    fn request(&self, name: &str, key: &RequestKey) -> Result<Value, String> {
        let der = key.request(&user(&self.node_name), "system:nodes")?;
        let text = pem("CERTIFICATE REQUEST", &der);
        Ok(json!({
            "apiVersion": "certificates.k8s.io/v1",
            "kind": "CertificateSigningRequest",
            "metadata": { "name": name },
            "spec": {
                "request": STANDARD.encode(text),
                "signerName": SIGNER,
                "usages": ["digital signature", "client auth"],
            },
        }))
    }

    async fn look(&self, request: &Value, key: &RequestKey) -> Result<Progress, Setback> {
        let conditions = request["status"]["conditions"].as_array();
        let refused = conditions
            .into_iter()
            .flatten()
            .find(|condition| condition["type"] == "Denied" || condition["type"] == "Failed");
        if let Some(condition) = refused {
            let text = |name: &str| condition[name].as_str().unwrap_or_default().to_owned();
            let (kind, message) = (text("type"), text("message"));
            return Ok(Progress::Denied(format!(
                "the request is {kind}: {message}"
            )));
        }
        let Some(packed) = request["status"]["certificate"].as_str() else {
            return Ok(Progress::Pending);
        };
        let chain = STANDARD.decode(packed).unwrap_or_default();
        let chain = String::from_utf8_lossy(&chain);
        let text = format!("{}\n{}", chain.trim_end(), key.text());
        let validity = match self.judge(&text) {
            Ok(validity) => validity,
            Err(why) => {
                return Ok(Progress::Denied(format!(
                    "what was signed is no use: {why}"
                )));
            }
        };
        let written = self
            .disk
            .write_durable(Area::Root, CURRENT, text.into_bytes());
        written
            .await
            .map_err(|error| Setback::of(error.to_string()))?;
        self.forget_key().await;
        Ok(Progress::Signed(validity))
    }

    /// Whether a text holds a certificate of this node and its key, of whatever date.
    fn judge(&self, text: &str) -> Result<Validity, String> {
        let identity = Identity::parse(text)?;
        let facts = facts(&first_certificate(&identity.certificate)?)?;
        match facts.common_name == user(&self.node_name) {
            true => Ok(facts.validity),
            false => Err(format!("it is made out to {:?}", facts.common_name)),
        }
    }

    /// The key of the request under way, or a new one.
    async fn key(&self) -> Result<RequestKey, String> {
        let read = self.disk.read(Area::Root, KEY).await;
        let bytes = read.map_err(|error| error.to_string())?;
        let text = bytes.map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
        if let Some(Ok(key)) = text.map(|text| RequestKey::parse(&text)) {
            return Ok(key);
        }
        let key = RequestKey::make()?;
        let written = self
            .disk
            .write_durable(Area::Root, KEY, key.text().into_bytes());
        written.await.map_err(|error| error.to_string())?;
        Ok(key)
    }

    async fn forget_key(&self) {
        if let Err(error) = self.disk.remove(Area::Root, KEY).await {
            log::error!("{error}; the next request has the same key");
        }
    }
}

/// Writes the kubeconfig of a node that has its certificate: readable by its owner alone.
/// It is made again from the bootstrap's if it gets lost.
pub async fn write_kubeconfig(path: PathBuf, text: String) -> Result<(), String> {
    let written = blocking::unblock(move || {
        let made = path.parent().map_or(Ok(()), std::fs::create_dir_all);
        made.and_then(|()| file::replace(&path, text.as_bytes(), 0o600))
            .map_err(|error| format!("write {}: {error}", path.display()))
    });
    written.await
}

/// Source: Kubernetes, "Using Node Authorization".
fn user(node_name: &str) -> String {
    format!("system:node:{node_name}")
}

/// When so much of a life is over.
fn due(validity: Validity, percent: u64) -> Timestamp {
    let (from, until) = (validity.from.as_second(), validity.until.as_second());
    let life = i128::from(until.saturating_sub(from)) * i128::from(percent) / 100;
    let at = from.saturating_add(i64::try_from(life).unwrap_or(i64::MAX));
    Timestamp::from_second(at).unwrap_or(validity.until)
}

#[cfg(test)]
#[path = "certificates_tests.rs"]
mod tests;
