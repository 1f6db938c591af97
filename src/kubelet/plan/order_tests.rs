//! Who starts when: init containers, sidecars and regular containers.

use super::tests::*;
use super::*;
use crate::kubelet::memory::{Condemned, Health, ImageState, Trouble};

fn with_health(case: Case, name: &str, change: impl FnOnce(&mut Health)) -> Case {
    case.remember(|m| change(m.checkpoint.health.get_mut(name).unwrap()))
}

fn busy(case: Case, target: Target) -> Case {
    case.remember(|m| {
        m.busy.insert(target);
    })
}

fn no_image(case: Case, name: &str) -> Case {
    case.remember(|m| m.container_mut(name).image = ImageState::Unknown)
}

#[test]
fn a_regular_container_starts_once_the_one_before_has_and_its_hook_is_over() {
    let case = || Case::new(pod("Always", &["a", "b"])).sandbox(READY);
    let hook = |change: fn(&mut Health)| with_health(case().running("a", 0), "a", change);
    for (case, steps) in [
        (case(), vec!["start a.0"]),
        (busy(case(), Target::Container("a".into())), vec![]),
        (case().running("a", 0), vec!["start b.0"]),
        (hook(|health| health.hook_done = false), vec![]),
    ] {
        assert_eq!(case.steps(), steps);
    }
    // An agent before this one began that start, and it may still come to something.
    let mut begun = case().running("a", 0);
    begun.observed.containers[0].state = ContainerState::Created;
    assert_eq!(begun.steps(), ["start a.0"]);
    begun.observed.containers[0].created.boot = at(990);
    assert_eq!(begun.steps(), [""; 0]);
    // It ends, for another of its name.
    let mut replaced = case().running("a", 0);
    replaced.observed.containers[0].hash = "old".into();
    assert_eq!(
        busy(replaced, Target::Container("a".into())).steps(),
        [""; 0]
    );
    // Images are fetched meanwhile.
    let images = || no_image(case(), "a");
    assert_eq!(no_image(images(), "b").steps(), ["image a", "image b"]);
    let pulling = || busy(images(), Target::Image("a".into()));
    assert_eq!(pulling().steps(), [""; 0]);
    assert_eq!(pulling().plan().waiting["b"].reason, "ContainerCreating");
    assert_eq!(no_image(pulling(), "b").steps(), ["image b"]);
}

#[test]
fn a_container_that_failed_and_waits_holds_nobody_up() {
    let case = || Case::new(pod("Always", &["a", "b"])).sandbox(READY);
    let trouble = |reason: &str| Trouble {
        reason: reason.into(),
        message: String::new(),
        retry_at: at(1010),
    };
    let image = case().remember(|m| {
        m.container_mut("a").image = ImageState::Failed(trouble("ErrImagePull"));
    });
    assert_eq!(image.steps(), ["start b.0"]);
    let config = case().remember(|m| {
        m.container_mut("a").trouble = Some(trouble("CreateContainerConfigError"));
    });
    assert_eq!(config.steps(), ["start b.0"]);
    let hash = case().view.containers[0].hash.clone();
    let crashed = case().exited("a", 0, 1, 995).remember(|m| {
        m.back_off_mut("a", &hash).restarted(at(990), at(990));
    });
    assert_eq!(crashed.steps(), ["start b.0"]);
    let ended = Case::new(pod("OnFailure", &["a", "b"])).sandbox(READY);
    let ended = ended.exited("a", 0, 0, 900);
    assert_eq!(ended.steps(), ["record - a", "start b.0"]);
    let condemned = with_health(case().running("a", 0), "a", |health| {
        health.hook_done = false;
        health.condemned = Some(Condemned {
            message: "FailedPostStartHook".into(),
            grace: Duration::ZERO,
        });
    });
    assert_eq!(condemned.steps(), ["kill a.0", "start b.0"]);
    // Nor does one that comes after it.
    assert_eq!(case().running("b", 0).steps(), ["start a.0"]);
}

#[test]
fn an_init_container_runs_to_its_end_whatever_becomes_of_its_definition() {
    for (init, steps) in [
        (container("i"), vec![]),
        (sidecar("i"), vec!["kill i.0", "start web.0"]),
    ] {
        let spec = with_init("Never", vec![init], &["web"]);
        let mut case = Case::new(spec).sandbox(READY).running("i", 0);
        case.observed.containers[0].hash = "old".into();
        assert_eq!(case.steps(), steps);
    }
}

#[test]
fn a_sidecar_that_crashes_once_it_had_started_is_restarted_beside_what_comes_after_it() {
    let spec = |last| {
        with_init(
            "OnFailure",
            vec![sidecar("s"), container("i"), last],
            &["web"],
        )
    };
    let case = || Case::new(spec(container("j"))).sandbox(READY);
    let hash = case().view.containers[0].hash.clone();
    // In back-off, so that it is not there for a while.
    let crashed = || {
        case().exited("s", 0, 1, 995).remember(|m| {
            m.back_off_mut("s", &hash).restarted(at(990), at(990));
        })
    };
    assert_eq!(crashed().steps(), [""; 0], "nothing has come after it");
    let beside = crashed().exited("i", 0, 0, 900);
    assert_eq!(beside.steps(), ["start j.0"]);
    assert_eq!(beside.plan().waiting["s"].reason, "CrashLoopBackOff");
    let over = crashed().exited("i", 0, 0, 900).exited("j", 0, 0, 950);
    assert_eq!(over.steps(), ["start web.0"]);
    let due = case().exited("s", 0, 1, 900);
    assert_eq!(due.running("i", 0).steps(), ["start s.1"]);
    let due = case().exited("s", 0, 1, 900).exited("i", 0, 0, 950);
    assert_eq!(due.steps(), ["start s.1", "start j.0"]);
    let restarted = case().running("s", 1).exited("i", 0, 0, 900);
    let restarted = with_health(restarted, "s", |health| health.started = false);
    assert_eq!(restarted.steps(), ["start j.0"]);
    // The last of them has nothing after it: the application waits.
    let last = Case::new(spec(sidecar("t"))).sandbox(READY);
    let last = last.running("s", 0).exited("i", 0, 0, 900);
    assert_eq!(last.exited("t", 0, 1, 900).steps(), ["start t.1"]);
}
