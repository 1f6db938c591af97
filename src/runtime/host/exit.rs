//! What an ended container is reported as: reason, and its last words.
//!
//! The termination message is read from a file the container could write to: never through a
//! symlink, never more than its tail.

use std::io::{self, Read, Seek, SeekFrom};
use std::path::Path;

use crate::os::file::open_nofollow;
use crate::world::{Exit, Stamp, TerminationMessagePolicy};

/// Source: Kubernetes pkg/kubelet/container, MaxContainerTerminationMessageLength.
const MESSAGE_BYTES_MAX: u64 = 4096;
/// Source: Kubernetes, MaxContainerTerminationMessageLogLength and …LogLines.
const LOG_MESSAGE_BYTES_MAX: usize = 2048;
const LOG_MESSAGE_LINES_MAX: usize = 80;
/// 80 lines of the log with their time stamps; longer lines only shorten what is shown.
const LOG_TAIL_BYTES: u64 = 32 * 1024;

/// Whether the kernel killed a process of the container for want of memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Memory {
    Sufficed,
    RanOut,
}

/// The raw facts of an end.
#[derive(Clone, Copy, Debug)]
pub struct Ending {
    pub code: i32,
    pub signal: Option<i32>,
    pub memory: Memory,
    pub started: Option<Stamp>,
    pub finished: Stamp,
}

/// Turns facts and last words into what the pod's status shows.
pub fn exit(ending: &Ending, message: String) -> Exit {
    let reason = match (ending.memory, ending.code) {
        (_, 0) => "Completed",
        (Memory::RanOut, _) => "OOMKilled",
        (Memory::Sufficed, _) => "Error",
    };
    Exit {
        code: ending.code,
        signal: ending.signal,
        reason: reason.to_string(),
        message,
        started: ending.started,
        finished: ending.finished,
    }
}

/// An instance that ended where nobody saw how (shim killed, power cut of RUN).
pub fn unseen(started: Option<Stamp>, finished: Stamp) -> Exit {
    Exit {
        code: 137,
        signal: None,
        reason: "ContainerStatusUnknown".to_string(),
        message: "The container could not be located when the pod was terminated".to_string(),
        started,
        finished,
    }
}

/// An instance whose command could not be started. `code` 126, 127 or 128.
pub fn not_started(code: i32, message: &str, finished: Stamp) -> Exit {
    Exit {
        code,
        signal: None,
        reason: "StartError".to_string(),
        message: cut(message.as_bytes()),
        started: None,
        finished,
    }
}

/// The container's last words: its termination log, else (if so wished and it failed) its log's
/// tail. Unreadable files are empty messages. Blocking.
pub fn last_words(
    termination_log: &Path,
    policy: TerminationMessagePolicy,
    log: &Path,
    code: i32,
) -> String {
    let message = tail(termination_log, MESSAGE_BYTES_MAX).unwrap_or_default();
    if !message.is_empty() {
        return cut(&message);
    }
    match policy {
        TerminationMessagePolicy::FallbackToLogsOnError if code != 0 => {
            log_message(&tail(log, LOG_TAIL_BYTES).unwrap_or_default())
        }
        TerminationMessagePolicy::FallbackToLogsOnError | TerminationMessagePolicy::File => {
            String::new()
        }
    }
}

fn cut(message: &[u8]) -> String {
    let excess = message.len().saturating_sub(MESSAGE_BYTES_MAX as usize);
    String::from_utf8_lossy(&message[excess..]).into_owned()
}

fn tail(path: &Path, bytes_max: u64) -> io::Result<Vec<u8>> {
    let mut file = open_nofollow(path)?;
    let length = file.metadata()?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(bytes_max)))?;
    let mut bytes = Vec::new();
    file.take(bytes_max).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// The text of the last lines of a CRI log (`time stream P|F text`), without their heads.
fn log_message(log: &[u8]) -> String {
    let mut text: Vec<u8> = Vec::new();
    let lines: Vec<&[u8]> = log.split_inclusive(|byte| *byte == b'\n').collect();
    let first = lines.len().saturating_sub(LOG_MESSAGE_LINES_MAX);
    for line in &lines[first..] {
        let mut fields = line.splitn(4, |byte| *byte == b' ');
        let partial = fields.nth(2) == Some(b"P");
        // The first line of the tail may be half of one: it has no text field then.
        let Some(content) = fields.next() else {
            continue;
        };
        match partial {
            true => text.extend(content.strip_suffix(b"\n").unwrap_or(content)),
            false => text.extend(content),
        }
    }
    let excess = text.len().saturating_sub(LOG_MESSAGE_BYTES_MAX);
    String::from_utf8_lossy(&text[excess..]).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    fn ending(code: i32, memory: Memory) -> Ending {
        let at = Stamp {
            boot: crate::world::BootTime::default(),
            wall: jiff::Timestamp::UNIX_EPOCH,
        };
        Ending {
            code,
            signal: None,
            memory,
            started: Some(at),
            finished: at,
        }
    }

    #[test]
    fn reasons_follow_code_and_memory() {
        for (code, memory, reason) in [
            (0, Memory::Sufficed, "Completed"),
            (0, Memory::RanOut, "Completed"),
            (1, Memory::Sufficed, "Error"),
            (137, Memory::RanOut, "OOMKilled"),
            (137, Memory::Sufficed, "Error"),
        ] {
            assert_eq!(exit(&ending(code, memory), String::new()).reason, reason);
        }
    }

    #[test]
    fn the_message_is_the_files_tail_else_the_logs() {
        let directory = tempfile::tempdir().expect("a directory");
        let (file, log) = (directory.path().join("m"), directory.path().join("0.log"));
        let lines = "2026-01-01T00:00:00.0Z stderr F one\n2026-01-01T00:00:00.0Z stdout P tw\n\
                     2026-01-01T00:00:00.0Z stdout F o\n";
        fs::write(&log, lines).expect("log");
        let fallback = TerminationMessagePolicy::FallbackToLogsOnError;
        assert_eq!(last_words(&file, fallback, &log, 1), "one\ntwo\n");
        assert_eq!(last_words(&file, fallback, &log, 0), "");
        assert_eq!(
            last_words(&file, TerminationMessagePolicy::File, &log, 1),
            ""
        );
        fs::write(&file, vec![b'x'; 5000]).expect("message");
        assert_eq!(last_words(&file, fallback, &log, 1).len(), 4096);
    }

    #[test]
    fn a_link_in_the_messages_place_is_not_followed() {
        let directory = tempfile::tempdir().expect("a directory");
        let secret = directory.path().join("secret");
        fs::write(&secret, "secret").expect("secret");
        let link = directory.path().join("m");
        std::os::unix::fs::symlink(&secret, &link).expect("link");
        let policy = TerminationMessagePolicy::File;
        assert_eq!(last_words(&link, policy, Path::new("/none"), 1), "");
    }

    #[test]
    fn a_long_log_is_cut_by_lines_and_bytes() {
        let line = |n: usize| format!("2026-01-01T00:00:00.0Z stdout F {n}\n");
        let log: String = (0..100).map(line).collect();
        let text = log_message(log.as_bytes());
        assert_eq!(text.lines().next(), Some("20"));
        let long = format!("t s F {}\n", "y".repeat(4000));
        assert_eq!(log_message(long.as_bytes()).len(), LOG_MESSAGE_BYTES_MAX);
    }
}
