use serde_json::{Value, json};

use super::status::status;
use super::*;
use crate::admission::testing::{Objects, create};

fn quota(hard: Value) -> Value {
    json!({"spec": {"hard": hard}})
}

fn pod(cpu: &str) -> Value {
    json!({"spec": {"containers": [{"name": "c", "resources": {"requests": {"cpu": cpu}}}]}})
}

fn view(hard: Value, pods: &[(&str, &str)]) -> Objects {
    let mut objects = vec![(Kind::ResourceQuota, "a", "q", quota(hard))];
    objects.extend(
        pods.iter()
            .map(|(name, cpu)| (Kind::Pod, "a", *name, pod(cpu))),
    );
    Objects::of(objects)
}

#[test]
fn what_is_over_the_quota_is_refused_with_all_three_sums() {
    let view = view(
        json!({"pods": "2", "requests.cpu": "3"}),
        &[("p1", "1500m")],
    );
    let plugin = ResourceQuota::default();
    let write = create(&view, Kind::Pod, "a", "new");
    assert_eq!(
        write.refused(&plugin, pod("2")),
        "exceeded quota: q, requested: requests.cpu=2, used: requests.cpu=1500m, limited: \
         requests.cpu=3"
    );
    let silent = json!({"spec": {"containers": [{"name": "c"}]}});
    assert_eq!(
        write.refused(&plugin, silent),
        "failed quota: q: must specify requests.cpu for: c"
    );
    assert!(write.admit(&plugin, pod("1500m")).is_ok());
    assert!(
        create(&view, Kind::Pod, "b", "new")
            .admit(&plugin, pod("9"))
            .is_ok()
    );
}

#[test]
fn two_writes_do_not_share_one_free_place() {
    let view = view(json!({"pods": "1"}), &[]);
    let plugin = ResourceQuota::default();
    let first = create(&view, Kind::Pod, "a", "p1");
    assert!(first.admit(&plugin, pod("1")).is_ok());
    view.flying.borrow_mut().push(first.key.clone());
    let second = create(&view, Kind::Pod, "a", "p2");
    assert_eq!(
        second.refused(&plugin, pod("1")),
        "exceeded quota: q, requested: pods=1, used: pods=1, limited: pods=1"
    );
    // The first one did not reach the disk: its place is free again.
    view.flying.borrow_mut().clear();
    assert!(second.admit(&plugin, pod("1")).is_ok());
}

#[test]
fn scopes_and_ended_pods_are_left_out() {
    let mut scoped = quota(json!({"pods": "0"}));
    scoped["spec"]["scopes"] = json!(["Terminating"]);
    let view = Objects::of(vec![(Kind::ResourceQuota, "a", "q", scoped)]);
    let plugin = ResourceQuota::default();
    let write = create(&view, Kind::Pod, "a", "p");
    assert!(write.admit(&plugin, pod("1")).is_ok());
    let mut ending = pod("1");
    ending["spec"]["activeDeadlineSeconds"] = json!(5);
    assert!(write.admit(&plugin, ending).is_err());
    let mut over = pod("1");
    over["status"] = json!({"phase": "Succeeded"});
    assert_eq!(usage(Kind::Pod, &over).len(), 1);
}

#[test]
fn the_status_counts_what_is_there() {
    let hard = json!({"pods": "5", "cpu": "4", "services": "1", "count/secrets": "3"});
    let view = view(hard.clone(), &[("p1", "1500m"), ("p2", "500m")]);
    let used = json!({"pods": "2", "cpu": "2", "services": "0", "count/secrets": "0"});
    let told = status(&view, "a", &quota(hard.clone()));
    assert_eq!(told, json!({"hard": hard, "used": used}));
}
