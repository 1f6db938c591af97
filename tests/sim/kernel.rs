//! The truth about pods: what lives in the simulated kernel and in the shims' directories.
//!
//! ```text
//!   container:  Created ─► Running ─► Exited ─► (removed)       sandbox:  Dead(making) ─► Ready ─► Dead
//! ```
//!
//! The agent does not see this but `seen`, a picture that changes bring up to date with delay and
//! that a new agent begins without. No async code and no faults here: only state.

use std::collections::{BTreeMap, VecDeque};
use std::net::{IpAddr, Ipv4Addr};
use std::rc::Rc;
use std::sync::Arc;

use event_listener::Event;
use lowtide::world::{
    CgroupResources, ContainerConfig, ContainerId, ContainerObserved, ContainerState,
    NamespaceMode, PodObserved, SandboxConfig, SandboxObserved, SandboxState, Stamp, Uid,
};

use crate::script::Script;
use crate::timeline::Nanos;

pub struct Sandbox {
    pub config: Arc<SandboxConfig>,
    pub state: SandboxState,
    pub ip: IpAddr,
    pub created: Stamp,
    /// Never reused, so that a late event finds only its own sandbox.
    pub serial: u64,
}

impl Sandbox {
    pub fn is_on_host(&self) -> bool {
        self.config.namespaces.network == NamespaceMode::Host
    }
}

pub struct Container {
    pub id: ContainerId,
    pub config: Arc<ContainerConfig>,
    pub script: Script,
    pub state: ContainerState,
    pub created: Stamp,
    /// The sandbox it was made in.
    pub sandbox: u64,
    pub stop_asked: Option<Nanos>,
    pub started: Option<Nanos>,
}

impl Container {
    pub fn is_live(&self) -> bool {
        !matches!(self.state, ContainerState::Exited(_))
    }

    pub fn is_running(&self) -> bool {
        matches!(self.state, ContainerState::Running { .. })
    }
}

#[derive(Default)]
pub struct Pod {
    pub sandbox: Option<Sandbox>,
    pub containers: Vec<Container>,
    /// The shim is gone: an exit now is one that nobody sees.
    pub shim_dead: bool,
}

impl Pod {
    pub fn observe(&self) -> PodObserved {
        let mut containers: Vec<ContainerObserved> = self
            .containers
            .iter()
            .map(|container| ContainerObserved {
                id: container.id.clone(),
                name: container.config.name.clone(),
                attempt: container.config.attempt,
                hash: container.config.hash.clone(),
                image: container.config.image.clone(),
                image_id: container.config.image_id.clone(),
                image_shown: container.config.image_shown.clone(),
                created: container.created,
                state: container.state.clone(),
                user: None,
                resources: Some(container.config.resources.clone()),
            })
            .collect();
        containers.sort_by(|a, b| (&a.name, a.attempt).cmp(&(&b.name, b.attempt)));
        let sandbox = self.sandbox.as_ref().map(|sandbox| {
            let host_network = sandbox.is_on_host();
            SandboxObserved {
                attempt: sandbox.config.attempt,
                state: sandbox.state.clone(),
                ips: if host_network {
                    vec![]
                } else {
                    vec![sandbox.ip]
                },
                host_network,
                created: sandbox.created,
                resources: Some(CgroupResources {
                    pids_max: None,
                    ..sandbox.config.cgroup.resources.clone()
                }),
            }
        });
        PodObserved {
            sandbox,
            containers,
        }
    }

    pub fn live(&self) -> impl Iterator<Item = &Container> {
        self.containers.iter().filter(|c| c.is_live())
    }

    pub fn ready_sandbox(&self) -> Option<&Sandbox> {
        let sandbox = self.sandbox.as_ref()?;
        (sandbox.state == SandboxState::Ready).then_some(sandbox)
    }

    pub fn container(&mut self, id: &ContainerId) -> Option<&mut Container> {
        self.containers.iter_mut().find(|c| c.id == *id)
    }
}

#[derive(Default)]
pub struct Kernel {
    pub pods: BTreeMap<Uid, Pod>,
    /// What the present agent knows.
    pub seen: BTreeMap<Uid, PodObserved>,
    pub changed: VecDeque<Uid>,
    pub rung: Rc<Event>,
    /// The highest number of each container's log files, which outlive a reboot.
    pub logs: BTreeMap<(Uid, String), u32>,
    serials: u64,
}

impl Kernel {
    /// Whether a live container was made from the image.
    pub fn uses_image(&self, id: &str) -> bool {
        let mut live = self.pods.values().flat_map(Pod::live);
        live.any(|container| container.config.image_id == id)
    }

    pub fn serial(&mut self) -> u64 {
        self.serials += 1;
        self.serials
    }

    pub fn container_id(&mut self) -> ContainerId {
        let serial = self.serial();
        ContainerId(format!("{serial:064x}").into())
    }

    pub fn address(serial: u64) -> IpAddr {
        let [.., high, low] = serial.to_be_bytes();
        Ipv4Addr::new(10, 88, high, low).into()
    }

    pub fn seen(&self, uid: &Uid) -> PodObserved {
        self.seen.get(uid).cloned().unwrap_or_default()
    }

    /// The agent's picture of one pod becomes the truth; true if it was another.
    pub fn look(&mut self, uid: &Uid) -> bool {
        let truth = self.pods.get(uid).map(Pod::observe).unwrap_or_default();
        let known = self.seen.insert(uid.clone(), truth.clone());
        known.unwrap_or_default() != truth
    }

    /// Tells the agent that a pod changed.
    pub fn ring(&mut self, uid: &Uid) {
        if !self.changed.contains(uid) {
            self.changed.push_back(uid.clone());
        }
        self.rung.notify(usize::MAX);
    }

    pub fn forget_observer(&mut self) {
        self.seen.clear();
        self.changed.clear();
    }

    pub fn reboot(&mut self) {
        self.pods.clear();
        self.forget_observer();
    }
}
