use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

use futures_lite::future::block_on;
use jiff::Timestamp;

use super::{Decoding, FileSource};
use crate::manifest::directory::{Content, Directory, FileText, Listing, ManifestFiles};
use crate::manifest::switch_off;
use crate::manifest::testing::{StillClock, memory_registry};
use crate::object::{Kind, Source, Standing};
use crate::registry::Registry;
use crate::world::LocalFuture;

/// What the next scan finds.
#[derive(Clone, Default)]
struct Fed(
    Rc<RefCell<BTreeMap<String, Content>>>,
    Rc<RefCell<Option<String>>>,
);

impl ManifestFiles for Fed {
    fn scan(&mut self) -> LocalFuture<'_, Result<Listing, String>> {
        let fed = self.0.borrow();
        let files = fed.iter().map(|(path, content)| FileText {
            path: path.clone(),
            content: content.clone(),
        });
        let listing = Listing {
            files: files.collect(),
            ..Listing::default()
        };
        let result = self.1.borrow().clone().map_or(Ok(listing), Err);
        Box::pin(async move { result })
    }

    fn changed(&mut self) -> LocalFuture<'_, ()> {
        Box::pin(std::future::pending())
    }
}

struct Node {
    fed: Fed,
    source: FileSource<Fed>,
    registry: Registry,
    clock: Rc<StillClock>,
}

impl Node {
    fn new() -> Node {
        let fed = Fed::default();
        let clock = Rc::new(StillClock::default());
        Node {
            source: FileSource::new(fed.clone(), "Pi", Duration::from_secs(20), Decoding::Here),
            fed,
            registry: memory_registry(clock.clone()),
            clock,
        }
    }

    fn put(&self, path: &str, text: &str) {
        let content = Content::Read(text.as_bytes().to_vec());
        self.fed.0.borrow_mut().insert(path.to_owned(), content);
    }

    fn turn(&mut self) {
        block_on(self.source.turn(&self.registry, &*self.clock));
    }

    /// Name and standing of what is not on its way out.
    fn pods(&self) -> Vec<(String, &'static str)> {
        let (pods, _) = self.registry.reader().list(Kind::Pod, None);
        pods.iter()
            .filter(|pod| !pod.is_deleting())
            .map(|pod| {
                let standing = match pod.standing {
                    Standing::Accepted => "accepted",
                    Standing::Stale(_) => "stale",
                    Standing::Rejected(_) => "rejected",
                };
                (pod.key.name.clone(), standing)
            })
            .collect()
    }
}

fn pod(name: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}}}\nspec: {{containers: [{{name: c, image: busybox}}]}}\n"
    )
}

fn accepted(names: &[&str]) -> Vec<(String, &'static str)> {
    names
        .iter()
        .map(|name| ((*name).to_owned(), "accepted"))
        .collect()
}

#[test]
fn pods_come_and_go_with_their_files() {
    let mut node = Node::new();
    node.put("/m/a", &pod("a"));
    node.put("/m/b", &format!("{}---\n{}", pod("b"), pod("c")));
    node.turn();
    assert_eq!(node.pods(), accepted(&["a-pi", "b-pi", "c-pi"]));
    node.fed.0.borrow_mut().remove("/m/b");
    node.turn();
    assert_eq!(node.pods(), accepted(&["a-pi"]));
}

#[test]
fn an_unreadable_directory_removes_nothing() {
    let mut node = Node::new();
    node.put("/m/a", &pod("a"));
    node.turn();
    *node.fed.1.borrow_mut() = Some("read /m: EIO".to_owned());
    node.fed.0.borrow_mut().clear();
    node.turn();
    assert_eq!(node.pods(), accepted(&["a-pi"]));
    *node.fed.1.borrow_mut() = None;
    node.turn();
    assert_eq!(node.pods(), []);
}

#[test]
fn a_file_that_stops_parsing_or_is_refused_keeps_its_pod() {
    let mut node = Node::new();
    node.put("/m/a", &pod("a"));
    node.turn();
    for broken in [
        Content::Read(b"a: [".to_vec()),
        Content::Refused("mode".to_owned()),
    ] {
        node.fed.0.borrow_mut().insert("/m/a".to_owned(), broken);
        node.turn();
        assert_eq!(node.pods(), [("a-pi".to_owned(), "stale")]);
    }
    node.put("/m/a", &pod("a"));
    node.turn();
    assert_eq!(node.pods(), accepted(&["a-pi"]));
}

#[test]
fn a_file_that_becomes_empty_keeps_its_pod_and_one_of_comments_ends_it() {
    let mut node = Node::new();
    node.put("/m/a", "");
    node.turn();
    assert_eq!(node.pods(), [], "nothing was before");
    for blank in ["", " \n\t\n"] {
        node.put("/m/a", &pod("a"));
        node.turn();
        node.put("/m/a", blank);
        node.turn();
        assert_eq!(node.pods(), [("a-pi".to_owned(), "stale")]);
        node.source = FileSource::new(
            node.fed.clone(),
            "Pi",
            Duration::from_secs(20),
            Decoding::Here,
        );
        node.turn();
        let same = Content::Same;
        node.fed.0.borrow_mut().insert("/m/a".to_owned(), same);
        node.turn();
        assert_eq!(node.pods(), [("a-pi".to_owned(), "stale")]);
        let (pods, _) = node.registry.reader().list(Kind::Pod, None);
        let Standing::Stale(problem) = &pods[0].standing else {
            panic!("not stale");
        };
        let told = "/m/a:1: the file is empty: remove it to end its pods";
        assert_eq!(problem.to_string(), told);
    }
    node.put("/m/a", "# kind: Pod\n");
    node.turn();
    assert_eq!(node.pods(), []);
    node.put("/m/a", "");
    node.turn();
    assert_eq!(node.pods(), [], "its pod is on its way out");
}

#[test]
fn a_source_that_is_switched_off_leaves_nothing_behind() {
    let mut node = Node::new();
    node.put("/m/a", &pod("a"));
    node.turn();
    block_on(switch_off(Source::Http, &node.registry));
    assert_eq!(node.pods(), accepted(&["a-pi"]));
    block_on(switch_off(Source::File, &node.registry));
    assert_eq!(node.pods(), []);
}

#[test]
fn an_unchanged_file_changes_nothing_not_even_when_it_was_seen() {
    let mut node = Node::new();
    node.put("/m/a", &pod("a"));
    node.turn();
    let version = node.registry.reader().version();
    node.clock
        .wall
        .set(Timestamp::from_second(2_000_000_000).expect("in range"));
    node.turn();
    // An agent that starts anew has parsed nothing yet.
    node.source = FileSource::new(
        node.fed.clone(),
        "Pi",
        Duration::from_secs(20),
        Decoding::Here,
    );
    let text = node.fed.0.borrow()["/m/a"].clone();
    let written = |node: &Node, content| node.fed.0.borrow_mut().insert("/m/a".to_owned(), content);
    // It is being written at that moment: no list is better than one without it.
    written(&node, Content::Same);
    node.turn();
    written(&node, text);
    node.turn();
    written(&node, Content::Same);
    node.turn();
    assert_eq!(node.registry.reader().version(), version);
    assert_eq!(node.pods(), accepted(&["a-pi"]));
}

#[test]
fn a_file_that_is_still_being_written_is_no_pod_yet() {
    let mut node = Node::new();
    node.fed
        .0
        .borrow_mut()
        .insert("/m/a".to_owned(), Content::Same);
    node.turn();
    assert_eq!(node.pods(), []);
}

#[test]
fn a_file_that_is_written_during_the_first_scan_keeps_no_other_from_starting() {
    let mut node = Node::new();
    let same = |node: &Node, path: &str| {
        let mut fed = node.fed.0.borrow_mut();
        fed.insert(path.to_owned(), Content::Same);
    };
    same(&node, "/m/a");
    node.put("/m/b", &pod("b"));
    node.turn();
    assert_eq!(node.pods(), [], "no list without the pods of a");
    same(&node, "/m/b");
    node.turn();
    assert!(!node.registry.has_listed(Source::File));
    node.put("/m/a", &pod("a"));
    node.turn();
    assert_eq!(node.pods(), accepted(&["a-pi", "b-pi"]));
    // Of a new one nothing runs that its absence could end.
    same(&node, "/m/c");
    node.put("/m/d", &pod("d"));
    node.turn();
    assert_eq!(node.pods(), accepted(&["a-pi", "b-pi", "d-pi"]));
}

#[test]
fn a_file_that_is_written_after_it_was_refused_keeps_its_pod() {
    let mut node = Node::new();
    node.put("/m/a", &pod("a"));
    node.put("/m/b", &pod("b"));
    node.turn();
    for content in [Content::Refused("mode".to_owned()), Content::Same] {
        node.fed.0.borrow_mut().insert("/m/a".to_owned(), content);
        node.turn();
        let kept = [
            ("a-pi".to_owned(), "stale"),
            ("b-pi".to_owned(), "accepted"),
        ];
        assert_eq!(node.pods(), kept);
    }
    node.put("/m/a", &pod("a"));
    node.turn();
    assert_eq!(node.pods(), accepted(&["a-pi", "b-pi"]));
}

#[test]
fn config_maps_and_secrets_lie_beside_pods() {
    let mut node = Node::new();
    node.put(
        "/m/a",
        "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: c}\ndata: {a: b}\n---\napiVersion: v1\nkind: Secret\nmetadata: {name: s}\nstringData: {a: b}\n",
    );
    node.turn();
    let reader = node.registry.reader();
    for (kind, name) in [(Kind::ConfigMap, "c"), (Kind::Secret, "s")] {
        let (objects, _) = reader.list(kind, Some("default"));
        assert_eq!(objects[0].key.name, name);
        assert_eq!(objects[0].standing, Standing::Accepted);
    }
}

#[test]
fn a_renamed_manifest_reaches_the_registry_without_any_timer() {
    let directory = tempfile::tempdir().expect("temporary directory");
    let clock = Rc::new(StillClock::default());
    let registry = memory_registry(clock.clone());
    let files = Directory::new(directory.path().to_owned());
    let source = FileSource::new(files, "pi", Duration::from_secs(20), Decoding::Pooled);
    let appear = async {
        let version = registry.reader().version();
        let mut pods = registry.reader().watch(Kind::Pod, version).expect("new");
        // Listed once, so the watch on the directory stands and its first scan is over.
        while !registry.has_listed(Source::File) {
            futures_lite::future::yield_now().await;
        }
        let hidden = directory.path().join(".web");
        std::fs::write(&hidden, pod("web")).expect("write");
        std::fs::rename(hidden, directory.path().join("web.yaml")).expect("rename");
        let changes = pods.next().await.expect("a change");
        assert_eq!(changes[0].object.key.name, "web-pi");
    };
    #[allow(clippy::disallowed_methods)] // a deadline of the test's own
    let late = async {
        async_io::Timer::after(Duration::from_secs(10)).await;
        panic!("the pod did not appear");
    };
    let run = source.run(registry.clone(), clock);
    block_on(futures_lite::future::or(
        appear,
        futures_lite::future::or(run, late),
    ));
}

/// Events as `<object> <reason> <message> x<count>`.
fn events(node: &Node) -> Vec<String> {
    let (events, _) = node.registry.reader().list(Kind::Event, None);
    let text = |event: &std::sync::Arc<crate::object::Object>| {
        let body = &event.body;
        let word = |value: &serde_json::Value| value.as_str().unwrap_or_default().to_owned();
        format!(
            "{} {} {} x{}",
            word(&body["involvedObject"]["name"]),
            word(&body["reason"]),
            word(&body["message"]),
            body["count"]
        )
    };
    events.iter().map(text).collect()
}

#[test]
fn a_fault_is_told_with_the_line_of_its_field() {
    const HEAD: &str = "apiVersion: v1\nkind: Pod\nmetadata:\n  name: web\nspec:\n";
    let json = "{\n\"apiVersion\": \"v1\", \"kind\": \"Pod\",\n\"metadata\": {\"name\": \"web\"},\n\"spec\": {\n\"containers\": [\n{\"name\": \"c\",\n\"image\": \"\"}]}}\n";
    for (text, expected) in [
        (
            format!("{HEAD}  containers:\n  - name: c\n    ports: []\n    image: ''\n"),
            "9: spec.containers[0].image: Required value",
        ),
        (
            format!("{HEAD}  hostNetwork: true\n  containers:\n  - image: i\n    name: c\n  - name: d\n"),
            "10: spec.containers[1].image: Required value",
        ),
        (
            format!("{}---\n# another\n{HEAD}  containers: []\n", pod("other")),
            "12: spec.containers: Required value",
        ),
        (
            format!("{HEAD}  containers:\n  - name: c\n    image: 5\n"),
            "8: spec.containers[0].image: Invalid value",
        ),
        (
            format!("{HEAD}  containers:\n  - name: c\n  restartPolicy: Maybe\n"),
            "7: [spec.containers[0].image: Required value, spec.restartPolicy: Unsupported value: \
             \"Maybe\": supported values: \"Always\", \"OnFailure\", \"Never\" (line 8)]",
        ),
        (json.to_owned(), "7: spec.containers[0].image: Required value"),
        (
            "apiVersion: v1\nkind: Pod\nmetadata:\n  namespace: x\n".to_owned(),
            "3: metadata.name: Required value",
        ),
        (
            "apiVersion: v1\nkind: List\nitems:\n- apiVersion: v1\n  kind: Pod\n  metadata: {name: web}\n  spec:\n    containers: []\n"
                .to_owned(),
            "8: spec.containers: Required value",
        ),
    ] {
        let mut node = Node::new();
        node.put("/m/web.yaml", &text);
        node.turn();
        let (pods, _) = node.registry.reader().list(Kind::Pod, None);
        let rejected: Vec<String> = pods
            .iter()
            .filter_map(|pod| match &pod.standing {
                Standing::Rejected(problem) => Some(problem.to_string()),
                _ => None,
            })
            .collect();
        assert_eq!(rejected.len(), 1, "{text}");
        let expected = format!("/m/web.yaml:{expected}");
        assert!(rejected[0].starts_with(&expected), "{}\n{expected}", rejected[0]);
    }
}

#[test]
fn a_manifest_that_never_was_good_has_one_event_that_is_counted() {
    let mut node = Node::new();
    let bad = "apiVersion: v1\nkind: Pod\nmetadata: {name: web}\nspec:\n  containers: []\n";
    node.put("/m/file.yaml", bad);
    node.turn();
    node.turn();
    let told = "web-pi InvalidManifest /m/file.yaml:5: spec.containers: Required value";
    assert_eq!(events(&node), [format!("{told} x1")]);
    // Worse, and then as it was: the same event again.
    node.put("/m/file.yaml", "kind: [");
    node.turn();
    node.put("/m/file.yaml", bad);
    node.turn();
    let again: Vec<String> = events(&node);
    let about_web = again.iter().filter(|text| text.starts_with("web-pi "));
    assert_eq!(
        about_web.collect::<Vec<_>>(),
        [&format!("{told} x2")],
        "{again:?}"
    );
    let broken = "file-pi InvalidManifest /m/file.yaml:1: unclosed bracket '[' x1";
    assert_eq!(again.len(), 2, "{again:?}");
    assert!(again.iter().any(|text| text == broken), "{again:?}");
    // One that goes on as it was is the kubelet's to tell of.
    node.put("/m/file.yaml", &pod("web"));
    node.turn();
    node.put("/m/file.yaml", bad);
    node.turn();
    assert_eq!(node.pods(), [("web-pi".to_owned(), "stale")]);
    assert_eq!(events(&node), again);
}

#[test]
fn an_unknown_field_is_warned_of_at_its_line() {
    let mut node = Node::new();
    let text = format!("# web\n{}", pod("web")).replace("image: busybox", "image: i,\n imgae: j");
    node.put("/m/web.yaml", &text);
    node.turn();
    node.turn();
    assert_eq!(node.pods(), accepted(&["web-pi"]));
    let told = "web-pi UnknownField /m/web.yaml:6: unknown field \"spec.containers[0].imgae\" x1";
    assert_eq!(events(&node), [told]);
}

#[test]
fn an_unknown_field_is_named_beside_the_fault_that_it_causes() {
    let mut node = Node::new();
    let text = format!("# web\n{}", pod("web")).replace("image: busybox", "\n imgae: j");
    node.put("/m/web.yaml", &text);
    node.turn();
    let told = events(&node).concat();
    assert!(
        told.contains("spec.containers[0].image: Required value"),
        "{told}"
    );
    let unknown = "; unknown field \"spec.containers[0].imgae\" (line 6)";
    assert!(told.contains(unknown), "{told}");
}
