//! The image directory: archives and layouts that are imported as they appear.
//!
//! ```text
//!   scan ─► for each file that is not the one imported before: import ─► pinned, named
//!    ▲                                                   ├─ failed: said once, tried when it changes
//!    │                                                   └─ no space, bad disk: said once, tried later
//!    └── inotify (closed, renamed, removed), quiet for 200 ms; or 60 s
//! ```
//! The directory may be read-only and may be missing.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use futures_lite::future;

use super::archive;
use super::catalog::{Archive, FileStamp};
use super::store::{ImageStore, Pin, background};
use super::unpack::local;
use crate::os::directory_watch::DirectoryWatch;
use crate::world::{BootTime, PullError};

/// After a change: wait until nothing happened for so long, so that a copy is seen whole.
const QUIET: Duration = Duration::from_millis(200);
/// Look again without an event: file systems without inotify (NFS), directories that come later.
const RESCAN: Duration = Duration::from_secs(60);
/// Files of the directory that are looked at.
const FILES_MAX: usize = 1000;

/// How long a file that the disk would not take is left alone: doubled at each failure. The first
/// is shorter than a rescan, so that no round is passed over.
const RETRY_MIN: Duration = Duration::from_secs(50);
const RETRY_MAX: Duration = Duration::from_secs(600);

/// Files that failed.
type Failed = BTreeMap<String, Failure>;

struct Failure {
    /// The file as it was then: another one is tried at once.
    stamp: FileStamp,
    /// Said once.
    text: String,
    /// Where the disk is to blame: when to try the same file again, and how long that is from the
    /// failure.
    retry: Option<(BootTime, Duration)>,
}

impl ImageStore {
    /// Imports what appears in the image directory, for as long as it is polled; never ends.
    /// Resolves `first_scan` after the first round, also if the directory is missing or empty.
    pub async fn watch_image_dir(&self) {
        let Some(directory) = self.options.image_dir.clone() else {
            return;
        };
        let watch = DirectoryWatch::new()
            .inspect_err(|error| log::warn!("watch {}: {error}", directory.display()))
            .ok();
        let mut failed = Failed::new();
        loop {
            // Watched before it is read: nothing falls between.
            if let Some(watch) = &watch {
                add_watches(watch, &directory);
            }
            self.scan(&directory, &mut failed).await;
            self.state.borrow_mut().scanned = true;
            self.event.notify(usize::MAX);
            self.wait_for_change(watch.as_ref()).await;
        }
    }

    async fn wait_for_change(&self, watch: Option<&DirectoryWatch>) {
        let clock = &self.options.clock;
        let Some(watch) = watch else {
            return clock.sleep_until(clock.now() + RESCAN).await;
        };
        let mut deadline = clock.now() + RESCAN;
        loop {
            let changed = async { watch.changed().await.map(|()| true) };
            let late = async {
                clock.sleep_until(deadline).await;
                Ok::<_, io::Error>(false)
            };
            match future::or(changed, late).await {
                Ok(true) => deadline = clock.now() + QUIET,
                Ok(false) => return,
                Err(error) => {
                    log::warn!("watch the image directory: {error}; looking every minute");
                    return clock.sleep_until(clock.now() + RESCAN).await;
                }
            }
        }
    }

    async fn scan(&self, directory: &Path, failed: &mut Failed) {
        let place = directory.to_owned();
        let files = match background(move || list(&place)).await {
            Ok(Ok(files)) => files,
            // Missing is normal; it may come later.
            Ok(Err(error)) if error.kind() == io::ErrorKind::NotFound => return,
            Ok(Err(error)) => {
                log::warn!("read the image directory {}: {error}", directory.display());
                return;
            }
            Err(error) => {
                log::warn!("{error}");
                return;
            }
        };
        for (name, stamp) in &files {
            if self.is_hopeless(failed.get(name), stamp) || self.is_imported(name, stamp) {
                continue;
            }
            match self
                .import_archive(directory.join(name), name, *stamp)
                .await
            {
                Ok(names) => {
                    failed.remove(name);
                    log::info!("imported {name}: {}", names.join(", "));
                }
                Err(error) => {
                    let before = failed.remove(name).filter(|before| before.stamp == *stamp);
                    failed.insert(name.clone(), self.failure(*stamp, &error, before));
                }
            }
        }
        failed.retain(|name, _| files.contains_key(name));
        if let Err(error) = self.forget_removed(&files).await {
            log::warn!("{error}");
        }
    }

    /// The file is as it was when it failed, and it is not time to try again.
    fn is_hopeless(&self, failure: Option<&Failure>, stamp: &FileStamp) -> bool {
        failure.is_some_and(|failure| {
            let due = failure.retry.map(|(at, _)| at <= self.options.clock.now());
            failure.stamp == *stamp && due != Some(true)
        })
    }

    /// Notes a failure after the one `before` of the same file, and says what was not said yet.
    fn failure(&self, stamp: FileStamp, error: &PullError, before: Option<Failure>) -> Failure {
        let text = error.to_string();
        let passing = matches!(error, PullError::Disk(_));
        if before.as_ref().is_none_or(|before| before.text != text) {
            let again = match passing {
                true => "tried again from time to time",
                false => "tried again when the file changes",
            };
            log::warn!("{text}; {again}");
        }
        let retry = passing.then(|| {
            let last = before.and_then(|before| before.retry);
            let span = last.map_or(RETRY_MIN, |(_, span)| (span * 2).min(RETRY_MAX));
            (self.options.clock.now() + span, span)
        });
        Failure { stamp, text, retry }
    }

    /// The file is as it was, and all that came from it is still here.
    fn is_imported(&self, name: &str, stamp: &FileStamp) -> bool {
        let state = self.state.borrow();
        state.catalog.archives.get(name).is_some_and(|archive| {
            let mut images = archive.images.iter();
            archive.stamp == *stamp && images.all(|id| state.present.contains_key(id))
        })
    }

    async fn import_archive(
        &self,
        path: PathBuf,
        name: &str,
        stamp: FileStamp,
    ) -> Result<Vec<String>, PullError> {
        let _adding = self.adding.read().await;
        let stored = self.import_content(path.clone(), None).await?;
        let now = background(move || FileStamp::of(&path)).await?;
        let now = now.map_err(|error| local(&format!("import {name}"), &error))?;
        if now != stamp {
            return Err(PullError::Local(format!(
                "import {name}: it changed while it was read"
            )));
        }
        let images = stored.iter().map(|image| image.id).collect();
        let archive = Archive { stamp, images };
        self.admit(&stored, Pin::Pinned, |catalog| {
            catalog.archives.insert(name.to_owned(), archive);
        })
        .await?;
        Ok(stored.into_iter().flat_map(|image| image.names).collect())
    }

    /// Images of archives that are gone stay, but may be collected.
    async fn forget_removed(&self, files: &BTreeMap<String, FileStamp>) -> Result<(), PullError> {
        self.change(|catalog| {
            let of = |archives: &BTreeMap<String, Archive>| -> BTreeSet<_> {
                let images = archives.values().flat_map(|archive| archive.images.clone());
                images.collect()
            };
            let before = of(&catalog.archives);
            catalog.archives.retain(|name, _| files.contains_key(name));
            for id in before.difference(&of(&catalog.archives)) {
                if let Some(entry) = catalog.images.get_mut(id) {
                    entry.pinned = false;
                }
            }
        })
        .await
    }
}

fn add_watches(watch: &DirectoryWatch, directory: &Path) {
    let add = |path: &Path| {
        if let Err(error) = watch.add(path)
            && !matches!(
                error.kind(),
                io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
            )
        {
            log::debug!("watch {}: {error}", path.display());
        }
    };
    add(directory);
    let Ok(entries) = fs::read_dir(directory) else {
        return;
    };
    for entry in entries.flatten().take(FILES_MAX) {
        let path = entry.path();
        if path.is_dir() {
            add(&path);
            add(&path.join("blobs/sha256"));
        }
    }
}

/// Candidates by name, with their stamps. Sorted, so that two archives of one name always end alike.
fn list(directory: &Path) -> io::Result<BTreeMap<String, FileStamp>> {
    let mut files = BTreeMap::new();
    for entry in fs::read_dir(directory)?.flatten() {
        let path = entry.path();
        let Ok(name) = entry.file_name().into_string() else {
            continue;
        };
        if archive::is_candidate(&path)
            && let Ok(stamp) = FileStamp::of(&path)
        {
            files.insert(name, stamp);
        }
    }
    if files.len() > FILES_MAX {
        log::warn!(
            "{} holds more than {FILES_MAX} files; the rest is left out",
            directory.display()
        );
        files = files.into_iter().take(FILES_MAX).collect();
    }
    Ok(files)
}

impl FileStamp {
    /// Of an archive itself; of a layout, its index and the directory of its blobs.
    fn of(path: &Path) -> io::Result<FileStamp> {
        let metadata = fs::metadata(path)?;
        if !metadata.is_dir() {
            return Ok(stamp(&metadata));
        }
        let index = stamp(&fs::metadata(path.join("index.json"))?);
        let blobs = fs::metadata(path.join("blobs/sha256")).map(|metadata| stamp(&metadata));
        let blobs_modified_ns = blobs.map_or(0, |stamp| stamp.modified_ns);
        Ok(FileStamp {
            modified_ns: index.modified_ns.max(blobs_modified_ns),
            ..index
        })
    }
}

fn stamp(metadata: &fs::Metadata) -> FileStamp {
    FileStamp {
        bytes: metadata.len(),
        modified_ns: i128::from(metadata.mtime()) * 1_000_000_000
            + i128::from(metadata.mtime_nsec()),
        inode: metadata.ino(),
    }
}
