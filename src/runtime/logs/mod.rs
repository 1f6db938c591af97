//! Container logs in the CRI's format: written by the shim, read by the agent.
//!
//! ```text
//!   <attempt>.log                      the current file
//!   <attempt>.log.20060102-150405      the newest rotated one, as it was
//!   <attempt>.log.20060102-150405.gz   older ones, compressed by the agent
//! ```
//! Source: Kubernetes pkg/kubelet/logs, KEP-1847; k8s.io/cri-client/pkg/logs.
//!
//! No symlink is ever followed to a log file: a container must not choose what is written to,
//! rotated or shown.

mod compress;
mod line;
mod reader;

mod writer;

pub use compress::compress_rotated;
pub use line::Stream;
pub use reader::{Follow, LogOptions, LogReader, Timestamps, read};

pub use writer::LogWriter;

/// `0.log.20060102-150405[.gz]` of `0.log`: the stamp; `None` for any other name.
fn rotation_stamp<'a>(name: &'a str, current: &str) -> Option<&'a str> {
    let rest = name.strip_prefix(current)?.strip_prefix('.')?;
    let stamp = rest.strip_suffix(".gz").unwrap_or(rest);
    let digit = |i: usize, b: u8| match i {
        8 => b == b'-',
        _ => b.is_ascii_digit(),
    };
    let well_formed = stamp.len() == 15 && stamp.bytes().enumerate().all(|(i, b)| digit(i, b));
    well_formed.then_some(stamp)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_rotated_files_of_this_log_are_recognised() {
        for (name, stamp) in [
            ("0.log.20060102-150405", Some("20060102-150405")),
            ("0.log.20060102-150405.gz", Some("20060102-150405")),
            ("0.log.20060102-150405.gz.tmp", None),
            ("0.log", None),
            ("1.log.20060102-150405", None),
            ("0.log.2006010-2150405", None),
            ("0.log.20060102-15040x", None),
        ] {
            assert_eq!(rotation_stamp(name, "0.log"), stamp, "{name}");
        }
    }
}
