//! The node under test: real registry, manifest source and kubelet over the simulated machine.

use std::cell::RefCell;
use std::io;
use std::rc::Rc;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use async_executor::Task;
use event_listener::Event;
use lowtide::kubelet::facts::{Allocatable, NodeFacts};
use lowtide::kubelet::{self, Kubelet};
use lowtide::manifest::{Content, Decoding, FileSource, FileText, Listing, ManifestFiles};
use lowtide::object::token::{Issuer, SigningKey};
use lowtide::object::{Kind, Object, Origin, Quantity, Source, Standing};
use lowtide::registry::{self, FaultyDisk, Limits, Packed, Place, Reader, Registry};
use lowtide::remote::{self, Cloud, Registration, Remote};
use lowtide::world::{Clock, Cluster, LocalFuture, Uid};
use serde_json::{Value, json};

use crate::client::{self, Ledger, Storing};
use crate::host::Host;
use crate::manifests::{Features, Manifests, text};
use crate::random::Stream;
use crate::run::{Executor, Node};
use crate::spec::Desired;
use crate::timeline::SimClock;

pub const NODE_NAME: &str = "sim";
const RESCAN: Duration = Duration::from_secs(20);

#[derive(Default)]
pub struct RealNode {
    disk: FaultyDisk,
    directory: Rc<RefCell<Vec<FileText>>>,
    written: Rc<Event>,
    /// The running agent's registry and kubelet.
    registry: Rc<RefCell<Option<Registry>>>,
    kubelet: Rc<RefCell<Option<Rc<Kubelet>>>>,
    tasks: Vec<Task<()>>,
    ledger: Rc<RefCell<Ledger>>,
    read: Rc<RefCell<Pods>>,
    failure: Option<io::ErrorKind>,
    erase: bool,
    host: Option<Rc<Host>>,
    /// The way to a cluster, made anew by each agent.
    dial: Option<Dial>,
}

pub type Dial = Rc<dyn Fn(&Rc<Host>, &Rc<Executor>) -> Rc<dyn Cluster>>;

/// The manifest directory as the source reads it.
struct SimDirectory {
    files: Rc<RefCell<Vec<FileText>>>,
    written: Rc<Event>,
    seen: Vec<FileText>,
}

impl ManifestFiles for SimDirectory {
    fn scan(&mut self) -> LocalFuture<'_, Result<Listing, String>> {
        let before = std::mem::replace(&mut self.seen, self.files.borrow().clone());
        let mut files = self.seen.clone();
        for file in files.iter_mut().filter(|file| before.contains(file)) {
            file.content = Content::Same;
        }
        Box::pin(async move {
            Ok(Listing {
                files,
                ..Listing::default()
            })
        })
    }

    fn changed(&mut self) -> LocalFuture<'_, ()> {
        Box::pin(async {
            loop {
                let listener = self.written.listen();
                if *self.files.borrow() != self.seen {
                    return;
                }
                listener.await;
            }
        })
    }
}

fn options(host: &Host) -> kubelet::Options {
    let node = NodeFacts {
        node_name: NODE_NAME.to_owned(),
        hostname: NODE_NAME.to_owned(),
        host_ips: vec![[192, 0, 2, 1].into()],
        allocatable: Allocatable {
            cpu: Quantity::from_units(4),
            memory: Quantity::from_units(4 << 30),
            ephemeral_storage: Quantity::from_units(32 << 30),
        },
        memory_bytes: 4 << 30,
        kernel: (6, 12),
        ..NodeFacts::default()
    };
    let machine = kubelet::node_status::Machine {
        boot_id: host.boot().to_string(),
        cpus: 4,
        ephemeral_storage_bytes: 32 << 30,
        pods_max: 110,
        status_period: std::time::Duration::from_secs(10),
        ..Default::default()
    };
    kubelet::Options {
        node: node.into(),
        machine,
        services: Vec::new(),
        sources: vec![Source::File],
        image_gc: Default::default(),
        eviction: Default::default(),
        issuer: None,
        cluster_tokens: None,
        resolv_conf: None,
        figures: Default::default(),
    }
}

fn remote_options() -> remote::Options {
    remote::Options {
        node_name: NODE_NAME.to_owned(),
        registration: Registration::Own,
        cloud: Cloud::Nobody,
        provider_id: None,
        provided_ips: Vec::new(),
        sources: vec![Source::File],
    }
}

/// One key for all runs: what it signs is looked at by nobody who decides anything.
pub fn issuer() -> Arc<Issuer> {
    static KEY: OnceLock<Vec<u8>> = OnceLock::new();
    let key = KEY.get_or_init(|| SigningKey::generate().expect("a key"));
    Arc::new(Issuer::new(SigningKey::from_pkcs8(key).expect("a key")))
}

impl RealNode {
    /// A node that follows a cluster.
    pub fn joined(dial: Dial) -> RealNode {
        RealNode {
            dial: Some(dial),
            ..RealNode::default()
        }
    }

    pub fn disk(&self) -> FaultyDisk {
        self.disk.clone()
    }

    /// The running agent's registry, once it is open.
    pub fn slot(&self) -> Rc<RefCell<Option<Registry>>> {
        Rc::clone(&self.registry)
    }

    /// What its store has promised, and whether it can keep promises.
    pub fn ledger(&self) -> Rc<RefCell<Ledger>> {
        Rc::clone(&self.ledger)
    }

    /// The registry of the agent that runs when it is asked for.
    pub fn registry(&self) -> Rc<dyn Fn() -> Registry> {
        let slot = Rc::clone(&self.registry);
        Rc::new(move || slot.borrow().clone().expect("an agent runs"))
    }
}

fn packed_pods(reader: &Reader) -> Vec<Arc<Packed>> {
    let (mut pods, _) = reader.list_packed(Kind::Pod, None);
    pods.retain(|pod| !matches!(pod.standing(), Standing::Rejected(_)));
    pods
}

/// Pods as the checkers look at them, at each step of a run: only what changed is read again.
#[derive(Default)]
struct Pods {
    read: Vec<(Arc<Packed>, Arc<Object>)>,
    desired: Rc<Vec<Desired>>,
}

impl Pods {
    fn refresh(&mut self, reader: &Reader) {
        let now = packed_pods(reader);
        let before = std::mem::take(&mut self.read);
        let mut stated = now.len() != before.len();
        for (index, packed) in now.into_iter().enumerate() {
            let known = before.iter().find(|(known, _)| Arc::ptr_eq(known, &packed));
            let object = match known {
                Some((_, object)) => Arc::clone(object),
                None => Arc::new(packed.unpack()),
            };
            let same = |(old, _): &(Arc<Packed>, _)| packed.shares_all_but_status(old);
            stated |= !before.get(index).is_some_and(same);
            self.read.push((packed, object));
        }
        if stated {
            let desired = self.read.iter();
            let desired = desired.filter_map(|(_, pod)| {
                let is_remote = pod.key.origin == Origin::Remote;
                let desired = Desired::from_body(&pod.body)?;
                Some(Desired {
                    is_remote,
                    ..desired
                })
            });
            self.desired = Rc::new(desired.collect());
        }
    }
}

impl Node for RealNode {
    fn features(&self) -> Features {
        Features::Full
    }

    fn start(&mut self, host: &Rc<Host>, secrets: Stream, executor: &Rc<Executor>) {
        let registry_secrets = Rc::new(secrets.fork("registry"));
        let clock: Rc<dyn Clock> = Rc::new(SimClock(Rc::clone(&host.timeline)));
        let opening = registry::Options {
            place: Place::Inline(Arc::new(self.disk.clone())),
            node_name: NODE_NAME.to_owned(),
            clock: Rc::clone(&clock),
            random: registry_secrets,
            limits: Limits::default(),
            encryption: Default::default(),
            admission: Vec::new(),
        };
        let directory = SimDirectory {
            files: Rc::clone(&self.directory),
            written: Rc::clone(&self.written),
            seen: Vec::new(),
        };
        let mut options = options(host);
        let remote = self.dial.as_ref().map(|dial| {
            let random = Rc::new(secrets.fork("remote"));
            Remote::new(dial(host, executor), Rc::clone(&clock), random)
        });
        if let Some(remote) = &remote {
            options.sources.push(Source::Remote);
            options.cluster_tokens = Some(remote.tokens());
            options.issuer = Some(issuer());
        }
        self.host = Some(Rc::clone(host));
        let (host, slot, kubelet) = (
            Rc::clone(host),
            Rc::clone(&self.registry),
            Rc::clone(&self.kubelet),
        );
        let storing = match self.failure {
            Some(_) => Storing::NotAlways,
            None => Storing::Always,
        };
        let ledger = Rc::clone(&self.ledger);
        let world = host.world(secrets);
        let erase = std::mem::take(&mut self.erase);
        let tasks = Rc::clone(executor);
        self.tasks.push(executor.spawn(async move {
            let opened = Registry::open(opening).await;
            let (registry, report) = opened.expect("a simulated store can be opened");
            host.trace.note(|| format!("store: {report:?}"));
            let (reader, told) = (registry.reader(), &report.messages);
            let checked = ledger.borrow_mut().check_opened(&reader, told, storing);
            if let Err(crime) = checked {
                host.judge.condemn(crime);
            }
            if erase {
                erase_all(&registry);
            }
            *slot.borrow_mut() = Some(registry.clone());
            let _sync = remote.map(|remote| {
                let settings = remote_options();
                remote.start(registry.clone(), settings, &tasks)
            });
            let source = FileSource::new(directory, NODE_NAME, RESCAN, Decoding::Here);
            let running = Kubelet::start(world, registry.clone(), options, tasks).await;
            *kubelet.borrow_mut() = Some(running);
            source.run(registry, clock).await;
        }));
    }

    fn died(&mut self) {
        self.tasks.clear();
        if let Some(kubelet) = self.kubelet.borrow_mut().take() {
            kubelet.abandon();
        }
        if let Some(registry) = self.registry.borrow_mut().take() {
            let version = registry.reader().version();
            self.ledger.borrow_mut().note_version(version);
        }
    }

    fn power_cut(&mut self, luck: &Stream) {
        self.disk.cut_power(|| luck.chance(500));
    }

    fn feed(&mut self, manifests: &Manifests) {
        let files = manifests.files.iter().map(|(name, file)| FileText {
            path: format!("/etc/lowtide/manifests/{name}"),
            content: Content::Read(text(file).into_bytes()),
        });
        *self.directory.borrow_mut() = files.collect();
        self.written.notify(usize::MAX);
    }

    fn desired(&self) -> Rc<dyn Fn() -> Option<Rc<Vec<Desired>>>> {
        let registry = Rc::clone(&self.registry);
        let read = Rc::clone(&self.read);
        Rc::new(move || {
            let reader = registry.borrow().as_ref()?.reader();
            let mut read = read.borrow_mut();
            read.refresh(&reader);
            Some(Rc::clone(&read.desired))
        })
    }

    fn version(&self) -> u64 {
        let registry = self.registry.borrow();
        registry
            .as_ref()
            .map_or(0, |registry| registry.reader().version())
    }

    fn statuses(&self) -> Vec<(Uid, Value)> {
        let Some(reader) = self.registry.borrow().as_ref().map(Registry::reader) else {
            return Vec::new();
        };
        let mut read = self.read.borrow_mut();
        read.refresh(&reader);
        let pods = read.read.iter();
        pods.filter_map(|(_, pod)| Some((Uid::new(pod.uid())?, pod.body["status"].clone())))
            .collect()
    }

    fn reader(&self) -> Option<Reader> {
        self.registry.borrow().as_ref().map(Registry::reader)
    }

    fn erase_statuses(&mut self) {
        self.erase = true;
    }

    fn fail_store(&mut self, failure: Option<io::ErrorKind>) {
        self.failure = failure;
        if failure.is_some() {
            self.ledger.borrow_mut().storing = Storing::NotAlways;
        }
        self.disk.fail(failure);
    }

    fn write_objects(&mut self, luck: Stream, executor: &Rc<Executor>) {
        let (slot, ledger) = (Rc::clone(&self.registry), Rc::clone(&self.ledger));
        let host = self.host.clone();
        self.tasks.push(executor.spawn(async move {
            for _ in 0..luck.between(1, 4) {
                let Some(registry) = slot.borrow().clone() else {
                    return;
                };
                let written = client::write(&registry, &luck, &ledger).await;
                let Some(host) = &host else {
                    return;
                };
                match written {
                    Ok(said) => host.trace.note(|| said),
                    Err(crime) => host.judge.condemn(crime),
                }
            }
        }));
    }

    fn keeps_promises(&self) -> Result<(), String> {
        match &*self.registry.borrow() {
            Some(registry) => self.ledger.borrow().check(&registry.reader()),
            None => Ok(()),
        }
    }

    fn store_writes(&self) -> u64 {
        self.disk.syncs()
    }
}

fn erase_all(registry: &Registry) {
    for pod in packed_pods(&registry.reader()) {
        registry.update_status(pod.key(), pod.uid(), json!({}));
    }
}
