//! The file source: scans when something changed, and every `--file-check-frequency`.
//!
//! Hands over complete lists only. Rejected objects are handed over again at each rescan, so that
//! they are taken when what they waited for has come.

use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

use futures_lite::future;

use super::defaults::Origin;
use super::directory::{Content, Listing, ManifestFiles};
use super::problems::Reported;
use super::source::{self, Entry, Parsed};
use crate::object::{Problem, Source};
use crate::registry::{Incoming, Registry};
use crate::world::Clock;

/// Manifests of `--pod-manifest-path`.
pub struct FileSource<F> {
    files: F,
    node_name: String,
    check_period: Duration,
    /// What each path last held.
    parsed: BTreeMap<String, Parsed>,
    skipped: BTreeMap<String, String>,
    reported: Reported,
}

impl<F: ManifestFiles> FileSource<F> {
    /// `check_period`: how often to look without being told (upstream: 20 s).
    pub fn new(files: F, node_name: &str, check_period: Duration) -> FileSource<F> {
        FileSource {
            files,
            node_name: node_name.to_owned(),
            check_period,
            parsed: BTreeMap::new(),
            skipped: BTreeMap::new(),
            reported: Reported::default(),
        }
    }

    /// Never ends; dropping it stops the source and leaves its pods as they are.
    pub async fn run(mut self, registry: Registry, clock: Rc<dyn Clock>) {
        loop {
            self.turn(&registry, &*clock).await;
            let rescan = clock.sleep_until(clock.now() + self.check_period);
            // `or` polls left first: with both due, one scan answers both.
            future::or(self.files.changed(), rescan).await;
        }
    }

    /// One scan and, if it was complete, one list for the registry.
    pub async fn turn(&mut self, registry: &Registry, clock: &dyn Clock) {
        let listing = match self.files.scan().await {
            Ok(listing) => listing,
            Err(why) => return self.reported.unreachable(&why),
        };
        self.reported.reachable("manifest files");
        let (list, broken) = self.complete(listing, registry, clock);
        match registry.replace(Source::File, list).await {
            Ok(replaced) => self.reported.objects(&replaced, &broken, registry),
            Err(error) => self.reported.unreachable(&format!(
                "store manifests: {error}; retrying at the next scan"
            )),
        }
    }

    fn complete(
        &mut self,
        listing: Listing,
        registry: &Registry,
        clock: &dyn Clock,
    ) -> (Vec<Incoming>, Vec<Problem>) {
        let mut troubles: BTreeMap<String, String> = BTreeMap::new();
        for warning in &listing.warnings {
            troubles.insert("directory".to_owned(), warning.clone());
        }
        self.note_skipped(&listing);
        let mut before = std::mem::take(&mut self.parsed);
        let (mut list, mut broken) = (Vec::new(), Vec::new());
        for file in listing.files {
            let known = before.remove(&file.path);
            let parsed = match file.content {
                Content::Same => known,
                Content::Read(bytes) => Some(self.parse(&file.path, &bytes, known)),
                Content::Refused(why) => {
                    broken.push(source::refused(&file.path, why));
                    continue;
                }
            };
            let Some(parsed) = parsed else { continue };
            for entry in &parsed.entries {
                match entry {
                    Entry::Broken(problem) => broken.push(problem.clone()),
                    Entry::Object { .. } => list.push(source::incoming(entry, registry, clock)),
                }
            }
            self.parsed.insert(file.path, parsed);
        }
        for problem in &broken {
            troubles.insert(problem.at.to_string(), problem.message.clone());
        }
        self.reported.texts(troubles);
        list.extend(broken.iter().cloned().map(Incoming::Broken));
        (list, broken)
    }

    fn parse(&self, path: &str, bytes: &[u8], known: Option<Parsed>) -> Parsed {
        match known {
            Some(known) if known.digest == source::digest(bytes) => known,
            _ => source::parse(
                bytes,
                Origin {
                    source: Source::File,
                    location: path,
                    node_name: &self.node_name,
                },
            ),
        }
    }

    fn note_skipped(&mut self, listing: &Listing) {
        let now: BTreeMap<_, _> = listing.skipped.iter().cloned().collect();
        for (path, why) in now
            .iter()
            .filter(|(path, _)| !self.skipped.contains_key(*path))
        {
            log::debug!("manifest {path}: skipped: {why}");
        }
        self.skipped = now;
    }
}

#[cfg(test)]
#[path = "file_tests.rs"]
mod tests;
