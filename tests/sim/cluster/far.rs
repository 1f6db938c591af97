//! The cluster's machine: a second lowtide's registry, admission, controllers and API server.
//!
//! Real: everything from the bytes of a request to the store's pages (`apiserver::Server` on its own
//! executor in this thread, `backend`, `registry`, `controller`, Node authorization, NodeRestriction).
//! Simulated: its disk, its clock and its sockets. It runs no pods.

use std::cell::{Cell, RefCell};
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;

use async_channel::Sender;
use async_executor::Task;
use jiff::{SignedDuration, Timestamp};
use lowtide::admission;
use lowtide::apiserver::authn::{Authenticator, Files, Network, Paths, Peer};
use lowtide::apiserver::authz::{Authorizer, Mode, PolicyFile};
use lowtide::apiserver::backend::{
    self, AttachSession, AttachStart, ExecSession, ExecStart, NodeSide, NodeStatus, PullProgress,
};
use lowtide::apiserver::{self, Server};
use lowtide::controller::{Controllers, Trust};
use lowtide::registry::{self, FaultyDisk, Limits, Medium, Place, Reader, Registry};
use lowtide::world::{
    BootTime, Call, Clock, Detail, Image, LocalFuture, NoAnswer, PullError, Random, Reply,
    RuntimeError, Sample, Uid,
};

use super::sea::{Caller, Shore};
use super::wire::End;
use crate::random::Stream;
use crate::real::{NODE_NAME, issuer};
use crate::run::Executor;
use crate::timeline::{Nanos, Timeline};
use crate::trace::Trace;

/// By which the cluster knows the node.
pub const TOKEN: &str = "n0de";

/// The same time goes by here, on a wall clock of its own.
pub struct FarClock {
    timeline: Rc<Timeline>,
    booted: Cell<Nanos>,
    wall_at_zero: Cell<Timestamp>,
}

impl FarClock {
    pub fn set_wall(&self, wall: Timestamp) {
        let now = SignedDuration::from_nanos(self.timeline.now() as i64);
        let zero = wall.checked_sub(now).unwrap_or(Timestamp::MIN);
        self.wall_at_zero.set(zero);
    }
}

impl Clock for FarClock {
    fn now(&self) -> BootTime {
        let span = self.timeline.now() - self.booted.get();
        BootTime::from_duration(std::time::Duration::from_nanos(span))
    }

    fn wall(&self) -> Timestamp {
        let now = SignedDuration::from_nanos(self.timeline.now() as i64);
        let zero = self.wall_at_zero.get();
        zero.checked_add(now).unwrap_or(Timestamp::MAX)
    }

    fn sleep_until(&self, deadline: BootTime) -> LocalFuture<'static, ()> {
        let span = u64::try_from(deadline.as_duration().as_nanos()).unwrap_or(u64::MAX);
        self.timeline
            .sleep_until(self.booted.get().saturating_add(span))
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Power {
    On,
    Off,
}

pub struct Far {
    timeline: Rc<Timeline>,
    trace: Rc<Trace>,
    pub clock: Rc<FarClock>,
    luck: Stream,
    disk: RefCell<FaultyDisk>,
    power: Cell<Power>,
    process: RefCell<Option<Process>>,
    /// Counts processes.
    starts: Cell<u64>,
    /// Counts restored backups.
    pub restores: Cell<u64>,
    /// Counts losses of power: statuses of pods are not flushed.
    pub outages: Cell<u64>,
}

/// The API server's process.
struct Process {
    executor: Rc<Executor>,
    /// Once it listens.
    open: Rc<RefCell<Option<Open>>>,
    tasks: Rc<RefCell<Vec<Task<()>>>>,
}

struct Open {
    registry: Registry,
    server: Server,
}

impl Far {
    pub fn new(timeline: &Rc<Timeline>, trace: &Rc<Trace>, luck: Stream) -> Rc<Far> {
        Rc::new(Far {
            timeline: Rc::clone(timeline),
            trace: Rc::clone(trace),
            clock: Rc::new(FarClock {
                timeline: Rc::clone(timeline),
                booted: Cell::new(0),
                wall_at_zero: Cell::new(Timestamp::from_second(1_760_000_003).expect("in range")),
            }),
            luck,
            disk: RefCell::default(),
            power: Cell::new(Power::On),
            process: RefCell::default(),
            starts: Cell::new(0),
            restores: Cell::new(0),
            outages: Cell::new(0),
        })
    }

    pub fn reader(&self) -> Option<Reader> {
        let process = self.process.borrow();
        let open = process.as_ref()?.open.borrow();
        Some(open.as_ref()?.registry.reader())
    }

    pub fn tick(&self) -> bool {
        let process = self.process.borrow();
        let executor = process.as_ref().map(|process| Rc::clone(&process.executor));
        drop(process);
        executor.is_some_and(|executor| executor.try_tick())
    }

    pub fn start(&self) {
        self.trace
            .note(|| "== the cluster's API server starts".to_owned());
        if self.power.replace(Power::On) == Power::Off {
            self.clock.booted.set(self.timeline.now());
        }
        self.starts.set(self.starts.get() + 1);
        let luck = self.luck.fork(&format!("process {}", self.starts.get()));
        let process = Process {
            executor: Rc::new(Executor::new()),
            open: Rc::default(),
            tasks: Rc::default(),
        };
        let opening = open(
            self.disk.borrow().clone(),
            Rc::clone(&self.clock) as Rc<dyn Clock>,
            Rc::new(luck),
            Rc::clone(&process.executor),
            (Rc::clone(&process.open), Rc::clone(&process.tasks)),
        );
        let task = process.executor.spawn(opening);
        process.tasks.borrow_mut().push(task);
        self.process.replace(Some(process));
    }

    /// Its process ends without a word.
    pub fn kill(&self) {
        let Some(process) = self.process.take() else {
            return;
        };
        self.trace
            .note(|| "== the cluster's API server dies".to_owned());
        self.timeline.freeze(|| {
            process.open.take();
            process.tasks.take();
            // What was cancelled is dropped where it would have been polled.
            while process.executor.try_tick() {}
        });
    }

    /// Its machine is without power until it is started again.
    pub fn cut_power(&self) {
        self.trace
            .note(|| "== the cluster's machine loses its power".to_owned());
        self.power.set(Power::Off);
        self.outages.set(self.outages.get() + 1);
        self.disk.borrow().cut_power(|| self.luck.chance(500));
        self.kill();
    }

    /// What a backup of its disk holds now.
    pub fn backup(&self) -> FaultyDisk {
        copy(&self.disk.borrow())
    }

    /// Another disk is in its place. Nothing runs.
    pub fn restore(&self, backup: &FaultyDisk) {
        self.trace
            .note(|| "== the cluster is restored from a backup".to_owned());
        assert!(self.process.borrow().is_none(), "it was stopped before");
        self.disk.replace(copy(backup));
        self.restores.set(self.restores.get() + 1);
    }
}

/// What lies on a disk for good, on another one.
pub fn copy(disk: &FaultyDisk) -> FaultyDisk {
    let copied = FaultyDisk::new();
    copied.replace(&disk.platter()).expect("a healthy disk");
    if let Ok(Some(key)) = disk.key() {
        copied.keep_key(&key).expect("a healthy disk");
    }
    copied
}

impl Shore for Far {
    fn accept(&self, end: End, caller: Caller) -> bool {
        let process = self.process.borrow();
        let Some(process) = process.as_ref() else {
            return false;
        };
        let open = process.open.borrow();
        let Some(open) = open.as_ref() else {
            return false;
        };
        let server = open.server.clone();
        let peer = match caller {
            Caller::Network => {
                let address = ([192, 0, 2, 1], 1).into();
                Peer::Network(Network::new(address, Vec::new()))
            }
            Caller::Socket => Peer::Local,
        };
        let serve = async move { server.serve(Box::new(end), peer).await };
        let task = process.executor.spawn(serve);
        let mut tasks = process.tasks.borrow_mut();
        tasks.retain(|task| !task.is_finished());
        tasks.push(task);
        true
    }

    fn is_up(&self) -> bool {
        self.power.get() == Power::On
    }
}

type Slots = (Rc<RefCell<Option<Open>>>, Rc<RefCell<Vec<Task<()>>>>);

/// As `node` puts an API server together.
async fn open(
    disk: FaultyDisk,
    clock: Rc<dyn Clock>,
    random: Rc<dyn Random>,
    executor: Rc<Executor>,
    (slot, tasks): Slots,
) {
    let chain = admission::Selection {
        enable: vec!["NodeRestriction".to_owned()],
        ..admission::Selection::default()
    };
    let opened = Registry::open(registry::Options {
        place: Place::Inline(Arc::new(disk)),
        node_name: "cloud".to_owned(),
        clock: Rc::clone(&clock),
        admission: admission::make(&chain.chain(), &random),
        random,
        limits: Limits::default(),
        encryption: Default::default(),
    });
    let (registry, report) = opened.await.expect("a simulated store opens");
    for message in &report.messages {
        log::warn!("cluster: {message}");
    }
    let reader = registry.reader();
    let (backend, requests) = backend::channel();
    let side = Rc::new(NoPods);
    let work = backend::run(requests, side, registry.clone(), Rc::clone(&executor));
    tasks.borrow_mut().push(executor.spawn(work));
    let controllers = Controllers {
        registry: registry.clone(),
        clock: Rc::clone(&clock),
        trust: Trust::new("-----BEGIN CERTIFICATE-----\n"),
        issuer: issuer(),
        api: None,
    };
    controllers.prepare().await;
    tasks.borrow_mut().extend(controllers.start(&executor));
    let policy = PolicyFile::open(None).expect("no policy");
    let accounts = Some((issuer(), reader.clone()));
    let options = apiserver::Options {
        node_name: "cloud".to_owned(),
        kubelet_configuration: "{}".to_owned(),
        pod_logs_dir: PathBuf::from("/nonexistent"),
        figures: Default::default(),
        authenticator: Authenticator::new(tokens(), accounts, false),
        authorizer: Authorizer::new(&[Mode::Node], &policy, &reader),
        limits: apiserver::Limits::default(),
    };
    let server = Server::new(reader, backend, clock, options, executor);
    *slot.borrow_mut() = Some(Open { registry, server });
}

/// Who may come in: the node, by its token.
fn tokens() -> Files {
    let place = tempfile::tempdir().expect("a temporary directory");
    let path = place.path().join("tokens");
    let row = format!("{TOKEN},system:node:{NODE_NAME},1,system:nodes\n");
    std::fs::write(&path, row).expect("written");
    let owner_only = std::fs::Permissions::from_mode(0o600);
    std::fs::set_permissions(&path, owner_only).expect("chmod");
    let paths = Paths {
        tokens: Some(path),
        ..Paths::default()
    };
    Files::load(&paths, "").expect("a token file")
}

/// What a node would do for its API; this one runs nothing.
struct NoPods;

fn nothing<T: 'static>() -> LocalFuture<'static, Result<T, RuntimeError>> {
    Box::pin(async { Err(RuntimeError::NotFound("nothing runs here".to_owned())) })
}

impl NodeSide for NoPods {
    fn exec(&self, _: ExecStart) -> LocalFuture<'_, Result<ExecSession, RuntimeError>> {
        nothing()
    }

    fn attach(&self, _: AttachStart) -> LocalFuture<'_, Result<AttachSession, RuntimeError>> {
        nothing()
    }

    fn connect(
        &self,
        _: Uid,
        _: u16,
    ) -> LocalFuture<'_, Result<std::net::TcpStream, RuntimeError>> {
        nothing()
    }

    fn images(&self) -> Vec<Arc<Image>> {
        Vec::new()
    }

    fn pull(
        &self,
        _: String,
        _: Sender<PullProgress>,
    ) -> LocalFuture<'_, Result<Arc<Image>, PullError>> {
        Box::pin(async { Err(PullError::Refused("no images here".to_owned())) })
    }

    fn import(&self, _: PathBuf) -> LocalFuture<'_, Result<Vec<String>, String>> {
        Box::pin(async { Err("no images here".to_owned()) })
    }

    fn status(&self) -> NodeStatus {
        NodeStatus::default()
    }

    fn stats(&self, _: Detail) -> LocalFuture<'_, Sample> {
        Box::pin(std::future::pending())
    }

    fn review(&self, _: Call) -> LocalFuture<'_, Result<Reply, NoAnswer>> {
        Box::pin(async { Err(NoAnswer::Unusable("no cluster behind this one".to_owned())) })
    }

    fn health(&self) -> Result<(), String> {
        Ok(())
    }
}
