use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

use serde_json::{Value, json};

use super::*;
use crate::kubelet::facts::{NodeFacts, RecursiveReadOnly};
use crate::kubelet::memory::{
    FinalExit, FinalPhase, Health, LastExit, Memory, Target, Trouble, Volumes,
};
use crate::object::{Key, Kind, Object, Problem, Provenance, Source, Standing};
use crate::world::{
    BootTime, ContainerId, ContainerObserved, ContainerState, ContainerUser, Exit, PodObserved,
    SandboxObserved, SandboxState, Stamp,
};

fn stamp(seconds: i64) -> Stamp {
    Stamp {
        boot: BootTime::from_duration(Duration::from_secs(seconds.unsigned_abs())),
        wall: Timestamp::from_second(seconds).unwrap(),
    }
}

fn exit(code: i32) -> Exit {
    Exit {
        code,
        signal: None,
        reason: if code == 0 { "Completed" } else { "Error" }.into(),
        message: String::new(),
        started: Some(stamp(50)),
        finished: stamp(60),
    }
}

struct Case {
    view: Rc<PodView>,
    observed: PodObserved,
    memory: Memory,
    waiting: BTreeMap<String, Waiting>,
    over: bool,
}

impl Case {
    fn new(spec: Value) -> Case {
        Case::standing(spec, Standing::Accepted)
    }

    fn standing(spec: Value, standing: Standing) -> Case {
        let object = Object {
            key: Key::local(Kind::Pod, "default", "web-pi"),
            source: Source::File,
            provenance: None,
            standing,
            resource_version: 1,
            body: json!({"metadata": {"name": "web-pi", "uid": "u1"}, "spec": spec}),
        };
        let mut memory = Memory::default();
        memory.checkpoint.start = Some(stamp(10));
        Case {
            view: PodView::new(&object).unwrap(),
            observed: PodObserved::default(),
            memory,
            waiting: BTreeMap::new(),
            over: false,
        }
    }

    fn sandbox(mut self) -> Case {
        self.observed.sandbox = Some(SandboxObserved {
            attempt: 0,
            state: SandboxState::Ready,
            ips: vec!["10.88.0.2".parse().unwrap()],
            host_network: false,
            created: stamp(20),
            resources: None,
        });
        self
    }

    fn container(mut self, name: &str, attempt: u32, state: ContainerState) -> Case {
        let id = ContainerId(format!("{name}{attempt}").as_str().into());
        if let ContainerState::Running { .. } = state {
            let health = Health {
                id: id.clone(),
                hook_begun: true,
                hook_done: true,
                pre_stop_begun: false,
                started: true,
                ready: true,
                condemned: None,
            };
            self.memory.checkpoint.health.insert(name.into(), health);
        }
        self.observed.containers.push(ContainerObserved {
            id,
            name: name.into(),
            attempt,
            hash: String::new(),
            image: "docker.io/library/busybox:1".into(),
            image_id: "sha256:0".into(),
            image_shown: "localhost:5000/busybox@sha256:1".into(),
            created: stamp(30),
            state,
            user: None,
            resources: None,
        });
        self
    }

    fn running(self, name: &str, attempt: u32) -> Case {
        let started = stamp(50);
        self.container(name, attempt, ContainerState::Running { started })
    }

    fn exited(self, name: &str, attempt: u32, code: i32) -> Case {
        self.container(name, attempt, ContainerState::Exited(exit(code)))
    }

    fn waits(mut self, name: &str, reason: &str) -> Case {
        self.waiting
            .insert(name.into(), Waiting::new(reason, "why"));
        self
    }

    fn delete(&mut self) {
        let view = Rc::get_mut(&mut self.view).expect("nobody else has it");
        view.is_static = false;
        view.deletion_grace = Some(Duration::from_secs(2));
    }

    fn at(&self, seconds: i64) -> Status {
        status(&Facts {
            view: &self.view,
            observed: &self.observed,
            memory: &self.memory,
            waiting: &self.waiting,
            qos: QosClass::BestEffort,
            node: &NodeFacts {
                host_ips: vec!["192.0.2.7".parse().unwrap()],
                recursive_read_only: RecursiveReadOnly::Supported,
                ..NodeFacts::default()
            },
            now: Timestamp::from_second(seconds).unwrap(),
            over: self.over,
        })
    }

    fn value(&self) -> Value {
        self.at(100).value
    }

    /// `Ready=True Initialized=True …`, sorted.
    fn conditions(&self) -> BTreeMap<String, String> {
        let value = self.value();
        let list = value["conditions"].as_array().unwrap();
        let pairs = list.iter().map(|c| {
            let text = |field: &str| c[field].as_str().unwrap_or_default().to_owned();
            let reason = text("reason");
            let status = text("status");
            let shown = if reason.is_empty() {
                status
            } else {
                format!("{status} {reason}")
            };
            (text("type"), shown)
        });
        pairs.collect()
    }
}

fn pod(policy: &str, names: &[&str]) -> Value {
    let named = |name: &&str| json!({"name": name, "image": "busybox:1"});
    let containers: Vec<Value> = names.iter().map(named).collect();
    json!({"restartPolicy": policy, "containers": containers})
}

fn with_init(policy: &str) -> Value {
    let mut spec = pod(policy, &["web"]);
    spec["initContainers"] = json!([{"name": "i", "image": "busybox:1"}]);
    spec
}

#[test]
fn phases_follow_the_containers() {
    let two = || Case::new(pod("Always", &["a", "b"])).sandbox();
    let init = || Case::new(with_init("Always")).sandbox();
    for (what, case, phase) in [
        ("nothing yet", two(), "Pending"),
        ("one of two runs", two().running("a", 0), "Pending"),
        ("both run", two().running("a", 0).running("b", 0), "Running"),
        (
            "one crashes",
            two()
                .running("a", 0)
                .exited("b", 0, 1)
                .waits("b", "CrashLoopBackOff"),
            "Running",
        ),
        ("init runs", init().running("i", 0), "Pending"),
        (
            "init failed and is tried again",
            init().exited("i", 0, 1),
            "Pending",
        ),
        (
            "init done",
            init().exited("i", 0, 0).running("web", 0),
            "Running",
        ),
    ] {
        assert_eq!(case.value()["phase"], phase, "{what}");
    }
}

#[test]
fn a_deleted_pod_has_ended_once_nothing_of_it_runs_whatever_its_policy() {
    let two = || Case::new(pod("Always", &["a", "b"])).sandbox();
    for (what, mut case, phase) in [
        ("both run", two().running("a", 0).running("b", 0), "Running"),
        (
            "one runs",
            two().running("a", 0).exited("b", 0, 1),
            "Running",
        ),
        (
            "both well",
            two().exited("a", 0, 0).exited("b", 0, 0),
            "Succeeded",
        ),
        (
            "one not",
            two().exited("a", 0, 0).exited("b", 0, 137),
            "Failed",
        ),
        ("never began", two(), "Pending"),
    ] {
        case.delete();
        assert_eq!(case.value()["phase"], phase, "{what}");
    }
}

#[test]
fn a_deleted_pod_has_not_ended_while_anything_of_it_may_still_run() {
    let mut spec = pod("Always", &["a"]);
    spec["ephemeralContainers"] = json!([{"name": "debug", "image": "busybox"}]);
    let ended = || {
        let mut case = Case::new(spec.clone()).sandbox().exited("a", 0, 1);
        case.delete();
        case
    };
    assert_eq!(ended().value()["phase"], "Failed");
    let mut starts = ended();
    let target = Target::Container("a".into());
    starts.memory.busy.insert(target);
    assert_eq!(starts.value()["phase"], "Running");
    assert_eq!(ended().running("debug", 0).value()["phase"], "Running");
}

/// Each container's state in short: `137` for an exit that nobody saw, a waiting reason.
fn states(value: &Value, list: &str) -> Vec<String> {
    let state = |one: &Value| {
        let ended = &one["state"]["terminated"];
        match ended["reason"] == "ContainerStatusUnknown" {
            true => ended["exitCode"].to_string(),
            false => ended["reason"].as_str().unwrap_or("waits").to_owned(),
        }
    };
    value[list]
        .as_array()
        .into_iter()
        .flatten()
        .map(state)
        .collect()
}

#[test]
fn what_is_said_last_of_a_deleted_pod_leaves_nothing_waiting() {
    let init = || with_init("Always");
    for (what, case, regular, first) in [
        (
            "one never began",
            Case::new(pod("Always", &["a", "b"])).exited("a", 0, 0),
            vec!["Completed", "137"],
            vec![],
        ),
        (
            "none began",
            Case::new(pod("Always", &["a"])),
            vec!["137"],
            vec![],
        ),
        (
            "init never began",
            Case::new(init()),
            vec!["waits"],
            vec!["137"],
        ),
        (
            "init was done",
            Case::new(init()).exited("i", 0, 0),
            vec!["137"],
            vec!["Completed"],
        ),
    ] {
        let mut case = case;
        case.delete();
        case.over = true;
        let value = case.value();
        assert_eq!(value["phase"], "Failed", "{what}");
        assert_eq!(states(&value, "containerStatuses"), regular, "{what}");
        assert_eq!(states(&value, "initContainerStatuses"), first, "{what}");
    }
}

#[test]
fn after_a_reboot_a_pod_that_ran_is_no_new_one() {
    let back = || {
        let mut case = Case::new(pod("Always", &["web"]));
        case.memory.container_mut("web").attempt_base = 2;
        case
    };
    let value = back().value();
    let web = &value["containerStatuses"][0];
    assert_eq!(value["phase"], "Running");
    assert_eq!(web["lastState"]["terminated"]["exitCode"], 137);
    assert_eq!(web["restartCount"], 2);
    let made = back()
        .sandbox()
        .container("web", 2, ContainerState::Created);
    assert_eq!(made.value()["phase"], "Running");
    let value = back().sandbox().running("web", 2).value();
    let last = &value["containerStatuses"][0]["lastState"]["terminated"];
    assert_eq!(last["reason"], "ContainerStatusUnknown");
    // Who is new has none.
    let new = Case::new(pod("Always", &["web"]))
        .sandbox()
        .running("web", 0);
    assert_eq!(new.value()["containerStatuses"][0]["lastState"], json!({}));
    // It does not run again: this is how it ended.
    let mut over = Case::new(pod("Never", &["web"]));
    over.memory.container_mut("web").attempt_base = 1;
    over.memory.finals.phase = Some(FinalPhase::bare("Failed"));
    let value = over.value();
    assert_eq!(states(&value, "containerStatuses"), ["137"]);
    assert_eq!(value["containerStatuses"][0]["restartCount"], 0);
}

#[test]
fn conditions_of_before_a_reboot_keep_their_times() {
    let at = |case: &Case, kind: &str| {
        let value = case.at(200).value;
        let all = value["conditions"].as_array().unwrap().clone();
        let one = all.into_iter().find(|one| one["type"] == kind).unwrap();
        one["lastTransitionTime"].as_str().unwrap().to_owned()
    };
    let (start, now) = ("1970-01-01T00:00:10Z", "1970-01-01T00:03:20Z");
    let mut case = Case::new(pod("Always", &["web"]));
    assert_eq!(at(&case, "PodScheduled"), start);
    assert_eq!(at(&case, "Initialized"), start);
    assert_eq!(at(&case, "Ready"), now);
    let ended = FinalPhase::bare("Failed");
    let since = Some(stamp(70).wall);
    case.memory.finals.phase = Some(FinalPhase { at: since, ..ended });
    assert_eq!(at(&case, "Ready"), "1970-01-01T00:01:10Z");
    assert_eq!(at(&case, "PodScheduled"), start);
}

#[test]
fn a_recorded_phase_is_final_and_keeps_reason_message_and_exits() {
    let mut case = Case::new(pod("Never", &["web"]));
    case.memory.checkpoint.start = None;
    case.memory.finals.phase = Some(FinalPhase {
        disrupted: false,
        phase: "Failed".into(),
        reason: Some("DeadlineExceeded".into()),
        message: Some("too long".into()),
        start: Some(stamp(5).wall),
        at: Some(stamp(70).wall),
        ips: Some(vec!["10.88.0.7".parse().unwrap()]),
    });
    let record = FinalExit {
        id: ContainerId("web3".into()),
        attempt: 3,
        image: "busybox:1".into(),
        image_id: "sha256:0".into(),
        exit: exit(143),
        user: None,
        last: Some(LastExit {
            id: ContainerId("web2".into()),
            exit: exit(7),
        }),
    };
    case.memory.finals.exits.insert("web".into(), record);
    let value = case.value();
    assert_eq!(value["phase"], "Failed");
    assert_eq!(value["reason"], "DeadlineExceeded");
    assert_eq!(value["startTime"], "1970-01-01T00:00:05Z");
    let web = &value["containerStatuses"][0];
    assert_eq!(web["state"]["terminated"]["exitCode"], 143);
    assert_eq!(web["lastState"]["terminated"]["exitCode"], 7);
    assert_eq!(value["podIP"], "10.88.0.7");
    assert_eq!(
        (&web["restartCount"], &web["ready"]),
        (&json!(3), &json!(false))
    );
    assert_eq!(case.conditions()["Ready"], "False PodFailed");
}

#[test]
fn a_running_container_shows_state_last_state_and_count() {
    let case = Case::new(pod("Always", &["web"])).sandbox();
    let value = case.exited("web", 1, 7).running("web", 2).value();
    let web = &value["containerStatuses"][0];
    assert_eq!(
        web["state"],
        json!({"running": {"startedAt": "1970-01-01T00:00:50Z"}})
    );
    assert_eq!(web["lastState"]["terminated"]["exitCode"], 7);
    assert_eq!(web["restartCount"], 2);
    assert_eq!(web["containerID"], "lowtide://web2");
    assert_eq!(web["image"], "docker.io/library/busybox:1");
    assert_eq!(web["imageID"], "localhost:5000/busybox@sha256:1");
    assert_eq!(
        (&web["ready"], &web["started"]),
        (&json!(true), &json!(true))
    );
    assert_eq!(value["podIP"], "10.88.0.2");
    assert_eq!(value["hostIPs"], json!([{"ip": "192.0.2.7"}]));
}

#[test]
fn a_crash_loop_is_waiting_with_the_end_as_last_state() {
    let case = Case::new(pod("Always", &["web"])).sandbox();
    let value = case
        .exited("web", 4, 1)
        .waits("web", "CrashLoopBackOff")
        .value();
    let web = &value["containerStatuses"][0];
    let waiting = json!({"waiting": {"reason": "CrashLoopBackOff", "message": "why"}});
    assert_eq!(web["state"], waiting);
    assert_eq!(web["lastState"]["terminated"]["exitCode"], 1);
}

#[test]
fn waiting_reasons_default_by_whether_there_are_init_containers() {
    for (spec, reason) in [
        (pod("Always", &["web"]), "ContainerCreating"),
        (with_init("Always"), "PodInitializing"),
    ] {
        let value = Case::new(spec).value();
        assert_eq!(
            value["containerStatuses"][0]["state"]["waiting"]["reason"],
            reason
        );
    }
}

#[test]
fn readiness_and_start_up_show_in_status_and_conditions() {
    let mut case = Case::new(pod("Always", &["web"]))
        .sandbox()
        .running("web", 0);
    assert_eq!(case.conditions()["Ready"], "True");
    case.memory.checkpoint.health.get_mut("web").unwrap().ready = false;
    assert_eq!(case.conditions()["Ready"], "False ContainersNotReady");
    let message = &case.value()["conditions"][3]["message"];
    assert_eq!(message, "containers with unready status: [web]");
    case.memory
        .checkpoint
        .health
        .get_mut("web")
        .unwrap()
        .started = false;
    assert_eq!(case.value()["containerStatuses"][0]["started"], false);
}

#[test]
fn conditions_name_init_containers_that_are_not_done() {
    let case = Case::new(with_init("Always")).sandbox().running("i", 0);
    assert_eq!(
        case.conditions()["Initialized"],
        "False ContainersNotInitialized"
    );
    let done = Case::new(with_init("Always")).sandbox().exited("i", 0, 0);
    assert_eq!(done.conditions()["Initialized"], "True");
    assert_eq!(done.value()["initContainerStatuses"][0]["ready"], true);
}

#[test]
fn a_transition_time_changes_with_its_status_only() {
    let mut case = Case::new(pod("Always", &["web"])).sandbox();
    case.memory.checkpoint.transitions = case.at(100).transitions;
    let time = |status: &Status| status.value["conditions"][2]["lastTransitionTime"].clone();
    assert_eq!(time(&case.at(200)), "1970-01-01T00:01:40Z");
    let ready = case.running("web", 0);
    assert_eq!(time(&ready.at(200)), "1970-01-01T00:03:20Z");
}

#[test]
fn a_stale_manifest_shows_in_message_and_condition() {
    let problem = Problem {
        at: Provenance {
            file: "/m/web.yaml".into(),
            line: 3,
        },
        reason: "InvalidManifest".into(),
        message: "spec.containers: Required value".into(),
    };
    let case = Case::standing(pod("Always", &["web"]), Standing::Stale(problem));
    let text = "running the last good version; /m/web.yaml:3: spec.containers: Required value";
    assert_eq!(case.value()["message"], text);
    let conditions = case.conditions();
    assert_eq!(
        conditions["lowtide.io/ManifestCurrent"],
        "False InvalidManifest"
    );
}

#[test]
fn termination_messages_share_twelve_kibibytes() {
    let mut long = exit(1);
    long.message = "é".repeat(8000);
    let case = Case::new(pod("Always", &["a", "b"])).sandbox();
    let value = case.container("a", 0, ContainerState::Exited(long)).value();
    let message = value["containerStatuses"][0]["state"]["terminated"]["message"].as_str();
    assert_eq!(message.unwrap().len(), 6 * 1024);
}

#[test]
fn an_ephemeral_container_has_a_list_of_its_own_and_decides_nothing() {
    let mut spec = pod("Always", &["web"]);
    spec["ephemeralContainers"] = json!([{"name": "debug", "image": "busybox"}]);
    let case = Case::new(spec).sandbox().running("web", 0);
    let case = case.exited("debug", 0, 1);
    let value = case.value();
    assert_eq!(value["phase"], "Running");
    assert_eq!(case.conditions()["Ready"], "True");
    let debug = &value["ephemeralContainerStatuses"][0];
    assert_eq!(debug["state"]["terminated"]["exitCode"], 1);
    assert_eq!(debug["containerID"], "lowtide://debug0");
    assert_eq!(value["containerStatuses"].as_array().map(Vec::len), Some(1));
    assert!(value["initContainerStatuses"].is_null());
}

#[test]
fn a_status_says_which_generation_of_the_spec_it_is_of() {
    let mut case = Case::new(json!({"containers": [{"name": "a", "image": "i"}]}));
    assert_eq!(case.value().get("observedGeneration"), None);
    let mut view = (*case.view).clone();
    view.generation = 2;
    case.view = Rc::new(view);
    let value = case.value();
    assert_eq!(value["observedGeneration"], 2);
    let conditions = value["conditions"].as_array().expect("conditions");
    assert!(
        conditions.iter().all(|one| one["observedGeneration"] == 2),
        "{value}"
    );
}

#[test]
fn a_status_says_what_pod_and_containers_were_given() {
    let mut spec = pod("Always", &["web", "idle"]);
    spec["containers"][0]["resources"] = json!({
        "requests": {"cpu": "250m", "memory": "16Mi", "ephemeral-storage": "1Gi"},
        "limits": {"cpu": "1", "memory": "64Mi"},
    });
    spec["containers"][0]["volumeMounts"] = json!([
        {"name": "a", "mountPath": "/a", "subPath": "x"},
        {"name": "b", "mountPath": "/b", "readOnly": true},
        {"name": "c", "mountPath": "/c", "readOnly": true, "recursiveReadOnly": "IfPossible"},
        {"name": "d", "mountPath": "/d", "recursiveReadOnly": "IfPossible"},
    ]);
    let mut case = Case::new(spec).sandbox().running("web", 0);
    case.observed.containers[0].user = Some(ContainerUser {
        uid: 7,
        gid: 8,
        supplemental_groups: [8, 9].into(),
    });
    let value = case.value();
    let [web, idle] = [0, 1].map(|n| &value["containerStatuses"][n]);
    let user = json!({"linux": {"uid": 7, "gid": 8, "supplementalGroups": [8, 9]}});
    assert_eq!(web["user"], user);
    assert_eq!(
        web["resources"],
        case.view.body()["spec"]["containers"][0]["resources"]
    );
    assert_eq!(web["allocatedResources"], web["resources"]["requests"]);
    let mounts = json!([
        {"name": "a", "mountPath": "/a"},
        {"name": "b", "mountPath": "/b", "readOnly": true, "recursiveReadOnly": "Disabled"},
        {"name": "c", "mountPath": "/c", "readOnly": true, "recursiveReadOnly": "Enabled"},
        {"name": "d", "mountPath": "/d"},
    ]);
    assert_eq!(web["volumeMounts"], mounts);
    // Of what was never made nothing is known.
    for field in ["user", "resources", "allocatedResources", "volumeMounts"] {
        assert_eq!(idle.get(field), None, "{field}");
    }
    let all = &web["resources"]["requests"];
    assert_eq!(&value["allocatedResources"], all);
    assert_eq!(value["phase"], "Pending");
    assert_eq!(&value["resources"]["requests"], all);
    // What its cgroup knows: the other container has no limit, so the pod has none.
    let value = case.running("idle", 0).value();
    let requests = json!({"requests": {"cpu": "250m", "memory": "16Mi"}});
    assert_eq!(value["resources"], requests);
    assert_eq!(value["containerStatuses"][1]["resources"], json!({}));
}

#[test]
fn a_pod_whose_volumes_failed_is_not_ready_to_start_containers() {
    let condition = |case: &Case| case.conditions()["PodReadyToStartContainers"].clone();
    let mut case = Case::new(pod("Always", &["web"])).sandbox();
    assert_eq!(condition(&case), "True");
    case.memory.volumes = Volumes::Failed(Trouble::default(), Duration::ZERO);
    assert_eq!(condition(&case), "False");
    assert_eq!(condition(&case.running("web", 0)), "True");
}
