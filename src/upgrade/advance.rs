//! The next step of an upgrade, taken by whoever holds the agent's lock.
//!
//! What to do is decided from the record alone (`decide`, pure); doing it is a chain of renames, each
//! flushed before the next, that can be begun again at any link.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::record::{
    self, Files, Phase, Record, Report, copy, old, place, shift, staged, store_in,
};
use crate::os::clock::wall_time;
use crate::os::output::output;
use crate::os::spawn::Spawn;
use crate::registry::rescue::{self, Unlike};

/// Starts that a new program has to become ready in.
const TRIES_MAX: u32 = 3;
/// Lines that a rejected program may say of its store, and how long it may take.
const COMPARED_BYTES_MAX: u64 = 1 << 20;
const COMPARE_MAX: Duration = Duration::from_secs(10);

/// Who asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Who {
    /// The agent that starts.
    Agent,
    /// The program before, ahead of the agent's start.
    Guard,
    /// The operator's command, which has waited in vain.
    Command,
}

/// What the one who asked does next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Next {
    Go,
    /// Another program is in the agent's place now: it is to become that.
    Become(PathBuf),
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Act {
    /// Nothing has happened yet, and nothing will.
    Drop,
    Swap,
    Count,
    Back(String),
}

/// `overdue`: the operator's command waits no longer.
fn decide(record: &Record, who: Who, overdue: bool) -> Act {
    let tried = match who {
        Who::Agent => record.tries,
        Who::Guard => record.guarded,
        Who::Command => 0,
    };
    match &record.phase {
        Phase::Prepared if overdue => Act::Drop,
        Phase::Prepared => Act::Swap,
        Phase::Back(why) => Act::Back(why.clone()),
        Phase::Trying if overdue => Act::Back("it was not ready in time".into()),
        Phase::Trying if tried >= TRIES_MAX => Act::Back(format!(
            "it was started {tried} times and never ready for long"
        )),
        Phase::Trying => Act::Count,
    }
}

/// Takes the step that is due. The caller holds the agent's lock.
pub fn advance(files: &Files, who: Who) -> io::Result<Next> {
    let Some(mut record) = files.record()? else {
        return Ok(Next::Go);
    };
    if files.is_overtaken(&record)? {
        log::warn!(
            "{} is neither {} nor {}: the upgrade is given up",
            record.target.display(),
            record.from,
            record.to
        );
        return drop_it(files, &record);
    }
    match decide(&record, who, files.overdue().exists()) {
        // The agent's own: the guard may stand in another ROOT than the agent.
        Act::Swap if who == Who::Guard => Ok(Next::Go),
        Act::Drop => drop_it(files, &record),
        Act::Swap => swap(files, record),
        // The power failed before the last link, or the program's file system took no writes.
        Act::Count if staged(&record.target).exists() => swap(files, record),
        Act::Count => {
            match who {
                Who::Guard => record.guarded += 1,
                Who::Agent | Who::Command => record.tries += 1,
            }
            files.save(&record)?;
            Ok(Next::Go)
        }
        // It was never in its place: the store is that of the program before, and goes on.
        Act::Back(_) if record.phase == Phase::Trying && staged(&record.target).exists() => {
            drop_it(files, &record)
        }
        Act::Back(why) => {
            go_back(files, &mut record, &why, who)?;
            Ok(Next::Become(record.target))
        }
    }
}

fn drop_it(files: &Files, record: &Record) -> io::Result<Next> {
    // Where its directory takes no writes it stays, and is written over next time.
    let _ = record::remove(&staged(&record.target));
    files.close(&record.target)?;
    Ok(Next::Go)
}

fn swap(files: &Files, mut record: Record) -> io::Result<Next> {
    keep_store(files)?;
    record.phase = Phase::Trying;
    // The start that comes is its first.
    record.guarded = 1;
    files.save(&record)?;
    let old = old(&record.target);
    record::remove(&old)?;
    // Where there are no hard links the copy in ROOT has to do.
    let _ = fs::hard_link(&record.target, &old);
    shift(&staged(&record.target), &record.target)?;
    log::info!("upgrade from {} to {}", record.from, record.to);
    Ok(Next::Become(record.target))
}

/// For an agent that starts: an upgrade that cannot go on must not keep it from running.
pub fn at_start(root: &Path) -> Next {
    let files = Files::of(root);
    let next = advance(&files, Who::Agent).unwrap_or_else(|error| {
        log::error!("upgrade: {}: {error}", files.directory().display());
        Next::Go
    });
    if let Ok(Some(report)) = files.report() {
        log::warn!(
            "the upgrade to {} at {} went back to {}: {}; {} (lowtide upgrade says more)",
            report.to,
            report.when,
            report.from,
            report.why,
            report.loss(),
        );
    }
    next
}

/// The agent has been ready for long enough: the program before is not needed any more. `false`: there
/// was nothing to settle. Blocks.
pub fn settle(root: &Path) -> io::Result<bool> {
    let files = Files::of(root);
    let Some(record) = files.record()? else {
        return Ok(false);
    };
    // One that still waits has not run yet: this is the program before.
    if record.phase != Phase::Trying || staged(&record.target).exists() {
        return Ok(false);
    }
    files.close(&record.target)?;
    record::remove_all(&files.rejected())?;
    log::info!("upgrade from {} to {} is done", record.from, record.to);
    Ok(true)
}

/// The program that is tried finds that it will not do: the next start goes back. `false`: none is tried.
pub fn reject(root: &Path, why: &str) -> io::Result<bool> {
    let files = Files::of(root);
    match files.record()? {
        Some(mut record) if record.phase == Phase::Trying => {
            record.phase = Phase::Back(why.to_owned());
            files.save(&record)?;
            Ok(true)
        }
        Some(_) | None => Ok(false),
    }
}

/// A copy of the store, which nobody has open.
fn keep_store(files: &Files) -> io::Result<()> {
    record::remove_all(&files.kept())?;
    let store = store_in(&files.root);
    if !store.exists() {
        return Ok(());
    }
    fs::create_dir(files.kept())?;
    copy(&store, &store_in(&files.kept()), 0o600)?;
    crate::os::thread::flush_directory(&files.directory())
}

/// The program that is judged bad leaves its place and no more: what it wrote is the other's to undo.
fn go_back(files: &Files, record: &mut Record, why: &str, who: Who) -> io::Result<()> {
    if !matches!(record.phase, Phase::Back(_)) {
        record::remove_all(&files.rejected())?;
        record.phase = Phase::Back(why.to_owned());
        files.save(record)?;
    }
    let is_back = fs::read(&record.target).ok() == Some(fs::read(files.previous())?);
    if !is_back {
        leave(files, &record.target)?;
        if who == Who::Agent {
            return Ok(());
        }
    }
    let (kept, store) = (store_in(&files.kept()), store_in(&files.root));
    if kept.exists() {
        let away = store_in(&files.rejected());
        if store.exists() && !away.exists() {
            shift(&store, &away)?;
        }
        let (lost, unknown) = lost(files);
        save_report(files, &report(record, why, lost, unknown));
        if let Err(error) = rescue::outrun(&files.kept(), &files.rejected()) {
            log::warn!("versions of the store that is put back: {error}");
        }
        shift(&kept, &store)?;
    } else if !files.report_path().exists() {
        save_report(files, &report(record, why, Vec::new(), None));
    }
    log::warn!(
        "the upgrade to {} goes back to {}: {why}",
        record.to,
        record.from
    );
    files.close(&record.target)
}

/// The program before takes its place.
fn leave(files: &Files, target: &Path) -> io::Result<()> {
    fs::create_dir_all(files.rejected())?;
    let rejected = files.rejected().join("lowtide");
    // Kept to be asked and looked at: a full disk must not keep the old one from coming back.
    if !rejected.exists()
        && let Err(error) = place(target, &rejected)
    {
        log::warn!("keep {}: {error}", rejected.display());
    }
    match old(target) {
        old if old.exists() => shift(&old, target),
        _ => place(&files.previous(), target),
    }
}

/// The store has to come back with or without it.
fn save_report(files: &Files, report: &Report) {
    if let Err(error) = files.save_report(report) {
        log::error!("{}: {error}", files.report_path().display());
        report
            .lost
            .iter()
            .for_each(|line| log::error!("undone: {line}"));
    }
}

fn report(record: &Record, why: &str, lost: Vec<String>, unknown: Option<String>) -> Report {
    Report {
        from: record.from.clone(),
        to: record.to.clone(),
        when: wall_time().strftime("%FT%TZ").to_string(),
        why: why.to_owned(),
        lost,
        unknown,
    }
}

/// What the new program acknowledged and the store that is put back does not hold. A store that only
/// the new program can read is read by it, if it can do that much.
fn lost(files: &Files) -> (Vec<String>, Option<String>) {
    let text = match rescue::written_since(&files.kept(), &files.rejected()) {
        Ok(lines) => return (lines, None),
        Err(Unlike::Failed(text)) => text,
        Err(Unlike::Newer(text)) => match ask(files) {
            Ok(lines) => return (lines, None),
            Err(error) => format!("{text}, and the rejected program does not read it: {error}"),
        },
    };
    (Vec::new(), Some(text))
}

fn ask(files: &Files) -> io::Result<Vec<String>> {
    let program = Spawn::new(files.rejected().join("lowtide"));
    let program = program
        .args(["upgrade", "--compare", "--root-dir"])
        .arg(&files.root);
    let said = output(program, COMPARED_BYTES_MAX, COMPARE_MAX)?;
    if said.ended.code() != 0 {
        let text = String::from_utf8_lossy(&said.stderr);
        return Err(io::Error::other(text.trim().to_owned()));
    }
    let text = String::from_utf8_lossy(&said.stdout);
    Ok(text.lines().map(str::to_owned).collect())
}

/// What `ask` is answered with.
pub fn compare(files: &Files) -> Result<Vec<String>, String> {
    rescue::written_since(&files.kept(), &files.rejected()).map_err(|unlike| match unlike {
        Unlike::Newer(text) | Unlike::Failed(text) => text,
    })
}

impl Report {
    /// In a few words.
    pub fn loss(&self) -> String {
        match (&self.unknown, self.lost.len()) {
            (Some(why), _) => format!("what it acknowledged is not known: {why}"),
            (None, 0) => "nothing that it acknowledged was lost".into(),
            (None, n) => format!("{n} acknowledged writes were undone"),
        }
    }
}

#[cfg(test)]
mod tests;
