//! The composition root: makes the real world, the registry, the sources and the servers of one
//! node, in order, and takes them down again.
//!
//! ```text
//!  start   directories ► clock ► store ► images ► runtime ► keys ► manifests ► kubelet ► API ► ready
//!  stop    stopping ► sources and API ► (--exit-stops-pods, SIGPWR: pods, network, cluster) ► store flushed
//! ```
//! The only place that knows every part; it decides nothing about pods.

mod api_side;
mod endpoints;
mod fetch;
mod floor;
mod front;
mod join;
mod machine;
mod parts;
mod pki;
mod service;
mod site;
mod thrift;

use std::fs::{DirBuilder, File};
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use async_executor::{LocalExecutor, Task};

use self::front::{Doors, Front};
use self::parts::Parts;
use self::service::Service;
use crate::admission;
use crate::apiserver::authn::Authenticator;
use crate::apiserver::authz::{Authorizer, Mode, PolicyFile};
use crate::apiserver::{self, Secure, ServeThread, Sockets};
use crate::cli::options::{AuthorizationMode, OnExit, RunOptions, SealingKeys};
use crate::controller::Controllers;
use crate::kubelet::Kubelet;
use crate::kubelet::core::ReadText;
use crate::kubelet::facts::NodeFacts;
use crate::kubelet::image_gc;
use crate::kubelet::node_status::Machine;
use crate::manifest::{self, Decoding, Directory, FileSource, HttpSource};
use crate::net::proxy::Proxies;
use crate::net::unix;
use crate::object::Source;
use crate::os;
use crate::os::clock::SystemClock;
use crate::os::signal::{Signal, Signals};
use crate::os::task;
use crate::registry::{self, Encryption, KeyFile, Registry};
use crate::runtime::shim::executable;
use crate::upgrade;
use crate::world::{Clock, Random, Reviews};

/// Longest wait for pods that are stopped with the node; their own grace periods end earlier.
const STOP_PODS_MAX: Duration = Duration::from_secs(600);
/// The first scan of the manifests may take this long before running pods are looked at.
const FIRST_SCAN_MAX: Duration = Duration::from_secs(5);

/// An agent that was ready for this long is good.
const UPGRADE_TRIAL: Duration = Duration::from_secs(10);

/// How often, and how far apart, the lock of RUN is tried.
const LOCK_TRIES: u32 = 40;
const LOCK_PAUSE: Duration = Duration::from_millis(50);

/// Runs the node until SIGTERM, SIGINT or SIGPWR. Errors: why it could not start, one line each.
pub fn run(options: RunOptions) -> Result<(), String> {
    os::allocator::use_one_arena();
    // Keys and the pods' secrets are in memory, and a core dump goes to the disk.
    if let Err(error) = os::privilege::not_dumpable() {
        log::warn!("forbid core dumps: {error}");
    }
    // Before any thread is made: threads inherit what is blocked.
    let signals = Signals::block(&[
        Signal::SIGTERM,
        Signal::SIGINT,
        Signal::SIGHUP,
        Signal::SIGPWR,
    ]);
    let signals = signals.map_err(|error| format!("block signals: {error}"))?;
    make_directories(&options)?;
    let _lock = async_io::block_on(lock(&options.run_dir))?;
    if let Err(error) = upgrade::announce(&options.run_dir, &options.root_dir) {
        log::error!("link {}/root: {error}", options.run_dir.display());
    }
    if let upgrade::Next::Become(program) = upgrade::at_start(&options.root_dir) {
        let error = os::process::become_program(&program);
        return Err(format!("become {}: {error}", program.display()));
    }
    let executor = Rc::new(LocalExecutor::new());
    async_io::block_on(executor.run(async {
        let node = Node::start(options, executor.clone()).await?;
        os::allocator::trim();
        let on_exit = node.serve(&signals).await;
        node.stop(on_exit).await;
        Ok(())
    }))
}

struct Node {
    options: RunOptions,
    parts: Parts,
    registry: Registry,
    kubelet: Rc<Kubelet>,
    service: Service,
    sources: Vec<Task<()>>,
    api: ServeThread,
    background: Vec<Task<()>>,
    policy: PolicyFile,
    front: Rc<Front>,
    joined: Option<join::Joined>,
}

impl Node {
    async fn start(
        options: RunOptions,
        executor: Rc<LocalExecutor<'static>>,
    ) -> Result<Node, String> {
        let service = Service::new()?;
        let policy = PolicyFile::open(options.authorization_policy_file.as_deref())?;
        let doors = Doors::open(&options)?;
        let clock = SystemClock::new().map_err(|error| format!("make the clock: {error}"))?;
        let clock: Rc<dyn Clock> = Rc::new(clock);
        // Until this function is over.
        let _patience = task::spawn(&executor, service.clone().ask_for_patience(clock.clone()));
        let joined = join::prepare(&options, &clock)?;
        let machine = machine::read(&options)?;
        let registry = open_registry(&options, &machine.node.node_name, clock.clone()).await?;
        let parts = Parts::make(&options, clock.clone(), executor.clone(), &machine).await?;

        // The first start has made the store's key and its directories; from here on pods move.
        os::thread::never_wait_here();
        let (services, api) = (doors.services(), doors.for_pods());
        let kubelet_port = doors.kubelet_port();
        let node_name = machine.node.node_name.clone();
        let (reader, disk) = (registry.reader(), parts.world.disk.clone());
        let opened = Front::open(doors, &options, &node_name, reader, disk, clock.clone());
        let (front, secure, keeper) = opened.await?;
        let controllers = Controllers {
            registry: registry.clone(),
            clock: clock.clone(),
            trust: front.trust.clone(),
            issuer: front.issuer.clone(),
            api,
        };
        controllers.prepare().await;
        let sources = start_sources(&options, &machine, &registry, &parts, &executor).await?;
        let ours = (&parts, &front);
        let sync = join::follow(&joined, &options, &node_name, &registry, ours, &executor);
        let settings = crate::kubelet::Options {
            issuer: Some(front.issuer.clone()),
            cluster_tokens: joined.as_ref().map(|joined| joined.remote.tokens()),
            ..kubelet_options(&options, machine, (services, kubelet_port), &parts)
        };
        let world = parts.world.clone();
        let kubelet = Kubelet::start(world, registry.clone(), settings, executor.clone()).await;
        let authorizer = authorizer(&options, &policy, &registry);
        let reviews = joined.as_ref().map(|joined| joined.remote.reviews());
        let (api, backend) = start_api(
            &options,
            (front.authenticator.clone(), authorizer),
            secure,
            (&node_name, reviews),
            &registry,
            &parts,
            executor.clone(),
        )?;
        // Until the end: the cluster hears of a node that goes down, and of its pods' last states.
        let mut background = sync;
        background.extend(controllers.start(&executor));
        background.extend(housekeeping(&registry, &parts, clock, &executor));
        background.extend(site::follow(&options, &kubelet, &parts, &executor)?);
        background.extend([backend, executor.spawn(keeper.keep())]);
        Ok(Node {
            options,
            parts,
            registry,
            kubelet,
            service,
            sources,
            api,
            background,
            policy,
            front,
            joined,
        })
    }

    /// Says that the node is ready, feeds the watchdog from this very loop, waits for the signal.
    /// Returns what is to become of the pods: SIGPWR says that the machine goes down, and them
    /// with it; with their grace periods now, or killed by the last act of the init system.
    async fn serve(&self, signals: &Signals) -> OnExit {
        self.service.ready();
        let manifests = self.options.pod_manifest_path.as_deref();
        let manifests = manifests.map_or("none".into(), |p| p.display().to_string());
        log::info!(
            "lowtide {} is ready: manifests {manifests}, API {}/api.sock, {}",
            env!("CARGO_PKG_VERSION"),
            self.options.run_dir.display(),
            self.parts.runtime.oci_runtime(),
        );
        let told = async {
            loop {
                match signals.next().await {
                    Ok(number) if number == Signal::SIGHUP as i32 => {
                        self.reload().await;
                    }
                    Ok(number) if number == Signal::SIGPWR as i32 => return OnExit::StopPods,
                    Ok(_) => return self.options.on_exit,
                    Err(error) => {
                        log::error!("read signals: {error}; stopping");
                        return self.options.on_exit;
                    }
                }
            }
        };
        let clock = self.parts.world.clock.clone();
        let fed = async {
            self.service.feed_watchdog(clock.clone()).await;
            self.options.on_exit
        };
        let settled = async {
            clock.sleep_until(clock.now() + UPGRADE_TRIAL).await;
            let root = self.options.root_dir.clone();
            if let Err(error) = blocking::unblock(move || upgrade::settle(&root)).await {
                log::error!("upgrade: {error}");
            }
            std::future::pending().await
        };
        futures_lite::future::or(told, futures_lite::future::or(fed, settled)).await
    }

    /// Manifests are followed anyway.
    async fn reload(&self) {
        match self.front.reload().await {
            Ok(()) => log::info!("SIGHUP: files of authentication are read"),
            Err(error) => log::error!("SIGHUP: {error}; the files before it stay in use"),
        }
        if let SealingKeys::File(path) = &self.options.encryption {
            match key_file(path) {
                Ok(file) => {
                    let count = self.registry.use_keys(file);
                    log::info!("SIGHUP: keys for secrets are read, {count} secrets to seal anew");
                    reseal(self.registry.clone()).await;
                }
                Err(error) => log::error!("SIGHUP: {error}; the keys before it stay in use"),
            }
        }
        match self.policy.reload() {
            Ok(rules) => log::info!("SIGHUP: {rules} authorization rules are in use"),
            Err(error) => log::error!("SIGHUP: {error}; the rules before it stay in use"),
        }
    }

    async fn stop(self, on_exit: OnExit) {
        self.service.stopping();
        drop(self.sources);
        drop(self.api);
        match on_exit {
            OnExit::LeavePods => log::info!("stopping; pods go on"),
            OnExit::StopPods => {
                log::info!("stopping the pods");
                // Grace periods may be longer than the watchdog's patience.
                let clock = self.parts.world.clock.clone();
                let fed = self.service.feed_watchdog(clock);
                futures_lite::future::or(self.kubelet.stop_all(STOP_PODS_MAX), fed).await;
                if let Err(error) = self.parts.runtime.remove_node().await {
                    log::warn!("remove the pods' network and cgroups: {error}");
                }
                executable::release(&self.options.run_dir);
                if let Some(joined) = &self.joined {
                    joined.remote.rest().await;
                }
            }
        }
        drop(self.background);
        self.parts.floor.stop().await;
        self.registry.flush().await;
    }
}

/// What goes on in the background and needs nobody's asking.
fn housekeeping(
    registry: &Registry,
    parts: &Parts,
    clock: Rc<dyn Clock>,
    executor: &Rc<LocalExecutor<'static>>,
) -> [Task<()>; 4] {
    let quotas = admission::resource_quota::keep_statuses(registry.clone());
    let images = parts.images.clone();
    let watch_images = async move { images.watch_image_dir().await };
    let trim = thrift::trim_after_bursts(registry.reader(), clock);
    [
        task::spawn(executor, watch_images),
        task::spawn(executor, trim),
        task::spawn(executor, quotas),
        task::spawn(executor, reseal(registry.clone())),
    ]
}

fn kubelet_options(
    options: &RunOptions,
    machine: machine::Facts,
    (services, kubelet_port): (Vec<(String, String)>, u16),
    parts: &Parts,
) -> crate::kubelet::Options {
    crate::kubelet::Options {
        node: Rc::new(NodeFacts {
            pod_network: parts.runtime.network().state(),
            ..machine.node
        }),
        machine: Machine {
            runtime_version: parts.runtime.oci_runtime().uri(),
            kubelet_port,
            ..machine.machine
        },
        services,
        sources: listed_sources(options),
        eviction: options.eviction.clone(),
        image_gc: image_gc::Policy {
            high_percent: options.image_gc_high_percent,
            low_percent: options.image_gc_low_percent,
            age_min: options.image_gc_age_min,
        },
        issuer: None,
        cluster_tokens: None,
        resolv_conf: options
            .resolv_conf
            .clone()
            .map(|path| Arc::new(move || std::fs::read_to_string(&path).ok()) as Arc<ReadText>),
        figures: parts.figures.clone(),
    }
}

/// The sources that must have listed before a pod is called an orphan.
fn listed_sources(options: &RunOptions) -> Vec<Source> {
    let cluster = options.remote.as_ref().map(|_| Source::Remote);
    own_sources(options).into_iter().chain(cluster).collect()
}

/// The sources of the node's own pods.
fn own_sources(options: &RunOptions) -> Vec<Source> {
    let file = options.pod_manifest_path.as_ref().map(|_| Source::File);
    let http = options.manifest_url.as_ref().map(|_| Source::Http);
    file.into_iter().chain(http).collect()
}

fn make_directories(options: &RunOptions) -> Result<(), String> {
    for (path, mode) in [
        (&options.run_dir, 0o700),
        (&options.root_dir, 0o700),
        (&options.root_dir.join("pki"), 0o700),
        (&options.pod_logs_dir, 0o750),
        (&options.image_dir, 0o755),
    ] {
        let made = DirBuilder::new().recursive(true).mode(mode).create(path);
        // A read-only ROOT is survived: what runs goes on, what can be started is.
        if let Err(error) = made
            && !path.is_dir()
        {
            let fatal = path == &options.run_dir;
            let text = format!("make {}: {error}", path.display());
            if fatal {
                let hint = match error.kind() {
                    std::io::ErrorKind::PermissionDenied => " (lowtide run is for root)",
                    _ => "",
                };
                return Err(text + hint);
            }
            log::error!("{text}; going on without it");
        }
    }
    Ok(())
}

/// One node for each RUN; the file says who. Waits a little: a child that a killed agent had just
/// forked holds the lock until its exec.
async fn lock(run_dir: &Path) -> Result<File, String> {
    let path = run_dir.join("agent.lock");
    let text = |error: std::io::Error| format!("lock {}: {error}", path.display());
    let mut opening = File::options();
    opening.write(true).create(true).truncate(false).mode(0o600);
    let mut file = opening.open(&path).map_err(text)?;
    let clock = SystemClock::new().map_err(text)?;
    for _ in 0..LOCK_TRIES {
        match file.try_lock() {
            Ok(()) => {
                let named = file.set_len(0).and_then(|()| {
                    let pid = os::process::own_pid();
                    writeln!(file, "{pid}")
                });
                return named.map(|()| file).map_err(text);
            }
            Err(std::fs::TryLockError::WouldBlock) => {
                clock.sleep_until(clock.now() + LOCK_PAUSE).await;
            }
            Err(std::fs::TryLockError::Error(error)) => return Err(text(error)),
        }
    }
    Err(format!(
        "another lowtide runs with --run-dir={}; give this one its own --run-dir and --root-dir",
        run_dir.display()
    ))
}

async fn open_registry(
    options: &RunOptions,
    node_name: &str,
    clock: Rc<dyn Clock>,
) -> Result<Registry, String> {
    let credentials = std::env::var_os("CREDENTIALS_DIRECTORY");
    let key = credentials.map(|directory| Path::new(&directory).join("lowtide-store-key"));
    let encryption = match &options.encryption {
        SealingKeys::Own => Encryption::Own,
        SealingKeys::Off => Encryption::Off,
        SealingKeys::File(path) => Encryption::File(key_file(path)?),
    };
    let opened = Registry::open(registry::Options {
        place: registry::Place::Root {
            directory: options.root_dir.clone(),
            key_credential: key.filter(|path| path.exists()),
        },
        node_name: node_name.to_owned(),
        clock,
        random: Rc::new(os::random::SystemRandom),
        limits: registry::Limits::default(),
        encryption,
        admission: admission::make(
            &options.admission.chain(),
            &(Rc::new(os::random::SystemRandom) as Rc<dyn Random>),
        ),
    });
    let (registry, report) = opened.await.map_err(|error| error.to_string())?;
    for message in &report.messages {
        log::warn!("{message}");
    }
    if report.begun_anew {
        // Before anything is believed to be gone: the program before has its store yet.
        let cause = report.messages.first().map_or("", String::as_str);
        if upgrade::reject(&options.root_dir, cause).map_err(|error| format!("upgrade: {error}"))? {
            return Err(format!("the upgrade goes back: {cause}"));
        }
    }
    Ok(registry)
}

fn key_file(path: &Path) -> Result<KeyFile, String> {
    KeyFile::read(path).map_err(|error| format!("--encryption-key-file: {error}"))
}

/// Brings the store's Secrets under the key that seals now.
async fn reseal(registry: Registry) {
    match registry.reseal().await {
        Ok(0) => {}
        Ok(count) => log::info!("{count} stored secrets lie under the present key"),
        Err(error) => log::error!("seal stored secrets anew: {error}; the rest at the next start"),
    }
}

/// Starts the sources; the manifests are read once before anything else happens.
async fn start_sources(
    options: &RunOptions,
    machine: &machine::Facts,
    registry: &Registry,
    parts: &Parts,
    executor: &Rc<LocalExecutor<'static>>,
) -> Result<Vec<Task<()>>, String> {
    for source in [Source::File, Source::Http] {
        if !own_sources(options).contains(&source) {
            manifest::switch_off(source, registry).await;
        }
    }
    let mut tasks = Vec::new();
    let node = &machine.node.node_name;
    let clock = parts.world.clock.clone();
    if let Some(path) = &options.pod_manifest_path {
        let files = Directory::new(path.clone());
        let mut source = FileSource::new(files, node, options.file_check_period, Decoding::Pooled);
        let (scanned, first) = async_channel::bounded::<()>(1);
        let (registry, own_clock) = (registry.clone(), clock.clone());
        tasks.push(task::spawn(executor, async move {
            source.turn(&registry, &*own_clock).await;
            drop(scanned);
            source.run(registry, own_clock).await;
        }));
        // Closed, never sent to.
        let first = async { first.recv().await.unwrap_or_default() };
        let late = clock.sleep_until(clock.now() + FIRST_SCAN_MAX);
        futures_lite::future::or(first, late).await;
    }
    if let Some(url) = &options.manifest_url {
        let headers = options.manifest_url_headers.clone();
        let fetch = fetch::HttpFetch::new(clock.clone(), Rc::new(Proxies::of_environment()))?;
        let period = options.http_check_period;
        let source = HttpSource::new(fetch, url, headers, node, period, Decoding::Pooled);
        tasks.push(task::spawn(executor, source.run(registry.clone(), clock)));
    }
    Ok(tasks)
}

/// The modes that were asked for.
fn authorizer(options: &RunOptions, policy: &PolicyFile, registry: &Registry) -> Authorizer {
    let modes = options.authorization_modes.iter().map(|mode| match mode {
        AuthorizationMode::AlwaysAllow => Mode::AlwaysAllow,
        AuthorizationMode::AlwaysDeny => Mode::AlwaysDeny,
        AuthorizationMode::Abac => Mode::Abac,
        AuthorizationMode::Node => Mode::Node,
    });
    Authorizer::new(&modes.collect::<Vec<_>>(), policy, &registry.reader())
}

/// The serve thread, and the task that answers what it asks of the node.
fn start_api(
    options: &RunOptions,
    (authenticator, authorizer): (Authenticator, Authorizer),
    secure: Vec<Secure>,
    (node_name, reviews): (&str, Option<Rc<dyn Reviews>>),
    registry: &Registry,
    parts: &Parts,
    executor: Rc<LocalExecutor<'static>>,
) -> Result<(ServeThread, Task<()>), String> {
    let path = options.run_dir.join("api.sock");
    let failed = |error: std::io::Error| format!("serve {}: {error}", path.display());
    let listener = unix::listen(&options.run_dir, "api.sock").map_err(|e| e.to_string())?;
    let (backend, requests) = apiserver::backend::channel();
    let serve = ServeThread::start(
        Sockets {
            local: listener,
            secure,
        },
        registry.reader(),
        backend,
        || Ok(Rc::new(SystemClock::new()?)),
        apiserver::Options {
            node_name: node_name.to_owned(),
            kubelet_configuration: endpoints::configuration(options),
            pod_logs_dir: options.pod_logs_dir.clone(),
            figures: parts.figures.clone(),
            authenticator,
            authorizer,
            limits: apiserver::Limits::default(),
        },
    );
    let serve = serve.map_err(failed)?;
    let side = api_side::ApiSide::new(
        parts,
        node_name,
        reviews,
        registry.clone(),
        executor.clone(),
    );
    let side = Rc::new(side);
    let work = apiserver::backend::run(requests, side, registry.clone(), executor.clone());
    Ok((serve, task::spawn(&executor, work)))
}
