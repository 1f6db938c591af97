//! A file system on a card that records: made, mounted, claimed upon, taken out again.
//!
//! Behind the file system lie sectors for claims: they are written past every cache, so that the
//! record orders them among the writes and flushes that they rely on.

use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU64, Ordering};

use super::card::Card;
use super::writes::{self, Entry};
use crate::host::{eventually, run};

pub const FILE_SYSTEM_BYTES: u64 = 96 << 20;
const CLAIMS_BYTES: u64 = 8 << 20;
const SECTOR: usize = 512;

/// The disk, mounted, with its record under way.
pub struct Recorded {
    card: Card,
    /// The card's file.
    file: PathBuf,
    pub mount: PathBuf,
    /// The card behind its loop device, past the page cache.
    device: File,
    next_claim: AtomicU64,
}

#[repr(align(4096))]
struct Sector([u8; SECTOR]);

fn base(directory: &Path) -> PathBuf {
    directory.join("base.raw")
}

fn log(directory: &Path) -> PathBuf {
    directory.join("log.raw")
}

/// What a disk began with, and all that it was told from then on.
pub fn read(directory: &Path) -> (Vec<u8>, Vec<Entry>) {
    let log = fs::read(log(directory)).expect("a record");
    (fs::read(base(directory)).unwrap(), writes::decode(&log))
}

impl Recorded {
    /// Makes a file system, mounts it with `options` at `directory/disk`, and records what happens to
    /// it from then on.
    pub fn start(directory: &Path, options: &str) -> Recorded {
        let base = base(directory);
        let made = File::create(&base).unwrap();
        made.set_len(FILE_SYSTEM_BYTES + CLAIMS_BYTES).unwrap();
        let text = |path: &Path| path.display().to_string();
        let size = (FILE_SYSTEM_BYTES >> 10).to_string();
        let at_once = "lazy_itable_init=0,lazy_journal_init=0";
        let type_of = ["-q", "-t", "ext4", "-F", "-E", at_once];
        run("mke2fs", &[&type_of[..], &[&text(&base), &size]].concat());

        let (file, mount) = (directory.join("card"), directory.join("disk"));
        File::create(&file).unwrap();
        fs::create_dir_all(&mount).unwrap();
        let card = Card::insert(fs::read(&base).unwrap(), &file);
        let device = run(
            "losetup",
            &["--find", "--show", "--direct-io=on", &text(&file)],
        );
        let device = device.trim();
        run(
            "mount",
            &["-t", "ext4", "-o", options, device, &text(&mount)],
        );
        let opened = OpenOptions::new()
            .write(true)
            .custom_flags(libc::O_DIRECT)
            .open(device);
        // From now on it goes with its last user, whatever becomes of this test.
        run("losetup", &["--detach", device]);
        Recorded {
            card,
            file,
            mount,
            device: opened.expect("the loop device"),
            next_claim: AtomicU64::new(FILE_SYSTEM_BYTES),
        }
    }

    /// Says on the disk itself what was acknowledged just before.
    pub fn claim(&self, text: &str) {
        let mut sector = Sector([b' '; SECTOR]);
        sector.0[..text.len()].copy_from_slice(text.as_bytes());
        let at = self.next_claim.fetch_add(SECTOR as u64, Ordering::Relaxed);
        let written = self.device.write_all_at(&sector.0, at);
        written.expect("room for claims");
    }

    /// Takes the card out and keeps its record in `directory`.
    pub fn end(self, directory: &Path) {
        drop(self.device);
        for mounted in [&self.mount, &self.file] {
            eventually("the disk is free", || {
                let unmounted = Command::new("umount").arg(mounted).output().unwrap();
                unmounted.status.success()
            });
        }
        let record = self.card.record();
        fs::write(log(directory), writes::encode(&record)).unwrap();
    }
}
