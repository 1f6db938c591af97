//! One living container of a shim: its init, its output, its records.
//!
//! ```text
//!   Starting ─► Running ─► (exit.json written, forgotten)
//!       └── the runtime failed ──────────┘
//! ```

use std::fs;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;

use super::attach::{Reader, Tap};
use super::record::{
    self, ContainerDirectory, ContainerRecord, ExitCause, ExitRecord, UNKNOWN_CODE,
};
use super::watch::Watched;
use super::wire::{RunRequest, Started, Stdin, Terminal, VERSION};
use crate::os::clock;
use crate::os::file;
use crate::os::pipe::{self, Read};
use crate::os::process::{self, Ended, ProcessIdentity};
use crate::os::socket;
use crate::runtime::logs::{LogWriter, Stream};
use crate::world::Stamp;

/// Read at once from one stream, so that one loud container does not keep the others waiting.
pub const CHUNK_BYTES: usize = 4096;
/// What is still taken from one stream after the init has ended: four times a pipe's capacity. A
/// descendant that writes on is not waited for.
const DRAIN_BYTES_MAX: usize = 256 * 1024;
/// cgroup event files have a handful of lines.
const EVENTS_BYTES_MAX: u64 = 4096;

/// A stream of the container that is read here.
#[derive(Debug)]
pub struct Output {
    pub stream: Stream,
    fd: OwnedFd,
}

impl AsFd for Output {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

#[derive(Debug)]
pub struct Container {
    pub request: RunRequest,
    pub directory: ContainerDirectory,
    pub started: Option<Started>,
    /// The init's descriptor once it runs.
    pub init: Option<Watched>,
    pub outputs: Vec<Output>,
    log: Option<LogWriter>,
    /// Held so that a reader of a quiet standard input waits instead of seeing its end.
    stdin: Option<OwnedFd>,
    /// Clients that follow; see `attach`.
    pub taps: Vec<Tap>,
    /// The connection of the client that types.
    pub input_of: Option<u64>,
}

impl Container {
    /// Opens log and FIFOs. A log that cannot be opened does not stop a container.
    pub fn open(request: RunRequest, directory: ContainerDirectory) -> io::Result<Container> {
        let log = request.log.as_ref().map(|config| {
            let mut log = LogWriter::new(&config.path, config.bytes_max, config.files_max);
            let _dropped_and_counted = log.open();
            log
        });
        let mut container = Container {
            directory,
            started: None,
            init: None,
            outputs: Vec::new(),
            log,
            stdin: None,
            taps: Vec::new(),
            input_of: None,
            request,
        };
        match container.request.terminal {
            Terminal::No => {
                for (stream, name) in [(Stream::Stdout, "stdout"), (Stream::Stderr, "stderr")] {
                    let fd = pipe::open_fifo(&container.directory.file(name))?;
                    container.outputs.push(Output { stream, fd });
                }
            }
            Terminal::Yes => {}
        }
        match container.request.stdin {
            Stdin::Open => {
                container.stdin = Some(pipe::open_fifo(&container.directory.file("stdin"))?);
            }
            Stdin::Closed => {}
        }
        Ok(container)
    }

    /// Standard descriptors for the runtime, which hands them on to the container.
    pub fn stdio(&self) -> io::Result<[Option<OwnedFd>; 3]> {
        let child = |name| pipe::open_fifo_for_child(&self.directory.file(name)).map(Some);
        let stdin = match self.request.stdin {
            Stdin::Open if self.request.stdin_once => {
                let reader = pipe::open_fifo_reader_for_child(&self.directory.file("stdin"))?;
                Some(reader)
            }
            Stdin::Open => child("stdin")?,
            Stdin::Closed => None,
        };
        match self.request.terminal {
            Terminal::No => Ok([stdin, child("stdout")?, child("stderr")?]),
            Terminal::Yes => Ok([None, None, None]),
        }
    }

    /// The terminal's master, from the runtime.
    pub fn attach_terminal(&mut self, master: OwnedFd) -> io::Result<()> {
        pipe::set_nonblocking(&master)?;
        self.outputs.push(Output {
            stream: Stream::Stdout,
            fd: master,
        });
        Ok(())
    }

    /// Another descriptor of the terminal, if this shim has it.
    pub fn terminal(&self) -> io::Result<Option<OwnedFd>> {
        let master = self.outputs.first().map(|output| output.fd.try_clone());
        master.transpose()
    }

    /// A write end of the input, unless it is closed.
    pub fn input(&self) -> io::Result<Option<OwnedFd>> {
        let path = self.directory.file("stdin");
        let open = self.stdin.as_ref().map(|_| pipe::open_fifo_writer(&path));
        open.transpose()
    }

    /// With `stdinOnce` the input ends with the client that typed; a terminal's never does.
    /// Source: containerd's CRI plugin (container_io.go, Attach).
    pub fn input_left(&mut self, peer: u64) {
        if self.input_of == Some(peer) {
            self.input_of = None;
            if self.request.stdin_once && self.request.terminal == Terminal::No {
                self.stdin = None;
            }
        }
    }

    pub fn save(&self, runtime: Option<ProcessIdentity>) -> io::Result<()> {
        let record = ContainerRecord {
            version: VERSION,
            request: self.request.clone(),
            runtime,
            started: self.started,
        };
        record::write(&self.directory.file("shim.json"), &record)
    }

    /// Reads one chunk of an output into the log. Answers whether there may be more.
    pub fn read_output(&mut self, index: usize, chunk: &mut [u8]) -> Read {
        let Some(output) = self.outputs.get(index) else {
            return Read::Empty;
        };
        let read = pipe::read_now(output, chunk).unwrap_or(Read::End);
        match read {
            Read::Bytes(count) => {
                if let Some(log) = &mut self.log {
                    log.write(output.stream, &chunk[..count], clock::wall_time());
                }
                let stream = output.stream;
                self.taps.retain_mut(|tap| {
                    !tap.hears(stream) || tap.send(&chunk[..count]) == Reader::There
                });
            }
            Read::Empty => {}
            // A terminal that nobody has open any more would be readable for ever.
            Read::End => drop(self.outputs.remove(index)),
        }
        read
    }

    /// Takes what the container has written before its end, and closes its log and streams.
    fn drain(&mut self, chunk: &mut [u8]) {
        let mut index = 0;
        while index < self.outputs.len() {
            let mut taken = 0;
            loop {
                match self.read_output(index, chunk) {
                    Read::Bytes(count) if taken + count < DRAIN_BYTES_MAX => taken += count,
                    Read::Bytes(_) | Read::Empty => {
                        index += 1;
                        break;
                    }
                    Read::End => break,
                }
            }
        }
        if let Some(log) = &mut self.log {
            log.finish(clock::wall_time());
        }
        self.outputs.clear();
        self.stdin = None;
    }

    /// Records the end. `ended` is `None` if nobody saw it.
    pub fn finish(&mut self, ended: Option<Ended>, chunk: &mut [u8]) -> io::Result<()> {
        // Before anybody can remove the cgroup: the record is what the agent waits for.
        let oom_killed = self.oom_killed();
        self.drain(chunk);
        self.write_exit(ExitRecord {
            version: VERSION,
            code: ended.map_or(UNKNOWN_CODE, Ended::code),
            signal: ended.and_then(Ended::signal),
            oom_killed,
            cause: match ended {
                Some(_) => ExitCause::Seen,
                None => ExitCause::Unknown,
            },
            started: self.started.map(|started| started.at),
            finished: clock::stamp(),
        })
    }

    /// Records that the command never ran. What the runtime wrote into the streams is no output.
    pub fn finish_unstarted(&mut self, code: i32, message: &str) -> io::Result<()> {
        self.outputs.clear();
        self.stdin = None;
        let finished: Stamp = clock::stamp();
        self.write_exit(ExitRecord {
            version: VERSION,
            code,
            signal: None,
            oom_killed: false,
            cause: ExitCause::NeverStarted(message.to_owned()),
            started: None,
            finished,
        })
    }

    fn write_exit(&self, exit: ExitRecord) -> io::Result<()> {
        record::write(&self.directory.file("exit.json"), &exit)
    }

    fn oom_killed(&self) -> bool {
        let Some(path) = &self.request.oom_events else {
            return false;
        };
        let text = file::read_bounded(path, EVENTS_BYTES_MAX).unwrap_or_default();
        oom_kills(&String::from_utf8_lossy(&text)) > 0
    }
}

/// A console socket: where we listen, and the short name that the runtime is given.
#[derive(Debug)]
pub struct Console {
    pub listener: OwnedFd,
    pub short: PathBuf,
    path: PathBuf,
    /// Keeps `/proc/PID/fd/N` of `short` alive.
    _directory: OwnedFd,
}

impl Console {
    /// `serial` tells the terminals of one container apart.
    pub fn in_directory(directory: &ContainerDirectory, serial: u64) -> io::Result<Console> {
        let name = format!("console-{serial}.sock");
        let path = directory.file(&name);
        let listener = socket::listen_stream(&path, 1)?;
        let held = OwnedFd::from(fs::File::open(directory.path())?);
        let (own, number) = (process::own_pid(), held.as_raw_fd());
        let short = PathBuf::from(format!("/proc/{own}/fd/{number}/{name}"));
        Ok(Console {
            listener,
            short,
            path,
            _directory: held,
        })
    }

    /// The terminal that the runtime has sent before it ended.
    pub fn receive(&self) -> io::Result<OwnedFd> {
        let missing = || io::Error::new(io::ErrorKind::NotFound, "no terminal came");
        let peer = socket::accept(self.listener.as_fd())?.ok_or_else(missing)?;
        let mut name = [0; 256];
        match socket::receive_message(peer.as_fd(), &mut name)? {
            socket::Received::Message(_, mut passed) => passed.pop().ok_or_else(missing),
            socket::Received::Closed => Err(missing()),
        }
    }
}

impl Drop for Console {
    fn drop(&mut self) {
        let _best_effort = fs::remove_file(&self.path);
    }
}

/// `oom_kill N` of memory.events (v2) or memory.oom_control (v1).
fn oom_kills(text: &str) -> u64 {
    let value = text.lines().find_map(|line| line.strip_prefix("oom_kill "));
    value.and_then(|n| n.trim().parse().ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn oom_kills_are_read_from_both_cgroup_versions() {
        for (text, kills) in [
            (
                "low 0\nhigh 0\nmax 12\noom 3\noom_kill 2\noom_group_kill 0\n",
                2,
            ),
            ("oom_kill_disable 0\nunder_oom 0\noom_kill 1\n", 1),
            ("oom_kill_disable 1\nunder_oom 0\n", 0),
            ("", 0),
        ] {
            assert_eq!(oom_kills(text), kills, "{text:?}");
        }
    }
}
