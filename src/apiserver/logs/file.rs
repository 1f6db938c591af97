//! A log file as a stream: its end first, then what is added, across rotation.
//!
//! ```text
//!   open ─► seek to the last N records ─► read ─► end of file ─┬─ not followed ─► end
//!                                           ▲                  └─ followed: wait
//!                                           └── grown, or another file at the path ──┘
//!                                               container gone and nothing left ─► end
//! ```
//!
//! File reads run on the blocking pool: a card that stalls holds up this reader only.

use std::fs::File;
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use blocking::unblock;
use bytes::Bytes;
use futures_lite::{Stream, stream};

use super::line::{Options, Printer};
use super::{Counted, container_status};
use crate::object::Key;
use crate::registry::Reader;
use crate::world::Clock;

/// One read.
const CHUNK_BYTES: usize = 64 << 10;

/// Longest record; the shim splits at 16 KiB, so a longer one is no log of ours.
const RECORD_BYTES_MAX: usize = 1 << 20;

/// How often a followed file is looked at. Only while somebody follows.
const LOOK_PERIOD: Duration = Duration::from_millis(200);

/// Whose log is followed, and until when.
pub struct Follow {
    pub reader: Reader,
    pub clock: Rc<dyn Clock>,
    pub key: Key,
    pub uid: String,
    pub container: String,
    pub attempt: u64,
    pub _counted: Counted,
}

impl Follow {
    /// Whether this instance of the container can still write.
    fn goes_on(&self) -> bool {
        let Some(object) = self.reader.get(&self.key).filter(|o| o.uid() == self.uid) else {
            return false;
        };
        let status = container_status(&object.body, &self.container);
        status["state"]["running"].is_object() && status["restartCount"] == self.attempt
    }

    async fn wait(&self) {
        let clock = &self.clock;
        clock.sleep_until(clock.now() + LOOK_PERIOD).await;
    }
}

pub struct LogStream {
    path: PathBuf,
    file: Arc<File>,
    offset: u64,
    /// The beginning of a record whose end has not been read yet.
    begun: Vec<u8>,
    printer: Printer,
    follow: Option<Follow>,
    /// What rotation has put in the place of `file`.
    rotated: Option<File>,
    /// The container had ended before the last read: what that read leaves is the end.
    last_look: bool,
}

impl LogStream {
    /// Errors: the file cannot be opened or read, with its path.
    pub async fn open(
        path: PathBuf,
        options: Options,
        follow: Option<Follow>,
    ) -> Result<LogStream, String> {
        let (at, tail) = (path.clone(), options.tail_lines);
        let opened = unblock(move || -> io::Result<(File, u64)> {
            let file = File::open(&at)?;
            let offset = match tail {
                Some(records) => start_of_tail(&file, records)?,
                None => 0,
            };
            Ok((file, offset))
        });
        let (file, offset) = opened
            .await
            .map_err(|error| format!("open {}: {error}", path.display()))?;
        Ok(LogStream {
            path,
            file: Arc::new(file),
            offset,
            begun: Vec::new(),
            printer: Printer::new(options),
            follow,
            rotated: None,
            last_look: false,
        })
    }

    pub fn bytes(self) -> impl Stream<Item = Bytes> {
        stream::unfold(self, |mut log| async move {
            let bytes = log.next().await?;
            Some((bytes, log))
        })
    }

    /// The next output; `None` at the end.
    async fn next(&mut self) -> Option<Bytes> {
        loop {
            if self.printer.is_full() {
                return None;
            }
            let (file, offset) = (self.file.clone(), self.offset);
            let chunk = unblock(move || read_at(&file, offset)).await.ok()?;
            if chunk.is_empty() {
                self.at_end().await?;
                continue;
            }
            self.offset += chunk.len() as u64;
            let out = self.take(&chunk);
            if !out.is_empty() {
                return Some(out.into());
            }
        }
    }

    /// Whole records go to the printer, the rest waits for its end.
    fn take(&mut self, chunk: &[u8]) -> Vec<u8> {
        let mut out = Vec::with_capacity(chunk.len());
        for piece in chunk.split_inclusive(|byte| *byte == b'\n') {
            match piece.strip_suffix(b"\n") {
                Some(end) if self.begun.is_empty() => self.printer.record(end, &mut out),
                Some(end) => {
                    self.begun.extend_from_slice(end);
                    self.printer.record(&self.begun, &mut out);
                    self.begun.clear();
                }
                None if self.begun.len() + piece.len() > RECORD_BYTES_MAX => self.begun.clear(),
                None => self.begun.extend_from_slice(piece),
            }
        }
        out
    }

    /// Decides at the end of the file whether to look again; `None` ends the stream.
    async fn at_end(&mut self) -> Option<()> {
        let follow = self.follow.as_ref()?;
        let (path, inode) = (self.path.clone(), self.file.metadata().ok()?.ino());
        if let Some(next) = self.rotated.take() {
            self.file = Arc::new(next);
            self.offset = 0;
            self.begun.clear();
            return Some(());
        }
        // The old file may have grown between our read and its rotation: it is read once more.
        self.rotated = unblock(move || opened_anew(&path, inode)).await;
        if self.rotated.is_some() {
            return Some(());
        }
        if self.last_look {
            return None;
        }
        // What was written between that read and the container's end is read once more.
        self.last_look = !follow.goes_on();
        if !self.last_look {
            follow.wait().await;
        }
        Some(())
    }
}

fn read_at(file: &File, offset: u64) -> io::Result<Vec<u8>> {
    let mut chunk = vec![0; CHUNK_BYTES];
    let read = file.read_at(&mut chunk, offset)?;
    chunk.truncate(read);
    Ok(chunk)
}

/// The file that rotation has put at the path, if it is another one.
fn opened_anew(path: &Path, inode: u64) -> Option<File> {
    let file = File::open(path).ok()?;
    (file.metadata().ok()?.ino() != inode).then_some(file)
}

/// Where the last `records` records begin.
fn start_of_tail(file: &File, records: u64) -> io::Result<u64> {
    let end = file.metadata()?.len();
    if records == 0 {
        return Ok(end);
    }
    let (mut from, mut found) = (end, 0);
    while from > 0 {
        let start = from.saturating_sub(CHUNK_BYTES as u64);
        let mut chunk = read_at(file, start)?;
        chunk.truncate(usize::try_from(from - start).unwrap_or(usize::MAX));
        for (index, byte) in chunk.iter().enumerate().rev() {
            let at = start + index as u64;
            // The line feed that ends the last record begins no other.
            if *byte == b'\n' && at + 1 < end {
                found += 1;
                if found == records {
                    return Ok(at + 1);
                }
            }
        }
        from = start;
    }
    Ok(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    #[test]
    fn the_tail_begins_at_the_right_record() {
        let mut file = tempfile::tempfile().expect("temporary file");
        let record = "x".repeat(999);
        for _ in 0..200 {
            writeln!(file, "{record}").expect("write");
        }
        let table = [
            (0, 200_000),
            (1, 199_000),
            (70, 130_000),
            (200, 0),
            (500, 0),
        ];
        for (records, offset) in table {
            assert_eq!(
                start_of_tail(&file, records).expect("read"),
                offset,
                "{records}"
            );
        }
    }
}
