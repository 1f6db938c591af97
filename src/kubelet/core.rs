//! What every worker of the node shares: the outside, the registry, facts about the node.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::sync::Arc;

use async_executor::{LocalExecutor, Task};
use k8s_openapi::api::core::v1::Pod;

use super::dns::parse_resolv_conf;
use super::env::service_variables;
use super::facts::{NodeFacts, References};
use super::leftovers::Leftovers;
use super::node_status::Machine;
use super::pressure::thresholds::{Condition, Policy};
use super::records::Records;
use super::turnstile::Turnstile;
use super::view::{ContainerView, PodView};
use crate::object::token::Issuer;
use crate::object::{Key, Kind, Object, Origin};
use crate::os::task;
use crate::registry::{EventRecord, Reader, Registry};
use crate::world::figures::Figures;
use crate::world::{Area, BootTime, DiskError, TokenSource, World};

/// A text, if it can be read.
pub type ReadText = dyn Fn() -> Option<String> + Send + Sync;

/// Settings of the node loop that are not facts about the machine.
#[derive(Clone, Default)]
pub struct Options {
    /// At the start; `Core::node` is how it is now.
    pub node: Rc<NodeFacts>,
    pub machine: Machine,
    /// Service variables of every container, in order (`KUBERNETES_SERVICE_HOST` …).
    pub services: Vec<(String, String)>,
    /// Sources whose complete lists must have arrived before anything is called an orphan.
    pub sources: Vec<crate::object::Source>,
    pub image_gc: super::image_gc::Policy,
    pub eviction: Policy,
    /// Signs the tokens of pods; without it no pod gets one.
    pub issuer: Option<Arc<Issuer>>,
    /// Makes the tokens of the cluster's pods, where the node has joined one.
    pub cluster_tokens: Option<Rc<dyn TokenSource>>,
    /// Reads the file that `--resolv-conf` names; blocks. `None` where it is never another.
    pub resolv_conf: Option<Arc<ReadText>>,
    /// Where turns and probes are counted.
    pub figures: Arc<Figures>,
}

pub struct Core {
    pub world: World,
    pub registry: Registry,
    pub reader: Reader,
    pub records: Records,
    pub options: Options,
    node: RefCell<Rc<NodeFacts>>,
    executor: Rc<LocalExecutor<'static>>,
    /// When this agent began.
    pub begun: BootTime,
    /// Fires when a pod's worker has ended: a successor of its name may start.
    pub departures: event_listener::Event,
    /// What could not be written last, for the node's conditions.
    disk_trouble: RefCell<BTreeMap<Area, DiskError>>,
    pub leftovers: Leftovers,
    pub turnstile: Turnstile,
    /// The node takes its pods along: no more are started.
    pub stopping: Cell<bool>,
    /// An image did not fit: the next look at images removes all that nothing needs.
    pub images_did_not_fit: Cell<bool>,
    /// Fires when `disk_trouble`, `pressure`, `stopping` or the node's facts change.
    pub troubles: event_listener::Event,
    /// What the node is short of.
    pub pressure: RefCell<BTreeSet<Condition>>,
    /// Fires after each look at it; the first look comes before the first pod.
    pub pressure_known: event_listener::Event,
}

impl Core {
    pub fn new(
        world: World,
        registry: Registry,
        options: Options,
        executor: Rc<LocalExecutor<'static>>,
    ) -> Rc<Core> {
        Rc::new(Core {
            reader: registry.reader(),
            begun: world.clock.now(),
            records: Records::new(world.disk.clone()),
            world,
            registry,
            node: RefCell::new(options.node.clone()),
            options,
            executor,
            departures: event_listener::Event::new(),
            disk_trouble: RefCell::default(),
            leftovers: Leftovers::default(),
            turnstile: Turnstile::default(),
            stopping: Cell::new(false),
            images_did_not_fit: Cell::new(false),
            troubles: event_listener::Event::new(),
            pressure: RefCell::default(),
            pressure_known: event_listener::Event::new(),
        })
    }

    /// The node as it is now.
    pub fn node(&self) -> Rc<NodeFacts> {
        self.node.borrow().clone()
    }

    /// The host changed. Returns whether that is news.
    pub fn set_node(&self, facts: NodeFacts) -> bool {
        let news = *self.node() != facts;
        if news {
            self.node.replace(Rc::new(facts));
            self.troubles.notify(usize::MAX);
        }
        news
    }

    /// Reads the host's resolv.conf: DHCP may have written it after the start, or anew.
    pub async fn refresh_dns(&self) {
        let Some(read) = self.options.resolv_conf.clone() else {
            return;
        };
        let text = blocking::unblock(move || read()).await;
        // While the link is down it may name nobody; those of before are better.
        let named = |text: &String| !parse_resolv_conf(text).nameservers.is_empty();
        let mut facts = NodeFacts::clone(&self.node());
        if text.as_ref().is_some_and(named) {
            facts.dns.host_resolv_conf = text;
            self.set_node(facts);
        }
    }

    /// Runs a task of the node on the thread that owns its state. Dropping the handle cancels it.
    pub fn spawn<T: 'static>(&self, task: impl Future<Output = T> + 'static) -> Task<T> {
        task::spawn(&self.executor, task)
    }

    /// Publishes an event about a pod, or about one of its containers; the log has what is wrong too.
    pub fn event(
        &self,
        pod: &PodView,
        container: Option<&ContainerView>,
        kind: EventKind,
        reason: &str,
        message: impl Into<String>,
    ) {
        let message = message.into();
        let fresh = self.registry.record(EventRecord {
            involved: pod.key.clone(),
            uid: pod.uid.to_string(),
            field_path: container.map(|c| pod.field_path(c)),
            warning: kind != EventKind::Normal,
            reason: reason.to_owned(),
            message: message.clone(),
        });
        if fresh && kind == EventKind::Warning {
            log::warn!("{}: {reason}: {message}", pod.key);
        }
    }

    /// Publishes an event about the node.
    pub fn node_event(&self, kind: EventKind, reason: &str, message: impl Into<String>) {
        let name = &self.node().node_name;
        self.registry.record(EventRecord {
            involved: Key::local(Kind::Node, "", name),
            // As upstream's kubelet does, and kubectl looks for: it is the same in the cluster.
            uid: name.clone(),
            field_path: None,
            warning: kind != EventKind::Normal,
            reason: reason.to_owned(),
            message: message.into(),
        });
    }

    /// Notes whether the node can write its own small files; the node's conditions show it. A
    /// success in one area says nothing of the other.
    pub fn note_disk(&self, area: Area, result: &Result<(), DiskError>) {
        let mut troubles = self.disk_trouble.borrow_mut();
        let before = match result {
            Ok(()) => troubles.remove(&area),
            Err(error) => troubles.insert(area, error.clone()),
        };
        if before != troubles.get(&area).cloned() {
            self.troubles.notify(usize::MAX);
        }
    }

    /// What could not be written last, first that of ROOT, or could not be removed.
    pub fn disk_trouble(&self) -> Option<String> {
        let troubles = self.disk_trouble.borrow();
        let written = troubles.values().next().map(ToString::to_string);
        written.or_else(|| self.leftovers.trouble())
    }

    pub fn is_root_full(&self) -> bool {
        let troubles = self.disk_trouble.borrow();
        matches!(troubles.get(&Area::Root), Some(DiskError::Full(_)))
    }

    /// Where the last write failed.
    pub fn troubled_areas(&self) -> Vec<Area> {
        self.disk_trouble.borrow().keys().copied().collect()
    }

    /// Where the services are that a pod of the cluster sees: those of its namespace, unless it wants
    /// none, and the API. Source: Kubernetes pkg/kubelet/kubelet_pods.go (getServiceEnvVarMap).
    pub fn cluster_services(&self, pod: &Pod) -> Vec<(String, String)> {
        let spec = pod.spec.as_ref();
        let mut services = match spec.and_then(|spec| spec.enable_service_links) {
            Some(false) => Vec::new(),
            _ => {
                self.reader
                    .list(Kind::Service, pod.metadata.namespace.as_deref())
                    .0
            }
        };
        services.retain(|service| service.key.origin == Origin::Remote);
        let api = Key {
            origin: Origin::Remote,
            ..Key::local(Kind::Service, "default", "kubernetes")
        };
        if services.iter().all(|service| service.key.name != api.name) {
            services.extend(self.reader.get(&api));
        }
        let variables =
            |service: &Arc<Object>| service_variables(&service.key.name, &service.body["spec"]);
        services.iter().flat_map(variables).collect()
    }

    /// The lookup of configMaps and secrets for a pod, within the pod's own origin.
    pub fn references(&self, pod: &PodView) -> OwnOrigin {
        OwnOrigin::new(self.reader.clone(), pod.key.origin)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EventKind {
    Normal,
    Warning,
    /// A warning of which the log has a line of its own.
    Logged,
}

/// References of a pod resolve among objects of its own origin only.
pub struct OwnOrigin {
    reader: Reader,
    origin: Origin,
}

impl OwnOrigin {
    pub fn new(reader: Reader, origin: Origin) -> OwnOrigin {
        OwnOrigin { reader, origin }
    }

    pub fn account(&self, namespace: &str, name: &str) -> Option<Arc<Object>> {
        self.get(Kind::ServiceAccount, namespace, name)
    }

    fn get(&self, kind: Kind, namespace: &str, name: &str) -> Option<Arc<Object>> {
        self.reader.get(&Key {
            kind,
            namespace: namespace.to_owned(),
            name: name.to_owned(),
            origin: self.origin,
        })
    }
}

impl References for OwnOrigin {
    fn config_map(&self, namespace: &str, name: &str) -> Option<Arc<Object>> {
        self.get(Kind::ConfigMap, namespace, name)
    }

    fn secret(&self, namespace: &str, name: &str) -> Option<Arc<Object>> {
        self.get(Kind::Secret, namespace, name)
    }
}
