//! Completion scripts of shells, as `packages/completions` has them.
//!
//! They are made when the tree of commands changes (the tests say when), not by every node: what
//! makes them is seven times as large as they are.

use std::io::{self, Read, Write};

use flate2::read::GzDecoder;

include!(concat!(env!("OUT_DIR"), "/completions.rs"));

/// Writes the script of `bash`, `zsh` or `fish`. Errors: of `out`.
pub fn write(shell: &str, out: &mut dyn Write) -> io::Result<()> {
    let found = SCRIPTS.iter().find(|(name, _)| *name == shell);
    let (_, packed) = found.ok_or(io::ErrorKind::NotFound)?;
    let mut script = Vec::new();
    GzDecoder::new(*packed).read_to_end(&mut script)?;
    out.write_all(&script)
}
