//! The shim's process: one thread, one poll, no runtime.
//!
//! ```text
//!            ┌───────────────────────── poll, or the nearest deadline ◄───────────────────────┐
//!            ├─ output readable ──► log                                                       │
//!            ├─ SIGCHLD ──► reap all ──► runtime done | exec ended | pause ended | exit.json ─┤
//!            ├─ request ──► start runtime, signal, list … ──► answer now or when it is done ──┤
//!            └─ deadline ──► kill the runtime | the exec with its descendants ────────────────┘
//! ```
//! Records are written before anybody is told. A client that does not read is hung up on: it
//! connects again and reads the records. Nothing a client does can end a container but `Signal`.

use std::fs::{self, DirBuilder, File};
use std::io::{self, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::PathBuf;
use std::time::Duration;

use super::attach::Tap;
use super::container::{CHUNK_BYTES, Container};
use super::exec::Exec;
use super::infra::Infra;
use super::job::Job;
use super::record::PodDirectory;
use super::watch::LOOK_AGAIN;
use super::wire::{
    self, Answer, Call, ExecEnd, Failure, Listed, ListedState, Listing, MESSAGE_BYTES_MAX, Message,
    Request, VERSION,
};
use crate::os::early::Arguments;
use crate::os::pipe::Read;
use crate::os::poll::{self, Wait};
use crate::os::process::{self, Ended, ProcessIdentity};
use crate::os::signal::{self, Signal, Signals};
use crate::os::socket::{self, Received};
use crate::os::{allocator, clock, file};
use crate::world::{BootTime, Uid};

/// The agent, one that is replacing it, and room for a curious administrator.
const PEERS_MAX: usize = 8;
/// Containers of one pod that live at the same time.
pub(super) const CONTAINERS_MAX: usize = 64;
/// Commands inside the pod's containers at the same time: probes, hooks, kubectl.
pub(super) const EXECS_MAX: usize = 32;
/// Requests read from one peer before the others get their turn.
const REQUESTS_MAX: usize = 16;
/// The shim's own messages; beyond, they are not written.
const JOURNAL_BYTES_MAX: u64 = 64 * 1024;
/// Buffers in one allocation above malloc's mmap threshold (128 KiB): the pages of it that are
/// never used cost nothing.
const SCRATCH_BYTES: usize = 160 * 1024;

/// Who waits for an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Caller {
    pub peer: u64,
    pub number: u64,
}

struct Peer {
    key: u64,
    socket: OwnedFd,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Serving,
    /// SIGTERM came: end as soon as nothing is left to watch.
    Leaving,
    /// Asked to end; pause is being waited for.
    Stopping(Caller),
}

pub(super) struct Shim {
    pub directory: PodDirectory,
    listener: OwnedFd,
    signals: Signals,
    peers: Vec<Peer>,
    pub infra: Option<Infra>,
    pub containers: Vec<Container>,
    pub jobs: Vec<Job>,
    pub execs: Vec<Exec>,
    /// Taps of ended containers that have something left to tell.
    pub parting: Vec<Tap>,
    pub strays: Vec<(i32, Ended)>,
    serial: u64,
    phase: Phase,
    pub scratch: Vec<u8>,
    /// A request was handled since the heap was trimmed.
    untidy: bool,
    journal: Option<File>,
    lock: File,
}

/// What a poll entry stands for.
#[derive(Clone, Copy)]
enum Token {
    Listener,
    Signals,
    Peer(u64),
    Output(usize, usize),
    Tap(usize, usize),
    Parting(usize),
    InfraReport,
    Adopted,
}

/// `lowtide shim --run-dir RUN UID`. Says `ready`, `locked` or a reason on standard output, once.
#[inline(never)]
pub fn main(arguments: Arguments) -> i32 {
    let Ok(report) = process::inherited_descriptor(1) else {
        return 1;
    };
    let mut report = File::from(report);
    let (text, code, shim) = match Shim::start(arguments) {
        Ok(shim) => ("ready\n".to_owned(), 0, Some(shim)),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => ("locked\n".to_owned(), 0, None),
        Err(error) => (format!("{error}\n"), 1, None),
    };
    let _nobody_listens = report.write_all(text.as_bytes());
    if let Ok(null) = file::null() {
        for number in 0..=2 {
            let _keeps_the_old_one = process::redirect(&null, number);
        }
    }
    // Number 1 is the null device now; closing it would free the number for something else.
    std::mem::forget(report);
    match shim {
        Some(shim) => shim.serve(),
        None => code,
    }
}

fn parse(arguments: Arguments) -> Option<PodDirectory> {
    let mut run_dir = None;
    let mut uid = None;
    let mut rest = arguments.iter().skip(2).filter_map(|text| text.to_str());
    while let Some(argument) = rest.next() {
        match argument.split_once('=') {
            Some(("--run-dir", value)) => run_dir = Some(PathBuf::from(value)),
            _ if argument == "--run-dir" => run_dir = rest.next().map(PathBuf::from),
            _ => uid = Uid::new(argument),
        }
    }
    Some(PodDirectory::new(&run_dir?, &uid?))
}

impl Shim {
    /// Errors: `WouldBlock` if another shim has the pod.
    fn start(arguments: Arguments) -> io::Result<Shim> {
        let usage = || io::Error::other("usage: lowtide shim --run-dir RUN UID");
        let directory = parse(arguments).ok_or_else(usage)?;
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(directory.path())?;
        let lock = file::lock(&directory.lock())?;
        // Fails for a leader of a group, who does not need it either.
        let _already_leads = process::new_session();
        process::become_subreaper()?;
        signal::block_broken_pipe()?;
        let blocked = [
            Signal::SIGCHLD,
            Signal::SIGTERM,
            Signal::SIGINT,
            Signal::SIGHUP,
        ];
        let mut shim = Shim {
            signals: Signals::block(&blocked)?,
            listener: socket::listen_seqpacket(&directory.socket(), PEERS_MAX as i32)?,
            journal: file::append_nofollow(&directory.journal(), 0o600).ok(),
            directory,
            peers: Vec::new(),
            infra: None,
            containers: Vec::new(),
            jobs: Vec::new(),
            execs: Vec::new(),
            parting: Vec::new(),
            strays: Vec::new(),
            serial: 0,
            phase: Phase::Serving,
            scratch: vec![0; SCRATCH_BYTES],
            untidy: true,
            lock,
        };
        let own = ProcessIdentity::of(process::own_pid())?;
        let text = format!("{} {}\n", own.pid, own.start_ticks);
        file::replace(&shim.directory.shim_pid(), text.as_bytes(), 0o644)?;
        shim.adopt();
        Ok(shim)
    }

    fn serve(mut self) -> i32 {
        while !self.is_finished() {
            if let Err(error) = self.turn() {
                self.note(&format!("poll: {error}"));
                return 1;
            }
        }
        if let Phase::Stopping(caller) = self.phase {
            self.answer(caller, Ok(Answer::Done), &[]);
        }
        // Those of a shim that came after us are not ours to remove.
        if self.has_directory() {
            for path in [self.directory.socket(), self.directory.shim_pid()] {
                let _best_effort = fs::remove_file(path);
            }
        }
        0
    }

    fn is_finished(&self) -> bool {
        match self.phase {
            Phase::Serving => false,
            Phase::Leaving | Phase::Stopping(_) => self.is_idle(),
        }
    }

    /// One wait and everything that it brought.
    fn turn(&mut self) -> io::Result<()> {
        let mut ready = Vec::new();
        let tokens = {
            let (tokens, descriptors) = self.pollable();
            poll::wait(&descriptors, self.timeout(clock::boot_time()), &mut ready)?;
            tokens
        };
        // Backwards: an output that ends is removed, which moves those behind it.
        for index in ready.into_iter().rev() {
            match tokens[index] {
                Token::Output(container, output) => self.read_output(container, output),
                Token::Tap(container, tap) => self.tap_woken(container, tap),
                Token::Parting(tap) => self.parting_woken(tap),
                Token::Adopted => {}
                Token::InfraReport => self.infra_reported(),
                Token::Peer(key) => self.serve_peer(key),
                Token::Signals => self.take_signals(),
                Token::Listener => self.accept(),
            }
        }
        let now = clock::boot_time();
        self.look_at_adopted(now);
        self.enforce_deadlines(now);
        if self.untidy && self.jobs.is_empty() {
            // Requests and answers leave holes in the heap; a probe every few seconds must not make
            // every shim of a node keep them.
            allocator::trim();
            self.untidy = false;
        }
        Ok(())
    }

    /// Outputs come last, so that they are read first, before a reaped exit drains them; taps come
    /// after them, before they are sent more.
    fn pollable(&self) -> (Vec<Token>, Vec<(BorrowedFd<'_>, Wait)>) {
        let mut tokens = vec![Token::Listener, Token::Signals];
        let readable = |fd| (fd, Wait::Readable);
        let mut descriptors = vec![
            readable(self.listener.as_fd()),
            readable(self.signals.as_fd()),
        ];
        let mut wait = |token, entry| {
            tokens.push(token);
            descriptors.push(entry);
        };
        for (index, tap) in self.parting.iter().enumerate() {
            wait(Token::Parting(index), tap.wait());
        }
        let mut add = |token, fd| wait(token, readable(fd));
        for peer in &self.peers {
            add(Token::Peer(peer.key), peer.socket.as_fd());
        }
        if let Some(infra) = &self.infra {
            if let Some(report) = &infra.report {
                add(Token::InfraReport, report.as_fd());
            }
            if let Some(fd) = infra.process.pollable() {
                add(Token::Adopted, fd);
            }
        }
        for job in &self.jobs {
            if let Some(fd) = job.process.pollable() {
                add(Token::Adopted, fd);
            }
        }
        for (index, container) in self.containers.iter().enumerate() {
            let Some(init) = &container.init else {
                continue;
            };
            if let Some(fd) = init.pollable() {
                add(Token::Adopted, fd);
            }
            for (number, output) in container.outputs.iter().enumerate() {
                let mut taps = container.taps.iter();
                if !taps.any(|tap| tap.hears(output.stream) && tap.is_full()) {
                    add(Token::Output(index, number), output.as_fd());
                }
            }
        }
        for (index, container) in self.containers.iter().enumerate() {
            for (number, tap) in container.taps.iter().enumerate() {
                wait(Token::Tap(index, number), tap.wait());
            }
        }
        (tokens, descriptors)
    }

    fn timeout(&self, now: BootTime) -> Option<Duration> {
        let inits = self.containers.iter().filter_map(|c| c.init.as_ref());
        let runtimes = self.jobs.iter().map(|job| &job.process);
        let infra = self.infra.as_ref();
        let mut watched = inits.chain(runtimes).chain(infra.map(|i| &i.process));
        if watched.any(|process| process.is_undecided()) {
            return Some(LOOK_AGAIN);
        }
        let jobs = self.jobs.iter().filter_map(Job::deadline);
        let execs = self.execs.iter().filter_map(Exec::deadline);
        let nearest = jobs
            .chain(execs)
            .chain(infra.and_then(Infra::deadline))
            .min();
        let nearest = nearest.into_iter().chain(self.tap_deadlines()).min();
        // Rounded up: waking early would mean waking twice.
        nearest.map(|at| at.since(now) + Duration::from_millis(1))
    }

    fn read_output(&mut self, container: usize, output: usize) {
        let (_, chunk) = self.scratch.split_at_mut(MESSAGE_BYTES_MAX);
        if let Some(container) = self.containers.get_mut(container) {
            match container.read_output(output, &mut chunk[..CHUNK_BYTES]) {
                Read::Bytes(_) | Read::Empty | Read::End => {}
            }
        }
    }

    fn accept(&mut self) {
        let Ok(Some(socket)) = socket::accept(self.listener.as_fd()) else {
            return;
        };
        let ours = socket::peer_uid(socket.as_fd()).is_ok_and(|u| u == process::effective_uid());
        if !ours || self.peers.len() >= PEERS_MAX {
            self.note("connection refused: a stranger, or too many");
            return;
        }
        let key = self.next_serial();
        self.peers.push(Peer { key, socket });
    }

    fn serve_peer(&mut self, key: u64) {
        for _ in 0..REQUESTS_MAX {
            let Some(peer) = self.peers.iter().find(|peer| peer.key == key) else {
                return;
            };
            let buffer = &mut self.scratch[..MESSAGE_BYTES_MAX];
            match socket::receive_message(peer.socket.as_fd(), buffer) {
                Ok(Received::Message(length, descriptors)) => {
                    match serde_json::from_slice::<Request>(&self.scratch[..length]) {
                        Ok(request) => self.handle(key, request, descriptors),
                        Err(error) => self.refuse_unreadable(key, length, &error),
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Ok(Received::Closed) | Err(_) => return self.hang_up(key),
            }
        }
    }

    /// A call that a newer agent knows and we do not still gets its answer.
    fn refuse_unreadable(&mut self, peer: u64, length: usize, error: &serde_json::Error) {
        #[derive(serde::Deserialize)]
        struct Numbered {
            number: u64,
        }
        match serde_json::from_slice::<Numbered>(&self.scratch[..length]) {
            Ok(Numbered { number }) => {
                let text = format!("this shim (version {VERSION}) does not know the call: {error}");
                self.answer(Caller { peer, number }, Err(Failure::Version(text)), &[]);
            }
            Err(_) => self.hang_up(peer),
        }
    }

    /// Ends a connection and the commands that came over it.
    fn hang_up(&mut self, key: u64) {
        self.peers.retain(|peer| peer.key != key);
        for exec in &mut self.execs {
            if exec.caller.peer == key {
                exec.cancel();
            }
        }
        self.detach(key);
        if self.is_idle() && !self.has_directory() {
            self.phase = Phase::Leaving;
        }
    }

    fn is_idle(&self) -> bool {
        self.containers.is_empty() && self.jobs.is_empty() && self.infra.is_none()
    }

    /// Whether our lock is still the one of the pod: its directory may have been removed, and even
    /// made again, without a word to us.
    fn has_directory(&self) -> bool {
        match (self.lock.metadata(), fs::metadata(self.directory.lock())) {
            (Ok(ours), Ok(there)) => (ours.dev(), ours.ino()) == (there.dev(), there.ino()),
            (Err(_), _) | (_, Err(_)) => false,
        }
    }

    fn handle(&mut self, peer: u64, request: Request, descriptors: Vec<OwnedFd>) {
        let caller = Caller {
            peer,
            number: request.number,
        };
        self.untidy = true;
        let answer = match request.call {
            Call::Hello { version } => Some(hello(version)),
            Call::StartPause(config) => self.start_infra(config, caller).err().map(Err),
            Call::StopPause => self.stop_infra(caller),
            Call::Run(run) => self.start_container(run, caller).err().map(Err),
            Call::Exec(exec) => self.start_exec(exec, descriptors, caller).err().map(Err),
            Call::Attach(attach) => self.attach(&attach, descriptors, caller).err().map(Err),
            Call::CloseInput { container } => Some(Ok(self.close_input(&container, peer))),
            Call::CancelExec { exec } => {
                let mut execs = self.execs.iter_mut();
                let same = |e: &&mut Exec| e.caller.peer == peer && e.caller.number == exec;
                if let Some(found) = execs.find(same) {
                    found.cancel();
                }
                Some(Ok(Answer::Done))
            }
            Call::Signal { container, signal } => Some(self.signal(&container, signal)),
            Call::List => Some(Ok(Answer::Listing(self.listing()))),
            Call::Shutdown => self.shut_down(caller).err().map(Err),
        };
        if let Some(result) = answer {
            self.answer(caller, result, &[]);
        }
    }

    fn signal(&self, name: &str, number: i32) -> Result<Answer, Failure> {
        let init = self
            .container(name)
            .and_then(|container| container.init.as_ref());
        let gone = || Failure::NotFound(format!("signal {number} to {name}: not running"));
        match init.ok_or_else(gone)?.fd.signal(number) {
            Ok(()) => Ok(Answer::Done),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Err(gone()),
            Err(error) => Err(Failure::Failed(format!(
                "signal {number} to {name}: {error}"
            ))),
        }
    }

    fn listing(&self) -> Listing {
        let containers = self.containers.iter().map(|container| Listed {
            container: container.request.container.clone(),
            id: container.request.id.clone(),
            state: match container.started {
                Some(started) => ListedState::Running(started),
                None => ListedState::Starting,
            },
        });
        Listing {
            pause: self.infra.as_ref().map(|infra| infra.identity),
            containers: containers.collect(),
        }
    }

    fn shut_down(&mut self, caller: Caller) -> Result<(), Failure> {
        if !self.containers.is_empty() || !self.jobs.is_empty() {
            return Err(Failure::Busy("shut down: containers still run".into()));
        }
        if let Some(infra) = &self.infra {
            let _already_gone = infra.process.fd.signal(9);
        }
        self.phase = Phase::Stopping(caller);
        Ok(())
    }

    fn take_signals(&mut self) {
        let mut children = false;
        while let Ok(Some(number)) = self.signals.take() {
            if number == Signal::SIGCHLD as i32 {
                children = true;
            } else if self.phase == Phase::Serving {
                self.phase = Phase::Leaving;
            }
        }
        if children {
            self.reap();
        }
    }

    fn enforce_deadlines(&mut self, now: BootTime) {
        let late = |deadline: Option<BootTime>| deadline.is_some_and(|at| now >= at);
        for exec in &mut self.execs {
            if late(exec.deadline()) {
                exec.time_out();
            }
        }
        self.drop_late_taps(now);
        if self
            .infra
            .as_ref()
            .is_some_and(|infra| late(infra.deadline()))
        {
            self.infra_late();
        }
        while let Some(index) = self.jobs.iter().position(|job| late(job.deadline())) {
            self.job_late(index);
        }
    }

    pub(super) fn container(&self, name: &str) -> Option<&Container> {
        self.containers.iter().find(|c| c.request.container == name)
    }

    pub(super) fn container_index(&self, name: &str) -> Option<usize> {
        self.containers
            .iter()
            .position(|c| c.request.container == name)
    }

    pub(super) fn next_serial(&mut self) -> u64 {
        self.serial += 1;
        self.serial
    }

    pub(super) fn answer(
        &mut self,
        caller: Caller,
        result: Result<Answer, Failure>,
        descriptors: &[BorrowedFd<'_>],
    ) {
        let number = caller.number;
        self.tell(
            caller.peer,
            &Message::Answer { number, result },
            descriptors,
        );
    }

    pub(super) fn tell_end(&mut self, caller: Caller, end: ExecEnd) {
        let number = caller.number;
        self.tell(caller.peer, &Message::Ended { number, end }, &[]);
    }

    /// Wakes every client; they read the records.
    pub(super) fn announce(&mut self) {
        let keys: Vec<u64> = self.peers.iter().map(|peer| peer.key).collect();
        for key in keys {
            self.tell(key, &Message::Changed, &[]);
        }
    }

    fn tell(&mut self, key: u64, message: &Message, descriptors: &[BorrowedFd<'_>]) {
        let Some(peer) = self.peers.iter().find(|peer| peer.key == key) else {
            return;
        };
        let sent = serde_json::to_vec(message)
            .map_err(io::Error::from)
            .and_then(|bytes| socket::send_message(peer.socket.as_fd(), &bytes, descriptors));
        if sent.is_err() {
            self.hang_up(key);
        }
    }

    /// Into `shim.log` beside the socket: nobody reads a shim's standard error.
    pub(super) fn note(&mut self, text: &str) {
        let Some(journal) = &mut self.journal else {
            return;
        };
        if journal
            .metadata()
            .is_ok_and(|meta| meta.len() < JOURNAL_BYTES_MAX)
        {
            let _best_effort = writeln!(journal, "{} {text}", clock::wall_time());
        }
    }
}

fn hello(version: u32) -> Result<Answer, Failure> {
    if !wire::is_understood(VERSION, version) {
        let text = format!("agent speaks version {version}, this shim {VERSION}");
        return Err(Failure::Version(text));
    }
    match ProcessIdentity::of(process::own_pid()) {
        Ok(shim) => Ok(Answer::Hello {
            version: VERSION,
            shim,
        }),
        Err(error) => Err(Failure::Failed(format!("read own identity: {error}"))),
    }
}
