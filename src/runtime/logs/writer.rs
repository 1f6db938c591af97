//! Writes one container's log: lines in, rotated files out.
//!
//! ```text
//!   chunk ─► lines ─► buffer ─► append ─► length reached: rename, prune, open the next
//!                                  └─ no space: cut back to whole lines, count what is dropped;
//!                                     one marker line when there is space again
//! ```
//! A container is never held up by its log, and a torn line is never left behind. Nothing is
//! written and nothing is woken while the container is silent.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use jiff::{SignedDuration, Timestamp};

use super::line::{self, LineSplitter, Stream, Tag};
use super::rotation_stamp;
use crate::object::order;
use crate::os::file;

/// Lines are gathered up to this before they are written. One page: a shim counts them.
const BUFFER_BYTES: usize = 4 * 1024;
/// As containerd makes them: root and the log group.
const LOG_MODE: u32 = 0o640;
/// Names tried for one rotation; each is one second later than the last.
const NAMES_MAX: u32 = 100;

/// Rotation and place of a log.
#[derive(Debug)]
pub struct LogWriter {
    path: PathBuf,
    bytes_max: u64,
    files_max: u32,
    file: Option<File>,
    /// Bytes of whole lines in the current file.
    length: u64,
    /// Rotation is due beyond this; later than `bytes_max` after a failed one.
    rotate_at: u64,
    newest: Timestamp,
    dropped_lines: u64,
    dropped_bytes: u64,
    buffered_lines: u64,
    buffer: Vec<u8>,
    stdout: LineSplitter,
    stderr: LineSplitter,
}

impl LogWriter {
    /// Opens nothing yet: a missing directory is a reason to drop lines, not to fail.
    pub fn new(path: &Path, bytes_max: u64, files_max: u32) -> LogWriter {
        LogWriter {
            path: path.to_owned(),
            bytes_max: bytes_max.max(1),
            files_max: files_max.max(2),
            file: None,
            length: 0,
            rotate_at: bytes_max.max(1),
            newest: Timestamp::UNIX_EPOCH,
            dropped_lines: 0,
            dropped_bytes: 0,
            buffered_lines: 0,
            buffer: Vec::new(),
            stdout: LineSplitter::default(),
            stderr: LineSplitter::default(),
        }
    }

    /// Makes the file if it is not there, so that a silent container has a log too.
    pub fn open(&mut self) -> io::Result<()> {
        if self.file.is_none() {
            let file = file::append_nofollow(&self.path, LOG_MODE)?;
            self.length = file.metadata()?.len();
            self.file = Some(file);
        }
        Ok(())
    }

    /// Writes what the container wrote at `now`; an unfinished line waits for its end.
    pub fn write(&mut self, stream: Stream, bytes: &[u8], now: Timestamp) {
        self.with_splitter(stream, |this, splitter| {
            splitter.push(bytes, |tag, text| this.line(now, stream, tag, text));
        });
        self.flush(now);
    }

    /// The container has ended: what is unfinished is written as a part.
    pub fn finish(&mut self, now: Timestamp) {
        for stream in [Stream::Stdout, Stream::Stderr] {
            self.with_splitter(stream, |this, splitter| {
                splitter.finish(|tag, text| this.line(now, stream, tag, text));
            });
        }
        self.flush(now);
        self.buffer = Vec::new();
    }

    /// Lines lost for lack of space since the last marker.
    pub fn dropped_lines(&self) -> u64 {
        self.dropped_lines
    }

    fn with_splitter(&mut self, stream: Stream, work: impl FnOnce(&mut Self, &mut LineSplitter)) {
        let place = |this: &mut Self| match stream {
            Stream::Stdout => std::mem::take(&mut this.stdout),
            Stream::Stderr => std::mem::take(&mut this.stderr),
        };
        let mut splitter = place(self);
        work(self, &mut splitter);
        match stream {
            Stream::Stdout => self.stdout = splitter,
            Stream::Stderr => self.stderr = splitter,
        }
    }

    fn line(&mut self, now: Timestamp, stream: Stream, tag: Tag, text: [&[u8]; 2]) {
        /// Time, stream, tag, blanks and newline.
        const FRAME_BYTES: usize = 41;
        let bytes = text[0].len() + text[1].len() + FRAME_BYTES;
        let so_far = self.length + self.buffer.len() as u64;
        if so_far > 0 && so_far + bytes as u64 > self.rotate_at {
            self.flush(now);
            self.rotate(now);
        } else if !self.buffer.is_empty() && self.buffer.len() + bytes > BUFFER_BYTES {
            self.flush(now);
        }
        if self.buffer.capacity() == 0 {
            self.buffer.reserve_exact(BUFFER_BYTES);
        }
        line::append(&mut self.buffer, now, stream, tag, text);
        self.buffered_lines += 1;
    }

    fn flush(&mut self, now: Timestamp) {
        if self.buffer.is_empty() {
            return;
        }
        match self.append(now) {
            Ok(()) => {
                self.dropped_lines = 0;
                self.dropped_bytes = 0;
            }
            Err(_why) => {
                self.dropped_lines += self.buffered_lines;
                self.dropped_bytes += self.buffer.len() as u64;
            }
        }
        self.buffered_lines = 0;
        self.buffer.clear();
        self.buffer.shrink_to(BUFFER_BYTES);
    }

    /// Marker (if something was dropped) and buffer, whole or not at all.
    fn append(&mut self, now: Timestamp) -> io::Result<()> {
        self.open()?;
        let file = self.file.as_mut().expect("was just opened");
        let mut marker = Vec::new();
        if self.dropped_lines > 0 {
            let text = format!(
                "lowtide: {} lines ({} bytes) could not be written here",
                self.dropped_lines, self.dropped_bytes
            );
            line::append(
                &mut marker,
                now,
                Stream::Stderr,
                Tag::Full,
                [text.as_bytes(), b""],
            );
        }
        let written = file
            .write_all(&marker)
            .and_then(|()| file.write_all(&self.buffer));
        match written {
            Ok(()) => {
                self.length += (marker.len() + self.buffer.len()) as u64;
                Ok(())
            }
            Err(error) => {
                let _best_effort = file.set_len(self.length);
                Err(error)
            }
        }
    }

    fn rotate(&mut self, now: Timestamp) {
        if self.length == 0 {
            return;
        }
        self.file = None;
        match self.set_aside(now) {
            Ok(()) => {
                self.length = 0;
                self.rotate_at = self.bytes_max;
                self.prune();
            }
            // The file grows on; the next try comes after as much again, not at every line.
            Err(_why) => self.rotate_at = self.length + self.bytes_max,
        }
    }

    /// Names are a second apart at least, so that their order is the order of the lines.
    fn set_aside(&mut self, now: Timestamp) -> io::Result<()> {
        let second = SignedDuration::from_secs(1);
        let mut stamp = now.max(self.newest.checked_add(second).unwrap_or(now));
        for _ in 0..NAMES_MAX {
            let suffix = line::rotation_stamp_of(stamp);
            let mut target = self.path.clone().into_os_string();
            target.push(".");
            target.push(&suffix);
            let target = PathBuf::from(target);
            let mut compressed = target.clone().into_os_string();
            compressed.push(".gz");
            let renamed = match fs::symlink_metadata(compressed) {
                Ok(_taken) => Err(io::ErrorKind::AlreadyExists.into()),
                Err(_free) => file::rename_new(&self.path, &target),
            };
            match renamed {
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(error),
                Ok(()) => {
                    self.newest = stamp;
                    return Ok(());
                }
            }
            stamp = stamp.checked_add(second).unwrap_or(stamp);
        }
        Err(io::ErrorKind::AlreadyExists.into())
    }

    /// Removes the oldest rotated files beyond `files_max`, the current one counted.
    fn prune(&self) {
        let (Some(directory), Some(current)) = (self.path.parent(), self.path.file_name()) else {
            return;
        };
        let Ok(entries) = fs::read_dir(directory) else {
            return;
        };
        let current = current.to_string_lossy();
        let mut rotated: Vec<(String, PathBuf)> = entries
            .filter_map(Result::ok)
            .filter_map(|entry| {
                let name = entry.file_name();
                let stamp = rotation_stamp(name.to_str()?, &current)?.to_owned();
                Some((stamp, entry.path()))
            })
            .collect();
        order::sort(&mut rotated);
        let keep = self.files_max as usize - 1;
        let surplus = rotated.len().saturating_sub(keep);
        for (_, path) in rotated.drain(..surplus) {
            let _best_effort = fs::remove_file(path);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_700_000_000 + second).expect("in range")
    }

    fn texts(directory: &Path) -> Vec<String> {
        let mut files: Vec<PathBuf> = fs::read_dir(directory)
            .expect("list")
            .map(|entry| entry.expect("entry").path())
            .collect();
        files.sort();
        // The current file sorts first but is the newest.
        files.rotate_left(1);
        let mut all = Vec::new();
        for file in files {
            let text = fs::read_to_string(file).expect("text");
            all.extend(
                text.lines()
                    .map(|line| line[line.len().min(41 - 1)..].to_owned()),
            );
        }
        all
    }

    #[test]
    fn rotation_loses_no_line_and_keeps_their_order() {
        let home = tempfile::tempdir().expect("temporary directory");
        let path = home.path().join("0.log");
        let mut log = LogWriter::new(&path, 1000, 1000);
        for number in 0..500 {
            // All within one second: names must not collide.
            log.write(Stream::Stdout, format!("line {number}\n").as_bytes(), at(0));
        }
        let expected: Vec<String> = (0..500).map(|number| format!("line {number}")).collect();
        assert_eq!(texts(home.path()), expected);
        for entry in fs::read_dir(home.path()).expect("list") {
            assert!(entry.expect("entry").metadata().expect("size").len() <= 1000);
        }
    }

    #[test]
    fn no_more_files_are_kept_than_configured() {
        let home = tempfile::tempdir().expect("temporary directory");
        let path = home.path().join("0.log");
        fs::write(home.path().join("0.log.20000101-000000.gz"), "old").expect("old");
        fs::write(home.path().join("1.log.20000101-000000"), "other").expect("other");
        let mut log = LogWriter::new(&path, 100, 3);
        for number in 0..50 {
            log.write(
                Stream::Stdout,
                format!("line {number}\n").as_bytes(),
                at(number),
            );
        }
        let mut names: Vec<String> = fs::read_dir(home.path())
            .expect("list")
            .map(|entry| {
                entry
                    .expect("entry")
                    .file_name()
                    .to_string_lossy()
                    .into_owned()
            })
            .collect();
        names.sort();
        assert_eq!(names.len(), 4, "{names:?}");
        assert!(names.contains(&"1.log.20000101-000000".to_owned()));
        assert!(!names.contains(&"0.log.20000101-000000.gz".to_owned()));
    }

    #[test]
    fn a_log_that_cannot_be_written_drops_lines_and_says_so_once() {
        let home = tempfile::tempdir().expect("temporary directory");
        let directory = home.path().join("later");
        let mut log = LogWriter::new(&directory.join("0.log"), 10_000, 5);
        log.write(Stream::Stdout, b"lost\nlost too\n", at(0));
        assert_eq!(log.dropped_lines(), 2);
        fs::create_dir(&directory).expect("directory");
        log.write(Stream::Stdout, b"kept\n", at(1));
        log.write(Stream::Stdout, b"kept too\n", at(1));
        let lines = texts(&directory);
        assert!(lines[0].starts_with("lowtide: 2 lines"), "{lines:?}");
        assert_eq!(lines[1..], ["kept", "kept too"]);
    }

    #[test]
    fn a_symlink_in_the_place_of_the_log_is_not_followed() {
        let home = tempfile::tempdir().expect("temporary directory");
        let target = home.path().join("target");
        fs::write(&target, "precious").expect("target");
        let path = home.path().join("0.log");
        std::os::unix::fs::symlink(&target, &path).expect("link");
        let mut log = LogWriter::new(&path, 10_000, 5);
        assert!(log.open().is_err());
        log.write(Stream::Stdout, b"x\n", at(0));
        assert_eq!(fs::read_to_string(&target).expect("target"), "precious");
        assert_eq!(log.dropped_lines(), 1);
    }

    #[test]
    fn an_adopted_log_is_continued() {
        let home = tempfile::tempdir().expect("temporary directory");
        let path = home.path().join("0.log");
        for text in ["one\n", "two\n"] {
            LogWriter::new(&path, 10_000, 5).write(Stream::Stdout, text.as_bytes(), at(0));
        }
        assert_eq!(texts(home.path()), ["one", "two"]);
    }
}
