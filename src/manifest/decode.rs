//! Manifest text to JSON objects: YAML with go-yaml's meaning, or JSON; several documents a file.
//!
//! ```text
//! text ──► documents (first line of each) ──► Value ──► List opened ──► Pod | ConfigMap | Secret | …
//! ```
//!
//! Refuses what could exhaust memory or stack (alias bombs, depth) and what two readers would
//! understand differently (duplicate keys). Never fills in defaults, never looks at other files.

use serde_json::Value;

use crate::object::{locate, text};

/// An object of a file, in the file's order, or why there is none.
#[derive(Clone, Debug)]
pub struct Decoded<'t> {
    /// Line of the file, from 1: the object's first, or the one an error is at.
    pub line: u32,
    pub outcome: Result<Value, String>,
    document: Document<'t>,
    /// Path of the object in its document: empty, or `items[3]`.
    path: String,
}

impl Decoded<'_> {
    /// Line of the file, from 1, of a field of the object, or of what it is missing from.
    pub fn line_of(&self, path: &str) -> u32 {
        let path = match self.path.as_str() {
            "" => path.to_owned(),
            item => format!("{item}.{path}"),
        };
        match locate::line_of(self.document.text, &path) {
            Some(line) => self.document.lines_before.saturating_add(line),
            None => self.line,
        }
    }

    /// Bytes of text that a look for a line goes through at most.
    pub fn text_bytes(&self) -> usize {
        self.document.text.len()
    }
}

/// Documents in one file.
const DOCUMENTS_MAX: usize = 1_000;

/// What a file may hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kinds {
    OfManifests,
    Any,
}

/// Decodes a whole manifest. Empty documents yield nothing.
pub fn decode(bytes: &[u8]) -> Vec<Decoded<'_>> {
    decode_kinds(bytes, Kinds::OfManifests)
}

/// The same for files with objects of any kind.
pub fn decode_any(bytes: &[u8]) -> Vec<Decoded<'_>> {
    decode_kinds(bytes, Kinds::Any)
}

fn decode_kinds(bytes: &[u8], kinds: Kinds) -> Vec<Decoded<'_>> {
    let text = match std::str::from_utf8(bytes) {
        Ok(text) => text.strip_prefix('\u{feff}').unwrap_or(text),
        Err(error) => {
            let before = &bytes[..error.valid_up_to()];
            let nothing = Document {
                text: "",
                line: line_number(before),
                lines_before: 0,
            };
            return vec![nothing.refused(nothing.line, "text is not UTF-8".to_owned())];
        }
    };
    let mut decoded = Vec::new();
    for (count, document) in documents(text).into_iter().enumerate() {
        if count == DOCUMENTS_MAX {
            let why = format!("more than {DOCUMENTS_MAX} documents in one file");
            decoded.push(document.refused(document.line, why));
            break;
        }
        match parse(document) {
            Ok(Value::Null) => {}
            Ok(value) => open_list(value, document, kinds, &mut decoded),
            Err((line, message)) => decoded.push(document.refused(line, message)),
        }
    }
    decoded
}

/// One value without list handling, for configuration files. Errors carry the line, from 1.
pub fn parse_one(text: &str) -> Result<Value, (u32, String)> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    match documents(text).as_slice() {
        [] => Ok(Value::Null),
        [document] => parse(*document),
        [_, second, ..] => Err((second.line, "more than one document".to_owned())),
    }
}

#[derive(Clone, Copy, Debug)]
struct Document<'a> {
    text: &'a str,
    /// Of its first content, from 1.
    line: u32,
    /// Lines of the file before `text`.
    lines_before: u32,
}

impl<'a> Document<'a> {
    fn refused(self, line: u32, why: String) -> Decoded<'a> {
        Decoded {
            line,
            outcome: Err(why),
            document: self,
            path: String::new(),
        }
    }
}

/// Splits at document markers. A marker at the start of a line always is one: YAML forbids it
/// inside any scalar (YAML 1.2.2, section 9.1.2). The first line is that of the first content.
fn documents(text: &str) -> Vec<Document<'_>> {
    let mut documents = Vec::new();
    let (mut start, mut start_line, mut offset, mut line) = (0, 0u32, 0, 0u32);
    for piece in text.split_inclusive('\n') {
        if is_marker(piece) {
            push_document(&text[start..offset], start_line, &mut documents);
            // What follows `--- ` on its line belongs to the document, and the columns must stay.
            let bare = piece.trim_end().len() == 3;
            start = if bare { offset + piece.len() } else { offset };
            start_line = if bare { line + 1 } else { line };
        }
        offset += piece.len();
        line = line.saturating_add(1);
    }
    push_document(&text[start..], start_line, &mut documents);
    documents
}

fn is_marker(line: &str) -> bool {
    (line.starts_with("---") || line.starts_with("..."))
        && line[3..].chars().next().is_none_or(char::is_whitespace)
}

fn push_document<'a>(text: &'a str, lines_before: u32, documents: &mut Vec<Document<'a>>) {
    let content = text.lines().position(|line| {
        let line = line.trim();
        !line.is_empty() && !line.starts_with('#') && !line.starts_with('%')
    });
    if let Some(first) = content {
        documents.push(Document {
            text,
            line: lines_before + first as u32 + 1,
            lines_before,
        });
    }
}

fn parse(document: Document<'_>) -> Result<Value, (u32, String)> {
    text::parse(document.text)
        .map_err(|(line, why)| (document.lines_before.saturating_add(line), why))
}

fn line_number(before: &[u8]) -> u32 {
    let newlines = before.iter().filter(|byte| **byte == b'\n').count();
    u32::try_from(newlines + 1).unwrap_or(u32::MAX)
}

/// Puts the object, or the items of a list of objects, into `decoded`. Lists do not nest.
fn open_list<'t>(
    value: Value,
    document: Document<'t>,
    kinds: Kinds,
    decoded: &mut Vec<Decoded<'t>>,
) {
    let Some(item_kind) = list_item_kind(&value) else {
        decoded.push(object(value, document, document.line, String::new(), kinds));
        return;
    };
    let items = match value {
        Value::Object(mut fields) => fields.remove("items"),
        _ => None,
    };
    match items {
        None | Some(Value::Null) => {}
        Some(Value::Array(items)) => {
            let mut lines = locate::lines_of_items(document.text, "items").into_iter();
            for (index, mut item) in items.into_iter().enumerate() {
                if let (Some(kind), Value::Object(fields)) = (item_kind, &mut item) {
                    // Items of a typed list may leave their type out (API conventions).
                    fields.entry("apiVersion").or_insert_with(|| "v1".into());
                    fields.entry("kind").or_insert_with(|| kind.into());
                }
                let line = lines.next().map(|line| document.lines_before + line);
                let line = line.unwrap_or(document.line);
                let path = format!("items[{index}]");
                decoded.push(object(item, document, line, path, kinds));
            }
        }
        Some(_) => {
            let mut refused = document.refused(document.line, "items: must be a list".to_owned());
            refused.line = refused.line_of("items");
            decoded.push(refused);
        }
    }
}

fn object<'t>(
    value: Value,
    document: Document<'t>,
    line: u32,
    path: String,
    kinds: Kinds,
) -> Decoded<'t> {
    let mut decoded = Decoded {
        line,
        outcome: Ok(Value::Null),
        document,
        path,
    };
    if kinds == Kinds::Any && value.is_object() {
        decoded.outcome = Ok(value);
        return decoded;
    }
    decoded.outcome = match check_kind(value) {
        Ok(value) => Ok(value),
        Err((field, why)) if decoded.path.is_empty() => {
            decoded.line = decoded.line_of(field);
            Err(why)
        }
        Err((_, why)) => Err(format!("{}: {why}", decoded.path)),
    };
    decoded
}

/// `None`: not a list. `Some(None)`: a list of anything.
fn list_item_kind(value: &Value) -> Option<Option<&'static str>> {
    if value["apiVersion"] != "v1" {
        return None;
    }
    match value["kind"].as_str()? {
        "List" => Some(None),
        "PodList" => Some(Some("Pod")),
        "ConfigMapList" => Some(Some("ConfigMap")),
        "SecretList" => Some(Some("Secret")),
        "ServiceAccountList" => Some(Some("ServiceAccount")),
        "NamespaceList" => Some(Some("Namespace")),
        _ => None,
    }
}

/// Errors: the field that tells, and why the value is not one that is read.
fn check_kind(value: Value) -> Result<Value, (&'static str, String)> {
    const LEGAL: &str = "a manifest holds v1 Pod, ConfigMap, Secret, ServiceAccount, Namespace or a \
                         List of these";
    if !value.is_object() {
        return Err(("", format!("not an object: {LEGAL}")));
    }
    let version = value["apiVersion"].as_str().unwrap_or_default();
    let kind = value["kind"].as_str().unwrap_or_default();
    match (version, kind) {
        ("v1", "Pod" | "ConfigMap" | "Secret" | "ServiceAccount" | "Namespace") => Ok(value),
        ("", _) => Err(("apiVersion", format!("apiVersion: Required value; {LEGAL}"))),
        (_, "") => Err(("kind", format!("kind: Required value; {LEGAL}"))),
        _ => Err((
            "kind",
            format!("{version} {kind} is not read from manifests: {LEGAL}"),
        )),
    }
}

#[cfg(test)]
#[path = "decode_tests.rs"]
mod tests;
