//! Files of the release before and of the one after.

use futures_lite::future::block_on;
use serde_json::json;

use crate::kubelet::records::Records;
use crate::os::disk::SystemDisk;
use crate::world::Uid;

#[test]
fn an_end_that_a_later_release_recorded_still_counts() {
    let directory = tempfile::tempdir().unwrap();
    let (root, run) = (directory.path().join("root"), directory.path().join("run"));
    let uid = Uid::new("u1").unwrap();
    let path = root.join("pods/u1/final.json");
    for place in [path.parent().unwrap(), &run] {
        std::fs::create_dir_all(place).unwrap();
    }
    let records = Records::new(std::rc::Rc::new(SystemDisk::open(&root, &run).unwrap()));
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
