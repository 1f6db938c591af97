//! The image store as the rest of the node sees it.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;

use event_listener::Event;

use super::archive::{self, Stored};
use super::catalog::{Catalog, Entry};
use super::content::{Content, Depth, Expected};
use super::digest::Digest;
use super::platform::Host;
use super::pull::Joint;
use super::reference::Reference;
use super::registries::Registries;
use super::unpack::{Limits, local};
use crate::net::proxy::Proxies;
use crate::object::gather::Gather;
use crate::os::background;
use crate::os::fs_at::capacity_and_free_bytes;
use crate::world::{
    Clock, DiskUse, Image, ImageConfig, Images, LocalFuture, PullError, PullRequest,
};

/// Where the store lives and how it works.
#[derive(Clone)]
pub struct Options {
    /// `ROOT/images`.
    pub root: PathBuf,
    /// A file under RUN: says that all layers were checked in this boot.
    pub checked_mark: PathBuf,
    /// Identifies this boot (`/proc/sys/kernel/random/boot_id`).
    pub boot_id: String,
    /// `--image-dir`.
    pub image_dir: Option<PathBuf>,
    pub limits: Limits,
    /// `--registry-config`.
    pub registries: Registries,
    /// Where the node's own `config.json` or `.dockercfg` may lie, in order.
    pub docker_config_dirs: Vec<PathBuf>,
    /// Between this node and its registries.
    pub proxies: Rc<Proxies>,
    pub clock: Rc<dyn Clock>,
}

/// Images on disk. Lives on the node's thread; share it as `Rc<ImageStore>`.
pub struct ImageStore {
    pub(super) options: Options,
    pub(super) content: Arc<Content>,
    pub(super) host: Host,
    pub(super) state: RefCell<State>,
    pub(super) event: Event,
    /// One change of the table at a time: it is written outside this thread.
    writing: smol::lock::Mutex<()>,
    /// Held shared while images are added, alone while unused ones are removed. Nobody holds it over
    /// the network.
    pub(super) adding: smol::lock::RwLock<()>,
    /// Pulls under way, by reference and credentials.
    pub(super) pulls: RefCell<BTreeMap<PullKey, Rc<Joint>>>,
    /// Layers on their way, so that two images fetch a shared one once. What somebody holds here
    /// is not collected.
    layers_coming: RefCell<BTreeMap<Digest, Coming>>,
}

/// Held by each pull that needs a layer, and locked by the one that fetches it.
pub(super) type Coming = Rc<smol::lock::Mutex<()>>;

/// Reference and docker config documents.
type PullKey = (String, Vec<Vec<u8>>);

#[derive(Default)]
pub(super) struct State {
    pub catalog: Catalog,
    /// Images that are wholly here.
    /// Boxed: a map makes room for eleven at once.
    pub present: BTreeMap<Digest, Box<Present>>,
    pub generation: u64,
    pub scanned: bool,
}

#[derive(Clone)]
pub(super) struct Present {
    config: ImageConfig,
    size_bytes: u64,
}

/// Whose image it is: an archive's stays as long as the archive does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Pin {
    Pinned,
    Unpinned,
}

impl ImageStore {
    /// Opens the store, removes half-done work and checks the layers: thoroughly (names and sizes)
    /// the first time in a boot, else by their records. Broken images are logged and not here.
    pub async fn open(options: Options) -> Result<ImageStore, PullError> {
        let root = options.root.clone();
        let mark = (options.checked_mark.clone(), options.boot_id.clone());
        let limits = options.limits;
        let opened = background(move || open(&root, limits, &mark.0, &mark.1)).await?;
        let (content, catalog, present) = opened?;
        Ok(ImageStore {
            host: Host::current(),
            content: Arc::new(content),
            state: RefCell::new(State {
                catalog,
                present,
                generation: 1,
                scanned: options.image_dir.is_none(),
            }),
            event: Event::new(),
            writing: smol::lock::Mutex::new(()),
            adding: smol::lock::RwLock::new(()),
            pulls: RefCell::default(),
            layers_coming: RefCell::default(),
            options,
        })
    }

    /// Directories for overlayfs's `lowerdir`, topmost first; empty if the image has no layers.
    /// Errors: the image (by id) is not here.
    pub fn layers(&self, image_id: &str) -> Result<Vec<PathBuf>, PullError> {
        let state = self.state.borrow();
        let id = Digest::parse(image_id).filter(|id| state.present.contains_key(id));
        let entry = id.and_then(|id| state.catalog.images.get(&id));
        let entry =
            entry.ok_or_else(|| PullError::Local(format!("image {image_id} is not here")))?;
        let paths = entry.layers.iter().rev();
        Ok(paths
            .map(|diff_id| self.content.layer_path(diff_id))
            .collect())
    }

    /// Imports an archive or OCI layout by hand. `name` replaces the names in the file.
    /// Resolves with the images, in the file's order.
    pub async fn import(
        &self,
        path: PathBuf,
        name: Option<&str>,
    ) -> Result<Vec<Arc<Image>>, PullError> {
        let name = name.map(Reference::parse).transpose()?;
        let stored = {
            let _adding = self.adding.read().await;
            let stored = self.import_content(path, name).await?;
            self.admit(&stored, Pin::Unpinned, |_| {}).await?;
            stored
        };
        Ok(self.shown(&stored))
    }

    /// Forgets a name (or, by `sha256:…`, an image with all its names) and removes what nothing
    /// else needs. `in_use`: ids of images that containers use, whose layers stay.
    /// Errors: `Local` if there is no such image.
    pub async fn remove(&self, reference: &str, in_use: &[String]) -> Result<(), PullError> {
        let by_id = Digest::parse(reference).or_else(|| Digest::from_hex(reference));
        let name = match by_id {
            Some(_) => None,
            None => Some(Reference::parse(reference)?.to_string()),
        };
        let known = self.state.borrow().catalog.resolve(reference);
        let id = known.ok_or_else(|| PullError::Local(format!("image {reference} is not here")))?;
        self.change(|catalog| match &name {
            Some(name) => {
                catalog.names.remove(name);
                // The last tag takes the digests along: nobody typed those.
                if catalog.names_of(&id).0.is_empty() {
                    catalog.names.retain(|_, named| *named != id);
                }
            }
            None => catalog.names.retain(|_, named| *named != id),
        })
        .await?;
        self.collect(in_use).await.map(drop)
    }

    /// Removes images without a name (unless pinned or in use), and layers and configurations that
    /// no image needs. Gives the number of layers removed.
    pub async fn collect(&self, in_use: &[String]) -> Result<usize, PullError> {
        let _alone = self.adding.write().await;
        let in_use: BTreeSet<Digest> = in_use.iter().filter_map(|id| Digest::parse(id)).gathered();
        self.change(|catalog| {
            catalog.drop_unnamed(&in_use);
        })
        .await?;
        let (layers, configurations) = {
            let state = self.state.borrow();
            let images = &state.catalog.images;
            let coming = self.layers_coming.borrow();
            let coming = coming.iter().filter(|(_, lock)| Rc::strong_count(lock) > 1);
            let layers = images.values().flat_map(|entry| &entry.layers);
            let layers = layers.chain(coming.map(|(diff_id, _)| diff_id)).copied();
            (layers.collect(), images.keys().copied().collect())
        };
        let content = self.content.clone();
        background(move || content.retain(&layers, &configurations)).await
    }

    /// From now on these layers stay if they are here, for as long as somebody holds what this gives.
    pub(super) async fn expect(&self, layers: &[Expected]) -> Vec<Coming> {
        // What is being removed just now is gone before it is looked for.
        let _adding = self.adding.read().await;
        let mut coming = self.layers_coming.borrow_mut();
        coming.retain(|_, lock| Rc::strong_count(lock) > 1);
        let mut held = Vec::new();
        for layer in layers {
            held.push(coming.entry(layer.diff_id).or_default().clone());
        }
        held
    }

    /// Looks at every layer of every image; what is broken is no longer here. Gives one line for
    /// each broken image.
    pub async fn verify(&self, depth: Depth) -> Result<Vec<String>, PullError> {
        let content = self.content.clone();
        let catalog = self.state.borrow().catalog.clone();
        let (present, problems) = background(move || examine(&content, &catalog, depth)).await?;
        let mut state = self.state.borrow_mut();
        // Images that arrived meanwhile were checked when they did.
        state
            .present
            .retain(|id, _| present.contains_key(id) || !problems.contains_key(id));
        Ok(problems.into_values().collect())
    }

    pub(super) async fn import_content(
        &self,
        path: PathBuf,
        name: Option<Reference>,
    ) -> Result<Vec<Stored>, PullError> {
        let (content, host) = (self.content.clone(), self.host.clone());
        background(move || archive::import(&content, &path, name.as_ref(), &host)).await?
    }

    /// Makes stored images findable: names move to them. `also` changes the table in the same
    /// write.
    pub(super) async fn admit(
        &self,
        stored: &[Stored],
        pin: Pin,
        also: impl FnOnce(&mut Catalog),
    ) -> Result<(), PullError> {
        self.change(|catalog| {
            for image in stored {
                let known = catalog.images.get(&image.id);
                let pinned = pin == Pin::Pinned || known.is_some_and(|entry| entry.pinned);
                let layers = image.layers.clone();
                catalog.images.insert(image.id, Entry { layers, pinned });
                for name in &image.names {
                    catalog.names.insert(name.clone(), image.id);
                }
            }
            also(catalog);
        })
        .await?;
        let mut state = self.state.borrow_mut();
        for image in stored {
            let present = Box::new(Present {
                config: image.config.clone(),
                size_bytes: image.size_bytes,
            });
            state.present.insert(image.id, present);
        }
        state.generation += 1;
        drop(state);
        self.event.notify(usize::MAX);
        Ok(())
    }

    /// Changes the table: on disk first, then here. No change writes nothing.
    pub(super) async fn change(&self, change: impl FnOnce(&mut Catalog)) -> Result<(), PullError> {
        let _writing = self.writing.lock().await;
        let mut catalog = self.state.borrow().catalog.clone();
        change(&mut catalog);
        if catalog == self.state.borrow().catalog {
            return Ok(());
        }
        let content = self.content.clone();
        let catalog = background(move || {
            let stored = catalog.store(content.root());
            stored.map(|()| catalog)
        })
        .await?
        .map_err(|error| local("write the image catalogue", &error))?;
        let mut state = self.state.borrow_mut();
        let kept: BTreeSet<_> = catalog.images.keys().copied().gathered();
        state.present.retain(|id, _| kept.contains(id));
        state.catalog = catalog;
        Ok(())
    }

    pub(super) fn shown(&self, stored: &[Stored]) -> Vec<Arc<Image>> {
        let state = self.state.borrow();
        let images = stored.iter().filter_map(|image| state.image(&image.id));
        images.collect()
    }
}

impl State {
    pub(super) fn image(&self, id: &Digest) -> Option<Arc<Image>> {
        let present = self.present.get(id)?;
        let entry = self.catalog.images.get(id)?;
        let (tags, digests) = self.catalog.names_of(id);
        Some(Arc::new(Image {
            id: id.to_string(),
            tags,
            digests,
            size_bytes: present.size_bytes,
            pinned: entry.pinned,
            config: present.config.clone(),
        }))
    }
}

impl Images for ImageStore {
    fn find(&self, reference: &str) -> Option<Arc<Image>> {
        let state = self.state.borrow();
        state.image(&state.catalog.resolve(reference)?)
    }

    fn list(&self) -> Vec<Arc<Image>> {
        let state = self.state.borrow();
        let ids = state.present.keys();
        ids.filter_map(|id| state.image(id)).collect()
    }

    fn first_scan(&self) -> LocalFuture<'_, ()> {
        Box::pin(async {
            loop {
                let listener = self.event.listen();
                if self.state.borrow().scanned {
                    return;
                }
                listener.await;
            }
        })
    }

    fn generation(&self) -> u64 {
        self.state.borrow().generation
    }

    fn changed(&self, seen: u64) -> LocalFuture<'_, u64> {
        Box::pin(async move {
            loop {
                let listener = self.event.listen();
                let generation = self.generation();
                if generation != seen {
                    return generation;
                }
                listener.await;
            }
        })
    }

    fn disk_use(&self) -> LocalFuture<'_, Result<DiskUse, String>> {
        Box::pin(async {
            let root = self.content.root().to_owned();
            let read = background(move || capacity_and_free_bytes(&root)).await;
            let read = read.map_err(|error| error.to_string())?;
            let (capacity_bytes, free_bytes) =
                read.map_err(|error| format!("look at the image file system: {error}"))?;
            Ok(DiskUse {
                capacity_bytes,
                free_bytes,
            })
        })
    }

    fn discard<'a>(
        &'a self,
        id: &'a str,
        in_use: Vec<String>,
    ) -> LocalFuture<'a, Result<(), PullError>> {
        let digest = Digest::parse(id);
        // Before anything else can run: nobody starts from what is on its way out.
        let hidden = digest.and_then(|id| self.state.borrow_mut().present.remove(&id));
        Box::pin(async move {
            let removed = self.remove(id, &in_use).await;
            let mut state = self.state.borrow_mut();
            if let (Err(_), Some(id), Some(present)) = (&removed, digest, hidden)
                && state.catalog.images.contains_key(&id)
            {
                state.present.insert(id, present);
            }
            removed
        })
    }

    fn pull(&self, request: PullRequest) -> LocalFuture<'_, Result<Arc<Image>, PullError>> {
        Box::pin(self.pull_watched(request, None))
    }
}

/// Runs a job on a low-priority thread of its own.
pub(super) async fn background<T: Send + 'static>(
    job: impl FnOnce() -> T + Send + 'static,
) -> Result<T, PullError> {
    let done = background::run("lowtide-image", job).await;
    done.map_err(|error| local("start a worker thread", &error))
}

type Opened = (Content, Catalog, BTreeMap<Digest, Box<Present>>);

fn open(root: &Path, limits: Limits, mark: &Path, boot_id: &str) -> Result<Opened, PullError> {
    let content = Content::open(root, limits)?;
    let loaded = Catalog::load(root);
    if let Some(problem) = loaded.problem {
        log::warn!("{problem}; going on with what could be read");
    }
    let marked = std::fs::read_to_string(mark).unwrap_or_default();
    let depth = match marked == boot_id && !boot_id.is_empty() {
        true => Depth::Record,
        false => Depth::Listing,
    };
    let (present, problems) = examine(&content, &loaded.catalog, depth);
    for problem in problems.values() {
        log::warn!("{problem}; it must be pulled or imported again");
    }
    // Only an optimisation: without the mark the next start looks again.
    if marked != boot_id
        && let Err(error) = std::fs::write(mark, boot_id)
    {
        log::debug!("write {}: {error}", mark.display());
    }
    Ok((content, loaded.catalog, present))
}

type Examined = (BTreeMap<Digest, Box<Present>>, BTreeMap<Digest, String>);

/// Sorts the catalogue's images into those that are whole and those that are not, with the reason.
fn examine(content: &Content, catalog: &Catalog, depth: Depth) -> Examined {
    let mut layers: BTreeMap<Digest, Result<u64, String>> = BTreeMap::new();
    let (mut present, mut problems) = (BTreeMap::new(), BTreeMap::new());
    for (id, entry) in &catalog.images {
        let mut size_bytes = 0;
        let mut whole = content.configuration(id).map(|read| read.config);
        for diff_id in &entry.layers {
            let checked = layers.entry(*diff_id).or_insert_with(|| {
                let record = content.check_layer(diff_id, depth)?;
                Ok(record.tree.bytes)
            });
            match checked {
                Ok(bytes) => size_bytes += *bytes,
                Err(problem) => whole = Err(problem.clone()),
            }
        }
        match whole {
            Ok(config) => drop(present.insert(*id, Box::new(Present { config, size_bytes }))),
            Err(problem) => {
                let (tags, digests) = catalog.names_of(id);
                let name = tags.into_iter().chain(digests).next();
                let name = name.unwrap_or_else(|| id.to_string());
                problems.insert(*id, format!("image {name} is broken: {problem}"));
            }
        }
    }
    (present, problems)
}
