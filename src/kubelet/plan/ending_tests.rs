//! How pods end: deleted, out of time, finished.

use super::tests::*;
use super::*;

#[test]
fn the_record_of_an_end_keeps_address_and_last_state() {
    let mut case = Case::new(pod("OnFailure", &["web"])).sandbox(READY);
    case.observed.sandbox.as_mut().unwrap().ips = vec!["10.88.0.2".parse().unwrap()];
    let case = case.exited("web", 0, 1, 300).exited("web", 1, 0, 900);
    let mut steps = case.plan().steps.into_iter();
    let Some(Step::Record(record)) = steps.find(|s| matches!(s, Step::Record(_))) else {
        panic!("no record");
    };
    let phase = record.phase.as_ref().unwrap();
    assert_eq!(phase.ips.as_ref().unwrap()[0].to_string(), "10.88.0.2");
    let last = record.exits["web"].last.as_ref().unwrap();
    assert_eq!((&last.id, last.exit.code), (&id("web.0"), 1));
    // The older instance is garbage by now: the record stays as it is.
    let mut later = case.remember(|m| m.finals = *record);
    later.memory.finals.phase = None;
    later.observed.containers.remove(0);
    let Step::Record(again) = later.plan().steps.remove(0) else {
        panic!("no record");
    };
    assert!(again.exits["web"].last.is_some());
}

#[test]
fn a_deleted_pod_stops_its_containers_and_sidecars_in_turn_then_is_torn_down() {
    let spec = with_init("Always", vec![sidecar("s1"), sidecar("s2")], &["a", "b"]);
    let case = || {
        Case::new(spec.clone())
            .sandbox(READY)
            .ending(EndCause::Deleted)
    };
    let all = case()
        .running("s1", 0)
        .running("s2", 0)
        .running("a", 0)
        .running("b", 0);
    let (s1, s2) = ("kill s1.0 in turn", "kill s2.0 in turn");
    assert_eq!(all.steps(), [s1, s2, "kill a.0", "kill b.0"]);
    // One that is just being made may have to go before them.
    let starting = case().running("s1", 0).remember(|m| {
        m.busy.insert(Target::Container("a".into()));
    });
    assert_eq!(starting.steps(), [""; 0]);
    let killed = starting.running("a", 0);
    assert_eq!(killed.steps(), [s1]);
    let none = case().exited("a", 0, 0, 999);
    assert_eq!(none.steps(), ["tear down"]);
    assert!(none.remember(|m| m.torn_down = true).plan().done);
}

#[test]
fn the_signal_of_a_sidecar_comes_after_regular_containers_and_later_sidecars() {
    let mut spec = with_init("Always", vec![sidecar("s1"), sidecar("s2")], &["a"]);
    spec["ephemeralContainers"] = serde_json::json!([{"name": "debug", "image": "busybox"}]);
    let case = || {
        let case = Case::new(spec.clone()).sandbox(READY);
        case.running("s1", 0).running("debug", 0)
    };
    let turn = |case: &Case, name: &str| {
        let sidecar = case.view.container(name).unwrap();
        has_its_turn(&case.view, sidecar, &case.observed)
    };
    let all = case().running("s2", 0).running("a", 0);
    assert!(!turn(&all, "s1") && !turn(&all, "s2"));
    let regular_ended = case().running("s2", 0).exited("a", 0, 0, 999);
    assert!(!turn(&regular_ended, "s1") && turn(&regular_ended, "s2"));
    let one_left = case().exited("s2", 0, 0, 999).exited("a", 0, 0, 999);
    assert!(turn(&one_left, "s1"));
}

#[test]
fn tearing_down_waits_for_starts_and_sandboxes_under_way() {
    for target in [
        Target::Sandbox,
        Target::Container("web".into()),
        Target::Volumes,
    ] {
        let case = Case::new(pod("Always", &["web"])).ending(EndCause::Deleted);
        let case = case.remember(|m| {
            m.busy.insert(target.clone());
        });
        assert_eq!(case.steps(), Vec::<String>::new(), "{target:?}");
    }
}

#[test]
fn the_kill_of_a_deleted_pod_keeps_the_deadline_of_the_deletion() {
    let case = Case::new(pod("Always", &["web"])).sandbox(READY);
    let case = case.running("web", 0).ending(EndCause::Deleted);
    let plan = case.plan();
    let [Step::Kill { deadline, .. }] = plan.steps.as_slice() else {
        panic!("{plan:?}");
    };
    assert_eq!(*deadline, at(990 + 30));
}

#[test]
fn a_pod_past_its_active_deadline_is_ended_and_recorded_as_failed() {
    let mut spec = pod("Always", &["web"]);
    spec["activeDeadlineSeconds"] = 60.into();
    let start = |case: Case, seconds| case.remember(|m| m.checkpoint.start = Some(stamp(seconds)));
    let case = || Case::new(spec.clone()).sandbox(READY);
    let early = start(case().running("web", 0), 950);
    assert_eq!(early.plan().wake_at, Some(at(1010)));
    let late = start(case().running("web", 0), 940);
    assert_eq!(late.steps(), ["end"]);
    let ending = case().running("web", 0).ending(EndCause::DeadlineExceeded);
    assert_eq!(ending.steps(), ["kill web.0"]);
    let ended = case()
        .exited("web", 0, 143, 999)
        .ending(EndCause::DeadlineExceeded);
    assert_eq!(ended.steps(), ["record Failed web"]);
}

#[test]
fn a_finished_pod_gives_everything_back_once() {
    let case = Case::new(pod("Never", &["web"]))
        .sandbox(READY)
        .exited("web", 0, 0, 900);
    let Step::Record(record) = case.plan().steps.remove(0) else {
        panic!("no record");
    };
    let case = case.remember(|m| m.finals = *record);
    assert_eq!(case.steps(), ["release"]);
    assert_eq!(case.remember(|m| m.released = true).plan(), Plan::default());
}

#[test]
fn a_pod_whose_time_is_up_fails_even_if_the_agent_leaves_with_it() {
    let case = Case::new(pod("Always", &["web"])).sandbox(READY);
    let case = case.exited("web", 0, 143, 999).ending(EndCause::Shutdown);
    assert_eq!(case.steps(), ["tear down"]);
    let overdue = |m: &mut Memory| m.checkpoint.ending.as_mut().unwrap().overdue = true;
    let case = case.remember(overdue);
    assert_eq!(case.steps(), ["record Failed web"]);
    let Step::Record(record) = case.plan().steps.remove(0) else {
        panic!("no record");
    };
    let recorded = case.remember(|m| m.finals = *record);
    assert_eq!(recorded.steps(), ["tear down"]);
}

#[test]
fn only_what_the_node_ends_for_its_own_sake_is_disrupted_also_if_the_agent_leaves_with_it() {
    for (reason, disrupted, message) in [
        (None, true, "why"),
        (Some("Preempting"), true, "why"),
        (Some("EndedInCluster"), false, "Pod was rejected: why"),
    ] {
        let case = Case::new(pod("Always", &["web"])).sandbox(READY);
        let case = case.exited("web", 0, 143, 999).ending(EndCause::Shutdown);
        let case = case.remember(|m| {
            let ending = m.checkpoint.ending.as_mut().unwrap();
            ending.overdue = true;
            ending.eviction = Some("why".to_owned());
            ending.reason = reason.map(str::to_owned);
        });
        let Step::Record(record) = case.plan().steps.remove(0) else {
            panic!("no record");
        };
        let phase = record.phase.expect("an end");
        let told = (phase.disrupted, phase.message.as_deref());
        assert_eq!(told, (disrupted, Some(message)), "{reason:?}");
    }
}
