//! The text format that Prometheus reads, families in the order of their names. Pure.
//!
//! Source: prometheus/docs, exposition_formats.md (version 0.0.4).

use std::fmt::Write;

use crate::object::order;
use crate::world::Stamp;

pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Type {
    Counter,
    Gauge,
    Histogram,
}

/// One metric with all its samples.
#[derive(Debug)]
pub struct Family {
    pub name: &'static str,
    pub help: &'static str,
    pub kind: Type,
    samples: Vec<String>,
}

impl Family {
    pub fn new(name: &'static str, kind: Type, help: &'static str) -> Family {
        Family {
            name,
            help,
            kind,
            samples: Vec::new(),
        }
    }

    /// Adds a sample; labels are put in the order of their names. `at`: milliseconds since 1970.
    pub fn add(&mut self, labels: &[(&str, &str)], value: f64, at: Option<Stamp>) {
        let mut labels = labels.to_vec();
        labels.sort_unstable();
        let mut line = format!("{} {}", braced(&labels), number(value));
        if let Some(at) = at {
            let _ = write!(line, " {}", at.wall.as_millisecond());
        }
        self.samples.push(line);
    }

    /// Adds one histogram: counts up to and with each bound, of all, and the sum of all values.
    pub fn add_histogram(
        &mut self,
        labels: &[(&str, &str)],
        buckets: impl Iterator<Item = (f64, u64)>,
        count: u64,
        sum: f64,
    ) {
        let bounds = buckets.map(|(bound, count)| (number(bound), count));
        for (bound, below) in bounds.chain([("+Inf".to_owned(), count)]) {
            let labels = [labels, &[("le", bound.as_str())]].concat();
            self.samples
                .push(format!("_bucket{} {below}", braced(&labels)));
        }
        let labels = braced(labels);
        self.samples.push(format!("_sum{labels} {}", number(sum)));
        self.samples.push(format!("_count{labels} {count}"));
    }
}

/// `{a="x",b="y"}`; nothing for none.
fn braced(labels: &[(&str, &str)]) -> String {
    let mut text = String::new();
    for (index, (name, value)) in labels.iter().enumerate() {
        let open = if index == 0 { '{' } else { ',' };
        let _ = write!(text, "{open}{name}=\"{}\"", escaped(value));
    }
    if !labels.is_empty() {
        text.push('}');
    }
    text
}

/// Families without a sample are left out.
pub fn render(mut families: Vec<Family>) -> String {
    order::sort_by_key(&mut families, |family| family.name);
    let mut text = String::new();
    for family in families.iter_mut().filter(|f| !f.samples.is_empty()) {
        let Family { name, help, .. } = *family;
        let kind = match family.kind {
            Type::Counter => "counter",
            Type::Gauge => "gauge",
            Type::Histogram => "histogram",
        };
        let _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} {kind}");
        // Buckets come in the order of their bounds.
        if family.kind != Type::Histogram {
            family.samples.sort_unstable();
        }
        for sample in &family.samples {
            let _ = writeln!(text, "{name}{sample}");
        }
    }
    text
}

fn escaped(text: &str) -> String {
    text.replace('\\', "\\\\")
        .replace('"', "\\\"")
        .replace('\n', "\\n")
}

/// As Go's `%g` writes it: an exponent from 10^21 on and below 10^-4.
fn number(value: f64) -> String {
    let exponent = match value.abs() {
        0.0 => 0,
        size => size.log10().floor() as i32,
    };
    if (-4..21).contains(&exponent) {
        return format!("{value}");
    }
    let text = format!("{value:e}");
    let (digits, exponent) = text.split_once('e').unwrap_or((&text, "0"));
    match exponent.strip_prefix('-') {
        Some(size) => format!("{digits}e-{size:0>2}"),
        None => format!("{digits}e+{exponent:0>2}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn families_and_labels_are_in_order_and_text_is_escaped() {
        let mut late = Family::new("z_total", Type::Counter, "Last.");
        late.add(&[("b", "x\"y\\\n"), ("a", "")], 1.5, None);
        let mut early = Family::new("a", Type::Gauge, "First.");
        early.add(&[], 2e21, None);
        let none = Family::new("none", Type::Gauge, "Nothing.");
        let text = render(vec![late, early, none]);
        let wanted = "# HELP a First.\n# TYPE a gauge\na 2e+21\n\
            # HELP z_total Last.\n# TYPE z_total counter\nz_total{a=\"\",b=\"x\\\"y\\\\\\n\"} 1.5\n";
        assert_eq!(text, wanted);
        for (value, text) in [
            (0.0, "0"),
            (12_345_678_901.0, "12345678901"),
            (0.000_05, "5e-05"),
        ] {
            assert_eq!(number(value), text);
        }
    }
}
