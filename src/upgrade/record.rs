//! Where an upgrade stands, and the files below `ROOT/upgrade` that it needs.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::os::output::output;
use crate::os::spawn::Spawn;
use crate::os::{file, probe, thread};
use crate::runtime::images::Digest;

/// Bytes of a record or report at most.
const RECORD_BYTES_MAX: u64 = 1 << 20;
/// Room that is taken beforehand, for records and report of a way back on a full disk.
const SPARE_BYTES: usize = 64 * 1024;
/// The program before, where systemd's and OpenRC's guard looks for it, and whose lock the guard takes.
pub const GUARDED: &str = "/var/lib/lowtide/upgrade/previous";
pub const DEFAULT_RUN: &str = "/run/lowtide";
/// A label is given within this time, or not waited for.
const LABEL_MAX: Duration = Duration::from_secs(10);
const LABEL_BYTES_MAX: u64 = 4096;

/// What is to happen, or has happened, at the agent's next start.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Phase {
    /// All files are there; the old program runs.
    Prepared,
    /// The new program is in its place and has not been ready for long enough yet.
    Trying,
    /// The old program takes its place again: why.
    Back(String),
}

/// An upgrade under way.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    pub phase: Phase,
    /// Versions, as the programs say them.
    pub from: String,
    pub to: String,
    /// The file that the agent is started from.
    pub target: PathBuf,
    /// Starts of the new program that came as far as this record.
    pub tries: u32,
    /// Starts of it as the guard counted them.
    pub guarded: u32,
    /// Of the new program; a release before this one noted none.
    #[serde(default)]
    pub sum: Option<Digest>,
}

/// What became of an upgrade that went back; kept until the next one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    pub from: String,
    pub to: String,
    /// RFC 3339
    pub when: String,
    pub why: String,
    /// What was acknowledged meanwhile and is not in the store any more.
    pub lost: Vec<String>,
    /// Why `lost` cannot be told.
    pub unknown: Option<String>,
}

/// The files of an upgrade.
#[derive(Clone, Debug)]
pub struct Files {
    pub root: PathBuf,
    /// `GUARDED`: the program before, or a link to it.
    pub guard: PathBuf,
}

impl Files {
    pub fn of(root: &Path) -> Files {
        Files {
            root: root.to_owned(),
            guard: GUARDED.into(),
        }
    }

    pub fn directory(&self) -> PathBuf {
        self.root.join("upgrade")
    }

    pub fn record_path(&self) -> PathBuf {
        self.directory().join("record.json")
    }

    /// The program before.
    pub fn previous(&self) -> PathBuf {
        self.directory().join("previous")
    }

    /// There: the operator's command has waited long enough.
    pub fn overdue(&self) -> PathBuf {
        self.directory().join("overdue")
    }

    /// The directory of the store as it was.
    pub fn kept(&self) -> PathBuf {
        self.directory().join("kept")
    }

    /// The directory of what went back: program, store, report.
    pub fn rejected(&self) -> PathBuf {
        self.directory().join("rejected")
    }

    pub fn report_path(&self) -> PathBuf {
        self.rejected().join("report.json")
    }

    fn spare(&self) -> PathBuf {
        self.directory().join("spare")
    }

    pub fn take_spare(&self) -> io::Result<()> {
        put(&self.spare(), &vec![b'.'; SPARE_BYTES], 0o600)
    }

    pub fn record(&self) -> io::Result<Option<Record>> {
        read(&self.record_path())
    }

    pub fn report(&self) -> io::Result<Option<Report>> {
        read(&self.report_path())
    }

    /// Writes the record durably.
    pub fn save(&self, record: &Record) -> io::Result<()> {
        self.put_small(&self.record_path(), &json(record))
    }

    pub fn save_report(&self, report: &Report) -> io::Result<()> {
        fs::create_dir_all(self.rejected())?;
        self.put_small(&self.report_path(), &json(report))
    }

    fn put_small(&self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        match put(path, bytes, 0o600) {
            Err(error) if error.kind() == io::ErrorKind::StorageFull => {
                remove(&self.spare())?;
                put(path, bytes, 0o600)
            }
            other => other,
        }
    }

    /// The upgrade is over: first the record, durably, then what it needed.
    pub fn close(&self, target: &Path) -> io::Result<()> {
        remove(&self.record_path())?;
        thread::flush_directory(&self.directory())?;
        if same(&self.guard, &self.previous()) {
            // A link that stays leads to a program that finds no record.
            let _ = remove(&self.guard);
        }
        remove(&self.overdue())?;
        remove(&self.spare())?;
        remove(&self.previous())?;
        remove(&old(target))?;
        remove_all(&self.kept())
    }

    /// Whether neither of an upgrade's programs is in the place: somebody has installed a third.
    pub fn is_overtaken(&self, record: &Record) -> io::Result<bool> {
        let (Some(new), Ok(now)) = (record.sum, fs::read(&record.target)) else {
            return Ok(false);
        };
        Ok(Digest::of(&now) != new && now != fs::read(self.previous())?)
    }
}

/// The store's file in a directory.
pub fn store_in(directory: &Path) -> PathBuf {
    directory.join("store.redb")
}

/// Where the new program waits: beside the old one, so that it takes its place by a rename.
pub fn staged(target: &Path) -> PathBuf {
    beside(target, ".new")
}

/// Where the old program stays, so that it comes back by a rename where ROOT is another file system.
pub fn old(target: &Path) -> PathBuf {
    beside(target, ".old")
}

fn beside(target: &Path, ending: &str) -> PathBuf {
    let mut name = target.file_name().unwrap_or_default().to_owned();
    name.push(ending);
    target.with_file_name(name)
}

/// A whole file, durably, all or nothing.
pub fn put(path: &Path, bytes: &[u8], mode: u32) -> io::Result<()> {
    file::replace_durably(path, bytes, mode)
}

/// A copy of a file, durably, all or nothing.
pub fn copy(from: &Path, to: &Path, mode: u32) -> io::Result<()> {
    let aside = staged(to);
    put(&aside, &fs::read(from)?, mode)?;
    label(from, &aside)?;
    shift(&aside, to)
}

/// Gives `file` the SELinux label of `like`, durably: with that of ROOT, systemd may not start a program.
/// What cannot have a label goes without.
pub fn label(like: &Path, file: &Path) -> io::Result<()> {
    if !probe::selinux() {
        return Ok(());
    }
    let chcon = Spawn::new("chcon").arg("--reference").arg(like).arg(file);
    match output(chcon, LABEL_BYTES_MAX, LABEL_MAX) {
        Ok(said) if said.ended.code() == 0 => {}
        Ok(said) => log::warn!("{}", String::from_utf8_lossy(&said.stderr).trim()),
        Err(error) => log::warn!("chcon {}: {error}", file.display()),
    }
    thread::flush(fs::File::open(file)?)
}

/// The ROOT that a program before lies in.
pub fn root_of(previous: &Path) -> &Path {
    previous.ancestors().nth(2).unwrap_or(previous)
}

/// Whether both are there, and one file, by whatever links.
pub fn same(one: &Path, other: &Path) -> bool {
    let other = fs::canonicalize(other).ok();
    other.is_some() && fs::canonicalize(one).ok() == other
}

/// Puts a program at `to`, durably, all or nothing: the very file where one file system holds both places, so
/// that a full disk is no hindrance; else a copy.
pub fn place(from: &Path, to: &Path) -> io::Result<()> {
    let aside = staged(to);
    remove(&aside)?;
    if fs::hard_link(from, &aside).is_err() {
        return copy(from, to, 0o755);
    }
    shift(&aside, to)?;
    // A rename over the same file leaves both names.
    remove(&aside)
}

/// A rename within one file system, durably.
pub fn shift(from: &Path, to: &Path) -> io::Result<()> {
    fs::rename(from, to)?;
    for path in [from, to] {
        thread::flush_directory(path.parent().unwrap_or(Path::new("/")))?;
    }
    Ok(())
}

/// What is gone already is gone.
pub fn remove(path: &Path) -> io::Result<()> {
    gone(fs::remove_file(path))
}

pub fn remove_all(path: &Path) -> io::Result<()> {
    gone(fs::remove_dir_all(path))
}

fn gone(removed: io::Result<()>) -> io::Result<()> {
    match removed {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        Ok(()) | Err(_) => Ok(()),
    }
}

fn json(value: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(value).expect("plain fields serialise")
}

fn read<T: for<'a> Deserialize<'a>>(path: &Path) -> io::Result<Option<T>> {
    match file::read_bounded(path, RECORD_BYTES_MAX) {
        Ok(bytes) => Ok(Some(serde_json::from_slice(&bytes)?)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}
