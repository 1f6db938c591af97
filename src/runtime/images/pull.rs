//! A pull from the reference to the stored image.
//!
//! ```text
//!   join a pull of the same image ─► endpoints ─► credentials ─► index ─► manifest ─► configuration
//!        ─► layers, three at a time: network ─► bounded channel ─► unpacking thread ─► commit
//!        ─► catalogue
//! ```
//! A connection that breaks is continued by `Range` from the byte that was reached: the unpacking
//! thread, with the state of inflating and tar, just waits. Finished layers outlive a failed pull until
//! images are collected; those of a pull under way are spared.

use std::cell::{Cell, RefCell};
use std::future::{Future, poll_fn};
use std::io::{self, Read};
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use bytes::{Buf, Bytes};
use futures_lite::future;

use super::archive::{self, Planned, Stored};
use super::content::{Depth, Expected};
use super::credentials;
use super::digest::Digest;
use super::distribution::{Session, pull_error};
use super::manifest::{CONFIG_BYTES_MAX, Descriptor, Document, NESTING_MAX, read_document};
use super::reference::{Reference, Version};
use super::registries::Endpoint;
use super::store::{ImageStore, Pin as Pinning, background};
use crate::net::client::{Client, Timeouts};
use crate::world::{BootTime, Credential, Image, Images as _, PullError, PullRequest};

/// Layers of one pull that are fetched and unpacked at the same time.
const PARALLEL_LAYERS_MAX: usize = 3;
/// Pieces (each at most a read buffer) between the network and the unpacking thread.
const PIECES_MAX: usize = 8;
/// Broken connections of one layer in a row, while nothing that was fetched could be lost.
const BREAKS_MAX: u32 = 4;
/// An outage during which a pull waits with what it has.
const OUTAGE_MAX: Duration = Duration::from_secs(15 * 60);
/// After a broken connection: as many times this as there were in a row.
const PAUSE: Duration = Duration::from_secs(1);
const PAUSES_MAX: u32 = 30;

/// How far one layer is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Progress {
    /// Digest of the layer as served.
    pub layer: Digest,
    pub bytes_done: u64,
    pub bytes_total: u64,
}

/// Pulls of one image that are under way: later ones wait and take the first one's result.
#[derive(Default)]
pub(super) struct Joint {
    running: smol::lock::Mutex<()>,
    result: RefCell<Option<Result<Arc<Image>, PullError>>>,
    watchers: RefCell<Vec<async_channel::Sender<Progress>>>,
    /// When the last byte of a layer came from the endpoint that is asked now.
    fed: Cell<Option<BootTime>>,
    /// Neither another endpoint nor an older image could do instead.
    alone: Cell<bool>,
}

impl Joint {
    /// Progress is only shown: a watcher that is behind misses steps.
    fn report(&self, progress: &Progress) {
        let mut watchers = self.watchers.borrow_mut();
        watchers.retain(|watcher| {
            let sent = watcher.try_send(progress.clone());
            !matches!(sent, Err(async_channel::TrySendError::Closed(_)))
        });
    }
}

impl ImageStore {
    /// Like [`crate::world::Images::pull`], telling `watcher` how far the layers are.
    pub async fn pull_watched(
        &self,
        request: PullRequest,
        watcher: Option<async_channel::Sender<Progress>>,
    ) -> Result<Arc<Image>, PullError> {
        let reference = Reference::parse(&request.reference)?;
        // Other credentials are another pull: nobody gets an image by another's.
        let key = (reference.to_string(), request.docker_configs.clone());
        let joint = self
            .pulls
            .borrow_mut()
            .entry(key.clone())
            .or_default()
            .clone();
        joint.watchers.borrow_mut().extend(watcher);
        let running = joint.running.lock().await;
        if let Some(result) = joint.result.borrow().clone() {
            return result;
        }
        let result = self
            .pull_alone(&reference, &request.docker_configs, &joint)
            .await;
        *joint.result.borrow_mut() = Some(result.clone());
        self.pulls.borrow_mut().remove(&key);
        drop(running);
        result
    }

    async fn pull_alone(
        &self,
        reference: &Reference,
        docker_configs: &[Vec<u8>],
        joint: &Joint,
    ) -> Result<Arc<Image>, PullError> {
        let (registries, domain) = (self.options.registries.clone(), reference.domain.clone());
        let directories = self.options.docker_config_dirs.clone();
        let read = background(move || {
            let endpoints = registries.endpoints(&domain);
            (endpoints, credentials::node_document(&directories))
        });
        let (endpoints, node_document) = read.await?;
        let mut documents = docker_configs.to_vec();
        documents.extend(node_document);
        let found = credentials::matching(&documents, reference);
        let mut failed = None;
        let mut endpoints = endpoints.map_err(PullError::Local)?.into_iter().peekable();
        while let Some(endpoint) = endpoints.next() {
            let base = endpoint.base.clone();
            // Nothing is left of an endpoint before, or of a pull that was dropped.
            joint.fed.set(None);
            joint
                .alone
                .set(endpoints.peek().is_none() && self.find(&reference.to_string()).is_none());
            match self.pull_from(endpoint, reference, &found, joint).await {
                Ok(stored) => {
                    let image = self.shown(&[stored]).pop();
                    return image.ok_or_else(|| PullError::Local("the image was removed".into()));
                }
                Err(
                    error @ (PullError::Local(_) | PullError::Disk(_) | PullError::InvalidName(_)),
                ) => {
                    return Err(error);
                }
                Err(error) => {
                    log::debug!("pull {reference} from {base}: {error}");
                    failed = Some(error);
                }
            }
        }
        Err(failed.unwrap_or_else(|| PullError::Unreachable("no endpoint".into())))
    }

    /// Tries each fitting credential until one is let in; without any, anonymously.
    async fn pull_from(
        &self,
        endpoint: Endpoint,
        reference: &Reference,
        found: &[Credential],
        joint: &Joint,
    ) -> Result<Stored, PullError> {
        // A mirror gets the credentials that were configured for it, not the registry's.
        let home = endpoint.base.split('/').nth(2);
        let is_home = home == Some(&*reference.domain)
            || (reference.domain == "docker.io" && home == Some("registry-1.docker.io"));
        let mut credentials: Vec<Option<Credential>> = Vec::new();
        credentials.extend(endpoint.login.clone().map(Some));
        if is_home {
            credentials.extend(found.iter().cloned().map(Some));
        }
        if credentials.is_empty() {
            credentials.push(None);
        }
        let version = match &reference.version {
            Version::Tag(tag) => tag.clone(),
            Version::Digest(digest) => digest.to_string(),
        };
        let mut refused = PullError::Refused(format!("{reference}: no credential"));
        for credential in credentials {
            let session = Session {
                client: Client::new(self.options.clock.clone(), Timeouts::default())
                    .through(self.options.proxies.clone()),
                clock: self.options.clock.clone(),
                endpoint: endpoint.clone(),
                repository: reference.path.clone(),
                credential,
                authorization: RefCell::new(None),
            };
            match session.manifest(&version).await {
                Ok(served) => {
                    let document = read_document(&served.bytes, served.media_type.as_deref());
                    let document = document.map_err(PullError::Refused)?;
                    return self
                        .fetch(&session, reference, served.digest, document, joint)
                        .await;
                }
                Err(error @ PullError::Refused(_)) => refused = error,
                Err(error) => return Err(error),
            }
        }
        Err(refused)
    }

    async fn fetch(
        &self,
        session: &Session,
        reference: &Reference,
        digest: Digest,
        document: Document,
        joint: &Joint,
    ) -> Result<Stored, PullError> {
        let (config, layers) = self.resolve(session, document).await?;
        let bytes_max = config.size.min(CONFIG_BYTES_MAX);
        let config_bytes = session.small_blob(&config.digest, bytes_max).await?;
        let configuration = archive::configuration(&config_bytes, layers.len())?;
        let platform = &configuration.platform;
        if self.host.rank(platform).is_none() {
            let text = format!("{reference} is for {platform}, this node is {}", self.host);
            if !platform.is_linux() {
                return Err(PullError::Refused(text));
            }
            // Builders forget to say it; an index that names it is believed.
            log::warn!("{text}; taken at the word of who named it");
        }
        let expected = archive::expected_layers(&configuration, &layers);
        let coming = self.expect(&expected).await;
        let (content, wanted) = (self.content.clone(), expected.clone());
        background(move || content.look_for_room(&wanted)).await??;
        let gate = smol::lock::Semaphore::new(PARALLEL_LAYERS_MAX);
        let each = layers.iter().zip(&expected).zip(&coming);
        let fetches = each.map(|((layer, expected), coming)| {
            let gate = &gate;
            async move {
                let _turn = gate.acquire().await;
                let _alone = coming.lock().await;
                self.fetch_layer(session, &layer.digest, *expected, joint)
                    .await
            }
        });
        all(fetches).await?;
        let mut names = vec![reference.at(digest).to_string()];
        if matches!(reference.version, Version::Tag(_)) {
            names.push(reference.to_string());
        }
        let planned = Planned {
            names,
            layers: expected
                .into_iter()
                .map(|expected| (String::new(), expected))
                .collect(),
            config_bytes,
            configuration,
        };
        let _adding = self.adding.read().await;
        let content = self.content.clone();
        let stored = background(move || archive::keep(&content, planned)).await??;
        self.admit(std::slice::from_ref(&stored), Pinning::Unpinned, |_| {})
            .await?;
        Ok(stored)
    }

    /// Follows indexes to the manifest for this host.
    async fn resolve(
        &self,
        session: &Session,
        mut document: Document,
    ) -> Result<(Descriptor, Vec<Descriptor>), PullError> {
        for _ in 0..=NESTING_MAX {
            let entries = match document {
                Document::Manifest { config, layers } => return Ok((config, layers)),
                Document::Index(entries) => entries,
            };
            let chosen = self.host.choose(&entries, |entry| entry.platform.as_ref());
            let chosen = chosen.ok_or_else(|| {
                PullError::Refused(format!("no image for {} in the index", self.host))
            })?;
            let served = session.manifest(&chosen.digest.to_string()).await?;
            document = read_document(&served.bytes, served.media_type.as_deref())
                .map_err(PullError::Refused)?;
        }
        Err(PullError::Refused("indexes are nested too deeply".into()))
    }

    async fn fetch_layer(
        &self,
        session: &Session,
        digest: &Digest,
        expected: Expected,
        joint: &Joint,
    ) -> Result<(), PullError> {
        let bytes_total = expected.blob.map_or(0, |(_, size)| size);
        let content = self.content.clone();
        let here = move || {
            content
                .check_layer(&expected.diff_id, Depth::Listing)
                .is_ok()
        };
        if !background(here).await? {
            let (sender, receiver) = async_channel::bounded(PIECES_MAX);
            let content = self.content.clone();
            let stream = Pieces::new(receiver);
            let unpacked = background(move || content.add_layer(stream, &expected).map(drop));
            let fed = feed(session, digest, bytes_total, sender, joint);
            let (fed, unpacked) = future::zip(fed, unpacked).await;
            // When the network failed, unpacking fails for no reason of its own.
            fed?;
            unpacked??;
        }
        joint.report(&Progress {
            layer: *digest,
            bytes_done: bytes_total,
            bytes_total,
        });
        Ok(())
    }
}

/// Pieces of a layer, then `End`. A channel that closes without it is a broken stream.
enum Piece {
    Bytes(Bytes),
    End,
}

/// Sends a blob's bytes, each once, over as many connections as it takes.
async fn feed(
    session: &Session,
    digest: &Digest,
    bytes_total: u64,
    sender: async_channel::Sender<Piece>,
    joint: &Joint,
) -> Result<(), PullError> {
    let (mut bytes_done, mut breaks) = (0, 0);
    while bytes_done < bytes_total {
        let before = bytes_done;
        let broken = feed_once(
            session,
            digest,
            bytes_total,
            &mut bytes_done,
            &sender,
            joint,
        )
        .await;
        match broken {
            Ok(Fed::Whole) => break,
            // The unpacking thread knows why, and its error is the one that counts.
            Ok(Fed::NotWanted) => return Ok(()),
            Err(PullError::Unreachable(text)) => {
                breaks = if bytes_done > before { 1 } else { breaks + 1 };
                let clock = &session.clock;
                let given_up = match joint.fed.get() {
                    Some(fed) if joint.alone.get() => clock.now().since(fed) > OUTAGE_MAX,
                    _ => breaks > BREAKS_MAX,
                };
                if given_up {
                    return Err(PullError::Unreachable(text));
                }
                log::info!("{text}; going on at byte {bytes_done} of {bytes_total}");
                let pause = PAUSE * breaks.min(PAUSES_MAX);
                clock.sleep_until(clock.now() + pause).await;
            }
            Err(error) => return Err(error),
        }
    }
    // A closed channel: as above.
    let _ = sender.send(Piece::End).await;
    Ok(())
}

enum Fed {
    Whole,
    NotWanted,
}

async fn feed_once(
    session: &Session,
    digest: &Digest,
    bytes_total: u64,
    bytes_done: &mut u64,
    sender: &async_channel::Sender<Piece>,
    joint: &Joint,
) -> Result<Fed, PullError> {
    let what = format!("layer {digest}");
    let mut response = session.blob(digest, *bytes_done).await?;
    // A server without ranges sends all again: what is known is skipped.
    let mut skip = match response.status.as_u16() {
        206 => {
            let range = response.header("content-range").unwrap_or_default();
            if !range.starts_with(&format!("bytes {bytes_done}-")) {
                let text = format!("{what}: asked for byte {bytes_done}, got {range:?}");
                return Err(PullError::Refused(text));
            }
            0
        }
        _ => *bytes_done,
    };
    while let Some(mut piece) = response
        .chunk()
        .await
        .map_err(|error| pull_error(&what, error))?
    {
        let known = skip.min(piece.len() as u64);
        skip -= known;
        piece.advance(known as usize);
        *bytes_done += piece.len() as u64;
        if *bytes_done > bytes_total {
            let text = format!("{what} is larger than the {bytes_total} bytes it should have");
            return Err(PullError::Refused(text));
        }
        if !piece.is_empty() {
            joint.fed.set(Some(session.clock.now()));
            if sender.send(Piece::Bytes(piece)).await.is_err() {
                return Ok(Fed::NotWanted);
            }
        }
        joint.report(&Progress {
            layer: *digest,
            bytes_done: *bytes_done,
            bytes_total,
        });
    }
    match *bytes_done == bytes_total {
        true => Ok(Fed::Whole),
        false => Err(PullError::Unreachable(format!("{what} ended too early"))),
    }
}

/// The unpacking thread's end of the channel.
struct Pieces {
    receiver: async_channel::Receiver<Piece>,
    piece: Bytes,
    ended: bool,
}

impl Pieces {
    fn new(receiver: async_channel::Receiver<Piece>) -> Pieces {
        Pieces {
            receiver,
            piece: Bytes::new(),
            ended: false,
        }
    }
}

impl Read for Pieces {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.piece.is_empty() && !self.ended {
            match self.receiver.recv_blocking() {
                Ok(Piece::Bytes(bytes)) => self.piece = bytes,
                Ok(Piece::End) => self.ended = true,
                Err(_) => return Err(io::ErrorKind::ConnectionAborted.into()),
            }
        }
        let count = buffer.len().min(self.piece.len());
        self.piece.copy_to_slice(&mut buffer[..count]);
        Ok(count)
    }
}

/// Runs all futures on this task; the first error drops the others.
async fn all<'a, E>(
    futures: impl Iterator<Item = impl Future<Output = Result<(), E>> + 'a>,
) -> Result<(), E> {
    type Boxed<'a, E> = Pin<Box<dyn Future<Output = Result<(), E>> + 'a>>;
    let mut pending: Vec<Boxed<'a, E>> = Vec::new();
    for future in futures {
        pending.push(Box::pin(future));
    }
    poll_fn(|context| {
        let mut index = 0;
        while index < pending.len() {
            match pending[index].as_mut().poll(context) {
                Poll::Pending => index += 1,
                Poll::Ready(Ok(())) => drop(pending.swap_remove(index)),
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
            }
        }
        match pending.is_empty() {
            true => Poll::Ready(Ok(())),
            false => Poll::Pending,
        }
    })
    .await
}
