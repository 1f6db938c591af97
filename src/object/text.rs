//! One document of YAML or JSON to a value, with errors that fit on a line and know theirs.

use serde_json::Value;

use super::{json, yaml};

/// A text that opens with a brace is JSON. Errors: line of `text`, from 1, and what is wrong there.
pub fn parse(text: &str) -> Result<Value, (u32, String)> {
    let at = |line: u64| u32::try_from(line.max(1)).unwrap_or(u32::MAX);
    if text.trim_start().starts_with('{') {
        return json::parse(text, yaml::DEPTH_MAX)
            .map_err(|(line, message)| (at(line as u64), one_line(&message)));
    }
    yaml::parse(text).map_err(|(line, message)| (at(line), one_line(&message)))
}

/// A parser's message on one line, so that a log line stays one, and without the place at its end,
/// which counts from the start of the document.
fn one_line(message: &str) -> String {
    let line = message.split_whitespace().collect::<Vec<_>>().join(" ");
    let is_place = |text: &str| {
        let mut words = text.split(' ');
        words.all(|word| word == "column" || word.trim_end_matches(',').parse::<u32>().is_ok())
    };
    match line.rsplit_once(" at line ") {
        Some((what, place)) if is_place(place) => what.to_owned(),
        _ => line,
    }
}
