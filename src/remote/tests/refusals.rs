//! What the cluster refuses, for whatever reason, and takes later; what the node cannot take from it.

use std::time::Duration;

use serde_json::{Value, json};

use super::cluster::{Line, status};
use super::world::{Life, World, bound, pod_path};
use super::{SECONDS, SECRET, phase, secret};
use crate::object::{Key, Kind};
use crate::world::{NoToken, Reply};

fn refuse(world: &World, verb: &str, path: &str, reply: Reply) {
    let call = format!("{verb} {path}");
    world.api.refused.borrow_mut().insert(call, reply);
}

/// A node with running pods.
fn running(seed: u64, names: &[&str]) -> World {
    let world = World::started(seed);
    world.run(SECONDS(2));
    world.api.put(SECRET, secret());
    for name in names {
        world.api.put(&pod_path(name), bound(name));
    }
    world.run(SECONDS(3));
    for name in names {
        assert_eq!(phase(&world, name).as_deref(), Some("Running"));
    }
    world
}

fn calls(world: &World, begin: &str) -> usize {
    let calls = world.api.calls.borrow();
    calls.iter().filter(|call| call.starts_with(begin)).count()
}

#[test]
fn a_deletion_that_is_refused_is_asked_for_again() {
    let stranger = Reply {
        body: Value::Null,
        ..status(404, "")
    };
    let mut refusals = Vec::from([401, 403, 500, 503].map(|code| status(code, "no")));
    refusals.push(stranger);
    for refusal in refusals {
        let world = running(31, &["web"]);
        refuse(&world, "Delete", &pod_path("web"), refusal.clone());
        world.api.delete_pod(&pod_path("web"));
        world.run(SECONDS(300));
        assert_eq!(phase(&world, "web").as_deref(), Some("Failed"));
        let asked = calls(&world, "Delete");
        assert!(
            (5..=20).contains(&asked),
            "{refusal:?}: asked {asked} times"
        );
        world.api.refused.borrow_mut().clear();
        world.run(SECONDS(61));
        assert_eq!(world.api.get(&pod_path("web")), None, "{refusal:?}");
    }
}

#[test]
fn a_status_that_is_refused_for_who_says_it_is_said_again() {
    for code in [401, 403, 409, 500] {
        let world = World::started(32);
        world.run(SECONDS(2));
        world.api.put(SECRET, secret());
        let report = format!("{}/status", pod_path("web"));
        refuse(&world, "Patch", &report, status(code, "no"));
        world.api.put(&pod_path("web"), bound("web"));
        world.run(SECONDS(300));
        assert_eq!(phase(&world, "web").as_deref(), Some("Pending"));
        world.api.refused.borrow_mut().clear();
        world.run(SECONDS(61));
        assert_eq!(phase(&world, "web").as_deref(), Some("Running"), "{code}");
    }
}

#[test]
fn what_was_refused_and_is_wanted_no_more_keeps_nobody_awake() {
    let world = running(36, &["web"]);
    let manifests = || world.manifests.borrow_mut();
    manifests().insert("own".to_owned(), "h1".to_owned());
    let pods = "/api/v1/namespaces/default/pods";
    refuse(&world, "Create", pods, status(403, "no"));
    let report = format!("{}/status", pod_path("web"));
    refuse(&world, "Patch", &report, status(409, "conflict"));
    world.feed();
    // Somebody else's hand: the node wants to put it right, and then finds that it is.
    let right = world.api.get(&pod_path("web")).expect("a pod");
    let mut wrong = right.clone();
    wrong["status"]["phase"] = json!("Pending");
    world.api.put(&pod_path("web"), wrong);
    world.run(SECONDS(5));
    world.api.put(&pod_path("web"), right);
    manifests().remove("own");
    world.feed();
    world.run(SECONDS(120));
    let before = world.time.sleeps();
    world.run(SECONDS(600));
    let sleeps = world.time.sleeps() - before;
    assert!(sleeps < 2000, "{sleeps} timers in ten minutes");
}

#[test]
fn a_status_that_is_refused_for_what_it_says_is_said_once() {
    let world = World::started(33);
    world.run(SECONDS(2));
    world.api.put(SECRET, secret());
    let report = format!("{}/status", pod_path("web"));
    refuse(&world, "Patch", &report, status(422, "invalid"));
    world.api.put(&pod_path("web"), bound("web"));
    world.run(SECONDS(300));
    assert_eq!(calls(&world, &format!("Patch {report}")), 1);
    // It keeps nobody from going.
    world.api.delete_pod(&pod_path("web"));
    world.run(SECONDS(3));
    assert_eq!(world.api.get(&pod_path("web")), None);
}

#[test]
fn an_object_that_the_cluster_chokes_on_holds_up_no_other() {
    let world = running(34, &["a", "b", "z"]);
    world
        .manifests
        .borrow_mut()
        .insert("0-own".to_owned(), "h1".to_owned());
    refuse(
        &world,
        "Create",
        "/api/v1/namespaces/default/pods",
        status(500, "webhook"),
    );
    refuse(&world, "Patch", &pod_path("a"), status(500, "webhook"));
    refuse(&world, "Delete", &pod_path("b"), status(500, "webhook"));
    world.feed();
    for name in ["a", "b", "z"] {
        world.api.delete_pod(&pod_path(name));
    }
    world.run(SECONDS(30));
    assert_eq!(world.api.get(&pod_path("z")), None, "it waits for others");
    // Who has not been seen to end does not go.
    assert_eq!(phase(&world, "a").as_deref(), Some("Running"));
    world.api.refused.borrow_mut().clear();
    world.run(SECONDS(61));
    for name in ["a", "b"] {
        assert_eq!(world.api.get(&pod_path(name)), None);
    }
    assert!(world.api.get(&pod_path("0-own")).is_some());
}

#[test]
fn a_pod_that_never_ran_is_seen_to_have_failed_before_it_goes() {
    let world = World::started(35);
    world.run(SECONDS(2));
    // What it names is missing: it is known here, and waits.
    let mut pod = bound("web");
    pod["status"]["conditions"] = json!([{"type": "PodScheduled", "status": "True"}]);
    pod["metadata"]["finalizers"] = json!(["example.org/seen"]);
    world.api.put(&pod_path("web"), pod);
    world.run(SECONDS(1));
    world.api.delete_pod(&pod_path("web"));
    world.run(SECONDS(30));
    let calls = world.api.calls.borrow();
    let of = |verb: &str| {
        calls
            .iter()
            .position(|call| call.starts_with(verb) && call.contains("/pods/web"))
    };
    assert!(
        of("Patch").is_some() && of("Patch") < of("Delete"),
        "{calls:#?}"
    );
}

#[test]
fn a_pod_that_was_going_when_it_came_is_seen_to_have_failed_before_it_goes() {
    let scheduled = json!([{"type": "PodScheduled", "status": "True"}]);
    for conditions in [Value::Null, scheduled] {
        let world = World::started(39);
        world.run(SECONDS(2));
        world.api.put(SECRET, secret());
        let mut pod = bound("web");
        pod["status"]["conditions"] = conditions;
        pod["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
        world.api.put(&pod_path("web"), pod);
        // What a finalizer would keep.
        refuse(&world, "Delete", &pod_path("web"), status(403, "no"));
        world.run(SECONDS(5));
        assert!(calls(&world, "Delete") > 0);
        let told = world.api.get(&pod_path("web")).expect("a pod")["status"].take();
        assert_eq!(told["phase"], "Failed");
        let told = told["conditions"].as_array().expect("a list");
        for kind in ["Ready", "ContainersReady"] {
            let one = told.iter().find(|one| one["type"] == kind);
            let one = one.expect("a condition");
            assert_eq!(
                (&one["status"], &one["reason"]),
                (&json!("False"), &json!("PodFailed"))
            );
        }
    }
}

#[test]
fn a_pod_that_somebody_has_called_failed_ends_and_stays_failed() {
    let world = running(40, &["web"]);
    let mut pod = world.api.get(&pod_path("web")).expect("a pod");
    pod["status"]["phase"] = json!("Failed");
    pod["status"]["reason"] = json!("NodeLost");
    world.api.put(&pod_path("web"), pod);
    world.run(SECONDS(60));
    let told = world.api.get(&pod_path("web")).expect("a pod")["status"].take();
    assert_eq!(
        (&told["phase"], &told["reason"]),
        (&json!("Failed"), &json!("NodeLost"))
    );
    assert_eq!(told["conditions"][0]["status"], "False");
    let lives: Vec<Life> = world.kernel.borrow().values().copied().collect();
    assert_eq!(lives, [Life::Ended]);
    // A new agent has not seen it run.
    world.kill();
    world.start();
    world.run(SECONDS(60));
    assert_eq!(phase(&world, "web").as_deref(), Some("Failed"));
}

#[test]
fn a_pod_that_the_node_cannot_take_is_told_why() {
    let world = World::started(37);
    world.run(SECONDS(2));
    world.api.put(SECRET, secret());
    let mut pod = bound("web");
    pod["spec"]["restartPolicy"] = json!("Sometimes");
    world.api.put(&pod_path("web"), pod);
    world.api.put(&pod_path("other"), bound("other"));
    world.run(SECONDS(60));
    assert_eq!(phase(&world, "web").as_deref(), Some("Pending"));
    assert_eq!(phase(&world, "other").as_deref(), Some("Running"));
    let objects = world.api.objects.borrow().clone();
    let mut events = objects.iter().filter(|(path, _)| path.contains("/events/"));
    let (_, event) = events.next().expect("an event");
    assert_eq!(event["reason"], "FailedValidation");
    let message = event["message"].as_str().unwrap_or_default();
    assert!(message.contains("restartPolicy"), "{message}");
    assert_eq!(event["count"], 1);
    assert_eq!(events.next(), None);
    // It can go all the same.
    world.api.delete_pod(&pod_path("web"));
    world.run(SECONDS(5));
    assert_eq!(world.api.get(&pod_path("web")), None);
}

#[test]
fn after_what_nobody_understands_all_is_listed_again() {
    let world = running(38, &["web"]);
    let lists = || calls(&world, "Get /api/v1/pods?");
    let before = lists();
    world.api.garbled.set(true);
    world.api.forget();
    world.api.put(&pod_path("web2"), bound("web2"));
    world.run(SECONDS(300));
    assert!((before + 2..before + 20).contains(&lists()), "{}", lists());
    world.api.garbled.set(false);
    world.run(SECONDS(35));
    assert_eq!(phase(&world, "web2").as_deref(), Some("Running"));
}

#[test]
fn a_watch_that_is_refused_goes_on_where_it_was_or_begins_with_a_list() {
    for (code, lists) in [
        (401, true),
        (403, true),
        (429, false),
        (500, true),
        (503, false),
    ] {
        for opened in [false, true] {
            let world = running(46, &["web"]);
            let before = calls(&world, "Get /api/v1/pods?");
            let watch = "Watch /api/v1/pods?".to_owned();
            match opened {
                true => world.api.error.set(Some(code)),
                false => drop(
                    world
                        .api
                        .refused
                        .borrow_mut()
                        .insert(watch, status(code, "no")),
                ),
            }
            world.api.broken.notify(usize::MAX);
            world.api.put(&pod_path("new"), bound("new"));
            world.run(SECONDS(120));
            let listed = calls(&world, "Get /api/v1/pods?") - before;
            assert!(listed < 12, "{code}: {listed} lists");
            assert_eq!(listed > 0, lists, "{code}, opened: {opened}");
            let told = phase(&world, "new");
            let seen = if lists { "Running" } else { "Pending" };
            assert_eq!(told.as_deref(), Some(seen), "{code}, opened: {opened}");
            world.api.error.set(None);
            world.api.refused.borrow_mut().clear();
            world.run(SECONDS(35));
            assert_eq!(phase(&world, "new").as_deref(), Some("Running"));
        }
    }
}

#[test]
fn a_pause_that_the_cluster_asks_for_is_waited_in_full() {
    let world = World::started(47);
    let busy = Reply {
        retry_after: Some(SECONDS(40)),
        ..status(429, "slowly")
    };
    world.run(SECONDS(2));
    let pods = "Get /api/v1/pods?";
    world.api.refused.borrow_mut().insert(pods.to_owned(), busy);
    world.api.forget();
    world.api.broken.notify(usize::MAX);
    world.run(SECONDS(100));
    let before = calls(&world, pods);
    world.run(SECONDS(4000));
    assert_eq!(calls(&world, pods) - before, 100);
}

#[test]
fn a_token_that_is_refused_is_not_one_that_nobody_was_asked_for() {
    let world = World::started(41);
    world.run(SECONDS(2));
    let tokens = "/api/v1/namespaces/default/serviceaccounts/robot/token";
    for (code, refused) in [
        (400, true),
        (401, false),
        (403, true),
        (404, true),
        (429, false),
        (500, false),
        (503, false),
    ] {
        refuse(&world, "Create", tokens, status(code, "no"));
        let answer = world.ask_token();
        world.run(SECONDS(1));
        let why = format!("{code} no");
        let why = if refused {
            NoToken::Refused(why)
        } else {
            NoToken::NoAnswer(why)
        };
        assert_eq!(answer.take(), Some(Err(why)));
    }
}

#[test]
fn after_a_boot_the_first_answer_is_waited_for() {
    for (cut, answered) in [(3, true), (60, false)] {
        let world = World::new(42);
        world.api.line.set(Line::Down);
        world.start();
        world.run(Duration::from_millis(100));
        let answer = world.ask_token();
        world.run(SECONDS(cut.min(4)));
        assert_eq!(answer.take(), None);
        if answered {
            world.api.line.set(Line::Up);
        }
        world.run(SECONDS(2));
        let answer = answer.take().expect("an answer");
        assert_eq!(answer.is_ok(), answered, "{answer:?}");
    }
}

#[test]
fn an_event_that_the_cluster_chokes_on_holds_up_no_other() {
    let world = World::started(43);
    world.run(SECONDS(2));
    let registry = world.registry.borrow().clone().expect("an agent");
    let record = |namespace: &str| {
        registry.record(crate::registry::EventRecord {
            involved: Key::local(Kind::Pod, namespace, "web"),
            uid: "u".to_owned(),
            field_path: None,
            warning: true,
            reason: "R".to_owned(),
            message: "m".to_owned(),
        });
    };
    let events = |namespace: &str| format!("/api/v1/namespaces/{namespace}/events");
    let told = |world: &World, namespace: &str| {
        let objects = world.api.objects.borrow();
        objects
            .keys()
            .any(|path| path.starts_with(&events(namespace)))
    };
    refuse(&world, "Create", &events("a"), status(500, "webhook"));
    record("a");
    record("b");
    world.run(SECONDS(5));
    assert!(told(&world, "b") && !told(&world, "a"));
    // Who is not there is asked again.
    refuse(&world, "Create", &events("c"), status(503, "no"));
    record("c");
    world.run(SECONDS(5));
    world.api.refused.borrow_mut().clear();
    world.run(SECONDS(60));
    assert!(told(&world, "c"));
}
