//! Keys of Secrets: rotation, power cuts while it is under way, and the switch that turns it off.

use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;

use super::fixture::{Node, Seeded, options, secret, start_with, wait};
use crate::object::{Kind, Source};
use crate::registry::{Deletion, Encryption, FaultyDisk, KeyFile, Place, Precondition};

/// The key file with these lines; a number is a key.
fn file(lines: &[&str]) -> KeyFile {
    use std::os::unix::fs::PermissionsExt;
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("keys");
    let line = |text: &&str| match text.parse::<u8>() {
        Ok(byte) => BASE64.encode([byte; 32]),
        Err(_) => (*text).to_owned(),
    };
    let lines: Vec<String> = lines.iter().map(line).collect();
    std::fs::write(&path, lines.join("\n")).expect("written");
    let owner_only = std::fs::Permissions::from_mode(0o600);
    std::fs::set_permissions(&path, owner_only).expect("chmod");
    KeyFile::read(&path).expect("keys")
}

fn on(disk: &FaultyDisk, seed: u64, encryption: Encryption) -> Node {
    let (mut options, clock) = options(Place::Inline(Arc::new(disk.clone())), seed);
    options.encryption = encryption;
    start_with(options, clock)
}

/// Whether the disk holds the value of a secret, as text or in base64.
fn shows(disk: &FaultyDisk, marker: &str) -> bool {
    let platter = disk.platter();
    let encoded = BASE64.encode(marker);
    // The last characters of base64 depend on what follows.
    let forms = [marker, &encoded[..encoded.len() - 4]];
    let holds = |form: &&str| platter.windows(form.len()).any(|at| at == form.as_bytes());
    forms.iter().any(holds)
}

fn marker(n: u64) -> String {
    format!("marker-{n:04}-of-a-secret")
}

fn values(node: &Node) -> Vec<String> {
    let (secrets, _) = node.reader.list(Kind::Secret, None);
    let value = |one: &Arc<crate::object::Object>| one.body["data"]["value"].to_string();
    secrets.iter().map(value).collect()
}

fn fill(node: &Node, count: u64) {
    for n in 0..count {
        let (key, body) = secret(&format!("s{n:02}"), &marker(n));
        wait(node.registry.create(Source::Api, key, body)).expect("stored");
    }
}

#[test]
fn the_first_key_seals_anew_and_the_old_one_may_go() {
    let disk = FaultyDisk::new();
    let node = on(&disk, 1, Encryption::Own);
    fill(&node, 20);
    let expected = values(&node);
    // Own key, then a file, then the file's second key in front, then without the first.
    for lines in [&["1"][..], &["2", "1"], &["2"]] {
        disk.cut_power(|| false);
        let node = on(&disk, 2, Encryption::File(file(lines)));
        assert_eq!(node.report.messages, Vec::<String>::new(), "{lines:?}");
        assert_eq!(values(&node), expected, "{lines:?}");
        let moved = if lines == ["2"] { 0 } else { 20 };
        assert_eq!(wait(node.registry.reseal()), Ok(moved), "{lines:?}");
        assert_eq!(wait(node.registry.reseal()), Ok(0));
    }
    disk.cut_power(|| false);
    let node = on(&disk, 3, Encryption::File(file(&["1"])));
    assert!(
        values(&node).is_empty(),
        "sealed with a key that is not there"
    );
    assert_eq!(node.report.messages.len(), 20, "each is named");
    disk.cut_power(|| false);
    let node = on(&disk, 4, Encryption::File(file(&["2"])));
    assert_eq!(values(&node), expected, "and nothing was lost by it");
}

#[test]
fn a_rotation_while_the_node_runs_catches_writes_on_their_way() {
    let disk = FaultyDisk::new();
    let node = on(&disk, 1, Encryption::File(file(&["1"])));
    fill(&node, 3);
    assert_eq!(
        node.registry.use_keys(file(&["1", "2"])),
        0,
        "seals as before"
    );
    assert_eq!(node.registry.use_keys(file(&["2", "1"])), 3);
    let (key, body) = secret("s01", "changed meanwhile");
    let any = Precondition::default();
    wait(node.registry.update(Source::Api, key, body, any)).expect("stored");
    let (key, _) = secret("s02", "");
    wait(node.registry.delete(Source::Api, key, Deletion::default())).expect("gone");
    wait(node.registry.reseal()).expect("sealed anew");
    let expected = values(&node);
    drop(node);
    disk.cut_power(|| false);
    let node = on(&disk, 2, Encryption::File(file(&["2"])));
    assert_eq!((values(&node), expected.len()), (expected, 2));
}

#[test]
fn a_power_cut_during_a_rotation_loses_nothing_and_shows_nothing() {
    const SEEDS: u64 = 25;
    let mut broken_off = 0;
    for seed in 0..SEEDS {
        let disk = FaultyDisk::new();
        let dice = Seeded::new(seed);
        let node = on(&disk, seed, Encryption::Own);
        fill(&node, 20);
        let expected = values(&node);
        drop(node);
        disk.cut_power(|| false);
        let mut lines = vec!["1"];
        for boot in 0..4 {
            let node = on(&disk, seed + boot, Encryption::File(file(&lines)));
            assert_eq!(values(&node), expected, "seed {seed}, boot {boot}");
            // Some of the commits reach the disk; then it is full, then there is no power.
            disk.fill_up_after(1 + dice.next() % 8);
            let rotated = wait(node.registry.reseal());
            disk.fail(None);
            if rotated.is_ok() {
                // All are under the first key: the others may go.
                let next = ["2", "3", "4", "5"][boot as usize];
                lines = vec![next, lines[0]];
            } else {
                broken_off += 1;
            }
            disk.cut_power(|| dice.next() & 1 == 0);
        }
        for n in 0..20 {
            assert!(!shows(&disk, &marker(n)), "seed {seed}");
        }
    }
    assert!((SEEDS / 2..SEEDS * 4).contains(&broken_off), "{broken_off}");
}

#[test]
fn encryption_is_turned_off_with_a_warning_and_on_without_a_trace() {
    let disk = FaultyDisk::new();
    fill(&on(&disk, 1, Encryption::Own), 9);
    disk.cut_power(|| false);
    assert!(!shows(&disk, &marker(8)));

    let node = on(&disk, 2, Encryption::Off);
    let warned = node
        .report
        .messages
        .iter()
        .any(|text| text.contains("in clear"));
    assert!(warned, "{:?}", node.report);
    assert_eq!(wait(node.registry.reseal()), Ok(9));
    let expected = values(&node);
    let (key, _) = secret("s03", "");
    wait(node.registry.delete(Source::Api, key, Deletion::default())).expect("gone");
    drop(node);
    disk.cut_power(|| false);
    assert!(shows(&disk, &marker(8)), "the test can see it");

    let node = on(&disk, 3, Encryption::File(file(&["1"])));
    assert_eq!(values(&node).len(), expected.len() - 1);
    // The disk is full when the file is to be written anew: later, then.
    disk.fail(Some(std::io::ErrorKind::StorageFull));
    wait(node.registry.reseal()).expect_err("a full disk");
    disk.fail(None);
    wait(node.registry.reseal()).expect("sealed");
    for n in 0..9 {
        assert!(!shows(&disk, &marker(n)), "secret {n} in a free page");
    }
    let below = node.reader.version();
    drop(node);
    disk.cut_power(|| false);
    let node = on(&disk, 4, Encryption::File(file(&["identity", "1"])));
    assert_eq!(values(&node).len(), 8);
    assert!(
        node.reader.version() > below,
        "the mark of versions is kept"
    );
    assert_eq!(
        wait(node.registry.reseal()),
        Ok(8),
        "identity writes in clear"
    );
}

#[test]
fn a_power_cut_while_clear_secrets_are_sealed_leaves_no_trace_in_the_end() {
    let mut finished = 0;
    for syncs in 1..20 {
        let disk = FaultyDisk::new();
        fill(&on(&disk, 1, Encryption::Off), 20);
        disk.cut_power(|| false);
        assert!(shows(&disk, &marker(0)) && shows(&disk, &marker(19)));
        let node = on(&disk, 2, Encryption::Own);
        disk.fill_up_after(syncs);
        finished += u32::from(wait(node.registry.reseal()).is_ok());
        drop(node);
        disk.cut_power(|| syncs % 2 == 0);
        disk.fail(None);
        let node = on(&disk, 3, Encryption::Own);
        wait(node.registry.reseal()).expect("made up for");
        assert_eq!(values(&node).len(), 20);
        for n in 0..20 {
            assert!(!shows(&disk, &marker(n)), "secret {n} after {syncs} syncs");
        }
    }
    assert!((1..19).contains(&finished), "{finished} of 19 went through");
}
