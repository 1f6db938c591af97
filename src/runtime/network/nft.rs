//! Running `nft`: one script, one transaction.
//!
//! nft applies a script wholly or not at all, so a failure leaves the rules of before. The script
//! goes in on stdin; what nft says goes into the error.

use std::fs::File;
use std::io::{self, Read, Write};

use crate::os::netlink::Netlink;
use crate::os::netlink::message::{Attributes, Message};
use crate::os::pipe::{Pipe, pipe};
use crate::os::process::Ended;
use crate::os::spawn::Spawn;

use super::NetworkError;

/// As much of what nft prints is read.
const OUTPUT_BYTES_MAX: u64 = 256 << 10;

/// NFT_MSG_GETTABLE of NFNL_SUBSYS_NFTABLES, and its attribute.
const GET_TABLE: u16 = 0xa01;
const NFTA_TABLE_NAME: u16 = 1;
/// errno(3)
const ENOENT: i32 = 2;

/// Whether the kernel has a table of this name; also where it does not say.
pub fn has_table(name: &str) -> bool {
    let named = Attributes::new().with_name(NFTA_TABLE_NAME, name);
    let asked = Message::netfilter(GET_TABLE, &named);
    let answer =
        Netlink::open_netfilter().and_then(|mut netlink| netlink.get(&asked, |_| Some(())));
    !answer.is_err_and(|error| error.raw_os_error() == Some(ENOENT))
}

/// Makes what `script` says. Blocking, and errors, as `run`.
pub fn apply(program: &str, script: &str) -> Result<(), NetworkError> {
    run(program, &["-f", "-"], script).map(drop)
}

/// Feeds `script` to nft and returns what it prints. Blocking: nft talks to the kernel only, it
/// cannot wait for others.
/// Errors: `NftMissing` if there is no such program; `Failed` with what nft printed.
pub fn run(program: &str, arguments: &[&str], script: &str) -> Result<String, NetworkError> {
    let failed = |error: io::Error| NetworkError::Failed(format!("run {program}: {error}"));
    let Pipe {
        read: stdin,
        write: script_end,
    } = pipe().map_err(failed)?;
    let Pipe {
        read: output_end,
        write: stdout,
    } = pipe().map_err(failed)?;
    let stderr = stdout.try_clone().map_err(failed)?;
    let spawn = Spawn::new(program)
        .args(arguments)
        .descriptor(0, stdin)
        .descriptor(1, stdout)
        .descriptor(2, stderr);
    let child = spawn.start().map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => NetworkError::NftMissing(format!(
            "{program} is not installed: install the package nftables"
        )),
        _ => failed(error),
    })?;
    // nft reads all of it before it prints; a broken pipe means that it ended and said why.
    let mut script_end = File::from(script_end);
    let fed = script_end.write_all(script.as_bytes());
    drop(script_end);
    let mut output = String::new();
    let mut reader = File::from(output_end).take(OUTPUT_BYTES_MAX);
    // What is no UTF-8 is left out.
    let _ = reader.read_to_string(&mut output);
    drop(reader);
    let ended = async_io::block_on(child.wait()).map_err(failed)?;
    match ended {
        Ended::Exited(0) => fed.map(|()| output).map_err(failed),
        Ended::Exited(_) | Ended::Signalled(_) => Err(NetworkError::Failed(format!(
            "{program} refused the rules of the pod network: {}",
            output.lines().next().unwrap_or("no reason given")
        ))),
    }
}
