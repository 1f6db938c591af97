//! The node's real runtime: pods as cgroups, namespaces, mounts and processes of this host.
//!
//! ```text
//!   kubelet ──► HostRuntime ──► sandbox    cgroup ∥ shim ∥ files ─► pause ─► network ─► record
//!      ▲            │       ├─► container  record ─► mounts, bundle ─► shim: runc run ─► record
//!      │            │       └─► recover    records ─► reconnect, adopt, clean
//!      └─ changes ── mirror ◄── watch ◄── shims' wake-ups
//! ```
//!
//! Every act writes its record before it makes anything, so that whatever a crash leaves is found
//! by the next agent (`recover`) and taken away. Files under RUN (a tmpfs) are touched directly;
//! everything under ROOT may be a slow card and goes to the blocking pool. Decides nothing about
//! pods: no restarts, no back-off, no grace periods.

mod attach;
mod clean;
mod container;
mod exec;
mod exit;
pub mod facts;
mod forward;
mod layout;
mod mirror;
mod prepare;
mod recover;
mod resize;
mod rootfs;
mod rotated;
mod sandbox;
mod subjects;
mod watch;

use std::fs;
use std::io;
use std::net::TcpStream;
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use async_executor::LocalExecutor;

pub use attach::{AttachStreams, Attachment};
pub use exec::{ExecStreams, StreamedExec};
pub use facts::read as read_facts;
pub use layout::{Instance, Layout};

use crate::os::{remove, task};
use crate::runtime::bundle::HostFacts;
use crate::runtime::cgroup::Cgroups;
use crate::runtime::network::Network;
use crate::runtime::oci::OciRuntime;
use crate::runtime::sandbox::record::{self, ContainerRecord, SandboxRecord};
use crate::runtime::shim::client::{Client, connect_or_spawn};
use crate::runtime::shim::record::PodDirectory;
use crate::world::{
    Clock, ContainerConfig, ContainerId, ExecOutcome, ExecRequest, ImageConfig, LocalFuture,
    PodObserved, Random, RemoveError, Resize, Runtime, RuntimeError, SandboxConfig, Stamp, Uid,
};
use clean::Problems;
use mirror::Mirror;
use rotated::RotatedLogs;

/// What a root file system is made from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImageParts {
    /// Directories, topmost first.
    pub layers: Vec<PathBuf>,
    pub config: ImageConfig,
}

/// Where images come from; the image store.
pub trait ImageSource {
    /// Errors: the image (`sha256:…`) is not here.
    fn parts(&self, image_id: &str) -> Result<ImageParts, String>;
}

/// How much of a container's output is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogLimits {
    /// `--container-log-max-size`
    pub bytes_max: u64,
    /// `--container-log-max-files`: the current one counted; at least 2.
    pub files_max: u32,
    /// How long a rotated file stays as it is, for readers that are behind.
    pub compress_after: Duration,
}

/// What a host runtime is made from; all of it belongs to one node.
pub struct Parts {
    pub clock: Rc<dyn Clock>,
    pub random: Rc<dyn Random>,
    /// Runs the watchers; the node's own.
    pub executor: Rc<LocalExecutor<'static>>,
    pub layout: Layout,
    pub log_limits: LogLimits,
    /// The program that is started as shim: this one.
    pub executable: PathBuf,
    pub facts: HostFacts,
    pub cgroups: Arc<Cgroups>,
    pub network: Network,
    pub oci: OciRuntime,
    pub images: Rc<dyn ImageSource>,
}

/// Implements `world::Runtime` on this host.
pub struct HostRuntime(Rc<Host>);

/// What acts and watchers share.
struct Host {
    clock: Rc<dyn Clock>,
    random: Rc<dyn Random>,
    executor: Rc<LocalExecutor<'static>>,
    layout: Arc<Layout>,
    log_limits: LogLimits,
    rotated_logs: RotatedLogs,
    executable: PathBuf,
    facts: HostFacts,
    cgroups: Arc<Cgroups>,
    network: Arc<Network>,
    oci: Arc<OciRuntime>,
    images: Rc<dyn ImageSource>,
    mirror: Mirror,
}

impl HostRuntime {
    pub fn new(parts: Parts) -> HostRuntime {
        HostRuntime(Rc::new(Host {
            clock: parts.clock.clone(),
            random: parts.random,
            rotated_logs: RotatedLogs::start(
                &parts.executor,
                parts.clock,
                parts.log_limits.compress_after,
            ),
            executor: parts.executor,
            layout: Arc::new(parts.layout),
            log_limits: parts.log_limits,
            executable: parts.executable,
            facts: parts.facts,
            cgroups: parts.cgroups,
            network: Arc::new(parts.network),
            oci: Arc::new(parts.oci),
            images: parts.images,
            mirror: Mirror::default(),
        }))
    }

    /// The pods' network, to be asked what it can give.
    pub fn network(&self) -> Arc<Network> {
        self.0.network.clone()
    }

    /// The OCI runtime in use, for the node's status and logs.
    pub fn oci_runtime(&self) -> &OciRuntime {
        &self.0.oci
    }

    /// Runs a command in a container with descriptors of the caller, or with a terminal.
    /// Resolves when the command runs; its end is `StreamedExec::ended`.
    pub async fn exec_stream(
        &self,
        uid: &Uid,
        container: &ContainerId,
        command: &[String],
        streams: ExecStreams<'_>,
    ) -> Result<StreamedExec, RuntimeError> {
        exec::stream(&self.0, uid, container, command, streams).await
    }

    /// Follows the streams of a running container itself.
    pub async fn attach(
        &self,
        uid: &Uid,
        container: &ContainerId,
        streams: AttachStreams,
    ) -> Result<Attachment, RuntimeError> {
        attach::attach(&self.0, uid, container, streams).await
    }

    /// Connects to a port of `localhost` inside of a pod.
    pub async fn connect(&self, uid: &Uid, port: u16) -> Result<TcpStream, RuntimeError> {
        forward::connect(&self.0, uid, port).await
    }

    /// Removes what the node as a whole made in the kernel (bridge, nft table, QoS cgroups), once
    /// all pods are gone. For `--exit-stops-pods`.
    pub async fn remove_node(&self) -> Result<(), String> {
        let (network, cgroups) = (self.0.network.clone(), self.0.cgroups.clone());
        let record = self.0.layout.cgroups();
        let mut problems = Problems::default();
        blocking::unblock(move || {
            problems.note(network.remove_all());
            problems.note(cgroups.remove_qos(&record));
            problems.into_result()
        })
        .await
    }
}

impl Runtime for HostRuntime {
    fn recover(&self) -> LocalFuture<'_, Result<Vec<Uid>, RuntimeError>> {
        Box::pin(recover::recover(&self.0))
    }

    fn next_attempt(
        &self,
        uid: &Uid,
        namespace: &str,
        pod: &str,
        container: &str,
    ) -> LocalFuture<'_, u32> {
        let instance = Instance {
            uid,
            container,
            attempt: 0,
        };
        let log = self.0.layout.log(namespace, pod, instance);
        let links = self.0.layout.log_links();
        Box::pin(blocking::unblock(move || {
            let next = layout::next_attempt(&log);
            layout::remove_old_logs(&log, next);
            if let Some(directory) = log.parent() {
                layout::remove_dangling(&links, directory);
            }
            next
        }))
    }

    fn remove_logs(
        &self,
        uid: &Uid,
        namespace: &str,
        pod: &str,
    ) -> LocalFuture<'_, Result<(), RuntimeError>> {
        let mut directory = self.0.layout.pod_logs(namespace, pod, uid);
        let (logs, uid) = (self.0.layout.logs.clone(), uid.clone());
        let links = self.0.layout.log_links();
        Box::pin(blocking::unblock(move || {
            if !directory.exists() {
                // Of an orphan nothing but the UID may be known.
                directory = layout::logs_of(&logs, &uid).unwrap_or(directory);
            }
            let removed = remove::path(&directory).map_err(|error| {
                let path = directory.display();
                RuntimeError::Failed(format!("remove {path}: {error}"))
            });
            layout::remove_dangling(&links, &directory);
            removed
        }))
    }

    fn observe(&self, uid: &Uid) -> PodObserved {
        self.0.mirror.observe(uid)
    }

    fn next_change(&self) -> LocalFuture<'_, Uid> {
        Box::pin(self.0.mirror.next_change())
    }

    fn start_sandbox(
        &self,
        config: Arc<SandboxConfig>,
    ) -> LocalFuture<'_, Result<(), RuntimeError>> {
        Box::pin(sandbox::start(&self.0, config))
    }

    fn stop_sandbox(&self, uid: &Uid) -> LocalFuture<'_, Result<(), RuntimeError>> {
        let uid = uid.clone();
        Box::pin(async move { sandbox::stop(&self.0, &uid).await })
    }

    fn remove_pod(&self, uid: &Uid) -> LocalFuture<'_, Result<(), RemoveError>> {
        let uid = uid.clone();
        Box::pin(async move { sandbox::remove(&self.0, &uid).await })
    }

    fn start_container(
        &self,
        config: Arc<ContainerConfig>,
    ) -> LocalFuture<'_, Result<ContainerId, RuntimeError>> {
        Box::pin(container::start(&self.0, config))
    }

    fn stop_container(
        &self,
        uid: &Uid,
        id: &ContainerId,
    ) -> LocalFuture<'_, Result<(), RuntimeError>> {
        let (uid, id) = (uid.clone(), id.clone());
        Box::pin(async move { container::stop(&self.0, &uid, &id).await })
    }

    fn kill_container(
        &self,
        uid: &Uid,
        id: &ContainerId,
    ) -> LocalFuture<'_, Result<(), RuntimeError>> {
        let (uid, id) = (uid.clone(), id.clone());
        Box::pin(async move { container::kill(&self.0, &uid, &id).await })
    }

    fn remove_container(
        &self,
        uid: &Uid,
        id: &ContainerId,
    ) -> LocalFuture<'_, Result<(), RuntimeError>> {
        let (uid, id) = (uid.clone(), id.clone());
        Box::pin(async move { container::remove(&self.0, &uid, &id).await })
    }

    fn resize(&self, resize: Resize) -> LocalFuture<'_, Result<(), RuntimeError>> {
        Box::pin(resize::resize(&self.0, resize))
    }

    fn exec(&self, request: ExecRequest) -> LocalFuture<'_, Result<ExecOutcome, RuntimeError>> {
        Box::pin(exec::captured(&self.0, request))
    }
}

impl Host {
    fn stamp(&self) -> Stamp {
        Stamp {
            boot: self.clock.now(),
            wall: self.clock.wall(),
        }
    }

    /// The pod's shim: the connection we have, else a new one, to a new shim if need be. None for a
    /// pod that is being removed: its directory would be made again. Errors: `NotFound`.
    async fn connect(self: &Rc<Self>, uid: &Uid) -> Result<Client, RuntimeError> {
        if let Some(client) = self.mirror.client(uid) {
            return Ok(client);
        }
        let Some(_removal_waits) = self.mirror.begin_connecting(uid) else {
            return Err(RuntimeError::NotFound(format!("pod {uid} is not here")));
        };
        let directory = PodDirectory::new(&self.layout.run, uid);
        let clock = self.clock.clone();
        let connection =
            connect_or_spawn(&self.layout.run, &directory, &self.executable, clock).await?;
        let client = connection.client;
        task::spawn(&self.executor, connection.driver).detach();
        self.mirror
            .change(uid, |pod| pod.client = Some(client.clone()));
        let watch = watch::watch(Rc::downgrade(self), uid.clone(), connection.changes);
        task::spawn(&self.executor, watch).detach();
        Ok(client)
    }

    /// Writes a sandbox's record, then shows it. RUN is a tmpfs: no need for another thread.
    fn record_sandbox(&self, record: &SandboxRecord) -> Result<(), RuntimeError> {
        let uid = &record.config.uid;
        let path = self.layout.sandbox_record(uid);
        make_directory(&self.layout.containers(uid))?;
        record::write(&path, record).map_err(|error| of_io("", &error))?;
        self.mirror.change(uid, |pod| {
            pod.sandbox = Some(record.clone());
            pod.dead = None;
        });
        Ok(())
    }

    /// Writes a container's record, then shows it.
    fn record_container(&self, uid: &Uid, record: &ContainerRecord) -> Result<(), RuntimeError> {
        let bundle = self.layout.bundle(instance(uid, record));
        make_directory(&bundle)?;
        record::write(&bundle.join("container.json"), record).map_err(|error| of_io("", &error))?;
        let slot = (record.name.clone(), record.attempt);
        self.mirror.change(uid, |pod| {
            pod.containers.insert(slot, Box::new(record.clone()))
        });
        Ok(())
    }
}

/// The place of a recorded instance.
fn instance<'a>(uid: &'a Uid, record: &'a ContainerRecord) -> Instance<'a> {
    Instance {
        uid,
        container: &record.name,
        attempt: record.attempt,
    }
}

fn make_directory(path: &std::path::Path) -> Result<(), RuntimeError> {
    fs::create_dir_all(path).map_err(|error| of_io(&format!("make {}", path.display()), &error))
}

/// An I/O error with what was being done (empty: the error says it), sorted by what the node does.
fn of_io(what: &str, error: &io::Error) -> RuntimeError {
    let text = match what {
        "" => error.to_string(),
        what => format!("{what}: {error}"),
    };
    match error.kind() {
        io::ErrorKind::StorageFull
        | io::ErrorKind::QuotaExceeded
        | io::ErrorKind::ReadOnlyFilesystem => RuntimeError::Disk(text),
        _ => RuntimeError::Failed(text),
    }
}
