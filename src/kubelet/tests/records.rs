//! Files of the release before and of the one after.

use futures_lite::future::block_on;
use serde_json::json;

use crate::kubelet::records::Records;
use crate::os::disk::SystemDisk;
use crate::world::Uid;

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
