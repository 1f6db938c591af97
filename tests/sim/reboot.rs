//! Pods that never restart, and a power cut while they run.

use crate::manifests::{Document, File};
use crate::pressure::{begin, pass, pod, post, status};

#[test]
fn what_never_restarts_runs_again_after_a_power_cut_only_if_a_manifest_has_it() {
    let (mut run, registry) = begin(13);
    let file = |pod| File {
        good: Some(Document::Pod(pod)),
        broken: false,
    };
    let once = file(pod("once", 0, &["forever"], "Never"));
    run.manifests.files.insert("once.json".to_owned(), once);
    run.node.feed(&run.manifests);
    pass(&mut run, 5);
    for (name, policy) in [("job", "Never"), ("steady", "OnFailure")] {
        post(
            &mut run,
            &registry,
            name,
            pod(name, 0, &["forever"], policy),
        );
    }
    pass(&mut run, 30);
    for name in ["once-sim", "job", "steady"] {
        assert_eq!(status(&registry, name)["phase"], "Running", "{name}");
    }
    run.cut_power();
    run.start_agent();
    pass(&mut run, 60);
    let job = status(&registry, "job");
    assert_eq!(job["phase"], "Failed", "{job}");
    let container = &job["containerStatuses"][0];
    let ended = &container["state"]["terminated"];
    assert_eq!(ended["reason"], "ContainerStatusUnknown", "{job}");
    assert_eq!(container["restartCount"], 0, "{job}");
    for name in ["once-sim", "steady"] {
        let back = status(&registry, name);
        assert_eq!(back["phase"], "Running", "{name}: {back}");
        let container = &back["containerStatuses"][0];
        assert_eq!(container["restartCount"], 1, "{name}: {back}");
        let last = &container["lastState"]["terminated"];
        assert_eq!(last["exitCode"], 137, "{name}: {back}");
    }
}

#[test]
fn what_never_restarts_does_not_run_again_without_its_logs() {
    let (mut run, registry) = begin(15);
    pass(&mut run, 5);
    let job = pod("job", 0, &["forever"], "Never");
    post(&mut run, &registry, "job", job);
    pass(&mut run, 30);
    assert_eq!(status(&registry, "job")["phase"], "Running");
    run.host.files.borrow_mut().flush_all();
    run.cut_power();
    let logs = std::mem::take(&mut run.host.kernel.borrow_mut().logs);
    for (uid, _) in logs.keys() {
        run.host.judge.logs_removed(uid);
    }
    run.start_agent();
    pass(&mut run, 60);
    let job = status(&registry, "job");
    assert_eq!(job["phase"], "Failed", "{job}");
}
