//! Other resources for what runs: in place, by a new instance, and what is tried again.

use serde_json::{Value, json};

use super::super::memory::{Condemned, Resizing, Trouble};
use super::tests::{Case, READY, pod};
use crate::world::{BootTime, CgroupResources};

/// A container that runs with 64 MiB and half a processor and is to have 32 MiB and one.
fn case(policy: Value, restart: &str) -> Case {
    let mut spec = pod(restart, &["web"]);
    spec["containers"][0]["resources"] = json!({"limits": {"cpu": "1", "memory": "32Mi"}});
    spec["containers"][0]["resizePolicy"] = policy;
    let mut case = Case::new(spec).sandbox(READY).running("web", 0);
    case.observed.containers[0].resources = Some(CgroupResources {
        cpu_quota_us: Some(50_000),
        memory_bytes_max: Some(64 << 20),
        ..case.view.containers[0].resources.clone()
    });
    case.memory.resizing = Some(Resizing::of(&case.view).into());
    case
}

fn restarts(resource: &str) -> Value {
    json!([{"resourceName": resource, "restartPolicy": "RestartContainer"}])
}

#[test]
fn limits_change_in_place_unless_the_container_wants_to_be_restarted() {
    for (policy, step) in [
        (json!([]), "resize"),
        (
            json!([{"resourceName": "cpu", "restartPolicy": "NotRequired"}]),
            "resize",
        ),
        (restarts("memory"), "kill web.0"),
        (restarts("cpu"), "kill web.0"),
    ] {
        assert!(
            case(policy.clone(), "Always")
                .steps()
                .contains(&step.to_owned()),
            "{policy}"
        );
    }
    // The policy of what did not change says nothing.
    let mut case = case(restarts("cpu"), "Always");
    let wanted = case.view.containers[0].resources.clone();
    let given = case.observed.containers[0].resources.as_mut().unwrap();
    given.cpu_quota_us = wanted.cpu_quota_us;
    assert_eq!(case.steps(), ["resize"]);
}

#[test]
fn what_was_ended_for_its_new_size_gets_an_instance_whatever_the_policy() {
    let mut case = case(restarts("memory"), "OnFailure");
    let health = case.memory.checkpoint.health.get_mut("web").unwrap();
    health.condemned = Some(Condemned {
        message: "resize".into(),
        grace: std::time::Duration::ZERO,
    });
    let given = case.observed.containers[0].resources.take();
    case.observed.containers.clear();
    let mut case = case.exited("web", 0, 0, 999);
    case.observed.containers[0].resources = given;
    let steps = case.steps();
    assert!(steps.contains(&"start web.1".to_owned()), "{steps:?}");
}

#[test]
fn what_could_not_be_given_is_tried_again_and_what_was_is_not() {
    let mut case = case(json!([]), "Always");
    let later = BootTime::from_duration(std::time::Duration::from_secs(1010));
    let resizing = case.memory.resizing.as_mut().unwrap();
    resizing.kept = true;
    resizing.trouble = Some(Trouble {
        reason: "Error".into(),
        message: "below current usage".into(),
        retry_at: later,
    });
    let plan = case.plan();
    assert_eq!((plan.steps.len(), plan.wake_at), (0, Some(later)));
    case.memory.resizing.as_mut().unwrap().trouble = None;
    assert_eq!(case.steps(), ["resize"]);
    let wanted = case.view.containers[0].resources.clone();
    case.observed.containers[0].resources = Some(wanted);
    assert_eq!(case.steps(), [""; 0]);
    // Only the request for memory grew: no cgroup knows of it, the record does.
    case.memory.resizing.as_mut().unwrap().kept = false;
    assert_eq!(case.steps(), ["resize"]);
}
