//! How soon the cluster hears of the node when something was between them.

use std::time::Duration;

use serde_json::{Value, json};

use super::cluster::Line;
use super::world::{NODE, World, bound, pod_path};
use super::{LEASE, SECONDS, SECRET, phase, secret};
use crate::remote::Registration;

#[test]
fn a_renewal_that_hangs_does_not_cost_the_lease() {
    let world = World::started(12);
    world.run(SECONDS(5));
    let renewed = |world: &World| world.api.get(LEASE).unwrap()["spec"]["renewTime"].clone();
    let before = renewed(&world);
    // The next one is lost with its connection, and nobody says so.
    world.api.line.set(Line::Silent);
    world.run(SECONDS(11));
    world.api.line.set(Line::Up);
    world.run(SECONDS(23));
    assert_ne!(renewed(&world), before, "39 s after the last");
}

#[test]
fn a_link_that_is_back_is_used_within_a_second() {
    // Refused, or swallowed, for longer than anything waits in the end.
    let lines = [(21, Line::Down), (22, Line::Silent), (23, Line::Mute)];
    for (seed, line) in lines {
        for cut in [15, 47, 600] {
            let world = World::started(seed);
            world.run(SECONDS(5));
            world.api.line.set(line);
            world.api.broken.notify(usize::MAX);
            world.run(SECONDS(cut));
            let renewed = || world.api.get(LEASE).unwrap()["spec"]["renewTime"].clone();
            let (before, calls) = (renewed(), world.api.calls.borrow().len());
            world.run(SECONDS(20));
            let calls = world.api.calls.borrow().len() - calls;
            assert!(calls <= 40, "{calls} calls in 20 s of {line:?}");
            world.api.line.set(Line::Up);
            // Where connections are taken, each costs something: after a minute they are fewer.
            world.run(match (line, cut) {
                (Line::Mute, 600) => Duration::from_millis(5100),
                _ => Duration::from_millis(1100),
            });
            assert_ne!(renewed(), before, "{line:?} for {cut} s");
        }
    }
}

#[test]
fn a_cut_shorter_than_the_lease_period_is_followed_by_a_renewal_too() {
    let world = World::started(14);
    // The last renewal was about 2 s ago.
    world.run(SECONDS(12));
    world.api.line.set(Line::Down);
    world.api.broken.notify(usize::MAX);
    world.run(SECONDS(4));
    let renewed = |world: &World| world.api.get(LEASE).unwrap()["spec"]["renewTime"].clone();
    let before = renewed(&world);
    world.api.line.set(Line::Up);
    world.run(SECONDS(3));
    assert_ne!(renewed(&world), before, "19 s after the start");
}

#[test]
fn a_cluster_that_answers_some_and_not_others_is_asked_at_leisure() {
    // Refused, broken off after a while, or swallowed.
    for dropping in [0, 1, 3, 5, 12, 30].map(SECONDS) {
        let world = World::started(26);
        world.run(SECONDS(5));
        world.api.put(SECRET, secret());
        for name in ["a", "b", "c"] {
            world.api.put(&pod_path(name), bound(name));
        }
        world.run(SECONDS(5));
        // One of several servers is not there, and it is always these that it would have answered.
        world.api.dropping.set(dropping);
        world.api.dropped.replace(vec![
            "Patch /api/v1/namespaces/default/pods",
            "Watch /api/v1/namespaces/default/secrets",
        ]);
        world.api.broken.notify(usize::MAX);
        world.api.delete_pod(&pod_path("a"));
        world.run(SECONDS(60));
        let (calls, watches) = (world.api.calls.borrow().len(), world.api.watches.get());
        world.run(SECONDS(600));
        let calls = world.api.calls.borrow().len() - calls;
        let watches = world.api.watches.get() - watches;
        // 60 renewals, failures at growing pauses, each with a renewal after it; all watches each two minutes.
        assert!(calls < 180, "{calls} calls in ten minutes");
        assert!(watches < 70, "{watches} watches in ten minutes");
        world.api.dropped.borrow_mut().clear();
        world.run(SECONDS(65));
        assert_eq!(world.api.get(&pod_path("a")), None);
    }
}

#[test]
fn a_connection_that_is_dead_alone_is_left_for_another() {
    let world = World::started(24);
    world.run(SECONDS(5));
    let renewed = || world.api.get(LEASE).unwrap()["spec"]["renewTime"].clone();
    let before = renewed();
    world.api.line.set(Line::Forgotten);
    world.api.put(&pod_path("web"), bound("web"));
    // The next renewal is 5 s away, 2 s are usual, then the door is seen open twice.
    world.run(SECONDS(9));
    assert_ne!(renewed(), before);
    assert_eq!(world.api.line.get(), Line::Up, "over a new connection");
    // Its answer tells the watches that they are as dead.
    world.run(SECONDS(2));
    assert_eq!(phase(&world, "web").as_deref(), Some("Running"));
}

#[test]
fn a_cloud_is_told_which_addresses_were_named_at_this_start() {
    let world = World::started(25);
    let told = |world: &World| {
        let node = world.api.get("/api/v1/nodes/pi").unwrap();
        node["metadata"]["annotations"]["alpha.kubernetes.io/provided-node-ip"].clone()
    };
    world.run(SECONDS(15));
    assert_eq!(told(&world), Value::Null);
    for ips in [vec!["10.0.0.7"], vec!["10.0.0.8", "fd00::8"]] {
        world.kill();
        let ips = ips.into_iter().map(|ip| ip.parse().unwrap()).collect();
        world.node_ips.replace(ips);
        world.start();
        world.run(SECONDS(15));
    }
    assert_eq!(told(&world), "10.0.0.8,fd00::8");
}

#[test]
fn a_node_that_others_have_to_make_is_reported_once_it_is_there() {
    let world = World::new(45);
    world.registration.set(Registration::Others);
    world.api.put(SECRET, secret());
    world.api.put(&pod_path("web"), bound("web"));
    world.start();
    world.run(SECONDS(120));
    assert_eq!(world.api.get("/api/v1/nodes/pi"), None);
    assert_eq!(world.api.get(LEASE), None);
    let asked = world.api.calls.borrow().len();
    assert!(asked < 60, "{asked} calls for nothing");
    let labels = json!({"made": "by hand"});
    let node = json!({"metadata": {"name": NODE, "labels": labels}});
    world.api.put("/api/v1/nodes/pi", node);
    world.run(SECONDS(12));
    let node = world.api.get("/api/v1/nodes/pi").expect("a Node");
    assert_eq!(node["metadata"]["labels"]["made"], "by hand");
    assert_eq!(node["status"]["conditions"][0]["status"], "True");
    assert!(world.api.get(LEASE).is_some());
    assert_eq!(phase(&world, "web").as_deref(), Some("Running"));
}

#[test]
fn a_node_that_was_there_before_joins_as_this_start_states_it() {
    let stated = |labels: Value, taints: Value| json!({"metadata": {"name": NODE, "labels": labels}, "spec": {"taints": taints}});
    let world = World::new(26);
    // Nobody hears of it yet.
    world.api.line.set(Line::Down);
    let before = json!({"old": "1", "kubernetes.io/os": "plan9"});
    world.stated.replace(stated(before, Value::Null));
    world.start();
    world.run(SECONDS(5));
    world.kill();
    let labels = json!({"new": "1", "kubernetes.io/os": "linux"});
    let taints = json!([{"key": "edge", "value": "true", "effect": "NoSchedule"}]);
    world.stated.replace(stated(labels.clone(), taints.clone()));
    world.api.line.set(Line::Up);
    world.start();
    world.run(SECONDS(5));
    let node = world.api.get("/api/v1/nodes/pi").expect("a Node");
    assert_eq!(node["metadata"]["labels"], labels);
    assert_eq!(node["spec"]["taints"], taints);
}
