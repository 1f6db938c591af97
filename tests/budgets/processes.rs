//! What the kernel says of processes: memory, wake-ups, bytes written, time used.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::time::Duration;

/// Memory of a process in kB, from `smaps_rollup`.
#[derive(Clone, Copy, Debug, Default)]
pub struct Memory {
    pub pss: u64,
    pub private_dirty: u64,
}

/// Counters that only grow.
#[derive(Clone, Copy, Debug)]
pub struct Activity {
    /// Of all threads: each is one time that something woke up.
    pub voluntary_switches: u64,
    pub bytes_to_disk: u64,
    /// Clock ticks (10 ms) in user and kernel mode.
    pub ticks: u64,
}

pub fn memory(pid: u32) -> Memory {
    let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).expect("a living process");
    let kb = |name: &str| field(&text, name).unwrap_or(0);
    Memory {
        pss: kb("Pss:"),
        private_dirty: kb("Private_Dirty:"),
    }
}

pub fn activity(pid: u32) -> Activity {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).expect("a living process");
    let switches = tasks.filter_map(|task| {
        let text = fs::read_to_string(task.ok()?.path().join("status")).ok()?;
        field(&text, "voluntary_ctxt_switches:")
    });
    let io = fs::read_to_string(format!("/proc/{pid}/io")).expect("io");
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).expect("stat");
    // utime and stime are the 12th and 13th field after the name in parentheses.
    let fields = stat.rsplit_once(')').expect("a name").1;
    let times = fields.split_whitespace().skip(11).take(2);
    Activity {
        voluntary_switches: switches.sum(),
        bytes_to_disk: field(&io, "write_bytes:").unwrap_or(0),
        ticks: times.filter_map(|text| text.parse::<u64>().ok()).sum(),
    }
}

/// Processor time of each thread that lives now, in ns (proc(5), schedstat).
pub fn cpu_ns(pid: u32) -> BTreeMap<OsString, u64> {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).expect("a living process");
    let times = tasks.filter_map(|task| {
        let task = task.ok()?;
        let text = fs::read_to_string(task.path().join("schedstat")).ok()?;
        Some((task.file_name(), text.split(' ').next()?.parse().ok()?))
    });
    times.collect()
}

/// What was used between two looks, without that of threads that have ended: idle ones do.
pub fn cpu_between(before: &BTreeMap<OsString, u64>, after: &BTreeMap<OsString, u64>) -> Duration {
    let of_thread =
        |(thread, ns): (&OsString, &u64)| ns.saturating_sub(*before.get(thread).unwrap_or(&0));
    Duration::from_nanos(after.iter().map(of_thread).sum())
}

/// Children whose command line has the word.
pub fn children(parent: u32, word: &str) -> Vec<u32> {
    let path = format!("/proc/{parent}/task/{parent}/children");
    let list = fs::read_to_string(path).unwrap_or_default();
    let pids = list.split_whitespace().filter_map(|pid| pid.parse().ok());
    pids.filter(|pid: &u32| {
        let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        line.split(|byte| *byte == 0)
            .any(|part| part == word.as_bytes())
    })
    .collect()
}

fn field(text: &str, name: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    line.split_whitespace().next()?.parse().ok()
}
