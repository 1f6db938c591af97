//! How much pods keep on disk: walks on a thread of low priority, at most one a minute.
//!
//! A walk reads every inode of every pod, which a card takes seconds for. So nobody walks unasked,
//! who asks within a minute gets the last result, and what a walk could not count is left out.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::time::Duration;

use super::subjects::PodSubject;
use crate::object::order;
use crate::os::tree::{self, Budget};
use crate::world::{ContainerId, Medium, Sample, Tree, Uid, VolumeStats};

/// Entries looked at in one round over all pods: half a minute on a slow card.
const ENTRIES_MAX: u64 = 1_000_000;
/// A result is used for so long. Source: cadvisor's fs handler walks once a minute.
pub const FRESH: Duration = Duration::from_secs(60);

/// What was found below the directories of one pod.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct PodTrees {
    containers: BTreeMap<ContainerId, (Option<Tree>, Option<Tree>)>,
    volumes: Vec<VolumeStats>,
    ephemeral: Option<Tree>,
}

/// The result of one round.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Trees(BTreeMap<Uid, PodTrees>);

/// Walks. Blocking, and long.
pub fn walk(pods: &[PodSubject]) -> Trees {
    let mut budget = Budget {
        entries: ENTRIES_MAX,
    };
    let trees = pods.iter();
    let trees = trees.map(|pod| (pod.uid.clone(), walk_pod(pod, &mut budget)));
    Trees(trees.collect())
}

fn walk_pod(pod: &PodSubject, budget: &mut Budget) -> PodTrees {
    let mut measured = |path: &Path| match tree::measure(path, budget) {
        Ok(tree) => Some(tree),
        Err(error) => {
            log::debug!("measure {}: {error}; left out", path.display());
            None
        }
    };
    let layers = measured(&pod.layers);
    let logs = measured(&pod.logs);
    let containers = pod.containers.iter().map(|container| {
        let found = (measured(&container.layer), measured(&container.logs));
        (container.id.clone(), found)
    });
    let containers = containers.collect();
    let beside = tree::file_system(&pod.empty_dirs).ok();
    let names = fs::read_dir(&pod.empty_dirs)
        .into_iter()
        .flatten()
        .flatten();
    let volumes = names.filter_map(|entry| {
        let path = entry.path();
        let own = tree::file_system(&path).ok()?;
        Some(VolumeStats {
            name: entry.file_name().to_string_lossy().into_owned(),
            medium: match Some(own.device) == beside.map(|fs| fs.device) {
                true => Medium::Disk,
                false => Medium::Memory,
            },
            tree: measured(&path)?,
        })
    });
    let mut volumes: Vec<VolumeStats> = volumes.collect();
    order::sort_by(&mut volumes, |a, b| a.name.cmp(&b.name));
    let on_disk = volumes
        .iter()
        .filter(|volume| volume.medium == Medium::Disk);
    let on_disk = on_disk.map(|volume| volume.tree);
    PodTrees {
        ephemeral: layers
            .zip(logs)
            .map(|(layers, logs)| on_disk.fold(sum(layers, logs), sum)),
        containers,
        volumes,
    }
}

fn sum(a: Tree, b: Tree) -> Tree {
    Tree {
        bytes: a.bytes + b.bytes,
        inodes: a.inodes + b.inodes,
    }
}

impl Trees {
    /// Puts what was found beside the counters.
    pub fn fill(&self, sample: &mut Sample) {
        for pod in &mut sample.pods {
            let Some(found) = self.0.get(&pod.uid) else {
                continue;
            };
            pod.volumes = Some(found.volumes.clone());
            pod.ephemeral = found.ephemeral;
            for container in &mut pod.containers {
                if let Some((rootfs, logs)) = found.containers.get(&container.id) {
                    (container.rootfs, container.logs) = (*rootfs, *logs);
                }
            }
        }
    }
}
