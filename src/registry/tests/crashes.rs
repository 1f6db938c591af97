//! Power cuts at any moment: what was acknowledged is there afterwards, versions only rise.

use std::collections::BTreeMap;

use super::fixture::{Seeded, config, on, pod_key, stated, wait};
use crate::object::{Kind, Source};
use crate::registry::commit::VERSION_BLOCK;
use crate::registry::{Deletion, FaultyDisk, Health, Medium, Precondition, Registry};

const SEEDS: u64 = 1000;

#[test]
fn what_was_acknowledged_survives_a_power_cut() {
    for seed in 0..SEEDS {
        let disk = FaultyDisk::new();
        let dice = Seeded::new(seed);
        let mut expected: BTreeMap<String, String> = BTreeMap::new();
        let mut newest = 0;
        for boot in 0..3 {
            let node = on(&disk, seed * 10 + boot);
            assert_eq!(node.report.messages, Vec::<String>::new(), "seed {seed}");
            assert!(
                node.reader.version() >= newest,
                "seed {seed}: versions fell"
            );
            let (found, _) = node.reader.list(Kind::ConfigMap, None);
            let found: BTreeMap<String, String> = found
                .iter()
                .map(|o| {
                    let value = o.body["data"]["value"].as_str().expect("a text");
                    (o.key.name.clone(), value.to_owned())
                })
                .collect();
            assert_eq!(found, expected, "seed {seed}, boot {boot}");
            for _ in 0..dice.next() % 6 {
                act(&node.registry, &dice, &mut expected);
            }
            newest = node.reader.version();
            // A failing disk: nothing is acknowledged, nothing is half there.
            disk.fail(Some(std::io::ErrorKind::StorageFull));
            let (key, body) = config("refused", "x");
            wait(node.registry.create(Source::Api, key, body)).expect_err("a full disk");
            disk.fail(None);
            disk.cut_power(|| dice.next() & 1 == 0);
        }
    }
}

fn act(registry: &Registry, dice: &Seeded, expected: &mut BTreeMap<String, String>) {
    let name = format!("c{}", dice.next() % 3);
    let value = dice.next().to_string();
    let (key, body) = config(&name, &value);
    let known = expected.contains_key(&name);
    match (known, dice.next() % 3) {
        (false, _) => {
            wait(registry.create(Source::Api, key, body)).expect("created");
            expected.insert(name, value);
        }
        (true, 0) => {
            wait(registry.delete(Source::Api, key, Deletion::default())).expect("deleted");
            expected.remove(&name);
        }
        (true, _) => {
            let any = Precondition::default();
            wait(registry.update(Source::Api, key, body, any)).expect("updated");
            expected.insert(name, value);
        }
    }
}

#[test]
fn a_scribbled_store_never_stops_the_node() {
    for seed in 0..300 {
        let disk = FaultyDisk::new();
        let dice = Seeded::new(seed);
        let node = on(&disk, seed);
        for n in 0..5 {
            let (key, body) = config(&format!("c{n}"), "x");
            wait(node.registry.create(Source::Api, key, body)).expect("created");
        }
        drop(node);
        for _ in 0..=dice.next() % 8 {
            let offset = dice.next() as usize % disk.platter().len();
            disk.scribble(offset, &dice.next().to_le_bytes());
        }
        let node = on(&disk, seed + 1);
        let (key, body) = config("after", "x");
        wait(node.registry.create(Source::Api, key, body)).expect("stores again");
    }
}

/// What a card leaves that lies about flushes: pages of different times, pages of zeros, a short end.
/// redb must say so when it is opened, not panic over it later: a panic ends the node.
#[test]
fn a_store_of_mixed_old_and_new_pages_never_stops_the_node() {
    const PAGE_BYTES: usize = 4096;
    for seed in 0..200 {
        let (disk, dice) = (FaultyDisk::new(), Seeded::new(seed));
        let node = on(&disk, seed);
        let mut expected = BTreeMap::new();
        let mut images = vec![disk.platter()];
        for _ in 0..8 {
            act(&node.registry, &dice, &mut expected);
            images.push(disk.platter());
        }
        drop(node);
        // Mostly the last ones, as a card has it.
        let first = dice.next() as usize % (images.len() - 1);
        let images = &images[first..];
        let mut mixed = images[dice.next() as usize % images.len()].clone();
        for (number, page) in mixed.chunks_mut(PAGE_BYTES).enumerate() {
            let start = number * PAGE_BYTES;
            let source = &images[dice.next() as usize % images.len()];
            match source.get(start..start + page.len()) {
                Some(other) if dice.next() % 16 > 0 => page.copy_from_slice(other),
                _ => page.fill(0),
            }
        }
        if dice.next().is_multiple_of(8) {
            mixed.truncate(dice.next() as usize % mixed.len());
        }
        disk.replace(&mixed).expect("replaced");
        for boot in 1..3 {
            let node = on(&disk, seed + boot);
            let (key, body) = config(&format!("after-{boot}"), "x");
            wait(node.registry.create(Source::Api, key, body)).expect("stores again");
            for name in ["c0", "c1", "c2"] {
                let (key, _) = config(name, "");
                if node.reader.contains(&key) {
                    wait(node.registry.delete(Source::Api, key, Deletion::default()))
                        .expect("gone");
                }
            }
            let said = !node.report.messages.is_empty();
            assert_eq!(
                said,
                boot == 1 && !disk.aside().is_empty(),
                "seed {seed}: {:?}",
                node.report
            );
        }
    }
}

#[test]
fn versions_that_were_only_published_are_not_given_out_again() {
    for failing in [None, Some(std::io::ErrorKind::StorageFull)] {
        let disk = FaultyDisk::new();
        let node = on(&disk, 1);
        wait(
            node.registry
                .replace(Source::File, vec![stated("web", "u1", "i")]),
        )
        .expect("taken");
        disk.fail(failing);
        for n in 0..VERSION_BLOCK + 10 {
            let status = serde_json::json!({ "n": n });
            node.registry.update_status(&pod_key("web"), "u1", status);
        }
        disk.fail(None);
        // The next scan, though unchanged, makes up for a reservation that failed.
        wait(
            node.registry
                .replace(Source::File, vec![stated("web", "u1", "i")]),
        )
        .expect("taken");
        assert_eq!(node.registry.health(), Health::Ok);
        let newest = node.reader.version();
        disk.cut_power(|| false);
        let node = on(&disk, 2);
        assert!(node.reader.version() > newest, "{failing:?}");
    }
}
