//! Rows of comma-separated values as Go's encoding/csv reads them: `"` quotes a cell, `""` is a
//! quote in it, blank lines are skipped, rows differ in length, nothing is a comment. Pure.

use std::path::Path;

/// One row, and the line that it begins on, from 1.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    pub line: u32,
    pub cells: Vec<String>,
}

/// Errors: line and what is wrong there.
pub fn rows(text: &str) -> Result<Vec<Row>, (u32, &'static str)> {
    let mut rows = Vec::new();
    let mut line = 0;
    let mut rest = text;
    while !rest.is_empty() {
        line += 1;
        let (current, after) = split_line(rest);
        if current.is_empty() {
            rest = after;
            continue;
        }
        let start = line;
        let (cells, after) = row(rest, &mut line)?;
        rows.push(Row { line: start, cells });
        rest = after;
    }
    Ok(rows)
}

/// The first line without its end, and what follows it.
fn split_line(text: &str) -> (&str, &str) {
    let (line, rest) = text.split_once('\n').unwrap_or((text, ""));
    (line.strip_suffix('\r').unwrap_or(line), rest)
}

/// Cells up to the end of a line that is not within quotes; `line` counts those inside.
fn row<'a>(text: &'a str, line: &mut u32) -> Result<(Vec<String>, &'a str), (u32, &'static str)> {
    let mut cells = Vec::new();
    let mut rest = text;
    loop {
        if let Some(quoted) = rest.strip_prefix('"') {
            let (cell, after) = quoted_cell(quoted, line)?;
            cells.push(cell);
            if let Some(next) = after.strip_prefix(',') {
                rest = next;
                continue;
            }
            let (behind, next) = split_line(after);
            if !behind.is_empty() {
                return Err((*line, "extraneous or missing \" in quoted-field"));
            }
            return Ok((cells, next));
        }
        let (current, next) = split_line(rest);
        let (cell, more) = match current.split_once(',') {
            Some((cell, _)) => (cell, Some(&rest[cell.len() + 1..])),
            None => (current, None),
        };
        if cell.contains('"') {
            return Err((*line, "bare \" in non-quoted-field"));
        }
        cells.push(cell.to_owned());
        match more {
            Some(more) => rest = more,
            None => return Ok((cells, next)),
        }
    }
}

fn quoted_cell<'a>(
    text: &'a str,
    line: &mut u32,
) -> Result<(String, &'a str), (u32, &'static str)> {
    let mut cell = String::new();
    let mut rest = text;
    loop {
        let Some((part, after)) = rest.split_once('"') else {
            return Err((*line, "extraneous or missing \" in quoted-field"));
        };
        *line += u32::try_from(part.matches('\n').count()).unwrap_or(0);
        cell.push_str(&part.replace("\r\n", "\n"));
        match after.strip_prefix('"') {
            Some(more) => {
                cell.push('"');
                rest = more;
            }
            None => return Ok((cell, after)),
        }
    }
}

/// `FILE:LINE: why`
pub fn at(path: &Path, line: u32, why: &str) -> String {
    format!("{}:{line}: {why}", path.display())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_read_as_go_reads_them() {
        type Expected = &'static [(u32, &'static [&'static str])];
        let table: &[(&str, Expected)] = &[
            ("", &[]),
            ("\n\r\n", &[]),
            ("a,b,c", &[(1, &["a", "b", "c"])]),
            ("a,b\r\n\nc\n", &[(1, &["a", "b"]), (3, &["c"])]),
            ("a,,\n,", &[(1, &["a", "", ""]), (2, &["", ""])]),
            ("a,\"b,c\"\n", &[(1, &["a", "b,c"])]),
            ("\"a\"\"b\",c", &[(1, &["a\"b", "c"])]),
            ("\"a\nb\",c\nd", &[(1, &["a\nb", "c"]), (3, &["d"])]),
            ("#a, b", &[(1, &["#a", " b"])]),
        ];
        for (text, expected) in table {
            let read = rows(text).unwrap_or_else(|error| panic!("{text:?}: {error:?}"));
            let read: Vec<_> = read
                .iter()
                .map(|row| (row.line, row.cells.iter().map(String::as_str).collect()))
                .collect::<Vec<(u32, Vec<&str>)>>();
            let expected: Vec<_> = expected.iter().map(|(l, c)| (*l, c.to_vec())).collect();
            assert_eq!(read, expected, "{text:?}");
        }
    }

    #[test]
    fn stray_quotes_name_their_line() {
        for (text, line) in [
            ("a\nb\"c", 2),
            ("\"a\"b", 1),
            ("a,\"b", 1),
            ("\"a\nb\"c", 2),
        ] {
            assert_eq!(rows(text).map_err(|(at, _)| at), Err(line), "{text:?}");
        }
    }
}
