//! Kubernetes' figures in the kernel's words: which file of which cgroup version gets which text.
//!
//! Pure. Absent limits write nothing: a new cgroup has none.

use crate::world::CgroupResources;

/// CFS period if the configuration names none. Source: Kubernetes `--cpu-cfs-quota-period`.
const CPU_PERIOD_US_DEFAULT: u64 = 100_000;
/// Bounds of `cpu.shares` (kernel/sched/sched.h, MIN_SHARES and MAX_SHARES).
pub const CPU_SHARES_MIN: u64 = 2;
const CPU_SHARES_MAX: u64 = 262_144;
const CPU_WEIGHT_MAX: u64 = 10_000;

/// One value for one interface file of a cgroup.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Setting {
    pub controller: &'static str,
    pub file: &'static str,
    pub value: String,
    pub presence: Presence,
}

/// Whether the file must exist where its controller does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Presence {
    Required,
    /// Depends on the kernel's configuration.
    Optional,
}

fn setting(controller: &'static str, file: &'static str, value: impl ToString) -> Setting {
    Setting {
        controller,
        file,
        value: value.to_string(),
        presence: Presence::Required,
    }
}

/// `cpu.weight` for `cpu.shares`, by the curve that maps 2 to 1, 1024 to 100, 262144 to 10000.
/// Source: opencontainers/cgroups `ConvertCPUSharesToCgroupV2Value`, runc 1.3.2.
pub fn cpu_weight(shares: u64) -> u64 {
    match shares {
        0..=CPU_SHARES_MIN => 1,
        CPU_SHARES_MAX.. => CPU_WEIGHT_MAX,
        _ => {
            let log = (shares as f64).log2();
            let exponent = (log * log + 125.0 * log) / 612.0 - 7.0 / 34.0;
            10f64.powf(exponent).ceil() as u64
        }
    }
}

/// Files of cgroup v1.
pub fn v1(resources: &CgroupResources) -> Vec<Setting> {
    let mut settings = Vec::new();
    if let Some(shares) = resources.cpu_shares {
        let shares = shares.clamp(CPU_SHARES_MIN, CPU_SHARES_MAX);
        settings.push(setting("cpu", "cpu.shares", shares));
    }
    if let Some(quota) = resources.cpu_quota_us.filter(|quota| *quota > 0) {
        let period = resources.cpu_period_us.unwrap_or(CPU_PERIOD_US_DEFAULT);
        settings.push(setting("cpu", "cpu.cfs_period_us", period));
        settings.push(setting("cpu", "cpu.cfs_quota_us", quota));
    }
    if let Some(bytes) = resources.memory_bytes_max.filter(|bytes| *bytes > 0) {
        settings.push(setting("memory", "memory.limit_in_bytes", bytes));
        // No swap beyond the limit; the file is missing without swap accounting.
        settings.push(Setting {
            presence: Presence::Optional,
            ..setting("memory", "memory.memsw.limit_in_bytes", bytes)
        });
    }
    if let Some(pids) = resources.pids_max.filter(|pids| *pids > 0) {
        settings.push(setting("pids", "pids.max", pids));
    }
    settings
}

/// Files of cgroup v2.
pub fn v2(resources: &CgroupResources) -> Vec<Setting> {
    let mut settings = Vec::new();
    if let Some(shares) = resources.cpu_shares {
        settings.push(setting("cpu", "cpu.weight", cpu_weight(shares)));
    }
    if let Some(quota) = resources.cpu_quota_us.filter(|quota| *quota > 0) {
        let period = resources.cpu_period_us.unwrap_or(CPU_PERIOD_US_DEFAULT);
        settings.push(setting("cpu", "cpu.max", format!("{quota} {period}")));
    }
    if let Some(bytes) = resources.memory_bytes_max.filter(|bytes| *bytes > 0) {
        settings.push(setting("memory", "memory.max", bytes));
    }
    if let Some(pids) = resources.pids_max.filter(|pids| *pids > 0) {
        settings.push(setting("pids", "pids.max", pids));
    }
    settings
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weights_follow_the_new_curve() {
        for (shares, weight) in [
            (0, 1),
            (2, 1),
            (102, 17),
            (256, 35),
            (512, 59),
            (1024, 100),
            (2048, 174),
            (4096, 303),
            (262_144, 10_000),
            (1_000_000, 10_000),
        ] {
            assert_eq!(cpu_weight(shares), weight, "shares {shares}");
        }
    }

    fn lines(settings: Vec<Setting>) -> Vec<String> {
        let line = |s: &Setting| format!("{} {}", s.file, s.value);
        settings.iter().map(line).collect()
    }

    #[test]
    fn limits_become_the_files_of_each_version() {
        let resources = CgroupResources {
            cpu_shares: Some(512),
            cpu_quota_us: Some(50_000),
            cpu_period_us: None,
            memory_bytes_max: Some(64 << 20),
            pids_max: Some(100),
        };
        assert_eq!(
            lines(v1(&resources)),
            [
                "cpu.shares 512",
                "cpu.cfs_period_us 100000",
                "cpu.cfs_quota_us 50000",
                "memory.limit_in_bytes 67108864",
                "memory.memsw.limit_in_bytes 67108864",
                "pids.max 100"
            ]
        );
        assert_eq!(
            lines(v2(&resources)),
            [
                "cpu.weight 59",
                "cpu.max 50000 100000",
                "memory.max 67108864",
                "pids.max 100"
            ]
        );
    }

    #[test]
    fn absent_limits_write_nothing() {
        assert_eq!(v1(&CgroupResources::default()), []);
        assert_eq!(v2(&CgroupResources::default()), []);
    }
}
