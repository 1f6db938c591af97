//! Ephemeral containers come to a pod that runs, once.

use serde_json::json;

use super::tests::*;
use super::*;
use crate::kubelet::memory::EndCause;

fn with_guest(policy: &str) -> serde_json::Value {
    let mut spec = pod(policy, &["web"]);
    spec["ephemeralContainers"] = json!([{
        "name": "debug", "image": "busybox", "targetContainerName": "web",
    }]);
    spec
}

#[test]
fn it_is_started_in_a_running_pod_and_never_again() {
    let running = || {
        Case::new(with_guest("Always"))
            .sandbox(READY)
            .running("web", 0)
    };
    assert_eq!(running().steps(), ["start debug.0"]);
    assert_eq!(running().running("debug", 0).steps(), [""; 0]);
    let ended = running().exited("debug", 0, 1, 900);
    assert_eq!(ended.steps(), ["record - debug"]);
    let Step::Record(record) = ended.plan().steps.remove(0) else {
        panic!("no record");
    };
    // After a reboot only the record, or its log, is left.
    let rebooted = running().remember(|m| m.finals = *record);
    assert_eq!(rebooted.steps(), [""; 0]);
    let logged = running().remember(|m| m.container_mut("debug").attempt_base = 1);
    assert_eq!(logged.steps(), [""; 0]);
    assert_eq!(
        logged.plan().waiting["debug"].reason,
        "ContainerStatusUnknown"
    );
}

#[test]
fn it_makes_no_sandbox_waits_for_no_init_and_keeps_no_pod_alive() {
    let dead = SandboxState::Dead(String::new());
    let case = Case::new(with_guest("Always")).sandbox(dead);
    assert_eq!(case.steps(), ["sandbox 1"]);
    let mut spec = with_guest("Always");
    spec["initContainers"] = json!([container("i")]);
    let case = Case::new(spec).sandbox(READY).running("i", 0);
    assert_eq!(case.steps(), ["start debug.0"]);
    let case = Case::new(with_guest("Never")).sandbox(READY);
    let over = case.exited("web", 0, 0, 900).running("debug", 0);
    assert_eq!(over.steps(), ["kill debug.0", "record - web"]);
    let case = Case::new(with_guest("Always"))
        .sandbox(READY)
        .running("web", 0);
    let deleted = case.running("debug", 0).ending(EndCause::Deleted);
    assert_eq!(deleted.steps(), ["kill web.0", "kill debug.0"]);
}
