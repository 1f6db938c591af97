//! `world::Volumes`: mounts that a reboot takes away, directories that it leaves.

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::time::Duration;

use lowtide::world::{
    LocalFuture, PodVolumes, RemoveError, Uid, VolumeContent, VolumeError, VolumeSetUp, Volumes,
};

use crate::host::{DiskMode, Host, boxed, give, question};

/// Path to bytes.
type Files = BTreeMap<String, Vec<u8>>;

#[derive(Default)]
pub struct Mounted {
    /// Set up in this boot: pod to volume names.
    volumes: BTreeMap<Uid, BTreeMap<String, Files>>,
    /// Directories under ROOT, which outlive a reboot.
    directories: BTreeSet<Uid>,
}

impl Mounted {
    pub fn has(&self, uid: &Uid, volume: &str) -> bool {
        self.volumes
            .get(uid)
            .is_some_and(|volumes| volumes.contains_key(volume))
    }

    /// The files of a volume that is mounted.
    pub fn content(&self, uid: &Uid, volume: &str) -> Option<&Files> {
        self.volumes.get(uid)?.get(volume)
    }

    pub fn directories(&self) -> &BTreeSet<Uid> {
        &self.directories
    }

    pub fn reboot(&mut self) {
        self.volumes.clear();
    }
}

fn files_of(content: VolumeContent) -> Files {
    match content {
        VolumeContent::Files { files, .. } => {
            files.into_iter().map(|f| (f.path, f.bytes)).collect()
        }
        VolumeContent::EmptyDir { .. } | VolumeContent::HostPath { .. } => Files::new(),
    }
}

pub struct SimVolumes(pub Rc<Host>);

impl Volumes for SimVolumes {
    fn set_up(&self, pod: PodVolumes) -> LocalFuture<'_, Result<(), Vec<VolumeError>>> {
        boxed(async move {
            let host = &self.0;
            let names: Vec<&str> = pod.volumes.iter().map(|v| v.name.as_str()).collect();
            host.trace
                .note(|| format!("set up volumes {} {names:?}", pod.uid));
            let (asker, answer) = question();
            host.later_in_agent(host.span(Duration::from_millis(4)), move |host| {
                let fails = host.faults.borrow().volume_fails;
                let mut mounted = host.mounted.borrow_mut();
                if !pod.volumes.is_empty() {
                    mounted.directories.insert(pod.uid.clone());
                }
                let mut errors = Vec::new();
                for VolumeSetUp { name, content } in pod.volumes {
                    if host.luck.chance(fails) {
                        let message = "write /v/..data_tmp: no space left on device".to_owned();
                        let volume = name;
                        errors.push(VolumeError { volume, message });
                    } else {
                        let volumes = mounted.volumes.entry(pod.uid.clone()).or_default();
                        volumes.insert(name, files_of(content));
                    }
                }
                let outcome = if errors.is_empty() {
                    Ok(())
                } else {
                    Err(errors)
                };
                give(&asker, outcome);
            });
            answer.await
        })
    }

    fn unmount(&self, uid: &Uid) -> LocalFuture<'_, Result<(), RemoveError>> {
        self.take_away(uid, Fate::Kept)
    }

    fn tear_down(&self, uid: &Uid) -> LocalFuture<'_, Result<(), RemoveError>> {
        self.take_away(uid, Fate::Removed)
    }
}

/// What becomes of what lies on the disk.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Fate {
    Kept,
    Removed,
}

impl SimVolumes {
    fn take_away(&self, uid: &Uid, fate: Fate) -> LocalFuture<'_, Result<(), RemoveError>> {
        let uid = uid.clone();
        boxed(async move {
            let host = &self.0;
            let what = if fate == Fate::Kept {
                "unmount"
            } else {
                "tear down"
            };
            host.trace.note(|| format!("{what} volumes {uid}"));
            host.judge.volumes_torn_down(host, &uid);
            let (asker, answer) = question();
            host.later_in_agent(host.span(Duration::from_millis(4)), move |host| {
                let fails = host.faults.borrow().volume_fails;
                if host.luck.chance(fails) {
                    let text = "unmount /v: device or resource busy".to_owned();
                    give(&asker, Err(RemoveError::Held(text)));
                    return;
                }
                let mut mounted = host.mounted.borrow_mut();
                mounted.volumes.remove(&uid);
                let read_only = host.faults.borrow().disk == DiskMode::ReadOnly;
                if fate == Fate::Kept {
                    return give(&asker, Ok(()));
                }
                if read_only && mounted.directories.contains(&uid) {
                    let text = "remove /v: read-only file system".to_owned();
                    give(&asker, Err(RemoveError::Files(text)));
                    return;
                }
                mounted.directories.remove(&uid);
                // The kubelet's records lie beside the volumes and are its own to remove.
                give(&asker, Ok(()));
            });
            answer.await
        })
    }
}
