//! Power cuts: a node works on a disk whose every write and flush is recorded; the record is cut off
//! at random moments, with what was not flushed lost, reordered or torn; what is left is looked at
//! with the program's own code, and by starting a node on it.
//!
//! ```text
//!   work ─► record ─► cut at entry i by model m ─► e2fsck, mount ─► look ─► now and then: a node
//! ```
//! `LOWTIDE_CUTS=n` makes so many cuts, `LOWTIDE_SEED=n` others. `LOWTIDE_CUTS_AGAIN=1` cuts the last
//! record once more instead of making one, `LOWTIDE_CUT=n` only there. `LOWTIDE_CUTS_MOUNT=nobarrier` is
//! a disk that is never told to flush: the test must fail then. A kill of the agent alone (`survival`)
//! proves nothing of this.

mod card;
mod claims;
mod judge;
mod recorded;
mod work;
mod writes;

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::Duration;

use serde_json::Value;

use self::claims::Claims;
use self::judge::Findings;
use self::recorded::Recorded;
use self::writes::{Dice, Disk, MODELS, Model};
use crate::host::{installed, run};
use crate::isolation::isolated;
use crate::registry::Fake;
use crate::support::{container, uid};

/// Cuts of one run, unless told otherwise.
const CUTS: usize = 100;
/// A node is started after one cut in so many.
const STARTS_EVERY: usize = 13;
const WORK: Duration = Duration::from_secs(6);
/// Nothing is to be durable by luck: the kernel's own commits are far apart.
const MOUNT: &str = "commit=60";
/// Holes of an image are multiples of this.
const CHUNK_BYTES: usize = 64 << 10;

/// What is told of cuts by one model.
#[derive(Default)]
struct Row {
    cuts: usize,
    started: usize,
    bad: usize,
    whole: usize,
    said: usize,
    lost: usize,
    silent: usize,
    no_file_system: usize,
}

/// Where cuts are looked at.
struct Bench<'a> {
    place: &'a Path,
    image: &'a Path,
    mount: &'a Path,
    registry: &'a Fake,
}

fn number(name: &str) -> Option<usize> {
    let text = std::env::var(name).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{name}={text}")))
}

#[test]
fn what_was_acknowledged_survives_power_cuts_and_a_lying_card_is_survived() {
    isolated(|place| {
        let needed = ["mke2fs", "e2fsck", "losetup"];
        if let Some(missing) = needed.iter().find(|program| !installed(program)) {
            return println!("skipped: {missing} is not installed");
        }
        if !Path::new("/dev/fuse").exists() {
            return println!("skipped: no /dev/fuse");
        }
        let directory = Path::new(env!("CARGO_TARGET_TMPDIR")).join("power-cuts");
        let registry = work::registry();
        if number("LOWTIDE_CUTS_AGAIN").is_none() {
            record(place, &directory, &registry);
        }
        let table = replay(place, &directory, &registry);
        println!("model        cuts nodes   bad whole  said  lost silent no-fs");
        for (model, row) in &table {
            println!(
                "{:<11} {:>5} {:>5} {:>5} {:>5} {:>5} {:>5} {:>6} {:>5}",
                format!("{model:?}"),
                row.cuts,
                row.started,
                row.bad,
                row.whole,
                row.said,
                row.lost,
                row.silent,
                row.no_file_system
            );
        }
        assert!(table.values().all(|row| row.bad == 0), "see above");
        // A card that lies is also the proof that this test can fail.
        let lying = table.get(&Model::Lying);
        let seen = lying.is_none_or(|lying| lying.lost > 0 || lying.cuts < 10);
        assert!(seen, "nothing is ever found lost");
    });
}

fn record(place: &Path, directory: &Path, registry: &Fake) {
    let _ = fs::remove_dir_all(directory);
    fs::create_dir_all(directory).unwrap();
    let options = std::env::var("LOWTIDE_CUTS_MOUNT");
    let disk = Recorded::start(directory, options.as_deref().unwrap_or(MOUNT));
    let node = work::node(place, "run", &disk.mount, registry);
    work::work(node, &disk, registry, WORK);
    disk.end(directory);
}

fn replay(place: &Path, directory: &Path, registry: &Fake) -> BTreeMap<Model, Row> {
    let (base, entries) = recorded::read(directory);
    let seed = number("LOWTIDE_SEED").unwrap_or(1) as u64;
    let mut dice = Dice::new(seed);
    let count = number("LOWTIDE_CUTS").unwrap_or(CUTS);
    let mut cuts: Vec<usize> = (0..count).map(|_| dice.below(entries.len())).collect();
    cuts.sort_unstable();
    let scratch = place.join("cuts");
    fs::create_dir(&scratch).unwrap();
    run(
        "mount",
        &["-t", "tmpfs", "cuts", &scratch.display().to_string()],
    );

    let bench = Bench {
        place,
        image: &scratch.join("image.raw"),
        mount: &directory.join("disk"),
        registry,
    };
    let mut disk = Disk::new(base);
    let (mut claims, mut table) = (Claims::default(), BTreeMap::<Model, Row>::new());
    let (mut told, only) = (0, number("LOWTIDE_CUT"));
    for (number, &cut) in cuts.iter().enumerate() {
        for entry in &entries[told..cut] {
            disk.tell(entry);
            claims.take_from(entry);
        }
        told = cut;
        if only.is_some_and(|only| only != number) {
            continue;
        }
        let mut dice = Dice::new(seed ^ ((number as u64) << 32));
        let model = MODELS[number % MODELS.len()];
        save(bench.image, &disk.cut(model, &mut dice));
        let row = table.entry(model).or_default();
        let complaints = bench.judge(model, &claims, row);
        if !complaints.is_empty() {
            row.bad += 1;
            println!(
                "cut {number}, at {cut} of {}, {model:?}: {complaints:#?}",
                entries.len()
            );
        } else if (number % STARTS_EVERY == 0 || only.is_some())
            && bench.start(number, model, &claims)
        {
            row.started += 1;
        }
    }
    table
}

/// Writes an image with holes where there are zeros.
fn save(path: &Path, image: &[u8]) {
    let _ = fs::remove_file(path);
    let file = File::create(path).unwrap();
    file.set_len(image.len() as u64).unwrap();
    let nothing = [0; CHUNK_BYTES];
    for (number, chunk) in image.chunks(CHUNK_BYTES).enumerate() {
        if *chunk != nothing[..chunk.len()] {
            file.write_all_at(chunk, (number * CHUNK_BYTES) as u64)
                .unwrap();
        }
    }
}

impl Bench<'_> {
    /// Looks at the image and gives what is wrong. Lies may cost what was acknowledged, never the node.
    fn judge(&self, model: Model, claims: &Claims, row: &mut Row) -> Vec<String> {
        row.cuts += 1;
        let findings = match judge::mount(self.image, self.mount) {
            Ok(()) => judge::look(self.mount, claims),
            Err(_) if model == Model::Lying => {
                row.no_file_system += 1;
                return Vec::new();
            }
            Err(text) => return vec![text],
        };
        judge::unmount(self.mount);
        let Findings {
            said,
            lost,
            silent,
            unusable,
        } = findings;
        row.whole += usize::from(said.is_empty() && lost.is_empty() && silent.is_empty());
        row.said += usize::from(!said.is_empty());
        row.lost += usize::from(!lost.is_empty());
        row.silent += usize::from(!silent.is_empty());
        match model {
            Model::Lying => unusable,
            _ => [said, lost, silent, unusable].concat(),
        }
    }

    /// Starts a node on the image: every pod that it should run runs, none that has ended does again.
    /// After a lie the operator gives it files once more. Returns whether there was a file system.
    fn start(&self, number: usize, model: Model, claims: &Claims) -> bool {
        if judge::mount(self.image, self.mount).is_err() {
            return false;
        }
        let run = format!("run-{number}");
        let mut node = work::node(self.place, &run, self.mount, self.registry);
        if model == Model::Lying {
            let _ = fs::remove_dir_all(&node.manifests);
            work::provide(&node);
        }
        fs::create_dir_all(&node.manifests).unwrap();
        fs::create_dir_all(&node.images).unwrap();
        node.start();
        for entry in fs::read_dir(&node.manifests).unwrap() {
            let file = entry.unwrap().file_name().into_string().unwrap();
            match file.trim_start_matches('.').trim_end_matches(".yaml") {
                // Not renamed yet: no manifest.
                _ if file.starts_with('.') => {}
                "restless" => drop(node.pod_until("restless", "ran", |pod| {
                    container(pod, "c")["lastState"]["terminated"].is_object()
                        || container(pod, "c")["state"]["terminated"].is_object()
                })),
                job if job.starts_with("job-") => {
                    let phase = |pod: &Value| pod["status"]["phase"] == "Succeeded";
                    let pod = node.pod_until(job, "succeeded", phase);
                    let known = claims.ended.get(job).filter(|_| model != Model::Lying);
                    if let Some((known, id)) = known {
                        assert_eq!((&uid(&pod), &work::container_id(&pod)), (known, id));
                    }
                }
                name => drop(node.up(name)),
            }
        }
        for pod in node.list("pods") {
            let name = pod["metadata"]["name"].as_str().unwrap();
            let (name, deleted) = (
                name.trim_end_matches("-n"),
                &pod["metadata"]["deletionTimestamp"],
            );
            if ["p1", "p2"].contains(&name) && deleted.is_null() {
                node.up(name);
            }
        }
        work::end(node);
        judge::unmount(self.mount);
        true
    }
}
