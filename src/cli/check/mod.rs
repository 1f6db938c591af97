//! `lowtide check`: can this machine run pods, and if not, what is missing and how to get it.
//!
//! ```text
//! facts (os::probe, one look) ─► judge (pure) ─► lines ─► stdout, exit 0 or 1
//! ```
//!
//! Leaves nothing behind: makes no directory, no link, no cgroup.

mod facts;
mod judge;
mod runtime_version;

use std::io::{self, IsTerminal, Write};

use super::CheckOptions;

/// What a finding means for pods.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Grade {
    Ok,
    /// Pods run; something is weaker than it should be.
    Warn,
    /// Pods do not run.
    Missing,
}

/// One line of the report.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    pub subject: &'static str,
    pub grade: Grade,
    /// What was found and, unless all is well, what to do about it.
    pub text: String,
}

/// Prints the report to stdout. Returns the exit code: 0 if pods can run, else 1.
pub fn run(options: &CheckOptions) -> i32 {
    let findings = judge::judge(&facts::gather(options));
    let style = match io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none() {
        true => Style::Coloured,
        false => Style::Plain,
    };
    // A reader that went away (`| head`) does not change the verdict.
    let _ = io::stdout().write_all(render(&findings, style).as_bytes());
    i32::from(
        findings
            .iter()
            .any(|finding| finding.grade == Grade::Missing),
    )
}

#[derive(Clone, Copy)]
enum Style {
    Plain,
    Coloured,
}

fn render(findings: &[Finding], style: Style) -> String {
    let width = findings.iter().map(|f| f.subject.len()).max().unwrap_or(0);
    let mut text = String::new();
    for finding in findings {
        let (word, colour) = match finding.grade {
            Grade::Ok => ("ok", "32"),
            Grade::Warn => ("warn", "33"),
            Grade::Missing => ("missing", "31"),
        };
        let word = match style {
            Style::Plain => format!("{word:<7}"),
            Style::Coloured => format!("\x1b[{colour}m{word:<7}\x1b[0m"),
        };
        text += &format!("{word}  {:<width$}  {}\n", finding.subject, finding.text);
    }
    text
}
