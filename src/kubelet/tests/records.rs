//! Files of the release before and of the one after.

use std::time::Duration;

use futures_lite::future::block_on;
use jiff::Timestamp;
use serde_json::json;

use crate::kubelet::memory::Checkpoint;
use crate::kubelet::records::{self, Records};
use crate::object::{Key, Kind, Object, Source, Standing};
use crate::os::disk::SystemDisk;
use crate::world::{BootTime, Stamp, Uid, build_time};

/// What the directories need to take records of the pod `u1`.
fn places() -> (tempfile::TempDir, Records, Uid) {
    let directory = tempfile::tempdir().unwrap();
    let areas = ["root", "run"].map(|area| directory.path().join(area));
    for area in &areas {
        std::fs::create_dir_all(area.join("pods/u1")).unwrap();
    }
    let disk = SystemDisk::open(&areas[0], &areas[1]).unwrap();
    let records = Records::new(std::rc::Rc::new(disk));
    (directory, records, Uid::new("u1").unwrap())
}

fn ended(phase: &str) -> String {
    let phase = json!({"phase": phase, "reason": null, "message": null, "start": null});
    json!({"version": 1, "content": {"phase": phase, "exits": {}}}).to_string()
}

#[test]
fn an_end_that_root_did_not_take_is_newer_than_what_root_has() {
    let (directory, records, uid) = places();
    let phase = || {
        block_on(records.finals(&uid))
            .phase
            .map(|phase| phase.phase)
    };
    let exits = json!({"version": 1, "content": {"phase": null, "exits": {}}});
    let file = |area: &str| directory.path().join(area).join("pods/u1/final.json");
    std::fs::write(file("root"), exits.to_string()).unwrap();
    assert_eq!(phase(), None);
    std::fs::write(file("run"), ended("Failed")).unwrap();
    assert_eq!(phase().as_deref(), Some("Failed"));
    std::fs::remove_file(file("run")).unwrap();
    std::fs::write(file("root"), ended("Succeeded")).unwrap();
    assert_eq!(phase().as_deref(), Some("Succeeded"));
}

#[test]
fn after_a_reboot_it_is_known_since_when_a_pod_is_here() {
    let (directory, records, uid) = places();
    let now = |seconds: i64| Stamp {
        boot: BootTime::from_duration(Duration::from_secs(9)),
        wall: Timestamp::from_second(seconds).unwrap(),
    };
    let begun = build_time().as_second() + 100;
    let known = |start: i64, then: i64| {
        let start = now(start).wall.to_string();
        let key = Key::local(Kind::Pod, "default", "web");
        let pod = Object {
            key,
            source: Source::Api,
            provenance: None,
            standing: Standing::Accepted,
            resource_version: 1,
            body: json!({"metadata": {"uid": "u1"}, "status": {"startTime": start, "begun": ["c"]}}),
        };
        block_on(records.keep_pod(&uid, &pod)).unwrap();
        let checkpoint = block_on(records.checkpoint(&uid, now(then)));
        let start = checkpoint.start.expect("a start");
        assert_eq!(
            (start.boot, checkpoint.begun),
            (now(0).boot, vec!["c".to_owned()])
        );
        (start.wall.as_second(), checkpoint.before.as_secs())
    };
    assert_eq!(known(begun, begun + 50), (begun, 50));
    // Clocks that were wrong then, or are now.
    assert_eq!(known(7, begun), (7, 0));
    assert_eq!(known(begun, 7), (begun, 0));
    // In the same boot its own record counts.
    let kept = records::encode(&Checkpoint::default());
    block_on(records.keep_checkpoint(&uid, kept)).unwrap();
    assert_eq!(block_on(records.checkpoint(&uid, now(begun))).start, None);
    drop(directory);
}

#[test]
fn an_end_that_a_later_release_recorded_still_counts() {
    let (directory, records, uid) = places();
    let path = directory.path().join("root/pods/u1/final.json");
    for version in [1, 2] {
        let phase = json!({"phase": "Succeeded", "reason": null, "message": null, "start": null,
                           "later": {"more": 1}});
        let text = json!({"version": version, "later": [1], "content": {
            "phase": phase, "exits": {}, "later": true,
        }});
        std::fs::write(&path, text.to_string()).unwrap();
        let read = block_on(records.finals(&uid))
            .phase
            .expect("a finished pod");
        assert_eq!(read.phase, "Succeeded", "version {version}");
    }
}
