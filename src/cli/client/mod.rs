//! The small client: looks at the node, reads its logs, enters its containers, applies files.
//!
//! Talks Kubernetes JSON over `RUN/api.sock` and prints as kubectl does; the node renders the table
//! cells. No colour, ever; progress only on a terminal.

mod args;
mod describe;
mod exec;
mod files;
mod get;
mod images;
mod logs;
mod print;
mod resource;
mod top;
mod transport;
mod write;

use std::io::{self, Write};

use clap::ArgMatches;
use clap::parser::ValueSource;

pub use args::{commands, run_dir, run_dir_arg};

use self::exec::Act;
use self::transport::{Client, Error};

/// A wrong argument.
const USAGE: u8 = 2;

/// Runs the subcommand `name` of [`commands`]. Returns the process's exit code: 0, 1 for an error
/// (already printed), 2 for wrong arguments, and for `exec` what the command left.
pub fn run(name: &str, matches: &ArgMatches) -> u8 {
    let client = Client::new(&run_dir(matches));
    let result = match name {
        "get" => get::run(&client, matches).map(|()| 0),
        "events" => get::events(&client, matches).map(|()| 0),
        "describe" => describe::run(&client, matches).map(|()| 0),
        "logs" => logs::run(&client, matches).map(|()| 0),
        "exec" => exec::run(&client, matches, Act::Exec),
        "attach" => exec::run(&client, matches, Act::Attach),
        "top" => top::run(&client, matches).map(|()| 0),
        "images" => images::list(&client, matches).map(|()| 0),
        "pull" => images::pull(&client, matches).map(|()| 0),
        "import" => images::import(&client, matches).map(|()| 0),
        "apply" => write::apply(&client, matches).map(|()| 0),
        "create" => write::create(&client, matches).map(|()| 0),
        "delete" => write::delete(&client, matches).map(|()| 0),
        other => unreachable!("{other} is none of the client's commands"),
    };
    match result {
        Ok(code) => code,
        Err(error) => {
            eprintln!("{error}");
            match error {
                Error::Usage(_) => USAGE,
                Error::NoNode { .. } | Error::Server { .. } | Error::Broken(_) => 1,
            }
        }
    }
}

/// Prints to standard output. A reader that has left (`| head`) ends the program quietly.
fn put(bytes: impl AsRef<[u8]>) -> Result<(), Error> {
    let mut out = io::stdout().lock();
    match out.write_all(bytes.as_ref()).and_then(|()| out.flush()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => std::process::exit(0),
        result => result.map_err(|error| Error::Broken(format!("write to stdout: {error}"))),
    }
}

fn text<'a>(matches: &'a ArgMatches, name: &str) -> Option<&'a str> {
    matches.get_one::<String>(name).map(String::as_str)
}

fn texts<'a>(matches: &'a ArgMatches, name: &str) -> Vec<&'a str> {
    let values = matches.get_many::<String>(name).into_iter().flatten();
    values.map(String::as_str).collect()
}

fn namespace(matches: &ArgMatches) -> &str {
    text(matches, "namespace").unwrap_or("default")
}

/// The namespace, if the user named one.
fn given_namespace(matches: &ArgMatches) -> Option<&str> {
    let given = matches.value_source("namespace") == Some(ValueSource::CommandLine);
    given.then(|| namespace(matches))
}

const JSON: &str = "application/json";
