//! What the store keeps on disk, and the order of writes that makes a power cut harmless.
//!
//! ```text
//!   ROOT/images/catalog.json            names, images, archives seen   (catalog.rs)
//!   ROOT/images/blobs/<hex>             image configurations, as served
//!   ROOT/images/layers/<diff id hex>/   one unpacked layer
//!        fs/                            what overlayfs is given
//!        layer.json                     its record (tree.rs)
//!   ROOT/images/layers/.staging-N       being unpacked: removed at start
//!   ROOT/images/layers/.trash-N         being removed: removed at start
//! ```
//!
//! A layer is unpacked under a staging name, digests are checked, the whole file system is flushed,
//! and only then it is renamed to its final name. So a final name means a whole layer. There is no
//! second, compressed copy. All functions here block; they run on [`crate::os::background`].

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::DirBuilderExt;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard};

use serde::{Deserialize, Serialize};

use super::decompress;
use super::digest::{Digest, Hashing};
use super::manifest::{CONFIG_BYTES_MAX, Configuration, read_configuration};
use super::tree::Tree;
use super::unpack::{self, Limits, local};
use crate::os::{fs_at, remove, thread};
use crate::world::PullError;

const STAGING_PREFIX: &str = ".staging-";
const TRASH_PREFIX: &str = ".trash-";
const RECORD_VERSION: u32 = 1;
/// Of a layer that did not fit so much more (an eighth) is thought to be missing …
const MISSING_PART: u64 = 8;
/// … and that is forgotten within some thirty tries, a few hours of a pod's.
const FORGOTTEN_PART: u64 = 256;
/// Largest layer record.
const RECORD_BYTES_MAX: u64 = 64 * 1024;

/// What a layer's stream must turn out to be.
#[derive(Clone, Copy, Debug)]
pub struct Expected {
    /// Digest of the plain tar.
    pub diff_id: Digest,
    /// Digest and size of the stream itself, if known (an old docker archive states neither).
    pub blob: Option<(Digest, u64)>,
}

/// How closely layers are looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Depth {
    /// The record exists: enough within one boot.
    Record,
    /// Names, kinds, sizes and modes are those that were unpacked.
    Listing,
    /// Every byte is.
    Content,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LayerRecord {
    version: u32,
    diff_id: Digest,
    #[serde(flatten)]
    pub tree: Tree,
}

/// The directory `ROOT/images`.
#[derive(Debug)]
pub struct Content {
    root: PathBuf,
    limits: Limits,
    /// Makes staging names unique within this process.
    sequence: AtomicU64,
    /// Two pulls may bring the same layer: the first commit stays, since containers may use it.
    committing: Mutex<()>,
    /// Layers that the disk did not take, with the bytes that they need or more.
    too_large: Mutex<BTreeMap<Digest, u64>>,
}

impl Content {
    /// Makes the directories and removes what an earlier process left half done.
    ///
    /// A read-only file system is no error here: what is stored can still be used.
    pub fn open(root: &Path, limits: Limits) -> Result<Content, PullError> {
        let content = Content {
            root: root.to_owned(),
            limits,
            sequence: AtomicU64::new(0),
            committing: Mutex::new(()),
            too_large: Mutex::default(),
        };
        for directory in [root.to_owned(), content.blobs(), content.layers()] {
            let made = fs::DirBuilder::new()
                .recursive(true)
                .mode(0o700)
                .create(&directory);
            match made {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::ReadOnlyFilesystem => {
                    log::warn!(
                        "make {}: {error}; nothing can be stored",
                        directory.display()
                    );
                    return Ok(content);
                }
                Err(error) => {
                    return Err(local(&format!("make {}", directory.display()), &error));
                }
            }
        }
        content.sweep();
        Ok(content)
    }

    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Where a layer is, or would be.
    pub fn layer_path(&self, diff_id: &Digest) -> PathBuf {
        self.layer_directory(diff_id).join("fs")
    }

    /// Unpacks and commits a layer; nothing is left behind on an error.
    pub fn add_layer(
        &self,
        stream: impl Read,
        expected: &Expected,
    ) -> Result<LayerRecord, PullError> {
        let staging = self.layers().join(self.fresh(STAGING_PREFIX));
        let staged = self.stage(stream, expected, &staging);
        let committed = staged.and_then(|record| {
            self.commit(&staging, &expected.diff_id)?;
            Ok(record)
        });
        if committed.is_err()
            && let Err(error) = remove::path(&staging)
        {
            log::warn!(
                "remove {}: {error}; left for the next start",
                staging.display()
            );
        }
        committed
    }

    /// Refuses layers of which it is known that they do not fit, before a byte of them is written:
    /// by their sizes as served, and by what came of them before.
    pub fn look_for_room(&self, layers: &[Expected]) -> Result<(), PullError> {
        let (_, free) = fs_at::capacity_and_free_bytes(&self.root)
            .map_err(|error| local("look at the image file system", &error))?;
        let free = free.saturating_sub(self.limits.reserve_bytes);
        let mut needed: u64 = 0;
        let mut too_large = self.too_large();
        for layer in layers {
            if self.check_layer(&layer.diff_id, Depth::Record).is_err() {
                let packed = layer.blob.map_or(0, |(_, size)| size);
                let known = too_large.get(&layer.diff_id).copied().unwrap_or(0);
                needed = needed.saturating_add(packed.max(known));
            }
        }
        if needed <= free {
            return Ok(());
        }
        for layer in layers {
            // A guess that was too high does not last.
            if let Some(known) = too_large.get_mut(&layer.diff_id) {
                *known -= *known / FORGOTTEN_PART;
            }
        }
        log::debug!("layers need {needed} bytes or more, {free} are free beside the reserve");
        // Without figures: what is said again and again is said once.
        let text = "no space left on the image file system for the layers";
        Err(PullError::Disk(text.into()))
    }

    fn too_large(&self) -> MutexGuard<'_, BTreeMap<Digest, u64>> {
        self.too_large.lock().expect("no panic while it is held")
    }

    /// Whether a layer is here and what it should be. Errors: what is wrong with it, in words.
    pub fn check_layer(&self, diff_id: &Digest, depth: Depth) -> Result<LayerRecord, String> {
        let directory = self.layer_directory(diff_id);
        let bytes = read_bounded(&directory.join("layer.json"), RECORD_BYTES_MAX)
            .map_err(|error| format!("read the record of layer {diff_id}: {error}"))?;
        let record: LayerRecord = serde_json::from_slice(&bytes)
            .map_err(|error| format!("read the record of layer {diff_id}: {error}"))?;
        if record.version != RECORD_VERSION || record.diff_id != *diff_id {
            return Err(format!(
                "the record of layer {diff_id} is of another layer or version"
            ));
        }
        let path = directory.join("fs");
        let listed = |error: io::Error| format!("list layer {diff_id}: {error}");
        let whole = match depth {
            Depth::Record => path.is_dir(),
            Depth::Listing => Tree::listing_of(&path).map_err(listed)? == record.tree.listing,
            Depth::Content => Tree::of(&path, None).map_err(listed)? == record.tree,
        };
        match whole {
            true => Ok(record),
            false => Err(format!(
                "layer {diff_id} is not what was unpacked: files are missing, cut or changed"
            )),
        }
    }

    /// Removes a layer; success if there is none.
    pub fn remove_layer(&self, diff_id: &Digest) -> io::Result<()> {
        let trash = self.layers().join(self.fresh(TRASH_PREFIX));
        match fs::rename(self.layer_directory(diff_id), &trash) {
            Ok(()) => remove::path(&trash),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Keeps an image configuration, flushed.
    pub fn add_configuration(&self, bytes: &[u8]) -> Result<Digest, PullError> {
        let digest = Digest::of(bytes);
        if self.configuration(&digest).is_err() {
            let path = self.blobs().join(digest.hex());
            write_durable(&path, bytes)
                .map_err(|error| local(&format!("write {}", path.display()), &error))?;
        }
        Ok(digest)
    }

    /// Reads a configuration back and checks its digest.
    pub fn configuration(&self, id: &Digest) -> Result<Configuration, String> {
        let bytes = read_bounded(&self.blobs().join(id.hex()), CONFIG_BYTES_MAX)
            .map_err(|error| format!("read image configuration {id}: {error}"))?;
        if Digest::of(&bytes) != *id {
            return Err(format!("image configuration {id} is damaged"));
        }
        read_configuration(&bytes)
    }

    /// Removes layers and configurations that are in neither set. All errors are logged, the rest
    /// goes on. Gives the number of layers removed.
    pub fn retain(&self, layers: &BTreeSet<Digest>, configurations: &BTreeSet<Digest>) -> usize {
        let mut removed = 0;
        for diff_id in digests_in(&self.layers()) {
            if !layers.contains(&diff_id) {
                match self.remove_layer(&diff_id) {
                    Ok(()) => removed += 1,
                    Err(error) => log::warn!("remove layer {diff_id}: {error}"),
                }
            }
        }
        for id in digests_in(&self.blobs()) {
            if !configurations.contains(&id)
                && let Err(error) = fs::remove_file(self.blobs().join(id.hex()))
            {
                log::warn!("remove image configuration {id}: {error}");
            }
        }
        removed
    }

    fn stage(
        &self,
        stream: impl Read,
        expected: &Expected,
        staging: &Path,
    ) -> Result<LayerRecord, PullError> {
        let fs_path = staging.join("fs");
        let make = |path: &Path| {
            fs::create_dir(path).map_err(|error| local(&format!("make {}", path.display()), &error))
        };
        make(staging)?;
        make(&fs_path)?;
        let tree = self.unpack_checked(stream, expected, &fs_path)?;
        let record = LayerRecord {
            version: RECORD_VERSION,
            diff_id: expected.diff_id,
            tree,
        };
        let bytes = serde_json::to_vec(&record).expect("a record of numbers and digests");
        let path = staging.join("layer.json");
        fs::write(&path, bytes)
            .map_err(|error| local(&format!("write {}", path.display()), &error))?;
        Ok(record)
    }

    fn unpack_checked(
        &self,
        stream: impl Read,
        expected: &Expected,
        into: &Path,
    ) -> Result<Tree, PullError> {
        let read = |error: io::Error| local("read the layer", &error);
        let size = expected
            .blob
            .map_or(self.limits.bytes_max, |(_, size)| size);
        let packed = Rc::new(RefCell::new(Hashing::new(stream, size)));
        let plain = decompress::plain(Shared(packed.clone())).map_err(read)?;
        let mut plain = Hashing::new(plain, stream_bytes_max(&self.limits));
        let unpacked = unpack::unpack(&mut plain, into, &self.limits);
        if let Err(PullError::Disk(_)) = unpacked {
            let bytes = plain.so_far() + plain.so_far() / MISSING_PART;
            self.too_large().insert(expected.diff_id, bytes);
        }
        let tree = unpacked?;
        self.too_large().remove(&expected.diff_id);
        // The rest (padding, a stream's checksum) is read so that both digests are whole.
        let (diff_id, _) = plain.finish().map_err(read)?;
        let packed = Rc::into_inner(packed)
            .expect("the only other owner was dropped with `plain`")
            .into_inner();
        let (blob, bytes) = packed.finish().map_err(read)?;
        if let Some((digest, size)) = expected.blob {
            if bytes != size {
                let text = format!("layer {digest} ended after {bytes} of {size} bytes");
                return Err(PullError::Refused(text));
            }
            if blob != digest {
                let text = format!("layer {digest} has the digest {blob}: damaged or forged");
                return Err(PullError::Refused(text));
            }
        }
        if diff_id != expected.diff_id {
            let wanted = expected.diff_id;
            let text = format!("layer unpacks to {diff_id}, the image says {wanted}");
            return Err(PullError::Refused(text));
        }
        Ok(tree)
    }

    fn commit(&self, staging: &Path, diff_id: &Digest) -> Result<(), PullError> {
        let last = self.layer_directory(diff_id);
        let what = format!("commit layer {diff_id}");
        let failed = |error: io::Error| local(&what, &error);
        fs_at::sync_file_system(staging).map_err(failed)?;
        let _one_at_a_time = self.committing.lock();
        if self.check_layer(diff_id, Depth::Listing).is_ok() {
            return remove::path(staging).map_err(failed);
        }
        // A broken layer of that name makes room first.
        self.remove_layer(diff_id).map_err(failed)?;
        fs::rename(staging, last).map_err(failed)?;
        fs_at::sync_directory(&self.layers()).map_err(failed)
    }

    fn sweep(&self) {
        let Ok(entries) = fs::read_dir(self.layers()) else {
            return;
        };
        for entry in entries.flatten() {
            let name = entry.file_name();
            let name = name.to_string_lossy();
            if (name.starts_with(STAGING_PREFIX) || name.starts_with(TRASH_PREFIX))
                && let Err(error) = remove::path(&entry.path())
            {
                log::warn!("remove {}: {error}", entry.path().display());
            }
        }
    }

    fn fresh(&self, prefix: &str) -> String {
        let number = self.sequence.fetch_add(1, Ordering::Relaxed);
        format!("{prefix}{}-{number}", std::process::id())
    }

    fn blobs(&self) -> PathBuf {
        self.root.join("blobs")
    }

    fn layers(&self) -> PathBuf {
        self.root.join("layers")
    }

    fn layer_directory(&self, diff_id: &Digest) -> PathBuf {
        self.layers().join(diff_id.hex())
    }
}

/// A tar stream has 512-byte headers and padding beside the contents.
fn stream_bytes_max(limits: &Limits) -> u64 {
    const OVERHEAD_BYTES: u64 = 4096;
    limits
        .bytes_max
        .saturating_add(limits.entries_max.saturating_mul(OVERHEAD_BYTES))
}

struct Shared<R>(Rc<RefCell<R>>);

impl<R: Read> Read for Shared<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.borrow_mut().read(buffer)
    }
}

/// Replaces a file so that a power cut leaves the old or the new one.
pub(super) fn write_durable(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let temporary = path.with_extension("tmp");
    let parent = path.parent().expect("a path below ROOT");
    let mut file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&temporary)?;
    let written = file
        .write_all(bytes)
        .and_then(|()| thread::flush(&file))
        .and_then(|()| fs::rename(&temporary, path));
    if let Err(error) = written {
        // Gone or not, the next write truncates it.
        let _ = fs::remove_file(&temporary);
        return Err(error);
    }
    fs_at::sync_directory(parent)
}

/// Reads a whole file of at most `bytes_max`.
pub(super) fn read_bounded(path: &Path, bytes_max: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path)?
        .take(bytes_max + 1)
        .read_to_end(&mut bytes)?;
    match bytes.len() as u64 > bytes_max {
        true => Err(io::Error::new(
            io::ErrorKind::FileTooLarge,
            format!("larger than {bytes_max} bytes"),
        )),
        false => Ok(bytes),
    }
}

fn digests_in(directory: &Path) -> Vec<Digest> {
    let Ok(entries) = fs::read_dir(directory) else {
        return Vec::new();
    };
    entries
        .flatten()
        .filter_map(|entry| Digest::from_hex(entry.file_name().to_str()?))
        .collect()
}
