//! The manual pages and the completions say of commands and flags what the program says. Completions,
//! and the part of pages between their marks, are made from the tree of commands: `UPDATE=1` writes them
//! anew. The rest of a page is by hand.

use std::fmt::Write;
use std::path::Path;

use clap::{Arg, Command};
use clap_complete::Shell;

const BEGIN: &str = ".\\\" made from the command line's own table: begin\n";
const END: &str = ".\\\" end\n";

#[test]
fn manual_pages_say_what_the_command_line_says() {
    let mut tree = super::tree::command();
    tree.build();
    let (run, others): (Vec<&Command>, Vec<&Command>) = tree
        .get_subcommands()
        .partition(|command| command.get_name() == "run");
    check(
        "lowtide.1",
        &others.into_iter().map(section).collect::<String>(),
    );
    check(
        "lowtide-run.8",
        &run.into_iter().map(options).collect::<String>(),
    );
}

#[test]
fn completions_know_what_the_command_line_knows() {
    for (shell, name) in [
        (Shell::Bash, "lowtide.bash"),
        (Shell::Zsh, "_lowtide"),
        (Shell::Fish, "lowtide.fish"),
    ] {
        let path = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("packages/completions")
            .join(name);
        let mut made = Vec::new();
        clap_complete::generate(shell, &mut super::tree::command(), "lowtide", &mut made);
        let found = std::fs::read(&path).unwrap();
        if found != made && std::env::var_os("UPDATE").is_some() {
            std::fs::write(&path, made).unwrap();
            continue;
        }
        assert!(
            found == made,
            "packages/completions/{name} is not up to date: UPDATE=1 rewrites it"
        );
    }
}

fn check(name: &str, made: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("docs/man")
        .join(name);
    let page = std::fs::read_to_string(&path).unwrap();
    let (head, rest) = page
        .split_once(BEGIN)
        .expect("a mark where the made part begins");
    let (found, tail) = rest.split_once(END).expect("a mark where it ends");
    if found != made && std::env::var_os("UPDATE").is_some() {
        std::fs::write(&path, [head, BEGIN, made, END, tail].concat()).unwrap();
        return;
    }
    assert!(
        found == made,
        "docs/man/{name} is not up to date: UPDATE=1 rewrites it"
    );
}

/// A command with its usage, what it does, and its options.
fn section(command: &Command) -> String {
    let usage = command.clone().render_usage().to_string();
    let usage = usage.trim_start_matches("Usage: ");
    let about = command
        .get_about()
        .map(ToString::to_string)
        .unwrap_or_default();
    format!(
        ".SS \"{}\"\n{}.\n{}",
        quoted(usage),
        quoted(&about),
        options(command)
    )
}

fn options(command: &Command) -> String {
    // What usage shows already and nobody explained is left out.
    let shown = command
        .get_arguments()
        .filter(|arg| arg.get_id() != "help" && arg.get_help().is_some());
    shown.map(option).collect()
}

fn option(arg: &Arg) -> String {
    let values: Vec<&str> = arg
        .get_value_names()
        .into_iter()
        .flatten()
        .map(|name| name.as_str())
        .collect();
    let values = match arg.get_action().takes_values() {
        true => format!("\\fI{}\\fR", quoted(&values.join(" "))),
        false => String::new(),
    };
    let short = arg.get_short().map(|letter| format!("\\fB\\-{letter}\\fR"));
    let long = arg
        .get_long()
        .map(|name| format!("\\fB\\-\\-{}\\fR", quoted(name)));
    let names: Vec<String> = short.into_iter().chain(long).collect();
    let tag = match (names.is_empty(), values.is_empty()) {
        (true, _) => values,
        (false, true) => names.join(", "),
        (false, false) => format!("{} {values}", names.join(", ")),
    };
    let mut text = arg.get_help().map(ToString::to_string).unwrap_or_default();
    let defaults: Vec<_> = arg
        .get_default_values()
        .iter()
        .map(|v| v.to_string_lossy())
        .collect();
    if !defaults.is_empty() && arg.get_action().takes_values() {
        write!(text, " [default: {}]", defaults.join(",")).unwrap();
    }
    let legal: Vec<_> = arg
        .get_possible_values()
        .iter()
        .map(|v| v.get_name().to_owned())
        .collect();
    if !legal.is_empty() && arg.get_action().takes_values() {
        write!(text, " [{}]", legal.join(", ")).unwrap();
    }
    format!(".TP\n{tag}\n{}\n", quoted(text.trim()))
}

/// Text as troff has to read it.
fn quoted(text: &str) -> String {
    let text = text
        .replace('\\', "\\e")
        .replace('-', "\\-")
        .replace('…', "...");
    match text.starts_with(['.', '\'']) {
        true => format!("\\&{text}"),
        false => text,
    }
}
