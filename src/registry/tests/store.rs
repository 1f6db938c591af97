//! The store's file: sealed, set aside, unwritable, shared by mistake; and quiet when idle.

use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::Duration;

use serde_json::json;

use super::fixture::{config, on, options, pod_key, secret, start, stated, wait};
use crate::object::{Kind, Source};
use crate::registry::store::other_release;
use crate::registry::{
    Aside, Error, FaultyDisk, Health, Incoming, OpenError, Place, Precondition, Registry,
};

pub(super) fn root(directory: &Path) -> Place {
    Place::Root {
        directory: directory.to_owned(),
        key_credential: None,
    }
}

#[test]
fn a_secret_is_read_back_and_its_value_is_not_in_the_file() {
    let directory = tempfile::tempdir().expect("a directory");
    let (key, body) = secret("wifi", "correct-horse-battery");
    let (plain, plain_body) = config("plain", "visible-marker");
    {
        let node = start(root(directory.path()), 1);
        wait(node.registry.create(Source::Api, key.clone(), body)).expect("stored");
        wait(node.registry.create(Source::Api, plain, plain_body)).expect("stored");
    }
    let node = reopened(directory.path());
    let kept = node.reader.get(&key).expect("the secret is back");
    // base64 of the value
    assert_eq!(kept.body["data"]["value"], "Y29ycmVjdC1ob3JzZS1iYXR0ZXJ5");
    let file = fs::read(directory.path().join("store.redb")).expect("the store");
    let holds = |text: &str| file.windows(text.len()).any(|at| at == text.as_bytes());
    assert!(holds("visible-marker"), "the test looks at the right file");
    assert!(!holds("correct-horse"));
    assert!(!holds("Y29ycmVjdC1ob3JzZS1"));
    for name in ["store.redb", "store.key"] {
        let mode = fs::metadata(directory.path().join(name)).expect(name);
        assert_eq!(mode.permissions().mode() & 0o777, 0o600, "{name}");
    }
}

/// The store's thread of the node before may still be closing the file.
pub(super) fn reopened(directory: &Path) -> super::fixture::Node {
    for _ in 0..500 {
        let (options, clock) = options(root(directory), 2);
        match wait(Registry::open(options)) {
            Ok((registry, report)) => {
                return super::fixture::Node {
                    reader: registry.reader(),
                    registry,
                    report,
                    clock,
                };
            }
            Err(OpenError::InUse(_)) => {
                #[allow(clippy::disallowed_methods)] // a poll with a deadline
                std::thread::sleep(Duration::from_millis(10));
            }
            Err(other) => panic!("{other}"),
        }
    }
    panic!("the store stayed in use for 5 s");
}

#[test]
fn two_processes_never_share_a_store() {
    let directory = tempfile::tempdir().expect("a directory");
    let _node = start(root(directory.path()), 1);
    let (options, _) = options(root(directory.path()), 2);
    let refused = wait(Registry::open(options)).err();
    assert!(matches!(refused, Some(OpenError::InUse(_))), "{refused:?}");
}

#[test]
fn a_corrupt_store_is_set_aside_and_the_node_starts_empty() {
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("store.redb");
    for n in 1..=4 {
        // A file of its own: the node before may still be closing the other.
        let _ = fs::remove_file(&file);
        fs::write(&file, format!("not a store, {n}")).expect("written");
        let node = reopened(directory.path());
        let report = &node.report;
        assert_eq!(report.objects, 0);
        let slot = n.min(3);
        let expected = format!("store.redb.corrupt-{slot}");
        assert!(report.messages[0].contains(&expected), "{report:?}");
        assert_eq!(report.messages[0].contains("over an earlier"), n == 4);
        assert_eq!(node.registry.health(), Health::Ok);
        let kept = fs::read_to_string(directory.path().join(expected)).expect("kept");
        assert_eq!(kept, format!("not a store, {n}"));
    }
}

#[test]
fn a_store_that_was_half_made_when_the_power_was_cut_is_made_anew_and_not_called_corrupt() {
    let directory = tempfile::tempdir().expect("a directory");
    let half = directory.path().join("store.redb.tmp");
    fs::write(&half, [0; 5000]).expect("written");
    let node = reopened(directory.path());
    assert_eq!(node.report.messages, Vec::<String>::new());
    let (key, body) = config("c", "x");
    wait(node.registry.create(Source::Api, key.clone(), body)).expect("stored");
    drop(node);
    assert!(!half.exists());
    assert!(reopened(directory.path()).reader.contains(&key));
}

#[test]
fn a_store_that_is_too_new_is_set_aside_whole() {
    for readable_by in [None, Some(2)] {
        let disk = FaultyDisk::new();
        other_release::write(&disk, 2, readable_by, &[]);
        let node = on(&disk, 1);
        assert_eq!(disk.aside(), [Aside::Newer]);
        let said = &node.report.messages[0];
        assert!(said.contains("format 2"), "{said}");
    }
}

/// As after going back one release: what the later one added is optional, and stays.
#[test]
fn a_newer_store_that_says_so_is_read_and_written_and_keeps_what_is_unknown() {
    let disk = FaultyDisk::new();
    drop(on(&disk, 1));
    let object = json!({
        "source": "Api",
        "provenance": null,
        "addedLater": {"a": 1},
        "body": {
            "apiVersion": "v1", "kind": "ConfigMap",
            "metadata": {"name": "c", "namespace": "default", "uid": "u", "addedLater": 1},
            "data": {"value": "x"},
        },
    });
    let clear = [&[0][..], object.to_string().as_bytes()].concat();
    let records: [(&str, &[u8]); 4] = [
        ("local/ConfigMap/default/c", &clear),
        ("local/ConfigMap/default/other-bytes", &[7, 1, 2]),
        ("local/KindOfLater/default/c", &clear),
        ("elsewhere/ConfigMap/default/c", &clear),
    ];
    other_release::write(&disk, 2, Some(1), &records);

    let node = on(&disk, 2);
    assert!(disk.aside().is_empty(), "{:?}", node.report);
    assert_eq!(node.report.objects, 1);
    assert_eq!(node.report.messages.len(), 3, "{:?}", node.report);
    let (key, _) = config("c", "");
    let kept = node.reader.get(&key).expect("read");
    assert_eq!(kept.body["metadata"]["addedLater"], 1);
    let (mine, body) = config("mine", "y");
    wait(node.registry.create(Source::Api, mine, body)).expect("stored");
    drop(node);

    let (format, readable_by, names) = other_release::read(&disk);
    assert_eq!((format, readable_by), (2, 1), "the newer one's marks stay");
    let all = records.iter().map(|(name, _)| (*name).to_owned());
    let mut all: Vec<String> = all
        .chain(["local/ConfigMap/default/mine".to_owned()])
        .collect();
    all.sort();
    assert_eq!(names, all);
}

/// As after an upgrade: the first write says what the store holds from then on.
#[test]
fn a_store_of_the_release_before_is_read_and_marked() {
    let disk = FaultyDisk::new();
    let (key, body) = config("c", "x");
    let node = on(&disk, 1);
    wait(node.registry.create(Source::Api, key.clone(), body)).expect("stored");
    drop(node);
    other_release::write(&disk, 0, None, &[]);
    let node = on(&disk, 2);
    assert!(disk.aside().is_empty() && node.reader.get(&key).is_some());
    drop(node);
    let (format, readable_by, _) = other_release::read(&disk);
    assert_eq!((format, readable_by), (1, 1));
}

#[test]
fn versions_rise_over_a_lost_store() {
    let disk = FaultyDisk::new();
    let node = on(&disk, 1);
    let before = node.reader.version();
    drop(node);
    disk.scribble(0, &[0; 64]);
    let node = on(&disk, 2);
    assert_eq!(disk.aside(), [Aside::Corrupt]);
    assert!(node.reader.version() >= before);
}

#[test]
fn a_full_disk_refuses_the_api_and_lets_manifests_run() {
    let disk = FaultyDisk::new();
    let node = on(&disk, 1);
    disk.fail(Some(ErrorKind::StorageFull));
    let (key, body) = config("c", "x");
    let refused = wait(node.registry.create(Source::Api, key.clone(), body.clone()));
    assert!(matches!(refused, Err(Error::Store(_))), "{refused:?}");
    assert!(node.reader.get(&key).is_none(), "refused and visible");
    let list = vec![stated("web", "u1", "img:1")];
    wait(node.registry.replace(Source::File, list.clone())).expect("taken");
    assert!(node.reader.get(&pod_key("web")).is_some());
    assert!(!node.registry.is_stored(&pod_key("web")));
    assert!(matches!(node.registry.health(), Health::Degraded(_)));

    // The next scan, unchanged, brings the store up to date.
    disk.fail(None);
    wait(node.registry.replace(Source::File, list)).expect("taken");
    assert_eq!(node.registry.health(), Health::Ok);
    assert!(node.registry.is_stored(&pod_key("web")));
    wait(node.registry.create(Source::Api, key, body)).expect("stored");
    disk.cut_power(|| false);
    let node = on(&disk, 2);
    assert!(node.reader.get(&pod_key("web")).is_some(), "stored behind");
}

#[test]
fn a_read_only_disk_still_shows_what_is_stored() {
    let disk = FaultyDisk::new();
    let node = on(&disk, 1);
    let (key, body) = config("c", "x");
    wait(node.registry.create(Source::Api, key.clone(), body)).expect("stored");
    let before = node.reader.version();
    drop(node);
    disk.fail(Some(ErrorKind::ReadOnlyFilesystem));
    let node = on(&disk, 2);
    assert!(node.reader.get(&key).is_some());
    assert!(matches!(node.registry.health(), Health::Degraded(_)));
    assert!(node.reader.version() >= before);
    wait(
        node.registry
            .replace(Source::File, vec![stated("web", "u1", "i")]),
    )
    .expect("taken");
    assert!(node.reader.get(&pod_key("web")).is_some());
}

#[test]
fn an_idle_node_writes_nothing() {
    let disk = FaultyDisk::new();
    let node = on(&disk, 1);
    let list = vec![stated("web", "u1", "img:1"), stated("db", "u2", "img:1")];
    wait(node.registry.replace(Source::File, list.clone())).expect("taken");
    let (syncs, version) = (disk.syncs(), node.reader.version());
    for _ in 0..20 {
        let replaced = wait(node.registry.replace(Source::File, list.clone())).expect("taken");
        assert!(replaced.changed.is_empty() && replaced.added.is_empty());
    }
    assert_eq!(disk.syncs(), syncs);
    assert_eq!(node.reader.version(), version);
    let status = serde_json::json!({"phase": "Running"});
    node.registry.update_status(&pod_key("web"), "u1", status);
    assert_eq!(disk.syncs(), syncs, "a status is not stored");
}

#[test]
fn a_durable_create_costs_one_flush() {
    let disk = FaultyDisk::new();
    let node = on(&disk, 1);
    let create = |name: String| {
        let (key, body) = config(&name, "v");
        node.registry.create(Source::Api, key, body)
    };
    wait(create("warm".to_owned())).expect("stored");
    let before = disk.syncs();
    for index in 0..20 {
        wait(create(format!("one-{index}"))).expect("stored");
    }
    assert_eq!(disk.syncs() - before, 20);
}

#[test]
fn a_lost_key_leaves_out_the_secret_and_says_so() {
    let directory = tempfile::tempdir().expect("a directory");
    let (key, body) = secret("wifi", "v");
    let node = start(root(directory.path()), 1);
    wait(node.registry.create(Source::Api, key.clone(), body)).expect("stored");
    drop(node);
    fs::remove_file(directory.path().join("store.key")).expect("removed");
    let node = reopened(directory.path());
    assert!(node.reader.get(&key).is_none());
    assert!(
        node.report.messages[0].contains("another key"),
        "{:?}",
        node.report
    );
}

#[test]
fn writes_that_nobody_waits_for_any_more_still_happen_once() {
    let directory = tempfile::tempdir().expect("a directory");
    let node = start(root(directory.path()), 1);
    let (key, body) = config("c", "1");
    // Polled once, then dropped: on its way.
    let creating = node.registry.create(Source::Api, key.clone(), body.clone());
    wait(futures_lite::future::poll_once(creating));
    // The same key waits its turn and then sees the outcome.
    let again = wait(node.registry.create(Source::Api, key.clone(), body));
    assert_eq!(again, Err(Error::AlreadyExists(key.clone())));
    let (_, body) = config("c", "2");
    let updated = wait(
        node.registry
            .update(Source::Api, key, body, Precondition::default()),
    );
    assert_eq!(updated.expect("updated").body["data"]["value"], "2");
}

#[test]
fn a_broken_list_after_a_restart_keeps_the_last_good_pod() {
    let disk = FaultyDisk::new();
    let node = on(&disk, 1);
    wait(
        node.registry
            .replace(Source::File, vec![stated("web", "u1", "i")]),
    )
    .expect("taken");
    drop(node);
    disk.cut_power(|| false);
    let node = on(&disk, 2);
    let broken = super::lists::broken("/m/web.yaml", "mapping values are not allowed");
    wait(
        node.registry
            .replace(Source::File, vec![Incoming::Broken(broken)]),
    )
    .expect("taken");
    let (pods, _) = node.reader.list(Kind::Pod, None);
    assert_eq!(pods.len(), 1);
    assert!(!pods[0].is_deleting());
}

#[test]
fn a_first_start_on_a_full_disk_runs_manifests_and_heals() {
    let disk = FaultyDisk::new();
    disk.fail(Some(ErrorKind::StorageFull));
    let node = on(&disk, 1);
    assert!(matches!(node.registry.health(), Health::Degraded(_)));
    let list = vec![stated("web", "u1", "i")];
    wait(node.registry.replace(Source::File, list.clone())).expect("taken");
    assert!(node.reader.get(&pod_key("web")).is_some());
    disk.fail(None);
    wait(node.registry.replace(Source::File, list)).expect("taken");
    assert_eq!(node.registry.health(), Health::Ok);
    disk.cut_power(|| false);
    assert!(on(&disk, 2).reader.get(&pod_key("web")).is_some());
}
