//! Labels of a namespace as a policy. Pure.
//!
//! Source: Kubernetes `pod-security-admission/api/helpers.go`.

use std::fmt;

use serde_json::Value;

use crate::object::Cause;

const PREFIX: &str = "pod-security.kubernetes.io/";

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Rank {
    Privileged,
    Baseline,
    Restricted,
}

/// Minor release whose rules count; `Latest` is above all.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Version {
    Minor(u32),
    Latest,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Level {
    pub rank: Rank,
    pub version: Version,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Policy {
    pub enforce: Level,
    pub audit: Level,
    pub warn: Level,
}

impl fmt::Display for Level {
    /// `restricted:latest`, `baseline:v1.30`
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let rank = match self.rank {
            Rank::Privileged => "privileged",
            Rank::Baseline => "baseline",
            Rank::Restricted => "restricted",
        };
        match self.version {
            Version::Latest => write!(f, "{rank}:latest"),
            Version::Minor(minor) => write!(f, "{rank}:v1.{minor}"),
        }
    }
}

impl Policy {
    /// And what is wrong with the labels: an unknown level to enforce is the strictest, to warn of
    /// or to audit none; an unknown version is the latest.
    pub fn of(labels: &Value) -> (Policy, Vec<Cause>) {
        let mut problems = Vec::new();
        let mut read = |mode: &str, failed: Rank| {
            let (level, version) = (format!("{PREFIX}{mode}"), format!("{PREFIX}{mode}-version"));
            let rank = labels
                .get(&level)
                .and_then(Value::as_str)
                .map(|text| rank_of(text).map_err(|why| problems.push(cause(&level, text, why))));
            let minor = labels.get(&version).and_then(Value::as_str).map(|text| {
                version_of(text).map_err(|why| problems.push(cause(&version, text, why)))
            });
            let level = Level {
                rank: rank.map_or(Rank::Privileged, |rank| rank.unwrap_or(failed)),
                version: minor.map_or(Version::Latest, |minor| minor.unwrap_or(Version::Latest)),
            };
            (level, rank, minor)
        };
        let (enforce, enforced, _) = read("enforce", Rank::Restricted);
        let (audit, _, _) = read("audit", Rank::Privileged);
        let (mut warn, warned, warn_version) = read("warn", Rank::Privileged);
        // Who enforces and does not say of what to warn is warned of that.
        if warned.is_none() && matches!(enforced, Some(Ok(_))) && enforce.rank > warn.rank {
            warn.rank = enforce.rank;
            if warn_version.is_none() {
                warn.version = enforce.version;
            }
        }
        let policy = Policy {
            enforce,
            audit,
            warn,
        };
        (policy, problems)
    }

    pub fn is_privileged(&self) -> bool {
        [self.enforce, self.audit, self.warn]
            .iter()
            .all(|level| level.rank == Rank::Privileged)
    }
}

fn cause(label: &str, text: &str, why: &str) -> Cause {
    let path = format!("metadata.labels[{label}]");
    (path, format!("Invalid value: {text:?}: {why}"))
}

fn rank_of(text: &str) -> Result<Rank, &'static str> {
    match text {
        "privileged" => Ok(Rank::Privileged),
        "baseline" => Ok(Rank::Baseline),
        "restricted" => Ok(Rank::Restricted),
        _ => Err("must be one of privileged, baseline, restricted"),
    }
}

fn version_of(text: &str) -> Result<Version, &'static str> {
    const WRONG: &str = "must be \"latest\" or \"v1.x\"";
    if text == "latest" {
        return Ok(Version::Latest);
    }
    let minor = text.strip_prefix("v1.").ok_or(WRONG)?;
    let plain = minor == "0" || !minor.starts_with('0');
    match minor.bytes().all(|b| b.is_ascii_digit()) && plain {
        true => minor.parse().map(Version::Minor).map_err(|_| WRONG),
        false => Err(WRONG),
    }
}
