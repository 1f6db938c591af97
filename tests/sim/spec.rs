//! What the checkers read from a pod's JSON, by themselves: the node's own views may be wrong.

use std::collections::BTreeSet;
use std::time::Duration;

use lowtide::object::Quantity;
use lowtide::world::{CgroupResources, ContainerState, PodObserved, Uid};
use serde_json::Value;

use crate::judge::final_exit;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Restart {
    Always,
    OnFailure,
    Never,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    Init,
    Sidecar,
    Regular,
}

#[derive(Clone, Debug)]
pub struct ContainerSpec {
    pub name: String,
    pub image: String,
    pub role: Role,
    pub command: Vec<String>,
    /// A probe or a postStart hook may end it at any time.
    pub has_probe: bool,
    pub limits: Limits,
    /// Which of them need a new instance (`resizePolicy`).
    cpu_restarts: bool,
    memory_restarts: bool,
}

/// Processor time of each 100 ms in microseconds, and bytes of memory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    cpu_us: Option<i64>,
    memory: Option<i64>,
}

/// Those of a container in a spec.
pub fn limits(container: &Value) -> Limits {
    let limit = |name: &str| {
        let text = container["resources"]["limits"][name].as_str()?;
        text.parse::<Quantity>().ok()
    };
    Limits {
        cpu_us: limit("cpu").map(|cpu| cpu.millis() * 100),
        memory: limit("memory").map(Quantity::value),
    }
}

/// Those that an instance has.
pub fn given(resources: &CgroupResources) -> Limits {
    Limits {
        cpu_us: resources.cpu_quota_us,
        memory: resources.memory_bytes_max,
    }
}

/// One pod that the node has accepted.
#[derive(Clone, Debug)]
pub struct Desired {
    pub uid: Uid,
    pub namespace: String,
    pub name: String,
    pub deleting: bool,
    /// From a manifest file.
    pub is_static: bool,
    /// Of a cluster that the node follows.
    pub is_remote: bool,
    pub restart: Restart,
    /// `activeDeadlineSeconds`
    pub active_deadline: Option<Duration>,
    pub containers: Vec<ContainerSpec>,
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

fn container(value: &Value, role: Role) -> ContainerSpec {
    let command = value["command"].as_array().into_iter().flatten();
    let sidecar = role == Role::Init && value["restartPolicy"] == "Always";
    let restarts = |resource: &str| {
        let policies = value["resizePolicy"].as_array();
        policies.into_iter().flatten().any(|policy| {
            policy["resourceName"] == resource && policy["restartPolicy"] == "RestartContainer"
        })
    };
    let probes = ["livenessProbe", "startupProbe", "readinessProbe"];
    ContainerSpec {
        name: text(&value["name"]),
        image: text(&value["image"]),
        role: if sidecar { Role::Sidecar } else { role },
        command: command.map(text).collect(),
        has_probe: probes.iter().any(|probe| value[probe].is_object())
            || value["lifecycle"]["postStart"].is_object(),
        limits: limits(value),
        cpu_restarts: restarts("cpu"),
        memory_restarts: restarts("memory"),
    }
}

impl Desired {
    /// `None` if the object has no usable uid.
    pub fn from_body(body: &Value) -> Option<Desired> {
        let metadata = &body["metadata"];
        let spec = &body["spec"];
        let list = |field: &str, role| {
            let values = spec[field].as_array().into_iter().flatten();
            values
                .map(move |value| container(value, role))
                .collect::<Vec<_>>()
        };
        let mut containers = list("initContainers", Role::Init);
        containers.extend(list("containers", Role::Regular));
        Some(Desired {
            uid: Uid::new(metadata["uid"].as_str()?)?,
            namespace: text(&metadata["namespace"]),
            name: text(&metadata["name"]),
            is_remote: false,
            is_static: metadata["annotations"]["kubernetes.io/config.source"] == "file",
            deleting: metadata["deletionTimestamp"].is_string(),
            restart: match spec["restartPolicy"].as_str() {
                Some("Never") => Restart::Never,
                Some("OnFailure") => Restart::OnFailure,
                Some(_) | None => Restart::Always,
            },
            active_deadline: spec["activeDeadlineSeconds"]
                .as_u64()
                .map(Duration::from_secs),
            containers,
        })
    }

    fn spec(&self, name: &str) -> Option<&ContainerSpec> {
        self.containers.iter().find(|c| c.name == name)
    }

    pub fn role(&self, name: &str) -> Option<Role> {
        self.spec(name).map(|c| c.role)
    }

    /// Whether the container runs again after this exit.
    pub fn restarts(&self, name: &str, code: i32) -> bool {
        let policy = match (self.role(name), self.restart) {
            (Some(Role::Sidecar), _) => Restart::Always,
            (Some(Role::Init), Restart::Always) => Restart::OnFailure,
            (_, policy) => policy,
        };
        match policy {
            Restart::Always => true,
            Restart::OnFailure => code != 0,
            Restart::Never => false,
        }
    }

    /// Whether the spec asks for another image than this, or for no such container.
    pub fn was_changed(&self, name: &str, image: &str) -> bool {
        self.spec(name).is_none_or(|c| c.image != image)
    }

    /// Whether a container is to be made anew for other limits than it has.
    pub fn restarts_for_limits(&self, name: &str, resources: &CgroupResources) -> bool {
        self.spec(name).is_some_and(|spec| {
            let (given, wanted) = (given(resources), spec.limits);
            spec.cpu_restarts && given.cpu_us != wanted.cpu_us
                || spec.memory_restarts && given.memory != wanted.memory
        })
    }

    /// Containers that must be done before this one may start.
    pub fn init_before(&self, name: &str) -> Vec<String> {
        let before = self.containers.iter().take_while(|c| c.name != name);
        let init = before.filter(|c| c.role != Role::Regular);
        init.map(|c| c.name.clone()).collect()
    }

    /// Nothing of the pod's own work is left to do, as far as this picture shows.
    pub fn is_over(&self, seen: &PodObserved) -> bool {
        let exit = |name: &str| {
            let mut instances = seen.containers.iter().rev();
            let last = instances.find(|c| c.name == name)?;
            match &last.state {
                ContainerState::Exited(exit) => Some(exit.code),
                ContainerState::Created | ContainerState::Running { .. } => None,
            }
        };
        let ended =
            |c: &ContainerSpec| exit(&c.name).is_some_and(|code| !self.restarts(&c.name, code));
        let failed_init = self
            .containers
            .iter()
            .any(|c| c.role == Role::Init && ended(c) && exit(&c.name) != Some(0));
        let mut regular = self.containers.iter().filter(|c| c.role == Role::Regular);
        failed_init || regular.all(ended)
    }

    /// Final exits that a published status tells of.
    pub fn final_exits(&self, status: &Value) -> Vec<String> {
        let statuses = status["containerStatuses"].as_array().into_iter().flatten();
        let mut names = BTreeSet::new();
        for container in statuses {
            let name = text(&container["name"]);
            let code = container["state"]["terminated"]["exitCode"].as_i64();
            if let Some(code) = code
                && !self.restarts(&name, code as i32)
            {
                names.insert(final_exit(
                    &name,
                    container["image"].as_str().unwrap_or_default(),
                ));
            }
        }
        names.into_iter().collect()
    }
}
