//! Tables, JSON and YAML as kubectl prints them. Pure: text out.

use serde_json::{Map, Value, json};

/// Between two columns, and the narrowest column. Source: kubectl's tab writer.
const PADDING: usize = 3;
const WIDTH_MIN: usize = 6;

/// Lines of aligned columns; widths only grow, so that what a watch adds stays aligned.
#[derive(Debug, Default)]
pub struct Columns {
    widths: Vec<usize>,
}

impl Columns {
    pub fn print(&mut self, rows: &[Vec<String>]) -> String {
        for row in rows {
            self.widths.resize(self.widths.len().max(row.len()), 0);
            for (width, cell) in self.widths.iter_mut().zip(row) {
                *width = (*width).max((cell.chars().count() + PADDING).max(WIDTH_MIN));
            }
        }
        let mut out = String::new();
        for row in rows {
            let mut line = String::new();
            for (width, cell) in self.widths.iter().zip(row) {
                line.push_str(&format!("{cell:<width$}"));
            }
            out.push_str(line.trim_end());
            out.push('\n');
        }
        out
    }
}

/// A cell on one line: what an object says never moves the cursor of a terminal.
pub fn cell(value: &Value) -> String {
    let text = match value {
        Value::String(text) => text.clone(),
        Value::Null => "<none>".to_owned(),
        other => other.to_string(),
    };
    let text = text.lines().next().unwrap_or_default();
    match text.is_empty() {
        true => "<none>".to_owned(),
        false => harmless(text),
    }
}

/// The text without control characters.
pub fn harmless(text: &str) -> String {
    let shown = |c: char| if c.is_control() { '\u{fffd}' } else { c };
    text.chars().map(shown).collect()
}

/// Objects as one document: the object itself, or a `List` of several.
pub fn document(mut objects: Vec<Value>, single: Single) -> Value {
    match single {
        Single::Alone if objects.len() == 1 => objects.remove(0),
        Single::Alone | Single::InList => json!({
            "apiVersion": "v1",
            "kind": "List",
            "metadata": {"resourceVersion": ""},
            "items": objects,
        }),
    }
}

/// How one object is printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Single {
    /// It was asked for by name.
    Alone,
    InList,
}

/// JSON with kubectl's indent of four.
pub fn to_json(value: &Value) -> String {
    let mut out = Vec::new();
    let format = serde_json::ser::PrettyFormatter::with_indent(b"    ");
    let mut serializer = serde_json::Serializer::with_formatter(&mut out, format);
    serde::Serialize::serialize(value, &mut serializer).expect("a Value is JSON");
    out.push(b'\n');
    String::from_utf8(out).expect("JSON is UTF-8")
}

/// YAML in blocks, keys in order, texts quoted only where they must be.
pub fn to_yaml(value: &Value) -> String {
    let mut out = String::new();
    block(value, 0, &mut out);
    out
}

fn block(value: &Value, indent: usize, out: &mut String) {
    match value {
        Value::Object(map) if !map.is_empty() => mapping(map, indent, indent, out),
        Value::Array(items) if !items.is_empty() => sequence(items, indent, out),
        other => {
            out.push_str(&scalar(other));
            out.push('\n');
        }
    }
}

/// The first key is written where the line stands, the others at `indent`.
fn mapping(map: &Map<String, Value>, first: usize, indent: usize, out: &mut String) {
    for (index, (key, value)) in map.iter().enumerate() {
        let margin = if index == 0 { first } else { indent };
        out.push_str(&" ".repeat(margin));
        out.push_str(&scalar(&Value::from(key.as_str())));
        out.push(':');
        match value {
            Value::Object(inner) if !inner.is_empty() => {
                out.push('\n');
                mapping(inner, indent + 2, indent + 2, out);
            }
            // kubectl's style: the dash stands under the key.
            Value::Array(inner) if !inner.is_empty() => {
                out.push('\n');
                sequence(inner, indent, out);
            }
            other => {
                out.push(' ');
                out.push_str(&scalar(other));
                out.push('\n');
            }
        }
    }
}

fn sequence(items: &[Value], indent: usize, out: &mut String) {
    for item in items {
        out.push_str(&" ".repeat(indent));
        out.push_str("- ");
        match item {
            Value::Object(map) if !map.is_empty() => mapping(map, 0, indent + 2, out),
            Value::Array(inner) if !inner.is_empty() => {
                out.push('\n');
                sequence(inner, indent + 2, out);
            }
            other => {
                out.push_str(&scalar(other));
                out.push('\n');
            }
        }
    }
}

fn scalar(value: &Value) -> String {
    match value {
        Value::String(text) if is_plain(text) => text.clone(),
        // A JSON string is a double-quoted YAML one; so are `{}` and `[]`.
        other => other.to_string(),
    }
}

/// Whether a text stays a text without quotes, for YAML 1.1 and 1.2 readers alike.
fn is_plain(text: &str) -> bool {
    const WORDS: [&str; 12] = [
        "true", "false", "yes", "no", "on", "off", "y", "n", "null", "nan", "inf", "~",
    ];
    let inner = |c: char| c.is_ascii_alphanumeric() || "/_.-@+=:, ()'\"%{}[]".contains(c);
    let begins = text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '/' || c == '_');
    begins
        && text.chars().all(inner)
        && !text.contains(": ")
        && !text.ends_with([':', ' '])
        && !WORDS.contains(&text.to_ascii_lowercase().as_str())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(cells: &[&str]) -> Vec<String> {
        cells.iter().map(|cell| (*cell).to_owned()).collect()
    }

    #[test]
    fn columns_align_as_in_kubectl_and_stay_aligned() {
        let mut columns = Columns::default();
        let text = columns.print(&[
            row(&["NAME", "READY", "AGE"]),
            row(&["web-pi", "1/1", "5m"]),
        ]);
        assert_eq!(text, "NAME     READY   AGE\nweb-pi   1/1     5m\n");
        assert_eq!(
            columns.print(&[row(&["db", "0/1", "1s"])]),
            "db       0/1     1s\n"
        );
    }

    #[test]
    fn cells_cannot_move_the_cursor() {
        assert_eq!(cell(&json!("a\u{1b}[2Jb\nsecond")), "a\u{fffd}[2Jb");
        assert_eq!(cell(&json!("")), "<none>");
    }

    #[test]
    fn yaml_reads_back_as_what_it_was() {
        let value = json!({
            "metadata": {"name": "web", "labels": {"app.kubernetes.io/name": "x"}, "empty": {}},
            "list": [1, true, null, "true", "yes", "0644", "a: b", "#x", "", " x", "x\ny", "1.5", "é", "a #b",
                     "-x", "*x", "null", "key:", "0x1f", "2026-01-01T00:00:00Z", "1e3", ".inf", "=", "n"],
            "nested": [[1, [2]], {"a": [], "b": {"c": [{"d": 1}, {"e": "f"}]}}],
            "args": ["--flag=a,b", "sh -c 'x'", "{\"a\": 1}"],
        });
        let text = to_yaml(&value);
        let read: Value = serde_saphyr::from_str(&text).expect("YAML");
        assert_eq!(read, value, "{text}");
    }

    #[test]
    fn yaml_looks_as_in_kubectl() {
        let value = json!({"spec": {"containers": [{"image": "busybox:1.36", "name": "web"}]}});
        let expected = "spec:\n  containers:\n  - image: busybox:1.36\n    name: web\n";
        assert_eq!(to_yaml(&value), expected);
    }
}
