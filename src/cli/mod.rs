//! The command line: arguments to one of the program's roles, with everything it needs to know.
//!
//! ```text
//! arguments ─► tree (clap) ─► settings ─┐
//!                   --config FILE ──────┴► options ─► Invocation::Run
//!                        check, completions, client ► Invocation::…
//! ```
//!
//! A wrong flag or value ends in one line on stderr and exit code 2. Starts no node by itself.

pub mod check;
pub mod client;
pub mod completions;
mod config_file;
mod flags;
pub mod options;
pub mod tree;
mod usage;
pub mod value;

use std::ffi::OsString;
use std::path::PathBuf;

use clap::ArgMatches;
use clap::error::ErrorKind;

use options::{BadValue, Place, RunOptions, Setting};

use crate::upgrade;

/// Exit code of a wrong command line or configuration file.
pub const EXIT_USAGE: i32 = 2;

/// What the process was asked to be.
#[derive(Debug)]
pub enum Invocation {
    Run(Box<RunOptions>),
    Check(CheckOptions),
    /// Shell: `bash`, `zsh` or `fish`.
    Completions(String),
    Upgrade(Box<upgrade::Asked>),
    /// One of `client::commands()` with its parsed arguments.
    Client {
        command: String,
        arguments: ArgMatches,
    },
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CheckOptions {
    pub root_dir: PathBuf,
    pub run_dir: PathBuf,
    /// `None`: look for one.
    pub runtime: Option<String>,
    /// `None`: the built-in pod network.
    pub cni_conf_dir: Option<PathBuf>,
}

/// Why there is nothing to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// Help or version was asked for: print to stdout, exit 0.
    Shown(String),
    /// One line for stderr, exit `EXIT_USAGE`.
    Wrong(String),
}

/// Parses the process's arguments, program name first. Reads the file given with `--config`.
pub fn parse(arguments: impl IntoIterator<Item = OsString>) -> Result<Invocation, Refusal> {
    let arguments = normalise(arguments.into_iter().collect());
    let subcommand = named_command(&arguments);
    let matches = tree::command()
        .try_get_matches_from(&arguments)
        .map_err(|error| match error.kind() {
            ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => Refusal::Shown(error.to_string()),
            _ => Refusal::Wrong(usage::one_line(&error, subcommand.as_deref())),
        })?;
    let Some((command, arguments)) = matches.subcommand() else {
        unreachable!("clap requires a subcommand");
    };
    match command {
        "run" => run_options(arguments)
            .map(|options| Invocation::Run(Box::new(options)))
            .map_err(|error| Refusal::Wrong(format!("lowtide run: {error}"))),
        "check" => check_options(arguments).map(Invocation::Check),
        "upgrade" => upgrade_options(arguments)
            .map(|asked| Invocation::Upgrade(Box::new(asked)))
            .map_err(|text| Refusal::Wrong(format!("lowtide upgrade: {text}"))),
        "completions" => Ok(Invocation::Completions(text(arguments, "shell"))),
        _ => Ok(Invocation::Client {
            command: command.to_owned(),
            arguments: arguments.clone(),
        }),
    }
}

fn check_options(arguments: &ArgMatches) -> Result<CheckOptions, Refusal> {
    if let Some(file) = arguments.get_one::<String>("config") {
        let run = ["lowtide", "run", "--config", file];
        let Invocation::Run(options) = parse(run.map(OsString::from))? else {
            unreachable!("run is parsed as run");
        };
        return Ok(CheckOptions {
            root_dir: options.root_dir,
            run_dir: options.run_dir,
            runtime: options.runtime,
            cni_conf_dir: options.cni_conf_dir,
        });
    }
    let cni_conf_dir = arguments.get_one::<String>("cni-conf-dir");
    Ok(CheckOptions {
        root_dir: text(arguments, "root-dir").into(),
        run_dir: client::run_dir(arguments),
        runtime: Some(text(arguments, "runtime")).filter(|name| name != "auto"),
        cni_conf_dir: cni_conf_dir.map(PathBuf::from),
    })
}

fn upgrade_options(arguments: &ArgMatches) -> Result<upgrade::Asked, String> {
    let path = |name| arguments.get_one::<String>(name).map(PathBuf::from);
    let timeout = value::duration(&text(arguments, "timeout"));
    let role = match (arguments.get_flag("guard"), arguments.get_flag("compare")) {
        (true, _) => upgrade::Role::Guard,
        (_, true) => upgrade::Role::Compare,
        (false, false) => upgrade::Role::Operator,
    };
    Ok(upgrade::Asked {
        program: path("program"),
        public_key: text(arguments, "public-key").into(),
        signature: path("signature"),
        root_dir: path("root-dir"),
        run_dir: client::run_dir(arguments),
        timeout: timeout.map_err(|error| format!("--timeout: {error}"))?,
        restart_command: arguments.get_one::<String>("restart-command").cloned(),
        role,
    })
}

fn text(arguments: &ArgMatches, name: &str) -> String {
    arguments
        .get_one::<String>(name)
        .cloned()
        .unwrap_or_default()
}

fn named_command(arguments: &[OsString]) -> Option<String> {
    let names = tree::command_names();
    let word = arguments.get(1)?.to_str()?;
    names.into_iter().find(|name| name == word)
}

/// Makes `_` and `-` the same in `run`'s flag names, never in values.
fn normalise(mut arguments: Vec<OsString>) -> Vec<OsString> {
    if arguments.get(1).is_none_or(|word| word != "run") {
        return arguments;
    }
    for argument in &mut arguments {
        let Some(text) = argument.to_str() else {
            continue;
        };
        let Some(body) = text.strip_prefix("--") else {
            continue;
        };
        let (name, value) = body.split_at(body.find('=').unwrap_or(body.len()));
        *argument = format!("--{}{value}", name.replace('_', "-")).into();
    }
    arguments
}

fn run_options(arguments: &ArgMatches) -> Result<RunOptions, BadValue> {
    let mut command_line = Vec::new();
    for flag in flags::FLAGS {
        let texts = arguments.get_many::<String>(flag.name);
        command_line.extend(texts.into_iter().flatten().map(|text| Setting {
            flag,
            text: text.clone(),
            place: Place::CommandLine,
        }));
    }
    let file = match arguments.get_one::<String>("config") {
        None => Vec::new(),
        Some(path) => {
            let text = std::fs::read_to_string(path)
                .map_err(|error| BadValue(format!("--config: read {path}: {error}")))?;
            config_file::read(path, &text)?
        }
    };
    RunOptions::resolve(command_line, file)
}

#[cfg(test)]
mod man_tests;
#[cfg(test)]
mod tests;
