//! The cluster that a kubeconfig leads to, whether or not the file is there yet.
//!
//! ```text
//!   closed ── the file is there ──► open ── 401 ──► doubted ── read again: new ──► open
//!     ▲  looked at, at most every 10 s  ▲                │            the same
//!     └── it says nothing that can be   └── any other ◄──┴────────► refused ── 401 ──► rings
//!         used                              answer
//! ```
//! A node starts without it: calls fail as over a link that is down. While all is well the file is
//! not read again, and while nobody answers as often as while it is doubted: perhaps the cluster has moved,
//! and it says where to. Files that it names are `credentials`' own business.

use std::cell::{Cell, RefCell};
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::Duration;

use event_listener::Event;
use http::Uri;

use super::http::HttpCluster;
use super::kubeconfig::{self, Settings};
use crate::net::certificates::Validity;
use crate::net::tls::Verification;
use crate::os::regular_file;
use crate::world::{
    BootTime, Call, Clock, Cluster, Knock, LocalFuture, NoAnswer, NoWatch, Reply, Watch,
};

const FILE_BYTES_MAX: u64 = 1 << 20;
/// Between two looks at a file that is not there, and at one that does no good.
const ABSENT_PAUSE: Duration = Duration::from_secs(10);
const DOUBT_PAUSE: Duration = Duration::from_secs(60);

/// What the cluster thinks of who we say we are.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Standing {
    Good,
    /// It refused once; the file may have been replaced.
    Doubted,
    /// It refused, and the file still says the same.
    Refused,
}

/// One kubeconfig.
pub struct KubeconfigCluster {
    /// Which flag names the file: `--kubeconfig`.
    flag: &'static str,
    path: PathBuf,
    /// In place of the file's, if there are any.
    servers: Vec<Uri>,
    clock: Rc<dyn Clock>,
    opened: RefCell<Option<Opened>>,
    looked: Cell<Option<BootTime>>,
    standing: Cell<Standing>,
    /// Whether the last request had an answer.
    answered: Cell<bool>,
    refused: Event,
    /// Why the file cannot be used; told once.
    complaint: RefCell<String>,
}

struct Opened {
    text: String,
    /// The file that chain and key of the client are both in.
    certificate: Option<PathBuf>,
    cluster: Rc<HttpCluster>,
}

impl KubeconfigCluster {
    /// Reads nothing yet.
    pub fn new(
        flag: &'static str,
        path: &Path,
        servers: Vec<Uri>,
        clock: Rc<dyn Clock>,
    ) -> KubeconfigCluster {
        KubeconfigCluster {
            flag,
            path: path.to_owned(),
            servers,
            clock,
            opened: RefCell::default(),
            looked: Cell::default(),
            standing: Cell::new(Standing::Good),
            answered: Cell::new(true),
            refused: Event::new(),
            complaint: RefCell::default(),
        }
    }

    /// Without a file: `--api-server` alone.
    pub fn without_credentials(servers: Vec<Uri>, clock: Rc<dyn Clock>) -> KubeconfigCluster {
        let door = KubeconfigCluster::new("--api-server", Path::new(""), Vec::new(), clock);
        door.take(String::new(), Settings::without_credentials(servers));
        door
    }

    /// Reads the file now. Blocks; for the start. Errors: `FLAG: PATH:LINE: FIELD: why`.
    pub fn open(&self) -> Result<(), String> {
        self.looked.set(Some(self.clock.now()));
        let read = self.absorb(read(&self.path));
        read.inspect_err(|why| drop(self.complaint.replace(why.clone())))
    }

    /// Reads the file now, and the files that it names before they are used next.
    pub async fn reopen(&self) -> Result<(), String> {
        self.standing.set(Standing::Good);
        if let Some(opened) = &*self.opened.borrow() {
            opened.cluster.refresh();
        }
        self.look().await
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What the file said when it was read.
    pub fn text(&self) -> Option<String> {
        let opened = self.opened.borrow();
        opened.as_ref().map(|opened| opened.text.clone())
    }

    /// Whether the file, if it could be read, names this one for certificate and key.
    pub fn shows(&self, certificate: &Path) -> Option<bool> {
        let opened = self.opened.borrow();
        let shown = opened.as_ref().map(|opened| &opened.certificate);
        shown.map(|shown| shown.as_deref() == Some(certificate))
    }

    /// Of the client certificate that is shown, if there is one.
    pub fn validity(&self) -> Option<Validity> {
        self.opened.borrow().as_ref()?.cluster.validity()
    }

    /// Resolves when the cluster refuses what the file says, and still does after another look.
    pub async fn refused(&self) {
        self.refused.listen().await;
    }

    async fn look(&self) -> Result<(), String> {
        self.looked.set(Some(self.clock.now()));
        let path = self.path.clone();
        let text = blocking::unblock(move || read(&path)).await;
        self.absorb(text).inspect_err(|why| {
            if self.complaint.replace(why.clone()) != *why {
                log::warn!("{why}");
            }
        })
    }

    /// A file that is gone or broken leaves what it said before in force.
    fn absorb(&self, text: Result<String, String>) -> Result<(), String> {
        let failed = |why: &str| format!("{}: {why}", self.flag);
        let text = text.map_err(|why| failed(&format!("{}: {why}", self.path.display())))?;
        if self.text().as_ref() == Some(&text) {
            if self.standing.get() == Standing::Doubted {
                self.standing.set(Standing::Refused);
            }
            return Ok(());
        }
        let parsed = kubeconfig::parse(&self.path, &text, &self.servers);
        let (settings, warnings) = parsed.map_err(|why| failed(&why))?;
        for warning in warnings {
            log::warn!("{}: {warning}", self.flag);
        }
        if settings.verification == Verification::Skip {
            log::warn!("the cluster's certificate is not verified: whoever answers is believed");
        }
        self.take(text, settings);
        Ok(())
    }

    fn take(&self, text: String, settings: Settings) {
        let certificate = settings.certificate_file().map(Path::to_owned);
        let cluster = Rc::new(HttpCluster::new(self.clock.clone(), settings));
        self.standing.set(Standing::Good);
        self.complaint.take();
        self.opened.replace(Some(Opened {
            text,
            certificate,
            cluster,
        }));
    }

    async fn cluster(&self) -> Result<Rc<HttpCluster>, NoAnswer> {
        let known = || {
            let opened = self.opened.borrow();
            opened.as_ref().map(|opened| opened.cluster.clone())
        };
        let pause = match (known().is_some(), self.standing.get()) {
            (false, _) => ABSENT_PAUSE,
            (true, Standing::Good) if self.answered.get() => Duration::MAX,
            (true, _) => DOUBT_PAUSE,
        };
        let now = self.clock.now();
        let due = self.looked.get().is_none_or(|at| now.since(at) >= pause);
        // Without a name there is no file to look at.
        if due && !self.path.as_os_str().is_empty() {
            let _told_already = self.look().await;
        }
        known().ok_or_else(|| NoAnswer::Unusable(self.complaint.borrow().clone()))
    }

    /// Learns from what came of a request. Who cannot read what the file names is as good as refused.
    fn note(&self, cluster: &HttpCluster, status: Option<u16>) {
        self.answered.set(status.is_some());
        let status = status.or_else(|| cluster.has_nothing_to_show().then_some(401));
        match (status, self.standing.get()) {
            (Some(401), Standing::Good) => self.standing.set(Standing::Doubted),
            (Some(401), Standing::Refused) => {
                self.refused.notify(usize::MAX);
            }
            (Some(401), Standing::Doubted) | (None, _) => {}
            (Some(_), _) => self.standing.set(Standing::Good),
        }
    }
}

impl Cluster for KubeconfigCluster {
    fn call(&self, call: Call) -> LocalFuture<'_, Result<Reply, NoAnswer>> {
        Box::pin(async move {
            let cluster = self.cluster().await?;
            let answer = cluster.call(call).await;
            self.note(&cluster, answer.as_ref().ok().map(|reply| reply.status));
            answer
        })
    }

    fn watch(&self, path: String) -> LocalFuture<'_, Result<Box<dyn Watch>, NoWatch>> {
        Box::pin(async move {
            let cluster = self.cluster().await.map_err(NoWatch::NoAnswer)?;
            let opened = cluster.watch(path).await;
            let status = match &opened {
                Ok(_) => Some(200),
                Err(NoWatch::Refused(reply)) => Some(reply.status),
                Err(NoWatch::NoAnswer(_)) => None,
            };
            self.note(&cluster, status);
            opened
        })
    }

    fn reconnect(&self) {
        if let Some(opened) = &*self.opened.borrow() {
            opened.cluster.reconnect();
        }
    }

    fn knock(&self) -> LocalFuture<'_, Knock> {
        let opened = self.opened.borrow();
        let cluster = opened.as_ref().map(|opened| opened.cluster.clone());
        Box::pin(async move {
            match cluster {
                Some(cluster) => cluster.knock().await,
                None => Knock::Shut,
            }
        })
    }
}

/// Blocks. Kubeconfigs are often symbolic links.
fn read(path: &Path) -> Result<String, String> {
    let bytes = regular_file::open(path)
        .and_then(|(file, _)| regular_file::read_at_most(&file, FILE_BYTES_MAX))
        .map_err(|error| error.to_string())?;
    let bytes = bytes.ok_or_else(|| format!("larger than {FILE_BYTES_MAX} bytes"))?;
    String::from_utf8(bytes).map_err(|_| "is not UTF-8".to_owned())
}

#[cfg(test)]
#[path = "door_tests.rs"]
mod tests;
