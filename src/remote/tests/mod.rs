//! The sync against a cluster that behaves, under a virtual clock: stories first, then seeds.

mod beats;
pub(super) mod cluster;
mod refusals;
pub(super) mod world;

use std::collections::BTreeSet;
use std::time::Duration;

use serde_json::json;

use self::cluster::Line;
use self::world::{Life, NODE, World, bound, pod_path};
use crate::object::Origin;

const NODE_PATH: &str = "/api/v1/nodes/pi";
const LEASE: &str = "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases/pi";
const SECRET: &str = "/api/v1/namespaces/default/secrets/s";
const SECONDS: fn(u64) -> Duration = Duration::from_secs;

fn secret() -> serde_json::Value {
    json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s", "namespace": "default"}})
}

fn phase(world: &World, name: &str) -> Option<String> {
    let pod = world.api.get(&pod_path(name))?;
    pod["status"]["phase"].as_str().map(str::to_owned)
}

#[test]
fn a_node_registers_renews_its_lease_and_is_otherwise_quiet() {
    let world = World::started(1);
    world.run(SECONDS(3));
    let node = world.api.get(NODE_PATH).expect("a Node");
    assert_eq!(node["status"]["conditions"][0]["status"], "True");
    let lease = world.api.get(LEASE).expect("a lease");
    assert_eq!(lease["spec"]["holderIdentity"], NODE);
    let before = world.api.calls.borrow().len();
    world.run(SECONDS(600));
    let calls = world.api.calls.borrow()[before..].to_vec();
    let leases = calls
        .iter()
        .filter(|call| call.contains("/leases/"))
        .count();
    let reports = calls
        .iter()
        .filter(|call| call.ends_with("/nodes/pi/status"))
        .count();
    assert!(
        (58..=62).contains(&leases),
        "{leases} renewals in ten minutes"
    );
    assert_eq!(reports, 2, "one report in five minutes");
    assert_eq!(calls.len(), leases + reports, "{calls:#?}");
}

#[test]
fn a_pod_of_the_cluster_comes_runs_and_goes_with_its_secret() {
    let world = World::started(2);
    world.run(SECONDS(2));
    world.api.put(SECRET, secret());
    let pod = world.api.put(&pod_path("web"), bound("web"));
    world.run(SECONDS(3));
    assert_eq!(phase(&world, "web").as_deref(), Some("Running"));
    let known = world.pods();
    assert_eq!(known.len(), 1);
    assert_eq!(known[0].uid(), pod["metadata"]["uid"]);
    world.api.delete_pod(&pod_path("web"));
    world.run(SECONDS(3));
    assert_eq!(world.api.get(&pod_path("web")), None);
    assert!(world.pods().is_empty());
    let calls = world.api.calls.borrow();
    let last: Vec<&String> = calls
        .iter()
        .filter(|call| call.contains("/pods/web"))
        .collect();
    let ended = ["Patch", "Delete"].map(|verb| last.iter().rposition(|c| c.starts_with(verb)));
    assert!(
        ended[0] < ended[1] && ended[0].is_some(),
        "its end is told before it goes: {last:?}"
    );
}

#[test]
fn a_pod_waits_for_what_it_names_and_comes_without_it_in_the_end() {
    let world = World::started(3);
    world.run(SECONDS(2));
    world.api.put(&pod_path("web"), bound("web"));
    world.run(SECONDS(1));
    // That there is no such secret is known by now.
    assert_eq!(world.pods().len(), 1);
    let registry = world.registry.borrow().clone().expect("an agent");
    let kinds = |kind| registry.reader().list(kind, None).0.len();
    assert_eq!(kinds(crate::object::Kind::Secret), 0);
    world.api.put(SECRET, secret());
    world.run(SECONDS(1));
    assert_eq!(kinds(crate::object::Kind::Secret), 1);
}

#[test]
fn the_services_of_a_pods_namespace_come_along_and_stay_without_the_cluster() {
    let world = World::started(16);
    let put = |namespace: &str, name: &str| {
        let path = format!("/api/v1/namespaces/{namespace}/services/{name}");
        let service = json!({"apiVersion": "v1", "kind": "Service",
            "metadata": {"name": name, "namespace": namespace}, "spec": {"clusterIP": "10.0.0.1"}});
        world.api.put(&path, service);
    };
    for (namespace, name) in [
        ("default", "kubernetes"),
        ("default", "web"),
        ("shop", "till"),
        ("other", "x"),
    ] {
        put(namespace, name);
    }
    let mut pod = bound("p");
    pod["metadata"]["namespace"] = json!("shop");
    world.api.put("/api/v1/namespaces/shop/pods/p", pod.clone());
    let names = |world: &World| -> Vec<String> {
        let registry = world.registry.borrow().clone().expect("an agent");
        let (services, _) = registry.reader().list(crate::object::Kind::Service, None);
        let theirs = services.iter().filter(|s| s.key.origin == Origin::Remote);
        theirs.map(|service| service.key.name.clone()).collect()
    };
    world.run(SECONDS(12));
    assert_eq!(names(&world), ["kubernetes", "till"]);
    put("shop", "cart");
    // Both ways to the service of the API.
    world.api.put(&pod_path("q"), bound("q"));
    world.run(SECONDS(12));
    assert_eq!(names(&world), ["kubernetes", "web", "cart", "till"]);
    world.api.line.set(Line::Down);
    world.api.broken.notify(usize::MAX);
    world.kill();
    world.start();
    world.run(SECONDS(60));
    assert_eq!(names(&world), ["kubernetes", "web", "cart", "till"]);
    world.api.line.set(Line::Up);
    pod["spec"]["enableServiceLinks"] = json!(false);
    world.api.put("/api/v1/namespaces/shop/pods/p", pod);
    world.api.remove("/api/v1/namespaces/default/services/web");
    world.run(SECONDS(30));
    assert_eq!(names(&world), ["kubernetes"]);
}

#[test]
fn a_pod_that_takes_anothers_place_is_followed_by_its_own_secret() {
    let world = World::started(10);
    world.api.put(SECRET, secret());
    world.api.put(&pod_path("one"), bound("one"));
    world.run(SECONDS(3));
    let mut other = bound("two");
    other["spec"]["containers"][0]["envFrom"][0]["secretRef"]["name"] = json!("t");
    let path = "/api/v1/namespaces/default/secrets/t";
    let mut named = secret();
    named["metadata"]["name"] = json!("t");
    let first = world.api.put(path, named.clone());
    world.api.remove(&pod_path("one"));
    world.api.put(&pod_path("two"), other);
    world.run(SECONDS(3));
    assert_eq!(phase(&world, "two").as_deref(), Some("Running"));
    named["metadata"]["uid"] = first["metadata"]["uid"].clone();
    named["metadata"]["labels"] = json!({"new": "yes"});
    world.api.put(path, named);
    world.run(SECONDS(1));
    let registry = world.registry.borrow().clone().expect("an agent");
    let (secrets, _) = registry.reader().list(crate::object::Kind::Secret, None);
    assert_eq!(secrets.len(), 1);
    assert_eq!(secrets[0].label("new"), Some("yes"));
}

#[test]
fn without_a_link_nothing_is_lost_and_afterwards_all_is_told_within_a_second() {
    let world = World::started(4);
    world.api.put(SECRET, secret());
    world.api.put(&pod_path("web"), bound("web"));
    world.run(SECONDS(5));
    world.api.line.set(Line::Down);
    world.api.broken.notify(usize::MAX);
    world.run(SECONDS(3600));
    // A reboot in the dark.
    world.kill();
    world.start();
    world.run(SECONDS(60));
    let pods = world.pods();
    assert_eq!(pods.len(), 1, "the pod is known without the cluster");
    assert_eq!(pods[0].key.origin, Origin::Remote);
    world.api.delete_pod(&pod_path("web"));
    world.api.put(&pod_path("new"), bound("new"));
    let renewed = |world: &World| world.api.get(LEASE).unwrap()["spec"]["renewTime"].clone();
    let before = renewed(&world);
    world.api.line.set(Line::Up);
    world.run(SECONDS(6));
    assert_ne!(renewed(&world), before);
    world.run(SECONDS(30));
    assert_eq!(phase(&world, "new").as_deref(), Some("Running"));
    assert_eq!(world.api.get(&pod_path("web")), None);
}

/// What the cluster's node controller does when no lease was renewed for a while.
fn overrule(world: &World) {
    let mut node = world.api.get(NODE_PATH).unwrap();
    node["status"]["conditions"][0]["status"] = json!("Unknown");
    world.api.put(NODE_PATH, node);
}

#[test]
fn a_node_that_was_taken_for_dead_says_at_once_that_it_is_not() {
    let world = World::started(15);
    world.run(SECONDS(5));
    let ready =
        |world: &World| world.api.get(NODE_PATH).unwrap()["status"]["conditions"][0].clone();
    overrule(&world);
    world.run(SECONDS(12));
    assert_eq!(ready(&world)["status"], "True", "without a cut");
    world.api.line.set(Line::Down);
    world.api.broken.notify(usize::MAX);
    world.run(SECONDS(60));
    overrule(&world);
    world.api.line.set(Line::Up);
    world.run(SECONDS(6));
    assert_eq!(ready(&world)["status"], "True");
    let beats = world.api.calls.borrow().len();
    world.run(SECONDS(60));
    let calls = world.api.calls.borrow()[beats..].to_vec();
    assert!(calls.len() <= 7, "once is enough: {calls:#?}");
}

#[test]
fn a_cluster_that_is_put_back_in_time_is_listed_again() {
    is_listed_again(0, Lease::Kept, SECONDS(0));
    // Its controllers have written so much by then that no version is lower than before.
    is_listed_again(1000, Lease::Kept, SECONDS(0));
    // It was not a node yet, or its lease was collected.
    is_listed_again(1000, Lease::Gone, SECONDS(0));
    // It is found out while watches are on their way, from a version of before.
    is_listed_again(0, Lease::Kept, SECONDS(8));
}

enum Lease {
    Kept,
    Gone,
}

fn is_listed_again(writes: u64, lease: Lease, opening: Duration) {
    let world = World::started(13);
    world.api.put(SECRET, secret());
    world.api.put(&pod_path("web"), bound("web"));
    world.run(SECONDS(5));
    let backup = world.api.backup();
    world.api.put(&pod_path("later"), bound("later"));
    world.run(SECONDS(60));
    assert_eq!(phase(&world, "later").as_deref(), Some("Running"));
    world.api.opening.set(opening);
    world.api.restore(backup);
    if let Lease::Gone = lease {
        world.api.remove(LEASE);
    }
    world.api.count(writes);
    // A version that the node has long seen: no watch from there would ever show it.
    world.api.delete_pod(&pod_path("web"));
    world.run(SECONDS(25));
    let names = world.pods();
    assert!(names.is_empty(), "{names:?}");
    assert_eq!(world.api.get(&pod_path("web")), None, "its end is told");
    let calls = world.api.calls.borrow().len();
    world.run(SECONDS(60));
    let calls = world.api.calls.borrow()[calls..].to_vec();
    assert!(calls.len() <= 8, "no storm: {calls:#?}");
}

#[test]
fn a_mirror_that_a_backup_brings_back_is_deleted_again() {
    let world = World::started(25);
    let manifests = || world.manifests.borrow_mut();
    manifests().insert("web-pi".to_owned(), "h1".to_owned());
    world.feed();
    world.run(SECONDS(3));
    let backup = world.api.backup();
    assert!(world.api.get(&pod_path("web-pi")).is_some());
    // The deletion is asked for, and no watch has shown it yet.
    world.api.opening.set(SECONDS(30));
    world.api.broken.notify(usize::MAX);
    manifests().remove("web-pi");
    world.feed();
    // A renewal of the lease is after the backup.
    world.run(SECONDS(12));
    assert_eq!(world.api.get(&pod_path("web-pi")), None);
    world.api.restore(backup);
    world.run(SECONDS(60));
    assert_eq!(world.api.get(&pod_path("web-pi")), None);
}

#[test]
fn pods_of_the_node_have_mirrors_and_lose_them() {
    let world = World::started(5);
    world
        .manifests
        .borrow_mut()
        .insert("web-pi".to_owned(), "h1".to_owned());
    world.feed();
    world.run(SECONDS(3));
    let mirror = world.api.get(&pod_path("web-pi")).expect("a mirror");
    assert_eq!(
        mirror["metadata"]["annotations"]["kubernetes.io/config.mirror"],
        "h1"
    );
    let node = world.api.get(NODE_PATH).unwrap();
    assert_eq!(
        mirror["metadata"]["ownerReferences"][0]["uid"],
        node["metadata"]["uid"]
    );
    assert_eq!(phase(&world, "web-pi").as_deref(), Some("Running"));
    // Deleted by a user: it comes again, and the pod does not notice.
    let uids: Vec<String> = world
        .pods()
        .iter()
        .map(|pod| pod.uid().to_owned())
        .collect();
    world.api.delete_pod(&pod_path("web-pi"));
    world.run(SECONDS(3));
    let again = world.api.get(&pod_path("web-pi")).expect("a mirror");
    assert_ne!(again["metadata"]["uid"], mirror["metadata"]["uid"]);
    let now: Vec<String> = world
        .pods()
        .iter()
        .map(|pod| pod.uid().to_owned())
        .collect();
    assert_eq!(now, uids);
    // Another text.
    world
        .manifests
        .borrow_mut()
        .insert("web-pi".to_owned(), "h2".to_owned());
    world.feed();
    world.run(SECONDS(5));
    let mirror = world.api.get(&pod_path("web-pi")).expect("a mirror");
    assert_eq!(
        mirror["metadata"]["annotations"]["kubernetes.io/config.mirror"],
        "h2"
    );
    world.manifests.borrow_mut().clear();
    world.feed();
    world.run(SECONDS(5));
    assert_eq!(world.api.get(&pod_path("web-pi")), None);
}

#[test]
fn a_name_that_is_taken_is_reported_and_never_adopted() {
    let world = World::started(6);
    let mut foreign = bound("web-pi");
    foreign["spec"]["nodeName"] = json!("other");
    let foreign = world.api.put(&pod_path("web-pi"), foreign);
    world
        .manifests
        .borrow_mut()
        .insert("web-pi".to_owned(), "h1".to_owned());
    world.feed();
    world.run(SECONDS(300));
    assert_eq!(world.api.get(&pod_path("web-pi")), Some(foreign));
    let registry = world.registry.borrow().clone().expect("an agent");
    let (events, _) = registry.reader().list(crate::object::Kind::Event, None);
    let told = events
        .iter()
        .filter(|e| e.body["reason"] == "FailedMirrorPod")
        .count();
    assert_eq!(told, 1);
}

#[test]
fn events_are_told_once_and_what_happened_without_a_link_afterwards() {
    let world = World::started(9);
    world.run(SECONDS(2));
    let registry = world.registry.borrow().clone().expect("an agent");
    let record = |reason: &str| {
        registry.record(crate::registry::EventRecord {
            involved: crate::object::Key::local(crate::object::Kind::Pod, "default", "web"),
            uid: "u".to_owned(),
            field_path: None,
            warning: true,
            reason: reason.to_owned(),
            message: "m".to_owned(),
        });
    };
    let told = |world: &World| -> Vec<(String, u64)> {
        let objects = world.api.objects.borrow();
        let events = objects.iter().filter(|(path, _)| path.contains("/events/"));
        let mut told: Vec<_> = events
            .map(|(_, e)| {
                (
                    e["reason"].as_str().unwrap().to_owned(),
                    e["count"].as_u64().unwrap(),
                )
            })
            .collect();
        told.sort();
        told
    };
    record("First");
    world.run(SECONDS(3));
    assert_eq!(told(&world), [("First".to_owned(), 1)]);
    world.api.line.set(Line::Down);
    record("First");
    record("Second");
    world.run(SECONDS(100));
    record("First");
    world.api.line.set(Line::Up);
    world.run(SECONDS(40));
    assert_eq!(
        told(&world),
        [("First".to_owned(), 3), ("Second".to_owned(), 1)]
    );
    let calls = world.api.calls.borrow();
    let made = calls
        .iter()
        .filter(|c| c.starts_with("Create") && c.ends_with("/events"))
        .count();
    assert!(made <= 2 + 8, "{made} tries for two events");
}

#[test]
fn a_node_that_was_deleted_or_replaced_is_noticed_at_once() {
    let world = World::started(7);
    world.run(SECONDS(3));
    let uid = |node: &serde_json::Value| node["metadata"]["uid"].clone();
    let first = uid(&world.api.get(NODE_PATH).unwrap());
    world.api.remove(NODE_PATH);
    world.run(SECONDS(1));
    let second = world.api.get(NODE_PATH).expect("a Node");
    assert_ne!(first, uid(&second));
    // Somebody else makes another in its place: it hears the whole status.
    world.api.remove(NODE_PATH);
    let third = world
        .api
        .put(NODE_PATH, json!({"metadata": {"name": NODE}}));
    world.run(SECONDS(1));
    let now = world.api.get(NODE_PATH).expect("a Node");
    assert_eq!(uid(&now), uid(&third));
    assert_eq!(now["status"]["conditions"][0]["status"], "True");
}

#[test]
fn the_clusters_node_comes_along_and_is_looked_at_again_before_a_pod_is_doubted() {
    let world = World::started(11);
    world.run(SECONDS(3));
    let label = |world: &World| -> Option<String> {
        let registry = world.registry.borrow().clone().expect("an agent");
        let (nodes, _) = registry.reader().list(crate::object::Kind::Node, None);
        let copy = nodes
            .iter()
            .find(|node| node.key.origin == Origin::Remote)?;
        copy.label("disk").map(str::to_owned)
    };
    let asked = |world: &World| {
        let calls = world.api.calls.borrow();
        calls
            .iter()
            .filter(|call| *call == &format!("Get {NODE_PATH}"))
            .count()
    };
    assert_eq!(label(&world), None);
    let before = asked(&world);
    let mut node = world.api.get(NODE_PATH).expect("a Node");
    node["metadata"]["labels"]["disk"] = json!("ssd");
    world.api.put(NODE_PATH, node);
    world.run(SECONDS(1));
    assert_eq!(label(&world).as_deref(), Some("ssd"));
    for (name, disk, looks) in [("one", "ssd", 0), ("two", "hdd", 1), ("three", "ssd", 1)] {
        let mut pod = bound(name);
        pod["spec"]["nodeSelector"] = json!({"disk": disk});
        world.api.put(&pod_path(name), pod);
        world.run(SECONDS(1));
        assert_eq!(asked(&world) - before, looks, "{name}");
    }
}

#[test]
fn an_agent_that_leaves_waits_until_the_cluster_has_heard_of_it_but_not_for_long() {
    let world = World::started(48);
    world.api.put(SECRET, secret());
    world.api.put(&pod_path("web"), bound("web"));
    world.run(SECONDS(5));
    let registry = world.registry.borrow().clone().expect("an agent");
    let end = |ip: &str| {
        let conditions = json!([{"type": "Ready", "status": "False"}]);
        let status = json!({"phase": "Failed", "podIP": ip, "conditions": conditions});
        let pod = world.pods().remove(0);
        registry.update_status(&pod.key, pod.uid(), status);
    };
    end("10.0.0.1");
    assert!(world.rest() < SECONDS(1));
    assert_eq!(phase(&world, "web").as_deref(), Some("Failed"));
    world.api.line.set(Line::Silent);
    end("10.0.0.2");
    let rested = world.rest();
    assert!(rested >= SECONDS(2) && rested < SECONDS(3), "{rested:?}");
    world.run(SECONDS(60));
    assert!(world.rest() < SECONDS(1), "nobody is there");
}

#[test]
fn a_pod_that_has_ended_in_the_clusters_eyes_does_not_run_again() {
    let world = World::new(8);
    let mut done = bound("job");
    done["status"]["phase"] = json!("Succeeded");
    world.api.put(&pod_path("job"), done);
    world.start();
    world.run(SECONDS(60));
    assert!(world.pods().is_empty());
    assert_eq!(phase(&world, "job").as_deref(), Some("Succeeded"));
}

/// Half an hour in which everything happens.
fn blow(world: &World) {
    let luck = world.luck.clone();
    world.api.put(SECRET, secret());
    for _ in 0..40 {
        let name = format!("p{}", luck.below(4));
        let own = format!("s{}-pi", luck.below(2));
        match luck.below(14) {
            0..4 if world.api.get(&pod_path(&name)).is_none() => {
                let _made = world.api.put(&pod_path(&name), bound(&name));
            }
            4 | 5 => world.api.delete_pod(&pod_path(&name)),
            // Force-deleted, perhaps to come back under the same name at once.
            6 => world.api.remove(&pod_path(&name)),
            7 => {
                let hash = format!("h{}", luck.below(1000));
                world.manifests.borrow_mut().insert(own, hash);
                world.feed();
            }
            8 => {
                world.manifests.borrow_mut().remove(&own);
                world.feed();
            }
            9 => {
                let lines = [Line::Up, Line::Down, Line::Silent, Line::Deaf];
                world.api.line.set(lines[luck.below(4) as usize]);
                world.api.broken.notify(usize::MAX);
            }
            10 => world.api.forget(),
            11 => {
                world.api.broken.notify(usize::MAX);
            }
            12 => {
                world.kill();
                world.start();
            }
            _ => world.api.remove(if luck.below(2) == 0 {
                NODE_PATH
            } else {
                SECRET
            }),
        }
        world.run(Duration::from_millis(luck.below(20_000)));
    }
}

/// One storm, and what must be true after it.
fn storm(seed: u64) {
    let world = World::started(seed);
    blow(&world);
    world.api.line.set(Line::Up);
    world.api.broken.notify(usize::MAX);
    world.run(SECONDS(700));

    let context = || format!("seed {seed}");
    let objects = world.api.objects.borrow();
    let pods = objects.iter().filter(|(path, _)| path.contains("/pods/"));
    let (mut bound, mut mirrors) = (BTreeSet::new(), BTreeSet::new());
    for (path, pod) in pods {
        assert!(
            pod["metadata"]["deletionTimestamp"].is_null(),
            "{}: {path} stays",
            context()
        );
        assert_eq!(pod["status"]["phase"], "Running", "{}: {path}", context());
        let name = pod["metadata"]["name"].as_str().unwrap().to_owned();
        match pod["metadata"]["annotations"]["kubernetes.io/config.mirror"].as_str() {
            Some(hash) => mirrors.insert((name, hash.to_owned())),
            None => bound.insert((name, pod["metadata"]["uid"].as_str().unwrap().to_owned())),
        };
    }
    let here: BTreeSet<(String, String)> = world
        .pods()
        .iter()
        .filter(|pod| pod.key.origin == Origin::Remote)
        .map(|pod| (pod.key.name.clone(), pod.uid().to_owned()))
        .collect();
    assert_eq!(here, bound, "{}: the cluster's pods", context());
    let manifests: BTreeSet<(String, String)> =
        world.manifests.borrow().clone().into_iter().collect();
    assert_eq!(mirrors, manifests, "{}: mirrors", context());
    let node = &objects[NODE_PATH];
    assert_eq!(
        node["status"]["conditions"][0]["status"],
        "True",
        "{}",
        context()
    );
    let kernel = world.kernel.borrow();
    let runs = kernel.iter().filter(|(_, life)| **life == Life::Runs);
    let runs: BTreeSet<&String> = runs.map(|(uid, _)| uid).collect();
    let wanted: BTreeSet<&String> = bound.iter().map(|(_, uid)| uid).collect();
    assert_eq!(runs, wanted, "{}: what runs", context());
}

#[test]
fn after_every_storm_cluster_and_node_agree() {
    for seed in 0..60 {
        storm(seed);
    }
}
