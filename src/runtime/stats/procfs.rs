//! The machine's own figures from text files under /proc. Pure; sources: proc(5).

use crate::runtime::cgroup::keyed;
use crate::world::{Cpu, Interface, Level, Memory};

const KIB: u64 = 1024;
/// Ticks of `/proc/PID/stat` in a second, as nanoseconds each (time(7), USER_HZ).
const TICK_NS: u64 = 10_000_000;

/// `/proc/meminfo` in bytes, by name.
pub fn meminfo(text: &str, name: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| {
        let (found, value) = line.split_once(':')?;
        (found == name).then_some(value)
    })?;
    let number = line.split_ascii_whitespace().next()?;
    Some(number.parse::<u64>().ok()?.saturating_mul(KIB))
}

/// Total, and total without the working set: free memory, and file pages that nobody used lately.
/// The signal memory.available. Source: Kubernetes pkg/kubelet/eviction, cadvisor (root cgroup).
pub fn memory_level(meminfo_text: &str) -> Option<Level> {
    let capacity = meminfo(meminfo_text, "MemTotal")?;
    let free = meminfo(meminfo_text, "MemFree")?;
    let inactive = meminfo(meminfo_text, "Inactive(file)").unwrap_or(0);
    Some(Level {
        capacity,
        available: free.saturating_add(inactive).min(capacity),
    })
}

/// The whole machine's memory, from `/proc/meminfo` and `/proc/vmstat`.
pub fn node_memory(meminfo_text: &str, vmstat: &str) -> Option<Memory> {
    let level = memory_level(meminfo_text)?;
    let bytes = |name| meminfo(meminfo_text, name).unwrap_or(0);
    let swap = meminfo(meminfo_text, "SwapTotal");
    Some(Memory {
        usage: level.capacity.saturating_sub(bytes("MemFree")),
        working_set: level.capacity - level.available,
        rss: bytes("AnonPages"),
        cache: bytes("Cached"),
        mapped_file: bytes("Mapped"),
        page_faults: keyed(vmstat, "pgfault").unwrap_or(0),
        major_page_faults: keyed(vmstat, "pgmajfault").unwrap_or(0),
        swap: swap.map(|total| total.saturating_sub(bytes("SwapFree"))),
        swap_limit: swap,
        oom_kills: keyed(vmstat, "oom_kill"),
    })
}

/// Processes and threads that may be, less those that are (`/proc/loadavg`, `R/TOTAL`).
pub fn processes(loadavg: &str, pid_max: &str, threads_max: &str) -> Option<Level> {
    let entities = loadavg.split_ascii_whitespace().nth(3)?;
    let running: u64 = entities.split_once('/')?.1.parse().ok()?;
    let number = |text: &str| text.trim().parse::<u64>().ok();
    let capacity = number(pid_max)?.min(number(threads_max).unwrap_or(u64::MAX));
    Some(Level {
        capacity,
        available: capacity.saturating_sub(running),
    })
}

/// Whether an interface is loopback or the node's end of a pod's or container's: what passes there
/// is counted where it comes out. Source: cadvisor, container/libcontainer, `ignoredDevices`.
fn is_inner(name: &str) -> bool {
    // `lt<8 hex digits>-…`, as `network::Bridge` names them.
    let ours = name.starts_with("lt") && name.as_bytes().get(10) == Some(&b'-');
    name == "lo"
        || ours
        || ["veth", "docker", "nerdctl"]
            .iter()
            .any(|s| name.starts_with(s))
}

/// `/proc/net/dev` or a process's: every interface that is not an inner one.
pub fn interfaces(text: &str) -> Vec<Interface> {
    let lines = text.lines().skip(2);
    let found = lines.filter_map(|line| {
        let (name, counters) = line.split_once(':')?;
        let name = name.trim();
        let counters = counters.split_ascii_whitespace();
        let values: Vec<u64> = counters.map(|word| word.parse().unwrap_or(0)).collect();
        let [
            rx_bytes,
            rx_packets,
            rx_errors,
            rx_dropped,
            ..,
            tx_bytes,
            tx_packets,
            tx_errors,
            tx_dropped,
            _,
            _,
            _,
            _,
        ] = values[..]
        else {
            return None;
        };
        (!is_inner(name)).then(|| Interface {
            name: name.to_owned(),
            rx_bytes,
            rx_packets,
            rx_errors,
            rx_dropped,
            tx_bytes,
            tx_packets,
            tx_errors,
            tx_dropped,
        })
    });
    found.collect()
}

/// Processor time of one process: `/proc/PID/stat`, fields 14 and 15.
pub fn process_cpu(stat: &str) -> Option<Cpu> {
    // The name in parentheses may hold anything.
    let fields = stat.rsplit_once(") ")?.1.split(' ');
    let mut fields = fields.skip(11);
    let mut ticks = || fields.next()?.parse::<u64>().ok();
    let (user, system) = (ticks()?, ticks()?);
    Some(Cpu {
        total_ns: (user + system) * TICK_NS,
        user_ns: user * TICK_NS,
        system_ns: system * TICK_NS,
        ..Cpu::default()
    })
}

/// Memory of one process: `/proc/PID/status`; shared pages are counted.
pub fn process_memory(status: &str) -> Option<Memory> {
    let rss = meminfo(status, "VmRSS")?;
    Some(Memory {
        usage: rss,
        working_set: rss,
        rss: meminfo(status, "RssAnon").unwrap_or(rss),
        ..Memory::default()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const MEMINFO: &str = "MemTotal:  1000 kB\nMemFree:   300 kB\nMemAvailable: 900 kB\n\
        Cached:  250 kB\nInactive(file):   200 kB\nAnonPages: 100 kB\nSwapTotal: 50 kB\nSwapFree: 40 kB\n";

    #[test]
    fn what_is_available_is_free_or_unused_lately() {
        let level = memory_level(MEMINFO).unwrap();
        assert_eq!((level.capacity, level.available), (1000 * KIB, 500 * KIB));
        let memory = node_memory(MEMINFO, "pgfault 7\npgmajfault 1\noom_kill 2\n").unwrap();
        assert_eq!(memory.working_set, 500 * KIB);
        assert_eq!((memory.usage, memory.swap), (700 * KIB, Some(10 * KIB)));
        assert_eq!((memory.page_faults, memory.oom_kills), (7, Some(2)));
        assert_eq!(memory_level(""), None);
    }

    #[test]
    fn the_lower_bound_of_processes_counts() {
        let level = processes("0.1 0.2 0.3 2/300 999\n", "32768\n", "1000\n").unwrap();
        assert_eq!((level.capacity, level.available), (1000, 700));
        assert_eq!(processes("", "1", "1"), None);
    }

    #[test]
    fn interfaces_are_read_without_loopback_and_ends_of_pods() {
        let text = "Inter-|   Receive  |  Transmit\n face |bytes packets\n    \
            lo: 9 9 0 0 0 0 0 0 9 9 0 0 0 0 0 0\n  \
            lt0a1b2c3d-5: 9 9 0 0 0 0 0 0 9 9 0 0 0 0 0 0\n  \
            veth1234: 9 9 0 0 0 0 0 0 9 9 0 0 0 0 0 0\n  \
            docker0: 9 9 0 0 0 0 0 0 9 9 0 0 0 0 0 0\n  \
            lt-0a1b2c3d:1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16\n  \
            eth0:1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16\n";
        let found = interfaces(text);
        assert_eq!(found.len(), 2);
        assert_eq!(found[0].name, "lt-0a1b2c3d");
        let eth = &found[1];
        assert_eq!(
            (eth.name.as_str(), eth.rx_bytes, eth.rx_dropped),
            ("eth0", 1, 4)
        );
        assert_eq!(
            (eth.tx_bytes, eth.tx_packets, eth.tx_errors, eth.tx_dropped),
            (9, 10, 11, 12)
        );
    }

    #[test]
    fn a_process_may_have_any_name() {
        let stat = "7 (a) b) S 1 2 3 4 5 6 7 8 9 10 250 50 0 0 20";
        let cpu = process_cpu(stat).unwrap();
        assert_eq!((cpu.user_ns, cpu.total_ns), (2_500_000_000, 3_000_000_000));
        let memory = process_memory("Name:\tx\nVmRSS:\t    8 kB\nRssAnon:\t 4 kB\n").unwrap();
        assert_eq!((memory.working_set, memory.rss), (8192, 4096));
    }
}
