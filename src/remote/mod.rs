//! The remote cluster: one more source of pods and one more reader of statuses, sometimes absent.
//!
//! ```text
//!  cluster ── list, watch ──► reflector ──► pull ──► registry.replace(Source::Remote)
//!     ▲                          │                            │
//!     └── node, lease, status, ──┴── push compares the two ◄──┘
//!         deletions, mirrors
//! ```
//! The registry is the outbox: what should be there is worked out of it and compared with what the
//! cluster was last seen to hold, so there is no queue that overflows while the link is down. Nothing
//! of a pod is decided here, and nothing is removed because the cluster is silent.

pub mod answer;
mod certificates;
mod credentials;
pub mod door;
mod events;
mod exec;
pub mod http;
pub mod kubeconfig;
mod link;
mod member;
mod mirror;
mod node;
mod node_status;
mod own_node;
mod pace;
mod paths;
mod pod_status;
mod pull;
mod push;
mod reflector;
mod reviews;
mod serving;
mod tokens;

#[cfg(test)]
mod tests;

use std::net::IpAddr;
use std::path::Path;
use std::rc::Rc;

use async_executor::{LocalExecutor, Task};

use self::certificates::{CLIENT, NodeCertificate, Past, SERVING};
use self::door::KubeconfigCluster;
use self::events::Events;
use self::link::Link;
use self::member::Member;
pub use self::node::{Cloud, Registration};
use self::node::{Enlisted, Heartbeat};
use self::own_node::OwnNode;
use self::paths::Selection;
use self::pull::Pull;
use self::push::Push;
use self::reflector::Reflector;
use self::reviews::ClusterReviews;
use self::serving::Serving;
use self::tokens::ClusterTokens;
use crate::net::certificates::Names;
use crate::object::{Kind, Source};
use crate::os::task;
use crate::registry::Registry;
use crate::world::{Clock, Cluster, LocalFuture, Random, Reviews, TokenSource, World};

/// What the sync needs to know.
pub struct Options {
    pub node_name: String,
    pub registration: Registration,
    pub cloud: Cloud,
    pub provider_id: Option<String>,
    /// `--node-ip`
    pub provided_ips: Vec<IpAddr>,
    /// Sources of this node's own pods.
    pub sources: Vec<Source>,
}

/// The ways to the cluster.
#[derive(Clone)]
pub struct Doors {
    pub main: Rc<KubeconfigCluster>,
    /// By `--bootstrap-kubeconfig`.
    pub bootstrap: Option<Rc<KubeconfigCluster>>,
}

/// The sync of one node, not begun yet.
pub struct Remote {
    link: Rc<Link>,
    clock: Rc<dyn Clock>,
}

impl Remote {
    pub fn new(cluster: Rc<dyn Cluster>, clock: Rc<dyn Clock>, random: Rc<dyn Random>) -> Remote {
        let link = Rc::new(Link::new(cluster, clock.clone(), random));
        Remote { link, clock }
    }

    /// Waits, not for long, until the cluster has heard what this node had to say last.
    pub async fn rest(&self) {
        self.link.rest().await;
    }

    /// Who makes the tokens of the cluster's pods.
    pub fn tokens(&self) -> Rc<dyn TokenSource> {
        Rc::new(ClusterTokens(self.link.clone()))
    }

    /// Who says what strangers are and may do.
    pub fn reviews(&self) -> Rc<dyn Reviews> {
        Rc::new(ClusterReviews(self.link.clone()))
    }

    /// Gets and renews the node's own certificate, where that is the node's business.
    pub fn stay_member(
        &self,
        doors: Doors,
        world: &World,
        node_name: &str,
        root: &Path,
    ) -> LocalFuture<'static, ()> {
        let member = Member {
            certificate: NodeCertificate {
                purpose: &CLIENT,
                names: Box::new(Names::default),
                disk: world.disk.clone(),
                clock: self.clock.clone(),
                random: world.random.clone(),
                node_name: node_name.to_owned(),
                own: Some(doors.main.clone()),
                bootstrap: doors.bootstrap.clone().map(|door| door as Rc<dyn Cluster>),
                past: Past::default(),
            },
            current: root.join(CLIENT.current),
            door: doors.main,
            bootstrap: doors.bootstrap,
            link: self.link.clone(),
        };
        Box::pin(member.run())
    }

    /// Gets and renews the certificate of the kubelet's port, for what `names` says; `show` takes chain
    /// and key.
    pub fn keep_serving(
        &self,
        door: Rc<KubeconfigCluster>,
        world: &World,
        node_name: &str,
        names: Box<dyn Fn() -> Names>,
        show: Box<dyn Fn(&str)>,
    ) -> LocalFuture<'static, ()> {
        let serving = Serving {
            certificate: NodeCertificate {
                purpose: &SERVING,
                names,
                disk: world.disk.clone(),
                clock: self.clock.clone(),
                random: world.random.clone(),
                node_name: node_name.to_owned(),
                own: None,
                bootstrap: Some(door),
                past: Past::default(),
            },
            link: self.link.clone(),
            show,
        };
        Box::pin(serving.run())
    }

    /// Follows the cluster and reports to it until the tasks are dropped.
    pub fn start(
        &self,
        registry: Registry,
        options: Options,
        executor: &Rc<LocalExecutor<'static>>,
    ) -> Vec<Task<()>> {
        let (link, clock) = (self.link.clone(), self.clock.clone());
        let bound = Selection {
            kind: Kind::Pod,
            namespace: String::new(),
            fields: format!("spec.nodeName={}", options.node_name),
        };
        let pods = Reflector::new(link.clone(), bound);
        let node = Rc::new(OwnNode::new(link.clone(), &options.node_name, &pods));
        let (enlisted, taken) = (Rc::new(Enlisted::default()), Rc::default());
        let heartbeat = Heartbeat {
            link: link.clone(),
            registry: registry.clone(),
            clock: clock.clone(),
            node_name: options.node_name.clone(),
            registration: options.registration,
            cloud: options.cloud,
            provider_id: options.provider_id,
            provided_ips: options.provided_ips,
            enlisted: enlisted.clone(),
            node: node.clone(),
        };
        let events = Events {
            link: link.clone(),
            registry: registry.clone(),
            clock: clock.clone(),
        };
        let pull = Pull {
            registry: registry.clone(),
            clock: clock.clone(),
            executor: executor.clone(),
            pods: pods.clone(),
            node: node.clone(),
            taken: Rc::clone(&taken),
        };
        let push = Push {
            link,
            registry,
            clock,
            node_name: options.node_name,
            pods: pods.clone(),
            taken,
            enlisted,
            sources: options.sources,
        };
        vec![
            task::spawn(executor, async move { pods.run().await }),
            task::spawn(executor, async move { node.reflector.run().await }),
            task::spawn(executor, heartbeat.run()),
            task::spawn(executor, pull.run()),
            task::spawn(executor, push.run()),
            task::spawn(executor, events.run()),
        ]
    }
}
#[cfg(test)]
mod testing;
