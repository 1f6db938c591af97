//! A store put back: what it undoes is told, and versions go on rising.

use std::fs;
use std::path::Path;

use super::fixture::{config, pod_key, secret, start, stated, wait};
use super::store::{reopened, root};
use crate::object::{Key, Kind, Source};
use crate::registry::rescue::{Unlike, outrun, written_since};
use crate::registry::store::{Directory, other_release};
use crate::registry::{Deletion, Incoming, Precondition};

fn key(name: &str) -> Key {
    Key::local(Kind::ConfigMap, "default", name)
}

fn keep(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("made");
    fs::copy(from.join("store.redb"), to.join("store.redb")).expect("copied");
}

/// The store's thread of a node that ended may still be closing the file.
fn await_closed(directory: &Path) {
    let file = fs::File::open(directory.join("store.redb")).expect("a store");
    file.lock().expect("locked");
}

#[test]
fn what_the_api_acknowledged_since_is_listed_and_nothing_else() {
    let directory = tempfile::tempdir().expect("a directory");
    let (now, kept) = (directory.path().join("now"), directory.path().join("kept"));
    {
        let node = start(root(&now), 1);
        for name in ["stays", "changes", "goes"] {
            let (key, body) = config(name, "1");
            wait(node.registry.create(Source::Api, key, body)).expect("stored");
        }
        let (key, body) = secret("wifi", "1");
        wait(node.registry.create(Source::Api, key, body)).expect("stored");
    }
    let version = {
        let node = reopened(&now);
        keep(&now, &kept);
        let (key_changed, _) = config("changes", "2");
        let current = node.reader.get(&key_changed).expect("there");
        let mut body = current.body.clone();
        body["data"]["value"] = "2".into();
        wait(
            node.registry
                .update(Source::Api, key_changed, body, Precondition::default()),
        )
        .expect("stored");
        let gone = wait(
            node.registry
                .delete(Source::Api, key("goes"), Deletion::default()),
        );
        gone.expect("deleted");
        let (key, body) = config("new", "1");
        wait(node.registry.create(Source::Api, key, body)).expect("stored");
        let (key, body) = secret("new", "1");
        wait(node.registry.create(Source::Api, key, body)).expect("stored");
        let list: Vec<Incoming> = vec![stated("web", "u", "i")];
        wait(node.registry.replace(Source::File, list)).expect("taken");
        wait(node.registry.flush());
        assert!(
            node.reader.get(&pod_key("web")).is_some(),
            "a manifest's pod"
        );
        node.reader.version()
    };
    await_closed(&now);
    assert_eq!(
        written_since(&kept, &now),
        Ok([
            "changed ConfigMap default/changes",
            "created ConfigMap default/new",
            "created Secret default/new",
            "deleted ConfigMap default/goes",
        ]
        .map(str::to_owned)
        .to_vec())
    );
    assert_eq!(written_since(&now, &now), Ok(Vec::new()));

    outrun(&kept, &now).expect("outrun");
    let node = reopened(&kept);
    assert!(node.reader.version() > version, "versions fell");
    assert!(node.reader.get(&key("goes")).is_some());
    assert!(node.reader.get(&key("new")).is_none());
}

#[test]
fn a_store_of_a_later_release_is_left_to_it_and_words_are_no_store() {
    let directory = tempfile::tempdir().expect("a directory");
    let (now, kept) = (directory.path().join("now"), directory.path().join("kept"));
    let before = start(root(&now), 1).reader.version();
    await_closed(&now);
    keep(&now, &kept);
    let medium = Directory {
        root: now.clone(),
        key_credential: None,
    };
    other_release::write(&medium, 2, Some(2), &[]);
    let unlike = written_since(&kept, &now).expect_err("too new");
    assert!(matches!(unlike, Unlike::Newer(_)), "{unlike:?}");
    let bytes = fs::read(now.join("store.redb")).expect("it is not set aside");
    outrun(&kept, &now).expect("outrun");
    assert!(reopened(&kept).reader.version() > before + (1 << 20));
    assert!(fs::read(now.join("store.redb")).expect("nor written") == bytes);

    fs::write(now.join("store.redb"), "words").expect("written");
    let unlike = written_since(&kept, &now).expect_err("words");
    assert!(matches!(unlike, Unlike::Failed(_)), "{unlike:?}");
    await_closed(&kept);
    outrun(&kept, &now).expect("outrun");
}
