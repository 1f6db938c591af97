//! The tree of commands and their flags, for parsing, help and completions.
//!
//! `run`'s flags come from the table in `flags`; the small client's are here and carried out in
//! `client`. The inner roles `shim` and `pause` are no commands: `main` tells them apart earlier.

use clap::{Arg, ArgAction, Command, ValueHint, value_parser};
use clap_complete::Shell;

use super::flags::{FLAGS, Feature, Flag, Shape};

/// Commands that speak to a running node over `RUN/api.sock`.
pub const CLIENT_COMMANDS: [&str; 8] = [
    "get", "describe", "logs", "exec", "events", "images", "pull", "import",
];

/// The whole command line.
pub fn command() -> Command {
    Command::new("lowtide")
        .version(env!("CARGO_PKG_VERSION"))
        .about("A Kubernetes node in one binary that does not need its cluster")
        .subcommand_required(true)
        .disable_help_subcommand(true)
        .subcommand(run())
        .subcommand(check())
        .subcommands(client())
        .subcommand(
            Command::new("completions")
                .about("Print completions for a shell")
                .arg(
                    Arg::new("shell")
                        .required(true)
                        .value_parser(["bash", "zsh", "fish"]),
                ),
        )
}

/// Names of all commands, as error texts list them.
pub fn command_names() -> Vec<String> {
    command()
        .get_subcommands()
        .map(|command| command.get_name().to_owned())
        .collect()
}

/// Writes the completion script of `shell` (`bash`, `zsh`, `fish`).
pub fn completions(shell: &str, out: &mut dyn std::io::Write) {
    let shell = match shell {
        "zsh" => Shell::Zsh,
        "fish" => Shell::Fish,
        _ => Shell::Bash,
    };
    clap_complete::generate(shell, &mut command(), "lowtide", &mut { out });
}

fn run() -> Command {
    let config = Arg::new("config")
        .long("config")
        .value_name("FILE")
        .value_hint(ValueHint::FilePath)
        .help("YAML file with KubeletConfiguration field names; the command line wins");
    Command::new("run")
        .about("Run the node")
        .after_help("In flag names _ and - are the same. The log level is set with RUST_LOG.")
        .arg(config)
        .args(FLAGS.iter().map(run_flag))
}

fn run_flag(flag: &'static Flag) -> Arg {
    let mut help = flag.help.to_owned();
    if !flag.default.is_empty() {
        help += &format!(" [default: {}]", flag.default);
    }
    if matches!(flag.feature, Feature::Missing { .. }) {
        help += " (not in this version)";
    }
    let arg = Arg::new(flag.name)
        .long(flag.name)
        .aliases(flag.aliases.iter().copied())
        .value_name(flag.value_name)
        .help(help)
        .action(ArgAction::Append);
    match flag.shape {
        Shape::Switch => arg.num_args(0..=1).default_missing_value("true"),
        _ => arg.num_args(1).allow_hyphen_values(true),
    }
}

fn check() -> Command {
    Command::new("check")
        .about("Say whether this machine can run pods, and what is missing")
        .arg(path(
            "root-dir",
            "/var/lib/lowtide",
            "store, images and volumes (ROOT)",
        ))
        .arg(path(
            "run-dir",
            "/run/lowtide",
            "sockets and runtime state (RUN)",
        ))
        .arg(
            Arg::new("runtime")
                .long("runtime")
                .value_name("NAME|PATH")
                .default_value("auto")
                .help("OCI runtime to look at"),
        )
}

fn path(name: &'static str, default: &'static str, help: &'static str) -> Arg {
    Arg::new(name)
        .long(name)
        .value_name("DIR")
        .value_hint(ValueHint::DirPath)
        .default_value(default)
        .help(help)
}

fn client() -> [Command; 8] {
    [
        get(),
        describe(),
        logs(),
        exec(),
        events(),
        local("images", "List the images on this node").arg(output(&["wide", "json", "yaml"])),
        local("pull", "Pull an image").arg(words("image", "IMAGE", 1)),
        local(
            "import",
            "Import image archives (OCI or docker, .tar, .tar.gz, .tar.zst)",
        )
        .arg(words("archive", "FILE", 1).value_hint(ValueHint::FilePath)),
    ]
}

/// A client command with the flag that finds the node.
fn local(name: &'static str, about: &'static str) -> Command {
    Command::new(name)
        .about(about)
        .arg(path("run-dir", "/run/lowtide", "the node's RUN directory"))
}

fn get() -> Command {
    local(
        "get",
        "List objects: pods, nodes, events, configmaps, secrets",
    )
    .arg(words("what", "KIND [NAME]", 1))
    .args(namespaces())
    .arg(output(&["wide", "json", "yaml", "name"]))
    .arg(switch("watch", Some('w'), "go on with changes"))
    .arg(option("selector", Some('l'), "LABELS", "label selector"))
    .arg(option("field-selector", None, "FIELDS", "field selector"))
    .arg(switch("no-headers", None, "leave the header out"))
    .arg(switch("show-labels", None, "labels as the last column"))
}

fn describe() -> Command {
    local(
        "describe",
        "Show one object with its events and the reason for its next step",
    )
    .arg(words("what", "KIND NAME", 1))
    .args(namespaces())
}

fn logs() -> Command {
    let number = |name, value_name, help| {
        option(name, None, value_name, help).value_parser(value_parser!(i64).range(-1..))
    };
    local("logs", "Print a container's log")
        .arg(words("pod", "POD [CONTAINER]", 1))
        .arg(option(
            "namespace",
            Some('n'),
            "NAMESPACE",
            "namespace of the pod",
        ))
        .arg(option(
            "container",
            Some('c'),
            "CONTAINER",
            "which container",
        ))
        .arg(switch("all-containers", None, "all of the pod"))
        .arg(switch("follow", Some('f'), "go on as it grows"))
        .arg(switch("previous", Some('p'), "the instance before"))
        .arg(switch("timestamps", None, "with the time of each line"))
        .arg(switch(
            "prefix",
            None,
            "with pod and container of each line",
        ))
        .arg(number("tail", "LINES", "only the last lines, -1 for all").allow_hyphen_values(true))
        .arg(number("limit-bytes", "BYTES", "at most so much"))
        .arg(option(
            "since",
            None,
            "DURATION",
            "only newer than, such as 5m",
        ))
        .arg(option("since-time", None, "TIME", "only after, RFC 3339"))
}

fn exec() -> Command {
    local("exec", "Run a command in a container")
        .arg(Arg::new("pod").required(true).value_name("POD"))
        .arg(
            Arg::new("command")
                .value_name("COMMAND")
                .required(true)
                .num_args(1..)
                .trailing_var_arg(true)
                .allow_hyphen_values(true),
        )
        .arg(option(
            "namespace",
            Some('n'),
            "NAMESPACE",
            "namespace of the pod",
        ))
        .arg(option(
            "container",
            Some('c'),
            "CONTAINER",
            "which container",
        ))
        .arg(switch("stdin", Some('i'), "pass standard input"))
        .arg(switch("tty", Some('t'), "with a terminal"))
}

fn events() -> Command {
    local("events", "List events in order of time")
        .args(namespaces())
        .arg(output(&["wide", "json", "yaml"]))
        .arg(switch("watch", Some('w'), "go on with new ones"))
        .arg(option("for", None, "KIND/NAME", "only of this object"))
}

fn namespaces() -> [Arg; 2] {
    [
        option(
            "namespace",
            Some('n'),
            "NAMESPACE",
            "namespace [default: default]",
        ),
        switch("all-namespaces", Some('A'), "all namespaces").conflicts_with("namespace"),
    ]
}

fn output(formats: &'static [&'static str]) -> Arg {
    option("output", Some('o'), "FORMAT", "other than a table").value_parser(formats.to_vec())
}

fn words(name: &'static str, value_name: &'static str, least: usize) -> Arg {
    Arg::new(name)
        .value_name(value_name)
        .required(least > 0)
        .num_args(least..)
}

fn option(
    name: &'static str,
    short: Option<char>,
    value_name: &'static str,
    help: &'static str,
) -> Arg {
    let arg = Arg::new(name).long(name).value_name(value_name).help(help);
    match short {
        Some(letter) => arg.short(letter),
        None => arg,
    }
}

fn switch(name: &'static str, short: Option<char>, help: &'static str) -> Arg {
    let arg = Arg::new(name)
        .long(name)
        .action(ArgAction::SetTrue)
        .help(help);
    match short {
        Some(letter) => arg.short(letter),
        None => arg,
    }
}
