//! Making and unmaking a pod's sandbox.
//!
//! ```text
//!   record(Making) ─► cgroup ∥ shim ∥ files ─► pause ─► network ─► record(Ready)
//!                 any failure ─► everything is taken away again, errors of that are logged
//!   stop:    kill what is in the cgroup, pause, network ─► record(Stopped)
//!   remove:  stop, containers, shim, mounts, cgroups, directories
//! ```
//! Stop and remove may be repeated, after a crash too; they go on after an error and tell all.

use std::fs::{self, File};
use std::io;
use std::net::IpAddr;
use std::os::fd::AsFd;
use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use futures_lite::future::zip;

use crate::os::file;
use crate::os::mount::{self, Flags};
use crate::os::process::ProcessIdentity;
use crate::runtime::network::NetworkError;
use crate::runtime::sandbox::files;
use crate::runtime::sandbox::record::{SandboxPhase, SandboxRecord, VERSION};
use crate::runtime::shim::client::connect;
use crate::runtime::shim::record::PodDirectory;
use crate::runtime::shim::wire::{Own, PauseConfig};
use crate::world::{NamespaceMode, RemoveError, RuntimeError, SandboxConfig, Uid};

use super::clean::{Problems, remove_directory, remove_file};
use super::{Host, Layout, container, mirror, of_io};

/// Pause is ready in a few milliseconds; a machine that swaps may need much longer.
const PAUSE_DEADLINE_MS: u64 = 60_000;
/// Source: Kubernetes pkg/kubelet/qos, PodInfraOOMAdj (-998).
const PAUSE_OOM_SCORE_ADJ: i32 = -998;
/// Source: CRI runtimes' default for /dev/shm.
const SHM_OPTIONS: &std::ffi::CStr = c"size=65536k,mode=1777";
/// How long killed processes may take to be gone before the removal is given up for now.
const DEATH_TIME: Duration = Duration::from_secs(10);
/// First pause between two looks at a dying cgroup; doubled each time.
const DEATH_POLL_FIRST: Duration = Duration::from_millis(1);
const DEATH_POLL_MAX: Duration = Duration::from_millis(100);
/// signal(7), the same on all our architectures.
const SIGKILL: i32 = 9;

/// Makes the sandbox, or finds it ready. One that is dead or half made is taken away first.
pub async fn start(host: &Rc<Host>, config: Arc<SandboxConfig>) -> Result<(), RuntimeError> {
    let uid = config.uid.clone();
    let standing = host.mirror.read(&uid, |pod| {
        let record = pod.sandbox.as_ref()?;
        let ready = matches!(record.phase, SandboxPhase::Ready { .. }) && pod.dead.is_none();
        Some(ready && record.config.attempt == config.attempt)
    });
    match standing.flatten() {
        Some(true) => return Ok(()),
        Some(false) => replace(host, &uid).await?,
        None => {}
    }
    let outcome = make(host, config).await;
    if let Err(error) = &outcome {
        log::debug!("sandbox of pod {uid} failed ({error}); taking it away");
        let has_containers = host.mirror.read(&uid, |pod| !pod.containers.is_empty());
        let cleaned = match has_containers {
            Some(true) => stop(host, &uid).await,
            Some(false) | None => remove(host, &uid).await.map_err(RuntimeError::from),
        };
        if let Err(left) = cleaned {
            log::warn!("clean up after the failed sandbox of pod {uid}: {left}; tried again later");
        }
    }
    outcome
}

/// Clears a sandbox away for its successor, cgroup included: once a v2 cgroup was killed, kernels
/// with `kill_seq` (Linux 6.15) kill what is cloned into it from a cgroup that was not
/// (kernel/cgroup/cgroup.c, cgroup_post_fork), and a new directory starts afresh.
async fn replace(host: &Rc<Host>, uid: &Uid) -> Result<(), RuntimeError> {
    stop(host, uid).await?;
    let emptied = wait_until_empty(host, uid).await;
    emptied.map_err(RuntimeError::Timeout)?;
    let (cgroups, pod) = (host.cgroups.clone(), uid.clone());
    let removed = blocking::unblock(move || cgroups.remove_pod(&pod)).await;
    removed.map_err(|error| of_io("", &error))
}

/// What a power cut has left of instances that nobody knows any more.
async fn remove_old_layers(host: &Rc<Host>, uid: &Uid) {
    let known = host.mirror.read(uid, |pod| pod.containers.is_empty());
    if known == Some(false) {
        return;
    }
    let layers = host.layout.writable_layers(uid);
    let removed = blocking::unblock(move || remove_directory(&layers)).await;
    if let Err(error) = removed.into_result() {
        log::warn!("{error}; left there");
    }
}

async fn make(host: &Rc<Host>, config: Arc<SandboxConfig>) -> Result<(), RuntimeError> {
    let uid = &config.uid;
    let lease = match config.namespaces.network {
        NamespaceMode::Host => None,
        NamespaceMode::Pod | NamespaceMode::Container => {
            host.network.lease(&config).map_err(of_network)?
        }
    };
    let mut record = SandboxRecord {
        version: VERSION,
        config: (*config).clone(),
        created: host.stamp(),
        phase: SandboxPhase::Making,
        lease,
        addresses: Vec::new(),
    };
    host.record_sandbox(&record)?;
    // A removal that was given up may have been before.
    host.mirror.change(uid, |pod| pod.leaving = false);

    remove_old_layers(host, uid).await;
    let cgroups = host.cgroups.clone();
    let (pod, for_cgroup) = (uid.clone(), config.cgroup.clone());
    let cgroup = blocking::unblock(move || cgroups.make_pod(&pod, &for_cgroup));
    let cgroup = async { cgroup.await.map_err(|error| of_io("", &error)) };
    let (layout, for_files) = (host.layout.clone(), record.clone());
    let files = blocking::unblock(move || write_files(&layout, &for_files));
    // All to their end, whatever the others say: what is cleared away must not come back.
    let (client, (cgroup, files)) = zip(host.connect(uid), zip(cgroup, files)).await;
    cgroup?;
    files?;
    let client = client?;

    let pause = client
        .start_pause(pause_config(host, &config))
        .await?
        .process;
    if config.namespaces.network != NamespaceMode::Host {
        record.addresses = attach(host, &record, pause).await?;
    }
    record.phase = SandboxPhase::Ready { pause };
    host.record_sandbox(&record)
}

fn pause_config(host: &Host, config: &SandboxConfig) -> PauseConfig {
    let own = |mode| match mode {
        NamespaceMode::Pod => Own::Pod,
        NamespaceMode::Host | NamespaceMode::Container => Own::Host,
    };
    let path = host.cgroups.pause_path(config.cgroup.qos, &config.uid);
    PauseConfig {
        network: own(config.namespaces.network),
        ipc: own(config.namespaces.ipc),
        // A pod of the host's network has the host's name.
        uts: own(config.namespaces.network),
        pid: own(config.namespaces.pid),
        hostname: config.hostname.clone(),
        sysctls: config.sysctls.clone(),
        cgroup: host.cgroups.join(&path),
        oom_score_adj: Some(PAUSE_OOM_SCORE_ADJ),
        deadline_ms: PAUSE_DEADLINE_MS,
    }
}

/// Returns the addresses that nobody knew before.
async fn attach(
    host: &Host,
    record: &SandboxRecord,
    pause: ProcessIdentity,
) -> Result<Vec<IpAddr>, RuntimeError> {
    let (network, layout) = (host.network.clone(), host.layout.clone());
    let mut record = record.clone();
    let attach = move || {
        let config = &record.config;
        let namespace = namespace(pause)
            .map_err(|error| of_io(&format!("find the network of pod {}", config.uid), &error))?;
        let attached = network.attach(config, record.lease.as_ref(), namespace.as_fd());
        record.addresses = attached.map_err(of_network)?;
        if !record.addresses.is_empty() {
            write_hosts(&layout, &record)?;
        }
        Ok(record.addresses)
    };
    blocking::unblock(attach).await
}

/// The network namespace that pause holds.
fn namespace(pause: ProcessIdentity) -> io::Result<File> {
    let path = format!("/proc/{}/ns/net", pause.pid);
    let file = File::open(&path)
        .map_err(|error| io::Error::new(error.kind(), format!("open {path}: {error}")))?;
    // Checked after opening: the descriptor is pause's, or pause is gone.
    match pause.is_alive() {
        true => Ok(file),
        false => Err(io::Error::other(format!(
            "pause {} died at once",
            pause.pid
        ))),
    }
}

fn of_network(error: NetworkError) -> RuntimeError {
    // A taken hostPort or a busy range may be free at the next try: retried, not a config error.
    RuntimeError::Failed(error.to_string())
}

/// The files that all containers share. Blocking: `etc-hosts` lies under ROOT.
fn write_files(layout: &Layout, record: &SandboxRecord) -> Result<(), RuntimeError> {
    let config = &record.config;
    let uid = &config.uid;
    super::make_directory(&layout.pod_root(uid))?;
    write_hosts(layout, record)?;
    write(&layout.resolv_conf(uid), files::resolv_conf(&config.dns))?;
    write(&layout.hostname(uid), format!("{}\n", config.hostname))?;
    match config.namespaces.ipc {
        NamespaceMode::Pod | NamespaceMode::Container => mount_shm(&layout.shm(uid)),
        NamespaceMode::Host => Ok(()),
    }
}

fn write_hosts(layout: &Layout, record: &SandboxRecord) -> Result<(), RuntimeError> {
    let config = &record.config;
    let node_hosts = match config.namespaces.network {
        NamespaceMode::Host => fs::read_to_string("/etc/hosts").unwrap_or_default(),
        NamespaceMode::Pod | NamespaceMode::Container => String::new(),
    };
    let hosts = files::hosts(config, &mirror::ips(record), &node_hosts);
    write(&layout.etc_hosts(&config.uid), hosts)
}

fn write(path: &Path, text: String) -> Result<(), RuntimeError> {
    let written = fs::write(path, text);
    written.map_err(|error| of_io(&format!("write {}", path.display()), &error))
}

fn mount_shm(target: &Path) -> Result<(), RuntimeError> {
    super::make_directory(target)?;
    // An earlier attempt's, with what its containers left in it.
    super::rootfs::unmount(target).map_err(|error| of_io("", &error))?;
    let flags = Flags::NOSUID | Flags::NODEV | Flags::NOEXEC;
    mount::mount("shm", target, "tmpfs", flags, SHM_OPTIONS)
        .map_err(|error| of_io(&format!("mount tmpfs on {}", target.display()), &error))
}

/// Ends everything that runs in the pod and gives its network back.
pub async fn stop(host: &Rc<Host>, uid: &Uid) -> Result<(), RuntimeError> {
    let Some(Some(mut record)) = host.mirror.read(uid, |pod| pod.sandbox.clone()) else {
        return Ok(());
    };
    if record.phase == SandboxPhase::Stopped {
        return Ok(());
    }
    let mut problems = Problems::default();
    // Held over the end of pause: what was made in it can be taken down properly.
    let namespace = match record.phase {
        SandboxPhase::Ready { pause } => namespace(pause).ok(),
        SandboxPhase::Making | SandboxPhase::Stopped => None,
    };
    let cgroups = host.cgroups.clone();
    let path = host.cgroups.pod_path(record.config.cgroup.qos, uid);
    problems.note(blocking::unblock(move || cgroups.kill(&path)).await);
    // Pause was killed with the rest; this waits until it is reaped. A lost shim has none.
    if let Some(client) = host.mirror.client(uid)
        && let Err(error) = client.stop_pause().await
        && !client.is_lost()
    {
        problems.note(Err(error));
    }
    let (network, pod) = (host.network.clone(), uid.clone());
    let release = move || network.release(&pod, namespace.as_ref().map(File::as_fd));
    problems.note(blocking::unblock(release).await);
    let outcome = problems.into_result().map_err(RuntimeError::Failed);
    if outcome.is_ok() {
        record.phase = SandboxPhase::Stopped;
        record.lease = None;
        record.addresses.clear();
        host.record_sandbox(&record)?;
    }
    outcome
}

/// Takes away everything of the pod that this runtime made. With `Files` nothing is known of it
/// any more here; the same call later removes what is left.
pub async fn remove(host: &Rc<Host>, uid: &Uid) -> Result<(), RemoveError> {
    let mut problems = Problems::default();
    problems.note(stop(host, uid).await);
    // A pod without a sandbox record (a crash before it) may still have a lease in memory.
    let (network, pod) = (host.network.clone(), uid.clone());
    problems.note(blocking::unblock(move || network.release(&pod, None)).await);
    problems.note(wait_until_empty(host, uid).await);
    let containers = host.mirror.read(uid, |pod| {
        pod.containers.values().cloned().collect::<Vec<_>>()
    });
    for record in containers.unwrap_or_default() {
        problems.note_removal(container::take_away(host, uid, &record).await);
    }
    host.mirror.change(uid, |pod| pod.leaving = true);
    // No longer than a shim has time to answer.
    while host.mirror.is_connecting(uid) {
        host.clock
            .sleep_until(host.clock.now() + DEATH_POLL_MAX)
            .await;
    }
    problems.note(end_shim(host, uid).await);
    let (layout, cgroups, pod) = (host.layout.clone(), host.cgroups.clone(), uid.clone());
    problems.join(blocking::unblock(move || remove_directories(&layout, &cgroups, &pod)).await);
    let outcome = problems.into_removal();
    match &outcome {
        Ok(()) | Err(RemoveError::Files(_)) => host.mirror.forget(uid),
        Err(RemoveError::Held(_)) => {}
    }
    outcome
}

fn remove_directories(
    layout: &Layout,
    cgroups: &crate::runtime::cgroup::Cgroups,
    uid: &Uid,
) -> Problems {
    let mut problems = Problems::default();
    problems.note(cgroups.remove_pod(uid));
    problems.join(remove_directory(&layout.writable_layers(uid)));
    problems.join(remove_directory(&layout.pod_root(uid).join("containers")));
    problems.note_files(remove_file(&layout.etc_hosts(uid)));
    let pod_root = layout.pod_root(uid);
    match pod_root.is_file() {
        true => problems.note_files(remove_file(&pod_root)),
        // Only if nothing of volumes or the kubelet's records is left in it.
        false => drop(fs::remove_dir(&pod_root)),
    }
    problems.join(remove_directory(&layout.pod_run(uid)));
    problems
}

/// Ends the pod's shim, ours or one that a crashed agent left, and waits until it is gone: as long
/// as one lives it holds the lock. One that does not end by itself is killed.
async fn end_shim(host: &Host, uid: &Uid) -> Result<(), String> {
    let directory = PodDirectory::new(&host.layout.run, uid);
    let deadline = host.clock.now() + DEATH_TIME;
    let mut pause = DEATH_POLL_FIRST;
    loop {
        match file::lock(&directory.lock()) {
            Ok(_nobody_else) => return Ok(()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(format!("lock {}: {error}", directory.lock().display())),
        }
        if host.clock.now() >= deadline {
            return kill_shim(&directory);
        }
        ask_shim_to_end(host, uid, &directory).await;
        host.clock.sleep_until(host.clock.now() + pause).await;
        pause = (pause * 2).min(DEATH_POLL_MAX);
    }
}

/// What goes wrong here shows in the lock, which is looked at next.
async fn ask_shim_to_end(host: &Host, uid: &Uid, directory: &PodDirectory) {
    let told = match host.mirror.client(uid) {
        Some(client) => client.shutdown().await,
        None => match connect(directory, host.clock.clone()).await {
            Ok(connection) => {
                let driver = async {
                    connection.driver.await;
                    Ok(())
                };
                futures_lite::future::or(connection.client.shutdown(), driver).await
            }
            Err(error) => Err(error),
        },
    };
    if let Err(error) = told {
        log::debug!("end the shim of pod {uid}: {error}; looking again");
    }
}

/// By pid and start time, so that no stranger is hit.
fn kill_shim(directory: &PodDirectory) -> Result<(), String> {
    let path = directory.shim_pid();
    let named = |error: &dyn std::fmt::Display| format!("kill shim of {}: {error}", path.display());
    let text = fs::read_to_string(&path).map_err(|error| named(&error))?;
    let mut numbers = text.split_ascii_whitespace();
    let identity = numbers.next().and_then(|pid| {
        Some(ProcessIdentity {
            pid: pid.parse().ok()?,
            start_ticks: numbers.next()?.parse().ok()?,
        })
    });
    let identity = identity.ok_or_else(|| named(&"no pid and start time"))?;
    match identity.open().and_then(|shim| shim.signal(SIGKILL)) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(named(&error)),
        Ok(()) | Err(_) => Ok(()),
    }
}

/// Waits until no process is left in the pod's cgroups: only then can they be removed.
async fn wait_until_empty(host: &Host, uid: &Uid) -> Result<(), String> {
    let deadline = host.clock.now() + DEATH_TIME;
    let mut pause = DEATH_POLL_FIRST;
    loop {
        let (cgroups, pod) = (host.cgroups.clone(), uid.clone());
        let populated = blocking::unblock(move || cgroups.is_pod_populated(&pod)).await;
        if !populated.map_err(|error| error.to_string())? {
            return Ok(());
        }
        if host.clock.now() >= deadline {
            let time = DEATH_TIME.as_secs();
            return Err(format!(
                "processes of pod {uid} live {time} s after SIGKILL"
            ));
        }
        host.clock.sleep_until(host.clock.now() + pause).await;
        pause = (pause * 2).min(DEATH_POLL_MAX);
    }
}
