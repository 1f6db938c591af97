//! The tree of commands and their flags, for parsing and help.
//!
//! `run`'s flags come from the table in `flags`, the small client's from `client`. The inner roles
//! `shim` and `pause` are no commands: `main` tells them apart earlier.

use clap::{Arg, ArgAction, Command, ValueHint};

use super::client;
use super::flags::{FLAGS, Flag, Shape};

/// The whole command line.
pub fn command() -> Command {
    Command::new("lowtide")
        .bin_name("lowtide")
        .version(env!("CARGO_PKG_VERSION"))
        .about("A Kubernetes node in one binary that does not need its cluster")
        .subcommand_required(true)
        .disable_help_subcommand(true)
        .subcommand(run())
        .subcommand(check())
        .subcommand(upgrade())
        .subcommands(client::commands())
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

fn upgrade() -> Command {
    let option = |name, value, help| Arg::new(name).long(name).value_name(value).help(help);
    let inner = |name| {
        Arg::new(name)
            .long(name)
            .action(ArgAction::SetTrue)
            .hide(true)
    };
    Command::new("upgrade")
        .about("Put another lowtide in the place of this one, under running pods")
        .after_help(
            "Without FILE: says where an upgrade stands. The program before comes back, with the \
             store as it was, if the new one is not ready in time.",
        )
        .arg(
            Arg::new("program")
                .value_name("FILE")
                .value_hint(ValueHint::FilePath)
                .help("The new program"),
        )
        .arg(
            option(
                "public-key",
                "FILE",
                "minisign keys that it may be signed with",
            )
            .default_value("/etc/lowtide/release.pub"),
        )
        .arg(option(
            "signature",
            "FILE",
            "Its signature [default: FILE.minisig]",
        ))
        .arg(option("timeout", "DURATION", "Until it must be ready").default_value("90s"))
        .arg(option(
            "restart-command",
            "COMMAND",
            "What restarts the agent [default: systemd or OpenRC, or a SIGTERM]",
        ))
        .arg(option(
            "root-dir",
            "DIR",
            "store, images and volumes (ROOT) [default: that of the agent]",
        ))
        .args([client::run_dir_arg(), inner("guard"), inner("compare")])
}

fn root_dir() -> Arg {
    path(
        "root-dir",
        "/var/lib/lowtide",
        "store, images and volumes (ROOT)",
    )
}

fn check() -> Command {
    Command::new("check")
        .about("Say whether this machine can run pods, and what is missing")
        .args([root_dir(), client::run_dir_arg()])
        .arg(
            Arg::new("config")
                .long("config")
                .value_name("FILE")
                .value_hint(ValueHint::FilePath)
                .conflicts_with_all(["root-dir", "run-dir", "runtime", "cni-conf-dir"])
                .help("Try this configuration of run, and look at what it names"),
        )
        .arg(
            Arg::new("runtime")
                .long("runtime")
                .value_name("NAME|PATH")
                .default_value("auto")
                .help("OCI runtime to look at"),
        )
        .arg(
            Arg::new("cni-conf-dir")
                .long("cni-conf-dir")
                .value_name("DIR")
                .value_hint(ValueHint::DirPath)
                .help("CNI configuration to look at"),
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
