//! Reads a container's log for the API: tail, since, limit, timestamps, follow. The only reader.
//!
//! ```text
//!   seek (tail) ─► chunk ─► lines ─► filter, prefix ─► bytes out
//!                    ▲ end of file: rotated? the next file : container ended? done : wait (inotify)
//! ```
//! The meaning of the options is upstream's: `tail` counts raw lines of the current file, `limit`
//! counts bytes put out, a part of a line is joined with the next by leaving out the newline.
//! Source: Kubernetes staging/src/k8s.io/cri-client/pkg/logs/logs.go.
//!
//! Never follows a symlink, never holds more than one chunk and one line.

use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use async_channel::Receiver;
use futures_lite::future;
use jiff::Timestamp;

use super::line;
use super::rotation_stamp;
use crate::object::order;
use crate::os::changes::ChangeWatch;
use crate::os::file;

const CHUNK_BYTES: usize = 32 * 1024;
/// Longer lines are none of ours (16 KiB and a frame); they are skipped.
const LINE_BYTES_MAX: usize = 64 * 1024;

/// Whether each line begins with its time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Timestamps {
    No,
    Yes,
}

/// What happens at the end of the log.
#[derive(Clone, Debug)]
pub enum Follow {
    No,
    /// Wait for more until this channel is closed (the container has ended), then read the rest.
    Until(Receiver<()>),
}

/// Which part of a log is wanted. `previous` is another instance's path, so the caller's affair.
#[derive(Clone, Debug)]
pub struct LogOptions {
    pub tail_lines: Option<u64>,
    pub since: Option<Timestamp>,
    pub limit_bytes: Option<u64>,
    pub timestamps: Timestamps,
    pub follow: Follow,
}

impl Default for LogOptions {
    fn default() -> LogOptions {
        LogOptions {
            tail_lines: None,
            since: None,
            limit_bytes: None,
            timestamps: Timestamps::No,
            follow: Follow::No,
        }
    }
}

/// Opens the log at `path` (`…/<attempt>.log`). Blocks on the disk. Errors: `NotFound` before the
/// first start.
pub fn read(path: &Path, options: LogOptions) -> io::Result<LogReader> {
    // Watched before the first look, so that nothing falls between the two.
    let watch = match options.follow {
        Follow::Until(_) => Some(ChangeWatch::new(path.parent().unwrap_or(Path::new("/")))?),
        Follow::No => None,
    };
    let mut file = file::open_nofollow(path)?;
    if let Some(lines) = options.tail_lines {
        let start = tail_start(&mut file, lines)?;
        file.seek(SeekFrom::Start(start))?;
    }
    Ok(LogReader {
        path: path.to_owned(),
        file: Some(file),
        watch,
        filter: Filter {
            since: options.since,
            left: options.limit_bytes.unwrap_or(u64::MAX),
            timestamps: options.timestamps,
            at_line_start: true,
            unfinished: Vec::new(),
        },
        follow: options.follow,
    })
}

/// A log being read.
pub struct LogReader {
    path: PathBuf,
    file: Option<File>,
    watch: Option<ChangeWatch>,
    filter: Filter,
    follow: Follow,
}

impl LogReader {
    /// The next bytes, or `None` at the end.
    pub async fn next(&mut self) -> io::Result<Option<Vec<u8>>> {
        while self.filter.left > 0 {
            // Asked before reading: what is written before the end is then read after it.
            let ended = match &self.follow {
                Follow::No => true,
                Follow::Until(end) => end.is_closed(),
            };
            match self.step().await? {
                Step::Chunk(chunk) => {
                    let out = self.filter.take(&chunk);
                    if !out.is_empty() {
                        return Ok(Some(out));
                    }
                }
                Step::MovedOn => self.filter.begin_file(),
                Step::End if ended => return Ok(None),
                Step::End => self.wait().await?,
            }
        }
        Ok(None)
    }

    /// One look at the files, on a blocking thread: they may be on a slow card.
    async fn step(&mut self) -> io::Result<Step> {
        let Some(mut file) = self.file.take() else {
            return Ok(Step::End);
        };
        let successors_of = match self.follow {
            Follow::Until(_) => Some(self.path.clone()),
            Follow::No => None,
        };
        let work = move || {
            let step = look(&mut file, successors_of.as_deref());
            (file, step)
        };
        let (file, step) = blocking::unblock(work).await;
        self.file = Some(file);
        step
    }

    async fn wait(&self) -> io::Result<()> {
        let (Some(watch), Follow::Until(end)) = (&self.watch, &self.follow) else {
            return Ok(());
        };
        let ended = async {
            // Nothing is ever sent; an error is the channel's end.
            while end.recv().await.is_ok() {}
            Ok(())
        };
        future::or(watch.changed(), ended).await
    }
}

/// What one look at the files has shown.
enum Step {
    Chunk(Vec<u8>),
    /// The file was read to its end; the one after it is open now.
    MovedOn,
    End,
}

fn look(file: &mut File, successors_of: Option<&Path>) -> io::Result<Step> {
    let chunk = read_chunk(file)?;
    if !chunk.is_empty() {
        return Ok(Step::Chunk(chunk));
    }
    let Some(path) = successors_of.filter(|path| is_rotated(file, path)) else {
        return Ok(Step::End);
    };
    // It may have grown between that read and its rotation.
    let chunk = read_chunk(file)?;
    if !chunk.is_empty() {
        return Ok(Step::Chunk(chunk));
    }
    match open_next(file, path) {
        Ok(next) => {
            *file = next;
            Ok(Step::MovedOn)
        }
        // Rotated or pruned just now: the directory tells of the next change.
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Step::End),
        Err(error) => Err(error),
    }
}

fn read_chunk(file: &mut File) -> io::Result<Vec<u8>> {
    let mut chunk = vec![0; CHUNK_BYTES];
    let count = file.read(&mut chunk)?;
    chunk.truncate(count);
    Ok(chunk)
}

/// Whether another file is at the path. None is there between rename and open of the shim.
fn is_rotated(file: &File, path: &Path) -> bool {
    match (inode_of(file), fs::symlink_metadata(path)) {
        (Some(ours), Ok(current)) => ours != current.ino(),
        (None, _) | (_, Err(_)) => false,
    }
}

/// The file after ours: another rotated one if more than one rotation went by.
fn open_next(file: &File, current: &Path) -> io::Result<File> {
    if let Some(path) = rotated_after(file, current) {
        return file::open_nofollow(&path);
    }
    let opened = file::open_nofollow(current)?;
    // Rotations may have gone by between looking and opening: then the current is not the next.
    match rotated_after(file, current) {
        Some(path) => file::open_nofollow(&path),
        None => Ok(opened),
    }
}

fn rotated_after(file: &File, current: &Path) -> Option<PathBuf> {
    let ours = inode_of(file);
    let mut rotated = rotated_files(current);
    let position = rotated.iter().position(|(_, inode)| Some(*inode) == ours);
    // Ours is gone when its reader was slower than the retention: what is oldest comes next.
    let next = position.map_or(0, |at| at + 1);
    rotated.drain(next..).next().map(|(path, _)| path)
}

fn inode_of(file: &File) -> Option<u64> {
    Some(file.metadata().ok()?.ino())
}

/// Listings of a directory that is being rotated in, until two agree.
const LISTINGS_MAX: u32 = 16;

/// Uncompressed rotated files of a log, oldest first. A listing may miss a file that is renamed
/// while it is made (readdir(3)), so two in a row must say the same.
fn rotated_files(current: &Path) -> Vec<(PathBuf, u64)> {
    let mut listing = list_rotated(current);
    for _ in 0..LISTINGS_MAX {
        let again = list_rotated(current);
        if again == listing {
            break;
        }
        listing = again;
    }
    listing
}

fn list_rotated(current: &Path) -> Vec<(PathBuf, u64)> {
    let (Some(directory), Some(name)) = (current.parent(), current.file_name()) else {
        return Vec::new();
    };
    let name = name.to_string_lossy();
    let entries = fs::read_dir(directory)
        .into_iter()
        .flatten()
        .filter_map(Result::ok);
    let mut found: Vec<(PathBuf, u64)> = entries
        .filter_map(|entry| {
            let file_name = entry.file_name();
            let text = file_name.to_str()?;
            rotation_stamp(text, &name).filter(|_| !text.ends_with(".gz"))?;
            Some((entry.path(), entry.metadata().ok()?.ino()))
        })
        .collect();
    order::sort(&mut found);
    found
}

/// Where the last `lines` lines begin; reads backwards and no more than it needs.
fn tail_start(file: &mut File, lines: u64) -> io::Result<u64> {
    let length = file.metadata()?.len();
    if lines == 0 {
        return Ok(length);
    }
    let mut block = vec![0; 4096];
    let mut end = length;
    let mut newlines = 0;
    while end > 0 {
        let start = end.saturating_sub(block.len() as u64);
        let part = &mut block[..(end - start) as usize];
        file.seek(SeekFrom::Start(start))?;
        file.read_exact(part)?;
        for (index, _) in part.iter().enumerate().rev().filter(|(_, b)| **b == b'\n') {
            let behind = start + index as u64 + 1;
            // The newline at the very end closes the last line, it does not begin one.
            if behind == length {
                continue;
            }
            newlines += 1;
            if newlines == lines {
                return Ok(behind);
            }
        }
        end = start;
    }
    Ok(0)
}

/// Raw log bytes in, wanted bytes out.
struct Filter {
    since: Option<Timestamp>,
    /// Bytes that may still be put out.
    left: u64,
    timestamps: Timestamps,
    at_line_start: bool,
    /// A line whose end has not been read yet.
    unfinished: Vec<u8>,
}

impl Filter {
    /// What the file before left unfinished will not be finished by this one.
    fn begin_file(&mut self) {
        self.unfinished.clear();
    }

    fn take(&mut self, chunk: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        let mut rest = chunk;
        while let Some(end) = rest.iter().position(|byte| *byte == b'\n') {
            let mut whole = std::mem::take(&mut self.unfinished);
            whole.extend_from_slice(&rest[..end]);
            self.line(&whole, &mut out);
            rest = &rest[end + 1..];
        }
        if self.unfinished.len() + rest.len() <= LINE_BYTES_MAX {
            self.unfinished.extend_from_slice(rest);
        }
        out.truncate(usize::try_from(self.left).unwrap_or(usize::MAX));
        self.left -= out.len() as u64;
        out
    }

    /// `<time> <stream> <tag[:tag…]> <text>`; anything else is skipped.
    fn line(&mut self, line: &[u8], out: &mut Vec<u8>) {
        let mut fields = line.splitn(4, |byte| *byte == b' ');
        let (Some(time), Some(_stream), Some(tags)) = (fields.next(), fields.next(), fields.next())
        else {
            return;
        };
        let text = fields.next().unwrap_or_default();
        let Some(at) = str::from_utf8(time)
            .ok()
            .and_then(|t| t.parse::<Timestamp>().ok())
        else {
            return;
        };
        if self.since.is_some_and(|since| at < since) {
            return;
        }
        if self.timestamps == Timestamps::Yes && self.at_line_start {
            line::append_time(out, at);
            out.push(b' ');
        }
        out.extend_from_slice(text);
        self.at_line_start = tags.split(|byte| *byte == b':').next() != Some(b"P");
        if self.at_line_start {
            out.push(b'\n');
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::{LogWriter, Stream as LogStream};
    use super::*;

    const LOG: &str = "2020-01-01T00:00:00.000000001Z stdout F one\n\
                       2020-01-01T00:00:01.5Z stderr P tw\n\
                       2020-01-01T00:00:02Z stderr F o\n\
                       no log line\n\
                       2020-01-01T00:00:03.000000000+00:00 stdout F three three\n\
                       2020-01-01T00:00:04Z stdout F \n";

    fn collect(log: &str, options: LogOptions) -> String {
        let home = tempfile::tempdir().expect("temporary directory");
        let path = home.path().join("0.log");
        fs::write(&path, log).expect("log");
        let mut reader = read(&path, options).expect("open");
        let mut all = Vec::new();
        async_io::block_on(async {
            while let Some(bytes) = reader.next().await.expect("read") {
                all.extend(bytes);
            }
        });
        String::from_utf8(all).expect("text")
    }

    #[test]
    fn options_mean_what_they_mean_upstream() {
        let plain = LogOptions::default;
        let since: Timestamp = "2020-01-01T00:00:02Z".parse().expect("time");
        for (what, options, expected) in [
            ("all", plain(), "one\ntwo\nthree three\n\n"),
            (
                "tail",
                LogOptions {
                    tail_lines: Some(2),
                    ..plain()
                },
                "three three\n\n",
            ),
            (
                "tail more than all",
                LogOptions {
                    tail_lines: Some(99),
                    ..plain()
                },
                "one\ntwo\nthree three\n\n",
            ),
            (
                "tail nothing",
                LogOptions {
                    tail_lines: Some(0),
                    ..plain()
                },
                "",
            ),
            (
                "since",
                LogOptions {
                    since: Some(since),
                    ..plain()
                },
                "o\nthree three\n\n",
            ),
            (
                "limit",
                LogOptions {
                    limit_bytes: Some(5),
                    ..plain()
                },
                "one\nt",
            ),
            (
                "timestamps",
                LogOptions {
                    timestamps: Timestamps::Yes,
                    tail_lines: Some(5),
                    ..plain()
                },
                "2020-01-01T00:00:01.500000000Z two\n\
                 2020-01-01T00:00:03.000000000Z three three\n\
                 2020-01-01T00:00:04.000000000Z \n",
            ),
        ] {
            assert_eq!(collect(LOG, options), expected, "{what}");
        }
    }

    #[test]
    fn the_tail_is_found_in_a_file_of_many_blocks() {
        let mut log = String::new();
        for number in 0..5000 {
            log.push_str(&format!("2020-01-01T00:00:00Z stdout F {number}\n"));
        }
        for lines in [1, 2, 100, 101, 102, 4999, 5000, 5001] {
            let options = LogOptions {
                tail_lines: Some(lines),
                ..LogOptions::default()
            };
            let first = 5000_u64.saturating_sub(lines);
            let expected: String = (first..5000).map(|n| format!("{n}\n")).collect();
            assert_eq!(collect(&log, options), expected, "{lines}");
        }
    }

    #[test]
    fn following_reads_across_rotations_until_the_container_has_ended() {
        let home = tempfile::tempdir().expect("temporary directory");
        let path = home.path().join("0.log");
        let mut writer = LogWriter::new(&path, 4000, 1000);
        writer.open().expect("open");
        let (running, ended) = async_channel::bounded(1);
        let options = LogOptions {
            follow: Follow::Until(ended),
            ..LogOptions::default()
        };
        let mut reader = read(&path, options).expect("open");
        let writing = std::cell::RefCell::new(writer);
        let mut all = Vec::new();
        async_io::block_on(future::zip(
            async {
                for number in 0..2000 {
                    let at = Timestamp::from_second(1_600_000_000).expect("in range");
                    let text = format!("{number}\n");
                    writing
                        .borrow_mut()
                        .write(LogStream::Stdout, text.as_bytes(), at);
                    if number % 37 == 0 {
                        future::yield_now().await;
                    }
                }
                drop(running);
            },
            async {
                while let Some(bytes) = reader.next().await.expect("read") {
                    all.extend(bytes);
                }
            },
        ));
        let expected: String = (0..2000).map(|n| format!("{n}\n")).collect();
        assert_eq!(String::from_utf8(all).expect("text"), expected);
    }

    #[test]
    fn a_symlink_is_not_read() {
        let home = tempfile::tempdir().expect("temporary directory");
        let path = home.path().join("0.log");
        std::os::unix::fs::symlink("/etc/passwd", &path).expect("link");
        assert!(read(&path, LogOptions::default()).is_err());
    }
}
