//! What a pod does again after a reboot, of which only logs and records are left, and what not.

use serde_json::Value;

use super::tests::*;
use super::*;
use crate::kubelet::memory::{EndCause, FinalPhase};

/// A pod of a cluster, or of the API.
fn of_api(spec: Value) -> Case {
    let mut case = Case::new(spec);
    std::rc::Rc::make_mut(&mut case.view).is_static = false;
    case
}

fn ran(case: Case, name: &str) -> Case {
    case.remember(|m| m.container_mut(name).attempt_base = 1)
}

/// The end of the container as it was recorded before the reboot.
fn recorded(case: Case, name: &str, code: i32) -> Case {
    let before = of_api(pod("Never", &[name])).exited(name, 0, code, 900);
    let Step::Record(record) = before.plan().steps.remove(0) else {
        panic!("no record");
    };
    case.remember(|m| m.finals.exits.extend(record.exits))
}

#[test]
fn what_never_restarts_does_not_run_a_second_time_unless_a_manifest_asks_for_it() {
    let two = || of_api(pod("Never", &["a", "b"]));
    assert_eq!(ran(two(), "a").steps(), ["record Failed "]);
    let one_ended = || ran(recorded(two(), "a", 0), "a");
    assert_eq!(one_ended().steps(), ["sandbox 0"], "the other never ran");
    assert_eq!(ran(one_ended(), "b").steps(), ["record Failed a"]);
    let both_ended = ran(recorded(one_ended(), "b", 0), "b");
    assert_eq!(both_ended.steps(), ["record Succeeded a,b"]);
    let init = || of_api(with_init("Never", vec![container("i")], &["web"]));
    assert_eq!(ran(init(), "i").steps(), ["record Failed "]);
    for case in [
        of_api(pod("Always", &["web"])),
        of_api(pod("OnFailure", &["web"])),
        Case::new(pod("Never", &["web"])),
    ] {
        assert_eq!(ran(case, "web").steps(), ["sandbox 0"]);
    }
    // An instance of this boot tells how it ended.
    let runs = ran(two(), "a").sandbox(READY).running("b", 0);
    assert_eq!(runs.steps(), ["start a.1"]);
}

#[test]
fn a_record_says_when_a_pod_ended() {
    let Step::Record(record) = ran(of_api(pod("Never", &["a"])), "a")
        .plan()
        .steps
        .remove(0)
    else {
        panic!("no record");
    };
    let FinalPhase { at, reason, .. } = record.phase.expect("an end");
    assert_eq!((at, reason), (Some(Timestamp::UNIX_EPOCH), None));
}

#[test]
fn what_never_restarts_is_recorded_before_the_agent_leaves_with_it() {
    let ended = |case: Case| case.exited("web", 0, 143, 999).ending(EndCause::Shutdown);
    let case = || ended(of_api(pod("Never", &["web"])).sandbox(READY));
    assert_eq!(case().steps(), ["record - web"]);
    let Step::Record(record) = case().plan().steps.remove(0) else {
        panic!("no record");
    };
    let known = case().remember(|m| m.finals = *record);
    assert_eq!(known.steps(), ["tear down"]);
    let refused = case().remember(|m| m.record_retry = Some(at(2000)));
    assert_eq!(refused.steps(), ["tear down"]);
    let static_pod = ended(Case::new(pod("Never", &["web"])).sandbox(READY));
    assert_eq!(static_pod.steps(), ["tear down"]);
}

#[test]
fn of_what_runs_again_after_a_shutdown_no_end_is_told() {
    let of = |case: Case, cause| case.exited("web", 0, 0, 999).ending(cause);
    let cluster = |policy: &str| of_api(pod(policy, &["web"]));
    let file = |policy: &str| Case::new(pod(policy, &["web"]));
    let untold = |case: Case, cause| of(case, cause).plan().untold;
    for (case, expected) in [
        (cluster("OnFailure"), true),
        (cluster("Always"), false),
        (cluster("Never"), false),
        (file("OnFailure"), true),
        (file("Never"), true),
        (file("Always"), false),
    ] {
        assert_eq!(untold(case, EndCause::Shutdown), expected);
    }
    assert!(!untold(cluster("OnFailure"), EndCause::Deleted));
    assert!(!untold(cluster("OnFailure"), EndCause::Evicted));
    // These do not run again.
    let mut deleted = cluster("OnFailure");
    std::rc::Rc::make_mut(&mut deleted.view).deletion_grace = Some(Duration::from_secs(1));
    assert!(!untold(deleted, EndCause::Shutdown));
    let overdue = of(cluster("OnFailure"), EndCause::Shutdown);
    let overdue = overdue.remember(|m| m.checkpoint.ending.as_mut().expect("ends").overdue = true);
    assert!(!overdue.plan().untold);
    let Step::Record(record) = ran(cluster("Never"), "web").plan().steps.remove(0) else {
        panic!("no record");
    };
    let failed = cluster("OnFailure").remember(|m| m.finals = *record);
    assert!(!untold(failed, EndCause::Shutdown));
}

#[test]
fn an_active_deadline_counts_on() {
    let mut spec = pod("Always", &["web"]);
    spec["activeDeadlineSeconds"] = 3600.into();
    let back = |before: u64| {
        Case::new(spec.clone()).remember(|m| {
            m.checkpoint.start = Some(stamp(900));
            m.checkpoint.before = Duration::from_secs(before);
        })
    };
    assert_eq!(back(0).plan().wake_at, Some(at(900 + 3600)));
    assert_eq!(back(3000).plan().wake_at, Some(at(900 + 600)));
    assert_eq!(back(4000).steps(), ["end"]);
}
