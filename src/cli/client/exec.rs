//! `exec`: the user's terminal on a command in a container. `attach`: on what the container runs.
//!
//! ```text
//!   stdin ──► channel 0 ──►            ┌── channel 1 ──► stdout
//!   SIGWINCH ► channel 4 ─►  the node ─┼── channel 2 ──► stderr
//!                                      └── channel 3 ──► exit code
//! ```
//!
//! Raw mode is left on every way out: the guard is dropped before the process exits, and the
//! signals that would end it are read as messages meanwhile.

use std::io::{self, IsTerminal, Write};

use async_tungstenite::{WebSocketReceiver, WebSocketSender};
use blocking::Unblock;
use bytes::Bytes;
use clap::ArgMatches;
use futures_lite::{AsyncReadExt, FutureExt, StreamExt};
use serde_json::Value;

use super::transport::{Client, Error};
use super::{namespace, resource, text, texts};
use crate::apiserver::query::encode;
use crate::net::serve::Duplex;
use crate::net::websocket::{self, ConnectError, Frame, Message, TerminalSize};
use crate::object::Kind;
use crate::os::signal::{Signal, Signals};
use crate::os::terminal::{self, RawMode};

/// One read of standard input, and so one message.
const CHUNK_BYTES: usize = 32 << 10;

type Io = Box<dyn Duplex>;

/// What is at the other end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Act {
    Exec,
    Attach,
}

/// What the user wants of a session.
struct Wish {
    act: Act,
    stdin: bool,
    tty: bool,
}

pub fn run(client: &Client, matches: &ArgMatches, act: Act) -> Result<u8, Error> {
    // Before the first thread: a thread that does not block a signal would take it.
    let signals = Signals::block(&[
        Signal::SIGWINCH,
        Signal::SIGINT,
        Signal::SIGTERM,
        Signal::SIGHUP,
        Signal::SIGQUIT,
    ])
    .map_err(|error| Error::Broken(format!("watch signals: {error}")))?;
    let mut wish = Wish {
        act,
        stdin: matches.get_flag("stdin"),
        tty: matches.get_flag("tty"),
    };
    if wish.tty && !(wish.stdin && io::stdin().is_terminal()) {
        eprintln!("Unable to use a TTY - input is not a terminal or the right kind of file");
        wish.tty = false;
    }
    let result = client.block_on(session(client, matches, &wish, &signals));
    if wish.stdin {
        // A thread may be waiting for the next key; only the end of the process frees it.
        let code = match &result {
            Ok(code) => *code,
            Err(error) => {
                eprintln!("{error}");
                1
            }
        };
        std::process::exit(i32::from(code));
    }
    result
}

async fn session(
    client: &Client,
    matches: &ArgMatches,
    wish: &Wish,
    signals: &Signals,
) -> Result<u8, Error> {
    let path = path(client, matches, wish).await?;
    let io: Io = Box::new(client.connect()?);
    let protocols = [websocket::V5, websocket::V4];
    let (socket, protocol) = websocket::connect(io, &path, &protocols)
        .await
        .map_err(|error| match error {
            ConnectError::Refused { code, body } => Error::from_status(code, &body),
            ConnectError::Broken(text) => Error::Broken(format!("talk to the node: {text}")),
        })?;
    let (mut sender, receiver) = socket.split();
    let raw = wish.tty.then(|| RawMode::enter(io::stdin())).transpose();
    let _raw = raw.map_err(|error| Error::Broken(format!("set the terminal: {error}")))?;
    if wish.tty {
        send_size(&mut sender).await;
    }
    let (to_send, outgoing) = async_channel::bounded::<Frame>(1);
    let input = read_input(wish, &protocol, to_send.clone());
    let watch = watch_signals(wish, signals, to_send);
    let sending = async {
        while let Ok(frame) = outgoing.recv().await {
            if sender.send(frame.encode().into()).await.is_err() {
                break;
            }
        }
        std::future::pending().await
    };
    receive(receiver).or(watch).or(input).or(sending).await
}

async fn path(client: &Client, matches: &ArgMatches, wish: &Wish) -> Result<String, Error> {
    let (namespace, wanted) = (namespace(matches), text(matches, "pod").unwrap_or_default());
    let wanted = wanted.strip_prefix("pod/").unwrap_or(wanted);
    let name = resource::pod_name(client, namespace, wanted).await?;
    let act = match wish.act {
        Act::Exec => "exec",
        Act::Attach => "attach",
    };
    let mut path = format!(
        "{}/{act}?stdout=true&stderr={}&stdin={}&tty={}",
        resource::object(Kind::Pod, namespace, &name),
        !wish.tty,
        wish.stdin,
        wish.tty
    );
    if let Some(container) = text(matches, "container") {
        path.push_str(&format!("&container={}", encode(container)));
    }
    if wish.act == Act::Exec {
        for word in texts(matches, "command") {
            path.push_str(&format!("&command={}", encode(word)));
        }
    }
    Ok(path)
}

async fn send_size(sender: &mut WebSocketSender<Io>) {
    if let Some(frame) = size() {
        // A broken connection shows on the receiving side.
        let _ = sender.send(frame.encode().into()).await;
    }
}

fn size() -> Option<Frame> {
    let size = terminal::size(&io::stdin()).ok()?;
    Some(Frame::Resize(TerminalSize {
        columns: size.columns,
        rows: size.rows,
    }))
}

/// Passes standard input on. Never ends by itself: the command decides when all is over.
async fn read_input<T>(wish: &Wish, protocol: &str, to: async_channel::Sender<Frame>) -> T {
    if wish.stdin {
        let mut stdin = Unblock::new(io::stdin());
        let mut buffer = vec![0; CHUNK_BYTES];
        while let Ok(read @ 1..) = stdin.read(&mut buffer).await {
            let bytes = Bytes::copy_from_slice(&buffer[..read]);
            if to.send(Frame::Stdin(bytes)).await.is_err() {
                break;
            }
        }
        // v4 cannot say that the input has ended.
        if protocol == websocket::V5 {
            let _ = to.send(Frame::StdinClosed).await;
        }
    }
    std::future::pending().await
}

/// Window changes go to the command; signals that end us do so with the shell's code.
async fn watch_signals(
    wish: &Wish,
    signals: &Signals,
    to: async_channel::Sender<Frame>,
) -> Result<u8, Error> {
    loop {
        let signal = signals
            .next()
            .await
            .map_err(|error| Error::Broken(format!("watch signals: {error}")))?;
        if signal == Signal::SIGWINCH as i32 {
            if let Some(frame) = size().filter(|_| wish.tty) {
                let _ = to.send(frame).await;
            }
        } else {
            return Ok(u8::try_from(128 + signal).unwrap_or(u8::MAX));
        }
    }
}

/// Prints what comes until the node says how the command ended.
async fn receive(mut receiver: WebSocketReceiver<Io>) -> Result<u8, Error> {
    let lost =
        || Error::Broken("the node closed the connection before the command ended".to_owned());
    loop {
        let bytes = match receiver.next().await {
            Some(Ok(Message::Binary(bytes))) => bytes,
            Some(Ok(Message::Close(_)) | Err(_)) | None => return Err(lost()),
            Some(Ok(_)) => continue,
        };
        let printed = match Frame::decode(&bytes) {
            Some(Frame::Stdout(bytes)) => print(&mut io::stdout().lock(), &bytes),
            Some(Frame::Stderr(bytes)) => print(&mut io::stderr().lock(), &bytes),
            Some(Frame::Error(status)) => return exit_code(&status),
            _ => Ok(()),
        };
        printed.map_err(|error| Error::Broken(format!("write output: {error}")))?;
    }
}

fn print(to: &mut dyn Write, bytes: &[u8]) -> io::Result<()> {
    to.write_all(bytes)?;
    to.flush()
}

/// The exit code in the closing Status.
fn exit_code(status: &[u8]) -> Result<u8, Error> {
    let parsed: Value = serde_json::from_slice(status).unwrap_or_default();
    if parsed["status"] == "Success" {
        return Ok(0);
    }
    let causes = parsed["details"]["causes"].as_array().into_iter().flatten();
    let mut codes = causes.filter(|cause| cause["reason"] == "ExitCode");
    let code = codes
        .next()
        .and_then(|cause| cause["message"].as_str()?.parse::<i32>().ok());
    match code {
        Some(code) => Ok(u8::try_from(code).unwrap_or(1)),
        None => Err(Error::from_status(500, status)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_closing_status_gives_the_exit_code() {
        assert_eq!(exit_code(br#"{"status":"Success"}"#).expect("code"), 0);
        let failed = br#"{"status":"Failure","reason":"NonZeroExitCode",
            "details":{"causes":[{"reason":"ExitCode","message":"42"}]}}"#;
        assert_eq!(exit_code(failed).expect("code"), 42);
        let error = exit_code(br#"{"status":"Failure","message":"no such shim"}"#);
        assert!(
            error
                .expect_err("must fail")
                .to_string()
                .contains("no such shim")
        );
    }
}
