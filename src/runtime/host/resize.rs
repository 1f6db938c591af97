//! Other limits for a pod that runs.
//!
//! ```text
//!   more for the pod ─► its containers ─► less for the pod ─► records
//! ```
//! In this order no container is ever given more than its pod, which v1 refuses.

use std::rc::Rc;

use crate::runtime::cgroup::Cgroups;
use crate::runtime::sandbox::record::ContainerRecord;
use crate::world::{CgroupResources, PodCgroup, Resize, RuntimeError, Uid};

use super::{Host, container, of_io};

/// One container's way from limits to limits.
struct Change {
    record: ContainerRecord,
    wanted: CgroupResources,
}

pub async fn resize(host: &Rc<Host>, resize: Resize) -> Result<(), RuntimeError> {
    let (uid, pod) = (&resize.uid, resize.pod);
    let before = container::ready_sandbox(host, uid)?.0.config.cgroup;
    let after = PodCgroup {
        qos: before.qos,
        resources: CgroupResources {
            pids_max: before.resources.pids_max,
            ..pod
        },
    };
    let mut changes = Vec::new();
    for (id, wanted) in resize.containers {
        let record = host.mirror.container(uid, &id)?;
        changes.push(Change { record, wanted });
    }
    let (cgroups, pod_uid, target) = (host.cgroups.clone(), uid.clone(), after.clone());
    let written = blocking::unblock(move || {
        write(&cgroups, &pod_uid, (&before, &target), &changes)?;
        Ok::<_, RuntimeError>(changes)
    });
    for change in written.await? {
        // It may have ended meanwhile.
        let mut record = host.mirror.container(uid, &change.record.id)?;
        record.resources = Some(change.wanted);
        host.record_container(uid, &record)?;
    }
    let (mut sandbox, _) = container::ready_sandbox(host, uid)?;
    sandbox.config.cgroup = after;
    host.record_sandbox(&sandbox)
}

fn write(
    cgroups: &Cgroups,
    uid: &Uid,
    (before, after): (&PodCgroup, &PodCgroup),
    changes: &[Change],
) -> Result<(), RuntimeError> {
    let used = |path: &str| cgroups.usage(path).memory.map(|memory| memory.usage);
    let pod_path = cgroups.pod_path(after.qos, uid);
    let of_pod = ("pod", &*pod_path, Some(&before.resources), &after.resources);
    let of_containers = changes.iter().map(|change| {
        let record = &change.record;
        (
            &*record.name,
            &*record.cgroup,
            record.resources.as_ref(),
            &change.wanted,
        )
    });
    // v2 would kill for it.
    for (name, path, before, after) in of_containers.chain([of_pod]) {
        let limit = after.memory_bytes_max;
        let known = before.and_then(|before| before.memory_bytes_max);
        let Some(limit) = limit.filter(|limit| known.is_none_or(|known| *limit < known)) else {
            continue;
        };
        let used = used(path).unwrap_or(0);
        if used >= limit.unsigned_abs() {
            let whose = match path == pod_path {
                true => "pod".to_owned(),
                false => format!("container {name:?}"),
            };
            let text = format!(
                "attempting to set {whose} memory limit ({limit}) below current usage ({used})"
            );
            return Err(RuntimeError::Failed(text));
        }
    }
    let between = PodCgroup {
        qos: after.qos,
        resources: larger(&before.resources, &after.resources),
    };
    let mut done = cgroups.make_pod(uid, &between);
    for change in changes {
        done = done.and_then(|()| cgroups.limit(&change.record.cgroup, &change.wanted));
    }
    let done = done.and_then(|()| cgroups.make_pod(uid, after));
    done.map_err(|error| of_io("", &error))
}

/// Room for what is and for what will be. No limit is more than any.
fn larger(a: &CgroupResources, b: &CgroupResources) -> CgroupResources {
    let limit = |a: Option<i64>, b: Option<i64>| Some(a?.max(b?));
    CgroupResources {
        cpu_shares: a.cpu_shares.max(b.cpu_shares),
        cpu_quota_us: limit(a.cpu_quota_us, b.cpu_quota_us),
        memory_bytes_max: limit(a.memory_bytes_max, b.memory_bytes_max),
        ..b.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn between_two_sizes_there_is_room_for_both() {
        let size = |shares, quota, memory| CgroupResources {
            cpu_shares: Some(shares),
            cpu_quota_us: quota,
            memory_bytes_max: memory,
            ..CgroupResources::default()
        };
        for (a, b, between) in [
            (
                size(2, Some(5), Some(9)),
                size(8, Some(3), Some(9)),
                size(8, Some(5), Some(9)),
            ),
            (
                size(9, None, Some(7)),
                size(8, Some(3), Some(8)),
                size(9, None, Some(8)),
            ),
            (
                size(2, Some(4), None),
                size(2, Some(4), Some(8)),
                size(2, Some(4), None),
            ),
        ] {
            assert_eq!(larger(&a, &b), between);
        }
    }
}
