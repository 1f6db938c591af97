//! When the node is short of something: `--eviction-hard`, `--eviction-soft` and their companions.
//!
//! Pure. Source: Kubernetes pkg/kubelet/eviction (helpers.go, defaults_linux.go).

use std::collections::BTreeMap;
use std::time::Duration;

use crate::object::Quantity;
use crate::world::{FileSystem, Level, Levels};

/// What is watched, in the order in which shortages are answered: memory first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Signal {
    Memory,
    NodeFs,
    NodeFsInodes,
    ImageFs,
    ImageFsInodes,
    Pids,
}

/// The node's conditions that say so.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Condition {
    Memory,
    Disk,
    Pids,
}

impl Signal {
    pub const ALL: [Signal; 6] = [
        Signal::Memory,
        Signal::NodeFs,
        Signal::NodeFsInodes,
        Signal::ImageFs,
        Signal::ImageFsInodes,
        Signal::Pids,
    ];

    pub fn name(self) -> &'static str {
        match self {
            Signal::Memory => "memory.available",
            Signal::NodeFs => "nodefs.available",
            Signal::NodeFsInodes => "nodefs.inodesFree",
            Signal::ImageFs => "imagefs.available",
            Signal::ImageFsInodes => "imagefs.inodesFree",
            Signal::Pids => "pid.available",
        }
    }

    /// What an evicted pod is told that there was too little of.
    pub fn resource(self) -> &'static str {
        match self {
            Signal::Memory => "memory",
            Signal::NodeFs | Signal::ImageFs => "ephemeral-storage",
            Signal::NodeFsInodes | Signal::ImageFsInodes => "inodes",
            Signal::Pids => "pids",
        }
    }

    pub fn condition(self) -> Condition {
        match self {
            Signal::Memory => Condition::Memory,
            Signal::Pids => Condition::Pids,
            Signal::NodeFs | Signal::NodeFsInodes | Signal::ImageFs | Signal::ImageFsInodes => {
                Condition::Disk
            }
        }
    }

    pub fn level(self, levels: &Levels) -> Option<Level> {
        let bytes = |fs: FileSystem| Level {
            capacity: fs.capacity_bytes,
            available: fs.available_bytes,
        };
        // A file system without a fixed number of inodes never runs out of them.
        let inodes = |fs: FileSystem| Level {
            capacity: fs.inodes,
            available: fs.inodes_free,
        };
        let level = match self {
            Signal::Memory => levels.memory,
            Signal::NodeFs => levels.node_fs.map(bytes),
            Signal::NodeFsInodes => levels.node_fs.map(inodes),
            Signal::ImageFs => levels.image_fs.map(bytes),
            Signal::ImageFsInodes => levels.image_fs.map(inodes),
            Signal::Pids => levels.processes,
        };
        level.filter(|level| level.capacity > 0)
    }
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Amount {
    Absolute(u64),
    /// Of the capacity.
    Percent(f64),
}

impl Amount {
    pub fn of(self, capacity: u64) -> u64 {
        match self {
            Amount::Absolute(amount) => amount,
            Amount::Percent(percent) => (capacity as f64 * percent / 100.0) as u64,
        }
    }

    /// `100Mi`, `10%`. Errors: what is wrong with the text.
    pub fn parse(text: &str) -> Result<Amount, String> {
        if let Some(number) = text.strip_suffix('%') {
            let percent = number.parse::<f64>().ok();
            let percent = percent.filter(|percent| (0.0..=100.0).contains(percent));
            return percent
                .map(Amount::Percent)
                .ok_or_else(|| format!("{text:?} is no percentage from 0% to 100%"));
        }
        let quantity: Quantity = text.parse().map_err(|_| {
            format!("{text:?} is neither a quantity such as 100Mi nor a percentage")
        })?;
        u64::try_from(quantity.value())
            .map(Amount::Absolute)
            .map_err(|_| format!("{text:?} must not be negative"))
    }
}

/// How a shortage is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// At once.
    Hard,
    /// When it has lasted so long.
    Soft(Duration),
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Threshold {
    pub signal: Signal,
    pub kind: Kind,
    pub amount: Amount,
    /// A shortage is over when so much more is free again.
    pub reclaim: Amount,
}

/// All settings of node-pressure eviction.
#[derive(Clone, Debug, PartialEq)]
pub struct Policy {
    pub thresholds: Vec<Threshold>,
    /// `--eviction-pressure-transition-period`
    pub transition: Duration,
    /// `--eviction-max-pod-grace-period`: most that a soft eviction gives.
    pub grace_max: Duration,
}

/// `SIGNAL<AMOUNT`, as flags have them.
pub const HARD_DEFAULT: &str = "memory.available<100Mi,nodefs.available<10%,nodefs.inodesFree<5%,\
                                imagefs.available<15%,imagefs.inodesFree<5%";
pub const TRANSITION_DEFAULT: Duration = Duration::from_secs(300);

impl Default for Policy {
    fn default() -> Policy {
        Policy {
            thresholds: hard(&pairs(HARD_DEFAULT, '<').expect("a list as documented"))
                .expect("thresholds as documented"),
            transition: TRANSITION_DEFAULT,
            grace_max: Duration::ZERO,
        }
    }
}

/// `a<b,c<d` by signal. Errors: no such signal, one named twice, no separator.
pub fn pairs(text: &str, separator: char) -> Result<BTreeMap<Signal, String>, String> {
    let mut found = BTreeMap::new();
    for item in text
        .split(',')
        .map(str::trim)
        .filter(|item| !item.is_empty())
    {
        let (name, value) = item
            .split_once(separator)
            .ok_or_else(|| format!("{item:?}: must be SIGNAL{separator}VALUE"))?;
        let signal = Signal::ALL.into_iter().find(|signal| signal.name() == name);
        let signal = signal.ok_or_else(|| {
            let legal: Vec<&str> = Signal::ALL.iter().map(|signal| signal.name()).collect();
            format!("{name:?} is no signal, legal are {}", legal.join(", "))
        })?;
        if found.insert(signal, value.to_owned()).is_some() {
            return Err(format!("{name} is given twice"));
        }
    }
    Ok(found)
}

/// Hard thresholds. One of 0 or 0% is none: it can never be met.
pub fn hard(amounts: &BTreeMap<Signal, String>) -> Result<Vec<Threshold>, String> {
    let mut thresholds = Vec::new();
    for (signal, text) in amounts {
        thresholds.push(Threshold {
            signal: *signal,
            kind: Kind::Hard,
            amount: Amount::parse(text)?,
            reclaim: Amount::Absolute(0),
        });
    }
    Ok(thresholds)
}

/// Soft thresholds; each needs its grace period.
pub fn soft(
    amounts: &BTreeMap<Signal, String>,
    graces: &BTreeMap<Signal, Duration>,
) -> Result<Vec<Threshold>, String> {
    let mut thresholds = Vec::new();
    for (signal, text) in amounts {
        let name = signal.name();
        let grace = graces.get(signal).ok_or_else(|| {
            format!("grace period must be specified for the soft threshold {name}")
        })?;
        thresholds.push(Threshold {
            signal: *signal,
            kind: Kind::Soft(*grace),
            amount: Amount::parse(text)?,
            reclaim: Amount::Absolute(0),
        });
    }
    Ok(thresholds)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_are_upstreams() {
        let policy = Policy::default();
        let lines = policy
            .thresholds
            .iter()
            .map(|t| (t.signal.name(), t.amount));
        assert_eq!(
            lines.collect::<Vec<_>>(),
            [
                ("memory.available", Amount::Absolute(100 << 20)),
                ("nodefs.available", Amount::Percent(10.0)),
                ("nodefs.inodesFree", Amount::Percent(5.0)),
                ("imagefs.available", Amount::Percent(15.0)),
                ("imagefs.inodesFree", Amount::Percent(5.0)),
            ]
        );
        assert_eq!(Amount::Percent(10.0).of(1000), 100);
    }

    #[test]
    fn what_cannot_be_meant_is_refused() {
        for (text, part) in [
            ("memory.available=1Gi", "SIGNAL<VALUE"),
            ("memory.free<1Gi", "no signal"),
            ("memory.available<1Gi,memory.available<2Gi", "twice"),
        ] {
            let error = pairs(text, '<').unwrap_err();
            assert!(error.contains(part), "{text}: {error}");
        }
        for text in ["101%", "-1%", "x", "-5Mi"] {
            assert!(Amount::parse(text).is_err(), "{text}");
        }
        let one = pairs("memory.available<1Gi", '<').unwrap();
        assert!(
            soft(&one, &BTreeMap::new())
                .unwrap_err()
                .contains("grace period")
        );
        assert_eq!(pairs("", '<').unwrap(), BTreeMap::new());
    }
}
