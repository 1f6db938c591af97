//! Images that nobody uses go when the disk fills up, the longest unused first.
//!
//! Never collected: images of containers that are recorded, images that a pod of the registry
//! names (it may be a long time until the next chance to pull them), and images of `--image-dir`
//! while their archive is there. Source: Kubernetes pkg/kubelet/images/image_gc_manager.go.

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use super::Kubelet;
use super::core::EventKind;
use crate::object::order;
use crate::world::{BootTime, DiskUse, Image};

/// Source: Kubernetes pkg/kubelet/kubelet.go (`ImageGCPeriod`).
const PERIOD: Duration = Duration::from_secs(300);

/// `--image-gc-high-threshold`, `--image-gc-low-threshold`, `--minimum-image-ttl-duration`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Policy {
    /// Use of the disk that starts a collection; 100 turns it off.
    pub high_percent: u8,
    /// Use of the disk that ends it.
    pub low_percent: u8,
    /// An image is kept for so long after it was first seen.
    pub age_min: Duration,
}

impl Default for Policy {
    fn default() -> Policy {
        Policy {
            high_percent: 85,
            low_percent: 80,
            age_min: Duration::from_secs(120),
        }
    }
}

/// What is known of images between two rounds, by id. Boot time of this agent: upstream forgets it
/// at a restart too.
#[derive(Default)]
struct Seen(BTreeMap<String, Record>);

#[derive(Clone, Copy)]
struct Record {
    first_seen: BootTime,
    /// `first_seen` if it never was.
    last_used: BootTime,
}

impl Seen {
    fn note(&mut self, images: &[Arc<Image>], used: &BTreeSet<String>, now: BootTime) {
        self.0
            .retain(|id, _| images.iter().any(|image| image.id == *id));
        for image in images {
            let new = Record {
                first_seen: now,
                last_used: now,
            };
            let record = self.0.entry(image.id.clone()).or_insert(new);
            if used.contains(&image.id) {
                record.last_used = now;
            }
        }
    }
}

/// Bytes that a collection shall free; `None`: there is no need for one.
fn wanted_bytes(disk: DiskUse, policy: Policy) -> Option<u64> {
    let free = disk.free_bytes.min(disk.capacity_bytes);
    let used_percent = 100 - u128::from(free) * 100 / u128::from(disk.capacity_bytes.max(1));
    if policy.high_percent >= 100 || used_percent < u128::from(policy.high_percent) {
        return None;
    }
    let goal =
        u128::from(disk.capacity_bytes) * u128::from(100 - policy.low_percent.min(100)) / 100;
    Some(u64::try_from(goal).unwrap_or(u64::MAX).saturating_sub(free))
}

/// What may go, the longest unused first.
fn candidates(
    images: &[Arc<Image>],
    used: &BTreeSet<String>,
    seen: &Seen,
    policy: Policy,
    now: BootTime,
) -> Vec<Arc<Image>> {
    let mut unused: Vec<(Record, &Arc<Image>)> = images
        .iter()
        .filter(|image| !image.pinned && !used.contains(&image.id))
        .filter_map(|image| Some((*seen.0.get(&image.id)?, image)))
        .filter(|(record, _)| now.since(record.first_seen) >= policy.age_min)
        .collect();
    order::sort_by(&mut unused, |(a, a_image), (b, b_image)| {
        (a.last_used, a.first_seen, &a_image.id).cmp(&(b.last_used, b.first_seen, &b_image.id))
    });
    unused.into_iter().map(|(_, image)| image.clone()).collect()
}

/// Looks every five minutes; never ends.
pub async fn run(kubelet: Rc<Kubelet>) {
    let core = kubelet.core.clone();
    let mut seen = Seen::default();
    let mut failed_before = false;
    // Imports of the first scan are old images, not new ones.
    core.world.images.first_scan().await;
    loop {
        match round(&kubelet, &mut seen).await {
            Ok(()) => failed_before = false,
            Err(error) => {
                log::warn!("collect images: {error}");
                // The first failure may be a figure that is not there yet, as upstream has it.
                if failed_before {
                    core.node_event(EventKind::Warning, "ImageGCFailed", error);
                }
                failed_before = true;
            }
        }
        let clock = &core.world.clock;
        clock.sleep_until(clock.now() + PERIOD).await;
    }
}

async fn round(kubelet: &Kubelet, seen: &mut Seen) -> Result<(), String> {
    let core = &kubelet.core;
    let (world, policy) = (&core.world, core.options.image_gc);
    // The disk is not as full as the policy has it, and fuller than the pull can do with.
    if core.images_did_not_fit.take() && policy.high_percent < 100 {
        collect_unused(kubelet).await;
    }
    let now = world.clock.now();
    seen.note(&world.images.list(), &used(kubelet), now);
    let disk = world.images.disk_use().await?;
    if disk.capacity_bytes == 0 {
        let error = "invalid capacity 0 on image filesystem";
        core.node_event(EventKind::Warning, "InvalidDiskCapacity", error.to_owned());
        return Err(error.to_owned());
    }
    let Some(wanted) = wanted_bytes(disk, policy) else {
        return Ok(());
    };
    let mut freed = 0;
    for image in candidates(&world.images.list(), &used(kubelet), seen, policy, now) {
        if freed >= wanted {
            break;
        }
        // Asked again for each: a removal takes time, and a pod may have come meanwhile.
        let used = used(kubelet);
        if used.contains(&image.id) {
            continue;
        }
        let name = image
            .tags
            .first()
            .or(image.digests.first())
            .unwrap_or(&image.id);
        match world
            .images
            .discard(&image.id, used.into_iter().collect())
            .await
        {
            Ok(()) => {
                log::info!("collected image {name}: {} bytes", image.size_bytes);
                freed += image.size_bytes;
            }
            Err(error) => log::warn!("collect image {name}: {error}"),
        }
    }
    if freed >= wanted {
        return Ok(());
    }
    let error = format!(
        "Failed to garbage collect required amount of images. Attempted to free {wanted} bytes, \
         but only found {freed} bytes eligible to free."
    );
    core.node_event(EventKind::Warning, "FreeDiskSpaceFailed", error.clone());
    Err(error)
}

/// Removes every image that nothing needs, for a node that is short of disk. True if any went.
pub async fn collect_unused(kubelet: &Kubelet) -> bool {
    let images = &kubelet.core.world.images;
    let mut any = false;
    for image in images.list() {
        // Asked again for each, as above.
        let used = used(kubelet);
        if image.pinned || used.contains(&image.id) {
            continue;
        }
        match images.discard(&image.id, used.into_iter().collect()).await {
            Ok(()) => {
                log::info!("collected image {}: {} bytes", image.id, image.size_bytes);
                any = true;
            }
            Err(error) => log::warn!("collect image {}: {error}", image.id),
        }
    }
    any
}

/// Ids of images that containers were made from or that pods name.
fn used(kubelet: &Kubelet) -> BTreeSet<String> {
    let world = &kubelet.core.world;
    let mut used = BTreeSet::new();
    for worker in kubelet.workers.borrow().values() {
        let observed = world.runtime.observe(&worker.shared.uid);
        used.extend(observed.containers.iter().map(|one| one.image_id.clone()));
        let view = worker.shared.view.borrow();
        for container in &view.containers {
            used.extend(
                world
                    .images
                    .find(&container.image)
                    .map(|image| image.id.clone()),
            );
        }
    }
    used
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::world::ImageConfig;

    fn image(name: &str, pinned: bool) -> Arc<Image> {
        Arc::new(Image {
            id: name.to_owned(),
            tags: Vec::new(),
            digests: Vec::new(),
            size_bytes: 10,
            pinned,
            config: ImageConfig::default(),
        })
    }

    fn at(seconds: u64) -> BootTime {
        BootTime::from_duration(Duration::from_secs(seconds))
    }

    #[test]
    fn a_collection_starts_at_the_high_threshold_and_aims_at_the_low_one() {
        let policy = Policy::default();
        for (free_bytes, wanted) in [
            (1000, None),
            (160, None),
            // Whole per cent, as upstream reckons.
            (151, Some(49)),
            (150, Some(50)),
            (0, Some(200)),
            // More than there is, as some network file systems say.
            (2000, None),
        ] {
            let disk = DiskUse {
                capacity_bytes: 1000,
                free_bytes,
            };
            assert_eq!(wanted_bytes(disk, policy), wanted, "{free_bytes}");
            let off = Policy {
                high_percent: 100,
                ..policy
            };
            assert_eq!(wanted_bytes(disk, off), None);
        }
    }

    #[test]
    fn the_longest_unused_goes_first_and_what_is_needed_never() {
        let images: Vec<_> = ["new", "late", "early", "used"]
            .map(|n| image(n, false))
            .into();
        let (young, others) = images.split_first().unwrap();
        let mut all = others.to_vec();
        all.push(image("pinned", true));
        let ids = |names: &[&str]| names.iter().map(|n| (*n).to_owned()).collect();
        let mut seen = Seen::default();
        seen.note(&all, &ids(&["early", "late", "used"]), at(0));
        seen.note(&all, &ids(&["late", "used"]), at(300));
        all.push(young.clone());
        let used: BTreeSet<String> = ids(&["used"]);
        seen.note(&all, &used, at(600));
        let names = |now| -> Vec<String> {
            let found = candidates(&all, &used, &seen, Policy::default(), at(now));
            found.iter().map(|image| image.id.clone()).collect()
        };
        assert_eq!(names(600), ["early", "late"]);
        assert_eq!(names(719), ["early", "late"]);
        assert_eq!(names(720), ["early", "late", "new"]);
    }
}
