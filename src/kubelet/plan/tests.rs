use serde_json::{Value, json};

use super::*;
use crate::kubelet::memory::{
    Condemned, ContainerMemory, Ending, Health, ImageState, Trouble, Volumes,
};
use crate::object::{Key, Kind, Object, Provenance, Source, Standing};
use crate::world::{Image, ImageConfig, SandboxObserved, Stamp};

pub(super) fn at(seconds: u64) -> BootTime {
    BootTime::from_duration(Duration::from_secs(seconds))
}

pub(super) fn stamp(seconds: u64) -> Stamp {
    Stamp {
        boot: at(seconds),
        wall: jiff::Timestamp::UNIX_EPOCH,
    }
}

pub(super) fn id(text: &str) -> ContainerId {
    ContainerId(text.into())
}

/// A pod as one table row sees it: a spec, what is observed and what is remembered.
pub(super) struct Case {
    pub(super) view: std::rc::Rc<PodView>,
    pub(super) observed: PodObserved,
    pub(super) memory: Memory,
    pub(super) now: BootTime,
}

impl Case {
    /// Images are here and volumes ready, so that rows are about one thing.
    pub(super) fn new(spec: Value) -> Case {
        let object = Object {
            key: Key::local(Kind::Pod, "default", "web-pi"),
            source: Source::File,
            provenance: Some(Provenance {
                file: "web.yaml".into(),
                line: 1,
            }),
            standing: Standing::Accepted,
            resource_version: 1,
            body: json!({"metadata": {"name": "web-pi", "namespace": "default", "uid": "u1"}, "spec": spec}),
        };
        let view = PodView::new(&object).unwrap();
        let mut memory = Memory {
            volumes: Volumes::Ready,
            ..Memory::default()
        };
        for container in &view.containers {
            memory.container_mut(&container.name).image = here();
        }
        Case {
            view,
            observed: PodObserved::default(),
            memory,
            now: at(1000),
        }
    }

    pub(super) fn sandbox(mut self, state: SandboxState) -> Case {
        self.observed.sandbox = Some(SandboxObserved {
            attempt: 0,
            state,
            ips: vec![],
            host_network: false,
            created: stamp(100),
            resources: None,
        });
        self
    }

    pub(super) fn running(mut self, name: &str, attempt: u32) -> Case {
        let started = stamp(200);
        self.push(name, attempt, ContainerState::Running { started });
        let health = Health {
            id: id(&format!("{name}.{attempt}")),
            hook_begun: true,
            hook_done: true,
            pre_stop_begun: false,
            started: true,
            ready: true,
            condemned: None,
        };
        self.memory.checkpoint.health.insert(name.into(), health);
        self
    }

    pub(super) fn exited(mut self, name: &str, attempt: u32, code: i32, finished: u64) -> Case {
        let exit = Exit {
            code,
            signal: None,
            reason: "Error".into(),
            message: String::new(),
            started: Some(stamp(200)),
            finished: stamp(finished),
        };
        self.push(name, attempt, ContainerState::Exited(exit));
        self
    }

    pub(super) fn push(&mut self, name: &str, attempt: u32, state: ContainerState) {
        let view = self.view.container(name).unwrap();
        self.observed.containers.push(ContainerObserved {
            id: id(&format!("{name}.{attempt}")),
            name: name.into(),
            attempt,
            hash: view.hash.clone(),
            image: "busybox".into(),
            image_id: "sha256:0".into(),
            image_shown: String::new(),
            created: stamp(200),
            state,
            user: None,
            resources: None,
        });
    }

    pub(super) fn remember(mut self, change: impl FnOnce(&mut Memory)) -> Case {
        change(&mut self.memory);
        self
    }

    pub(super) fn ending(self, cause: EndCause) -> Case {
        let ending = Ending {
            eviction: None,
            reason: None,
            cause,
            since: at(990),
            grace: Duration::from_secs(30),
            overdue: false,
        };
        self.remember(|m| m.checkpoint.ending = Some(ending))
    }

    pub(super) fn plan(&self) -> Plan {
        plan(&Situation {
            view: &self.view,
            observed: &self.observed,
            memory: &self.memory,
            now: self.now,
            wall: jiff::Timestamp::UNIX_EPOCH,
            held: None,
        })
    }

    /// The steps in short: `start web.1`, `kill web.0`, `sandbox 0` …
    pub(super) fn steps(&self) -> Vec<String> {
        self.plan().steps.iter().map(short).collect()
    }
}

pub(super) fn short(step: &Step) -> String {
    match step {
        Step::SetUpVolumes => "volumes".into(),
        Step::StartSandbox { attempt } => format!("sandbox {attempt}"),
        Step::EnsureImage { container } => format!("image {container}"),
        Step::StartContainer {
            container, attempt, ..
        } => format!("start {container}.{attempt}"),
        Step::PostStart { container, .. } => format!("hook {container}"),
        Step::Kill { id, in_turn, .. } => {
            let turn = if *in_turn { " in turn" } else { "" };
            format!("kill {id}{turn}")
        }
        Step::RemoveContainer { id } => format!("remove {id}"),
        Step::Record(record) => {
            let names: Vec<&str> = record.exits.keys().map(String::as_str).collect();
            let phase = record.phase.as_ref().map_or("-", |p| p.phase.as_str());
            format!("record {phase} {}", names.join(","))
        }
        Step::Resize => "resize".into(),
        Step::Release => "release".into(),
        Step::TearDown { .. } => "tear down".into(),
        Step::End { .. } => "end".into(),
    }
}

pub(super) fn here() -> ImageState {
    ImageState::Here(std::sync::Arc::new(Image {
        id: "sha256:0".into(),
        tags: vec![],
        digests: vec![],
        size_bytes: 1,
        pinned: false,
        config: ImageConfig::default(),
    }))
}

pub(super) fn pod(policy: &str, names: &[&str]) -> Value {
    let containers: Vec<Value> = names.iter().map(|n| container(n)).collect();
    json!({"restartPolicy": policy, "containers": containers})
}

pub(super) fn container(name: &str) -> Value {
    json!({"name": name, "image": "busybox"})
}

pub(super) fn sidecar(name: &str) -> Value {
    json!({"name": name, "image": "busybox", "restartPolicy": "Always"})
}

pub(super) fn with_init(policy: &str, init: Vec<Value>, names: &[&str]) -> Value {
    let mut spec = pod(policy, names);
    spec["initContainers"] = init.into();
    spec
}

pub(super) const READY: SandboxState = SandboxState::Ready;

#[test]
fn a_new_pod_gets_volumes_sandbox_and_images_at_once() {
    let case = Case::new(pod("Always", &["web"])).remember(|m| {
        m.volumes = Volumes::Unset;
        m.containers.clear();
    });
    assert_eq!(case.steps(), ["volumes", "sandbox 0", "image web"]);
}

#[test]
fn a_running_pod_needs_nothing_and_no_timer() {
    let case = Case::new(pod("Always", &["web"]))
        .sandbox(READY)
        .running("web", 0);
    assert_eq!(case.plan(), Plan::default());
}

#[test]
fn restarts_follow_policy_and_exit_code() {
    for (policy, code, steps) in [
        ("Always", 0, vec!["start web.1"]),
        ("Always", 1, vec!["start web.1"]),
        ("OnFailure", 1, vec!["start web.1"]),
        ("OnFailure", 0, vec!["record Succeeded web"]),
        ("Never", 0, vec!["record Succeeded web"]),
        ("Never", 7, vec!["record Failed web"]),
    ] {
        let case = Case::new(pod(policy, &["web"])).sandbox(READY);
        let case = case.exited("web", 0, code, 900);
        assert_eq!(case.steps(), steps, "{policy} {code}");
    }
}

#[test]
fn a_restart_waits_for_its_back_off_and_says_so() {
    let case = Case::new(pod("Always", &["web"])).sandbox(READY);
    let hash = case.view.containers[0].hash.clone();
    let case = case.exited("web", 1, 1, 995).remember(|m| {
        let back_off = m.back_off_mut("web", &hash);
        back_off.restarted(at(980), at(980));
        back_off.restarted(at(990), at(990));
    });
    let plan = case.plan();
    assert_eq!(plan.steps, []);
    assert_eq!(plan.wake_at, Some(at(995 + 20)));
    assert_eq!(plan.waiting["web"].reason, "CrashLoopBackOff");
    let text = "back-off 20s restarting failed container=web pod=web-pi_default(u1)";
    assert_eq!(plan.waiting["web"].message, text);
}

#[test]
fn an_end_that_is_final_is_recorded_while_the_rest_goes_on() {
    let case = Case::new(pod("OnFailure", &["a", "b"])).sandbox(READY);
    let case = case.exited("a", 0, 0, 900).running("b", 0);
    assert_eq!(case.steps(), ["record - a"]);
}

#[test]
fn a_recorded_end_is_never_run_again_even_after_everything_else_is_lost() {
    let whole = Case::new(pod("OnFailure", &["a", "b"])).sandbox(READY);
    let whole = whole.exited("a", 0, 0, 900).running("b", 0);
    let Step::Record(record) = whole.plan().steps.remove(0) else {
        panic!("no record");
    };
    let rebooted = Case::new(pod("OnFailure", &["a", "b"])).remember(|m| m.finals = *record);
    assert_eq!(rebooted.steps(), ["sandbox 0"]);
    let rebooted = rebooted.sandbox(READY);
    assert_eq!(rebooted.steps(), ["start b.0"]);
}

#[test]
fn init_containers_run_one_after_the_other() {
    let spec = with_init("Always", vec![container("i1"), container("i2")], &["web"]);
    let case = || Case::new(spec.clone()).sandbox(READY);
    assert_eq!(case().steps(), ["start i1.0"]);
    assert_eq!(case().running("i1", 0).steps(), Vec::<String>::new());
    assert_eq!(case().exited("i1", 0, 1, 900).steps(), ["start i1.1"]);
    let one = case().exited("i1", 0, 0, 900);
    assert_eq!(one.steps(), ["start i2.0"]);
    let both = one.exited("i2", 0, 0, 950);
    assert_eq!(both.steps(), ["start web.0"]);
}

#[test]
fn a_failed_init_container_ends_a_pod_that_never_restarts() {
    let spec = with_init("Never", vec![container("i1")], &["web"]);
    let case = Case::new(spec).sandbox(READY).exited("i1", 0, 3, 900);
    assert_eq!(case.steps(), ["record Failed i1"]);
}

#[test]
fn a_sidecar_must_be_started_before_what_follows_it() {
    let spec = with_init("Always", vec![sidecar("s"), container("i")], &["web"]);
    let starting = Case::new(spec.clone()).sandbox(READY).running("s", 0);
    let starting = starting.remember(|m| m.checkpoint.health.get_mut("s").unwrap().started = false);
    assert_eq!(starting.steps(), Vec::<String>::new());
    let started = Case::new(spec).sandbox(READY).running("s", 0);
    assert_eq!(started.steps(), ["start i.0"]);
}

#[test]
fn sidecars_are_restarted_under_any_policy_but_never_keep_a_pod_alive() {
    let spec = with_init("Never", vec![sidecar("s1"), sidecar("s2")], &["web"]);
    let case = || Case::new(spec.clone()).sandbox(READY).running("s2", 0);
    let crashed = case().exited("s1", 0, 1, 900).running("web", 0);
    assert_eq!(crashed.steps(), ["start s1.1"]);
    let done = case().running("s1", 0).exited("web", 0, 0, 900);
    let both = ["kill s2.0 in turn", "kill s1.0 in turn", "record - web"];
    assert_eq!(done.steps(), both);
    let done = Case::new(spec.clone()).sandbox(READY).running("s1", 0);
    let done = done.exited("web", 0, 0, 900).exited("s2", 0, 137, 950);
    assert_eq!(done.steps(), ["kill s1.0 in turn", "record - web"]);
}

#[test]
fn a_dead_sandbox_stops_its_containers_and_is_made_anew() {
    let dead = || SandboxState::Dead("pause exited".into());
    let spec = with_init("Always", vec![container("i")], &["web"]);
    let case = Case::new(spec.clone()).sandbox(dead());
    let case = case.exited("i", 0, 0, 150).running("web", 0);
    assert_eq!(case.steps(), ["kill web.0"]);
    let stopped = Case::new(spec.clone()).sandbox(dead());
    let stopped = stopped.exited("i", 0, 0, 150).exited("web", 0, 137, 999);
    assert_eq!(stopped.steps(), ["sandbox 1"]);
    // In the new sandbox init runs again from the first.
    let mut renewed = stopped.sandbox(READY);
    renewed.observed.sandbox.as_mut().unwrap().created = stamp(1000);
    assert_eq!(renewed.steps(), ["start i.1"]);
}

#[test]
fn a_dead_sandbox_of_a_pod_that_may_not_run_again_ends_it() {
    let case = Case::new(pod("Never", &["web"])).sandbox(SandboxState::Dead(String::new()));
    assert_eq!(
        case.exited("web", 0, 137, 990).steps(),
        ["record Failed web"]
    );
}

#[test]
fn a_pod_that_never_restarts_gets_no_second_sandbox_once_a_container_was_made() {
    let spec = with_init("Never", vec![container("i")], &["web"]);
    let dead = || SandboxState::Dead(String::new());
    let case = Case::new(spec.clone())
        .sandbox(dead())
        .exited("i", 0, 0, 150);
    assert_eq!(case.steps(), [""; 0]);
    assert!(
        case.plan().waiting["web"]
            .message
            .contains("gets no new one")
    );
    let empty = Case::new(spec).sandbox(dead());
    assert_eq!(empty.steps(), ["sandbox 1"]);
}

#[test]
fn a_changed_definition_replaces_the_instance_whatever_the_policy() {
    let mut case = Case::new(pod("Never", &["web"]))
        .sandbox(READY)
        .running("web", 0);
    case.observed.containers[0].hash = "old".into();
    assert_eq!(case.steps(), ["kill web.0"]);
    let case = case.remember(|m| {
        let health = m.checkpoint.health.get_mut("web").unwrap();
        health.condemned = Some(Condemned {
            message: String::new(),
            grace: Duration::ZERO,
        });
    });
    let mut ended = Case::new(pod("Never", &["web"])).sandbox(READY);
    ended = ended.exited("web", 0, 137, 999);
    ended.observed.containers[0].hash = "old".into();
    ended.memory.checkpoint = case.memory.checkpoint;
    assert_eq!(ended.steps(), ["start web.1"]);
}

#[test]
fn a_condemned_instance_is_killed_with_its_own_grace() {
    let case = Case::new(pod("Always", &["web"]))
        .sandbox(READY)
        .running("web", 0);
    let case = case.remember(|m| {
        m.checkpoint.health.get_mut("web").unwrap().condemned = Some(Condemned {
            message: "Container web failed liveness probe, will be restarted".into(),
            grace: Duration::from_secs(5),
        });
    });
    let plan = case.plan();
    let [Step::Kill { deadline, .. }] = plan.steps.as_slice() else {
        panic!("{plan:?}");
    };
    assert_eq!(*deadline, at(1005));
}

#[test]
fn failed_images_and_starts_wait_for_their_time() {
    let trouble = |reason: &str| Trouble {
        reason: reason.into(),
        message: "no route".into(),
        retry_at: at(1010),
    };
    let case = Case::new(pod("Always", &["web"])).sandbox(READY);
    let case = case.remember(|m| {
        m.container_mut("web").image = ImageState::Failed(trouble("ErrImagePull"));
    });
    let plan = case.plan();
    assert_eq!((plan.steps.len(), plan.wake_at), (0, Some(at(1010))));
    assert_eq!(plan.waiting["web"].reason, "ImagePullBackOff");
    let text = "Back-off pulling image \"busybox\": ErrImagePull: no route";
    assert_eq!(plan.waiting["web"].message, text);

    let case = Case::new(pod("Always", &["web"])).sandbox(READY);
    let mut case = case.remember(|m| {
        let known = ContainerMemory {
            image: here(),
            trouble: Some(trouble("CreateContainerConfigError")),
            ..ContainerMemory::default()
        };
        m.containers.insert("web".into(), Box::new(known));
    });
    assert_eq!(
        case.plan().waiting["web"].reason,
        "CreateContainerConfigError"
    );
    assert_eq!(case.steps(), Vec::<String>::new());
    case.now = at(1010);
    assert_eq!(case.steps(), ["start web.0"]);
}

#[test]
fn only_the_newest_dead_instance_is_kept() {
    let case = Case::new(pod("Always", &["web"])).sandbox(READY);
    let case = case.exited("web", 0, 1, 300).exited("web", 1, 1, 400);
    let case = case.running("web", 2);
    assert_eq!(case.steps(), ["remove web.0"]);
}

#[test]
fn a_held_pod_starts_nothing_and_keeps_what_runs() {
    let case = Case::new(pod("Always", &["a", "b"]))
        .sandbox(READY)
        .running("a", 0);
    let held = Waiting::new("FieldNotHonoured", "spec.x");
    let plan = plan(&Situation {
        view: &case.view,
        observed: &case.observed,
        memory: &case.memory,
        now: case.now,
        wall: jiff::Timestamp::UNIX_EPOCH,
        held: Some(&held),
    });
    assert_eq!(plan.steps, []);
    assert_eq!(plan.waiting["b"], held);
}

#[test]
fn a_post_start_hook_runs_once_for_each_instance() {
    let case = Case::new(pod("Always", &["web"]))
        .sandbox(READY)
        .running("web", 0);
    let case = case.remember(|m| {
        let health = m.checkpoint.health.get_mut("web").unwrap();
        (health.hook_begun, health.hook_done) = (false, false);
    });
    assert_eq!(case.steps(), ["hook web"]);
    let begun = case.remember(|m| m.checkpoint.health.get_mut("web").unwrap().hook_begun = true);
    assert_eq!(begun.steps(), Vec::<String>::new());
}

#[test]
fn a_kill_or_removal_that_failed_waits_for_its_time() {
    let case = Case::new(pod("Always", &["web"])).sandbox(READY);
    let case = case.exited("web", 0, 1, 300).exited("web", 1, 1, 400);
    let case = case.running("web", 2).remember(|m| {
        let target = Target::Garbage(id("web.0"));
        m.retries.insert(target, at(1002));
    });
    assert_eq!(case.steps(), [""; 0]);
    assert_eq!(case.plan().wake_at, Some(at(1002)));

    let ending = Case::new(pod("Always", &["web"])).sandbox(READY);
    let ending = ending.running("web", 0).ending(EndCause::Deleted);
    let mut ending = ending.remember(|m| {
        m.retries.insert(Target::Container("web".into()), at(1002));
    });
    assert_eq!(ending.steps(), [""; 0]);
    assert_eq!(ending.plan().wake_at, Some(at(1002)));
    ending.now = at(1002);
    assert_eq!(ending.steps(), ["kill web.0"]);
}

#[test]
fn a_sandbox_that_dies_again_and_again_is_replaced_every_ten_seconds() {
    let dead = |attempt: u32| {
        let mut case =
            Case::new(pod("Always", &["web"])).sandbox(SandboxState::Dead("pause died".into()));
        let sandbox = case.observed.sandbox.as_mut().unwrap();
        sandbox.attempt = attempt;
        sandbox.created = stamp(999);
        case
    };
    assert_eq!(dead(0).steps(), ["sandbox 1"]);
    let mut again = dead(1);
    assert_eq!(again.steps(), [""; 0]);
    assert_eq!(again.plan().wake_at, Some(at(1009)));
    again.now = at(1009);
    assert_eq!(again.steps(), ["sandbox 2"]);
}

#[test]
fn a_refresh_of_volumes_that_failed_waits_and_is_repeated() {
    let case = Case::new(pod("Always", &["web"])).sandbox(READY);
    let mut case = case.running("web", 0).remember(|m| {
        m.volumes_stale = true;
        m.refresh_retry = Some((at(1001), Duration::from_millis(500)));
    });
    assert_eq!(case.steps(), [""; 0]);
    assert_eq!(case.plan().wake_at, Some(at(1001)));
    case.now = at(1001);
    assert_eq!(case.steps(), ["volumes"]);
}

#[test]
fn a_changed_image_drops_what_was_known_of_the_one_before() {
    let case = Case::new(pod("Always", &["web", "other"]));
    let mut memory = case.memory.clone();
    memory
        .container_mut("web")
        .image_back_off
        .restarted(at(1), at(1));
    let mut spec = pod("Always", &["web", "other"]);
    spec["containers"][0]["image"] = "debian".into();
    let changed = Case::new(spec);
    memory.revise(&case.view, &changed.view);
    assert_eq!(memory.container("web").image, ImageState::Unknown);
    assert_eq!(memory.container("web").image_back_off, Default::default());
    assert_eq!(memory.container("other").image, here());
}
