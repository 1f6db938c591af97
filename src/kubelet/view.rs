//! A pod as the node loop reads it: each container's role and rules worked out once, so that `plan`
//! and `status` only compare.
//!
//! ```text
//!   object ─► PodView   small, for as long as the pod is
//!               └─ text ─► Typed   10 kB and more, while something is made of it
//! ```

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Container, Lifecycle, Pod, PodSpec, Probe, Volume};
use serde_json::Value;

use super::container_config::container_hash;
use super::fit::Claim;
use super::pressure::limits;
use super::resize::ResizePolicy;
use super::resources::{container_resources, pod_cgroup};
use super::tokens;
use crate::object::references::items;
use crate::object::resources::qos_class;
use crate::object::{
    self, ENDED_THERE, Key, Kind, Object, Origin, Problem, Provenance, Standing, Unhonoured,
    unhonoured,
};
use crate::registry::Packed;
use crate::world::{CgroupResources, QosClass, Uid};

/// What a container is for; decides order, restarts and whether the pod's end waits for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Role {
    /// Runs to its end before the next starts.
    Init,
    /// An init container with `restartPolicy: Always`: started in order, runs beside the rest.
    Sidecar,
    Regular,
    /// Added to a pod that runs (`kubectl debug`); started once, never again, and decides nothing.
    Ephemeral,
}

impl Role {
    /// The list of the spec that it stands in.
    pub fn list(self) -> &'static str {
        match self {
            Role::Init | Role::Sidecar => "initContainers",
            Role::Regular => "containers",
            Role::Ephemeral => "ephemeralContainers",
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RestartPolicy {
    Always,
    OnFailure,
    Never,
}

impl RestartPolicy {
    /// Whether a container that ended with `code` runs again.
    pub fn restarts(self, code: i32) -> bool {
        match self {
            RestartPolicy::Always => true,
            RestartPolicy::OnFailure => code != 0,
            RestartPolicy::Never => false,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PullPolicy {
    Always,
    IfNotPresent,
    Never,
}

/// The three probes in the order in which they gate each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ProbeKind {
    Startup,
    Liveness,
    Readiness,
}

impl ProbeKind {
    pub const ALL: [ProbeKind; 3] = [
        ProbeKind::Startup,
        ProbeKind::Liveness,
        ProbeKind::Readiness,
    ];

    /// As events spell it.
    pub fn name(self) -> &'static str {
        match self {
            ProbeKind::Startup => "Startup",
            ProbeKind::Liveness => "Liveness",
            ProbeKind::Readiness => "Readiness",
        }
    }
}

#[derive(Clone, Debug)]
pub struct ContainerView {
    pub name: String,
    pub role: Role,
    /// Position within `spec.containers`, `spec.initContainers` or `spec.ephemeralContainers`.
    pub index: usize,
    pub image: String,
    pub pull_policy: PullPolicy,
    /// Decides whether a running instance is still the one that is wanted.
    pub hash: String,
    /// The pod's policy, or what the role makes of it.
    pub restart_policy: RestartPolicy,
    /// Limits of its cgroup.
    pub resources: CgroupResources,
    pub resize_policy: ResizePolicy,
    /// Boxed, as below: few containers have any, and they are large.
    probes: [Option<Box<Probe>>; 3],
    pub lifecycle: Option<Box<Lifecycle>>,
    /// Ports that have a name.
    pub ports: Vec<(String, u16)>,
}

impl ContainerView {
    pub fn probe(&self, kind: ProbeKind) -> Option<&Probe> {
        self.probes[kind as usize].as_deref()
    }
}

/// One pod at one version of its spec. Shared by the worker and its tasks.
#[derive(Clone, Debug)]
pub struct PodView {
    pub uid: Uid,
    pub key: Key,
    /// Init containers and sidecars in order, then regular containers, then ephemeral ones.
    pub containers: Vec<ContainerView>,
    pub restart_policy: RestartPolicy,
    pub qos: QosClass,
    /// Limits of its cgroup, but for the number of processes.
    pub cgroup: CgroupResources,
    /// What it takes of the node.
    pub claim: Claim,
    /// Other resources are asked for, and there is no room for them.
    pub pending: Option<Box<Pending>>,
    /// `metadata.generation`; 0 for none.
    pub generation: i64,
    pub priority: i32,
    /// Something that it keeps on disk is limited, so that it has to be measured.
    pub limits_disk: bool,
    pub host_network: bool,
    pub has_sysctls: bool,
    /// Names of the secrets that images may be pulled with, in order.
    pub pull_secrets: Vec<String>,
    /// ConfigMaps and Secrets that volumes show, and the account whose tokens they show.
    mounted: Vec<(Kind, String)>,
    pub is_static: bool,
    pub provenance: Option<Provenance>,
    /// The manifest holds a newer text that cannot be used.
    pub stale: Option<Problem>,
    /// `terminationGracePeriodSeconds`, at least 0.
    pub grace: Duration,
    pub active_deadline: Option<Duration>,
    /// Fields that this version does not act on.
    pub unhonoured: Vec<Unhonoured>,
    /// Deletion was asked for, with this grace.
    pub deletion_grace: Option<Duration>,
    /// The phase in which the pod's cluster counts it as ended.
    pub ended_there: Option<String>,
    text: Text,
    typed: RefCell<Option<Rc<Typed>>>,
}

/// A resize that waits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pending {
    pub message: String,
    /// Of the spec that asks for it.
    pub generation: i64,
}

/// Where the pod's own text is, without its status.
#[derive(Clone, Debug)]
enum Text {
    Own(Box<str>),
    /// In the registry, which has it anyway.
    Registered(Packed),
}

/// The typed pod.
#[derive(Debug)]
pub struct Typed {
    pub pod: Pod,
    /// `spec.ephemeralContainers` as the containers that they are.
    ephemeral: Vec<Container>,
}

impl PodView {
    /// Reads a pod of the registry. `Err` says what is missing or of the wrong type; the registry
    /// validates before it stores, so this is a defect of an older store or of validation.
    pub fn new(object: &Object) -> Result<Rc<PodView>, String> {
        PodView::read(object, Text::Own(without_status(&object.body)))
    }

    /// The same of an object at rest, whose text it shares.
    pub fn registered(packed: &Packed, object: &Object) -> Result<Rc<PodView>, String> {
        PodView::read(object, Text::Registered(packed.without_status()))
    }

    /// The object with the resources that its containers have had in the spec `before`.
    pub fn pending(object: &Object, before: &Value, why: Pending) -> Result<Rc<PodView>, String> {
        let mut object = object.clone();
        for list in [Role::Init.list(), Role::Regular.list()] {
            let containers = object.body["spec"][list].as_array_mut();
            for container in containers.into_iter().flatten() {
                let known = items(before, list).find(|known| known["name"] == container["name"]);
                container["resources"] = known.map_or(Value::Null, |one| one["resources"].clone());
            }
        }
        let mut view = PodView::new(&object)?;
        Rc::make_mut(&mut view).pending = Some(why.into());
        Ok(view)
    }

    /// Whether both ask for the same resources.
    pub fn asks_as(&self, other: &PodView) -> bool {
        let each = |view: &PodView| {
            let containers = view.containers.iter();
            containers.map(|c| c.resources.clone()).collect::<Vec<_>>()
        };
        self.claim == other.claim && self.cgroup == other.cgroup && each(self) == each(other)
    }

    fn read(object: &Object, text: Text) -> Result<Rc<PodView>, String> {
        let typed = Typed::new(&object.body)?;
        let uid = Uid::new(object.uid())
            .ok_or_else(|| format!("metadata.uid: {:?} is no path component", object.uid()))?;
        let spec = typed.pod.spec.as_ref().ok_or("spec: missing")?;
        let policy = match spec.restart_policy.as_deref() {
            Some("Never") => RestartPolicy::Never,
            Some("OnFailure") => RestartPolicy::OnFailure,
            _ => RestartPolicy::Always,
        };
        let init = spec.init_containers.iter().flatten().enumerate();
        let init = init.map(|(index, c)| view_of_init(index, c, policy));
        let regular = spec.containers.iter().enumerate();
        let regular = regular.map(|(index, c)| container_view(index, c, Role::Regular, policy));
        let never = RestartPolicy::Never;
        let added = typed.ephemeral.iter().enumerate();
        let added = added.map(|(index, c)| container_view(index, c, Role::Ephemeral, never));
        let containers = init.chain(regular).chain(added).collect();
        let seconds = |s: i64| Duration::from_secs(s.max(0).unsigned_abs());
        Ok(Rc::new(PodView {
            uid,
            key: object.key.clone(),
            containers,
            restart_policy: policy,
            qos: qos_class(&typed.pod),
            cgroup: pod_cgroup(&typed.pod, None).resources,
            claim: Claim::of(&object.body["spec"]),
            pending: None,
            generation: typed.pod.metadata.generation.unwrap_or(0),
            priority: spec.priority.unwrap_or(0),
            limits_disk: limits::has_any(&typed.pod),
            has_sysctls: has_sysctls(spec),
            pull_secrets: pull_secrets(spec),
            mounted: mounted(&typed.pod),
            host_network: spec.host_network.unwrap_or(false),
            is_static: object.is_static(),
            provenance: object.provenance.clone(),
            stale: match &object.standing {
                Standing::Stale(problem) => Some(problem.clone()),
                Standing::Accepted | Standing::Rejected(_) => None,
            },
            grace: seconds(spec.termination_grace_period_seconds.unwrap_or(30)),
            active_deadline: spec.active_deadline_seconds.map(seconds),
            deletion_grace: object.is_deleting().then(|| {
                let grace = object.deletion_grace_s();
                seconds(
                    grace
                        .or(spec.termination_grace_period_seconds)
                        .unwrap_or(30),
                )
            }),
            ended_there: match object.key.origin {
                Origin::Remote => object.annotation(ENDED_THERE).map(str::to_owned),
                Origin::Local => None,
            },
            unhonoured: unhonoured(&object.body, object.key.origin),
            text,
            typed: RefCell::new(Some(Rc::new(typed))),
        }))
    }

    pub fn container(&self, name: &str) -> Option<&ContainerView> {
        self.containers.iter().find(|c| c.name == name)
    }

    /// The pod without its status, made of its text.
    pub fn body(&self) -> Value {
        match &self.text {
            Text::Own(text) => {
                serde_json::from_str(text).expect("a value written as text is read back")
            }
            Text::Registered(packed) => packed.unpack().body,
        }
    }

    /// The typed pod; made of its text if nobody has it.
    pub fn typed(&self) -> Rc<Typed> {
        let make = || {
            let typed = Typed::new(&self.body());
            Rc::new(typed.expect("PodView::new has read the same"))
        };
        self.typed.borrow_mut().get_or_insert_with(make).clone()
    }

    /// Nothing will be made of the pod for a while.
    pub fn rest(&self) {
        self.typed.take();
    }

    /// Whether a volume of the pod shows the object.
    pub fn mounts(&self, kind: Kind, name: &str) -> bool {
        let mut mounted = self.mounted.iter();
        mounted.any(|(k, n)| *k == kind && n == name)
    }

    /// `spec.containers{web}`: what events about a container point at.
    pub fn field_path(&self, view: &ContainerView) -> String {
        format!("spec.{}{{{}}}", view.role.list(), view.name)
    }

    pub fn with_role(&self, role: Role) -> impl Iterator<Item = &ContainerView> {
        self.containers.iter().filter(move |c| c.role == role)
    }

    pub fn has_init(&self) -> bool {
        let mut containers = self.containers.iter();
        containers.any(|c| matches!(c.role, Role::Init | Role::Sidecar))
    }
}

impl Typed {
    fn new(body: &Value) -> Result<Typed, String> {
        let at = |(path, error): (String, _)| format!("{path}: {error}");
        let (pod, _) = object::view(body).map_err(at)?;
        // An ephemeral container has a container's fields and one more.
        let list = body["spec"]["ephemeralContainers"].as_array();
        let containers = list.into_iter().flatten();
        let ephemeral = containers.map(|value| Ok(object::view(value).map_err(at)?.0));
        let ephemeral: Result<_, String> = ephemeral.collect();
        Ok(Typed {
            pod,
            ephemeral: ephemeral.map_err(|why| format!("spec.ephemeralContainers: {why}"))?,
        })
    }

    /// The spec behind a view of this pod.
    pub fn container(&self, view: &ContainerView) -> &Container {
        let spec = self.pod.spec.as_ref().expect("PodView::new checked it");
        match view.role {
            Role::Regular => &spec.containers[view.index],
            Role::Ephemeral => &self.ephemeral[view.index],
            Role::Init | Role::Sidecar => {
                let init = spec.init_containers.as_ref();
                &init.expect("the view was made from this list")[view.index]
            }
        }
    }

    /// `targetContainerName`: whose processes an ephemeral container sees.
    pub fn target(&self, view: &ContainerView) -> Option<&str> {
        let spec = self.pod.spec.as_ref()?;
        let added = (view.role == Role::Ephemeral).then_some(spec.ephemeral_containers.as_ref()?);
        let target = added?.get(view.index)?.target_container_name.as_deref();
        target.filter(|name| !name.is_empty())
    }
}

fn without_status(body: &Value) -> Box<str> {
    let mut body = body.clone();
    if let Some(fields) = body.as_object_mut() {
        fields.remove("status");
    }
    body.to_string().into()
}

fn has_sysctls(spec: &PodSpec) -> bool {
    let context = spec.security_context.as_ref();
    let sysctls = context.and_then(|context| context.sysctls.as_ref());
    sysctls.is_some_and(|sysctls| !sysctls.is_empty())
}

fn pull_secrets(spec: &PodSpec) -> Vec<String> {
    let secrets = spec.image_pull_secrets.iter().flatten();
    secrets.map(|secret| secret.name.clone()).collect()
}

/// What a change of makes the pod's volumes stale: what they show, and the account whose tokens.
fn mounted(pod: &Pod) -> Vec<(Kind, String)> {
    let volumes = pod
        .spec
        .iter()
        .flat_map(|spec| spec.volumes.iter().flatten());
    let account = || (Kind::ServiceAccount, tokens::account_name(pod).to_owned());
    let account = (!tokens::requests(pod).is_empty()).then(account);
    volumes.flat_map(shown).chain(account).collect()
}

fn shown(volume: &Volume) -> Vec<(Kind, String)> {
    let config_map = |name: &String| (Kind::ConfigMap, name.clone());
    let secret = |name: &String| (Kind::Secret, name.clone());
    let of_volume = [
        volume.config_map.as_ref().map(|c| config_map(&c.name)),
        volume
            .secret
            .as_ref()
            .and_then(|s| s.secret_name.as_ref())
            .map(secret),
    ];
    let projected = volume.projected.as_ref().and_then(|p| p.sources.as_ref());
    let of_sources = projected.into_iter().flatten().flat_map(|source| {
        [
            source.config_map.as_ref().map(|c| config_map(&c.name)),
            source.secret.as_ref().map(|s| secret(&s.name)),
        ]
    });
    of_volume.into_iter().chain(of_sources).flatten().collect()
}

fn view_of_init(index: usize, container: &Container, policy: RestartPolicy) -> ContainerView {
    let sidecar = container.restart_policy.as_deref() == Some("Always");
    if sidecar {
        container_view(index, container, Role::Sidecar, RestartPolicy::Always)
    } else {
        // An init container that ended well is done under any policy; under Always a failed one
        // runs again. Source: Kubernetes, "Init Containers", detailed behaviour.
        let policy = match policy {
            RestartPolicy::Always | RestartPolicy::OnFailure => RestartPolicy::OnFailure,
            RestartPolicy::Never => RestartPolicy::Never,
        };
        container_view(index, container, Role::Init, policy)
    }
}

fn container_view(
    index: usize,
    container: &Container,
    role: Role,
    restart_policy: RestartPolicy,
) -> ContainerView {
    ContainerView {
        name: container.name.clone(),
        role,
        index,
        pull_policy: match container.image_pull_policy.as_deref() {
            Some("Always") => PullPolicy::Always,
            Some("Never") => PullPolicy::Never,
            _ => PullPolicy::IfNotPresent,
        },
        hash: container_hash(container),
        restart_policy,
        resources: container_resources(container),
        resize_policy: resize_policy(container),
        image: container.image.clone().unwrap_or_default(),
        probes: [
            &container.startup_probe,
            &container.liveness_probe,
            &container.readiness_probe,
        ]
        .map(|probe| probe.clone().map(Box::new)),
        lifecycle: container.lifecycle.clone().map(Box::new),
        ports: named_ports(container),
    }
}

fn resize_policy(container: &Container) -> ResizePolicy {
    let restarts = |resource: &str| {
        let mut policies = container.resize_policy.iter().flatten();
        policies.any(|p| p.resource_name == resource && p.restart_policy == "RestartContainer")
    };
    ResizePolicy {
        cpu_restarts: restarts("cpu"),
        memory_restarts: restarts("memory"),
    }
}

fn named_ports(container: &Container) -> Vec<(String, u16)> {
    let ports = container.ports.iter().flatten().filter_map(|port| {
        let number = u16::try_from(port.container_port).ok()?;
        Some((port.name.clone()?, number))
    });
    ports.collect()
}
