//! Which role is this process: node, shim, pause or client.

use std::io::Write;
use std::process::ExitCode;

use lowtide::cli::{self, EXIT_USAGE, Invocation, Refusal};

// Shim and pause are chosen before `main`, so that they stay small.
#[cfg(not(test))]
lowtide::before_main!(lowtide::runtime::shim::early_dispatch);

fn main() -> ExitCode {
    // With a C library that hands no arguments to start-up functions, only this one is left.
    lowtide::runtime::shim::early_dispatch(lowtide::os::early::arguments_in_main());
    let invocation = match cli::parse(std::env::args_os()) {
        Ok(invocation) => invocation,
        Err(Refusal::Shown(text)) => return print(&text),
        Err(Refusal::Wrong(line)) => {
            eprintln!("{line}");
            return code(EXIT_USAGE);
        }
    };
    match invocation {
        Invocation::Run(options) => {
            start_logging();
            match lowtide::node::run(*options) {
                Ok(()) => ExitCode::SUCCESS,
                Err(error) => {
                    eprintln!("lowtide run: {error}");
                    ExitCode::FAILURE
                }
            }
        }
        Invocation::Check(options) => code(cli::check::run(&options)),
        Invocation::Upgrade(asked) => {
            start_logging();
            ExitCode::from(lowtide::upgrade::run(&asked))
        }
        Invocation::Completions(shell) => {
            // Nothing useful can be done about a closed pipe.
            let _ = cli::completions::write(&shell, &mut std::io::stdout());
            ExitCode::SUCCESS
        }
        Invocation::Client { command, arguments } => {
            ExitCode::from(cli::client::run(&command, &arguments))
        }
    }
}

fn code(code: i32) -> ExitCode {
    ExitCode::from(u8::try_from(code).unwrap_or(1))
}

/// Prints to standard output; a reader that has left is no error.
fn print(text: &str) -> ExitCode {
    // Nothing useful can be done about a closed pipe.
    let _ = std::io::stdout().write_all(text.as_bytes());
    ExitCode::SUCCESS
}

/// `RUST_LOG` decides; `info` otherwise. Under a service manager lines need no time of their own.
fn start_logging() {
    let under_manager = std::env::var_os("JOURNAL_STREAM").is_some();
    let environment = env_logger::Env::default().default_filter_or("info");
    let mut builder = env_logger::Builder::from_env(environment);
    builder.format_target(false);
    if under_manager {
        builder.format_timestamp(None);
    }
    builder.init();
}
