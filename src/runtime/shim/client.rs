//! The agent's side of a shim: one connection for each pod.
//!
//! ```text
//!   connect_or_spawn ─► Connection{client, changes, driver}
//!                          client   requests, each with a deadline
//!                          changes  wake-ups; closed when the connection is lost: connect again
//!                          driver   to be spawned: reads the socket, reaps the shim we started
//! ```
//! Nothing is retried here: a lost connection is an error of every request in flight, and what
//! came of them is read from the listing after connecting again.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::fmt;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::pin::pin;
use std::rc::Rc;
use std::time::Duration;

use async_channel::{Receiver, Sender};
use async_io::Async;
use futures_lite::{AsyncReadExt, future};

use super::record::PodDirectory;
use super::wire::{
    self, Answer, AttachRequest, Call, ExecEnd, ExecRequest, Failure, Listing, MESSAGE_BYTES_MAX,
    Message, PauseConfig, Request, RunRequest, Started, Stdin, Terminal, VERSION,
};
use crate::os::pipe;
use crate::os::process::ProcessIdentity;
use crate::os::socket::{self, Received};
use crate::os::spawn::{Child, Session, Spawn};
use crate::world::{Clock, ExecOutcome, LocalFuture, RuntimeError};

/// What the node waits for the simple requests, and beyond a request's own deadline.
const ANSWER_TIME: Duration = Duration::from_secs(5);
/// Between two tries to connect to a shim that is starting.
const CONNECT_PAUSE: Duration = Duration::from_millis(20);
/// Output of a captured command that is kept; the rest is read and dropped.
/// Source: Kubernetes pkg/probe/exec, `maxReadLength`.
pub const OUTPUT_BYTES_MAX: usize = 10 * 1024;
/// A shim says one line when it is ready, or why it is not.
const READY_BYTES_MAX: usize = 1024;

/// Why a request was not done, by what the caller does next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ShimError {
    /// The shim answered.
    Refused(Failure),
    /// No shim, or the connection broke: connect (or spawn) again, then list.
    Lost(String),
    /// No answer in time.
    Timeout(String),
}

impl fmt::Display for ShimError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ShimError::Refused(
                Failure::NotFound(text)
                | Failure::Busy(text)
                | Failure::Timeout(text)
                | Failure::Version(text)
                | Failure::Failed(text)
                | Failure::Start { message: text, .. },
            )
            | ShimError::Lost(text)
            | ShimError::Timeout(text) => f.write_str(text),
        }
    }
}

impl std::error::Error for ShimError {}

impl From<ShimError> for RuntimeError {
    fn from(error: ShimError) -> RuntimeError {
        match error {
            ShimError::Refused(Failure::NotFound(text)) => RuntimeError::NotFound(text),
            ShimError::Refused(Failure::Start { code, message }) => {
                RuntimeError::Start { code, message }
            }
            ShimError::Refused(Failure::Timeout(text)) | ShimError::Timeout(text) => {
                RuntimeError::Timeout(text)
            }
            ShimError::Refused(
                Failure::Busy(text) | Failure::Version(text) | Failure::Failed(text),
            )
            | ShimError::Lost(text) => RuntimeError::Failed(text),
        }
    }
}

/// A new connection; see the module's picture.
pub struct Connection {
    pub client: Client,
    /// One wake-up may stand for many changes.
    pub changes: Receiver<()>,
    pub driver: LocalFuture<'static, ()>,
}

/// Requests to one shim. Clones share the connection.
#[derive(Clone)]
pub struct Client(Rc<Link>);

struct Link {
    socket: Async<OwnedFd>,
    clock: Rc<dyn Clock>,
    next: Cell<u64>,
    waiting: RefCell<BTreeMap<u64, Sender<Arrived>>>,
    shim: Cell<Option<ProcessIdentity>>,
    lost: Cell<bool>,
}

enum Arrived {
    Answer(Result<Answer, Failure>, Vec<OwnedFd>),
    Ended(ExecEnd),
}

/// Connects to the pod's shim and agrees on a version.
/// Errors: `Lost` when none listens.
pub async fn connect(
    directory: &PodDirectory,
    clock: Rc<dyn Clock>,
) -> Result<Connection, ShimError> {
    open(directory, clock, &mut None).await
}

/// Connects, or starts `executable shim` and connects to that. Two callers at the same time get
/// the same shim: the second start finds the lock taken.
pub async fn connect_or_spawn(
    run_dir: &Path,
    directory: &PodDirectory,
    executable: &Path,
    clock: Rc<dyn Clock>,
) -> Result<Connection, ShimError> {
    match connect(directory, clock.clone()).await {
        Err(ShimError::Lost(_)) => {}
        other => return other,
    }
    let mut child = Some(spawn(run_dir, directory, executable, &clock).await?);
    // Where somebody else's shim has the lock, it may still be on its way to listening.
    let give_up = clock.now() + ANSWER_TIME;
    loop {
        let opened = open(directory, clock.clone(), &mut child).await;
        if opened.is_ok() || clock.now() >= give_up {
            return opened;
        }
        clock.sleep_until(clock.now() + CONNECT_PAUSE).await;
    }
}

async fn spawn(
    run_dir: &Path,
    directory: &PodDirectory,
    executable: &Path,
    clock: &Rc<dyn Clock>,
) -> Result<Child, ShimError> {
    let failed = |error: io::Error| {
        let text = format!("start shim of {}: {error}", directory.path().display());
        ShimError::Refused(Failure::Failed(text))
    };
    let ends = pipe::pipe().map_err(failed)?;
    let uid = directory.path().file_name().unwrap_or_default();
    let child = Spawn::new(executable)
        .called("lowtide")
        .args(["shim", "--run-dir"])
        .arg(run_dir)
        .arg(uid)
        .descriptor(1, ends.write)
        .session(Session::Leader)
        .start()
        .map_err(failed)?;
    let mut ready = Async::new(File::from(ends.read)).map_err(failed)?;
    let mut said = Vec::new();
    let heard = async {
        let mut bounded = (&mut ready).take(READY_BYTES_MAX as u64);
        bounded.read_to_end(&mut said).await.map_err(failed)
    };
    let waited = before(clock, ANSWER_TIME, "start of the shim", heard).await;
    if let Err(error) = waited.and_then(|inner| inner.map(|_| ())) {
        let _already_gone = child.pidfd.signal(9);
        let _ended = child.wait().await;
        return Err(error);
    }
    if said == b"ready\n" || said == b"locked\n" {
        return Ok(child);
    }
    let _ended = child.wait().await;
    let why = String::from_utf8_lossy(&said).trim_end().to_owned();
    Err(failed(io::Error::other(why)))
}

async fn open(
    directory: &PodDirectory,
    clock: Rc<dyn Clock>,
    child: &mut Option<Child>,
) -> Result<Connection, ShimError> {
    let lost = |error: io::Error| {
        ShimError::Lost(format!(
            "connect to {}: {error}",
            directory.socket().display()
        ))
    };
    let socket = socket::connect_seqpacket(&directory.socket()).map_err(lost)?;
    let link = Rc::new(Link {
        socket: Async::new_nonblocking(socket).map_err(lost)?,
        clock,
        next: Cell::new(1),
        waiting: RefCell::default(),
        shim: Cell::new(None),
        lost: Cell::new(false),
    });
    let (wake, changes) = async_channel::bounded(1);
    let mut driver: LocalFuture<'static, ()> = Box::pin(drive(link.clone(), wake, child.take()));
    let client = Client(link);
    let hello = Call::Hello { version: VERSION };
    let greeting = client.ask(hello, &[], Duration::ZERO);
    let greeted = future::or(async { Some(greeting.await) }, async {
        (&mut driver).await;
        None
    });
    match greeted.await {
        Some(Ok((Answer::Hello { version, shim }, _))) => {
            if !wire::is_understood(VERSION, version) {
                let text = format!("shim speaks version {version}, this agent {VERSION}");
                return Err(ShimError::Refused(Failure::Version(text)));
            }
            client.0.shim.set(Some(shim));
        }
        Some(Ok(_)) => return Err(unexpected()),
        Some(Err(error)) => return Err(error),
        None => return Err(ShimError::Lost("the shim hung up".into())),
    }
    Ok(Connection {
        client,
        changes,
        driver,
    })
}

/// Reads until the connection ends, then reaps the shim if we started it.
async fn drive(link: Rc<Link>, wake: Sender<()>, child: Option<Child>) {
    while link.socket.readable().await.is_ok() {
        // Made anew: there is a driver for each pod, and most of them wait for days.
        let mut buffer = vec![0; MESSAGE_BYTES_MAX];
        match socket::receive_message(link.socket.as_fd(), &mut buffer) {
            Ok(Received::Message(length, descriptors)) => {
                link.dispatch(&buffer[..length], descriptors, &wake);
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Ok(Received::Closed) | Err(_) => break,
        }
    }
    link.lost.set(true);
    // Dropping the senders ends every request in flight with `Lost`.
    link.waiting.borrow_mut().clear();
    wake.close();
    if let Some(child) = child {
        let _how = child.wait().await;
    }
}

impl Link {
    fn dispatch(&self, bytes: &[u8], descriptors: Vec<OwnedFd>, wake: &Sender<()>) {
        let waiting = self.waiting.borrow();
        match serde_json::from_slice(bytes) {
            Ok(Message::Answer { number, result }) => {
                if let Some(sender) = waiting.get(&number) {
                    let _gone = sender.try_send(Arrived::Answer(result, descriptors));
                }
            }
            Ok(Message::Ended { number, end }) => {
                if let Some(sender) = waiting.get(&number) {
                    let _gone = sender.try_send(Arrived::Ended(end));
                }
            }
            Ok(Message::Changed) => {
                // Full: a wake-up is waiting already.
                let _coalesced = wake.try_send(());
            }
            Err(error) => log::warn!("message of a shim is not understood: {error}; ignored"),
        }
    }
}

impl Client {
    /// The shim's own process.
    pub fn shim(&self) -> Option<ProcessIdentity> {
        self.0.shim.get()
    }

    /// Whether the connection has ended.
    pub fn is_lost(&self) -> bool {
        self.0.lost.get()
    }

    /// Ends the connection now, whoever else holds a clone; the shim goes on.
    pub fn hang_up(&self) {
        self.0.lost.set(true);
        let _already_closed = socket::shut_down(self.0.socket.as_fd());
    }

    /// Starts the pod's infra process; resolves when its namespaces are ready.
    /// Errors: `Busy` if it runs already, `Failed` with the step that failed.
    pub async fn start_pause(&self, config: PauseConfig) -> Result<Started, ShimError> {
        let time = Duration::from_millis(config.deadline_ms);
        started(self.ask(Call::StartPause(config), &[], time).await?.0)
    }

    /// Kills the infra process and waits until it is reaped. Success if there is none.
    pub async fn stop_pause(&self) -> Result<(), ShimError> {
        done(self.ask(Call::StopPause, &[], Duration::ZERO).await?.0)
    }

    /// Creates and starts a container; resolves when its command runs, or could not.
    /// Errors: `Start` when the command cannot run; `Timeout` when the runtime hung.
    pub async fn run(&self, request: RunRequest) -> Result<Started, ShimError> {
        let time = Duration::from_millis(request.deadline_ms);
        started(self.ask(Call::Run(request), &[], time).await?.0)
    }

    /// Signals a container's init. Errors: `NotFound` if it does not run.
    pub async fn signal(&self, container: &str, signal: i32) -> Result<(), ShimError> {
        let call = Call::Signal {
            container: container.to_owned(),
            signal,
        };
        done(self.ask(call, &[], Duration::ZERO).await?.0)
    }

    pub async fn list(&self) -> Result<Listing, ShimError> {
        match self.ask(Call::List, &[], Duration::ZERO).await?.0 {
            Answer::Listing(listing) => Ok(listing),
            _ => Err(unexpected()),
        }
    }

    /// Ends pause and the shim. Errors: `Busy` while a container runs.
    pub async fn shutdown(&self) -> Result<(), ShimError> {
        done(self.ask(Call::Shutdown, &[], Duration::ZERO).await?.0)
    }

    /// Runs a command with these standard descriptors; with `Terminal::Yes` they are not used and
    /// the returned `Exec` has the terminal. Resolves when the command runs.
    /// Errors: `Start` with 126, 127, 128 when it cannot.
    pub async fn exec(
        &self,
        request: ExecRequest,
        stdio: [BorrowedFd<'_>; 3],
    ) -> Result<Exec, ShimError> {
        let time = Duration::from_millis(request.deadline_ms);
        let passed = match request.terminal {
            Terminal::Yes => &[][..],
            Terminal::No => &stdio[..],
        };
        let ticket = self.send(Call::Exec(request), passed).await?;
        let (answer, mut descriptors) = ticket.answer(time).await?;
        Ok(Exec {
            started: started(answer)?,
            terminal: descriptors.pop(),
            ticket,
        })
    }

    /// Follows a running container; `outputs` are write ends for stdout and stderr, those that the
    /// request wants. Errors: `NotFound` if it does not run, `Busy` at the bound.
    pub async fn attach(
        &self,
        request: AttachRequest,
        outputs: &[BorrowedFd<'_>],
    ) -> Result<Attached, ShimError> {
        let call = Call::Attach(request);
        let (answer, mut descriptors) = self.ask(call, outputs, Duration::ZERO).await?;
        let input = descriptors.pop();
        match answer {
            Answer::Attached {
                terminal: Terminal::Yes,
                stdin,
            } => Ok(Attached {
                stdin,
                terminal: input,
                input: None,
            }),
            Answer::Attached { stdin, .. } => Ok(Attached {
                stdin,
                terminal: None,
                input,
            }),
            _ => Err(unexpected()),
        }
    }

    /// Says that an attached client types no more. Nobody waits for the answer.
    pub fn close_input(&self, container: &str) {
        let link = &self.0;
        let request = Request {
            number: link.next.replace(link.next.get() + 1),
            call: Call::CloseInput {
                container: container.to_owned(),
            },
        };
        if let Ok(bytes) = serde_json::to_vec(&request) {
            let _the_connection_ends_it_too =
                socket::send_message(link.socket.as_fd(), &bytes, &[]);
        }
    }

    /// Runs a command to its end and keeps the head of its output, stdout and stderr together.
    pub async fn exec_captured(&self, request: ExecRequest) -> Result<ExecOutcome, ShimError> {
        let failed = |error: io::Error| {
            ShimError::Refused(Failure::Failed(format!("capture output: {error}")))
        };
        let ends = pipe::pipe().map_err(failed)?;
        let null = crate::os::file::null().map_err(failed)?;
        let stdio = [null.as_fd(), ends.write.as_fd(), ends.write.as_fd()];
        let exec = self.exec(request, stdio).await?;
        drop(ends.write);
        let output = Async::new(File::from(ends.read)).map_err(failed)?;
        let mut kept = Vec::new();
        let end = capture(output, &mut kept, exec.ended()).await;
        match end {
            ExecEnd::Exited { code } => Ok(ExecOutcome::Exited { code, output: kept }),
            ExecEnd::TimedOut => Ok(ExecOutcome::TimedOut { output: kept }),
            ExecEnd::Lost => Err(ShimError::Lost("the shim of the command is gone".into())),
        }
    }

    async fn ask(
        &self,
        call: Call,
        descriptors: &[BorrowedFd<'_>],
        time: Duration,
    ) -> Result<(Answer, Vec<OwnedFd>), ShimError> {
        self.send(call, descriptors).await?.answer(time).await
    }

    async fn send(&self, call: Call, descriptors: &[BorrowedFd<'_>]) -> Result<Ticket, ShimError> {
        let lost = |error: io::Error| ShimError::Lost(format!("send to the shim: {error}"));
        if self.is_lost() {
            return Err(ShimError::Lost("the shim hung up".into()));
        }
        let number = self.0.next.replace(self.0.next.get() + 1);
        let bytes = serde_json::to_vec(&Request { number, call })
            .map_err(|error| lost(io::Error::other(error)))?;
        if bytes.len() > MESSAGE_BYTES_MAX {
            let text = format!("request of {} bytes is too long", bytes.len());
            return Err(ShimError::Refused(Failure::Failed(text)));
        }
        // Room for an exec's answer and its end.
        let (sender, arrived) = async_channel::bounded(2);
        self.0.waiting.borrow_mut().insert(number, sender);
        let ticket = Ticket {
            link: self.0.clone(),
            number,
            arrived,
        };
        loop {
            match socket::send_message(self.0.socket.as_fd(), &bytes, descriptors) {
                Ok(()) => return Ok(ticket),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    let room = self.0.socket.writable();
                    let waited = before(&self.0.clock, ANSWER_TIME, "a busy shim", room).await?;
                    waited.map_err(lost)?;
                }
                Err(error) => return Err(lost(error)),
            }
        }
    }
}

/// What an attached client writes to.
#[derive(Debug)]
pub struct Attached {
    /// Whether the container reads its input.
    pub stdin: Stdin,
    /// The terminal's master: to write and resize, never to read.
    pub terminal: Option<OwnedFd>,
    /// A write end of the input of a container without a terminal.
    pub input: Option<OwnedFd>,
}

/// A place in the table of those who wait; gives it up when dropped.
struct Ticket {
    link: Rc<Link>,
    number: u64,
    arrived: Receiver<Arrived>,
}

impl Ticket {
    /// `time` is what the work itself may take.
    async fn answer(&self, time: Duration) -> Result<(Answer, Vec<OwnedFd>), ShimError> {
        let arrived = self.arrived.recv();
        let what = "an answer of the shim";
        match before(&self.link.clock, time + ANSWER_TIME, what, arrived).await? {
            Ok(Arrived::Answer(Ok(answer), descriptors)) => Ok((answer, descriptors)),
            Ok(Arrived::Answer(Err(failure), _)) => Err(ShimError::Refused(failure)),
            Ok(Arrived::Ended(_)) => Err(unexpected()),
            Err(_closed) => Err(ShimError::Lost("the shim hung up".into())),
        }
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.link.waiting.borrow_mut().remove(&self.number);
    }
}

/// A running command. Dropping it before its end kills the command.
pub struct Exec {
    pub started: Started,
    /// The master: read, write, resize (`os::terminal`).
    pub terminal: Option<OwnedFd>,
    ticket: Ticket,
}

impl Exec {
    /// Waits for the end. There is no deadline but the request's `timeout_ms`.
    pub async fn ended(&self) -> ExecEnd {
        match self.ticket.arrived.recv().await {
            Ok(Arrived::Ended(end)) => end,
            Ok(Arrived::Answer(..)) | Err(_) => ExecEnd::Lost,
        }
    }
}

impl Drop for Exec {
    fn drop(&mut self) {
        // Of a command that has ended, the shim knows nothing any more and says so to nobody.
        let link = &self.ticket.link;
        let request = Request {
            number: link.next.replace(link.next.get() + 1),
            call: Call::CancelExec {
                exec: self.ticket.number,
            },
        };
        if let Ok(bytes) = serde_json::to_vec(&request) {
            let _best_effort = socket::send_message(link.socket.as_fd(), &bytes, &[]);
        }
    }
}

/// Reads to the end of `output` or of the command, whichever is first; then what is left there.
async fn capture(
    mut output: Async<File>,
    kept: &mut Vec<u8>,
    ended: impl Future<Output = ExecEnd>,
) -> ExecEnd {
    let mut ended = pin!(ended);
    let mut buffer = [0; 4096];
    loop {
        let reading = async { Ok(output.read(&mut buffer).await) };
        match future::or(reading, async { Err((&mut ended).await) }).await {
            Ok(Ok(count @ 1..)) => keep(kept, &buffer[..count]),
            Ok(Ok(0) | Err(_)) => return ended.await,
            Err(end) => {
                // A descendant may hold the pipe open for ever: take what is there, no more.
                while kept.len() < OUTPUT_BYTES_MAX
                    && let Ok(pipe::Read::Bytes(count)) = pipe::read_now(&output, &mut buffer)
                {
                    keep(kept, &buffer[..count]);
                }
                return end;
            }
        }
    }
}

fn keep(kept: &mut Vec<u8>, bytes: &[u8]) {
    let room = OUTPUT_BYTES_MAX - kept.len();
    kept.extend_from_slice(&bytes[..bytes.len().min(room)]);
}

/// `work`, or `Timeout` naming what was waited for.
async fn before<T>(
    clock: &Rc<dyn Clock>,
    time: Duration,
    what: &str,
    work: impl Future<Output = T>,
) -> Result<T, ShimError> {
    let late = clock.sleep_until(clock.now() + time);
    future::or(async { Ok(work.await) }, async {
        late.await;
        let text = format!("waited {} s for {what}", time.as_secs());
        Err(ShimError::Timeout(text))
    })
    .await
}

fn started(answer: Answer) -> Result<Started, ShimError> {
    match answer {
        Answer::Started(started) => Ok(started),
        _ => Err(unexpected()),
    }
}

fn done(answer: Answer) -> Result<(), ShimError> {
    match answer {
        Answer::Done => Ok(()),
        _ => Err(unexpected()),
    }
}

fn unexpected() -> ShimError {
    let text = "the shim answered another question".to_owned();
    ShimError::Refused(Failure::Version(text))
}
