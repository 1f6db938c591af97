//! `lowtide upgrade`: prepares, asks for a restart, waits, and says what came of it.
//!
//! Until the record is written nothing has changed but a file beside the program; from then on the
//! agent's starts carry the upgrade, and this command only watches, and says when time is up.

use std::fmt::Display;
use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::advance::{self, Who, advance};
use super::manager::{Agent, Manager};
use super::record::{
    self, Files, GUARDED, Phase, Record, Report, copy, put, same, staged, store_in,
};
use super::root;
use super::signature::{self, PublicKey};
use crate::os::clock::SystemClock;
use crate::os::disk;
use crate::os::file;
use crate::os::output::output;
use crate::os::signal::{Signal, Signals};
use crate::os::spawn::Spawn;
use crate::os::thread;
use crate::runtime::images::Digest;
use crate::world::Clock;

/// Bytes of a program, of a signature, of a key file at most.
const PROGRAM_BYTES_MAX: u64 = 64 << 20;
const TEXT_BYTES_MAX: u64 = 64 << 10;
/// A program says its version within this time.
const VERSION_MAX: Duration = Duration::from_secs(20);
/// How often the record is looked at.
const LOOK: Duration = Duration::from_millis(200);
/// The way back may take this long before it is done from here: systemd waits 90 s for an agent that hangs.
const BACK_MAX: Duration = Duration::from_secs(120);
/// An agent that is told to end takes this long at most.
const END_MAX: Duration = Duration::from_secs(10);

/// What the command line asks for.
#[derive(Clone, Debug, Default)]
pub struct Asked {
    /// `None`: say where an upgrade stands.
    pub program: Option<PathBuf>,
    pub public_key: PathBuf,
    /// Default: the program's name with `.minisig`.
    pub signature: Option<PathBuf>,
    /// Default: that of the agent.
    pub root_dir: Option<PathBuf>,
    pub run_dir: PathBuf,
    pub timeout: Duration,
    pub restart_command: Option<String>,
    pub role: Role,
}

/// For whom the command runs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Role {
    #[default]
    Operator,
    /// Before a start of the agent: an unready program goes back.
    Guard,
    /// For the program before: what only this one can read.
    Compare,
}

/// Returns the exit code: 0 or 1.
pub fn run(asked: &Asked) -> u8 {
    let files = Files::of(&root(asked));
    let done = match (asked.role, &asked.program) {
        (Role::Guard, _) => guard(&files, &asked.run_dir),
        (Role::Compare, _) => advance::compare(&files).map(|lines| lines.iter().for_each(say)),
        (Role::Operator, None) => state(&files),
        (Role::Operator, Some(program)) => upgrade(asked, &files, program),
    };
    match done {
        Ok(()) => 0,
        Err(text) => {
            // A terminal that is gone is no reason to stop, here and in `say`.
            let _ = writeln!(io::stderr(), "lowtide upgrade: {text}");
            1
        }
    }
}

fn root(asked: &Asked) -> PathBuf {
    let given = asked.root_dir.as_deref();
    let given = given.and_then(|path| std::path::absolute(path).ok());
    // The guard is in the place that its link led to.
    let agents = || root::announced(&asked.run_dir).filter(|_| asked.role == Role::Operator);
    let root = given.or_else(agents);
    root.unwrap_or_else(|| root::guarded(Path::new(GUARDED)))
}

fn say(line: impl Display) {
    let _ = writeln!(io::stdout(), "{line}");
}

fn failed<'a>(doing: &'a str, path: &'a Path) -> impl Fn(io::Error) -> String + 'a {
    move |error| format!("{doing} {}: {error}", path.display())
}

/// With no agent there is nothing to decide twice: whoever holds the lock does.
fn guard(files: &Files, run_dir: &Path) -> Result<(), String> {
    let Ok(_lock) = file::lock(&run_dir.join("agent.lock")) else {
        return Ok(());
    };
    let next = advance(files, Who::Guard);
    next.map(drop)
        .map_err(failed("go on in", &files.directory()))
}

fn state(files: &Files) -> Result<(), String> {
    let directory = files.directory();
    let unreadable = failed("read", &directory);
    if let Some(record) = files.record().map_err(&unreadable)? {
        let phase = match &record.phase {
            Phase::Prepared => "waits for the agent's next start".to_owned(),
            Phase::Trying => format!("is tried, {} starts so far", record.tries),
            Phase::Back(why) => format!("goes back: {why}"),
        };
        say(format!("{} -> {}: {phase}", record.from, record.to));
    } else if let Some(report) = files.report().map_err(&unreadable)? {
        tell(files, &report);
    } else {
        say("no upgrade is under way");
    }
    Ok(())
}

fn tell(files: &Files, report: &Report) {
    say(format!(
        "{} -> {}: went back at {}: {}",
        report.from, report.to, report.when, report.why
    ));
    say(report.loss());
    report.lost.iter().for_each(|line| say(format!("  {line}")));
    say(format!(
        "the program and its store are in {}",
        files.rejected().display()
    ));
}

fn upgrade(asked: &Asked, files: &Files, program: &Path) -> Result<(), String> {
    let agent = Agent::of(&asked.run_dir).map_err(failed("look at", &asked.run_dir))?;
    // Another ROOT than the next agent's would count its starts, and go back for no reason.
    if asked.root_dir.is_none() && root::announced(&asked.run_dir).is_none() {
        return Err(format!(
            "no agent has run with --run-dir={} since the machine started: give --root-dir",
            asked.run_dir.display()
        ));
    }
    if agent.is_some()
        && let Some(own) = root::announced(&asked.run_dir)
        && !same(&own, &files.root)
    {
        return Err(format!("the agent runs with --root-dir={}", own.display()));
    }
    let record = prepare(asked, files, program, agent.as_ref())?;
    // From here on it goes on without this terminal.
    let signals = [Signal::SIGHUP, Signal::SIGINT, Signal::SIGTERM];
    let _blocked = Signals::block(&signals).map_err(|error| format!("block signals: {error}"))?;
    let (root, target) = (&files.root, record.target.display());
    let saved = files.save(&record);
    saved.map_err(failed("write", &files.record_path()))?;
    say(format!("{target}: {} -> {}", record.from, record.to));
    let manager = Manager::find(asked.restart_command.as_deref(), agent.as_ref());
    if agent.is_none() {
        say(format!(
            "no agent runs with --root-dir={}: its next start brings the new program",
            root.display()
        ));
        return Ok(());
    }
    say(format!(
        "{manager}; ready within {} s, or back to {}",
        asked.timeout.as_secs(),
        record.from
    ));
    let restarted = manager.restart(agent.as_ref());
    if restarted.is_err() || !over(files, asked.timeout)? {
        if let Err(text) = restarted {
            say(text);
        }
        back(asked, files, &manager)?;
    }
    if manager == Manager::Unknown && Agent::of(&asked.run_dir).ok().flatten().is_none() {
        say("no agent runs at this moment: start it, if nobody else does");
    }
    match files
        .report()
        .map_err(failed("read", &files.report_path()))?
    {
        None if fs::read(&record.target).ok() == fs::read(program).ok() => {
            say(format!("{} is ready", record.to));
            Ok(())
        }
        None => Err(format!(
            "{} did not start anew; it stays as it was",
            record.from
        )),
        Some(report) => {
            tell(files, &report);
            Err(format!("{} stays", report.from))
        }
    }
}

/// Everything that can go wrong without harm.
fn prepare(
    asked: &Asked,
    files: &Files,
    program: &Path,
    agent: Option<&Agent>,
) -> Result<Record, String> {
    let record_path = files.record_path();
    if let Some(record) = files.record().map_err(failed("read", &record_path))? {
        let (from, to) = (record.from, record.to);
        return Err(format!("an upgrade from {from} to {to} is under way"));
    }
    let content = bounded(program, PROGRAM_BYTES_MAX)?;
    let comment = trusted(asked, program, &content)?;
    say(format!("{}: signed, \"{comment}\"", program.display()));
    let target = match agent {
        Some(agent) => agent.program.clone(),
        None => std::env::current_exe().map_err(|error| format!("find this program: {error}"))?,
    };
    let current = fs::read(&target).map_err(failed("read", &target))?;
    if current == content {
        return Err(format!("{} is this very program", target.display()));
    }
    let waiting = staged(&target);
    let written = put(&waiting, &content, 0o755).and_then(|()| record::label(&target, &waiting));
    written.map_err(failed("write", &waiting))?;
    let prepared = stage(asked, files, &target, &content);
    prepared.inspect_err(|_| {
        // It is of no use, and written again next time.
        let _ = record::remove(&waiting);
    })
}

/// What an upgrade needs, with the new program in its waiting place.
fn stage(asked: &Asked, files: &Files, target: &Path, content: &[u8]) -> Result<Record, String> {
    let directory = files.directory();
    let to = version(&staged(target))?;
    let made = fs::create_dir_all(&directory).and_then(|()| thread::flush_directory(&files.root));
    made.map_err(failed("make", &directory))?;
    let previous = files.previous();
    copy(target, &previous, 0o755).map_err(failed("write", &previous))?;
    room_for_the_store(files)?;
    let from = version(&previous)?;
    root::lead(files, &asked.run_dir).map_err(failed("write", &files.guard))?;
    files.take_spare().map_err(failed("write in", &directory))?;
    for stale in [files.overdue(), files.report_path()] {
        record::remove(&stale).map_err(failed("remove", &stale))?;
    }
    Ok(Record {
        phase: Phase::Prepared,
        from,
        to,
        target: target.to_owned(),
        tries: 0,
        guarded: 0,
        sum: Some(Digest::of(content)),
    })
}

/// The next start keeps a copy of the store, or does not go on.
fn room_for_the_store(files: &Files) -> Result<(), String> {
    let root = &files.root;
    let needed = fs::metadata(store_in(root)).map_or(0, |file| file.len());
    match disk::free_bytes(root).map_err(failed("look at", root))? {
        free if free < needed => Err(format!(
            "{}: the copy of the store needs {needed} bytes, {free} are free",
            root.display()
        )),
        _ => Ok(()),
    }
}

/// The trusted comment of a program's signature.
fn trusted(asked: &Asked, program: &Path, content: &[u8]) -> Result<String, String> {
    let read_text = |path: &Path| {
        let bytes = bounded(path, TEXT_BYTES_MAX)?;
        String::from_utf8(bytes).map_err(|_| format!("{}: not text", path.display()))
    };
    let keys = read_text(&asked.public_key)
        .map_err(|text| format!("{text} (the key that releases are signed with: --public-key)"))?;
    let keys = PublicKey::read_all(&keys);
    let keys = keys.map_err(|bad| format!("{}: {bad}", asked.public_key.display()))?;
    let path = asked.signature.clone().unwrap_or_else(|| {
        let mut name = program.as_os_str().to_owned();
        name.push(".minisig");
        name.into()
    });
    let text = read_text(&path)?;
    let comment = signature::verify(&keys, &text, content);
    let comment = comment.map_err(|bad| format!("{}: {bad}", path.display()))?;
    Ok(comment.to_owned())
}

fn bounded(path: &Path, limit: u64) -> Result<Vec<u8>, String> {
    let reading = failed("read", path);
    let size = fs::metadata(path).map_err(&reading)?.len();
    if size > limit {
        return Err(format!(
            "{}: {size} bytes, more than {limit}",
            path.display()
        ));
    }
    fs::read(path).map_err(reading)
}

/// What a program calls its version; starting it also tells whether this machine can.
fn version(program: &Path) -> Result<String, String> {
    let wrong = |why: &dyn Display| format!("{} --version: {why}", program.display());
    let said = output(
        Spawn::new(program).arg("--version"),
        TEXT_BYTES_MAX,
        VERSION_MAX,
    );
    let said = said.map_err(|error| wrong(&error))?;
    let text = String::from_utf8_lossy(&said.stdout);
    match text.trim().strip_prefix("lowtide ") {
        Some(version) if said.ended.code() == 0 => Ok(version.to_owned()),
        _ => Err(wrong(&"this is no lowtide")),
    }
}

/// Waits until the upgrade is over, one way or the other.
fn over(files: &Files, span: Duration) -> Result<bool, String> {
    let clock = SystemClock::new().map_err(|error| format!("make a clock: {error}"))?;
    let end = clock.now() + span;
    while files.record_path().exists() {
        if clock.now() >= end {
            return Ok(false);
        }
        async_io::block_on(clock.sleep_until(clock.now() + LOOK));
    }
    Ok(true)
}

/// Time is up: the agent's next start goes back; if there is none, this command does.
fn back(asked: &Asked, files: &Files, manager: &Manager) -> Result<(), String> {
    let overdue = files.overdue();
    put(&overdue, b"", 0o600).map_err(failed("write", &overdue))?;
    let agent = Agent::of(&asked.run_dir).ok().flatten();
    let asked_again = manager.restart(agent.as_ref());
    if asked_again.is_ok() && over(files, BACK_MAX)? {
        return Ok(());
    }
    if let Some(agent) = Agent::of(&asked.run_dir).ok().flatten() {
        agent.signal(Signal::SIGKILL);
    }
    let clock = SystemClock::new().map_err(|error| format!("make a clock: {error}"))?;
    let (path, end) = (asked.run_dir.join("agent.lock"), clock.now() + END_MAX);
    let lock = loop {
        match file::lock(&path) {
            Ok(lock) => break lock,
            // Whoever started the agent again was faster.
            Err(_) if !files.record_path().exists() => return Ok(()),
            Err(error) if clock.now() >= end => return Err(failed("lock", &path)(error)),
            Err(_) => async_io::block_on(clock.sleep_until(clock.now() + LOOK)),
        }
    };
    let gone_back = advance(files, Who::Command);
    drop(lock);
    gone_back.map_err(failed("go back in", &files.directory()))?;
    manager.restart(None)
}
