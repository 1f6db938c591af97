//! Which entry of an index runs here.
//!
//! A processor runs what older ones ran, so each has a list of platforms in order of preference:
//!
//! ```text
//!   arm64    arm64 (v8 or unsaid), arm v8, v7, v6, v5
//!   arm v7   arm v7 (or unsaid), v6, v5
//!   amd64    amd64 (v1 or unsaid), 386
//! ```
//! Sources: OCI image-spec image-index.md ("Platform Variants"); github.com/containerd/platforms,
//! `compare.go` and `database.go`.

use std::fmt;

use serde::Deserialize;

use crate::os::probe;

#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
pub struct Platform {
    #[serde(default)]
    pub os: String,
    #[serde(default)]
    pub architecture: String,
    #[serde(default)]
    pub variant: Option<String>,
}

impl Platform {
    /// Unsaid, it is.
    pub fn is_linux(&self) -> bool {
        matches!(self.os.as_str(), "linux" | "")
    }
}

impl fmt::Display for Platform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.os, self.architecture)?;
        match &self.variant {
            Some(variant) if !variant.is_empty() => write!(f, "/{variant}"),
            _ => Ok(()),
        }
    }
}

/// What a node runs, best first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Host(Vec<(&'static str, &'static str)>);

impl Host {
    /// What this binary can start on this machine. Which ARM it was built for is no secret that a
    /// stable compiler tells, so the kernel is asked which it runs on.
    pub fn current() -> Host {
        Host::of(std::env::consts::ARCH, arm_variant(&probe::machine()))
    }

    /// `architecture` in Rust's words; `variant` only counts for 32-bit ARM.
    fn of(architecture: &str, variant: &str) -> Host {
        const ARM: [(&str, &str); 4] = [("arm", "v8"), ("arm", "v7"), ("arm", "v6"), ("arm", "v5")];
        Host(match architecture {
            "x86_64" => vec![("amd64", "v1"), ("386", "")],
            "x86" => vec![("386", "")],
            "aarch64" => [&[("arm64", "v8")][..], &ARM].concat(),
            "arm" => ARM
                .into_iter()
                .skip_while(|(_, known)| *known != variant)
                .collect(),
            "riscv64" => vec![("riscv64", "")],
            "powerpc64" => vec![("ppc64le", "")],
            "s390x" => vec![("s390x", "")],
            _ => Vec::new(),
        })
    }

    /// Place in the order of preference, or `None` if it does not run here. An image that states
    /// no architecture at all is taken at its word.
    pub fn rank(&self, platform: &Platform) -> Option<usize> {
        if !platform.is_linux() {
            return None;
        }
        if platform.architecture.is_empty() {
            return Some(self.0.len());
        }
        let (architecture, variant) = normalised(platform);
        self.0
            .iter()
            .position(|known| *known == (architecture, variant))
    }

    /// The best of `entries`; of equals the first. One that does not say what it is for is better than
    /// none.
    pub fn choose<'a, T>(
        &self,
        entries: &'a [T],
        platform: impl Fn(&T) -> Option<&Platform>,
    ) -> Option<&'a T> {
        entries
            .iter()
            .filter_map(|entry| Some((self.rank(platform(entry)?)?, entry)))
            .min_by_key(|(rank, _)| *rank)
            .map(|(_, entry)| entry)
            .or_else(|| entries.iter().find(|entry| platform(entry).is_none()))
    }
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.first() {
            Some((architecture, _)) => write!(f, "linux/{architecture}"),
            None => write!(f, "linux/{}", std::env::consts::ARCH),
        }
    }
}

/// By the kernel's name of the machine: a 64-bit kernel below 32-bit programs says so.
fn arm_variant(machine: &str) -> &'static str {
    match machine.get(..5) {
        Some("armv5") => "v5",
        Some("armv6") => "v6",
        Some("armv7") => "v7",
        _ => "v8",
    }
}

fn normalised(platform: &Platform) -> (&str, &str) {
    let variant = platform.variant.as_deref().unwrap_or("");
    let (architecture, variant) = match (platform.architecture.as_str(), variant) {
        ("aarch64" | "arm64", "" | "8") => ("arm64", "v8"),
        ("aarch64", other) => ("arm64", other),
        ("armhf", _) => ("arm", "v7"),
        ("armel", _) => ("arm", "v6"),
        ("arm", "") => ("arm", "v7"),
        ("x86_64" | "x86-64", other) => ("amd64", other),
        ("i386", _) => ("386", ""),
        other => other,
    };
    match (architecture, variant) {
        ("amd64", "") => ("amd64", "v1"),
        ("arm", "5" | "6" | "7" | "8") => (
            "arm",
            match variant {
                "5" => "v5",
                "6" => "v6",
                "7" => "v7",
                _ => "v8",
            },
        ),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn platform(text: &str) -> Platform {
        let mut parts = text.split('/').map(str::to_owned);
        Platform {
            os: parts.next().unwrap(),
            architecture: parts.next().unwrap_or_default(),
            variant: parts.next(),
        }
    }

    #[test]
    fn the_kernels_machine_says_which_arm_it_is() {
        for (machine, variant) in [
            ("armv5tejl", "v5"),
            ("armv6l", "v6"),
            ("armv7l", "v7"),
            ("armv8l", "v8"),
            ("aarch64", "v8"),
        ] {
            assert_eq!(arm_variant(machine), variant, "{machine}");
        }
    }

    #[test]
    fn an_entry_without_a_platform_is_the_last_resort() {
        let host = Host::of("x86_64", "");
        let entries = [
            Some(platform("linux/arm64")),
            None,
            Some(platform("linux/386")),
        ];
        let chosen = |entries| host.choose(entries, |entry: &Option<Platform>| entry.as_ref());
        assert_eq!(chosen(&entries[..]), Some(&entries[2]));
        assert_eq!(chosen(&entries[..2]), Some(&None));
        assert_eq!(chosen(&entries[..1]), None);
    }

    #[test]
    fn each_processor_takes_the_best_it_can_run() {
        let table = [
            ("x86_64", "", "linux/arm64 linux/386 linux/amd64", Some(2)),
            ("x86_64", "", "linux/amd64/v3 linux/386", Some(1)),
            (
                "x86_64",
                "",
                "linux/arm64 unknown/unknown windows/amd64",
                None,
            ),
            ("aarch64", "", "linux/arm/v7 linux/arm64/v8", Some(1)),
            ("aarch64", "", "linux/arm/v7 linux/arm64", Some(1)),
            (
                "aarch64",
                "",
                "linux/arm/v5 linux/arm/v7 linux/arm/v6",
                Some(1),
            ),
            (
                "arm",
                "v7",
                "linux/arm64 linux/arm/v6 linux/arm/v7 linux/arm/v8",
                Some(2),
            ),
            (
                "arm",
                "v7",
                "linux/arm64 linux/arm/v5 linux/arm/v6",
                Some(2),
            ),
            ("arm", "v6", "linux/arm/v7 linux/arm", None),
            ("arm", "v6", "linux/arm/v7 linux/arm/6", Some(1)),
            ("arm", "v7", "linux/arm/v6 linux/arm", Some(1)),
        ];
        for (architecture, variant, entries, best) in table {
            let entries: Vec<_> = entries.split(' ').map(platform).collect();
            let chosen = Host::of(architecture, variant).choose(&entries, |entry| Some(entry));
            assert_eq!(
                chosen,
                best.map(|best| &entries[best]),
                "{architecture} {entries:?}"
            );
        }
    }
}
