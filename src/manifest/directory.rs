//! The manifest directory (or single file) on a real disk.
//!
//! ```text
//! name ──► skipped (dotfile, editor leftover, subdirectory)
//!      ──► refused (no regular file, foreign owner, writable by others, too big)
//!      ──► same (fingerprint as at the last scan, or written while it was read, or still is)
//!      ──► read
//! ```
//!
//! Never opens what is not a regular file, never descends, never writes.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::{OsStr, OsString};
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::os::inotify::FileWatch;
use crate::os::process::effective_uid;
use crate::os::regular_file::{self, Fingerprint};
use crate::world::LocalFuture;

/// One file of a scan. `path` is what messages and UIDs name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileText {
    pub path: String,
    pub content: Content,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Content {
    Read(Vec<u8>),
    /// As at the last scan that read it; nothing, if none did.
    Same,
    /// Not read, with the reason; what it held before stays.
    Refused(String),
}

/// What the manifests' place held at one moment, in name order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Listing {
    pub files: Vec<FileText>,
    /// Paths passed over, each with the reason, for the log.
    pub skipped: Vec<(String, String)>,
    /// Things a user should know about the place itself.
    pub warnings: Vec<String>,
}

/// The files of a manifest source: a directory on disk, or what a simulation feeds.
pub trait ManifestFiles {
    /// A complete listing; a missing place is an empty one. Errors: why it is not complete, in
    /// which case nothing may be concluded from absence.
    fn scan(&mut self) -> LocalFuture<'_, Result<Listing, String>>;

    /// Resolves when another scan may differ. May never resolve: callers scan periodically too.
    fn changed(&mut self) -> LocalFuture<'_, ()>;
}

/// Source: Kubernetes pkg/kubelet/config/common.go (`maxConfigLength`).
const FILE_BYTES_MAX: u64 = 10 << 20;
/// All files of one scan together: what an agent on a small board can hold for a moment.
const TOTAL_BYTES_MAX: u64 = 64 << 20;
/// Files in the directory.
const FILES_MAX: usize = 1_000;
/// A file being written is left alone until it is closed or this long unchanged.
const WRITING: Duration = Duration::from_secs(10);
/// Group or others may write.
const WRITABLE_BY_OTHERS: u32 = 0o022;

/// `--pod-manifest-path` on the real disk.
pub struct Directory {
    path: PathBuf,
    /// `None` where inotify is exhausted: rescans still find everything.
    watch: Option<FileWatch>,
    seen: BTreeMap<OsString, Fingerprint>,
}

impl Directory {
    /// Watches from the first scan on. Errors are logged: without inotify, rescans do.
    pub fn new(path: PathBuf) -> Directory {
        let watch = FileWatch::new()
            .inspect_err(|error| {
                log::warn!("watch {}: {error}; relying on rescans", path.display());
            })
            .ok();
        Directory {
            path,
            watch,
            seen: BTreeMap::new(),
        }
    }
}

impl ManifestFiles for Directory {
    fn scan(&mut self) -> LocalFuture<'_, Result<Listing, String>> {
        Box::pin(async move {
            let mut unfinished = BTreeSet::new();
            if let Some(watch) = &mut self.watch {
                // Watched before it is read, so that no change falls between. A missing directory
                // is found by the next rescan.
                let directory = watched_directory(&self.path);
                let caught_up = watch
                    .watch(&directory)
                    .and_then(|()| watch.catch_up(&directory));
                match caught_up {
                    Ok(()) => unfinished.clone_from(watch.unfinished()),
                    Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                    Err(error) => log::debug!("watch {}: {error}", self.path.display()),
                }
            }
            let scan = Scan {
                path: self.path.clone(),
                unfinished,
                seen_before: std::mem::take(&mut self.seen),
                ..Scan::default()
            };
            let (mut result, seen) = blocking::unblock(move || scan.run()).await;
            self.seen = seen;
            if let (Ok(listing), Some(watch)) = (&mut result, &mut self.watch)
                && let Ok(touched) = watch.touched(&watched_directory(&self.path))
            {
                leave_out(listing, touched, &mut self.seen);
            }
            result.map_err(|error| format!("read {}: {error}", self.path.display()))
        })
    }

    fn changed(&mut self) -> LocalFuture<'_, ()> {
        Box::pin(async move {
            if let Some(watch) = &mut self.watch {
                match watch.ready(&watched_directory(&self.path)).await {
                    Ok(()) => return,
                    Err(error) => {
                        log::warn!("watch {}: {error}; relying on rescans", self.path.display());
                    }
                }
                self.watch = None;
            }
            std::future::pending().await
        })
    }
}

/// The directory itself, or the one that holds the single file.
fn watched_directory(path: &Path) -> PathBuf {
    let parent = path
        .parent()
        .filter(|parent| !parent.as_os_str().is_empty());
    match path.is_file() {
        true => parent.unwrap_or(Path::new(".")).to_owned(),
        false => path.to_owned(),
    }
}

/// What was written while it was read may be half of a file, or an empty one: it stays as it was
/// until the next scan.
fn leave_out(
    listing: &mut Listing,
    touched: &BTreeSet<OsString>,
    seen: &mut BTreeMap<OsString, Fingerprint>,
) {
    for file in &mut listing.files {
        if let (Some(name), Content::Read(_)) = (Path::new(&file.path).file_name(), &file.content)
            && touched.contains(name)
        {
            seen.remove(name);
            file.content = Content::Same;
        }
    }
}

/// One pass over the directory, on a thread that may wait for the disk.
#[derive(Default)]
struct Scan {
    path: PathBuf,
    unfinished: BTreeSet<OsString>,
    seen_before: BTreeMap<OsString, Fingerprint>,
    seen: BTreeMap<OsString, Fingerprint>,
    listing: Listing,
    total_bytes: u64,
}

impl Scan {
    fn run(mut self) -> (io::Result<Listing>, BTreeMap<OsString, Fingerprint>) {
        match self.visit_all() {
            Ok(()) => (Ok(self.listing), self.seen),
            // Not a listing: what was known of the files stays known.
            Err(error) => (Err(error), self.seen_before),
        }
    }

    fn visit_all(&mut self) -> io::Result<()> {
        let meta = match fs::metadata(&self.path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let warning = format!("{} does not exist: it states no pods", self.path.display());
                self.listing.warnings.push(warning);
                return Ok(());
            }
            other => other?,
        };
        if !meta.is_dir() {
            let (path, name) = (
                self.path.clone(),
                self.path.file_name().map(OsStr::to_owned),
            );
            return self.visit(&path, &name.unwrap_or_default());
        }
        let sticky = meta.mode() & 0o1000 != 0;
        if meta.mode() & WRITABLE_BY_OTHERS != 0 && !sticky {
            self.listing.warnings.push(format!(
                "{}: mode {:04o} lets others remove manifests",
                self.path.display(),
                meta.mode() & 0o7777
            ));
        }
        let mut names = Vec::new();
        for entry in fs::read_dir(&self.path)? {
            names.push(entry?.file_name());
        }
        names.sort();
        for (count, name) in names
            .iter()
            .filter(|name| !name.as_encoded_bytes().starts_with(b"."))
            .enumerate()
        {
            let path = self.path.join(name);
            if count >= FILES_MAX {
                self.refuse(
                    &path,
                    format!("more than {FILES_MAX} files in the directory"),
                );
            } else if is_leftover(name) {
                self.skip(&path, "an editor's leftover");
            } else {
                self.visit(&path, name)?;
            }
        }
        Ok(())
    }

    fn visit(&mut self, path: &Path, name: &OsStr) -> io::Result<()> {
        let meta = match fs::metadata(path) {
            Ok(meta) => meta,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                // Removed since the listing; or a symlink that leads nowhere.
                if fs::symlink_metadata(path).is_ok() {
                    self.refuse(path, "symlink leads nowhere".to_owned());
                }
                return Ok(());
            }
            Err(error) => {
                self.refuse(path, error.to_string());
                return Ok(());
            }
        };
        if meta.is_dir() {
            self.skip(path, "subdirectories are not descended");
            return Ok(());
        }
        if !meta.is_file() {
            self.refuse(path, "not a regular file, not opened".to_owned());
            return Ok(());
        }
        let writing = self.unfinished.contains(name)
            && regular_file::age(&meta).is_some_and(|age| age < WRITING);
        let known = self.seen_before.get(name) == Some(&Fingerprint::of(&meta));
        if writing || known {
            if let Some(fingerprint) = self.seen_before.get(name) {
                self.seen.insert(name.to_owned(), *fingerprint);
            }
            self.put(path, Content::Same);
            return Ok(());
        }
        match self.read(path, name) {
            Ok(Some(bytes)) => self.put(path, Content::Read(bytes)),
            Ok(None) => {}
            Err(why) => self.refuse(path, why),
        }
        Ok(())
    }

    /// `Ok(None)` if the file went away meanwhile.
    fn read(&mut self, path: &Path, name: &OsStr) -> Result<Option<Vec<u8>>, String> {
        let (file, meta) = match regular_file::open(path) {
            Ok(opened) => opened,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error.to_string()),
        };
        check_owner(&meta)?;
        self.total_bytes = self.total_bytes.saturating_add(meta.size());
        if self.total_bytes > TOTAL_BYTES_MAX {
            return Err(format!(
                "manifests are bigger than {TOTAL_BYTES_MAX} bytes together"
            ));
        }
        let bytes = regular_file::read_at_most(&file, FILE_BYTES_MAX)
            .map_err(|error| error.to_string())?
            .ok_or_else(|| format!("bigger than {FILE_BYTES_MAX} bytes"))?;
        if regular_file::is_settled(&meta) {
            self.seen.insert(name.to_owned(), Fingerprint::of(&meta));
        }
        Ok(Some(bytes))
    }

    fn put(&mut self, path: &Path, content: Content) {
        let path = path.to_string_lossy().into_owned();
        self.listing.files.push(FileText { path, content });
    }

    fn refuse(&mut self, path: &Path, why: String) {
        self.put(path, Content::Refused(why));
    }

    fn skip(&mut self, path: &Path, why: &str) {
        let path = path.to_string_lossy().into_owned();
        self.listing.skipped.push((path, why.to_owned()));
    }
}

/// Who may write a manifest may become root on this machine.
fn check_owner(meta: &fs::Metadata) -> Result<(), String> {
    let owner = meta.uid();
    if owner != 0 && owner != effective_uid() {
        return Err(format!("owned by uid {owner}, must be root's (chown root)"));
    }
    if meta.mode() & WRITABLE_BY_OTHERS != 0 {
        let mode = meta.mode() & 0o7777;
        return Err(format!("mode {mode:04o} lets others write it (chmod go-w)"));
    }
    Ok(())
}

/// Names that editors and package tools leave beside the file they work on.
fn is_leftover(name: &OsStr) -> bool {
    let name = name.as_encoded_bytes();
    let endings: [&[u8]; 5] = [b"~", b".swp", b".swo", b".bak", b".tmp"];
    endings.iter().any(|ending| name.ends_with(ending))
        || (name.len() > 1 && name.starts_with(b"#") && name.ends_with(b"#"))
}

#[cfg(test)]
#[path = "directory_tests.rs"]
mod tests;
