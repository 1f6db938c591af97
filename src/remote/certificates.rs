//! The node's certificates that the cluster signs, one to show as a client and one as a server: asked
//! for, kept, renewed in time.
//!
//! ```text
//!   key.tmp ─► CSR ─► approved, signed ─► kubelet-client-current.pem ─► 70 to 90 % of its life ─┐
//!      ▲        │ denied: another key, after a while                                            │
//!      └────────┴───────────────────────────────────────────────────────────────────────────────┘
//! ```
//! The request is named after the key, and the key stays until it has a certificate that is in use:
//! whatever is cut or restarted meanwhile, the same request is found again. Nothing here ends the
//! node: a certificate that expired while the link was down is asked for anew with the bootstrap
//! credentials, if there are any.
//! Sources: Kubernetes, "TLS bootstrapping" and "Certificate Signing Requests".

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use serde_json::{Value, json};

use crate::net::certificates::{
    Identity, Names, RequestKey, Validity, facts, first_certificate, pem,
};
use crate::world::{Area, BootTime, Call, Clock, Cluster, Disk, NoAnswer, Random, Reply, Verb};

const REQUESTS: &str = "/apis/certificates.k8s.io/v1/certificatesigningrequests";

/// What tells the two certificates apart.
pub struct Use {
    /// In messages.
    what: &'static str,
    /// Certificate chain and key, below ROOT.
    pub current: &'static str,
    /// The key of a request under way, below ROOT.
    key: &'static str,
    /// Of the names of requests.
    prefix: &'static str,
    signer: &'static str,
    usages: [&'static str; 2],
    /// Who asks, if not the certificate itself.
    asker: &'static str,
    /// Longest pause between two looks at a request: an approval by kube-controller-manager takes a
    /// second, one by a human hours.
    pause_max: Duration,
}

pub static CLIENT: Use = Use {
    what: "certificate of the node",
    current: "pki/kubelet-client-current.pem",
    key: "pki/kubelet-client.key.tmp",
    prefix: "node-csr",
    signer: "kubernetes.io/kube-apiserver-client-kubelet",
    usages: ["digital signature", "client auth"],
    asker: "the bootstrap credentials",
    pause_max: Duration::from_secs(60),
};

/// Nothing waits for it: the port shows one of the node's own meanwhile. Nor does
/// kube-controller-manager approve it.
pub static SERVING: Use = Use {
    what: "serving certificate of the node",
    current: "pki/kubelet-server-current.pem",
    key: "pki/kubelet-server.key.tmp",
    prefix: "csr",
    signer: "kubernetes.io/kubelet-serving",
    usages: ["digital signature", "server auth"],
    asker: "the node's own credentials",
    pause_max: Duration::from_secs(600),
};

/// Between the first two looks at a request.
const PAUSE_MIN: Duration = Duration::from_secs(1);
/// After a refusal, which somebody may reconsider.
const DENIED_PAUSE: Duration = Duration::from_secs(600);
/// Between two looks at the wall clock, which may jump.
const LOOK_MAX: Duration = Duration::from_secs(3600);
/// Between renewals that a clock asks for which calls even the new certificate old, first and last.
const FUTILE_PAUSE_MIN: Duration = Duration::from_secs(3600);
const FUTILE_PAUSE_MAX: Duration = Duration::from_secs(24 * 3600);
/// Between two renewals for names that the one before was not for.
const NAMES_PAUSE: Duration = Duration::from_secs(60);

/// Whoever asks for the certificate, and where it is kept.
pub struct NodeCertificate {
    pub purpose: &'static Use,
    pub disk: Rc<dyn Disk>,
    pub clock: Rc<dyn Clock>,
    pub random: Rc<dyn Random>,
    pub node_name: String,
    /// What it has to be for besides, as of now; a client's is for nothing.
    pub names: Box<dyn Fn() -> Names>,
    /// The door that the certificate itself opens, once there is one.
    pub own: Option<Rc<dyn Cluster>>,
    /// The other one; a client's is by `--bootstrap-kubeconfig`.
    pub bootstrap: Option<Rc<dyn Cluster>>,
    pub past: Past,
}

/// What keeps renewals from coming in a storm.
#[derive(Default)]
pub struct Past {
    /// In a row, with a result that was due at once.
    futile: Cell<u32>,
    /// When the last one could begin that the cluster's refusal, or another name, led to, and for what.
    forced: RefCell<Option<(BootTime, Names)>>,
}

impl Past {
    /// When the next renewal may begin that is asked for now, and for these names.
    fn force(&self, now: BootTime, names: Names) -> BootTime {
        let mut forced = self.forced.borrow_mut();
        let due = match &*forced {
            None => now,
            Some((at, before)) if *before == names => now.max(*at + FUTILE_PAUSE_MIN),
            Some((at, _)) => now.max(*at + NAMES_PAUSE),
        };
        *forced = Some((due, names));
        due
    }
}

/// Of the two ways to ask, the better one or the other.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Turn {
    First,
    Second,
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
    /// 401, or nothing that can be shown: try the others.
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
        Setback {
            door: match error {
                NoAnswer::Unusable(_) => Door::Closed,
                NoAnswer::Unreachable(_) => Door::Open,
            },
            ..Setback::of(error.to_string())
        }
    }
}

impl NodeCertificate {
    /// When the kept certificate counts; `None`: there is none that can be used, whatever the date.
    pub async fn kept(&self) -> Option<Validity> {
        self.kept_text().await.map(|(validity, _)| validity)
    }

    /// The same with chain and key.
    pub async fn kept_text(&self) -> Option<(Validity, String)> {
        let bytes = match self.disk.read(Area::Root, self.purpose.current).await {
            Ok(bytes) => bytes?,
            Err(error) => {
                log::error!("{error}");
                return None;
            }
        };
        let text = String::from_utf8_lossy(&bytes).into_owned();
        match self.judge(&text) {
            Ok(validity) => Some((validity, text)),
            Err(why) => {
                let current = self.purpose.current;
                log::error!("{current} cannot be used: {why}; another is asked for");
                None
            }
        }
    }

    /// Asks until there is a certificate, which is on stable storage then; `settle` once it is in use.
    pub async fn obtain(&self) -> Validity {
        loop {
            if let Some(validity) = self.ask(&|| true).await {
                return validity;
            }
        }
    }

    /// Asks for as long as it is wanted.
    async fn ask(&self, wanted: &dyn Fn() -> bool) -> Option<Validity> {
        let mut pause = PAUSE_MIN;
        let mut said = [const { String::new() }; 2];
        let mut turn = Turn::First;
        while wanted() {
            let (text, wait) = match self.attempt(turn).await {
                Ok(Progress::Signed(validity)) => return Some(validity),
                Ok(Progress::Pending) => ("it waits for approval".to_owned(), None),
                Ok(Progress::Denied(why)) => {
                    self.settle().await;
                    (why, Some(DENIED_PAUSE))
                }
                Err(setback) => {
                    turn = match (setback.door, turn) {
                        (Door::Closed, Turn::First) => Turn::Second,
                        (Door::Closed, Turn::Second) | (Door::Open, _) => Turn::First,
                    };
                    (setback.why, setback.after)
                }
            };
            let wait = wait.unwrap_or(pause);
            let said = &mut said[turn as usize];
            if text != *said {
                log::warn!(
                    "{}: {text}; looking again in {} s",
                    self.purpose.what,
                    wait.as_secs()
                );
                *said = text;
            }
            let jitter = Duration::from_millis(self.random.below(wait.as_millis() as u64 / 4 + 1));
            self.sleep(wait + jitter).await;
            pause = (pause * 2).min(self.purpose.pause_max);
        }
        None
    }

    /// Waits until so much of its life is over that it has to be renewed, or until it is `refused`,
    /// and renews it.
    pub async fn renew(&self, held: Validity, refused: impl Future<Output = ()>) -> Validity {
        let due = due(held, 70 + self.random.below(21));
        let futile = match self.wall() < due {
            true => 0,
            false => self.past.futile.get() + 1,
        };
        self.past.futile.set(futile);
        if futile > 1 {
            let pause = FUTILE_PAUSE_MIN * (1 << (futile - 2).min(5));
            log::warn!(
                "{}: valid until {}, and that is over by this machine's clock; the next one is asked \
                 for later",
                self.purpose.what,
                held.until
            );
            self.sleep(pause.min(FUTILE_PAUSE_MAX)).await;
        }
        let in_time = async {
            loop {
                self.wait_until(due).await;
                // A clock that jumps back before there is an answer had only seemed to be late.
                if let Some(renewed) = self.ask(&|| self.wall() >= due).await {
                    return renewed;
                }
            }
        };
        let forced = async {
            refused.await;
            let due = self.past.force(self.clock.now(), (self.names)());
            self.clock.sleep_until(due).await;
            self.obtain().await
        };
        let renewed = futures_lite::future::or(in_time, forced).await;
        log::info!(
            "{}: renewed, valid until {}",
            self.purpose.what,
            renewed.until
        );
        renewed
    }

    async fn wait_until(&self, due: Timestamp) {
        loop {
            let wall = self.wall();
            if wall >= due {
                return;
            }
            let left = u64::try_from(due.as_second() - wall.as_second()).unwrap_or_default();
            self.sleep(Duration::from_secs(left.max(1)).min(LOOK_MAX))
                .await;
        }
    }

    async fn sleep(&self, span: Duration) {
        self.clock.sleep_until(self.clock.now() + span).await;
    }

    fn wall(&self) -> Timestamp {
        self.clock.credible()
    }

    /// One look at the request, which is made if it is not there.
    async fn attempt(&self, turn: Turn) -> Result<Progress, Setback> {
        let (who, door) = self.door(turn).await?;
        self.attempt_through(&*door)
            .await
            .map_err(|setback| Setback {
                why: format!("{}, asked with {who}", setback.why),
                ..setback
            })
    }

    async fn attempt_through(&self, door: &dyn Cluster) -> Result<Progress, Setback> {
        let key = self.key().await.map_err(Setback::of)?;
        let names = (self.names)();
        let name = format!("{}-{}", self.purpose.prefix, key.digest(&names));
        let reply = door.call(Call::get(format!("{REQUESTS}/{name}"))).await?;
        match reply.status {
            200 => self.look(&reply.body, &key).await,
            404 => {
                let request = self.request(&name, &key, &names).map_err(Setback::of)?;
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

    /// With the certificate itself while it counts, else with the bootstrap credentials. The other of
    /// the two has its turn too: whose clock is wrong is not known here.
    async fn door(&self, turn: Turn) -> Result<(String, Rc<dyn Cluster>), Setback> {
        let kept = match &self.own {
            Some(_) => self.kept().await,
            None => None,
        };
        let ended = kept.is_some_and(|kept| kept.until <= self.wall());
        let own = kept.zip(self.own.clone()).map(|(kept, own)| {
            let hint = match (ended, &self.bootstrap) {
                (true, None) => ", and there is no --bootstrap-kubeconfig to ask for another with",
                _ => "",
            };
            let who = format!("the certificate that is valid until {}{hint}", kept.until);
            (who, own)
        });
        let bootstrap = self.bootstrap.clone();
        let bootstrap = bootstrap.map(|door| (self.purpose.asker.to_owned(), door));
        let (first, second) = match ended {
            true => (bootstrap, own),
            false => (own, bootstrap),
        };
        let door = match turn {
            Turn::First => first.or(second),
            Turn::Second => second.or(first),
        };
        door.ok_or_else(|| Setback::of("there are no credentials to ask with"))
    }

    fn request(&self, name: &str, key: &RequestKey, names: &Names) -> Result<Value, String> {
        let der = key.request(&user(&self.node_name), "system:nodes", names)?;
        let text = pem("CERTIFICATE REQUEST", &der);
        Ok(json!({
            "apiVersion": "certificates.k8s.io/v1",
            "kind": "CertificateSigningRequest",
            "metadata": { "name": name },
            "spec": {
                "request": STANDARD.encode(text),
                "signerName": self.purpose.signer,
                "usages": self.purpose.usages,
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
            .write_durable(Area::Root, self.purpose.current, text.into_bytes());
        written
            .await
            .map_err(|error| Setback::of(error.to_string()))?;
        Ok(Progress::Signed(validity))
    }

    /// Whether a text holds a certificate of this node and its key, of whatever date.
    fn judge(&self, text: &str) -> Result<Validity, String> {
        let identity = Identity::parse(text)?;
        let facts = facts(&first_certificate(&identity.certificate)?)?;
        if facts.common_name != user(&self.node_name) {
            return Err(format!("it is made out to {:?}", facts.common_name));
        }
        // One name too many does no harm: an interface that is down today is up tomorrow.
        match (self.names)().missing_in(&facts) {
            Some(name) => Err(format!("it is not for {name}")),
            None => Ok(facts.validity),
        }
    }

    /// The key of the request under way, or a new one.
    async fn key(&self) -> Result<RequestKey, String> {
        let read = self.disk.read(Area::Root, self.purpose.key).await;
        let bytes = read.map_err(|error| error.to_string())?;
        let text = bytes.map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
        if let Some(Ok(key)) = text.map(|text| RequestKey::parse(&text)) {
            return Ok(key);
        }
        let key = RequestKey::make()?;
        let written =
            self.disk
                .write_durable(Area::Root, self.purpose.key, key.text().into_bytes());
        written.await.map_err(|error| error.to_string())?;
        Ok(key)
    }

    /// The next request has a key of its own: this one's certificate is in use, or it has none.
    pub async fn settle(&self) {
        if let Err(error) = self.disk.remove(Area::Root, self.purpose.key).await {
            log::error!("{error}; the next request has the same key");
        }
    }
}

/// Source: Kubernetes, "Using Node Authorization".
fn user(node_name: &str) -> String {
    format!("system:node:{node_name}")
}

/// When so much of a life is over.
pub(super) fn due(validity: Validity, percent: u64) -> Timestamp {
    let (from, until) = (validity.from.as_second(), validity.until.as_second());
    let life = i128::from(until.saturating_sub(from)) * i128::from(percent) / 100;
    let at = from.saturating_add(i64::try_from(life).unwrap_or(i64::MAX));
    Timestamp::from_second(at).unwrap_or(validity.until)
}

#[cfg(test)]
#[path = "certificates_tests.rs"]
mod tests;
