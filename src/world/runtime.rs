//! Sandboxes and containers as the node loop sees them: configurations going in, observations
//! coming out. The shapes follow the CRI (k8s.io/cri-api), in OCI's words.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::LocalFuture;
use super::clock::Stamp;

/// A pod's UID: what cgroups, directories and workers are keyed by.
///
/// Checked where pods enter: 1..=128 characters of `[A-Za-z0-9._-]`, no leading dot, so that it is
/// one path component.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Uid(Arc<str>);

impl Uid {
    /// `None` if the text could not be one safe path component.
    pub fn new(text: &str) -> Option<Uid> {
        let safe = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-');
        let fits = (1..=128).contains(&text.len()) && !text.starts_with('.');
        (fits && text.bytes().all(safe)).then(|| Uid(text.into()))
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Uid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A container instance: 64 lower-case hex digits, never reused.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ContainerId(pub Arc<str>);

impl fmt::Display for ContainerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum QosClass {
    Guaranteed,
    Burstable,
    BestEffort,
}

impl QosClass {
    pub fn name(self) -> &'static str {
        match self {
            QosClass::Guaranteed => "Guaranteed",
            QosClass::Burstable => "Burstable",
            QosClass::BestEffort => "BestEffort",
        }
    }
}

/// Limits of one cgroup. Absent means no limit.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CgroupResources {
    /// cgroup v1 `cpu.shares`, 2..=262144; turned into `cpu.weight` on v2.
    pub cpu_shares: Option<u64>,
    /// Microseconds of CPU in each `cpu_period_us`.
    pub cpu_quota_us: Option<i64>,
    pub cpu_period_us: Option<u64>,
    pub memory_bytes_max: Option<i64>,
    pub pids_max: Option<i64>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PodCgroup {
    pub qos: QosClass,
    pub resources: CgroupResources,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Protocol {
    Tcp,
    Udp,
    Sctp,
}

/// What new pods can have of the node's pod network.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PodNetwork {
    #[default]
    Ready,
    /// All but hostPorts.
    NoHostPorts,
    /// Nothing yet.
    NotReady,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PortMapping {
    pub host_ip: Option<IpAddr>,
    pub host_port: u16,
    pub container_port: u16,
    pub protocol: Protocol,
}

/// The pod's resolv.conf, already merged from `dnsPolicy`, `dnsConfig` and the host's file.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Dns {
    pub nameservers: Vec<String>,
    pub searches: Vec<String>,
    pub options: Vec<String>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostAlias {
    pub ip: String,
    pub hostnames: Vec<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum NamespaceMode {
    /// The sandbox's own.
    Pod,
    /// The host's.
    Host,
    /// Each container its own (pid only).
    Container,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Namespaces {
    pub network: NamespaceMode,
    pub ipc: NamespaceMode,
    /// `Pod` when `shareProcessNamespace`, `Host` when `hostPID`, else `Container`.
    pub pid: NamespaceMode,
}

/// What a sandbox is made from. Recorded under RUN, so that an adopting agent knows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SandboxConfig {
    pub uid: Uid,
    pub name: String,
    pub namespace: String,
    /// 0 for the first sandbox of the pod, +1 for each that replaces a dead one.
    pub attempt: u32,
    pub hostname: String,
    /// `<subdomain>.<ns>.svc.<cluster domain>`, if the pod has a subdomain.
    pub domain: Option<String>,
    pub namespaces: Namespaces,
    pub ports: Vec<PortMapping>,
    pub dns: Dns,
    pub host_aliases: Vec<HostAlias>,
    /// In the pod's order, names with dots (`net.ipv4.tcp_syncookies`).
    pub sysctls: Vec<(String, String)>,
    pub cgroup: PodCgroup,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Propagation {
    Private,
    HostToContainer,
    Bidirectional,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum MountSource {
    /// A volume of the pod by name, whole or one path below it (resolved safely when mounted).
    Volume {
        name: String,
        sub_path: Option<String>,
    },
    /// A hostPath volume: the path on the host.
    HostPath {
        path: String,
        sub_path: Option<String>,
    },
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mount {
    /// The volume's name, for error texts.
    pub volume: String,
    pub source: MountSource,
    pub container_path: String,
    pub read_only: bool,
    /// `recursiveReadOnly` resolved: submounts read-only too.
    pub recursive_read_only: bool,
    pub propagation: Propagation,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Capabilities {
    /// Without `CAP_`, upper case; `ALL` allowed.
    pub add: Vec<String>,
    pub drop: Vec<String>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Seccomp {
    Unconfined,
    RuntimeDefault,
    /// A file below ROOT/seccomp, relative and checked.
    Localhost(String),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ProcMount {
    Default,
    Unmasked,
}

/// User-namespace mapping (`hostUsers: false`): container ids 0..size to host ids from `host`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct IdMapping {
    pub host: u32,
    pub size: u32,
}

/// The effective securityContext of one container: container over pod, defaults applied.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Security {
    /// `None`: the image's user.
    pub run_as_user: Option<i64>,
    pub run_as_group: Option<i64>,
    pub run_as_non_root: bool,
    pub supplemental_groups: Vec<i64>,
    /// `supplementalGroupsPolicy: Strict`: the image's /etc/group adds nothing.
    pub strict_groups: bool,
    pub fs_group: Option<i64>,
    pub privileged: bool,
    pub capabilities: Capabilities,
    pub no_new_privileges: bool,
    pub read_only_root: bool,
    pub proc_mount: ProcMount,
    pub seccomp: Seccomp,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum TerminationMessagePolicy {
    File,
    FallbackToLogsOnError,
}

/// What one container instance is made from; everything resolved but the image's own part.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContainerConfig {
    pub uid: Uid,
    pub pod_name: String,
    pub namespace: String,
    pub name: String,
    /// The restart count this instance will show.
    pub attempt: u32,
    /// Hash of what a change of restarts the container (name and image).
    pub hash: String,
    /// As written in the pod.
    pub image: String,
    /// `sha256:…` of the image configuration.
    pub image_id: String,
    /// What a status shows of it.
    #[serde(default)]
    pub image_shown: String,
    /// Overrides the image's entrypoint if not empty.
    pub command: Vec<String>,
    /// Overrides the image's cmd if not empty.
    pub args: Vec<String>,
    pub working_dir: Option<String>,
    /// In order; a later one of the same name wins. The image's environment comes before.
    pub env: Vec<(String, String)>,
    pub mounts: Vec<Mount>,
    pub security: Security,
    pub resources: CgroupResources,
    pub oom_score_adj: i32,
    pub stdin: bool,
    /// The input ends with the first attached client that types.
    #[serde(default)]
    pub stdin_once: bool,
    pub tty: bool,
    /// The instance whose pid namespace it joins, instead of the sandbox's mode.
    #[serde(default)]
    pub target: Option<ContainerId>,
    pub termination_message_path: String,
    pub termination_message_policy: TerminationMessagePolicy,
}

/// Why a container instance is no more.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exit {
    /// 0..=255; 128 + signal if a signal ended it; 137 if nobody saw the exit.
    pub code: i32,
    pub signal: Option<i32>,
    /// `Completed`, `Error`, `OOMKilled`, `StartError`, `ContainerStatusUnknown`.
    pub reason: String,
    /// The termination message, at most 4096 bytes.
    pub message: String,
    /// `None` if it never ran.
    pub started: Option<Stamp>,
    pub finished: Stamp,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ContainerState {
    /// Being created: neither running nor ended.
    Created,
    Running {
        started: Stamp,
    },
    Exited(Exit),
}

/// Who a container's first process runs as.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContainerUser {
    pub uid: u32,
    pub gid: u32,
    pub supplemental_groups: Box<[u32]>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ContainerObserved {
    pub id: ContainerId,
    pub name: String,
    pub attempt: u32,
    pub hash: String,
    pub image: String,
    pub image_id: String,
    /// What a status shows of it; empty if it was made before that was noted.
    pub image_shown: String,
    pub created: Stamp,
    pub state: ContainerState,
    /// `None` until it is worked out.
    pub user: Option<ContainerUser>,
    /// What its cgroup was given last; `None` if it was made before that was noted.
    pub resources: Option<CgroupResources>,
}

impl ContainerObserved {
    /// What a status shows as imageID.
    pub fn image_shown(&self) -> &str {
        match self.image_shown.is_empty() {
            true => &self.image_id,
            false => &self.image_shown,
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SandboxState {
    Ready,
    /// Pause died, a namespace is gone, or making it was interrupted; with the reason.
    Dead(String),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SandboxObserved {
    pub attempt: u32,
    pub state: SandboxState,
    /// Empty for hostNetwork.
    pub ips: Vec<IpAddr>,
    pub host_network: bool,
    pub created: Stamp,
    /// What the pod's cgroup was given last, but for its number of processes.
    pub resources: Option<CgroupResources>,
}

/// Everything that exists of one pod in kernel and RUN.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PodObserved {
    pub sandbox: Option<SandboxObserved>,
    /// All recorded instances, ordered by name, then attempt.
    pub containers: Vec<ContainerObserved>,
}

/// Other limits for a pod that runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resize {
    pub uid: Uid,
    /// Of the pod as a whole, but for its number of processes, which stays.
    pub pod: CgroupResources,
    pub containers: Vec<(ContainerId, CgroupResources)>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExecRequest {
    pub uid: Uid,
    pub container: ContainerId,
    pub command: Vec<String>,
    /// Counted from the start of the command; `None` = no limit.
    pub timeout: Option<Duration>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ExecOutcome {
    /// Exit code with the head of stdout and stderr together (at most 10 KiB).
    Exited { code: i32, output: Vec<u8> },
    /// Killed, with its whole process group, because the time was up.
    TimedOut { output: Vec<u8> },
}

/// Why a step failed, by what the node does next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RuntimeError {
    /// The pod, sandbox or container does not exist (any more).
    NotFound(String),
    /// The configuration cannot work until somebody changes it: `CreateContainerConfigError`.
    Config(String),
    /// Making or starting failed: `CreateContainerError`, `FailedCreatePodSandBox` …; retried.
    Failed(String),
    /// The command in the image could not be started: `StartError`, code 126, 127 or 128.
    Start { code: i32, message: String },
    /// No space, read-only: retried, shown as a node condition.
    Disk(String),
    /// The runtime or the shim did not answer in time.
    Timeout(String),
}

impl fmt::Display for RuntimeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            RuntimeError::NotFound(text)
            | RuntimeError::Config(text)
            | RuntimeError::Failed(text)
            | RuntimeError::Disk(text)
            | RuntimeError::Timeout(text)
            | RuntimeError::Start { message: text, .. } => f.write_str(text),
        }
    }
}

impl std::error::Error for RuntimeError {}

/// Why a pod or its volumes could not be removed whole, by whether somebody may take its place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RemoveError {
    /// Something of it may still run or be mounted: its place is taken.
    Held(String),
    /// Nothing of it is left but files, which cannot be removed now (a read-only disk): its place
    /// is free, the files are to be removed later by the same call.
    Files(String),
}

impl fmt::Display for RemoveError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            RemoveError::Held(text) | RemoveError::Files(text) => f.write_str(text),
        }
    }
}

impl std::error::Error for RemoveError {}

impl From<RemoveError> for RuntimeError {
    fn from(error: RemoveError) -> RuntimeError {
        match error {
            RemoveError::Held(text) => RuntimeError::Failed(text),
            RemoveError::Files(text) => RuntimeError::Disk(text),
        }
    }
}

/// Drives sandboxes and containers; implemented by `runtime` over shims and an OCI runtime.
///
/// Every call is idempotent in the sense that repeating it after a crash of the agent converges;
/// none of them waits for a container to exit.
pub trait Runtime {
    /// Pods recorded under RUN, whichever agent started them. Reconnects to their shims.
    fn recover(&self) -> LocalFuture<'_, Result<Vec<Uid>, RuntimeError>>;

    /// What exists of a pod now. Cheap: kept current by the shims' wake-ups.
    fn observe(&self, uid: &Uid) -> PodObserved;

    /// Resolves with a pod whose observation changed. One consumer: the kubelet.
    fn next_change(&self) -> LocalFuture<'_, Uid>;

    /// One more than the highest instance number of which a log is kept, 0 if none is: where a
    /// restart count goes on after RUN was lost. What is kept of instances before the last two goes.
    /// Source: Kubernetes pkg/kubelet/kuberuntime (calcRestartCountByLogDir).
    fn next_attempt(
        &self,
        uid: &Uid,
        namespace: &str,
        pod: &str,
        container: &str,
    ) -> LocalFuture<'_, u32>;

    /// Removes the logs of a pod that nobody wants any more. Success if there are none.
    fn remove_logs(
        &self,
        uid: &Uid,
        namespace: &str,
        pod: &str,
    ) -> LocalFuture<'_, Result<(), RuntimeError>>;

    /// Makes pod cgroup, shim, pause, namespaces, network and pod files.
    /// A dead sandbox of a lower attempt is removed first.
    fn start_sandbox(
        &self,
        config: Arc<SandboxConfig>,
    ) -> LocalFuture<'_, Result<(), RuntimeError>>;

    /// Ends pause and gives network and hostPorts back. Containers should have been stopped;
    /// what still runs in the pod cgroup is killed. Success if there is none.
    fn stop_sandbox(&self, uid: &Uid) -> LocalFuture<'_, Result<(), RuntimeError>>;

    /// Ends the shim and removes every record, mount, cgroup and directory of the pod under RUN
    /// and its writable layers under ROOT. Success if there is nothing.
    fn remove_pod(&self, uid: &Uid) -> LocalFuture<'_, Result<(), RemoveError>>;

    /// Creates and starts one instance; resolves when its command runs (or could not).
    fn start_container(
        &self,
        config: Arc<ContainerConfig>,
    ) -> LocalFuture<'_, Result<ContainerId, RuntimeError>>;

    /// Sends the container's stop signal (the image's STOPSIGNAL, else SIGTERM) to its init.
    fn stop_container(
        &self,
        uid: &Uid,
        id: &ContainerId,
    ) -> LocalFuture<'_, Result<(), RuntimeError>>;

    /// Kills every process of the container. The exit arrives as a change.
    fn kill_container(
        &self,
        uid: &Uid,
        id: &ContainerId,
    ) -> LocalFuture<'_, Result<(), RuntimeError>>;

    /// Removes record, mounts and writable layer of an ended instance.
    fn remove_container(
        &self,
        uid: &Uid,
        id: &ContainerId,
    ) -> LocalFuture<'_, Result<(), RuntimeError>>;

    /// Gives a running pod and running containers of it other limits; their processes go on.
    /// Errors: `NotFound`; `Failed` if more memory is in use than would be allowed, or the kernel
    /// refuses.
    fn resize(&self, resize: Resize) -> LocalFuture<'_, Result<(), RuntimeError>>;

    /// Runs a command inside a running container to its end.
    fn exec(&self, request: ExecRequest) -> LocalFuture<'_, Result<ExecOutcome, RuntimeError>>;
}
