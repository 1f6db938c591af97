//! Lines of the CRI log format, filtered and cut as the API asks. Pure.
//!
//! ```text
//!   2026-01-02T03:04:05.123456789Z stdout F text\n      F: ends a line of the container
//!   2026-01-02T03:04:05.123456789Z stdout P text\n      P: the line goes on in the next record
//! ```
//!
//! Source: Kubernetes cri-client, pkg/logs.

use jiff::Timestamp;

/// What of a log is wanted.
#[derive(Clone, Debug, Default)]
pub struct Options {
    pub since: Option<Timestamp>,
    /// Counts records, as upstream does.
    pub tail_lines: Option<u64>,
    /// Of output, time stamps included.
    pub limit_bytes: Option<u64>,
    pub timestamps: bool,
}

/// Turns records into output.
#[derive(Debug)]
pub struct Printer {
    options: Options,
    left_bytes: u64,
    /// The record before was partial: no time stamp now.
    inside_line: bool,
}

impl Printer {
    pub fn new(options: Options) -> Printer {
        Printer {
            left_bytes: options.limit_bytes.unwrap_or(u64::MAX),
            options,
            inside_line: false,
        }
    }

    /// Whether the byte limit is used up.
    pub fn is_full(&self) -> bool {
        self.left_bytes == 0
    }

    /// Appends what a record (without its line feed) prints. A record that is none is skipped: it
    /// is the torn end of a file after a power cut.
    pub fn record(&mut self, record: &[u8], out: &mut Vec<u8>) {
        let mut parts = record.splitn(4, |byte| *byte == b' ');
        let (Some(time), Some(_stream), Some(tags)) = (parts.next(), parts.next(), parts.next())
        else {
            return;
        };
        let text = parts.next().unwrap_or_default();
        let stamp = std::str::from_utf8(time).ok().map(str::parse::<Timestamp>);
        let Some(Ok(stamp)) = stamp else {
            return;
        };
        if self.options.since.is_some_and(|since| stamp < since) {
            return;
        }
        let partial = tags.split(|byte| *byte == b':').next() == Some(b"P");
        if self.options.timestamps && !self.inside_line {
            self.print(time, out);
            self.print(b" ", out);
        }
        self.print(text, out);
        if !partial {
            self.print(b"\n", out);
        }
        self.inside_line = partial;
    }

    fn print(&mut self, bytes: &[u8], out: &mut Vec<u8>) {
        let fits = usize::try_from(self.left_bytes).unwrap_or(usize::MAX);
        let taken = &bytes[..bytes.len().min(fits)];
        self.left_bytes -= taken.len() as u64;
        out.extend_from_slice(taken);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOG: &str = "2026-01-01T00:00:00.000000001Z stdout F one\n\
        2026-01-01T00:00:01.000000001Z stderr P tw\n\
        2026-01-01T00:00:02.000000001Z stderr F o\n\
        torn\n\
        2026-01-01T00:00:03.000000001Z stdout F \n\
        2026-01-01T00:00:04.000000001Z stdout F a b  c\n";

    fn print(options: Options) -> String {
        let (mut printer, mut out) = (Printer::new(options), Vec::new());
        for record in LOG.lines() {
            printer.record(record.as_bytes(), &mut out);
        }
        String::from_utf8(out).expect("text")
    }

    #[test]
    fn records_print_as_the_container_wrote_them() {
        assert_eq!(print(Options::default()), "one\ntwo\n\na b  c\n");
    }

    #[test]
    fn time_stamps_stand_only_where_a_line_begins() {
        let options = Options {
            timestamps: true,
            since: "2026-01-01T00:00:01Z".parse().ok(),
            ..Options::default()
        };
        let expected = "2026-01-01T00:00:01.000000001Z two\n\
            2026-01-01T00:00:03.000000001Z \n\
            2026-01-01T00:00:04.000000001Z a b  c\n";
        assert_eq!(print(options), expected);
    }

    #[test]
    fn the_byte_limit_cuts_within_a_line() {
        for (limit, expected) in [(1, "o"), (5, "one\nt"), (100, "one\ntwo\n\na b  c\n")] {
            let options = Options {
                limit_bytes: Some(limit),
                ..Options::default()
            };
            assert_eq!(print(options), expected);
        }
    }
}
