//! Decisions as a table; the chains of renames begun again at each of their links.

use std::os::unix::fs::symlink;

use tempfile::TempDir;

use super::*;
use crate::runtime::images::Digest;
use crate::upgrade::root;

fn record(phase: Phase) -> Record {
    Record {
        phase,
        from: "1.0.0".into(),
        to: "2.0.0".into(),
        target: PathBuf::from("/usr/local/bin/lowtide"),
        tries: 0,
        guarded: 0,
        sum: Some(Digest::of(b"new program")),
    }
}

#[test]
fn each_start_takes_the_step_that_is_due() {
    let trying = |tries, guarded| Record {
        tries,
        guarded,
        ..record(Phase::Trying)
    };
    let back = |why: &str| Act::Back(why.to_owned());
    let late = "it was not ready in time";
    let often = "it was started 3 times and never ready for long";
    let table = [
        (record(Phase::Prepared), Who::Agent, false, Act::Swap),
        (record(Phase::Prepared), Who::Guard, false, Act::Swap),
        (record(Phase::Prepared), Who::Command, true, Act::Drop),
        (record(Phase::Prepared), Who::Agent, true, Act::Drop),
        (trying(0, 0), Who::Agent, false, Act::Count),
        (trying(2, 9), Who::Agent, false, Act::Count),
        (trying(3, 0), Who::Agent, false, back(often)),
        (trying(9, 2), Who::Guard, false, Act::Count),
        (trying(0, 3), Who::Guard, false, back(often)),
        (trying(0, 0), Who::Agent, true, back(late)),
        (trying(0, 0), Who::Guard, true, back(late)),
        (trying(0, 0), Who::Command, true, back(late)),
        (
            record(Phase::Back("x".into())),
            Who::Agent,
            false,
            back("x"),
        ),
        (record(Phase::Back("x".into())), Who::Guard, true, back("x")),
    ];
    for (record, who, overdue, expected) in table {
        assert_eq!(
            decide(&record, who, overdue),
            expected,
            "{record:?} {who:?} {overdue}"
        );
    }
}

/// A node's directories with an upgrade in a phase: programs and stores are words here.
struct Fixture {
    directory: TempDir,
    files: Files,
    target: PathBuf,
}

impl Fixture {
    fn new(phase: Phase) -> Fixture {
        let directory = tempfile::tempdir().expect("directory");
        let files = Files::of(&directory.path().join("root"));
        fs::create_dir_all(files.directory()).expect("made");
        let target = directory.path().join("lowtide");
        let fixture = Fixture {
            directory,
            files,
            target,
        };
        fixture.write(&fixture.files.previous(), "old program");
        fixture.write(&store_in(&fixture.files.root), "old store");
        let record = Record {
            target: fixture.target.clone(),
            ..record(phase)
        };
        fixture.files.save(&record).expect("saved");
        fixture
    }

    fn prepared() -> Fixture {
        let fixture = Fixture::new(Phase::Prepared);
        fixture.write(&fixture.target, "old program");
        fixture.write(&staged(&fixture.target), "new program");
        fixture
    }

    /// The record says so already; the rename is missing.
    fn half_swapped() -> Fixture {
        let fixture = Fixture::prepared();
        let record = fixture.files.record().expect("read").expect("there");
        keep_store(&fixture.files).expect("kept");
        let trying = Record {
            phase: Phase::Trying,
            ..record
        };
        fixture.files.save(&trying).expect("saved");
        fixture
    }

    fn tried() -> Fixture {
        let fixture = Fixture::prepared();
        let next = advance(&fixture.files, Who::Agent).expect("swapped");
        assert_eq!(next, Next::Become(fixture.target.clone()));
        fixture.write(&store_in(&fixture.files.root), "new store");
        fixture
    }

    fn write(&self, path: &Path, text: &str) {
        fs::create_dir_all(path.parent().expect("a parent")).expect("made");
        fs::write(path, text).expect("written");
    }

    fn text(&self, path: &Path) -> String {
        fs::read_to_string(path).unwrap_or_else(|error| format!("{}: {error}", path.display()))
    }

    /// Everything below the directory, as `path: content`; reports and records by name only.
    fn all(&self) -> Vec<String> {
        let mut found = Vec::new();
        let mut left = vec![self.directory.path().to_owned()];
        while let Some(directory) = left.pop() {
            for entry in fs::read_dir(directory).expect("listed") {
                let path = entry.expect("entry").path();
                let name = path.strip_prefix(self.directory.path()).expect("below");
                match (path.is_dir(), path.extension().is_some_and(|e| e == "json")) {
                    (true, _) => left.push(path),
                    (false, true) => found.push(name.display().to_string()),
                    (false, false) => {
                        found.push(format!("{}: {}", name.display(), self.text(&path)))
                    }
                }
            }
        }
        found.sort();
        found
    }

    fn mark_overdue(&self) {
        self.write(&self.files.overdue(), "");
    }
}

const GONE_BACK: [&str; 5] = [
    "lowtide: old program",
    "root/store.redb: old store",
    "root/upgrade/rejected/lowtide: new program",
    "root/upgrade/rejected/report.json",
    "root/upgrade/rejected/store.redb: new store",
];

#[test]
fn the_new_program_takes_the_place_and_the_store_is_kept() {
    let fixture = Fixture::tried();
    assert_eq!(fixture.text(&fixture.target), "new program");
    assert_eq!(fixture.text(&store_in(&fixture.files.kept())), "old store");
    assert_eq!(
        advance(&fixture.files, Who::Agent).expect("counted"),
        Next::Go
    );
    let record = fixture.files.record().expect("read").expect("under way");
    assert_eq!((record.phase, record.tries), (Phase::Trying, 1));
    assert!(settle(&fixture.files.root).expect("settled"));
    assert_eq!(
        fixture.all(),
        ["lowtide: new program", "root/store.redb: new store"]
    );
    assert!(!settle(&fixture.files.root).expect("nothing is left to do"));
}

#[test]
fn a_swap_that_a_power_cut_stopped_is_finished() {
    let fixture = Fixture::half_swapped();
    let next = advance(&fixture.files, Who::Agent).expect("finished");
    assert_eq!(next, Next::Become(fixture.target.clone()));
    assert_eq!(fixture.text(&fixture.target), "new program");
    assert!(!staged(&fixture.target).exists());
}

#[test]
fn a_program_that_is_late_or_starts_too_often_goes_back_whole() {
    let late = Fixture::tried();
    late.mark_overdue();
    let next = advance(&late.files, Who::Command).expect("went back");
    assert_eq!(next, Next::Become(late.target.clone()));
    assert_eq!(late.all(), GONE_BACK);

    for who in [Who::Agent, Who::Guard] {
        let often = Fixture::tried();
        // The guard did not see the start that brought the program into its place.
        let seen = TRIES_MAX - u32::from(who == Who::Guard);
        for _ in 0..seen {
            assert_eq!(advance(&often.files, who).expect("counted"), Next::Go);
        }
        let next = advance(&often.files, who).expect("went back");
        assert_eq!(next, Next::Become(often.target.clone()));
        if who == Who::Agent {
            // The bad one has left its place; the store is for the other, which is started now.
            assert_eq!(often.text(&store_in(&often.files.root)), "new store");
            assert_eq!(often.text(&often.target), "old program");
            advance(&often.files, who).expect("went on");
        }
        assert_eq!(often.all(), GONE_BACK);
        let report = often.files.report().expect("read").expect("there");
        assert!(report.why.contains("3 times"), "{report:?}");
        // Words are no stores.
        assert!(report.unknown.is_some(), "{report:?}");
        assert_eq!(at_start(&often.files.root), Next::Go);
    }
}

#[test]
fn the_way_back_goes_on_from_every_link_of_it() {
    let links: [fn(&Fixture); 6] = [
        |_| (),
        |f| {
            let rejected = f.files.rejected();
            f.write(&rejected.join("lowtide"), "new program");
        },
        |f| f.write(&f.target, "old program"),
        |f| {
            let away = store_in(&f.files.rejected());
            fs::rename(store_in(&f.files.root), away).expect("moved");
        },
        |f| {
            let record = f.files.record().expect("read").expect("there");
            f.files
                .save_report(&report(&record, "late", Vec::new(), None))
                .expect("saved");
        },
        |f| {
            let kept = store_in(&f.files.kept());
            fs::rename(kept, store_in(&f.files.root)).expect("moved");
        },
    ];
    for cut in 0..links.len() {
        let fixture = Fixture::tried();
        let mut record = fixture.files.record().expect("read").expect("there");
        record.phase = Phase::Back("late".into());
        fixture.files.save(&record).expect("saved");
        links[..=cut].iter().for_each(|link| link(&fixture));
        let next = advance(&fixture.files, Who::Guard).expect("went on");
        assert_eq!(
            next,
            Next::Become(fixture.target.clone()),
            "after link {cut}"
        );
        assert_eq!(fixture.all(), GONE_BACK, "after link {cut}");
    }
}

#[test]
fn the_program_before_comes_back_without_room_for_a_copy() {
    let fixture = Fixture::tried();
    let number =
        |path: &Path| std::os::unix::fs::MetadataExt::ino(&fs::metadata(path).expect("there"));
    let programs = [number(&old(&fixture.target)), number(&fixture.target)];
    fixture.mark_overdue();
    advance(&fixture.files, Who::Guard).expect("went back");
    let rejected = fixture.files.rejected().join("lowtide");
    assert_eq!([number(&fixture.target), number(&rejected)], programs);
    assert_eq!(fixture.all(), GONE_BACK);
}

#[test]
fn without_hard_links_the_program_before_comes_back_as_a_copy() {
    let fixture = Fixture::tried();
    fs::remove_file(old(&fixture.target)).expect("removed");
    fixture.mark_overdue();
    advance(&fixture.files, Who::Command).expect("went back");
    assert_eq!(fixture.all(), GONE_BACK);
}

#[test]
fn a_program_that_cannot_use_the_store_goes_back_at_its_next_start() {
    let root = |fixture: &Fixture| fixture.files.root.clone();
    let fixture = Fixture::prepared();
    assert!(!reject(&root(&fixture), "x").expect("nothing is tried"));
    let fixture = Fixture::tried();
    assert!(reject(&root(&fixture), "it has format 9").expect("rejected"));
    for _ in 0..2 {
        advance(&fixture.files, Who::Agent).expect("went back");
    }
    assert_eq!(fixture.all(), GONE_BACK);
    let report = fixture.files.report().expect("read").expect("there");
    assert_eq!(report.why, "it has format 9");
}

#[test]
fn what_somebody_else_has_installed_meanwhile_stays() {
    for fixture in [Fixture::prepared(), Fixture::tried()] {
        fixture.write(&fixture.target, "third program");
        fixture.mark_overdue();
        let next = advance(&fixture.files, Who::Guard).expect("given up");
        assert_eq!(next, Next::Go);
        assert_eq!(fixture.text(&fixture.target), "third program");
        assert!(!staged(&fixture.target).exists());
        assert_eq!(fixture.files.record().expect("read"), None);
    }
}

#[test]
fn a_swap_that_could_not_be_is_not_done_and_keeps_the_store_of_its_own_time() {
    let fixture = Fixture::half_swapped();
    // The old program goes on for days, since its file system took no writes.
    assert!(!settle(&fixture.files.root).expect("not done"));
    fixture.write(&store_in(&fixture.files.root), "later store");
    advance(&fixture.files, Who::Agent).expect("swapped");
    assert_eq!(
        fixture.text(&store_in(&fixture.files.kept())),
        "later store"
    );
}

#[test]
fn what_was_never_in_its_place_takes_nothing_back() {
    let fixture = Fixture::half_swapped();
    fixture.write(&store_in(&fixture.files.root), "later store");
    fixture.mark_overdue();
    assert_eq!(
        advance(&fixture.files, Who::Agent).expect("given up"),
        Next::Go
    );
    assert_eq!(
        fixture.all(),
        ["lowtide: old program", "root/store.redb: later store"]
    );
}

#[test]
fn the_guard_begins_nothing() {
    let fixture = Fixture::prepared();
    let before = fixture.all();
    assert_eq!(advance(&fixture.files, Who::Guard).expect("left"), Next::Go);
    assert_eq!(fixture.all(), before);
}

#[test]
fn what_was_only_prepared_leaves_nothing_when_it_is_dropped() {
    let fixture = Fixture::prepared();
    fixture.mark_overdue();
    assert_eq!(
        advance(&fixture.files, Who::Command).expect("dropped"),
        Next::Go
    );
    assert_eq!(
        fixture.all(),
        ["lowtide: old program", "root/store.redb: old store"]
    );
}

#[test]
fn a_record_that_cannot_be_read_keeps_no_agent_from_running() {
    let fixture = Fixture::prepared();
    fixture.write(&fixture.files.record_path(), "{");
    assert_eq!(at_start(&fixture.files.root), Next::Go);
    assert_eq!(fixture.text(&fixture.target), "old program");
}

#[test]
fn the_guard_finds_another_root_for_as_long_as_an_upgrade_takes() {
    let fixture = Fixture::tried();
    let beside = |name: &str| fixture.directory.path().join(name);
    let guard = |default: &str| Files {
        guard: beside(default).join("upgrade/previous"),
        ..fixture.files.clone()
    };
    let run = Path::new(record::DEFAULT_RUN);

    // The default ROOT leads to this one already: a link would lead to itself.
    symlink(&fixture.files.root, beside("alias")).expect("linked");
    root::lead(&guard("alias"), run).expect("nothing to do");
    assert!(!fixture.files.previous().is_symlink());

    let files = guard("default");
    root::lead(&files, Path::new("/run/other")).expect("nothing to do");
    assert!(!beside("default").exists());
    assert_eq!(root::guarded(&files.guard), beside("default"));
    fixture.write(&files.guard, "left behind");
    for _ in 0..2 {
        root::lead(&files, run).expect("led");
        assert_eq!(fixture.text(&files.guard), "old program");
        assert_eq!(root::guarded(&files.guard), files.root);
    }
    files.close(&fixture.target).expect("closed");
    assert!(!files.guard.is_symlink());

    fixture.write(&files.guard.with_file_name("record.json"), "{}");
    root::lead(&files, run).expect_err("another upgrade is under way there");
}

#[test]
fn an_agent_that_starts_says_where_its_root_is() {
    let run = tempfile::tempdir().expect("directory");
    assert_eq!(root::announced(run.path()), None);
    for path in ["/one", "/another"] {
        root::announce(run.path(), Path::new(path)).expect("said");
        assert_eq!(root::announced(run.path()), Some(path.into()));
    }
}
