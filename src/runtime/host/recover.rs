//! What a new agent does first: find what the last one left, adopt what works, clear the rest.
//!
//! ```text
//!   boot id differs (RUN is no tmpfs) ─► all records are of processes long gone: remove files only
//!   nothing but CNI's record       ─► left to the kubelet: plugins may be slow
//!   sandbox.json  Ready            ─► reconnect, adopt address, look
//!                 Making, missing  ─► half made: containers? stop it : remove the pod
//!   container.json Making, unknown to the shim ─► half made: remove it
//! ```
//! Pods are independent: one that cannot be recovered is logged and retried by the kubelet's own
//! clean-up, the others live on.

use std::collections::BTreeSet;
use std::fs;
use std::rc::Rc;

use futures_lite::StreamExt;
use futures_lite::stream;

use crate::object::gather::Gather;
use crate::runtime::sandbox::record::{
    self, ContainerPhase, ContainerRecord, SandboxPhase, SandboxRecord,
};
use crate::world::{RuntimeError, Uid};

use super::clean::remove_directory;
use super::{Host, container, make_directory, of_io, sandbox, watch};

const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";

/// Recovers all pods recorded under RUN.
pub async fn recover(host: &Rc<Host>) -> Result<Vec<Uid>, RuntimeError> {
    make_directory(&host.layout.pods())?;
    make_directory(&host.layout.runtime_state())?;
    forget_other_boots(host).await?;
    let uids = recorded(host)?;
    for uid in &uids {
        read_records(host, uid);
    }
    let network = host.network.clone();
    // Of a pod from before a reboot nothing else is left: whoever wants it makes it anew, and the
    // kubelet removes the others.
    for uid in blocking::unblock(move || network.restore()).await {
        host.mirror.change(&uid, |_| {});
    }
    let tasks: Vec<_> = uids
        .iter()
        .map(|uid| {
            let (host, uid) = (host.clone(), uid.clone());
            let executor = host.executor.clone();
            executor.spawn(async move {
                if let Err(error) = recover_pod(&host, &uid).await {
                    log::warn!("recover pod {uid}: {error}");
                }
            })
        })
        .collect();
    // Started together, awaited one after another.
    stream::iter(tasks).then(|task| task).for_each(drop).await;
    remove_foreign_runtime_state(host);
    let left: BTreeSet<Uid> = host.mirror.uids().into_iter().gathered();
    Ok(left.into_iter().collect())
}

/// Directories of pods under RUN, sorted. What is no safe name was not made by us.
fn recorded(host: &Host) -> Result<Vec<Uid>, RuntimeError> {
    let directory = host.layout.pods();
    let named = |error| of_io(&format!("list {}", directory.display()), &error);
    let mut uids = Vec::new();
    for entry in fs::read_dir(&directory).map_err(named)? {
        let name = entry.map_err(named)?.file_name();
        uids.extend(name.to_str().and_then(Uid::new));
    }
    uids.sort();
    Ok(uids)
}

/// After a reboot nothing that the records name exists any more, and pids name others.
async fn forget_other_boots(host: &Host) -> Result<(), RuntimeError> {
    let boot_id = fs::read(BOOT_ID).map_err(|error| of_io(&format!("read {BOOT_ID}"), &error))?;
    let path = host.layout.boot_id();
    if fs::read(&path).ok().as_deref() == Some(&boot_id) {
        return Ok(());
    }
    let layout = host.layout.clone();
    let removed = blocking::unblock(move || {
        let mut problems = remove_directory(&layout.pods());
        problems.join(remove_directory(&layout.runtime_state()));
        problems.into_result()
    });
    removed.await.map_err(RuntimeError::Failed)?;
    make_directory(&host.layout.pods())?;
    make_directory(&host.layout.runtime_state())?;
    fs::write(&path, boot_id).map_err(|e| of_io(&format!("write {}", path.display()), &e))
}

/// Fills the mirror and the network's leases from one pod's records.
fn read_records(host: &Host, uid: &Uid) {
    let sandbox = readable(record::read::<SandboxRecord>(
        &host.layout.sandbox_record(uid),
    ));
    let mut containers = Vec::new();
    let entries = fs::read_dir(host.layout.containers(uid));
    for entry in entries.into_iter().flatten().flatten() {
        let file = entry.path().join("container.json");
        containers.extend(readable(record::read::<ContainerRecord>(&file)));
    }
    let mut dead = None;
    if let Some(sandbox) = &sandbox {
        let lease = sandbox.lease.as_ref();
        if lease.is_some_and(|lease| !host.network.adopt(uid, lease)) {
            dead = Some("its address is not in the pod network any more".to_string());
        }
        if let Err(error) = host.cgroups.note_pod(uid, &sandbox.config.cgroup) {
            log::warn!("cgroup shares of pod {uid}: {error}");
        }
    }
    for record in &containers {
        host.rotated_logs.watch(&record.log);
    }
    host.mirror.change(uid, |pod| {
        pod.sandbox = sandbox;
        pod.dead = dead;
        for record in containers {
            let slot = (record.name.clone(), record.attempt);
            pod.containers.insert(slot, Box::new(record));
        }
    });
}

/// A record that cannot be read is as good as none: what it was of is cleared away.
fn readable<T>(record: std::io::Result<Option<T>>) -> Option<T> {
    record.unwrap_or_else(|error| {
        log::warn!("{error}; the pod is made anew");
        None
    })
}

async fn recover_pod(host: &Rc<Host>, uid: &Uid) -> Result<(), RuntimeError> {
    let read = host.mirror.read(uid, |pod| {
        let phase = pod.sandbox.as_ref().map(|record| record.phase.clone());
        (phase, pod.containers.is_empty())
    });
    let (phase, no_containers) = read.unwrap_or((None, true));
    match phase {
        None => return Ok(sandbox::remove(host, uid).await?),
        Some(SandboxPhase::Making) if no_containers => {
            return Ok(sandbox::remove(host, uid).await?);
        }
        Some(SandboxPhase::Making | SandboxPhase::Ready { .. } | SandboxPhase::Stopped) => {}
    }
    let client = host.connect(uid).await?;
    if let Err(error) = watch::look(host, uid).await {
        log::warn!("look at pod {uid}: {error}; its watcher tries again");
    }
    let listing = client.list().await?;
    let records = host.mirror.read(uid, |pod| {
        pod.containers.values().cloned().collect::<Vec<_>>()
    });
    for record in records.unwrap_or_default() {
        let directory = format!("{}.{}", record.name, record.attempt);
        let known = listing.containers.iter().any(|c| c.container == directory);
        match record.phase {
            ContainerPhase::Making if !known && watch::seen_exit(host, uid, &record).is_none() => {
                container::take_away(host, uid, &record).await?;
            }
            ContainerPhase::Making | ContainerPhase::Started { .. } | ContainerPhase::Ended(_) => {}
        }
    }
    if phase == Some(SandboxPhase::Making) {
        sandbox::stop(host, uid).await?;
    }
    Ok(())
}

/// State of the OCI runtime for containers that no record names: a crash of the runtime itself.
fn remove_foreign_runtime_state(host: &Host) {
    let mut known = BTreeSet::new();
    for uid in host.mirror.uids() {
        host.mirror.read(&uid, |pod| {
            known.extend(pod.containers.values().map(|record| record.id.to_string()));
        });
    }
    let entries = fs::read_dir(host.layout.runtime_state());
    for entry in entries.into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        if !known.contains(&name) {
            let removed = remove_directory(&entry.path()).into_result();
            if let Err(error) = removed {
                log::warn!("stale state of the OCI runtime: {error}");
            }
        }
    }
}
