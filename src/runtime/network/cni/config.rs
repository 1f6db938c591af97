//! Which configuration of a directory is used, and what is wrong with the others.
//!
//! The first in lexical order that can be used. One plugin by itself is a list of one, so that all
//! the rest knows lists only:
//!
//! ```text
//! {"name": …, "cniVersion": …, "plugins": [{"type": …, …}, …]}
//! ```
//! Source: CNI specification 1.1.0, section 1; libcni; containerd's go-cni for the order.

use std::ffi::OsStr;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::object::locate;
use crate::os::regular_file;

/// Bytes of one file.
const FILE_BYTES_MAX: u64 = 256 << 10;
/// Files that are looked at.
const FILES_MAX: usize = 64;
/// What plugins are spoken to in; the best comes first.
const VERSIONS: [&str; 5] = ["1.1.0", "1.0.0", "0.4.0", "0.3.1", "0.3.0"];

/// What a look at the directory has found.
#[derive(Default)]
pub struct Found {
    /// The file, and the list in it.
    pub used: Option<(PathBuf, Value)>,
    /// Of the files before it, one line each: file, line, what is wrong with which field.
    pub problems: Vec<String>,
}

/// Looks at the directory as it is now. One that does not exist is empty.
pub fn look(directory: &Path) -> Found {
    let mut found = Found::default();
    let files = match files(directory) {
        Ok(files) => files,
        Err(error) => {
            let text = format!("list {}: {error}", directory.display());
            found.problems.push(text);
            return found;
        }
    };
    for file in files.into_iter().take(FILES_MAX) {
        match read(&file) {
            Ok(list) => {
                found.used = Some((file, list));
                break;
            }
            Err(problem) => found.problems.push(format!("{}{problem}", file.display())),
        }
    }
    found
}

fn files(directory: &Path) -> io::Result<Vec<PathBuf>> {
    let entries = match fs::read_dir(directory) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        outcome => outcome?,
    };
    let mut files: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
    files.retain(|path| {
        let extension = path.extension().and_then(OsStr::to_str);
        matches!(extension, Some("conflist" | "conf" | "json")) && !path.is_dir()
    });
    files.sort();
    Ok(files)
}

fn read(path: &Path) -> Result<Value, String> {
    let text = regular_file::open(path)
        .and_then(|(file, _)| regular_file::read_at_most(&file, FILE_BYTES_MAX))
        .map_err(|error| format!(": {error}"))?;
    let text = text.ok_or_else(|| format!(": larger than {FILE_BYTES_MAX} bytes"))?;
    parse(&String::from_utf8_lossy(&text)).map_err(|(line, what)| format!(":{line}: {what}"))
}

/// The list that a text says, with the version that is spoken. Errors: line, and what is wrong.
fn parse(text: &str) -> Result<Value, (u32, String)> {
    let mut whole: Value = serde_json::from_str(text).map_err(|error| {
        let what = error.to_string();
        let what = what.split(" at line ").next().unwrap_or_default();
        (
            u32::try_from(error.line()).unwrap_or(u32::MAX),
            what.to_owned(),
        )
    })?;
    let wrong = |field: &str, what: String| {
        let line = locate::line_of(text, field).unwrap_or(1);
        Err((line, format!("{field}: {what}")))
    };
    let name = whole["name"].clone();
    if !name.as_str().is_some_and(is_name) {
        return wrong("name", format!("{name} is no name of a network"));
    }
    let asked = &whole["cniVersion"];
    let asks = |version: &&&str| {
        let more = whole["cniVersions"].as_array();
        *asked == **version || more.is_some_and(|more| more.iter().any(|one| *one == **version))
    };
    let Some(version) = VERSIONS.iter().find(asks) else {
        let all = VERSIONS.join(", ");
        return wrong("cniVersion", format!("{asked} is none of {all}"));
    };
    let (plugins, path) = match whole.get_mut("plugins") {
        Some(plugins) => (plugins.take(), "plugins"),
        None => (json!([whole]), ""),
    };
    let listed = plugins.as_array().map_or(&[][..], Vec::as_slice);
    if listed.is_empty() {
        return wrong("plugins", "there is none".to_owned());
    }
    for (number, plugin) in listed.iter().enumerate() {
        let program = &plugin["type"];
        if !program.as_str().is_some_and(is_program) {
            let field = match path {
                "" => "type".to_owned(),
                path => format!("{path}[{number}].type"),
            };
            return wrong(&field, format!("{program} is no program's name"));
        }
    }
    Ok(json!({ "name": name, "cniVersion": version, "plugins": plugins }))
}

fn is_program(name: &str) -> bool {
    !name.is_empty() && !name.contains('/') && name != ".."
}

/// Source: libcni, pkg/utils (ValidateNetworkName).
fn is_name(name: &str) -> bool {
    let first = name
        .bytes()
        .next()
        .is_some_and(|byte| byte.is_ascii_alphanumeric());
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte);
    first && name.bytes().all(allowed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plugin_by_itself_is_a_list_of_one_and_the_best_version_is_spoken() {
        let bridge = json!({"name": "n", "cniVersion": "0.3.1", "type": "bridge", "mtu": 1400});
        let list = |version: &str, list: Value| json!({"name": "n", "cniVersion": version, "plugins": list});
        let two = json!([{"type": "flannel", "delegate": {}}, {"type": "portmap"}]);
        let mut newer = list("0.4.0", two.clone());
        newer["cniVersions"] = json!(["1.0.0", "0.3.1", "7.0.0", "1.1.0"]);
        for (text, expected) in [
            (bridge.clone(), list("0.3.1", json!([bridge]))),
            (list("1.0.0", two.clone()), list("1.0.0", two.clone())),
            (newer, list("1.1.0", two)),
        ] {
            assert_eq!(parse(&text.to_string()), Ok(expected));
        }
    }

    #[test]
    fn what_cannot_be_used_is_named_with_line_and_field() {
        for (text, line, part) in [
            ("{\n \"name\": \"n\",\n", 3, "EOF"),
            ("", 1, "EOF"),
            ("[]", 1, "name: null is no name"),
            (
                "{\n \"cniVersion\": \"1.0.0\"\n}",
                1,
                "name: null is no name",
            ),
            ("{\n \"name\": 5\n}", 2, "name: 5 is no name"),
            (
                "{\n \"name\": \"n\",\n \"cniVersion\": \"9.9\",\n \"type\": \"a\"}",
                3,
                "cniVersion: \"9.9\" is none of 1.1.0, 1.0.0",
            ),
            (
                "{\"name\": \"n\",\n \"type\": \"a\"}",
                1,
                "cniVersion: null is none",
            ),
            (
                "{\"cniVersion\": \"1.0.0\",\n\"name\": \"a b\", \"type\": \"a\"}",
                2,
                "name: \"a b\"",
            ),
            (
                "{\"cniVersion\": \"1.0.0\", \"name\": \"n\",\n \"plugins\": []}",
                2,
                "plugins: there is none",
            ),
            (
                "{\"cniVersion\": \"1.0.0\", \"name\": \"n\"}",
                1,
                "type: null is no program",
            ),
            (
                "{\"cniVersion\": \"1.0.0\", \"name\": \"n\", \"plugins\": [\n{\"type\": \"a\"},\n{}]}",
                3,
                "plugins[1].type: null",
            ),
            (
                "{\"cniVersion\": \"1.0.0\", \"name\": \"n\", \"plugins\": [\n{\"type\": \"../a\"}]}",
                2,
                "plugins[0].type: \"../a\" is no",
            ),
            (
                "{\"cniVersion\": \"1.0.0\", \"name\": \"n\", \"plugins\": [[\"a\"]]}",
                1,
                "plugins[0].type",
            ),
        ] {
            let (at, what) = parse(text).expect_err(text);
            assert!(at == line && what.contains(part), "{text}: {at}: {what}");
        }
    }

    #[test]
    fn the_first_of_a_directory_that_can_be_used_is_used() {
        let home = tempfile::tempdir().expect("a directory");
        let found = |used: Option<&str>, problems: &[&str]| {
            let found = look(home.path());
            let name = found
                .used
                .map(|(path, _)| path.file_name().unwrap().to_owned());
            assert_eq!(name.as_deref(), used.map(OsStr::new));
            assert_eq!(found.problems.len(), problems.len(), "{:?}", found.problems);
            for (said, part) in found.problems.iter().zip(problems) {
                assert!(said.contains(part), "{said}");
            }
        };
        let write = |name: &str, text: &str| fs::write(home.path().join(name), text).unwrap();
        let good = r#"{"name": "n", "cniVersion": "1.0.0", "type": "bridge"}"#;
        found(None, &[]);
        write("00-notes.txt", good);
        fs::create_dir(home.path().join("01.conf")).unwrap();
        found(None, &[]);
        write("30.conf", good);
        found(Some("30.conf"), &[]);
        write("20.conflist", "{\n");
        write("40.json", "{");
        found(Some("30.conf"), &["20.conflist:2: EOF"]);
        write("10.json", good);
        found(Some("10.json"), &[]);
        assert!(look(&home.path().join("absent")).problems.is_empty());
    }
}
