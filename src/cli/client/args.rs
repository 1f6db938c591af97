//! The client's subcommands for clap. The tree that holds them is `cli`'s.

use std::path::PathBuf;

use clap::{Arg, ArgAction, ArgMatches, Command};

/// Default of `--run-dir`.
const RUN_DIR: &str = "/run/lowtide";

/// Environment variable in the place of `--run-dir`.
const RUN_DIR_VARIABLE: &str = "LOWTIDE_RUN_DIR";

/// Every subcommand of the client.
pub fn commands() -> Vec<Command> {
    let commands = [
        get(),
        describe(),
        logs(),
        exec(),
        attach(),
        top(),
        images(),
        pull(),
        import(),
        events(),
        apply(),
        create(),
        delete(),
    ];
    commands
        .into_iter()
        .map(|command| command.arg(run_dir_arg()))
        .collect()
}

/// Where the node's socket is: `--run-dir`, LOWTIDE_RUN_DIR, or the default.
pub fn run_dir(matches: &ArgMatches) -> PathBuf {
    match matches.get_one::<String>("run-dir") {
        Some(path) => path.into(),
        None => std::env::var_os(RUN_DIR_VARIABLE)
            .unwrap_or_else(|| RUN_DIR.into())
            .into(),
    }
}

pub fn run_dir_arg() -> Arg {
    Arg::new("run-dir")
        .long("run-dir")
        .value_name("DIR")
        .help(format!(
            "The node's run directory [default: ${RUN_DIR_VARIABLE} or {RUN_DIR}]"
        ))
}

fn option(name: &'static str, short: char, value: &'static str, help: &'static str) -> Arg {
    let arg = long(name, value, help);
    arg.short(short)
}

fn long(name: &'static str, value: &'static str, help: &'static str) -> Arg {
    Arg::new(name).long(name).value_name(value).help(help)
}

fn switch(name: &'static str, help: &'static str) -> Arg {
    Arg::new(name)
        .long(name)
        .action(ArgAction::SetTrue)
        .help(help)
}

fn namespace() -> Arg {
    option("namespace", 'n', "NS", "Namespace").default_value("default")
}

fn container() -> Arg {
    option(
        "container",
        'c',
        "NAME",
        "Container [default: the only one, or the annotated one]",
    )
}

fn listing(command: Command) -> Command {
    command
        .arg(namespace())
        .arg(switch("all-namespaces", "Objects of all namespaces").short('A'))
        .arg(option(
            "selector",
            'l',
            "SELECTOR",
            "Labels: key=value, key!=value, key in (a,b), key",
        ))
        .arg(
            option("output", 'o', "FORMAT", "Output format")
                .value_parser(["wide", "json", "yaml", "name"]),
        )
        .arg(switch("watch", "Go on with what changes").short('w'))
        .arg(switch("no-headers", "No line of column names"))
}

fn get() -> Command {
    listing(Command::new("get"))
        .about(
            "Show objects: pods, events, nodes, configmaps, secrets, namespaces, serviceaccounts",
        )
        .arg(
            Arg::new("type")
                .value_name("TYPE")
                .required(true)
                .help("Such as pods, po or pod/web"),
        )
        .arg(Arg::new("names").value_name("NAME").num_args(0..))
        .arg(long(
            "field-selector",
            "SELECTOR",
            "Fields, such as status.phase=Running",
        ))
}

fn events() -> Command {
    listing(Command::new("events")).about("Show events, oldest first")
}

fn describe() -> Command {
    Command::new("describe")
        .about("Show all about a pod or the node: states, conditions, events, its manifest")
        .arg(namespace())
        .arg(
            Arg::new("type")
                .value_name("TYPE")
                .required(true)
                .help("pod or node"),
        )
        .arg(Arg::new("names").value_name("NAME").num_args(0..))
}

fn logs() -> Command {
    Command::new("logs")
        .about("Print a container's log")
        .arg(namespace())
        .arg(container())
        .arg(Arg::new("pod").value_name("POD").required(true))
        .arg(Arg::new("container-name").value_name("CONTAINER"))
        .arg(switch("follow", "Go on with what is written").short('f'))
        .arg(switch("previous", "The instance before").short('p'))
        .arg(switch("timestamps", "Each line with its time"))
        .arg(
            long("tail", "LINES", "Only the last lines; -1 for all")
                .allow_negative_numbers(true)
                .value_parser(clap::value_parser!(i64)),
        )
        .arg(long("since", "SPAN", "Only newer than 5s, 2m, 3h …"))
        .arg(long("since-time", "TIME", "Only since an RFC 3339 time"))
        .arg(long("limit-bytes", "BYTES", "At most").value_parser(clap::value_parser!(u64)))
}

fn exec() -> Command {
    Command::new("exec")
        .about("Run a command in a container")
        .arg(namespace())
        .arg(container())
        .arg(switch("stdin", "Pass standard input on").short('i'))
        .arg(switch("tty", "With a terminal").short('t'))
        .arg(Arg::new("pod").value_name("POD").required(true))
        .arg(
            Arg::new("command")
                .value_name("COMMAND")
                .required(true)
                .num_args(1..)
                .last(true)
                .help("After --: the command and its arguments"),
        )
}

fn attach() -> Command {
    Command::new("attach")
        .about("Follow and feed what a container runs")
        .arg(namespace())
        .arg(container())
        .arg(switch("stdin", "Pass standard input on").short('i'))
        .arg(switch("tty", "The container has a terminal").short('t'))
        .arg(Arg::new("pod").value_name("POD").required(true))
}

fn top() -> Command {
    Command::new("top")
        .about("Show what the node or its pods use: processor and memory")
        .arg(
            Arg::new("type")
                .value_name("TYPE")
                .required(true)
                .help("pod or node"),
        )
        .arg(Arg::new("names").value_name("NAME").num_args(0..))
        .arg(namespace())
        .arg(switch("all-namespaces", "Pods of all namespaces").short('A'))
        .arg(switch("containers", "One line for each container"))
        .arg(option("selector", 'l', "SELECTOR", "Labels of pods"))
        .arg(switch("no-headers", "No line of column names"))
}

fn images() -> Command {
    Command::new("images")
        .about("Show the images that are here")
        .arg(
            option("output", 'o', "FORMAT", "Output format").value_parser(["wide", "json", "yaml"]),
        )
}

fn pull() -> Command {
    Command::new("pull")
        .about("Fetch an image from its registry")
        .arg(Arg::new("reference").value_name("REF").required(true))
}

fn import() -> Command {
    Command::new("import")
        .about("Take images from archives or OCI layouts (.tar, .tar.gz, .tar.zst, directories)")
        .arg(
            Arg::new("files")
                .value_name("FILE")
                .required(true)
                .num_args(1..),
        )
}

fn files(command: Command) -> Command {
    command.arg(namespace()).arg(
        option(
            "filename",
            'f',
            "FILE",
            "File or directory with objects, - for standard input",
        )
        .action(ArgAction::Append),
    )
}

fn writing(command: Command) -> Command {
    files(command).arg(switch("dry-run", "Ask the node, and change nothing"))
}

fn apply() -> Command {
    writing(Command::new("apply"))
        .about("Make the node's objects what files say (server-side apply)")
        .arg(switch(
            "force-conflicts",
            "Take fields that others have set to other values",
        ))
}

fn create() -> Command {
    writing(Command::new("create")).about("Make the objects of files")
}

fn delete() -> Command {
    files(Command::new("delete"))
        .about("Delete objects by files, or by type and name; waits until they are gone")
        .arg(
            Arg::new("words")
                .value_name("TYPE NAME")
                .num_args(0..)
                .help("Such as pod web, or pod/web secret/s"),
        )
        .arg(
            long(
                "grace-period",
                "SECONDS",
                "Between SIGTERM and SIGKILL; 0 forgets at once",
            )
            .allow_negative_numbers(true)
            .value_parser(clap::value_parser!(i64)),
        )
        .arg(switch("ignore-not-found", "No error for what is not there"))
        .arg(switch("no-wait", "Do not wait until it is gone"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_command_is_sound() {
        for command in commands() {
            command.debug_assert();
        }
    }

    #[test]
    fn a_command_for_the_container_keeps_its_own_flags() {
        let line = ["exec", "-it", "web", "--", "ls", "-l", "--all"];
        let matches = exec().try_get_matches_from(line).expect("parse");
        let command: Vec<&String> = matches.get_many("command").expect("command").collect();
        assert_eq!(command, ["ls", "-l", "--all"]);
        assert!(matches.get_flag("stdin") && matches.get_flag("tty"));
    }
}
