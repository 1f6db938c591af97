//! What a program prints until it ends, within a time and a size.
//!
//! Blocks: for threads that may wait. Whatever the program started in its process group ends with
//! its time.

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::time::Duration;

use async_io::Async;
use futures_lite::{AsyncReadExt, future};

use super::clock::SystemClock;
use super::pipe::pipe;
use super::process::{self, Ended};
use super::spawn::{Session, Spawn};
use crate::world::Clock;

/// What came of a program.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Output {
    pub ended: Ended,
    pub stdout: Vec<u8>,
    pub stderr: Vec<u8>,
}

/// Runs the program to its end. Of each stream `bytes_max` are kept; who writes more is told by a
/// broken pipe.
/// Errors: it cannot be started (`NotFound`: no such program), or `TimedOut` after `span`.
pub fn output(spawn: Spawn, bytes_max: u64, span: Duration) -> io::Result<Output> {
    let clock = SystemClock::new()?;
    let (out, err) = (pipe()?, pipe()?);
    let child = spawn
        .descriptor(1, out.write)
        .descriptor(2, err.write)
        .session(Session::Group)
        .start()?;
    // Reaped last: until then nobody else can have the number of its group.
    let ended = async {
        let (stdout, stderr) = (read(out.read, bytes_max), read(err.read, bytes_max));
        let (stdout, stderr) = future::try_zip(stdout, stderr).await?;
        let ended = child.wait().await?;
        Ok(Output {
            ended,
            stdout,
            stderr,
        })
    };
    let late = async {
        clock.sleep_until(clock.now() + span).await;
        Err(io::ErrorKind::TimedOut.into())
    };
    let finished = async_io::block_on(future::or(ended, late));
    if finished.is_err() {
        // Ended meanwhile is as good.
        let _ = process::kill_group(child.pid);
        let _ = async_io::block_on(child.wait());
    }
    finished
}

async fn read(end: OwnedFd, bytes_max: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let pipe = Async::new(File::from(end))?;
    pipe.take(bytes_max).read_to_end(&mut bytes).await?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str, span: Duration) -> io::Result<Output> {
        output(Spawn::new("sh").args(["-c", script]), 1000, span)
    }

    const LONG: Duration = Duration::from_secs(60);

    #[test]
    fn what_a_program_prints_comes_back_with_its_end() {
        let output = shell("echo out; echo err >&2; exit 3", LONG).expect("run");
        assert_eq!(output.ended, Ended::Exited(3));
        assert_eq!(
            (&output.stdout[..], &output.stderr[..]),
            (&b"out\n"[..], &b"err\n"[..])
        );
        let missing = output_of_nothing().expect_err("no such program");
        assert_eq!(missing.kind(), io::ErrorKind::NotFound);
    }

    fn output_of_nothing() -> io::Result<Output> {
        output(Spawn::new("/no/such/program"), 1, LONG)
    }

    #[test]
    fn neither_time_nor_size_is_without_bound() {
        let endless = shell("while :; do echo more; done", LONG).expect("run");
        assert_eq!(endless.stdout.len(), 1000);
        // The child of the shell holds the pipes: it has to go too.
        let late = shell("sleep 600 & wait", Duration::from_millis(100)).expect_err("late");
        assert_eq!(late.kind(), io::ErrorKind::TimedOut);
    }
}
