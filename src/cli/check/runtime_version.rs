//! Whether an OCI runtime's version has the fixes of its known holes. Pure.
//!
//! Sources: the runc releases' notes; GHSA-xr7r-f8xq-vfvv, GHSA-9493-h29p-rfm2, GHSA-qw9x-cqr3-wc7r,
//! GHSA-cgrx-mc8f-2prm.

/// What `--version` tells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Version {
    /// `runc`
    pub name: String,
    /// `1.1.5+ds1-1+deb12u1` where the distribution says so, else `1.1.5`.
    pub text: String,
    numbers: [u32; 3],
    /// `rc.N`; releases come after all of them.
    candidate: Option<u32>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// No known hole is open.
    Fixed,
    /// CVE numbers that are open.
    Vulnerable(Vec<&'static str>),
    /// The distribution's patches decide; these CVEs are in question.
    CannotTell(Vec<&'static str>),
    /// A runtime whose history is not listed here.
    Unlisted,
}

/// Three numbers and, before a release, the number of its candidate.
type Release = ([u32; 3], Option<u32>);

/// Holes of runc with the first fixed release of each branch; a later branch has the fix.
const RUNC: [(&str, &[Release]); 2] = [
    ("CVE-2024-21626", &[([1, 1, 12], None)]),
    (
        "CVE-2025-31133, CVE-2025-52565, CVE-2025-52881",
        &[([1, 2, 8], None), ([1, 3, 3], None), ([1, 4, 0], Some(3))],
    ),
];

/// Reads the first lines of `--version`; `None` if they are of no known form.
pub fn parse(output: &str) -> Option<Version> {
    let mut lines = output.lines();
    let first = lines.next()?;
    let mut words = first.split_whitespace();
    let name = words.next()?.to_owned();
    let word = words.find(|word| word.starts_with(|c: char| c.is_ascii_digit()))?;
    let (numbers, candidate) = numbers(word)?;
    // Debian puts its own revision where the commit would be.
    let revision = lines
        .filter_map(|line| line.strip_prefix("commit: "))
        .find(|commit| commit.starts_with(word));
    Some(Version {
        name,
        text: revision.unwrap_or(word).to_owned(),
        numbers,
        candidate,
    })
}

fn numbers(word: &str) -> Option<([u32; 3], Option<u32>)> {
    let (release, suffix) = match word.find(['-', '+', '~']) {
        Some(end) => word.split_at(end),
        None => (word, ""),
    };
    let mut parts = release.split('.').map(|part| part.parse().ok());
    let numbers = [
        parts.next()??,
        parts.next().flatten().unwrap_or(0),
        parts.next().flatten().unwrap_or(0),
    ];
    let candidate = suffix[suffix.len().min(1)..]
        .strip_prefix("rc")
        .map(|rest| rest.trim_start_matches('.'))
        .and_then(|rest| {
            let digits = rest
                .find(|c: char| !c.is_ascii_digit())
                .unwrap_or(rest.len());
            rest[..digits].parse().ok()
        });
    Some((numbers, candidate))
}

/// Compares with the list above.
pub fn judge(version: &Version) -> Verdict {
    if version.name != "runc" {
        return Verdict::Unlisted;
    }
    let open: Vec<&'static str> = RUNC
        .iter()
        .filter(|(_, fixed)| !has_fix(version, fixed))
        .map(|(cve, _)| *cve)
        .collect();
    match (open.is_empty(), is_patched_by_distribution(&version.text)) {
        (true, _) => Verdict::Fixed,
        (false, true) => Verdict::CannotTell(open),
        (false, false) => Verdict::Vulnerable(open),
    }
}

fn has_fix(version: &Version, fixed: &[Release]) -> bool {
    let rank = |numbers: [u32; 3], candidate: Option<u32>| (numbers, candidate.unwrap_or(u32::MAX));
    let own = rank(version.numbers, version.candidate);
    let branch = fixed
        .iter()
        .find(|(numbers, _)| numbers[..2] == version.numbers[..2]);
    match (branch, fixed.last()) {
        (Some((numbers, candidate)), _) => own >= rank(*numbers, *candidate),
        (None, Some((numbers, candidate))) => own >= rank(*numbers, *candidate),
        (None, None) => true,
    }
}

/// Distributions fix holes without changing the upstream version.
fn is_patched_by_distribution(text: &str) -> bool {
    ["+ds", "deb", "ubuntu", "el", "fc"]
        .iter()
        .any(|mark| text.contains(mark))
}

#[cfg(test)]
mod tests {
    use super::{Verdict, judge, parse};

    const OLD: &str = "CVE-2024-21626";
    const NEW: &str = "CVE-2025-31133, CVE-2025-52565, CVE-2025-52881";

    #[test]
    fn a_version_is_compared_with_the_first_fixed_ones_of_its_branch() {
        for (output, verdict) in [
            (
                "runc version 1.1.5\ncommit: v1.1.5-0-gf19387a6",
                Verdict::Vulnerable(vec![OLD, NEW]),
            ),
            ("runc version 1.1.12", Verdict::Vulnerable(vec![NEW])),
            ("runc version 1.2.7", Verdict::Vulnerable(vec![NEW])),
            ("runc version 1.2.8", Verdict::Fixed),
            ("runc version 1.3.2", Verdict::Vulnerable(vec![NEW])),
            ("runc version 1.3.3", Verdict::Fixed),
            ("runc version 1.4.0-rc.2", Verdict::Vulnerable(vec![NEW])),
            ("runc version 1.4.0-rc.3", Verdict::Fixed),
            ("runc version 1.4.0", Verdict::Fixed),
            ("runc version 1.5.0-rc.1", Verdict::Fixed),
            (
                "runc version 1.1.5+ds1\ncommit: 1.1.5+ds1-1+deb12u1",
                Verdict::CannotTell(vec![OLD, NEW]),
            ),
            ("crun version 1.8.1", Verdict::Unlisted),
            ("youki version 0.3.0", Verdict::Unlisted),
        ] {
            let version = parse(output).expect(output);
            assert_eq!(judge(&version), verdict, "{output}");
        }
    }

    #[test]
    fn the_distributions_revision_is_shown() {
        let version = parse("runc version 1.1.5+ds1\ncommit: 1.1.5+ds1-1+deb12u1\n");
        assert_eq!(version.expect("known form").text, "1.1.5+ds1-1+deb12u1");
        assert_eq!(parse("what"), None);
    }
}
