//! The file source: scans when something changed, and every `--file-check-frequency`.
//!
//! Hands over complete lists only. Rejected objects are handed over again at each rescan, so that
//! they are taken when what they waited for has come.

use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

use futures_lite::future;

use super::directory::{Content, FileText, Listing, ManifestFiles};
use super::problems::Reported;
use super::source::{self, Decoding, Entry, Parsed, Text};
use crate::object::gather::Gather;
use crate::object::{Problem, Source};
use crate::registry::{Incoming, Registry};
use crate::world::Clock;

/// Manifests of `--pod-manifest-path`.
pub struct FileSource<F> {
    files: F,
    node_name: String,
    check_period: Duration,
    decoding: Decoding,
    /// What each path last held.
    parsed: BTreeMap<String, Parsed>,
    skipped: BTreeMap<String, String>,
    reported: Reported,
}

impl<F: ManifestFiles> FileSource<F> {
    /// `check_period`: how often to look without being told (upstream: 20 s).
    pub fn new(
        files: F,
        node_name: &str,
        check_period: Duration,
        decoding: Decoding,
    ) -> FileSource<F> {
        FileSource {
            files,
            node_name: node_name.to_owned(),
            check_period,
            decoding,
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

    /// One scan and, if it was complete, one list for the registry. To be waited for: what a turn
    /// that is dropped had read is not read again.
    pub async fn turn(&mut self, registry: &Registry, clock: &dyn Clock) {
        let listing = match self.files.scan().await {
            Ok(listing) => listing,
            Err(why) => return self.reported.unreachable(&why),
        };
        self.reported.reachable("manifest files");
        let (list, broken) = match self.complete(listing, registry, clock).await {
            Some(complete) => complete,
            None => return,
        };
        match registry.replace(Source::File, list).await {
            Ok(replaced) => self.reported.objects(&replaced, &broken, registry),
            Err(error) => self.reported.unreachable(&format!(
                "store manifests: {error}; retrying at the next scan"
            )),
        }
    }

    /// `None`: what a file states that is being written, nobody knows here yet, and no list leaves it
    /// out. What was read is kept for the next scan.
    async fn complete(
        &mut self,
        mut listing: Listing,
        registry: &Registry,
        clock: &dyn Clock,
    ) -> Option<(Vec<Incoming>, Vec<Problem>)> {
        let mut complete = true;
        let mut troubles: BTreeMap<String, String> = BTreeMap::new();
        for warning in &listing.warnings {
            troubles.insert("directory".to_owned(), warning.clone());
        }
        self.note_skipped(&listing);
        let mut before = std::mem::take(&mut self.parsed);
        let texts = texts(&mut listing.files, &mut before);
        let decoding = self.decoding;
        let decoded = decoding.run(texts, Source::File, &self.node_name);
        let mut decoded = decoded.await.into_iter();
        let (mut list, mut broken) = (Vec::new(), Vec::new());
        for file in listing.files {
            let parsed = match file.content {
                Content::Same => before.remove(&file.path),
                Content::Read(_) => decoded.next(),
                Content::Refused(why) => {
                    broken.push(source::refused(&file.path, why));
                    continue;
                }
            };
            let Some(parsed) = parsed else {
                complete &= registry.has_listed(Source::File) && !states(registry, &file.path);
                continue;
            };
            if parsed.blank && states(registry, &file.path) {
                broken.push(source::emptied(&file.path));
            }
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
        complete.then_some((list, broken))
    }

    fn note_skipped(&mut self, listing: &Listing) {
        let now: BTreeMap<_, _> = listing.skipped.iter().cloned().gathered();
        for (path, why) in now
            .iter()
            .filter(|(path, _)| !self.skipped.contains_key(*path))
        {
            log::debug!("manifest {path}: skipped: {why}");
        }
        self.skipped = now;
    }
}

/// Whether anything that was read from a file, by this agent or one before, is still wanted.
fn states(registry: &Registry, file: &str) -> bool {
    let accepted = registry.reader().accepted_from(Source::File, file);
    accepted.iter().any(|now| !now.is_deleting())
}

/// Takes out what was read, in order, with what the same path held before.
fn texts(files: &mut [FileText], before: &mut BTreeMap<String, Parsed>) -> Vec<Text> {
    let read = files.iter_mut().filter_map(|file| match &mut file.content {
        Content::Read(bytes) => Some((&file.path, std::mem::take(bytes))),
        Content::Same | Content::Refused(_) => None,
    });
    read.map(|(path, bytes)| Text {
        location: path.clone(),
        bytes,
        known: before.remove(path),
    })
    .collect()
}

#[cfg(test)]
#[path = "file_tests.rs"]
mod tests;
