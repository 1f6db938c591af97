//! The kubelet's own files about a pod, and nothing else's.
//!
//! | file | area | why |
//! |---|---|---|
//! | `pods/UID/pod.json` | ROOT | what a pod was made from, when, what ran: ends it well without the store |
//! | `pods/UID/final.json` | ROOT (or RUN), flushed | ends that must never be undone by a power cut |
//! | `pods/UID/kubelet.json` | RUN | back-off, probe results and ending of a running pod |
//! | `node.json` | RUN | when the node's conditions last changed |
//! | `boot.json` | ROOT | which boot of the machine an agent ran in last |
//! | `forgotten/UID.json` | RUN | the pod was deleted, though its files could not be removed |
//!
//! Each file is an envelope with a version. One of another version, or a torn one, is reported and
//! treated as missing, never as an error that stops the node.

use std::rc::Rc;

use jiff::Timestamp;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::memory::{Checkpoint, Final, Transitions};
use crate::object::Object;
use crate::world::{Area, Disk, DiskError, Stamp, Uid, build_time};

/// Version of all these files. Readers take that of the next release as well, as far as it can be
/// read: after a step back a finished pod must not run again.
const VERSION: u32 = 1;

const NODE: &str = "node.json";
const BOOT: &str = "boot.json";

#[derive(Serialize, Deserialize)]
struct Envelope<T> {
    version: u32,
    content: T,
}

#[derive(Clone)]
pub struct Records {
    disk: Rc<dyn Disk>,
}

impl Records {
    pub fn new(disk: Rc<dyn Disk>) -> Records {
        Records { disk }
    }

    pub async fn pod(&self, uid: &Uid) -> Option<Object> {
        let path = path(uid, "pod");
        match self.read(Area::Run, &path).await {
            Some(pod) => Some(pod),
            None => self.read(Area::Root, &path).await,
        }
    }

    /// Not flushed: it matters most while the pod's processes live, and a power cut ends those.
    /// On a disk that takes nothing it goes to RUN: a successor of the pod's name must find it.
    pub async fn keep_pod(&self, uid: &Uid, pod: &Object) -> Result<(), DiskError> {
        let bytes = encode(pod);
        let path = path(uid, "pod");
        let kept = self.disk.write(Area::Root, &path, bytes.clone()).await;
        if kept.is_err() {
            return self.disk.write(Area::Run, &path, bytes).await.and(kept);
        }
        kept
    }

    pub async fn finals(&self, uid: &Uid) -> Final {
        let path = path(uid, "final");
        // It is there because ROOT, which may have an older one, did not take it.
        let known = match self.read(Area::Run, &path).await {
            None => self.read(Area::Root, &path).await,
            known => known,
        };
        known.unwrap_or_default()
    }

    /// On stable storage before it resolves.
    pub async fn keep_finals(&self, uid: &Uid, finals: &Final) -> Result<(), DiskError> {
        let path = path(uid, "final");
        let bytes = encode(finals);
        self.disk.write_durable(Area::Root, &path, bytes).await
    }

    /// After a reboot what is left of it: when the pod was started, and what has run.
    pub async fn checkpoint(&self, uid: &Uid, now: Stamp) -> Checkpoint {
        let known = self.read(Area::Run, &path(uid, "kubelet")).await;
        if let Some(known) = known {
            return known;
        }
        let mut checkpoint = Checkpoint::default();
        let pod = self.pod(uid).await;
        let status = pod.as_ref().map(|pod| &pod.body["status"]);
        let begun = status.and_then(|status| status["begun"].as_array());
        for name in begun.into_iter().flatten().filter_map(|name| name.as_str()) {
            checkpoint.begun.push(name.to_owned());
        }
        let start = status.and_then(|status| status["startTime"].as_str());
        if let Some(wall) = start.and_then(|start| start.parse::<Timestamp>().ok()) {
            checkpoint.start = Some(Stamp { wall, ..now });
            // A start in 1970 says nothing about how long ago it was.
            let since = now.wall.duration_since(wall);
            let since = (wall >= build_time()).then(|| since.unsigned_abs());
            checkpoint.before = since.filter(|_| now.wall > wall).unwrap_or_default();
        }
        checkpoint
    }

    /// Under RUN where ROOT takes nothing: for as long as the machine runs.
    pub async fn keep_finals_anywhere(&self, uid: &Uid, finals: &Final) -> Result<(), DiskError> {
        let kept = self.keep_finals(uid, finals).await;
        if kept.is_err() {
            let path = path(uid, "final");
            return self.disk.write(Area::Run, &path, encode(finals)).await;
        }
        kept
    }

    /// Takes the checkpoint as `encode` has it.
    pub async fn keep_checkpoint(&self, uid: &Uid, encoded: Vec<u8>) -> Result<(), DiskError> {
        let path = path(uid, "kubelet");
        self.disk.write(Area::Run, &path, encoded).await
    }

    pub async fn node_transitions(&self) -> Transitions {
        let known = self.read(Area::Run, NODE).await;
        known.unwrap_or_default()
    }

    pub async fn keep_node_transitions(&self, known: &Transitions) -> Result<(), DiskError> {
        self.disk.write(Area::Run, NODE, encode(known)).await
    }

    pub async fn boot_id(&self) -> Option<String> {
        self.read(Area::Root, BOOT).await
    }

    pub async fn keep_boot_id(&self, id: &String) -> Result<(), DiskError> {
        self.disk.write(Area::Root, BOOT, encode(id)).await
    }

    /// Whether the area takes a small file.
    pub async fn try_area(&self, area: Area) -> Result<(), DiskError> {
        self.disk.try_write(area).await
    }

    /// Forgets all of the pod but how it ended. All files are tried; the first error is returned.
    pub async fn forget_start(&self, uid: &Uid) -> Result<(), DiskError> {
        let mut result = Ok(());
        for (area, file) in [
            (Area::Run, "kubelet"),
            (Area::Run, "pod"),
            (Area::Root, "pod"),
        ] {
            let removed = self.disk.remove(area, &path(uid, file)).await;
            result = result.and(removed);
        }
        result
    }

    pub async fn forget_end(&self, uid: &Uid) -> Result<(), DiskError> {
        let path = path(uid, "final");
        let here = self.disk.remove(Area::Run, &path).await;
        self.disk.remove(Area::Root, &path).await.and(here)
    }

    /// What is under ROOT of this pod counts no more; see `leftovers`.
    pub async fn mark_forgotten(&self, uid: &Uid) -> Result<(), DiskError> {
        let path = forgotten(uid);
        self.disk.write(Area::Run, &path, encode(&true)).await
    }

    pub async fn unmark_forgotten(&self, uid: &Uid) -> Result<(), DiskError> {
        self.disk.remove(Area::Run, &forgotten(uid)).await
    }

    pub async fn is_forgotten(&self, uid: &Uid) -> bool {
        let known = self.read(Area::Run, &forgotten(uid)).await;
        known.unwrap_or(false)
    }

    /// Pods that have a directory under ROOT or RUN, whoever made it.
    pub async fn known(&self) -> Vec<Uid> {
        let mut known = Vec::new();
        for area in [Area::Root, Area::Run] {
            match self.disk.list(area, "pods").await {
                Ok(names) => known.extend(names.iter().filter_map(|name| Uid::new(name))),
                Err(error) => {
                    log::warn!("{error}; pods of an earlier run cannot be tidied up now");
                }
            }
        }
        known
    }

    async fn read<T: DeserializeOwned>(&self, area: Area, path: &str) -> Option<T> {
        let bytes = match self.disk.read(area, path).await {
            Ok(bytes) => bytes?,
            Err(error) => {
                log::warn!("{error}; going on without this record");
                return None;
            }
        };
        match serde_json::from_slice::<Envelope<T>>(&bytes) {
            Ok(envelope) if envelope.version <= VERSION + 1 => Some(envelope.content),
            Ok(envelope) => {
                let version = envelope.version;
                log::warn!("{path}: version {version} is too new for {VERSION}; ignoring it");
                None
            }
            Err(error) => {
                log::warn!("{path}: {error}; ignoring it");
                None
            }
        }
    }
}

fn path(uid: &Uid, file: &str) -> String {
    format!("pods/{uid}/{file}.json")
}

fn forgotten(uid: &Uid) -> String {
    format!("forgotten/{uid}.json")
}

/// A record as it is written.
pub fn encode<T: Serialize>(content: &T) -> Vec<u8> {
    let envelope = Envelope {
        version: VERSION,
        content,
    };
    serde_json::to_vec(&envelope).expect("records have string keys and no failing serialisers")
}
