//! What a cgroup uses: the kernel's counters of either version in one shape.
//!
//! ```text
//!   figure     v1                                         v2
//!   cpu        cpuacct.usage, cpuacct.stat, cpu.stat      cpu.stat
//!   memory     memory.usage_in_bytes, memory.stat         memory.current, memory.stat
//!   io         blkio.throttle.io_service_bytes, …serviced io.stat
//!   tasks      pids.current                               pids.current
//! ```
//! Parsers are pure; a file that is missing leaves its figure out. Never walks into children: the
//! kernel has added them up. Source: Documentation/admin-guide/cgroup-v1 and cgroup-v2.

use std::fs;
use std::path::Path;

use super::Cgroups;
use super::hierarchy::Version;
use crate::world::{Cpu, Io, Limits, Memory, Usage};

/// Ticks of `cpuacct.stat` in a second, whatever the kernel's own rate is (time(7), USER_HZ).
const TICKS_PER_SECOND: u64 = 100;
/// v1 says "no limit" with the largest multiple of a page; anything of this size is none.
const NO_LIMIT_BYTES: u64 = 1 << 62;
const NS_PER_US: u64 = 1000;

/// Reads a value of the file of one controller; `None`: not there.
type Read<'a> = dyn Fn(&str, &str) -> Option<String> + 'a;

impl Cgroups {
    /// What is used by `path` (within every hierarchy) and below it. Blocks for some tens of
    /// microseconds for each of a dozen small files in memory.
    pub fn usage(&self, path: &str) -> Usage {
        let version_of = |controller: &str| {
            let found = self.hierarchies.iter().find(|h| h.has(controller))?;
            Some(found.version)
        };
        let read = |controller: &str, file: &str| {
            let hierarchy = self.hierarchies.iter().find(|h| h.has(controller))?;
            read_small(&hierarchy.directory(path).join(file))
        };
        // `cpu.stat` has the time of every cgroup of v2, whether the controller is on or not.
        let v2 = self.hierarchies.iter().all(|h| h.version == Version::V2);
        let read_v2 = |_: &str, file: &str| {
            let hierarchy = self.hierarchies.first()?;
            read_small(&hierarchy.directory(path).join(file))
        };
        let memory = match version_of("memory") {
            Some(Version::V1) => memory_v1(&read),
            Some(Version::V2) => memory_v2(&read),
            None => None,
        };
        Usage {
            cpu: if v2 { cpu_v2(&read_v2) } else { cpu_v1(&read) },
            memory,
            io: match version_of("io") {
                Some(_) => read("io", "io.stat").map(|text| io_v2(&text)),
                None => io_v1(&read),
            },
            tasks: read("pids", "pids.current").and_then(|text| number(&text)),
            limits: if v2 {
                limits_v2(&read)
            } else {
                limits_v1(&read)
            },
        }
    }
}

fn read_small(path: &Path) -> Option<String> {
    fs::read_to_string(path).ok()
}

fn number(text: &str) -> Option<u64> {
    text.trim().parse().ok()
}

/// The value of `key` in lines of `key value` (memory.stat, cpu.stat, memory.events).
pub fn keyed(text: &str, key: &str) -> Option<u64> {
    text.lines().find_map(|line| {
        let (found, value) = line.split_once(' ')?;
        (found == key).then(|| number(value)).flatten()
    })
}

fn cpu_v1(read: &Read<'_>) -> Option<Cpu> {
    let ticks = |text: &str, key| {
        let ticks = keyed(text, key).unwrap_or(0);
        ticks.saturating_mul(1_000_000_000 / TICKS_PER_SECOND)
    };
    let total_ns = number(&read("cpuacct", "cpuacct.usage")?)?;
    let split = read("cpuacct", "cpuacct.stat").unwrap_or_default();
    let quota = read("cpu", "cpu.stat").unwrap_or_default();
    let of_quota = |key| keyed(&quota, key).unwrap_or(0);
    Some(Cpu {
        total_ns,
        user_ns: ticks(&split, "user"),
        system_ns: ticks(&split, "system"),
        nano_cores: None,
        periods: of_quota("nr_periods"),
        throttled_periods: of_quota("nr_throttled"),
        throttled_ns: of_quota("throttled_time"),
    })
}

fn cpu_v2(read: &Read<'_>) -> Option<Cpu> {
    let text = read("cpu", "cpu.stat")?;
    let us = |key| keyed(&text, key).unwrap_or(0).saturating_mul(NS_PER_US);
    keyed(&text, "usage_usec")?;
    Some(Cpu {
        total_ns: us("usage_usec"),
        user_ns: us("user_usec"),
        system_ns: us("system_usec"),
        nano_cores: None,
        periods: keyed(&text, "nr_periods").unwrap_or(0),
        throttled_periods: keyed(&text, "nr_throttled").unwrap_or(0),
        throttled_ns: us("throttled_usec"),
    })
}

fn memory_v1(read: &Read<'_>) -> Option<Memory> {
    let file = |name| number(&read("memory", name)?);
    let usage = file("memory.usage_in_bytes")?;
    let text = read("memory", "memory.stat")?;
    // With the children's, as usage is.
    let stat = |key| keyed(&text, key).unwrap_or(0);
    let with_swap = file("memory.memsw.usage_in_bytes");
    let events = read("memory", "memory.oom_control").unwrap_or_default();
    let swap_limit = file("memory.memsw.limit_in_bytes").filter(|limit| *limit < NO_LIMIT_BYTES);
    let limit = file("memory.limit_in_bytes");
    Some(Memory {
        usage,
        working_set: usage.saturating_sub(stat("total_inactive_file")),
        rss: stat("total_rss"),
        cache: stat("total_cache"),
        mapped_file: stat("total_mapped_file"),
        page_faults: stat("total_pgfault"),
        major_page_faults: stat("total_pgmajfault"),
        swap: with_swap.map(|both| both.saturating_sub(usage)),
        swap_limit: swap_limit
            .zip(limit)
            .map(|(both, memory)| both.saturating_sub(memory)),
        oom_kills: keyed(&events, "oom_kill"),
    })
}

fn memory_v2(read: &Read<'_>) -> Option<Memory> {
    let file = |name| number(&read("memory", name)?);
    let text = read("memory", "memory.stat")?;
    let stat = |key| keyed(&text, key).unwrap_or(0);
    // The root has no such file: the caller knows the machine's figure.
    let usage = file("memory.current").unwrap_or_else(|| stat("anon") + stat("file"));
    let events = read("memory", "memory.events").unwrap_or_default();
    Some(Memory {
        usage,
        working_set: usage.saturating_sub(stat("inactive_file")),
        rss: stat("anon"),
        cache: stat("file"),
        mapped_file: stat("file_mapped"),
        page_faults: stat("pgfault"),
        major_page_faults: stat("pgmajfault"),
        swap: file("memory.swap.current"),
        // `max` is no number: no limit.
        swap_limit: file("memory.swap.max"),
        oom_kills: keyed(&events, "oom_kill"),
    })
}

/// Sums over devices: `8:0 Read 4096` lines.
fn io_v1(read: &Read<'_>) -> Option<Io> {
    let bytes = read("blkio", "blkio.throttle.io_service_bytes_recursive")
        .or_else(|| read("blkio", "blkio.throttle.io_service_bytes"))?;
    let counts = read("blkio", "blkio.throttle.io_serviced_recursive")
        .or_else(|| read("blkio", "blkio.throttle.io_serviced"))
        .unwrap_or_default();
    let sum = |text: &str, operation: &str| {
        let values = text.lines().filter_map(|line| {
            let mut words = line.split(' ').skip(1);
            (words.next()? == operation)
                .then(|| number(words.next()?))
                .flatten()
        });
        values.sum::<u64>()
    };
    Some(Io {
        read_bytes: sum(&bytes, "Read"),
        written_bytes: sum(&bytes, "Write"),
        reads: sum(&counts, "Read"),
        writes: sum(&counts, "Write"),
    })
}

/// `8:0 rbytes=1 wbytes=2 rios=3 wios=4 dbytes=5 dios=6` lines.
fn io_v2(text: &str) -> Io {
    let sum = |key: &str| {
        let words = text.split_ascii_whitespace();
        let values = words.filter_map(|word| {
            let (found, value) = word.split_once('=')?;
            (found == key).then(|| number(value)).flatten()
        });
        values.sum::<u64>()
    };
    Io {
        read_bytes: sum("rbytes"),
        written_bytes: sum("wbytes"),
        reads: sum("rios"),
        writes: sum("wios"),
    }
}

fn limits_v1(read: &Read<'_>) -> Limits {
    let file = |controller, name| number(&read(controller, name)?);
    let memory = file("memory", "memory.limit_in_bytes");
    Limits {
        memory_bytes: memory.filter(|bytes| *bytes < NO_LIMIT_BYTES),
        cpu_shares: file("cpu", "cpu.shares"),
        // -1 is no number: no quota.
        cpu_quota_us: file("cpu", "cpu.cfs_quota_us"),
        cpu_period_us: file("cpu", "cpu.cfs_period_us"),
    }
}

fn limits_v2(read: &Read<'_>) -> Limits {
    let cpu = read("cpu", "cpu.max").unwrap_or_default();
    let mut cpu = cpu.split_ascii_whitespace();
    let weight = read("cpu", "cpu.weight").and_then(|text| number(&text));
    Limits {
        memory_bytes: read("memory", "memory.max").and_then(|text| number(&text)),
        cpu_shares: weight.map(shares),
        cpu_quota_us: cpu.next().and_then(number),
        cpu_period_us: cpu.next().and_then(number),
    }
}

/// `cpu.shares` for `cpu.weight`, on the line between their bounds.
/// Source: cadvisor container/libcontainer (convertCPUWeightToCPULimit).
fn shares(weight: u64) -> u64 {
    const SHARES: (u64, u64) = (2, 262_144);
    const WEIGHTS: (u64, u64) = (1, 10_000);
    let weight = weight.clamp(WEIGHTS.0, WEIGHTS.1);
    SHARES.0 + (weight - WEIGHTS.0) * (SHARES.1 - SHARES.0) / (WEIGHTS.1 - WEIGHTS.0)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn files(table: &[(&'static str, &str)]) -> impl Fn(&str, &str) -> Option<String> {
        let table: BTreeMap<_, _> = table.iter().map(|(f, t)| (*f, (*t).to_owned())).collect();
        move |_, file| table.get(file).cloned()
    }

    #[test]
    fn both_versions_give_the_same_figures() {
        let v1 = files(&[
            ("cpuacct.usage", "2500000000\n"),
            ("cpuacct.stat", "user 150\nsystem 100\n"),
            (
                "cpu.stat",
                "nr_periods 9\nnr_throttled 3\nthrottled_time 7000\n",
            ),
            ("memory.usage_in_bytes", "1000\n"),
            ("memory.memsw.usage_in_bytes", "1200\n"),
            ("memory.limit_in_bytes", "4096\n"),
            ("memory.memsw.limit_in_bytes", "4096\n"),
            (
                "memory.stat",
                "cache 1\nrss 2\ntotal_cache 300\ntotal_rss 500\ntotal_mapped_file 40\n\
                 total_pgfault 11\ntotal_pgmajfault 2\ntotal_inactive_file 250\n",
            ),
            (
                "memory.oom_control",
                "oom_kill_disable 0\nunder_oom 0\noom_kill 1\n",
            ),
        ]);
        let v2 = files(&[
            (
                "cpu.stat",
                "usage_usec 2500000\nuser_usec 1500000\nsystem_usec 1000000\nnr_periods 9\n\
                 nr_throttled 3\nthrottled_usec 7\n",
            ),
            ("memory.current", "1000\n"),
            ("memory.swap.current", "200\n"),
            ("memory.swap.max", "0\n"),
            (
                "memory.stat",
                "anon 500\nfile 300\nfile_mapped 40\ninactive_file 250\npgfault 11\npgmajfault 2\n",
            ),
            ("memory.events", "low 0\noom 4\noom_kill 1\n"),
        ]);
        assert_eq!(cpu_v1(&v1), cpu_v2(&v2));
        assert_eq!(memory_v1(&v1), memory_v2(&v2));
        let memory = memory_v2(&v2).unwrap();
        assert_eq!((memory.working_set, memory.swap), (750, Some(200)));
        assert_eq!(cpu_v2(&v2).unwrap().throttled_ns, 7000);
    }

    #[test]
    fn transfers_are_summed_over_devices() {
        let v1 = files(&[
            (
                "blkio.throttle.io_service_bytes",
                "8:0 Read 10\n8:0 Write 20\n8:16 Read 1\nTotal 31\n",
            ),
            (
                "blkio.throttle.io_serviced",
                "8:0 Read 3\n8:0 Write 4\nTotal 7\n",
            ),
        ]);
        let v2 = "8:0 rbytes=10 wbytes=20 rios=3 wios=4 dbytes=9 dios=9\n8:16 rbytes=1\n";
        assert_eq!(io_v1(&v1), Some(io_v2(v2)));
        assert_eq!(io_v2(v2).read_bytes, 11);
        assert_eq!(io_v2(""), Io::default());
    }

    #[test]
    fn no_limit_is_none_in_both_versions() {
        let v1 = files(&[
            ("memory.limit_in_bytes", "9223372036854771712\n"),
            ("cpu.cfs_quota_us", "-1\n"),
            ("cpu.cfs_period_us", "100000\n"),
            ("cpu.shares", "2\n"),
        ]);
        let v2 = files(&[
            ("memory.max", "max\n"),
            ("cpu.max", "max 100000\n"),
            ("cpu.weight", "1\n"),
        ]);
        assert_eq!(limits_v1(&v1), limits_v2(&v2));
        assert_eq!(limits_v2(&v2).memory_bytes, None);
        assert_eq!(shares(10_000), 262_144);
    }
}
