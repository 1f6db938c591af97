//! The one table of the image store: names to images, images to layers, archives already imported.
//!
//! Small enough to be rewritten whole (tmp, fsync, rename, fsync of the directory). The file before
//! it is kept as `catalog.json.previous`: a card that returns nonsense for one of them costs the
//! last change, not all images.

use crate::object::gather::Gather;
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::content::{read_bounded, write_durable};
use super::digest::Digest;
use super::reference::{Reference, Version};

const VERSION: u32 = 1;
/// Largest table: ten thousand images.
const BYTES_MAX: u64 = 16 << 20;

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Catalog {
    version: u32,
    /// Complete references (`docker.io/library/busybox:1`, `…@sha256:…`) to image ids.
    pub names: BTreeMap<String, Digest>,
    pub images: BTreeMap<Digest, Entry>,
    /// Archives of the image directory by file name, with what was imported from them.
    pub archives: BTreeMap<String, Archive>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// Diff ids, bottom first.
    pub layers: Vec<Digest>,
    pub pinned: bool,
}

/// One archive or layout as it was when it was imported.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Archive {
    pub stamp: FileStamp,
    pub images: Vec<Digest>,
}

/// Tells whether a file is still the one that was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileStamp {
    pub bytes: u64,
    pub modified_ns: i128,
    pub inode: u64,
}

/// What was read at start, and a problem to tell the user.
pub struct Loaded {
    pub catalog: Catalog,
    pub problem: Option<String>,
}

impl Catalog {
    /// Reads the table; a damaged one falls back to the one before it, then to an empty one.
    pub fn load(root: &Path) -> Loaded {
        let mut problems = Vec::new();
        for path in [current(root), previous(root)] {
            match read(&path) {
                Ok(Some(catalog)) => {
                    let problem = (!problems.is_empty()).then(|| problems.join("; "));
                    return Loaded { catalog, problem };
                }
                Ok(None) => {}
                Err(text) => problems.push(text),
            }
        }
        Loaded {
            catalog: Catalog {
                version: VERSION,
                ..Catalog::default()
            },
            problem: (!problems.is_empty()).then(|| problems.join("; ")),
        }
    }

    /// Replaces the table on disk, flushed.
    pub fn store(&self, root: &Path) -> io::Result<()> {
        let bytes = serde_json::to_vec_pretty(self)?;
        let (current, previous) = (current(root), previous(root));
        // Only a good table is worth keeping.
        if matches!(read(&current), Ok(Some(_))) {
            let _ = std::fs::remove_file(&previous);
            std::fs::hard_link(&current, &previous).or_else(|error| match error.kind() {
                // FAT and some network file systems have no hard links.
                io::ErrorKind::PermissionDenied | io::ErrorKind::Unsupported => Ok(()),
                _ => Err(error),
            })?;
        }
        write_durable(&current, &bytes)
    }

    /// The id that `reference`, as written in a pod, stands for.
    pub fn resolve(&self, reference: &str) -> Option<Digest> {
        let id = Digest::parse(reference).or_else(|| Digest::from_hex(reference));
        if let Some(id) = id {
            return self.images.contains_key(&id).then_some(id);
        }
        let reference = Reference::parse(reference).ok()?;
        let named = self.names.get(&reference.to_string()).copied();
        // An image id after the @ is what status shows for images without a registry digest.
        named.or(match reference.version {
            Version::Digest(id) if self.images.contains_key(&id) => Some(id),
            _ => None,
        })
    }

    /// Names of one image: tags, then digests.
    pub fn names_of(&self, id: &Digest) -> (Vec<String>, Vec<String>) {
        self.names
            .iter()
            .filter(|(_, named)| *named == id)
            .map(|(name, _)| name.clone())
            .partition(|name| !name.contains('@'))
    }

    /// Drops images that have no name, are not pinned and not in `in_use`. True if any was.
    pub fn drop_unnamed(&mut self, in_use: &BTreeSet<Digest>) -> bool {
        let named: BTreeSet<_> = self.names.values().copied().gathered();
        let before = self.images.len();
        self.images
            .retain(|id, entry| named.contains(id) || entry.pinned || in_use.contains(id));
        self.images.len() != before
    }
}

fn read(path: &Path) -> Result<Option<Catalog>, String> {
    let bytes = match read_bounded(path, BYTES_MAX) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(format!("read {}: {error}", path.display())),
    };
    let catalog: Catalog = serde_json::from_slice(&bytes)
        .map_err(|error| format!("read {}: {error}", path.display()))?;
    match catalog.version {
        VERSION => Ok(Some(catalog)),
        other => Err(format!(
            "read {}: version {other} is not known",
            path.display()
        )),
    }
}

fn current(root: &Path) -> PathBuf {
    root.join("catalog.json")
}

fn previous(root: &Path) -> PathBuf {
    root.join("catalog.json.previous")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Catalog {
        let id = Digest::of(b"image");
        let entry = Entry {
            layers: vec![Digest::of(b"layer")],
            pinned: false,
        };
        let digest = Digest::of(b"manifest");
        Catalog {
            version: VERSION,
            names: BTreeMap::from([
                ("docker.io/library/busybox:latest".to_owned(), id),
                (format!("docker.io/library/busybox@{digest}"), id),
            ]),
            images: BTreeMap::from([(id, entry)]),
            archives: BTreeMap::new(),
        }
    }

    #[test]
    fn every_way_to_name_an_image_finds_it() {
        let (id, digest) = (Digest::of(b"image"), Digest::of(b"manifest"));
        let table = [
            "busybox".to_owned(),
            "busybox:latest".to_owned(),
            "docker.io/library/busybox".to_owned(),
            format!("busybox@{digest}"),
            format!("busybox:other@{digest}"),
            id.to_string(),
            id.hex(),
            format!("docker.io/library/busybox@{id}"),
        ];
        for reference in &table {
            assert_eq!(sample().resolve(reference), Some(id), "{reference}");
        }
        for reference in [
            "busybox:1",
            "other",
            "quay.io/busybox",
            &digest.to_string(),
            "A",
        ] {
            assert_eq!(sample().resolve(reference), None, "{reference}");
        }
    }

    #[test]
    fn a_damaged_table_falls_back_to_the_one_before() {
        let directory = tempfile::tempdir().unwrap();
        let root = directory.path();
        let first = sample();
        first.store(root).unwrap();
        let mut second = first.clone();
        second.names.clear();
        second.store(root).unwrap();
        assert_eq!(Catalog::load(root).catalog, second);
        std::fs::write(current(root), b"").unwrap();
        let loaded = Catalog::load(root);
        assert_eq!(loaded.catalog, first);
        assert!(loaded.problem.unwrap().contains("catalog.json"));
        std::fs::write(previous(root), b"{").unwrap();
        assert!(Catalog::load(root).catalog.images.is_empty());
        // A good table is never replaced by a bad "previous" one.
        second.store(root).unwrap();
        assert_eq!(Catalog::load(root).catalog, second);
    }
}
