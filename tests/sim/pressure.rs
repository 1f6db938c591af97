//! A node that runs out of disk, told step by step: who goes, who stays, and that nobody who ended
//! runs again.

use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

use lowtide::object::{Key, Kind, Source};
use lowtide::registry::Registry;
use serde_json::{Value, json};

use crate::host::DiskMode;
use crate::manifests::{Document, File, IMAGES};
use crate::real::RealNode;
use crate::run::Run;
use crate::trace::Tracing;

const MIB: u64 = 1 << 20;

pub fn pod(name: &str, priority: i64, command: &[&str], policy: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": name},
        "spec": {
            "restartPolicy": policy, "priority": priority, "nodeName": "sim",
            "containers": [{"name": "c", "image": IMAGES[0], "command": command}],
        },
    })
}

/// A node with a static pod, which keeps most of all on the disk.
pub fn begin(seed: u64) -> (Run, Api) {
    let node = RealNode::default();
    let registry = node.registry();
    let mut run = Run::new(seed, Tracing::Off, Box::new(node));
    run.host.images.borrow_mut().add(IMAGES[0]);
    let file = File {
        good: Some(Document::Pod(pod("static", 0, &["forever"], "Always"))),
        broken: false,
    };
    run.manifests.files = BTreeMap::from([("static.json".to_owned(), file)]);
    run.node.feed(&run.manifests);
    run.start_agent();
    (run, registry)
}

pub fn post(run: &mut Run, registry: &Api, name: &str, body: Value) {
    let (registry, key) = (registry(), Key::local(Kind::Pod, "default", name));
    let write = async move { registry.create(Source::Api, key, body).await.map(drop) };
    let written = run.spawn(write);
    pass(run, 2);
    assert!(written.is_finished(), "the write of {name} has ended");
}

pub fn pass(run: &mut Run, seconds: u64) {
    run.run_for(Duration::from_secs(seconds)).expect("safe");
}

pub fn status(registry: &Api, name: &str) -> Value {
    let reader = registry().reader();
    let found = reader.get(&Key::local(Kind::Pod, "default", name));
    found.map_or(Value::Null, |pod| pod.body["status"].clone())
}

fn condition(status: &Value, kind: &str) -> Option<String> {
    let all = status["conditions"].as_array()?.iter();
    let mut found = all.filter(|condition| condition["type"] == kind);
    Some(found.next()?["status"].as_str()?.to_owned())
}

fn disk_pressure(registry: &Api) -> Option<String> {
    let node = registry()
        .reader()
        .get(&Key::local(Kind::Node, "", "sim"))?;
    condition(&node.body["status"], "DiskPressure")
}

pub type Api = Rc<dyn Fn() -> Registry>;

/// Pods of every kind, and a disk that is nearly full.
fn fill(run: &mut Run, registry: &Api) {
    pass(run, 5);
    for (name, priority) in [("worthy", 100), ("small", 0), ("large", 0)] {
        let body = pod(name, priority, &["forever"], "Always");
        post(run, registry, name, body);
    }
    let ends = ["exit", "0", "after-ms", "1000"];
    post(run, registry, "job", pod("job", 0, &ends, "Never"));
    pass(run, 30);
    assert_eq!(status(registry, "job")["phase"], "Succeeded");
    assert_eq!(disk_pressure(registry).as_deref(), Some("False"));
    let sizes = [
        ("static-sim", 900),
        ("worthy", 500),
        ("small", 10),
        ("large", 200),
    ];
    let mut gauges = run.host.gauges.borrow_mut();
    gauges.pods = sizes.map(|(name, mib)| (name.to_owned(), mib * MIB)).into();
    gauges.disk_available = Some(MIB);
}

/// Until the first one has gone; then there is room again.
fn await_eviction(run: &mut Run, registry: &Api) -> Value {
    let mut looks = 0..75;
    while status(registry, "large")["phase"] != "Failed" {
        looks.next().expect("somebody is evicted in time");
        pass(run, 1);
    }
    assert_eq!(disk_pressure(registry).as_deref(), Some("True"));
    run.host.gauges.borrow_mut().disk_available = Some(1000 * MIB);
    status(registry, "large")
}

fn assert_evicted(status: &Value) {
    assert_eq!(status["phase"], "Failed");
    assert_eq!(status["reason"], "Evicted");
    let message = status["message"].as_str().expect("a message");
    let begins = "The node was low on resource: ephemeral-storage. ";
    assert!(message.starts_with(begins), "{message}");
    let target = condition(status, "DisruptionTarget");
    assert_eq!(target.as_deref(), Some("True"));
}

#[test]
fn a_full_disk_takes_pods_by_rank_and_never_a_static_one_or_one_that_ended() {
    let (mut run, registry) = begin(11);
    fill(&mut run, &registry);
    assert_evicted(&await_eviction(&mut run, &registry));

    // Who comes now is turned away, and no more than that.
    post(
        &mut run,
        &registry,
        "late",
        pod("late", 0, &["forever"], "Always"),
    );
    pass(&mut run, 5);
    let late = status(&registry, "late");
    let told = (&late["phase"], &late["reason"], &late["message"]);
    let message = "Pod was rejected: The node had condition: [DiskPressure]. ";
    assert_eq!(told, (&json!("Failed"), &json!("Evicted"), &json!(message)));
    assert_eq!(condition(&late, "DisruptionTarget"), None, "it never ran");
    pass(&mut run, 300);
    assert_eq!(disk_pressure(&registry).as_deref(), Some("False"));
    for name in ["static-sim", "worthy", "small"] {
        let stays = status(&registry, name);
        assert_eq!(stays["phase"], "Running", "{name}: {stays}");
    }

    // What was told survives a power cut.
    run.cut_power();
    run.start_agent();
    pass(&mut run, 60);
    assert_evicted(&status(&registry, "large"));
    assert_eq!(status(&registry, "job")["phase"], "Succeeded");
    let started = |name: &str| {
        let kernel = run.host.kernel.borrow();
        let mut pods = kernel.pods.values();
        pods.any(|pod| pod.containers.iter().any(|c| c.config.pod_name == name))
    };
    assert!(started("worthy") && !started("large") && !started("job"));
    assert_eq!(status(&registry, "late")["reason"], "Evicted");
}

#[test]
fn memory_comes_back_on_a_disk_that_takes_no_record_of_it() {
    let (mut run, registry) = begin(14);
    pass(&mut run, 5);
    for name in ["one", "two"] {
        let body = pod(name, 0, &["forever"], "Always");
        post(&mut run, &registry, name, body);
    }
    pass(&mut run, 20);
    run.host.faults.borrow_mut().disk = DiskMode::ReadOnly;
    run.host.gauges.borrow_mut().memory_available = Some(0);
    pass(&mut run, 120);
    let kernel = run.host.kernel.borrow();
    let all = kernel.pods.values().flat_map(|pod| &pod.containers);
    let live: Vec<&str> = all
        .filter(|c| c.is_live())
        .map(|c| c.config.pod_name.as_str())
        .collect();
    assert_eq!(live, ["static-sim"]);
}

#[test]
fn pods_that_were_here_before_a_reboot_wait_until_the_pressure_is_over() {
    let (mut run, registry) = begin(12);
    pass(&mut run, 5);
    post(
        &mut run,
        &registry,
        "kept",
        pod("kept", 0, &["forever"], "Always"),
    );
    pass(&mut run, 10);
    run.cut_power();
    run.host.gauges.borrow_mut().disk_available = Some(MIB);
    run.start_agent();
    pass(&mut run, 20);
    let kept = status(&registry, "kept");
    let waiting = &kept["containerStatuses"][0]["state"]["waiting"];
    assert_eq!(waiting["reason"], "NodePressure", "{kept}");
    run.host.gauges.borrow_mut().disk_available = Some(1000 * MIB);
    pass(&mut run, 400);
    assert_eq!(status(&registry, "kept")["phase"], "Running");
}
