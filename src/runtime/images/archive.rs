//! Images from files: OCI layouts, OCI archives, docker archives, packed or not.
//!
//! The contents decide what a file is. An archive is read twice, once for its small documents and
//! once for its layers in the order they lie there, so that nothing is ever spooled to disk.
//! Sources: OCI image-spec image-layout.md; docker `save` format (moby image/spec/v1.2.md).

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::Path;

use serde::Deserialize;
use tar::{Archive, EntryType};

use super::content::{Content, Depth, Expected};
use super::decompress::{self, Compression};
use super::digest::Digest;
use super::manifest::{
    CONFIG_BYTES_MAX, Configuration, Descriptor, Document, NESTING_MAX, read_configuration,
    read_document,
};
use super::platform::Host;
use super::reference::Reference;
use super::unpack::local;
use crate::os::regular_file;
use crate::world::{ImageConfig, PullError};

/// Entries of one archive, and bytes of all its documents together.
const ENTRIES_MAX: usize = 10_000;
const DOCUMENTS_BYTES_MAX: u64 = 32 << 20;
/// Images of one archive.
const IMAGES_MAX: usize = 100;

const NAME_ANNOTATIONS: [&str; 2] = [
    "io.containerd.image.name",
    "org.opencontainers.image.ref.name",
];

/// An image whose layers and configuration are stored; it has no name yet.
#[derive(Clone, Debug)]
pub struct Stored {
    pub id: Digest,
    /// Diff ids, bottom first.
    pub layers: Vec<Digest>,
    pub config: ImageConfig,
    pub size_bytes: u64,
    /// Complete references, by tag and by digest.
    pub names: Vec<String>,
}

/// Imports every image of `path` that runs on `host`. `name`: replaces the names in the file, which
/// must then hold one image. Blocks. Errors: `Local` or `Refused`, naming the file.
pub fn import(
    content: &Content,
    path: &Path,
    name: Option<&Reference>,
    host: &Host,
) -> Result<Vec<Stored>, PullError> {
    import_unnamed(content, path, name, host).map_err(|error| {
        let in_file = |text: String| format!("import {}: {text}", path.display());
        match error {
            PullError::InvalidName(text) => PullError::InvalidName(in_file(text)),
            PullError::Unreachable(text) => PullError::Unreachable(in_file(text)),
            PullError::Refused(text) => PullError::Refused(in_file(text)),
            PullError::Local(text) => PullError::Local(in_file(text)),
            PullError::Disk(text) => PullError::Disk(in_file(text)),
        }
    })
}

fn import_unnamed(
    content: &Content,
    path: &Path,
    name: Option<&Reference>,
    host: &Host,
) -> Result<Vec<Stored>, PullError> {
    let source = Source::open(path)?;
    let stem = stem(path);
    let mut planned = plan(&source, host, &stem)?;
    if let Some(name) = name {
        if planned.len() != 1 {
            let text = format!(
                "it holds {} images, one name cannot be all of theirs",
                planned.len()
            );
            return Err(PullError::Local(text));
        }
        planned[0].names = vec![name.to_string()];
    }
    let mut wanted = BTreeMap::new();
    for image in &planned {
        for (place, expected) in &image.layers {
            if content
                .check_layer(&expected.diff_id, Depth::Listing)
                .is_err()
            {
                wanted.insert(source.follow(place), *expected);
            }
        }
    }
    content.look_for_room(&wanted.values().copied().collect::<Vec<_>>())?;
    source.unpack(content, wanted)?;
    planned
        .into_iter()
        .map(|image| keep(content, image))
        .collect()
}

/// Stores the configuration of an image whose layers are all here.
pub(super) fn keep(content: &Content, image: Planned) -> Result<Stored, PullError> {
    let mut size_bytes = 0;
    for (_, expected) in &image.layers {
        let record = content
            .check_layer(&expected.diff_id, Depth::Record)
            .map_err(PullError::Local)?;
        size_bytes += record.tree.bytes;
    }
    Ok(Stored {
        id: content.add_configuration(&image.config_bytes)?,
        layers: image.configuration.diff_ids,
        config: image.configuration.config,
        size_bytes,
        names: image.names,
    })
}

/// What an image consists of, before its layers are unpacked.
pub(super) struct Planned {
    pub names: Vec<String>,
    pub config_bytes: Vec<u8>,
    pub configuration: Configuration,
    /// Where each layer lies in the source, and what it must be; bottom first.
    pub layers: Vec<(String, Expected)>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct DockerImage {
    config: String,
    repo_tags: Option<Vec<String>>,
    layers: Vec<String>,
}

fn plan(source: &Source, host: &Host, stem: &str) -> Result<Vec<Planned>, PullError> {
    let planned = if let Ok(bytes) = source.document("manifest.json") {
        plan_docker(source, &bytes, host, stem)?
    } else if let Ok(bytes) = source.document("index.json") {
        plan_layout(source, &bytes, host, stem)?
    } else {
        return Err(PullError::Local(
            "neither a docker archive nor an OCI layout: no manifest.json, no index.json".into(),
        ));
    };
    match planned.len() {
        0 => Err(PullError::Refused(format!("it holds no image for {host}"))),
        count if count > IMAGES_MAX => Err(PullError::Local(format!(
            "it holds {count} images, more than {IMAGES_MAX}"
        ))),
        _ => Ok(planned),
    }
}

fn plan_docker(
    source: &Source,
    bytes: &[u8],
    host: &Host,
    stem: &str,
) -> Result<Vec<Planned>, PullError> {
    let images: Vec<DockerImage> = serde_json::from_slice(bytes)
        .map_err(|error| PullError::Local(format!("read manifest.json: {error}")))?;
    let mut planned = Vec::new();
    for image in images {
        let config_bytes = source.document(&image.config)?;
        let configuration = configuration(&config_bytes, image.layers.len())?;
        if !configuration.platform.is_linux() {
            continue;
        }
        let tags = image.repo_tags.unwrap_or_default();
        let names = match tags.is_empty() {
            true => vec![Reference::parse(stem)?.to_string()],
            false => complete(&tags)?,
        };
        let expected = configuration.diff_ids.iter().map(|diff_id| Expected {
            diff_id: *diff_id,
            blob: None,
        });
        planned.push(Planned {
            names,
            layers: image.layers.into_iter().map(normal).zip(expected).collect(),
            config_bytes,
            configuration,
        });
    }
    // A configuration may be wrong: one that says it does not run here goes only before another.
    let fits = |image: &Planned| host.rank(&image.configuration.platform).is_some();
    let fitting = planned.iter().filter(|image| fits(image));
    let known: Vec<String> = fitting.flat_map(|image| image.names.clone()).collect();
    planned.retain(|image| fits(image) || !image.names.iter().any(|name| known.contains(name)));
    for image in &planned {
        warn_of_foreign(host, &image.names[0], image);
    }
    Ok(planned)
}

fn warn_of_foreign(host: &Host, name: &str, image: &Planned) {
    let platform = &image.configuration.platform;
    if host.rank(platform).is_none() {
        log::warn!(
            "{name} says that it is for {platform}, this node is {host}; taken nevertheless"
        );
    }
}

fn plan_layout(
    source: &Source,
    bytes: &[u8],
    host: &Host,
    stem: &str,
) -> Result<Vec<Planned>, PullError> {
    let Document::Index(entries) = read_document(bytes, None).map_err(PullError::Refused)? else {
        return Err(PullError::Refused("index.json is not an index".into()));
    };
    // Entries of one name are one image for several platforms.
    let mut by_name: BTreeMap<String, Vec<Descriptor>> = BTreeMap::new();
    for entry in entries {
        let name = layout_name(&entry, stem)?.to_string();
        by_name.entry(name).or_default().push(entry);
    }
    let mut planned = Vec::new();
    for (name, entries) in by_name {
        let repository = Reference::parse(&name)?;
        let mut candidates = Vec::new();
        for entry in &entries {
            candidates.extend(plan_descriptor(source, entry, host, 0)?.map(|image| (entry, image)));
        }
        // What the index says of an entry was looked at, and what a configuration says may be wrong.
        let best = candidates.into_iter().min_by_key(|(_, image)| {
            let rank = host.rank(&image.configuration.platform);
            rank.unwrap_or(usize::MAX)
        });
        if let Some((entry, mut image)) = best {
            warn_of_foreign(host, &name, &image);
            image.names = vec![name, repository.at(entry.digest).to_string()];
            planned.push(image);
        }
    }
    Ok(planned)
}

/// Follows one entry down to a manifest for this host, or to none.
fn plan_descriptor(
    source: &Source,
    entry: &Descriptor,
    host: &Host,
    depth: u32,
) -> Result<Option<Planned>, PullError> {
    if depth > NESTING_MAX {
        return Err(PullError::Refused("indexes are nested too deeply".into()));
    }
    if entry
        .platform
        .as_ref()
        .is_some_and(|platform| host.rank(platform).is_none())
    {
        return Ok(None);
    }
    let bytes = source.blob(&entry.digest)?;
    let media_type = Some(entry.media_type.as_str()).filter(|text| !text.is_empty());
    match read_document(&bytes, media_type).map_err(PullError::Refused)? {
        Document::Index(entries) => match host.choose(&entries, |entry| entry.platform.as_ref()) {
            Some(entry) => plan_descriptor(source, entry, host, depth + 1),
            None => Ok(None),
        },
        Document::Manifest { config, layers } => {
            let config_bytes = source.blob(&config.digest)?;
            let configuration = configuration(&config_bytes, layers.len())?;
            if !configuration.platform.is_linux() {
                return Ok(None);
            }
            let expected = expected_layers(&configuration, &layers);
            let places = layers.iter().map(|layer| blob_path(&layer.digest));
            let layers = places.zip(expected).collect();
            Ok(Some(Planned {
                names: Vec::new(),
                layers,
                config_bytes,
                configuration,
            }))
        }
    }
}

/// Reads a configuration that must describe `layers` layers.
pub(super) fn configuration(bytes: &[u8], layers: usize) -> Result<Configuration, PullError> {
    let configuration = read_configuration(bytes).map_err(PullError::Refused)?;
    match configuration.diff_ids.len() == layers {
        true => Ok(configuration),
        false => Err(PullError::Refused(format!(
            "the configuration names {} layers, the manifest {layers}",
            configuration.diff_ids.len()
        ))),
    }
}

/// What each of a manifest's layers must turn out to be.
pub(super) fn expected_layers(
    configuration: &Configuration,
    layers: &[Descriptor],
) -> Vec<Expected> {
    let pairs = layers.iter().zip(&configuration.diff_ids);
    pairs
        .map(|(layer, diff_id)| Expected {
            diff_id: *diff_id,
            blob: Some((layer.digest, layer.size)),
        })
        .collect()
}

/// A full name is taken as it is; a bare word is a tag of what the file is called.
fn layout_name(entry: &Descriptor, stem: &str) -> Result<Reference, PullError> {
    let annotation = |key: &&str| entry.annotations.as_ref()?.get(*key);
    match NAME_ANNOTATIONS.iter().find_map(annotation) {
        Some(name) if name.contains(['/', ':', '@']) => Reference::parse(name),
        Some(tag) => Reference::parse(&format!("{stem}:{tag}")),
        None => Reference::parse(stem),
    }
}

fn complete(tags: &[String]) -> Result<Vec<String>, PullError> {
    tags.iter()
        .map(|tag| Ok(Reference::parse(tag)?.to_string()))
        .collect()
}

/// The file's name without its archive extensions.
fn stem(path: &Path) -> String {
    let mut name = path
        .file_name()
        .unwrap_or_default()
        .to_string_lossy()
        .into_owned();
    for extension in [".zst", ".gz", ".tgz", ".tar", ".oci"] {
        if let Some(rest) = name.strip_suffix(extension) {
            name = rest.to_owned();
        }
    }
    name.to_lowercase()
}

fn blob_path(digest: &Digest) -> String {
    format!("blobs/sha256/{}", digest.hex())
}

/// `./a//b` and `a/b` are one name.
fn normal(name: String) -> String {
    let parts = name.split('/').filter(|part| !matches!(*part, "" | "."));
    parts.collect::<Vec<_>>().join("/")
}

enum Source<'a> {
    Layout(&'a Path),
    Archive {
        path: &'a Path,
        documents: BTreeMap<String, Vec<u8>>,
        /// Old docker archives name one layer several times by symlinks.
        links: BTreeMap<String, String>,
    },
}

impl<'a> Source<'a> {
    fn open(path: &'a Path) -> Result<Source<'a>, PullError> {
        if path.is_dir() {
            return Ok(Source::Layout(path));
        }
        let mut documents = BTreeMap::new();
        let mut links = BTreeMap::new();
        let mut bytes_left = DOCUMENTS_BYTES_MAX;
        visit(path, &mut |name, kind, link, stream| {
            match kind {
                EntryType::Regular | EntryType::Continuous => {
                    if let Some(bytes) = read_document_of(stream, &mut bytes_left)? {
                        documents.insert(name, bytes);
                    }
                }
                EntryType::Symlink => {
                    let parent = name.rsplit_once('/').map_or("", |(parent, _)| parent);
                    links.insert(name.clone(), resolve_link(parent, &link));
                }
                EntryType::Link => {
                    links.insert(name, normal(link));
                }
                _ => {}
            }
            Ok(())
        })?;
        Ok(Source::Archive {
            path,
            documents,
            links,
        })
    }

    fn document(&self, name: &str) -> Result<Vec<u8>, PullError> {
        let missing = || PullError::Local(format!("{name} is missing"));
        match self {
            Source::Layout(path) if name == "index.json" => {
                super::content::read_bounded(&path.join(name), CONFIG_BYTES_MAX)
                    .map_err(|error| local(&format!("read {name}"), &error))
            }
            Source::Layout(_) => Err(missing()),
            Source::Archive { documents, .. } => documents
                .get(&self.follow(&normal(name.to_owned())))
                .cloned()
                .ok_or_else(missing),
        }
    }

    /// A small blob, its digest checked.
    fn blob(&self, digest: &Digest) -> Result<Vec<u8>, PullError> {
        let name = blob_path(digest);
        let bytes = match self {
            Source::Layout(path) => {
                super::content::read_bounded(&path.join(&name), CONFIG_BYTES_MAX)
                    .map_err(|error| local(&format!("read {name}"), &error))?
            }
            Source::Archive { .. } => self.document(&name)?,
        };
        match Digest::of(&bytes) == *digest {
            true => Ok(bytes),
            false => Err(PullError::Refused(format!(
                "{name} is damaged: wrong digest"
            ))),
        }
    }

    fn follow(&self, name: &str) -> String {
        match self {
            Source::Layout(_) => name.to_owned(),
            Source::Archive { links, .. } => {
                links.get(name).map_or(name, String::as_str).to_owned()
            }
        }
    }

    fn unpack(
        &self,
        content: &Content,
        mut wanted: BTreeMap<String, Expected>,
    ) -> Result<(), PullError> {
        match self {
            Source::Layout(root) => {
                for (name, expected) in wanted {
                    let file = File::open(root.join(&name))
                        .map_err(|error| local(&format!("open {name}"), &error))?;
                    content.add_layer(file, &expected)?;
                }
                Ok(())
            }
            Source::Archive { .. } if wanted.is_empty() => Ok(()),
            Source::Archive { path, .. } => {
                visit(path, &mut |name, _, _, stream| match wanted.remove(&name) {
                    Some(expected) => content.add_layer(stream, &expected).map(drop),
                    None => Ok(()),
                })?;
                match wanted.first_key_value() {
                    None => Ok(()),
                    Some((name, _)) => Err(PullError::Local(format!("layer {name} is missing"))),
                }
            }
        }
    }
}

/// What an archive's visitor is given: name, kind, link target, content.
type Visit<'v> =
    &'v mut dyn FnMut(String, EntryType, String, &mut dyn Read) -> Result<(), PullError>;

/// Walks an archive. A plain tar is seeked through: layers that are not read cost nothing.
fn visit(path: &Path, visit: Visit<'_>) -> Result<(), PullError> {
    let read = |error: io::Error| local("read the archive", &error);
    let (mut file, _) = regular_file::open(path).map_err(|error| match error.kind() {
        io::ErrorKind::InvalidInput => PullError::Local("not a regular file".into()),
        _ => local("open the archive", &error),
    })?;
    let mut start = Vec::new();
    file.by_ref()
        .take(4)
        .read_to_end(&mut start)
        .map_err(read)?;
    io::Seek::rewind(&mut file).map_err(read)?;
    match Compression::of(&start) {
        Compression::None => {
            let mut archive = Archive::new(file);
            let entries = archive.entries_with_seek().map_err(read)?;
            visit_entries(entries, visit)
        }
        Compression::Gzip | Compression::Zstd => {
            let mut archive = Archive::new(decompress::plain(file).map_err(read)?);
            let entries = archive.entries().map_err(read)?;
            visit_entries(entries, visit)
        }
    }
}

fn visit_entries<'e, R: Read + 'e>(
    entries: tar::Entries<'e, R>,
    visit: Visit<'_>,
) -> Result<(), PullError> {
    let read = |error: io::Error| local("read the archive", &error);
    for (count, entry) in entries.enumerate() {
        if count >= ENTRIES_MAX {
            let text = format!("the archive has more than {ENTRIES_MAX} entries");
            return Err(PullError::Local(text));
        }
        let mut entry = entry.map_err(read)?;
        let name = normal(String::from_utf8_lossy(&entry.path_bytes()).into_owned());
        let link = entry.link_name_bytes().unwrap_or_default();
        let link = String::from_utf8_lossy(&link).into_owned();
        visit(name, entry.header().entry_type(), link, &mut entry)?;
    }
    Ok(())
}

/// The entry's bytes if it looks like JSON and is small; a layer is told by its first byte.
fn read_document_of(
    stream: &mut dyn Read,
    bytes_left: &mut u64,
) -> Result<Option<Vec<u8>>, PullError> {
    let read = |error: io::Error| local("read the archive", &error);
    let mut bytes = Vec::new();
    stream.take(1).read_to_end(&mut bytes).map_err(read)?;
    if !matches!(bytes.first(), Some(b'{' | b'[')) {
        return Ok(None);
    }
    let limit = CONFIG_BYTES_MAX.min(*bytes_left);
    stream.take(limit).read_to_end(&mut bytes).map_err(read)?;
    if bytes.len() as u64 > limit {
        return Ok(None);
    }
    *bytes_left -= bytes.len() as u64;
    Ok(Some(bytes))
}

/// `../<id>/layer.tar` seen from `parent`; going above the archive is a name that is not there.
fn resolve_link(parent: &str, link: &str) -> String {
    let mut parts: Vec<&str> = parent.split('/').filter(|part| !part.is_empty()).collect();
    for part in link.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()),
            _ => parts.push(part),
        }
    }
    parts.join("/")
}

/// Whether `path` could be an image at all: layouts and regular files that are not hidden.
pub fn is_candidate(path: &Path) -> bool {
    let hidden = path
        .file_name()
        .is_none_or(|name| name.to_string_lossy().starts_with('.'));
    match fs::metadata(path) {
        Ok(metadata) if metadata.is_dir() => !hidden && path.join("index.json").is_file(),
        Ok(metadata) => !hidden && metadata.is_file(),
        Err(_) => false,
    }
}
