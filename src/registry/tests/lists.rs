//! Complete lists of sources.

use serde_json::json;

use super::fixture::{at, config, in_memory, on, pod, pod_key, stated, wait};
use crate::object::{Key, Kind, Object, Problem, Provenance, Source, Standing};
use crate::registry::{ChangeType, FaultyDisk, FieldLines, Incoming, Replaced};

pub fn broken(file: &str, message: &str) -> Problem {
    Problem {
        at: Provenance {
            file: file.to_owned(),
            line: 3,
        },
        reason: "InvalidManifest".to_owned(),
        message: message.to_owned(),
    }
}

fn replace(node: &super::fixture::Node, list: Vec<Incoming>) -> Replaced {
    wait(node.registry.replace(Source::File, list)).expect("taken")
}

#[test]
fn absence_removes_only_what_the_same_source_owns() {
    let node = in_memory();
    let (key, body) = config("mine", "x");
    wait(node.registry.create(Source::Api, key.clone(), body)).expect("created");
    replace(&node, vec![stated("web", "u1", "i")]);
    assert!(node.registry.has_listed(Source::File));
    assert!(!node.registry.has_listed(Source::Http));
    let replaced = replace(&node, Vec::new());
    assert_eq!(replaced.removed, [pod_key("web")]);
    assert!(node.reader.get(&key).is_some());
    let web = node.reader.get(&pod_key("web")).expect("still stopping");
    assert_eq!(web.deletion_grace_s(), Some(30));
    // Asked for once only.
    assert!(replace(&node, Vec::new()).removed.is_empty());
    node.registry.finish_deletion(&pod_key("web"), "other");
    assert!(node.reader.get(&pod_key("web")).is_some());
    node.registry.finish_deletion(&pod_key("web"), "u1");
    assert!(node.reader.get(&pod_key("web")).is_none());
}

#[test]
fn a_successor_with_another_uid_replaces_the_pod_at_once() {
    let node = in_memory();
    replace(&node, vec![stated("web", "u1", "i:1")]);
    let mut cursor = node
        .reader
        .watch(Kind::Pod, node.reader.version())
        .expect("within history");
    replace(&node, vec![stated("web", "u2", "i:2")]);
    let changes = cursor.ready().expect("within history").expect("changes");
    let seen: Vec<_> = changes
        .iter()
        .map(|c| (c.change.clone(), c.object.uid().to_owned()))
        .collect();
    let expected = [(ChangeType::Deleted, "u1"), (ChangeType::Added, "u2")];
    assert_eq!(seen, expected.map(|(c, uid)| (c, uid.to_owned())));
}

#[test]
fn a_uid_is_of_one_pod() {
    let node = in_memory();
    let list = vec![stated("first", "u1", "i"), stated("second", "u1", "i")];
    let replaced = replace(&node, list.clone());
    assert_eq!(replaced.added, [pod_key("first")]);
    let (key, problem) = &replaced.problems[0];
    assert_eq!(
        (key, &*problem.reason),
        (&pod_key("second"), "DuplicateManifest")
    );
    assert!(node.reader.get(&pod_key("second")).is_none());
    assert!(replace(&node, list).problems.is_empty(), "told twice");
    // Under another name it waits until the one before is gone.
    let renamed = vec![stated("third", "u1", "i")];
    let replaced = replace(&node, renamed.clone());
    assert_eq!(replaced.problems[0].0, pod_key("third"));
    let third = node.reader.get(&pod_key("third")).expect("shown");
    assert!(matches!(third.standing, Standing::Rejected(_)));
    node.registry.finish_deletion(&pod_key("first"), "u1");
    assert_eq!(replace(&node, renamed).added, [pod_key("third")]);
}

#[test]
fn a_file_that_comes_back_while_its_pod_stops_is_run_again_afterwards() {
    let node = in_memory();
    let list = vec![stated("web", "u1", "i")];
    replace(&node, list.clone());
    node.registry
        .update_status(&pod_key("web"), "u1", json!({"phase": "Running"}));
    replace(&node, Vec::new());
    replace(&node, list);
    let stopping = node.reader.get(&pod_key("web")).expect("there");
    assert!(stopping.is_deleting());
    node.registry.finish_deletion(&pod_key("web"), "u1");
    let back = node.reader.get(&pod_key("web")).expect("back");
    assert!(!back.is_deleting());
    assert_eq!(back.uid(), "u1");
    assert!(
        back.body
            .get("status")
            .is_none_or(|s| s["phase"] != "Running")
    );
}

#[test]
fn a_file_that_comes_back_and_goes_again_stays_gone() {
    let node = in_memory();
    let list = vec![stated("web", "u1", "i")];
    replace(&node, list.clone());
    replace(&node, Vec::new());
    replace(&node, list);
    replace(&node, Vec::new());
    node.registry.finish_deletion(&pod_key("web"), "u1");
    assert!(node.reader.get(&pod_key("web")).is_none());
}

#[test]
fn a_broken_file_keeps_its_last_good_pod_and_says_so_once() {
    let node = in_memory();
    replace(&node, vec![stated("web", "u1", "i")]);
    let problem = broken("/m/web.yaml", "no good");
    let list = vec![Incoming::Broken(problem.clone())];
    let replaced = replace(&node, list.clone());
    assert_eq!(replaced.problems, [(pod_key("web"), problem.clone())]);
    assert!(replaced.removed.is_empty());
    let web = node.reader.get(&pod_key("web")).expect("kept");
    assert_eq!(web.standing, Standing::Stale(problem));
    assert!(replace(&node, list).problems.is_empty(), "told twice");
    // Repaired with the same content: fresh again.
    replace(&node, vec![stated("web", "u1", "i")]);
    let web = node.reader.get(&pod_key("web")).expect("kept");
    assert_eq!(web.standing, Standing::Accepted);
}

#[test]
fn a_file_that_never_was_good_is_shown_as_a_pod_until_it_is_repaired() {
    let node = in_memory();
    let problem = broken("/m/My_App.v2.yaml", "no good");
    let replaced = replace(&node, vec![Incoming::Broken(problem.clone())]);
    let key = pod_key("my-app-v2-pi-4");
    assert_eq!(replaced.problems, [(key.clone(), problem.clone())]);
    let shown = node.reader.get(&key).expect("shown");
    assert_eq!(shown.standing, Standing::Rejected(problem));
    assert_eq!(shown.body["status"]["phase"], "Pending");
    assert_eq!(shown.body["status"]["reason"], "InvalidManifest");
    assert_eq!(
        shown.body["status"]["message"],
        "/m/My_App.v2.yaml:3: no good"
    );
    let version = node.reader.version();
    let again = broken("/m/My_App.v2.yaml", "no good");
    replace(&node, vec![Incoming::Broken(again)]);
    assert_eq!(node.reader.version(), version, "unchanged costs nothing");
    let other = broken("/m/My_App.v2.yaml", "still no good");
    replace(&node, vec![Incoming::Broken(other)]);
    let shown = node.reader.get(&key).expect("shown");
    assert_eq!(
        shown.body["status"]["message"],
        "/m/My_App.v2.yaml:3: still no good"
    );
    assert!(replace(&node, Vec::new()).removed.is_empty());
    assert!(node.reader.get(&key).is_none());
}

#[test]
fn of_two_with_one_name_the_first_place_wins_and_both_are_named() {
    let node = in_memory();
    let entry = |file: &str, line, uid: &str| Incoming::Object {
        key: pod_key("web"),
        provenance: at(file, line),
        body: pod("web", uid, "i"),
        lines: FieldLines::new(),
    };
    let list = vec![entry("/m/b.yaml", 1, "u2"), entry("/m/a.yaml", 7, "u1")];
    let replaced = replace(&node, list);
    assert_eq!(node.reader.get(&pod_key("web")).expect("one").uid(), "u1");
    let (key, problem) = &replaced.problems[0];
    assert_eq!(key, &pod_key("web"));
    assert_eq!(problem.reason, "DuplicateManifest");
    let text = problem.to_string();
    assert!(
        text.contains("/m/b.yaml:1") && text.contains("/m/a.yaml:7"),
        "{text}"
    );
}

#[test]
fn a_copy_takes_nothing_over_while_the_file_of_what_runs_is_there() {
    let disk = FaultyDisk::new();
    let mut node = on(&disk, 1);
    let entry = |file: &str, line, uid: &str| Incoming::Object {
        key: pod_key("web"),
        provenance: at(file, line),
        body: pod("web", uid, "i"),
        lines: FieldLines::new(),
    };
    let copy = || entry("/m/web-bak.yaml", 1, "u2");
    let both = |line| vec![copy(), entry("/m/web.yaml", line, "u1")];
    let runs = |node: &super::fixture::Node| {
        let web = node.reader.get(&pod_key("web")).expect("there");
        (web.uid().to_owned(), web.is_deleting())
    };
    replace(&node, vec![entry("/m/web.yaml", 1, "u1")]);
    let replaced = replace(&node, both(1));
    assert_eq!(runs(&node), ("u1".to_owned(), false));
    let told = &replaced.problems[0].1;
    assert!(
        told.to_string().starts_with("/m/web-bak.yaml:1: "),
        "{told}"
    );
    // An edit still counts, and nothing is over by being told once.
    let replaced = replace(&node, both(4));
    assert_eq!(runs(&node), ("u1".to_owned(), false));
    assert_eq!(replaced.over.len(), replaced.problems.len());
    assert!(replace(&node, both(4)).over.is_empty());
    // Nor does one take over where the file does not parse, or the agent was started anew.
    wait(node.registry.flush());
    node = on(&disk, 2);
    let unread = Incoming::Broken(broken("/m/web.yaml", "no good"));
    replace(&node, vec![copy(), unread]);
    assert_eq!(runs(&node), ("u1".to_owned(), false));
    let web = node.reader.get(&pod_key("web")).expect("there");
    assert!(matches!(web.standing, Standing::Stale(_)));
    replace(&node, both(1));
    assert_eq!(runs(&node), ("u1".to_owned(), false));
    let replaced = replace(&node, vec![copy()]);
    assert_eq!(runs(&node), ("u2".to_owned(), false));
    assert_eq!(replaced.over[0].1.reason, "DuplicateManifest");
}

#[test]
fn a_name_of_another_source_is_reported_and_left_alone() {
    let node = in_memory();
    let created = node
        .registry
        .create(Source::Api, pod_key("web"), pod("web", "", "i"));
    let created = wait(created).expect("created");
    let replaced = replace(&node, vec![stated("web", "u1", "j")]);
    assert_eq!(replaced.problems[0].1.reason, "OwnedByAnotherSource");
    let now = node.reader.get(&pod_key("web")).expect("there");
    assert_eq!(now.uid(), created.uid());
    assert_eq!(now.source, Source::Api);
}

#[test]
fn an_invalid_pod_is_stale_if_it_was_good_before_and_rejected_if_not() {
    let node = in_memory();
    replace(&node, vec![stated("web", "u1", "i")]);
    let invalid = |name: &str| Incoming::Object {
        key: pod_key(name),
        provenance: at(&format!("/m/{name}.yaml"), 1),
        body: json!({"metadata": {"name": name}, "spec": {"containers": []}}),
        lines: FieldLines::from([("spec.containers".to_owned(), 7)]),
    };
    let replaced = replace(&node, vec![invalid("web"), invalid("db")]);
    assert_eq!(replaced.problems.len(), 2);
    let standing = |name: &str| {
        node.reader
            .get(&pod_key(name))
            .expect(name)
            .standing
            .clone()
    };
    assert!(matches!(standing("web"), Standing::Stale(_)));
    let Standing::Rejected(problem) = standing("db") else {
        panic!("not rejected");
    };
    assert_eq!(
        problem.to_string(),
        "/m/db.yaml:7: spec.containers: Required value"
    );
    let web = node.reader.get(&pod_key("web")).expect("kept");
    assert_eq!(web.body["spec"]["containers"][0]["image"], "i");
}

#[test]
fn a_uid_that_is_no_safe_path_is_refused() {
    let node = in_memory();
    let replaced = replace(&node, vec![stated("web", "../../etc", "i")]);
    let text = &replaced.problems[0].1.message;
    assert!(text.starts_with("metadata.uid: Invalid value"), "{text}");
}

#[test]
fn moving_down_a_line_or_being_read_again_is_no_change() {
    let node = in_memory();
    let entry = |line: u32, seen: &str| {
        let mut body = pod("web", "u1", "i");
        body["metadata"]["annotations"] = json!({"kubernetes.io/config.seen": seen});
        vec![Incoming::Object {
            key: pod_key("web"),
            provenance: at("/m/web.yaml", line),
            body,
            lines: FieldLines::new(),
        }]
    };
    replace(&node, entry(1, "2026-01-01T00:00:00Z"));
    let version = node.reader.version();
    replace(&node, entry(4, "2026-01-01T00:00:20Z"));
    assert_eq!(node.reader.version(), version);
    let web: std::sync::Arc<Object> = node.reader.get(&pod_key("web")).expect("there");
    assert_eq!(web.provenance, at("/m/web.yaml", 4));
}

#[test]
fn a_config_map_keeps_its_uid_over_an_update() {
    let node = in_memory();
    let entry = |value: &str| {
        let (key, body) = config("c", value);
        vec![Incoming::Object {
            key,
            provenance: at("/m/c.yaml", 1),
            body,
            lines: FieldLines::new(),
        }]
    };
    replace(&node, entry("1"));
    let key = Key::local(Kind::ConfigMap, "default", "c");
    let before = node.reader.get(&key).expect("there");
    let replaced = replace(&node, entry("2"));
    assert_eq!(replaced.changed.first(), Some(&key));
    let after = node.reader.get(&key).expect("there");
    assert_eq!(before.uid(), after.uid());
    assert_eq!(after.body["data"]["value"], "2");
}
