//! Exchanges that real clients rely on, word for word: `tests/api/golden/*.http`.
//!
//! A file is one node's story. Lines that begin with `>` are sent, those with `<` must come back, all
//! others are for the reader. JSON is shown indented, one line an event in watches, and what differs
//! from run to run has a name: `{uid}`, `{time}`, `{version}`, `{continue}`, `{suffix}`; in a request
//! such a name stands for what the last answers said. `UPDATE=1` writes down what comes back: read
//! the difference before you believe it.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::node::{Node, Setup};

/// Headers of answers that say nothing of their own.
const UNTOLD: [&str; 3] = ["content-length:", "date:", "connection: close"];

fn files() -> Vec<PathBuf> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/api/golden");
    let listed = fs::read_dir(directory).expect("golden files");
    let mut files: Vec<PathBuf> = listed.map(|entry| entry.expect("entry").path()).collect();
    files.retain(|path| path.extension().is_some_and(|end| end == "http"));
    files.sort();
    files
}

/// One exchange: what is said before it, what is sent, what should come back.
#[derive(Default)]
struct Exchange {
    remarks: String,
    request: Vec<String>,
    response: String,
}

fn exchanges(text: &str) -> (Vec<Exchange>, String) {
    let (mut all, mut now) = (Vec::new(), Exchange::default());
    // Once what is sent is over, anything but the answer begins the next one.
    let mut sent = false;
    for line in text.lines() {
        let asks = line.strip_prefix('>');
        sent |= asks.is_none() && !now.request.is_empty();
        if sent && !line.starts_with('<') {
            all.push(std::mem::take(&mut now));
            sent = false;
        }
        match asks {
            Some(line) => {
                let line = line.strip_prefix(' ').unwrap_or(line);
                now.request.push(line.to_owned());
            }
            None if line.starts_with('<') => now.response.push_str(&format!("{line}\n")),
            None => now.remarks.push_str(&format!("{line}\n")),
        }
    }
    if now.request.is_empty() {
        return (all, now.remarks);
    }
    all.push(now);
    (all, String::new())
}

impl Exchange {
    /// The bytes to send: `Content-Length` and `Connection` are added.
    fn bytes(&self, names: &BTreeMap<String, String>) -> String {
        let mut text = self.request.join("\n");
        for (name, value) in names {
            text = text.replace(&format!("{{{name}}}"), value);
        }
        let (head, body) = text.split_once("\n\n").unwrap_or((text.as_str(), ""));
        let mut head = head
            .replace('\n', "\r\n")
            .replacen("\r\n", " HTTP/1.1\r\n", 1);
        if !head.contains(" HTTP/1.1\r\n") {
            head.push_str(" HTTP/1.1");
        }
        let length = body.len();
        format!("{head}\r\nHost: pi\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}")
    }

    fn told(&self, response: &str) -> String {
        let request = self
            .request
            .iter()
            .map(|line| format!("> {line}").trim_end().to_owned());
        let request = request.collect::<Vec<_>>().join("\n");
        format!("{}{request}\n{response}", self.remarks)
    }
}

/// An answer as the files show it. What it names is remembered.
fn shown(answer: &str, names: &mut BTreeMap<String, String>) -> String {
    let (head, body) = answer.split_once("\r\n\r\n").expect("a head");
    let mut lines = head.lines();
    let code = lines.next().and_then(|line| line.split(' ').nth(1));
    let mut headers: Vec<&str> = lines.collect();
    headers.retain(|line| !UNTOLD.iter().any(|start| line.starts_with(start)));
    headers.sort_unstable();
    let body = match headers.contains(&"transfer-encoding: chunked") {
        true => unchunked(body),
        false => body.to_owned(),
    };
    let mut out = vec![code.expect("a code").to_owned()];
    out.extend(headers.iter().map(|header| without_tag(header)));
    out.push(String::new());
    if body.starts_with("{\"type\":") {
        out.extend(body.lines().map(|line| event(line, names)));
    } else if let Ok(mut value) = serde_json::from_str::<Value>(&body) {
        name(&mut value, names);
        let text = serde_json::to_string_pretty(&value).expect("JSON");
        out.extend(text.lines().map(str::to_owned));
    } else {
        out.extend(body.lines().map(str::to_owned));
    }
    let lines = out
        .iter()
        .map(|line| format!("< {line}").trim_end().to_owned() + "\n");
    hide(lines.collect(), names)
}

fn without_tag(header: &str) -> String {
    match header.starts_with("etag: \"") {
        true => "etag: \"{tag}\"".to_owned(),
        false => header.to_owned(),
    }
}

/// A line of a watch: the type stands before the object, as clients that read by hand expect.
fn event(line: &str, names: &mut BTreeMap<String, String>) -> String {
    let mut event: Value = serde_json::from_str(line).expect("JSON");
    name(&mut event, names);
    format!(
        "{{\"type\":{},\"object\":{}}}",
        event["type"], event["object"]
    )
}

fn unchunked(body: &str) -> String {
    let (mut rest, mut whole) = (body, String::new());
    while let Some((size, after)) = rest.split_once("\r\n") {
        let size = usize::from_str_radix(size, 16).expect("a size");
        whole.push_str(&after[..size]);
        rest = &after[size + 2..];
    }
    whole
}

/// Puts names where values differ from run to run.
fn name(value: &mut Value, names: &mut BTreeMap<String, String>) {
    match value {
        Value::Array(items) => items.iter_mut().for_each(|item| name(item, names)),
        Value::Object(fields) => {
            let generated = fields
                .get("generateName")
                .and_then(Value::as_str)
                .map(str::to_owned);
            for (key, field) in fields.iter_mut() {
                let replaced = match (key.as_str(), field.as_str()) {
                    ("uid", Some(text)) if text.len() == 36 => Some("{uid}".to_owned()),
                    ("resourceVersion", Some(text)) if text != "0" => Some("{version}".to_owned()),
                    ("continue", Some(_)) => Some("{continue}".to_owned()),
                    ("name", Some(text)) => generated
                        .as_ref()
                        .filter(|prefix| text.starts_with(*prefix))
                        .map(|prefix| format!("{prefix}{{suffix}}")),
                    (_, Some(text)) if is_time(text) => Some("{time}".to_owned()),
                    _ => None,
                };
                match replaced {
                    Some(placeholder) => {
                        if key != "name" && placeholder != "{time}" {
                            let known = field.as_str().unwrap_or_default().to_owned();
                            names.insert(placeholder.trim_matches(['{', '}']).to_owned(), known);
                        }
                        *field = json!(placeholder);
                    }
                    None if key == "cells" => {
                        field.as_array_mut().into_iter().flatten().for_each(age)
                    }
                    None => name(field, names),
                }
            }
        }
        _ => {}
    }
}

/// The cell of a table that says how old something is.
fn age(cell: &mut Value) {
    let seconds = cell.as_str().and_then(|text| text.strip_suffix('s'));
    if seconds.is_some_and(|text| text.parse::<u32>().is_ok()) {
        *cell = json!("{age}");
    }
}

fn is_time(text: &str) -> bool {
    text.len() >= 20 && text.ends_with('Z') && text.parse::<jiff::Timestamp>().is_ok()
}

/// In messages too; a version that was never told has as many digits as the others.
fn hide(mut text: String, names: &BTreeMap<String, String>) -> String {
    for (name, value) in names.iter().filter(|(_, value)| value.len() > 8) {
        text = text.replace(value, &format!("{{{name}}}"));
    }
    let digits = |c: char| !c.is_ascii_digit();
    let numbers = text.split(digits).filter(|number| number.len() == 13);
    let others: Vec<String> = numbers.map(str::to_owned).collect();
    others
        .iter()
        .fold(text, |text, number| text.replace(number, "{version}"))
}

#[test]
fn exchanges_are_word_for_word_what_clients_rely_on() {
    let update = std::env::var_os("UPDATE").is_some();
    let mut differ = Vec::new();
    for path in files() {
        let node = Node::with(Setup::default());
        let written = fs::read_to_string(&path).expect("a golden file");
        let (exchanges, rest) = exchanges(&written);
        let (mut names, mut played) = (BTreeMap::new(), String::new());
        for exchange in &exchanges {
            let answer = play(&node, &exchange.bytes(&names));
            played.push_str(&exchange.told(&shown(&answer, &mut names)));
        }
        played.push_str(&rest);
        if played == written {
            continue;
        }
        if update {
            fs::write(&path, &played).expect("written");
        }
        let lines = written.lines().zip(played.lines()).enumerate();
        let first = lines.into_iter().find(|(_, (old, new))| old != new);
        differ.push(format!("{}: {first:?}", path.display()));
    }
    assert!(update || differ.is_empty(), "{}", differ.join("\n"));
}

/// One request on a connection of its own; all that comes back.
fn play(node: &Node, request: &str) -> String {
    use std::io::{Read, Write};
    let mut stream = node.connect();
    stream.write_all(request.as_bytes()).expect("write");
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).expect("read");
    String::from_utf8(answer).expect("UTF-8")
}
