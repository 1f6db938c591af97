//! One container instance: from record to running command, and back to nothing.
//!
//! ```text
//!   record(Making) ─► root, bundle ─► shim: runtime run ─► record(Started) ─► … ─► record(Ended)
//!         └── failed before its command ran: nothing is left; the command itself cannot start:
//!             an ended instance with reason StartError
//! ```
//! `watch` sees the end; `remove` takes away what an ended instance has.

use std::rc::Rc;
use std::sync::Arc;

use crate::object::label_problem;
use crate::os::process::ProcessIdentity;
use crate::runtime::sandbox::record::{
    ContainerPhase, ContainerRecord, SandboxPhase, SandboxRecord, VERSION,
};
use crate::runtime::shim::client::{Client, ShimError};
use crate::runtime::shim::wire::{Failure, ListedState, LogConfig, RunRequest, Stdin, Terminal};
use crate::runtime::volumes::clean_subpaths;
use crate::world::{ContainerConfig, ContainerId, RemoveError, RuntimeError, Uid};

use super::clean::{Problems, remove_directory, remove_file};
use super::prepare::Preparation;
use super::{Host, ImageParts, exit, instance, rootfs, watch};

/// Source: Kubernetes' `runtimeRequestTimeout`, 2 minutes.
const RUN_DEADLINE_MS: u64 = 120_000;
/// signal(7), where the image names none.
const SIGTERM: i32 = 15;
/// SIGRTMIN as the C library counts it, where images' `RTMIN+n` start.
const SIGRTMIN: i32 = 34;
const SIGNAL_MAX: i32 = 64;
/// Rounds of `runtime delete` and cgroup removal while killed processes die.
const REMOVE_ROUNDS_MAX: u32 = 8;
/// First pause between two of them; doubled each time, 255 ms in all.
const REMOVE_PAUSE_MS: u64 = 1;
/// Looks at whether the shim still holds an instance that is taken away.
const LET_GO_ROUNDS_MAX: u32 = 9;
/// First pause between two of them; doubled each time, 5 s in all.
const LET_GO_PAUSE_MS: u64 = 10;

/// Creates and starts an instance; the same attempt again is the same instance.
pub async fn start(
    host: &Rc<Host>,
    config: Arc<ContainerConfig>,
) -> Result<ContainerId, RuntimeError> {
    // The name names directories.
    if label_problem(&config.name).is_some() {
        let why = format!("{:?} is no name of a container", config.name);
        return Err(RuntimeError::Failed(why));
    }
    let uid = config.uid.clone();
    let (sandbox, pause) = ready_sandbox(host, &uid)?;
    let slot = (config.name.clone(), config.attempt);
    let earlier = host
        .mirror
        .read(&uid, |pod| pod.containers.get(&slot).cloned());
    if let Some(record) = earlier.flatten() {
        match record.phase {
            ContainerPhase::Started { .. } => return Ok(record.id),
            ContainerPhase::Making | ContainerPhase::Ended(_) => {
                take_away(host, &uid, &record).await?;
            }
        }
    }
    let image = host
        .images
        .parts(&config.image_id)
        .map_err(RuntimeError::Failed)?;
    let mut record = new_record(host, &config, &sandbox, &image);
    host.record_container(&uid, &record)?;
    let outcome = create(host, &config, (sandbox, pause), &mut record, image).await;
    let Err(error) = outcome else {
        return Ok(record.id);
    };
    // An end that cannot be recorded leaves nothing to see.
    let ended = matches!(&error, RuntimeError::Start { code, message }
        if watch::end(host, &uid, &record, |stamp| exit::not_started(*code, message, stamp)).is_ok());
    if !ended && let Err(left) = take_away(host, &uid, &record).await {
        log::warn!(
            "clean up after container {} of pod {uid}: {left}",
            record.name
        );
    }
    Err(error)
}

pub fn ready_sandbox(
    host: &Host,
    uid: &Uid,
) -> Result<(SandboxRecord, ProcessIdentity), RuntimeError> {
    let found = host.mirror.read(uid, |pod| {
        let record = pod.sandbox.clone().filter(|_| pod.dead.is_none())?;
        match record.phase {
            SandboxPhase::Ready { pause } => Some((record, pause)),
            SandboxPhase::Making | SandboxPhase::Stopped => None,
        }
    });
    let missing = || RuntimeError::NotFound(format!("pod {uid} has no sandbox that is ready"));
    found.flatten().ok_or_else(missing)
}

fn new_record(
    host: &Host,
    config: &ContainerConfig,
    sandbox: &SandboxRecord,
    image: &ImageParts,
) -> ContainerRecord {
    let mut bytes = [0; 32];
    host.random.fill(&mut bytes);
    let id: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    let place = super::Instance {
        uid: &config.uid,
        container: &config.name,
        attempt: config.attempt,
    };
    let pod_cgroup = host
        .cgroups
        .pod_path(sandbox.config.cgroup.qos, &config.uid);
    let signal = image.config.stop_signal.as_deref();
    ContainerRecord {
        version: VERSION,
        name: config.name.clone(),
        attempt: config.attempt,
        pod_name: config.pod_name.clone(),
        namespace: config.namespace.clone(),
        hash: config.hash.clone(),
        image: config.image.clone(),
        image_id: config.image_id.clone(),
        image_shown: config.image_shown.clone(),
        created: host.stamp(),
        stop_signal: signal.and_then(signal_number).unwrap_or(SIGTERM),
        cgroup: format!("{pod_cgroup}/{id}"),
        termination_log: host.layout.termination_log(place, &id[..8]),
        termination_message_policy: config.termination_message_policy,
        log: host.layout.log(&config.namespace, &config.pod_name, place),
        phase: ContainerPhase::Making,
        runtime_state_deleted: false,
        user: None,
        resources: Some(config.resources.clone()),
        id: ContainerId(id.into()),
    }
}

async fn create(
    host: &Rc<Host>,
    config: &Arc<ContainerConfig>,
    (sandbox, pause): (SandboxRecord, ProcessIdentity),
    record: &mut ContainerRecord,
    image: ImageParts,
) -> Result<(), RuntimeError> {
    let uid = &config.uid;
    let preparation = Preparation {
        layout: host.layout.clone(),
        config: config.clone(),
        sandbox,
        pause_pid: pause.pid.unsigned_abs(),
        target_pid: target_pid(host, config).await?,
        record: record.clone(),
        image,
        facts: host.facts.clone(),
    };
    let prepared = blocking::unblock(move || preparation.run()).await?;
    record.user = Some(prepared.user);
    host.record_container(uid, record)?;
    if let Some(clamped) = prepared.clamped {
        log::debug!(
            "container {} of pod {uid}: oom_score_adj {} instead of {}",
            record.name,
            clamped.given,
            clamped.wanted
        );
    }
    host.rotated_logs.watch(&record.log);
    let client = host.connect(uid).await?;
    let started = client.run(run_request(host, config, record)).await?;
    // The wake-up may have been faster, with an exit even: only Making becomes Started.
    let slot = (record.name.clone(), record.attempt);
    let making = host.mirror.read(uid, |pod| {
        pod.containers
            .get(&slot)
            .is_some_and(|r| r.phase == ContainerPhase::Making)
    });
    if making == Some(true) {
        let mut record = record.clone();
        record.phase = ContainerPhase::Started {
            started: started.at,
        };
        host.record_container(uid, &record)?;
    }
    Ok(())
}

/// The init of the instance whose pid namespace is to be joined.
async fn target_pid(
    host: &Rc<Host>,
    config: &ContainerConfig,
) -> Result<Option<u32>, RuntimeError> {
    let Some(target) = &config.target else {
        return Ok(None);
    };
    let listing = host.connect(&config.uid).await?.list().await?;
    let mut listed = listing.containers.iter();
    match listed.find(|c| c.id == *target.0).map(|c| &c.state) {
        Some(ListedState::Running(started)) => Ok(Some(started.process.pid.unsigned_abs())),
        Some(ListedState::Starting) | None => {
            let text = format!("the target container {target} does not run");
            Err(RuntimeError::Failed(text))
        }
    }
}

fn run_request(host: &Host, config: &ContainerConfig, record: &ContainerRecord) -> RunRequest {
    RunRequest {
        container: format!("{}.{}", record.name, record.attempt),
        id: record.id.to_string(),
        runtime: host.oci.prefix(),
        terminal: match config.tty {
            true => Terminal::Yes,
            false => Terminal::No,
        },
        stdin: match config.stdin {
            true => Stdin::Open,
            false => Stdin::Closed,
        },
        stdin_once: config.stdin_once,
        log: Some(LogConfig {
            path: record.log.clone(),
            bytes_max: host.log_limits.bytes_max,
            files_max: host.log_limits.files_max,
        }),
        oom_events: host.cgroups.oom_events(&record.cgroup),
        deadline_ms: RUN_DEADLINE_MS,
    }
}

/// Asks the container's init to end.
pub async fn stop(host: &Rc<Host>, uid: &Uid, id: &ContainerId) -> Result<(), RuntimeError> {
    let record = host.mirror.container(uid, id)?;
    let client: Client = host.connect(uid).await?;
    let name = format!("{}.{}", record.name, record.attempt);
    let asked = client.signal(&name, record.stop_signal).await;
    // It does not run: its end was not heard of.
    if let Err(ShimError::Refused(Failure::NotFound(_))) = asked {
        watch::look(host, uid).await?;
    }
    Ok(asked?)
}

/// Kills every process of the container; the shim sees the end.
pub async fn kill(host: &Rc<Host>, uid: &Uid, id: &ContainerId) -> Result<(), RuntimeError> {
    let record = host.mirror.container(uid, id)?;
    let cgroups = host.cgroups.clone();
    let killed = blocking::unblock(move || cgroups.kill(&record.cgroup)).await;
    killed.map_err(|error| super::of_io("", &error))
}

/// Takes an ended instance away, its logs too. Errors: `Failed` while it runs.
pub async fn remove(host: &Rc<Host>, uid: &Uid, id: &ContainerId) -> Result<(), RuntimeError> {
    let record = match host.mirror.container(uid, id) {
        Err(RuntimeError::NotFound(_)) => return Ok(()),
        outcome => outcome?,
    };
    if let ContainerPhase::Started { .. } = record.phase {
        let text = format!("container {} of pod {uid} still runs", record.name);
        return Err(RuntimeError::Failed(text));
    }
    take_away(host, uid, &record).await?;
    let layout = host.layout.clone();
    let removed = blocking::unblock(move || {
        let mut problems = remove_logs(&record.log);
        let (namespace, pod) = (&record.namespace, &record.pod_name);
        let link = layout.log_link(namespace, pod, &record.name, &record.id);
        problems.note(remove_file(&link));
        problems
    });
    let removed = removed.await;
    removed.into_result().map_err(RuntimeError::Failed)
}

/// Kills what is left of an instance and removes cgroup, mounts, record and writable layer.
/// The log stays, and the link to it: collectors look every now and then. Repeating it is fine.
pub async fn take_away(
    host: &Rc<Host>,
    uid: &Uid,
    record: &ContainerRecord,
) -> Result<(), RemoveError> {
    let mut problems = Problems::default();
    problems.note(release(host, uid, record).await);
    problems.note(let_go(host, uid, record).await);
    let (layout, uid, gone) = (host.layout.clone(), uid.clone(), record.clone());
    let pod = uid.clone();
    // Sub-path binds belong to the name: a later instance may be using them.
    let others = host.mirror.read(&uid, |pod| {
        pod.containers
            .values()
            .filter(|r| r.name == gone.name && r.id != gone.id)
            .count()
    });
    let last = others.unwrap_or(0) == 0;
    let removed = blocking::unblock(move || {
        let mut problems = Problems::default();
        let place = instance(&uid, &gone);
        problems.join(remove_directory(&layout.writable_layer(place)));
        problems.note_files(remove_file(&gone.termination_log));
        if last {
            problems.note_removal(clean_subpaths(&layout.root, &uid, &gone.name));
        }
        // What ran has its link for as long as its log. Who is tried again has another.
        if gone.phase == ContainerPhase::Making {
            let (namespace, pod) = (&gone.namespace, &gone.pod_name);
            let link = layout.log_link(namespace, pod, &gone.name, &gone.id);
            problems.note_files(remove_file(&link));
            // Without a line it would only say that an instance of this number has run.
            if std::fs::metadata(&gone.log).is_ok_and(|log| log.len() == 0) {
                problems.note_files(remove_file(&gone.log));
            }
        }
        // Last: without the record nobody would look for the rest again.
        let outcome = problems.into_removal();
        let mut problems = Problems::default();
        match outcome {
            Ok(()) => problems.join(remove_directory(&layout.bundle(place))),
            Err(error) => problems.note_removal(Err(error)),
        }
        problems
    });
    problems.join(removed.await);
    problems.into_removal()?;
    let slot = (record.name.clone(), record.attempt);
    host.mirror.change(&pod, |pod| {
        if pod.containers.get(&slot).is_some_and(|r| r.id == record.id) {
            pod.containers.remove(&slot);
        }
    });
    Ok(())
}

/// Waits until the shim has let go of the instance, ending it again if need be: the last request of
/// an agent that died may still be at work when the next one clears up.
async fn let_go(host: &Rc<Host>, uid: &Uid, record: &ContainerRecord) -> Result<(), String> {
    let Some(client) = host.mirror.client(uid) else {
        return Ok(());
    };
    let name = format!("{}.{}", record.name, record.attempt);
    for round in 0..LET_GO_ROUNDS_MAX {
        // A shim that is gone holds nothing.
        let Ok(listing) = client.list().await else {
            return Ok(());
        };
        if !listing.containers.iter().any(|held| held.container == name) {
            return Ok(());
        }
        let pause = std::time::Duration::from_millis(LET_GO_PAUSE_MS << round);
        host.clock.sleep_until(host.clock.now() + pause).await;
        release(host, uid, record).await?;
    }
    Err(format!(
        "the shim of pod {uid} still holds container {name}"
    ))
}

/// Gives back what an ended instance holds in the kernel: processes that outlived its init,
/// the OCI runtime's state, its cgroup, the root mount.
pub async fn release(host: &Rc<Host>, uid: &Uid, record: &ContainerRecord) -> Result<(), String> {
    let root = host.layout.bundle(instance(uid, record)).join("rootfs");
    let mut outcome = Ok(());
    for round in 0..REMOVE_ROUNDS_MAX {
        let (cgroups, oci) = (host.cgroups.clone(), host.oci.clone());
        let (cgroup, id, root) = (record.cgroup.clone(), record.id.clone(), root.clone());
        outcome = blocking::unblock(move || {
            let mut problems = Problems::default();
            problems.note(cgroups.kill(&cgroup));
            problems.note(oci.delete_now(&id.0));
            problems.note(cgroups.remove(&cgroup));
            problems.note(rootfs::unmount(&root));
            problems.into_result()
        })
        .await;
        if outcome.is_ok() {
            break;
        }
        let pause = std::time::Duration::from_millis(REMOVE_PAUSE_MS << round);
        host.clock.sleep_until(host.clock.now() + pause).await;
    }
    outcome
}

/// The instance's log and its rotated parts (`0.log.20060102-150405.gz`).
fn remove_logs(log: &std::path::Path) -> Problems {
    let mut problems = Problems::default();
    let (Some(directory), Some(name)) = (log.parent(), log.file_name()) else {
        return problems;
    };
    let rotated = format!("{}.", name.to_string_lossy());
    for entry in std::fs::read_dir(directory).into_iter().flatten().flatten() {
        let found = entry.file_name();
        if found == name || found.to_string_lossy().starts_with(&rotated) {
            problems.note(remove_file(&entry.path()));
        }
    }
    // The container's and the pod's directory, once they are empty.
    for directory in [Some(directory), directory.parent()].into_iter().flatten() {
        let _not_empty = std::fs::remove_dir(directory);
    }
    problems
}

/// `SIGQUIT`, `QUIT`, `3` or `RTMIN+3` as an image's STOPSIGNAL. Numbers of signal(7), the same on
/// x86 and ARM.
fn signal_number(text: &str) -> Option<i32> {
    const NAMES: [(&str, i32); 16] = [
        ("HUP", 1),
        ("INT", 2),
        ("QUIT", 3),
        ("ILL", 4),
        ("TRAP", 5),
        ("ABRT", 6),
        ("BUS", 7),
        ("FPE", 8),
        ("KILL", 9),
        ("USR1", 10),
        ("SEGV", 11),
        ("USR2", 12),
        ("ALRM", 14),
        ("TERM", SIGTERM),
        ("WINCH", 28),
        ("PWR", 30),
    ];
    let upper = text.trim().to_ascii_uppercase();
    let name = upper.strip_prefix("SIG").unwrap_or(&upper);
    let number = match name.strip_prefix("RTMIN") {
        Some("") => Some(SIGRTMIN),
        Some(offset) => {
            let offset: i32 = offset.strip_prefix('+')?.parse().ok()?;
            SIGRTMIN.checked_add(offset)
        }
        None => {
            let named = NAMES.iter().find(|(known, _)| *known == name);
            named
                .map(|(_, number)| *number)
                .or_else(|| name.parse().ok())
        }
    };
    number.filter(|number| (1..=SIGNAL_MAX).contains(number))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stop_signals_are_read_in_every_spelling() {
        for (text, number) in [
            ("SIGTERM", Some(15)),
            ("quit", Some(3)),
            ("3", Some(3)),
            ("SIGRTMIN+3", Some(37)),
            ("RTMIN", Some(34)),
            ("RTMIN+31", None),
            ("0", None),
            ("SIGNONSENSE", None),
        ] {
            assert_eq!(signal_number(text), number, "{text}");
        }
    }
}
