//! Pods that keep more on disk than they said: emptyDir `sizeLimit`, and limits of
//! ephemeral-storage. Pure.
//!
//! Source: Kubernetes pkg/kubelet/eviction/eviction_manager.go (localStorageEviction).

use k8s_openapi::api::core::v1::Container;
use k8s_openapi::apimachinery::pkg::api::resource::Quantity as Text;

use crate::kubelet::view::PodView;
use crate::object::Quantity;
use crate::world::PodStats;

const RESOURCE: &str = "ephemeral-storage";

fn limit_of(container: &Container) -> Option<Quantity> {
    let limits = container.resources.as_ref()?.limits.as_ref()?;
    limits.get(RESOURCE)?.0.parse().ok()
}

/// emptyDir volumes on disk with a limit. A limited tmpfs limits itself.
fn volume_limits(view: &PodView) -> impl Iterator<Item = (&str, Quantity)> {
    let spec = view.pod.spec.as_ref();
    let volumes = spec
        .and_then(|spec| spec.volumes.as_ref())
        .into_iter()
        .flatten();
    volumes.filter_map(|volume| {
        let source = volume.empty_dir.as_ref()?;
        let on_disk = source.medium.as_deref().unwrap_or_default().is_empty();
        let Text(text) = source.size_limit.as_ref().filter(|_| on_disk)?;
        let limit: Quantity = text.parse().ok()?;
        (!limit.is_zero()).then_some((volume.name.as_str(), limit))
    })
}

/// Whether anything of the pod's disk is limited, so that it has to be measured.
pub fn has_any(view: &PodView) -> bool {
    let mut containers = view.containers.iter();
    containers.any(|container| limit_of(view.spec(container)).is_some())
        || volume_limits(view).next().is_some()
}

/// Why the pod has to go, in upstream's words and order; `None`: it keeps its limits.
pub fn exceeded(view: &PodView, stats: &PodStats) -> Option<String> {
    volume_exceeded(view, stats)
        .or_else(|| pod_exceeded(view, stats))
        .or_else(|| container_exceeded(view, stats))
}

fn is_above(bytes: u64, limit: Quantity) -> bool {
    i128::from(bytes) > i128::from(limit.value())
}

fn volume_exceeded(view: &PodView, stats: &PodStats) -> Option<String> {
    let measured = stats.volumes.as_ref()?;
    volume_limits(view).find_map(|(name, limit)| {
        let found = measured.iter().find(|volume| volume.name == name)?;
        is_above(found.tree.bytes, limit)
            .then(|| format!("Usage of EmptyDir volume {name:?} exceeds the limit \"{limit}\". "))
    })
}

/// The sum counts only if every container has a limit.
fn pod_exceeded(view: &PodView, stats: &PodStats) -> Option<String> {
    let spec = view.pod.spec.as_ref()?;
    let limits: Option<Vec<Quantity>> = spec.containers.iter().map(limit_of).collect();
    let total = limits?.into_iter().fold(Quantity::ZERO, Quantity::plus);
    is_above(stats.ephemeral?.bytes, total).then(|| {
        format!("Pod ephemeral local storage usage exceeds the total limit of containers {total}. ")
    })
}

fn container_exceeded(view: &PodView, stats: &PodStats) -> Option<String> {
    stats.containers.iter().find_map(|found| {
        let container = view.container(&found.name)?;
        let limit = limit_of(view.spec(container))?;
        let bytes = found.rootfs?.bytes + found.logs?.bytes;
        is_above(bytes, limit).then(|| {
            let name = &found.name;
            format!("Container {name} exceeded its local ephemeral storage limit \"{limit}\". ")
        })
    })
}
