//! How the node becomes and stays a member of the cluster by itself.
//!
//! ```text
//!   no kubeconfig ──────────────────┐
//!   one that does not open the door ┴► certificate ─► kubeconfig written ─► door opens ─┐
//!                                           ▲                                           │
//!                                           └── in time, or refused for good ───────────┘
//! ```
//! Everything else of the node runs meanwhile, from what it has. A kubeconfig that somebody else
//! wrote is left alone for as long as the cluster takes it.
//! Source: Kubernetes, "TLS bootstrapping".

use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::Duration;

use super::certificates::{NodeCertificate, due};
use super::door::KubeconfigCluster;
use super::kubeconfig;
use super::link::Link;
use crate::os::disk::SystemDisk;
use crate::world::{Area, Disk};

/// Between two tries to write the kubeconfig.
const WRITE_PAUSE: Duration = Duration::from_secs(60);
/// Of its life, after which a certificate that is not the node's to renew is spoken of, and how often.
const OLD_PERCENT: u64 = 70;
const LOOK_PERIOD: Duration = Duration::from_secs(600);
const REMIND_PERIOD: Duration = Duration::from_secs(24 * 3600);

pub struct Member {
    /// Asked through `door` and `bootstrap`.
    pub certificate: NodeCertificate,
    /// Where it is kept: an absolute path.
    pub current: PathBuf,
    pub door: Rc<KubeconfigCluster>,
    pub bootstrap: Option<Rc<KubeconfigCluster>>,
    pub link: Rc<Link>,
}

impl Member {
    /// Never ends.
    pub async fn run(self) {
        loop {
            let theirs = self.is_theirs();
            if theirs {
                if self.bootstrap.is_none() {
                    return self.remind().await;
                }
                self.door.refused().await;
                log::warn!(
                    "{} does not open the cluster's door: the node goes in with a certificate of its own",
                    self.door.path().display()
                );
            }
            let shown = self.door.shows(&self.current) == Some(true);
            // Without a kubeconfig that shows it, one that has ended gets nobody in.
            let kept = self.certificate.kept().await;
            let kept = kept.filter(|kept| shown || kept.until > self.certificate.clock.credible());
            let mut held = match kept {
                Some(kept) => kept,
                None => self.certificate.obtain().await,
            };
            // One that somebody has written meanwhile is left alone.
            let mut ours = theirs || !self.is_theirs();
            while ours && self.show(theirs).await {
                self.certificate.settle().await;
                held = self.certificate.renew(held, self.door.refused()).await;
                ours = !self.is_theirs();
            }
        }
    }

    /// Says in time that the certificate ends: nobody but its maker renews it.
    async fn remind(&self) {
        loop {
            self.link.wait(LOOK_PERIOD).await;
            let Some(validity) = self.door.validity() else {
                continue;
            };
            if due(validity, OLD_PERCENT) <= self.certificate.clock.credible() {
                log::warn!(
                    "{}: the client certificate ends at {}, and the node renews only its own",
                    self.door.path().display(),
                    validity.until
                );
                self.link.wait(REMIND_PERIOD).await;
            }
        }
    }

    /// Whether there is a kubeconfig, and not of our making.
    fn is_theirs(&self) -> bool {
        self.door.shows(&self.current) == Some(false)
    }

    /// From now on the node is who the new certificate says. `false`: by the time that could be written
    /// somebody had put a kubeconfig there; `over` one that was there before.
    async fn show(&self, over: bool) -> bool {
        while self.door.shows(&self.current) != Some(true) {
            match self.write().await {
                Ok(()) => {
                    log::info!("{} is written", self.door.path().display());
                    break;
                }
                Err(why) => {
                    log::error!("write {}: {why}", self.door.path().display());
                    self.link.wait(WRITE_PAUSE).await;
                    if !over && self.is_theirs() {
                        return false;
                    }
                }
            }
        }
        if let Err(why) = self.door.reopen().await {
            log::error!("{why}");
        }
        self.link.nudge();
        true
    }

    /// The cluster is the bootstrap's; on stable storage, since that may not open a second time.
    async fn write(&self) -> Result<(), String> {
        let bootstrap = self.bootstrap.as_ref().ok_or("no --bootstrap-kubeconfig")?;
        if bootstrap.text().is_none() {
            bootstrap.reopen().await?;
        }
        let text = bootstrap.text().ok_or("nothing is known of the cluster")?;
        let text = kubeconfig::with_certificate(bootstrap.path(), &text, &self.current)?;
        let path = self.door.path();
        let directory = path.parent().unwrap_or(Path::new("/")).to_owned();
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let opened = blocking::unblock(move || {
            std::fs::create_dir_all(&directory)?;
            SystemDisk::open(&directory, &directory)
        });
        let disk = opened.await.map_err(|error| error.to_string())?;
        let written = disk.write_durable(Area::Root, &name, text.into_bytes());
        written.await.map_err(|error| error.to_string())
    }
}
