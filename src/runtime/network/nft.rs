//! Running `nft`: one script, one transaction.
//!
//! nft applies a script wholly or not at all, so a failure leaves the rules of before. The script
//! goes in on stdin; what nft says goes into the error.

use std::fs::File;
use std::io::{self, Read, Write};

use crate::os::pipe::{Pipe, pipe};
use crate::os::process::Ended;
use crate::os::spawn::Spawn;

use super::NetworkError;

/// Of what nft prints, as much goes into an error.
const COMPLAINT_BYTES_MAX: u64 = 1024;

/// Feeds `script` to `nft -f -`. Blocking: nft talks to the kernel only, it cannot wait for others.
/// Errors: `NftMissing` if there is no such program; `Failed` with what nft printed.
pub fn apply(program: &str, script: &str) -> Result<(), NetworkError> {
    let failed = |error: io::Error| NetworkError::Failed(format!("run {program}: {error}"));
    let Pipe {
        read: stdin,
        write: script_end,
    } = pipe().map_err(failed)?;
    let Pipe {
        read: complaint_end,
        write: stderr,
    } = pipe().map_err(failed)?;
    let spawn = Spawn::new(program)
        .args(["-f", "-"])
        .descriptor(0, stdin)
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
    let mut complaint = String::new();
    let mut reader = File::from(complaint_end).take(COMPLAINT_BYTES_MAX);
    // Only for the message; what is no UTF-8 is left out.
    let _ = reader.read_to_string(&mut complaint);
    drop(reader);
    let ended = async_io::block_on(child.wait()).map_err(failed)?;
    match ended {
        Ended::Exited(0) => fed.map_err(failed),
        Ended::Exited(_) | Ended::Signalled(_) => Err(NetworkError::Failed(format!(
            "{program} refused the rules of the pod network: {}",
            complaint.lines().next().unwrap_or("no reason given")
        ))),
    }
}
