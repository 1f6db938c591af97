//! Indented, aligned `Name:  value` text.

use jiff::Timestamp;
use jiff::tz::TimeZone;
use serde_json::Value;

use super::super::print::{self, Columns};
use crate::apiserver::table::{self, duration};
use crate::object::Kind;

/// A page being written: sections whose values stand under each other.
#[derive(Debug, Default)]
pub struct Page {
    out: String,
    /// Lines since the section began: indent, name, value.
    open: Vec<(usize, String, String)>,
}

impl Page {
    /// One line. An empty value is a heading.
    pub fn line(&mut self, indent: usize, name: &str, value: impl AsRef<str>) {
        let value = print::harmless(value.as_ref());
        self.open
            .push((indent, format!("{}:", print::harmless(name)), value));
    }

    /// A text alone on its line.
    pub fn word(&mut self, indent: usize, text: &str) {
        self.open
            .push((indent, print::harmless(text), String::new()));
    }

    /// The same as `line`, if there is something to say.
    pub fn line_if(&mut self, indent: usize, name: &str, value: &Value) {
        if !value.is_null() && value != "" {
            self.line(indent, name, plain(value));
        }
    }

    /// A heading and one line for each item; a single dash-free `<none>` if there is none.
    pub fn list(&mut self, indent: usize, name: &str, items: &[String]) {
        if items.is_empty() {
            return self.line(indent, name, "<none>");
        }
        self.line(indent, name, &items[0]);
        for item in &items[1..] {
            self.open
                .push((indent, String::new(), print::harmless(item)));
        }
    }

    /// Ends a section: what comes next is aligned on its own.
    pub fn end_section(&mut self) {
        let widths = self.open.iter().filter(|(_, _, value)| !value.is_empty());
        let width = widths
            .map(|(indent, name, _)| indent + name.chars().count() + 2)
            .max();
        let width = width.unwrap_or(0);
        for (indent, name, value) in self.open.drain(..) {
            let head = format!("{}{name}", " ".repeat(indent));
            let line = format!("{head:<width$}{value}");
            self.out.push_str(line.trim_end());
            self.out.push('\n');
        }
    }

    /// A table below a heading.
    pub fn table(&mut self, name: &str, rows: &[Vec<String>]) {
        self.end_section();
        if rows.len() <= 1 {
            self.out.push_str(&format!("{name}:  <none>\n"));
            return;
        }
        self.out.push_str(&format!("{name}:\n"));
        for line in Columns::default().print(rows).lines() {
            self.out.push_str(&format!("  {line}\n"));
        }
    }

    /// Events as kubectl shows them below an object.
    pub fn events(&mut self, events: &[Value], now: Timestamp) {
        let head = ["Type", "Reason", "Age", "From", "Message"];
        let mut rows = vec![head.map(str::to_owned).to_vec()];
        for event in events {
            let cells = table::row(Kind::Event, event, now).cells;
            let (count, first) = (&cells[8], &cells[7]);
            let age = match count.as_i64() {
                Some(count @ 2..) => {
                    format!("{} (x{count} over {})", plain(&cells[0]), plain(first))
                }
                _ => plain(&cells[0]),
            };
            let from = plain(&cells[5]);
            let from = from.split(',').next().unwrap_or_default().to_owned();
            rows.push(vec![
                plain(&cells[1]),
                plain(&cells[2]),
                age,
                from,
                print::cell(&cells[6]),
            ]);
        }
        self.table("Events", &rows);
    }

    pub fn text(mut self) -> String {
        self.end_section();
        self.out
    }
}

/// A value without quotes.
pub fn plain(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Null => String::new(),
        Value::Bool(true) => "True".to_owned(),
        Value::Bool(false) => "False".to_owned(),
        other => other.to_string(),
    }
}

/// `name=value` for each entry.
pub fn pairs(map: &Value, between: &str) -> Vec<String> {
    let entries = map.as_object().into_iter().flatten();
    entries
        .map(|(name, value)| format!("{name}{between}{}", plain(value)))
        .collect()
}

/// `Mon, 02 Jan 2006 15:04:05 -0700`, in UTC.
pub fn time(value: &Value) -> String {
    match duration::parse(value) {
        Some(time) => {
            let time = time.to_zoned(TimeZone::UTC);
            time.strftime("%a, %d %b %Y %H:%M:%S %z").to_string()
        }
        None => plain(value),
    }
}

pub fn list(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn values_of_a_section_stand_under_each_other() {
        let mut page = Page::default();
        page.line(0, "Name", "web");
        page.list(0, "Labels", &["a=b".to_owned(), "c=d".to_owned()]);
        page.list(0, "Annotations", &[]);
        page.line_if(0, "Reason", &Value::Null);
        page.line(0, "Containers", "");
        page.line(2, "Image", "x\u{7}");
        let expected = "Name:         web\nLabels:       a=b\n              c=d\n\
            Annotations:  <none>\nContainers:\n  Image:      x\u{fffd}\n";
        assert_eq!(page.text(), expected);
    }

    #[test]
    fn times_read_as_in_kubectl() {
        assert_eq!(
            time(&json!("2026-01-02T03:04:05Z")),
            "Fri, 02 Jan 2026 03:04:05 +0000"
        );
        assert_eq!(time(&json!("soon")), "soon");
    }
}
