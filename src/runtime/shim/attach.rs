//! Clients that follow a running container's streams (`kubectl attach`, `kubectl run -it`).
//!
//! ```text
//!   container ─► output ─► log
//!                   └────► taps: the write ends of pipes that agents read
//!   agent ─► write end of the FIFO `stdin`, or the terminal's master ─► container
//! ```
//! A tap gets what is said from now on, whole: while its pipe is full the container's stream is not
//! read, as with a terminal that is stopped. That patience ends; then the tap is closed. Taps live
//! as long as the connection they came over; the container's end closes them once all is told.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use super::container::Container;
use super::server::{Caller, Shim};
use super::wire::{Answer, AttachRequest, Failure, Stdin, Terminal};
use crate::os::clock;
use crate::os::pipe::{self, Written};
use crate::os::poll::Wait;
use crate::runtime::logs::Stream;
use crate::world::BootTime;

/// Taps of one pod at the same time.
const TAPS_MAX: usize = 16;
/// How long a reader may take nothing while the container is held up for it.
const PATIENCE: Duration = Duration::from_secs(30);

/// The write end of a pipe that an agent reads.
#[derive(Debug)]
pub(super) struct Tap {
    pub peer: u64,
    stream: Stream,
    fd: OwnedFd,
    /// What the pipe had no room for.
    pending: Vec<u8>,
    deadline: Option<BootTime>,
}

/// Whether a tap still has a reader.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reader {
    There,
    Gone,
}

impl Tap {
    pub fn hears(&self, stream: Stream) -> bool {
        self.stream == stream
    }

    /// Its stream must not be read now.
    pub fn is_full(&self) -> bool {
        !self.pending.is_empty()
    }

    pub fn deadline(&self) -> Option<BootTime> {
        self.deadline
    }

    /// What to wait for: room, or only that the reader leaves.
    pub fn wait(&self) -> (BorrowedFd<'_>, Wait) {
        let wait = match self.is_full() {
            true => Wait::Writable,
            false => Wait::Closed,
        };
        (self.fd.as_fd(), wait)
    }

    pub fn send(&mut self, bytes: &[u8]) -> Reader {
        self.pending.extend_from_slice(bytes);
        self.flush()
    }

    /// Writes what there is room for.
    pub fn flush(&mut self) -> Reader {
        while self.is_full() {
            match pipe::write_now(&self.fd, &self.pending) {
                Written::Bytes(count) => {
                    self.pending.drain(..count);
                    self.deadline = None;
                }
                Written::Full => {
                    let now = clock::boot_time();
                    self.deadline.get_or_insert(now + PATIENCE);
                    return Reader::There;
                }
                Written::Gone => return Reader::Gone,
            }
        }
        Reader::There
    }

    /// After poll woke for it: writes, or finds out that nobody listens any more.
    pub fn woken(&mut self) -> Reader {
        match self.is_full() {
            true => self.flush(),
            false => Reader::Gone,
        }
    }
}

impl Shim {
    /// Answers with the container's input: a write end of its FIFO, or the terminal's master.
    pub(super) fn attach(
        &mut self,
        request: &AttachRequest,
        descriptors: Vec<OwnedFd>,
        caller: Caller,
    ) -> Result<(), Failure> {
        let name = &request.container;
        let gone = || Failure::NotFound(format!("attach to {name}: not running"));
        let failed = |error: std::io::Error| Failure::Failed(format!("attach to {name}: {error}"));
        let taps: usize = self.containers.iter().map(|c| c.taps.len()).sum();
        let streams = [
            (request.stdout, Stream::Stdout),
            (request.stderr, Stream::Stderr),
        ];
        let streams: Vec<Stream> = streams.iter().filter(|s| s.0).map(|s| s.1).collect();
        if taps + self.parting.len() + streams.len() > TAPS_MAX {
            let text = format!("attach to {name}: {TAPS_MAX} streams are followed already");
            return Err(Failure::Busy(text));
        }
        if descriptors.len() != streams.len() {
            return Err(Failure::Failed(format!("attach to {name}: no descriptors")));
        }
        let index = self.container_index(name).ok_or_else(gone)?;
        let container = &mut self.containers[index];
        if container.started.is_none() {
            return Err(gone());
        }
        let terminal = container.request.terminal;
        let input = match (terminal, request.stdin) {
            (Terminal::Yes, _) => container.terminal().map_err(failed)?,
            (Terminal::No, true) => container.input().map_err(failed)?,
            (Terminal::No, false) => None,
        };
        for (stream, fd) in streams.into_iter().zip(descriptors) {
            pipe::set_nonblocking(&fd).map_err(failed)?;
            container.taps.push(Tap {
                peer: caller.peer,
                stream,
                fd,
                pending: Vec::new(),
                deadline: None,
            });
        }
        if request.stdin {
            container.input_of = Some(caller.peer);
        }
        let stdin = match (&input, terminal) {
            (Some(_), Terminal::No) => Stdin::Open,
            (_, Terminal::Yes) => container.request.stdin,
            (None, Terminal::No) => Stdin::Closed,
        };
        let passed: Vec<BorrowedFd<'_>> = input.iter().map(AsFd::as_fd).collect();
        let answer = Answer::Attached { terminal, stdin };
        self.answer(caller, Ok(answer), &passed);
        Ok(())
    }

    /// The session that typed is over: with `stdinOnce` the container's input ends.
    pub(super) fn close_input(&mut self, name: &str, peer: u64) -> Answer {
        if let Some(index) = self.container_index(name) {
            self.containers[index].input_left(peer);
        }
        Answer::Done
    }

    /// What came over a connection goes with it.
    pub(super) fn detach(&mut self, peer: u64) {
        for container in &mut self.containers {
            container.taps.retain(|tap| tap.peer != peer);
            container.input_left(peer);
        }
        self.parting.retain(|tap| tap.peer != peer);
    }

    pub(super) fn tap_woken(&mut self, container: usize, tap: usize) {
        let Some(container) = self.containers.get_mut(container) else {
            return;
        };
        let woken = container.taps.get_mut(tap).map(Tap::woken);
        if woken == Some(Reader::Gone) {
            container.taps.remove(tap);
        }
    }

    /// A tap of a container that has ended: closed once all is told.
    pub(super) fn parting_woken(&mut self, index: usize) {
        let Some(tap) = self.parting.get_mut(index) else {
            return;
        };
        if tap.woken() == Reader::Gone || !tap.is_full() {
            self.parting.remove(index);
        }
    }

    pub(super) fn tap_deadlines(&self) -> impl Iterator<Item = BootTime> {
        let taps = self.containers.iter().flat_map(|c| &c.taps);
        taps.chain(&self.parting).filter_map(Tap::deadline)
    }

    pub(super) fn drop_late_taps(&mut self, now: BootTime) {
        let in_time = |tap: &Tap| tap.deadline().is_none_or(|at| now < at);
        for container in &mut self.containers {
            container.taps.retain(in_time);
        }
        self.parting.retain(in_time);
    }

    /// Lets the taps of an ended container tell the rest.
    pub(super) fn part(&mut self, container: &mut Container) {
        let taps = std::mem::take(&mut container.taps);
        self.parting.extend(taps.into_iter().filter(Tap::is_full));
    }
}
