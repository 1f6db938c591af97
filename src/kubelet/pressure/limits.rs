//! Pods that keep more on disk than they said: emptyDir `sizeLimit`, and limits of
//! ephemeral-storage. Pure.
//!
//! Source: Kubernetes pkg/kubelet/eviction/eviction_manager.go (localStorageEviction).

use k8s_openapi::api::core::v1::{Container, Pod};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity as Text;
use serde_json::Value;

use crate::object::Quantity;
use crate::object::resources::pod_limits;
use crate::world::PodStats;

const RESOURCE: &str = "ephemeral-storage";

fn limit_of(container: &Container) -> Option<Quantity> {
    let limits = container.resources.as_ref()?.limits.as_ref()?;
    limits.get(RESOURCE)?.0.parse().ok()
}

/// emptyDir volumes on disk with a limit. A limited tmpfs limits itself.
fn volume_limits(pod: &Pod) -> impl Iterator<Item = (&str, Quantity)> {
    let spec = pod.spec.as_ref();
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

fn containers(pod: &Pod) -> impl Iterator<Item = &Container> {
    let spec = pod.spec.as_ref();
    let init = spec.and_then(|spec| spec.init_containers.as_ref());
    let regular = spec.map(|spec| &spec.containers);
    regular
        .into_iter()
        .flatten()
        .chain(init.into_iter().flatten())
}

/// Whether anything of the pod's disk is limited, so that it has to be measured.
pub fn has_any(pod: &Pod) -> bool {
    containers(pod).any(|container| limit_of(container).is_some())
        || volume_limits(pod).next().is_some()
}

/// Why the pod has to go, in upstream's words and order; `None`: it keeps its limits.
pub fn exceeded(pod: &Pod, spec: &Value, stats: &PodStats) -> Option<String> {
    volume_exceeded(pod, stats)
        .or_else(|| pod_exceeded(spec, stats))
        .or_else(|| container_exceeded(pod, stats))
}

fn is_above(bytes: u64, limit: Quantity) -> bool {
    i128::from(bytes) > i128::from(limit.value())
}

fn volume_exceeded(pod: &Pod, stats: &PodStats) -> Option<String> {
    let measured = stats.volumes.as_ref()?;
    volume_limits(pod).find_map(|(name, limit)| {
        let found = measured.iter().find(|volume| volume.name == name)?;
        is_above(found.tree.bytes, limit)
            .then(|| format!("Usage of EmptyDir volume {name:?} exceeds the limit \"{limit}\". "))
    })
}

/// What is stated counts, though not every container may have a limit.
fn pod_exceeded(spec: &Value, stats: &PodStats) -> Option<String> {
    let total = *pod_limits(spec).get(RESOURCE)?;
    is_above(stats.ephemeral?.bytes, total).then(|| {
        format!("Pod ephemeral local storage usage exceeds the total limit of containers {total}. ")
    })
}

fn container_exceeded(pod: &Pod, stats: &PodStats) -> Option<String> {
    let regular = &pod.spec.as_ref()?.containers;
    stats.containers.iter().find_map(|found| {
        let container = regular.iter().find(|c| c.name == found.name)?;
        let limit = limit_of(container).filter(|limit| !limit.is_zero())?;
        let bytes = found.rootfs?.bytes + found.logs?.bytes;
        is_above(bytes, limit).then(|| {
            let name = &found.name;
            format!("Container {name} exceeded its local ephemeral storage limit \"{limit}\". ")
        })
    })
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::world::{
        BootTime, ContainerId, ContainerStats, Medium, Stamp, Tree, Uid, Usage, VolumeStats,
    };

    fn pod(limits: Value, volumes: Value) -> Pod {
        let containers = json!([{"name": "c", "resources": {"limits": limits}}]);
        let spec = json!({"containers": containers, "volumes": volumes});
        serde_json::from_value(json!({"metadata": {}, "spec": spec})).unwrap()
    }

    /// A container of 3 KiB with its logs, and a volume of 2 KiB.
    fn stats() -> PodStats {
        let started = Stamp {
            boot: BootTime::default(),
            wall: jiff::Timestamp::UNIX_EPOCH,
        };
        let tree = |bytes| Tree { bytes, inodes: 1 };
        PodStats {
            uid: Uid::new("u").unwrap(),
            namespace: "default".to_owned(),
            name: "p".to_owned(),
            cgroup: String::new(),
            started,
            usage: Usage::default(),
            network: Vec::new(),
            containers: vec![ContainerStats {
                name: "c".to_owned(),
                id: ContainerId("c".into()),
                image: String::new(),
                cgroup: String::new(),
                started,
                usage: Usage::default(),
                rootfs: Some(tree(2048)),
                logs: Some(tree(1024)),
            }],
            volumes: Some(vec![VolumeStats {
                name: "v".to_owned(),
                medium: Medium::Disk,
                tree: tree(2048),
            }]),
            ephemeral: Some(tree(5120)),
        }
    }

    fn why(pod: &Pod, stats: &PodStats) -> Option<String> {
        exceeded(pod, &json!(pod)["spec"], stats)
    }

    #[test]
    fn sidecars_and_init_containers_count_in_the_sum_and_are_held_to_no_limit_of_their_own() {
        let one = |name: &str, limit: Option<&str>, policy: Option<&str>| {
            let limits = json!({"ephemeral-storage": limit});
            let limits = limit.map_or(json!({}), |_| limits);
            json!({"name": name, "resources": {"limits": limits}, "restartPolicy": policy})
        };
        let (always, little) = (Some("Always"), Some("1Ki"));
        for (init, regular, total) in [
            (
                vec![one("s", Some("4Ki"), always)],
                vec![one("c", little, None)],
                None,
            ),
            (
                vec![one("i", Some("5Ki"), None)],
                vec![one("c", little, None)],
                None,
            ),
            (
                vec![one("s", Some("3Ki"), always)],
                vec![one("c", little, None)],
                Some("4Ki"),
            ),
            (
                vec![],
                vec![one("c", None, None), one("d", Some("4Ki"), None)],
                Some("4Ki"),
            ),
            (
                vec![one("c", little, always)],
                vec![one("d", Some("9Ki"), None)],
                None,
            ),
        ] {
            let spec = json!({"initContainers": init, "containers": regular});
            let pod: Pod = serde_json::from_value(json!({"metadata": {}, "spec": spec})).unwrap();
            let mut stats = stats();
            if total.is_none() && regular[0]["name"] == "c" {
                // Its own limit is another matter.
                stats.containers.clear();
            }
            let wanted = total.map(|total| {
                format!("Pod ephemeral local storage usage exceeds the total limit of containers {total}. ")
            });
            assert_eq!(why(&pod, &stats), wanted, "{spec}");
        }
    }

    #[test]
    fn who_exceeds_a_limit_of_its_own_goes_with_upstreams_words() {
        let volume = |medium: &str, limit: &str| {
            let source = json!({"medium": medium, "sizeLimit": limit});
            json!([{"name": "v", "emptyDir": source}])
        };
        let disk = |limit: &str| json!({"ephemeral-storage": limit});
        for (limits, volumes, wanted) in [
            (json!({}), json!([]), None),
            (json!({}), volume("", "2Ki"), None),
            (json!({}), volume("Memory", "1Ki"), None),
            (
                json!({}),
                volume("", "1Ki"),
                Some("Usage of EmptyDir volume \"v\" exceeds the limit \"1Ki\". "),
            ),
            (disk("5Ki"), json!([]), None),
            (
                disk("4Ki"),
                json!([]),
                Some(
                    "Pod ephemeral local storage usage exceeds the total limit of \
                     containers 4Ki. ",
                ),
            ),
        ] {
            let pod = pod(limits, volumes);
            assert_eq!(why(&pod, &stats()).as_deref(), wanted, "{pod:?}");
        }
        let mut alone = stats();
        alone.ephemeral = None;
        assert_eq!(
            why(&pod(disk("2Ki"), json!([])), &alone).as_deref(),
            Some("Container c exceeded its local ephemeral storage limit \"2Ki\". ")
        );
        assert!(has_any(&pod(disk("1Gi"), json!([]))));
        assert!(!has_any(&pod(json!({"cpu": "1"}), volume("Memory", "1Ki"))));
    }
}
