//! History, cursors and events.

use std::time::Duration;

use serde_json::json;

use super::fixture::{config, in_memory, options, pod_key, start_with, stated, wait};
use crate::object::{Key, Kind, Source};
use crate::registry::{ChangeType, EventRecord, Limits, Place, Precondition};

#[test]
fn a_watch_sees_each_change_once_in_order() {
    let node = in_memory();
    let (_, version) = node.reader.list(Kind::ConfigMap, None);
    let mut cursor = node.reader.watch(Kind::ConfigMap, version).expect("fresh");
    for n in 0..5 {
        let (key, body) = config("c", &n.to_string());
        match n {
            0 => wait(node.registry.create(Source::Api, key, body)),
            _ => {
                let any = Precondition::default();
                wait(node.registry.update(Source::Api, key, body, any))
            }
        }
        .expect("written");
    }
    let changes = wait(cursor.next()).expect("in history");
    let values: Vec<_> = changes
        .iter()
        .map(|c| c.object.body["data"]["value"].as_str().expect("text"))
        .collect();
    assert_eq!(values, ["0", "1", "2", "3", "4"]);
    assert_eq!(changes[0].change, ChangeType::Added);
    assert_eq!(changes[1].change, ChangeType::Modified);
    assert!(changes.is_sorted_by_key(|c| c.resource_version));
    assert_eq!(cursor.ready(), Ok(None));
}

#[test]
fn a_cursor_that_waits_is_woken_from_another_thread() {
    let node = in_memory();
    let reader = node.reader.clone();
    let version = reader.version();
    let mut cursor = reader.watch(Kind::Pod, version).expect("fresh");
    #[allow(clippy::disallowed_methods)] // a reader of another thread is the point
    let watching = std::thread::spawn(move || wait(cursor.next()).expect("in history").len());
    wait(
        node.registry
            .replace(Source::File, vec![stated("web", "u1", "i")]),
    )
    .expect("taken");
    assert_eq!(watching.join().expect("no panic"), 1);
}

#[test]
fn a_cursor_that_falls_behind_is_told_so_and_others_kinds_are_not_its_concern() {
    let (mut options, clock) = options(Place::Memory, 1);
    options.limits = Limits {
        history_changes: 4,
        ..Limits::default()
    };
    let node = start_with(options, clock);
    let version = node.reader.version();
    let mut pods = node.reader.watch(Kind::Pod, version).expect("fresh");
    let mut maps = node.reader.watch(Kind::ConfigMap, version).expect("fresh");
    for n in 0..10 {
        let (key, body) = config(&format!("c{n}"), "x");
        wait(node.registry.create(Source::Api, key, body)).expect("created");
    }
    assert!(maps.ready().is_err(), "ten changes, four kept");
    assert!(node.reader.watch(Kind::ConfigMap, version).is_err());
    assert_eq!(pods.ready(), Ok(None));
}

#[test]
fn a_version_from_before_the_start_is_gone() {
    let node = in_memory();
    let before = node.reader.version() - 1;
    assert!(node.reader.watch(Kind::Pod, before).is_err());
}

fn event(message: &str) -> EventRecord {
    EventRecord {
        involved: pod_key("web"),
        uid: "u1".to_owned(),
        field_path: Some("spec.containers{web}".to_owned()),
        warning: true,
        reason: "BackOff".to_owned(),
        message: message.to_owned(),
    }
}

#[test]
fn a_repeated_event_is_counted() {
    let node = in_memory();
    let fresh = [(); 3].map(|()| node.registry.record(event("Back-off restarting")));
    assert_eq!(fresh, [true, false, false]);
    assert!(node.registry.record(event("another")));
    let (events, _) = node.reader.list(Kind::Event, None);
    let mut counts: Vec<_> = events.iter().map(|e| e.body["count"].as_u64()).collect();
    counts.sort_unstable();
    assert_eq!(counts, [Some(1), Some(3)]);
    let body = &events[0].body;
    assert_eq!(
        body["source"],
        json!({"component": "kubelet", "host": "pi-4"})
    );
    assert_eq!(body["involvedObject"]["fieldPath"], "spec.containers{web}");
    assert_eq!(body["type"], "Warning");
    assert!(events[0].key.name.starts_with("web."));
}

#[test]
fn events_are_bounded_and_end_by_boot_time() {
    let (mut options, clock) = options(Place::Memory, 1);
    options.limits.events = 10;
    let node = start_with(options, clock);
    for n in 0..25 {
        let mut event = event("m");
        event.uid = n.to_string();
        node.registry.record(event);
    }
    assert_eq!(node.reader.list(Kind::Event, None).0.len(), 10);
    node.clock
        .boot
        .set(node.clock.boot.get() + Duration::from_secs(3601));
    node.registry.record(event("late"));
    assert_eq!(node.reader.list(Kind::Event, None).0.len(), 1);
}

#[test]
fn events_of_the_api_end_as_those_of_the_node_do() {
    let (mut options, clock) = options(Place::Memory, 1);
    options.limits.events = 10;
    let node = start_with(options, clock);
    let key = |n: u32| Key::local(Kind::Event, "default", &format!("e{n}"));
    let body = |n: u32, message: &str| {
        let metadata = json!({"name": key(n).name, "namespace": "default"});
        json!({"metadata": metadata, "involvedObject": {"name": "web"}, "message": message})
    };
    for n in 0..25 {
        wait(node.registry.create(Source::Api, key(n), body(n, "first"))).expect("made");
    }
    assert_eq!(node.reader.list(Kind::Event, None).0.len(), 10);
    let pass = |seconds| {
        let now = node.clock.boot.get();
        node.clock.boot.set(now + Duration::from_secs(seconds));
    };
    pass(3500);
    let any = Precondition::default();
    wait(
        node.registry
            .update(Source::Api, key(20), body(20, "again"), any),
    )
    .expect("updated");
    pass(101);
    node.registry.record(event("late"));
    let (left, _) = node.reader.list(Kind::Event, None);
    assert_eq!(left.len(), 2);
    assert!(node.reader.contains(&key(20)));
}

#[test]
fn an_object_of_which_too_much_is_said_leaves_room_for_others() {
    let node = in_memory();
    let fresh = (0..100).filter(|n| node.registry.record(event(&format!("{n} ms"))));
    assert_eq!(fresh.count(), 10);
    let (events, _) = node.reader.list(Kind::Event, None);
    let mut said: Vec<_> = events
        .iter()
        .map(|e| (e.body["count"].as_u64(), e.body["message"].as_str()))
        .collect();
    said.sort_unstable();
    assert_eq!(said.len(), 10, "{said:?}");
    // The share of 25: nine of them each by itself, the others as one.
    let all = (Some(16), Some("(combined from similar events): 24 ms"));
    assert_eq!(said[9], all);
    // Another reason is told all the same.
    let mut other = event("gone");
    other.reason = "FailedMount".to_owned();
    node.registry.record(other);
    let told = |reason: &str| {
        let events = node.reader.list(Kind::Event, None).0;
        events.iter().filter(|e| e.body["reason"] == reason).count()
    };
    assert_eq!((told("FailedMount"), told("BackOff")), (1, 10));
    // What was not told is counted by the next that is.
    node.clock
        .boot
        .set(node.clock.boot.get() + Duration::from_secs(300));
    node.registry.record(event("late"));
    let combined = node.reader.list(Kind::Event, None).0;
    let combined = combined
        .iter()
        .find(|e| e.body["message"] == "(combined from similar events): late");
    assert_eq!(combined.map(|e| &e.body["count"]), Some(&json!(92)));
    // Another object has its own.
    let mut other = event("0 ms");
    other.involved = pod_key("db");
    node.registry.record(other);
    assert_eq!(told("BackOff"), 11);
}
