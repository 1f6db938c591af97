//! How long the end of a pod takes, with sidecars and hooks.

use lowtide::object::{Key, Kind, Source};
use lowtide::registry::Deletion;
use serde_json::{Value, json};

use crate::manifests::IMAGES;
use crate::pressure::{Api, begin, pass, pod, post, status};
use crate::run::Run;

fn sidecar(name: &str, command: &[&str], pre_stop_s: u64) -> Value {
    json!({
        "name": name, "image": IMAGES[0], "command": command, "restartPolicy": "Always",
        "lifecycle": {"preStop": {"sleep": {"seconds": pre_stop_s}}},
    })
}

fn delete(run: &mut Run, registry: &Api, name: &str, grace_s: Option<i64>) {
    let (registry, key) = (registry(), Key::local(Kind::Pod, "default", name));
    let deletion = Deletion {
        grace_s,
        ..Deletion::default()
    };
    let deleted =
        run.spawn(async move { registry.delete(Source::Api, key, deletion).await.map(drop) });
    pass(run, 1);
    assert!(deleted.is_finished(), "the deletion of {name} was taken");
}

#[test]
fn all_containers_of_a_pod_stop_within_one_grace() {
    let (mut run, registry) = begin(17);
    pass(&mut run, 5);
    let ends = ["exit", "0", "after-ms", "20000"];
    let mut job = pod("job", 0, &ends, "Never");
    let deaf = |name| sidecar(name, &["forever", "deaf"], 1);
    job["spec"]["initContainers"] = json!([deaf("a"), deaf("b")]);
    post(&mut run, &registry, "job", job);
    let mut slow = pod("slow", 0, &["forever", "stops-in-ms", "20000"], "Always");
    slow["spec"]["initContainers"] = json!([sidecar("a", &["forever"], 15)]);
    post(&mut run, &registry, "slow", slow);
    pass(&mut run, 15);
    delete(&mut run, &registry, "slow", None);
    pass(&mut run, 15);
    assert_eq!(status(&registry, "slow")["phase"], "Running");
    pass(&mut run, 10);
    assert_eq!(
        status(&registry, "slow"),
        Value::Null,
        "hooks run beside the stop"
    );
    pass(&mut run, 20);
    let job = status(&registry, "job");
    assert_eq!(job["phase"], "Succeeded", "{job}");
}

#[test]
fn a_shorter_grace_ends_a_hook() {
    let (mut run, registry) = begin(19);
    pass(&mut run, 5);
    let mut patient = pod("patient", 0, &["forever"], "Always");
    patient["spec"]["terminationGracePeriodSeconds"] = json!(600);
    let hook = json!({"preStop": {"sleep": {"seconds": 500}}});
    patient["spec"]["containers"][0]["lifecycle"] = hook;
    post(&mut run, &registry, "patient", patient);
    pass(&mut run, 20);
    delete(&mut run, &registry, "patient", None);
    pass(&mut run, 60);
    assert_eq!(status(&registry, "patient")["phase"], "Running");
    delete(&mut run, &registry, "patient", Some(1));
    pass(&mut run, 15);
    assert_eq!(status(&registry, "patient"), Value::Null);
}
