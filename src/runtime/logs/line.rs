//! One line of a log: `<time> <stream> <tag> <text>\n`, and how a byte stream becomes lines.
//!
//! Pure. The tag is `F` for a line that ended and `P` for a part of one; readers join parts by
//! leaving out the newline.

use std::io::Write;

use jiff::Timestamp;
use jiff::tz::Offset;

/// Longest text of one line; longer ones are split into parts.
/// Source: containerd and CRI-O (16 KiB, the size of docker's line buffer).
pub const TEXT_BYTES_MAX: usize = 16 * 1024;

/// Where a container wrote.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stream {
    Stdout,
    Stderr,
}

impl Stream {
    fn name(self) -> &'static str {
        match self {
            Stream::Stdout => "stdout",
            Stream::Stderr => "stderr",
        }
    }
}

/// Whether the text ends a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tag {
    Full,
    Partial,
}

/// Appends one line; `text` in two pieces as the splitter has it.
pub fn append(out: &mut Vec<u8>, at: Timestamp, stream: Stream, tag: Tag, text: [&[u8]; 2]) {
    let tag = match tag {
        Tag::Full => 'F',
        Tag::Partial => 'P',
    };
    append_time(out, at);
    write!(out, " {} {tag} ", stream.name()).expect("a vector takes any bytes");
    out.extend_from_slice(text[0]);
    out.extend_from_slice(text[1]);
    out.push(b'\n');
}

/// RFC 3339 in UTC with nine digits of a second.
pub fn append_time(out: &mut Vec<u8>, at: Timestamp) {
    let t = Offset::UTC.to_datetime(at);
    write!(
        out,
        "{:04}-{:02}-{:02}T{:02}:{:02}:{:02}.{:09}Z",
        t.year(),
        t.month(),
        t.day(),
        t.hour(),
        t.minute(),
        t.second(),
        t.subsec_nanosecond()
    )
    .expect("a vector takes any bytes");
}

/// `20060102-150405`
pub fn rotation_stamp_of(at: Timestamp) -> String {
    let t = Offset::UTC.to_datetime(at);
    format!(
        "{:04}{:02}{:02}-{:02}{:02}{:02}",
        t.year(),
        t.month(),
        t.day(),
        t.hour(),
        t.minute(),
        t.second()
    )
}

/// Cuts one stream into lines; holds at most one unfinished part.
#[derive(Debug, Default)]
pub struct LineSplitter {
    unfinished: Vec<u8>,
}

impl LineSplitter {
    /// Hands every line that `bytes` completes to `emit`, in two pieces.
    pub fn push(&mut self, bytes: &[u8], mut emit: impl FnMut(Tag, [&[u8]; 2])) {
        let mut rest = bytes;
        while !rest.is_empty() {
            let room = TEXT_BYTES_MAX - self.unfinished.len();
            // A newline right behind a full part still makes it a whole line.
            let window = &rest[..rest.len().min(room + 1)];
            match window.iter().position(|byte| *byte == b'\n') {
                Some(end) => {
                    emit(Tag::Full, [&self.unfinished, &rest[..end]]);
                    self.unfinished.clear();
                    rest = &rest[end + 1..];
                }
                None if rest.len() > room => {
                    emit(Tag::Partial, [&self.unfinished, &rest[..room]]);
                    self.unfinished.clear();
                    rest = &rest[room..];
                }
                None => {
                    self.unfinished.extend_from_slice(rest);
                    return;
                }
            }
        }
        // Memory is given back once lines are short again.
        if self.unfinished.is_empty() && self.unfinished.capacity() > 1024 {
            self.unfinished = Vec::new();
        }
    }

    /// The stream has ended: what is left is a part.
    pub fn finish(&mut self, mut emit: impl FnMut(Tag, [&[u8]; 2])) {
        if !self.unfinished.is_empty() {
            emit(Tag::Partial, [&self.unfinished, b""]);
            self.unfinished = Vec::new();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn split(chunks: &[&[u8]]) -> Vec<(Tag, Vec<u8>)> {
        let mut splitter = LineSplitter::default();
        let mut lines = Vec::new();
        for chunk in chunks {
            splitter.push(chunk, |tag, text| lines.push((tag, text.concat())));
        }
        splitter.finish(|tag, text| lines.push((tag, text.concat())));
        lines
    }

    #[test]
    fn lines_are_cut_at_newlines_whatever_the_chunks() {
        let full = |text: &str| (Tag::Full, text.as_bytes().to_vec());
        for chunks in [
            &[&b"one\ntwo\n\nfour\n"[..]][..],
            &[b"on", b"e", b"\nt", b"wo\n\n", b"four", b"\n"],
        ] {
            let expected = [full("one"), full("two"), full(""), full("four")];
            assert_eq!(split(chunks), expected);
        }
        assert_eq!(split(&[b"$ "]), [(Tag::Partial, b"$ ".to_vec())]);
    }

    #[test]
    fn long_lines_are_split_and_an_exact_fit_is_one_line() {
        let max = vec![b'x'; TEXT_BYTES_MAX];
        let mut exact = max.clone();
        exact.push(b'\n');
        assert_eq!(split(&[&exact]), [(Tag::Full, max.clone())]);
        assert_eq!(split(&[&max, b"\n"]), [(Tag::Full, max.clone())]);
        let mut longer = max.clone();
        longer.extend_from_slice(b"y\nz\n");
        let parts = split(&[&longer]);
        assert_eq!(parts[0], (Tag::Partial, max));
        assert_eq!(parts[1], (Tag::Full, b"y".to_vec()));
        assert_eq!(parts[2], (Tag::Full, b"z".to_vec()));
    }

    #[test]
    fn a_line_looks_as_the_cri_wants_it() {
        for (time, text) in [
            (
                "2016-10-06T00:17:09.669794202Z",
                "2016-10-06T00:17:09.669794202Z",
            ),
            ("2016-10-06T00:17:09.5Z", "2016-10-06T00:17:09.500000000Z"),
            ("1970-01-01T00:00:00Z", "1970-01-01T00:00:00.000000000Z"),
        ] {
            let at: Timestamp = time.parse().expect("time");
            let mut out = Vec::new();
            append(&mut out, at, Stream::Stderr, Tag::Partial, [b"a ", b"b"]);
            let line = String::from_utf8(out).expect("text");
            assert_eq!(line, format!("{text} stderr P a b\n"));
        }
    }
}
