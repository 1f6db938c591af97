//! Which role is this process: node, shim, pause or client.

use std::io::Write;
use std::os::unix::fs::MetadataExt;
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
                    let priority = if is_journal() { "<3>" } else { "" };
                    eprintln!("{priority}lowtide run: {error}");
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

/// `RUST_LOG` decides; `info` otherwise. In the journal lines need no time of their own, and have
/// the priority that `journalctl -p` looks for (sd-daemon(3)).
fn start_logging() {
    let environment = env_logger::Env::default().default_filter_or("info");
    let mut builder = env_logger::Builder::from_env(environment);
    builder.format_target(false);
    if is_journal() {
        builder.format(|line, record| {
            let level = record.level();
            let priority = match level {
                log::Level::Error => 3,
                log::Level::Warn => 4,
                log::Level::Info => 6,
                log::Level::Debug | log::Level::Trace => 7,
            };
            let text = record.args().to_string();
            // Each line is an entry of its own there.
            let text = text.replace('\n', &format!("\n<{priority}>    "));
            writeln!(line, "<{priority}>[{level:<5}] {text}")
        });
    }
    builder.init();
}

/// Whether standard error is the stream that the service manager speaks of, and no redirection of it.
fn is_journal() -> bool {
    let told = std::env::var_os("JOURNAL_STREAM");
    let stream = std::fs::metadata("/proc/self/fd/2");
    let stream = stream.map(|meta| format!("{}:{}", meta.dev(), meta.ino()));
    told.is_some_and(|told| stream.is_ok_and(|stream| told == *stream))
}
