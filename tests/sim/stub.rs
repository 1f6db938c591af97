//! A naive node, to test the simulation itself: with no mutation it passes, with each it must fail.
//!
//! It knows main containers and restart policies only. It is no model of the real node: it exists
//! so that a checker that cannot fail is found out.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use lowtide::world::{
    Area, Capabilities, CgroupResources, ContainerConfig, ContainerObserved, ContainerState, Dns,
    NamespaceMode, Namespaces, PodCgroup, PodObserved, ProcMount, QosClass, RuntimeError,
    SandboxConfig, SandboxState, Seccomp, Security, TerminationMessagePolicy, Uid, World,
};
use serde_json::{Value, json};

use crate::host::Host;
use crate::manifests::{Document, Features, Manifests};
use crate::random::Stream;
use crate::run::{Executor, Node};
use crate::spec::{ContainerSpec, Desired};

/// One way to be wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mutation {
    None,
    StartsBesideTheLiving,
    ForgetsTheRemoved,
    EndsPodsAtItsStart,
    ForgetsFinalExits,
    FlushesNothing,
    Spins,
    SeesNoDeadSandbox,
    NeverBacksOff,
    RemovesBeforeStopping,
    NoSecondTry,
}

impl Mutation {
    pub const ALL: [Mutation; 10] = [
        Mutation::StartsBesideTheLiving,
        Mutation::ForgetsTheRemoved,
        Mutation::EndsPodsAtItsStart,
        Mutation::ForgetsFinalExits,
        Mutation::FlushesNothing,
        Mutation::Spins,
        Mutation::SeesNoDeadSandbox,
        Mutation::NeverBacksOff,
        Mutation::RemovesBeforeStopping,
        Mutation::NoSecondTry,
    ];
}

#[derive(Default)]
struct Shared {
    bodies: BTreeMap<Uid, Value>,
    statuses: BTreeMap<Uid, Value>,
    version: u64,
}

pub struct StubNode {
    mutation: Mutation,
    shared: Rc<RefCell<Shared>>,
    task: Option<async_executor::Task<()>>,
}

impl StubNode {
    pub fn new(mutation: Mutation) -> StubNode {
        StubNode {
            mutation,
            shared: Rc::default(),
            task: None,
        }
    }
}

impl Node for StubNode {
    fn features(&self) -> Features {
        Features::Plain
    }

    fn start(&mut self, host: &Rc<Host>, secrets: Stream, executor: &Rc<Executor>) {
        let agent = Agent {
            world: host.world(secrets),
            mutation: self.mutation,
            shared: Rc::clone(&self.shared),
        };
        self.task = Some(executor.spawn(agent.run()));
    }

    fn died(&mut self) {
        self.task = None;
    }

    fn power_cut(&mut self, _luck: &Stream) {
        self.shared.borrow_mut().statuses.clear();
    }

    fn feed(&mut self, manifests: &Manifests) {
        let mut bodies = BTreeMap::new();
        for file in manifests.files.values() {
            if let Some(Document::Pod(pod)) = &file.good {
                let mut pod = pod.clone();
                let text = pod.to_string();
                let hash = text
                    .bytes()
                    .fold(7_u64, |h, b| h.wrapping_mul(31).wrapping_add(b.into()));
                pod["metadata"]["uid"] = json!(format!("{hash:016x}"));
                pod["metadata"]["namespace"] = json!("default");
                let uid = Uid::new(&format!("{hash:016x}")).expect("hex digits");
                bodies.insert(uid, pod);
            }
        }
        let mut shared = self.shared.borrow_mut();
        shared.statuses.retain(|uid, _| bodies.contains_key(uid));
        shared.bodies = bodies;
    }

    fn desired(&self) -> Rc<dyn Fn() -> Option<Rc<Vec<Desired>>>> {
        let shared = Rc::clone(&self.shared);
        Rc::new(move || {
            let shared = shared.borrow();
            let pods = shared.bodies.values().filter_map(stated);
            Some(Rc::new(pods.collect()))
        })
    }

    fn version(&self) -> u64 {
        self.shared.borrow().version
    }

    fn statuses(&self) -> Vec<(Uid, Value)> {
        let shared = self.shared.borrow();
        shared
            .statuses
            .iter()
            .map(|(uid, status)| (uid.clone(), status.clone()))
            .collect()
    }

    fn erase_statuses(&mut self) {
        self.shared.borrow_mut().statuses.clear();
    }

    fn fail_store(&mut self, _failure: Option<std::io::ErrorKind>) {}

    fn write_objects(&mut self, _luck: Stream, _executor: &Rc<Executor>) {}

    fn keeps_promises(&self) -> Result<(), String> {
        Ok(())
    }

    fn store_writes(&self) -> u64 {
        0
    }
}

struct Agent {
    world: World,
    mutation: Mutation,
    shared: Rc<RefCell<Shared>>,
}

impl Agent {
    async fn run(self) {
        let mut known = self.world.runtime.recover().await.unwrap_or_default();
        if self.mutation == Mutation::EndsPodsAtItsStart {
            for uid in &known {
                let _ = self.stop(uid).await;
            }
        }
        loop {
            if self.mutation == Mutation::ForgetsTheRemoved {
                known.clear();
            }
            let wanted: Vec<Desired> = {
                let shared = self.shared.borrow();
                shared.bodies.values().filter_map(stated).collect()
            };
            let stored = self
                .world
                .disk
                .list(Area::Root, "pods")
                .await
                .unwrap_or_default();
            known.extend(stored.iter().filter_map(|name| Uid::new(name)));
            known.extend(wanted.iter().map(|pod| pod.uid.clone()));
            known.sort();
            known.dedup();
            let is_wanted = |uid: &Uid| wanted.iter().any(|pod| pod.uid == *uid);
            let mut gone = Vec::new();
            for uid in known.iter().filter(|uid| !is_wanted(uid)) {
                if self.end(uid).await.is_ok() {
                    gone.push(uid.clone());
                }
            }
            known.retain(|uid| !gone.contains(uid));
            let ending = known.iter().any(|uid| !is_wanted(uid));
            for pod in &wanted {
                if !ending {
                    let outcome = self.advance(pod).await;
                    if outcome.is_err() && self.mutation == Mutation::NoSecondTry {
                        std::future::pending::<()>().await;
                    }
                }
                self.publish(pod).await;
            }
            self.pause().await;
        }
    }

    async fn pause(&self) {
        if self.mutation == Mutation::Spins {
            futures_lite::future::yield_now().await;
            return;
        }
        let deadline = self.world.clock.now() + Duration::from_secs(1);
        self.world.clock.sleep_until(deadline).await;
    }

    async fn end(&self, uid: &Uid) -> Result<(), RuntimeError> {
        if self.mutation != Mutation::RemovesBeforeStopping {
            self.stop(uid).await?;
        }
        let torn = self.world.volumes.tear_down(uid).await;
        torn?;
        self.world.runtime.stop_sandbox(uid).await?;
        self.world.runtime.remove_pod(uid).await?;
        let file = final_file(uid);
        let removed = self.world.disk.remove(Area::Root, &file).await;
        removed.map_err(|error| RuntimeError::Disk(error.to_string()))
    }

    /// Stops every container; an error while one still lives.
    async fn stop(&self, uid: &Uid) -> Result<(), RuntimeError> {
        let live = || {
            let mut containers = self.world.runtime.observe(uid).containers;
            containers.retain(is_live);
            containers
        };
        for container in live() {
            self.world
                .runtime
                .stop_container(uid, &container.id)
                .await?;
        }
        let patience = self.world.clock.now() + Duration::from_secs(2);
        self.world.clock.sleep_until(patience).await;
        for container in live() {
            self.world
                .runtime
                .kill_container(uid, &container.id)
                .await?;
        }
        let patience = self.world.clock.now() + Duration::from_millis(500);
        self.world.clock.sleep_until(patience).await;
        match live().is_empty() {
            true => Ok(()),
            false => Err(RuntimeError::Failed("something lives on".to_owned())),
        }
    }

    fn is_wanted(&self, uid: &Uid) -> bool {
        self.shared.borrow().bodies.contains_key(uid)
    }

    async fn final_phase(&self, uid: &Uid) -> Option<Value> {
        if self.mutation == Mutation::ForgetsFinalExits {
            return None;
        }
        let bytes = self
            .world
            .disk
            .read(Area::Root, &final_file(uid))
            .await
            .ok()??;
        serde_json::from_slice(&bytes).ok()
    }

    async fn advance(&self, pod: &Desired) -> Result<(), RuntimeError> {
        let uid = &pod.uid;
        if self.final_phase(uid).await.is_some() {
            let observed = self.world.runtime.observe(uid);
            if observed != PodObserved::default() {
                self.stop(uid).await?;
                self.world.runtime.stop_sandbox(uid).await?;
                self.world.runtime.remove_pod(uid).await?;
            }
            return Ok(());
        }
        let observed = self.world.runtime.observe(uid);
        let begun = !observed.containers.is_empty();
        if begun && self.mutation != Mutation::ForgetsFinalExits && pod.is_over(&observed) {
            return self.record(pod, &observed).await;
        }
        let attempt = match &observed.sandbox {
            Some(sandbox) if sandbox.state == SandboxState::Ready => None,
            Some(_) if self.mutation == Mutation::SeesNoDeadSandbox => None,
            Some(sandbox) => Some(sandbox.attempt + 1),
            None => Some(0),
        };
        if let Some(attempt) = attempt {
            self.stop(uid).await?;
            if !self.is_wanted(uid) {
                return Ok(());
            }
            let config = Arc::new(sandbox_config(pod, attempt));
            self.world.runtime.start_sandbox(config).await?;
        }
        for spec in &pod.containers {
            self.keep_running(pod, spec).await?;
        }
        Ok(())
    }

    async fn keep_running(&self, pod: &Desired, spec: &ContainerSpec) -> Result<(), RuntimeError> {
        let observed = self.world.runtime.observe(&pod.uid);
        let sandbox_ready = observed
            .sandbox
            .as_ref()
            .is_some_and(|s| s.state == SandboxState::Ready);
        let last = observed
            .containers
            .iter()
            .rev()
            .find(|c| c.name == spec.name);
        let attempt = match last.map(|last| &last.state) {
            None => {
                let next = self.world.runtime.next_attempt(
                    &pod.uid,
                    &pod.namespace,
                    &pod.name,
                    &spec.name,
                );
                next.await
            }
            Some(ContainerState::Exited(exit)) => {
                let again = pod.restarts(&spec.name, exit.code);
                let wait = match self.mutation {
                    Mutation::NeverBacksOff => Duration::ZERO,
                    _ => Duration::from_secs(10),
                };
                let waited = self.world.clock.now().since(exit.finished.boot) >= wait;
                if !waited || !(again || self.mutation == Mutation::ForgetsFinalExits) {
                    return Ok(());
                }
                last.map_or(0, |last| last.attempt + 1)
            }
            Some(ContainerState::Created) => {
                let id = &last.expect("it has a state").id;
                return self.world.runtime.kill_container(&pod.uid, id).await;
            }
            Some(ContainerState::Running { .. }) => match self.mutation {
                Mutation::StartsBesideTheLiving => last.map_or(0, |last| last.attempt + 1),
                _ => return Ok(()),
            },
        };
        if !sandbox_ready && self.mutation != Mutation::SeesNoDeadSandbox {
            return Ok(());
        }
        if !self.is_wanted(&pod.uid) {
            return Ok(());
        }
        let config = Arc::new(container_config(pod, spec, attempt));
        match self.world.runtime.start_container(config).await {
            Ok(_) | Err(RuntimeError::Start { .. }) => Ok(()),
            Err(error) => Err(error),
        }
    }

    async fn record(&self, pod: &Desired, observed: &PodObserved) -> Result<(), RuntimeError> {
        let good = |c: &ContainerObserved| match &c.state {
            ContainerState::Exited(exit) => exit.code == 0,
            ContainerState::Created | ContainerState::Running { .. } => false,
        };
        let last = |spec: &ContainerSpec| {
            observed
                .containers
                .iter()
                .rev()
                .find(|c| c.name == spec.name)
        };
        let all_good = pod
            .containers
            .iter()
            .all(|spec| last(spec).is_some_and(good));
        let phase = json!({"phase": if all_good { "Succeeded" } else { "Failed" }});
        let bytes = phase.to_string().into_bytes();
        let file = final_file(&pod.uid);
        let disk = &self.world.disk;
        let written = match self.mutation {
            Mutation::FlushesNothing => disk.write(Area::Root, &file, bytes).await,
            _ => disk.write_durable(Area::Root, &file, bytes).await,
        };
        written.map_err(|error| RuntimeError::Disk(error.to_string()))
    }

    async fn publish(&self, pod: &Desired) {
        let status = match self.final_phase(&pod.uid).await {
            Some(status) => status,
            None => running_status(&self.world.runtime.observe(&pod.uid)),
        };
        let mut shared = self.shared.borrow_mut();
        if shared.bodies.contains_key(&pod.uid) {
            shared.statuses.insert(pod.uid.clone(), status);
            shared.version += 1;
        }
    }
}

fn running_status(observed: &PodObserved) -> Value {
    let mut told = BTreeMap::new();
    for container in &observed.containers {
        let state = match &container.state {
            ContainerState::Running { .. } => json!({"running": {}}),
            ContainerState::Created | ContainerState::Exited(_) => json!({"waiting": {}}),
        };
        let status =
            json!({"name": container.name, "restartCount": container.attempt, "state": state});
        told.insert(container.name.clone(), status);
    }
    let told: Vec<Value> = told.into_values().collect();
    json!({"phase": "Running", "containerStatuses": told})
}

fn final_file(uid: &Uid) -> String {
    format!("pods/{uid}/final.json")
}

fn is_live(container: &ContainerObserved) -> bool {
    !matches!(container.state, ContainerState::Exited(_))
}

fn sandbox_config(pod: &Desired, attempt: u32) -> SandboxConfig {
    SandboxConfig {
        uid: pod.uid.clone(),
        name: pod.name.clone(),
        namespace: pod.namespace.clone(),
        attempt,
        hostname: pod.name.clone(),
        domain: None,
        namespaces: Namespaces {
            network: NamespaceMode::Pod,
            ipc: NamespaceMode::Pod,
            pid: NamespaceMode::Container,
        },
        ports: Vec::new(),
        dns: Dns::default(),
        host_aliases: Vec::new(),
        sysctls: Vec::new(),
        cgroup: PodCgroup {
            qos: QosClass::BestEffort,
            resources: CgroupResources::default(),
        },
    }
}

fn container_config(pod: &Desired, spec: &ContainerSpec, attempt: u32) -> ContainerConfig {
    ContainerConfig {
        uid: pod.uid.clone(),
        pod_name: pod.name.clone(),
        namespace: pod.namespace.clone(),
        name: spec.name.clone(),
        attempt,
        hash: spec.image.clone(),
        image: spec.image.clone(),
        image_id: String::new(),
        image_shown: String::new(),
        command: spec.command.clone(),
        args: Vec::new(),
        working_dir: None,
        env: Vec::new(),
        mounts: Vec::new(),
        security: Security {
            run_as_user: None,
            run_as_group: None,
            run_as_non_root: false,
            supplemental_groups: Vec::new(),
            strict_groups: false,
            fs_group: None,
            privileged: false,
            capabilities: Capabilities::default(),
            no_new_privileges: false,
            read_only_root: false,
            proc_mount: ProcMount::Default,
            seccomp: Seccomp::Unconfined,
        },
        resources: CgroupResources::default(),
        oom_score_adj: 0,
        stdin: false,
        stdin_once: false,
        tty: false,
        target: None,
        termination_message_path: String::new(),
        termination_message_policy: TerminationMessagePolicy::File,
    }
}

/// All pods of the stub are of manifests.
fn stated(body: &Value) -> Option<Desired> {
    let pod = Desired::from_body(body)?;
    Some(Desired {
        is_static: true,
        ..pod
    })
}
