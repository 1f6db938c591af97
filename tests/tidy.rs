//! House rules as an ordinary test: floors, sizes, module docs, no kernel access outside `os`.
//!
//! The ceilings are ratchets: lower them when the tree allows it, never raise one without a
//! reason in the commit.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// Longest source file, in lines, its tests included.
const FILE_LINES_MAX: usize = 620;
/// Longest line, in characters.
const LINE_CHARS_MAX: usize = 110;

/// Floor of each top-level module: imports go down only, and never sideways on floor 3.
const FLOORS: [(&str, u32); 15] = [
    ("main", 5),
    ("node", 4),
    ("cli", 4),
    ("kubelet", 3),
    ("apiserver", 3),
    ("manifest", 3),
    ("controller", 3),
    ("remote", 3),
    ("upgrade", 3),
    ("runtime", 2),
    ("admission", 2),
    ("registry", 1),
    ("net", 1),
    ("os", 1),
    ("object", 0),
];

struct Source {
    path: PathBuf,
    /// Path below `src`, `/`-separated.
    name: String,
    text: String,
}

impl Source {
    /// The top-level module that the file belongs to.
    fn module(&self) -> &str {
        let first = self.name.split('/').next().unwrap();
        first.strip_suffix(".rs").unwrap_or(first)
    }

    /// Lines of code: numbered from 1, comments dropped.
    fn code(&self) -> impl Iterator<Item = (usize, &str)> {
        let lines = self.text.lines().enumerate().map(|(i, line)| (i + 1, line));
        lines.filter(|(_, line)| !line.trim_start().starts_with("//"))
    }
}

fn sources() -> Vec<Source> {
    let found = files_below("src");
    assert!(found.len() > 50, "the tree was not found");
    found
}

/// Rust files below a directory of the repository, in order.
fn files_below(top: &str) -> Vec<Source> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join(top);
    let mut found = Vec::new();
    let mut directories = vec![root.clone()];
    while let Some(directory) = directories.pop() {
        for entry in fs::read_dir(&directory).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                directories.push(path);
            } else if path.extension().is_some_and(|e| e == "rs") {
                let name = path.strip_prefix(&root).unwrap().display().to_string();
                let text = fs::read_to_string(&path).unwrap();
                found.push(Source { path, name, text });
            }
        }
    }
    found.sort_by(|a, b| a.path.cmp(&b.path));
    found
}

fn report(what: &str, offences: &[String]) {
    let list = offences.join("\n  ");
    assert!(offences.is_empty(), "{what}:\n  {list}");
}

#[test]
fn modules_import_only_from_floors_below() {
    let floors: BTreeMap<&str, u32> = FLOORS.into_iter().chain([("world", 0)]).collect();
    let mut offences = Vec::new();
    for source in sources() {
        let own = source.module();
        if own == "lib" {
            continue;
        }
        let floor = floors.get(own).copied();
        let floor = floor.unwrap_or_else(|| panic!("{}: module without a floor", source.name));
        for (number, line) in source.code() {
            for piece in line.split("crate::").skip(1) {
                let end = piece.find(|c: char| !c.is_alphanumeric() && c != '_');
                let other = &piece[..end.unwrap_or(piece.len())];
                let Some(theirs) = floors.get(other) else {
                    continue;
                };
                if other != own && (*theirs > floor || *theirs == floor && floor == 3) {
                    offences.push(format!("{}:{number}: {own} imports {other}", source.name));
                }
            }
        }
    }
    report("imports that go up or sideways", &offences);
}

/// Whether `word` stands in `line` and is not the end of a longer one (`unix::`).
fn has_word(line: &str, word: &str) -> bool {
    line.match_indices(word).any(|(at, _)| {
        let before = line[..at].chars().next_back();
        before.is_none_or(|c| !c.is_alphanumeric() && c != '_')
    })
}

#[test]
fn only_os_touches_the_kernel_and_unsafe() {
    let banned = [
        "nix::",
        "libc::",
        "rustix::",
        "unsafe {",
        "unsafe fn",
        "unsafe extern",
    ];
    let mut offences = Vec::new();
    for source in sources().iter().filter(|s| s.module() != "os") {
        for (number, line) in source.code() {
            for word in banned.iter().filter(|word| has_word(line, word)) {
                offences.push(format!("{}:{number}: {word}", source.name));
            }
        }
    }
    report("kernel access outside os", &offences);
}

#[test]
fn every_file_says_why_it_exists() {
    let sources = sources();
    let silent = sources.iter().filter(|s| {
        let tests = s.name.ends_with("tests.rs");
        !tests && !s.text.starts_with("//!")
    });
    let silent: Vec<String> = silent.map(|s| s.name.clone()).collect();
    report("files without //! at their top", &silent);
}

#[test]
fn files_and_lines_stay_short() {
    let mut offences = Vec::new();
    for source in sources() {
        let lines = source.text.lines().count();
        if lines > FILE_LINES_MAX {
            offences.push(format!("{}: {lines} lines", source.name));
        }
        // Rows of test tables may be long: breaking them hides what differs.
        let table = source.name.ends_with("tests.rs") || source.name.contains("/tests/");
        for (number, line) in source.text.lines().enumerate() {
            if line.chars().count() > LINE_CHARS_MAX && !table {
                offences.push(format!("{}:{}: long line", source.name, number + 1));
            }
        }
    }
    report("too long", &offences);
}

#[test]
fn every_file_is_part_of_the_program() {
    let sources = sources();
    let all: String = sources.iter().map(|s| s.text.as_str()).collect();
    let mut offences = Vec::new();
    for source in &sources {
        let path = Path::new(&source.name);
        let stem = path.file_stem().unwrap().to_str().unwrap();
        let stem = match stem {
            "main" | "lib" => continue,
            "mod" => path
                .parent()
                .unwrap()
                .file_name()
                .unwrap()
                .to_str()
                .unwrap(),
            stem => stem,
        };
        let declared = [";", " {"]
            .iter()
            .any(|end| all.contains(&format!("mod {stem}{end}")));
        let by_path = all.contains(&format!("{stem}.rs\""));
        if !declared && !by_path {
            offences.push(source.name.clone());
        }
    }
    report("files that nothing declares", &offences);
}

#[test]
fn no_leftovers() {
    let banned = [
        "todo!(",
        "unimplemented!(",
        "dbg!(",
        "FIXME",
        "XXX",
        "(being written)",
    ];
    let mut offences = Vec::new();
    for source in sources() {
        for (number, line) in source.text.lines().enumerate() {
            for word in banned.iter().filter(|word| line.contains(**word)) {
                offences.push(format!("{}:{}: {word}", source.name, number + 1));
            }
        }
    }
    report("leftovers", &offences);
}

/// Names of tests that the rows of a table in `docs` give as their cover, and rows without any word.
fn covers(file: &str) -> (Vec<String>, Vec<String>) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("docs")
        .join(file);
    let text = fs::read_to_string(path).unwrap();
    let rows = text.lines().filter(|line| line.starts_with("| "));
    let (mut tests, mut silent) = (Vec::new(), Vec::new());
    for row in rows {
        let cover = row.trim_end_matches('|').rsplit('|').next().unwrap().trim();
        if cover.is_empty() {
            silent.push(format!("{file}: {row}"));
        }
        let quoted = cover.split('`').skip(1).step_by(2);
        tests.extend(quoted.map(str::to_owned));
    }
    (tests, silent)
}

#[test]
fn tests_that_the_docs_name_are_there() {
    let all: Vec<Source> = ["src", "tests"].into_iter().flat_map(files_below).collect();
    let lines = all.iter().flat_map(|source| source.text.lines());
    let functions = lines.filter_map(|line| line.trim_start().strip_prefix("fn "));
    let known: BTreeSet<&str> = functions
        .filter_map(|rest| rest.split('(').next())
        .collect();
    let mut offences = Vec::new();
    for (file, least) in [("threats.md", 60), ("rules.md", 25)] {
        let (tests, silent) = covers(file);
        assert!(tests.len() >= least, "{file} was not understood");
        let missing = tests
            .into_iter()
            .filter(|test| !known.contains(test.as_str()));
        offences.extend(missing.map(|test| format!("{file}: no test {test}")));
        offences.extend(silent);
    }
    report("what the docs promise", &offences);
}
