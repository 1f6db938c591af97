//! `world::Images`: what is here, what a registry would give, and archives that turn up later.

use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use event_listener::Event;
use lowtide::world::{DiskUse, Image, ImageConfig, Images, LocalFuture, PullError, PullRequest};

use crate::host::{Host, boxed, give, question};

/// How the registry treats one image now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    Pullable,
    Unreachable,
    Refused,
}

#[derive(Default)]
pub struct ImageStore {
    here: BTreeMap<String, Arc<Image>>,
    origins: BTreeMap<String, Origin>,
    generation: u64,
    grown: Rc<Event>,
    /// The agent whose first scan has ended.
    scanned_by: Option<u64>,
}

impl ImageStore {
    pub fn origin(&self, reference: &str) -> Origin {
        let known = self.origins.get(reference);
        known.copied().unwrap_or(Origin::Pullable)
    }

    pub fn set_origin(&mut self, reference: &str, origin: Origin) {
        self.origins.insert(reference.to_owned(), origin);
    }

    /// The image is here, by import or by a pull that ended.
    pub fn add(&mut self, reference: &str) -> Arc<Image> {
        let digest = reference.bytes().fold(7_u64, |hash, byte| {
            hash.wrapping_mul(31).wrapping_add(u64::from(byte))
        });
        let image = Arc::new(Image {
            id: format!("sha256:{digest:064x}"),
            tags: vec![reference.to_owned()],
            digests: vec![format!("{reference}@sha256:{digest:064x}")],
            size_bytes: 1 << 20,
            pinned: false,
            config: ImageConfig::default(),
        });
        self.here.insert(reference.to_owned(), Arc::clone(&image));
        self.generation += 1;
        self.grown.notify(usize::MAX);
        image
    }
}

pub struct SimImages(pub Rc<Host>);

impl Images for SimImages {
    fn find(&self, reference: &str) -> Option<Arc<Image>> {
        self.0.images.borrow().here.get(reference).cloned()
    }

    fn list(&self) -> Vec<Arc<Image>> {
        self.0.images.borrow().here.values().cloned().collect()
    }

    fn first_scan(&self) -> LocalFuture<'_, ()> {
        boxed(async {
            let (asker, answer) = question();
            let scan = self.0.span(Duration::from_millis(40));
            self.0.later_in_agent(scan, move |host| {
                host.images.borrow_mut().scanned_by = Some(host.agent());
                give(&asker, ());
            });
            answer.await
        })
    }

    fn generation(&self) -> u64 {
        self.0.images.borrow().generation
    }

    fn changed(&self, seen: u64) -> LocalFuture<'_, u64> {
        boxed(async move {
            let grown = Rc::clone(&self.0.images.borrow().grown);
            loop {
                let listener = grown.listen();
                let generation = self.generation();
                if generation != seen {
                    return generation;
                }
                listener.await;
            }
        })
    }

    fn disk_use(&self) -> LocalFuture<'_, Result<DiskUse, String>> {
        boxed(async {
            // Room for two images and a half: the third starts a collection.
            let used_bytes = (self.0.images.borrow().here.len() as u64) << 20;
            let capacity_bytes = 5 << 19;
            Ok(DiskUse {
                capacity_bytes,
                free_bytes: capacity_bytes - used_bytes.min(capacity_bytes),
            })
        })
    }

    fn discard<'a>(
        &'a self,
        id: &'a str,
        _in_use: Vec<String>,
    ) -> LocalFuture<'a, Result<(), PullError>> {
        boxed(async move {
            self.0.trace.note(|| format!("discard {id}"));
            if self.0.kernel.borrow().uses_image(id) {
                self.0.judge.condemn(format!("{id} is discarded and used"));
            }
            let mut images = self.0.images.borrow_mut();
            images.here.retain(|_, image| image.id != id);
            Ok(())
        })
    }

    fn pull(&self, request: PullRequest) -> LocalFuture<'_, Result<Arc<Image>, PullError>> {
        boxed(async move {
            let reference = request.reference;
            self.0.trace.note(|| format!("pull {reference}"));
            if self.0.images.borrow().scanned_by != Some(self.0.agent()) {
                self.0
                    .judge
                    .condemn(format!("{reference} is pulled before the first scan ended"));
            }
            let (asker, answer) = question();
            let took = self.0.span(Duration::from_secs(3));
            self.0.later_in_agent(took, move |host| {
                let origin = host.images.borrow().origin(&reference);
                let outcome = match origin {
                    Origin::Pullable => Ok(host.images.borrow_mut().add(&reference)),
                    Origin::Unreachable => Err(PullError::Unreachable(
                        "dial registry.sim: network is unreachable".to_owned(),
                    )),
                    Origin::Refused => Err(PullError::Refused(format!("{reference}: not found"))),
                };
                host.trace.note(|| format!("pull {reference}: {origin:?}"));
                give(&asker, outcome);
            });
            answer.await
        })
    }
}
