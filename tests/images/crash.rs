//! An import killed before any of its changes to the file system never leaves half an image.
//!
//! The import runs in a child (this test binary again) under strace, which kills it on the Nth
//! call of one kind; every N until the import succeeds.
#![allow(clippy::disallowed_methods)]

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use lowtide::runtime::images::Depth;
use lowtide::world::Images;

use crate::image::Recipe;
use crate::world::{leftovers, open, options, run, temporary};

const DIRECTORY: &str = "LOWTIDE_TEST_IMPORT_IN";
/// No kind of call is made so often by this import, the start of the test binary included.
const CALLS_MAX: usize = 300;

/// What changes the file system, as this machine's C library calls it.
const CALLS: [&str; 11] = [
    "mkdir",
    "mkdirat",
    "fchmodat",
    "openat",
    "fchownat",
    "utimensat",
    "syncfs",
    "rename",
    "fsync",
    "unlink",
    "link",
];

/// The child: does nothing unless it is told where.
#[test]
fn import_as_a_child() {
    let Ok(directory) = std::env::var(DIRECTORY) else {
        return;
    };
    let directory = Path::new(&directory);
    run(async {
        let store = open(options(directory)).await;
        store.import(directory.join("a.tar"), None).await.unwrap();
    });
}

fn import_killed_at(directory: &Path, call: &str, number: usize) -> bool {
    let status = Command::new("strace")
        .args([
            "-f",
            "-qq",
            "-o",
            "/dev/null",
            "-e",
            &format!("trace={call}"),
        ])
        .args(["-e", &format!("inject={call}:signal=KILL:when={number}")])
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", "crash::import_as_a_child", "--test-threads=1"])
        .env(DIRECTORY, directory)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .unwrap();
    status.success()
}

#[test]
fn a_kill_between_any_two_steps_leaves_no_half_image() {
    if Command::new("strace").arg("-V").output().is_err() {
        return eprintln!("skipped: no strace");
    }
    let recipe = Recipe::small("tide");
    let (mut kills, mut whole) = (0, 0);
    for call in CALLS {
        for number in 1..=CALLS_MAX {
            let directory = temporary();
            fs::write(
                directory.path().join("a.tar"),
                recipe.docker_archive(&["a:1"]),
            )
            .unwrap();
            let done = import_killed_at(directory.path(), call, number);
            check(directory.path(), &recipe);
            assert!(number < CALLS_MAX, "{call} is made more often than that");
            if done {
                whole += 1;
                break;
            }
            kills += 1;
        }
    }
    assert_eq!(
        whole,
        CALLS.len(),
        "every kind of call ends in a whole import"
    );
    assert!(kills > 20, "{kills} kills: strace did not work");
}

/// Whatever happened: the image is whole or not here, and a new import makes it whole.
fn check(directory: &Path, recipe: &Recipe) {
    let mut options = options(directory);
    options.boot_id = "next-boot".into();
    run(async {
        let store = open(options).await;
        assert!(
            leftovers(directory).is_empty(),
            "half-done work is removed at start"
        );
        if let Some(image) = store.find("a:1") {
            let layer = &store.layers(&image.id).unwrap()[0];
            assert_eq!(fs::read(layer.join("text")).unwrap(), b"tide");
        }
        store.import(directory.join("a.tar"), None).await.unwrap();
        assert_eq!(store.find("a:1").unwrap().id, recipe.id());
        assert!(store.verify(Depth::Content).await.unwrap().is_empty());
    });
}
