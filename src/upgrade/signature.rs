//! Signatures as minisign and signify's heirs write them: two comments, two lines of base64.
//!
//! ```text
//!   untrusted comment: …                      for people; nothing vouches for it
//!   base64(algorithm 2, key id 8, signature 64)
//!   trusted comment: …                        vouched for by the next line
//!   base64(signature of signature and trusted comment, 64)
//! ```
//! Algorithm `ED` signs the BLAKE2b-512 of the file, `Ed` (older) the file itself; keys are Ed25519.
//! Pure: bytes in, the trusted comment out.

use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use blake2::{Blake2b512, Digest};
use ring::signature::{ED25519, UnparsedPublicKey};

/// Algorithm of a key, and of a signature of the file's own bytes.
const PLAIN: &[u8] = b"Ed";
/// Algorithm of a signature of the file's hash.
const HASHED: &[u8] = b"ED";
const UNTRUSTED: &str = "untrusted comment:";
const TRUSTED: &str = "trusted comment: ";
/// Bytes of a key's id.
const ID: usize = 8;

/// Why a file is not taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Bad {
    /// Line number (from 1) and what is wrong with it.
    Key(usize, &'static str),
    NoKey,
    Signature(usize, &'static str),
    /// Signed by none of ours: the id of its key.
    UnknownKey(String),
    /// The file is not what was signed.
    Content,
    /// The trusted comment is not what was signed.
    Comment,
}

impl fmt::Display for Bad {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Bad::Key(line, why) | Bad::Signature(line, why) => write!(f, "line {line}: {why}"),
            Bad::NoKey => f.write_str("holds no key"),
            Bad::UnknownKey(id) => {
                write!(f, "made with key {id}, which is none of the trusted ones")
            }
            Bad::Content => f.write_str("does not fit the file: it was changed or cut short"),
            Bad::Comment => f.write_str("its trusted comment was changed"),
        }
    }
}

/// A public key that releases may be signed with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PublicKey {
    id: [u8; ID],
    key: Vec<u8>,
}

impl PublicKey {
    /// All keys of a file: one on each line that is no comment, so that a key can be changed while
    /// the old one still counts.
    pub fn read_all(text: &str) -> Result<Vec<PublicKey>, Bad> {
        let lines = text.lines().zip(1..);
        let keys =
            lines.filter(|(line, _)| !line.trim().is_empty() && !line.starts_with(UNTRUSTED));
        let keys = keys.map(|(line, number)| {
            let bad = |why| Bad::Key(number, why);
            let bytes = STANDARD.decode(line.trim());
            let bytes = bytes.map_err(|_| bad("not the base64 of a minisign public key"))?;
            match split(&bytes, 32) {
                Some((PLAIN, id, key)) => Ok(PublicKey {
                    id,
                    key: key.to_vec(),
                }),
                _ => Err(bad("not a minisign public key")),
            }
        });
        let keys: Vec<PublicKey> = keys.collect::<Result<_, _>>()?;
        if keys.is_empty() {
            return Err(Bad::NoKey);
        }
        Ok(keys)
    }

    fn verifies(&self, message: &[u8], signature: &[u8]) -> bool {
        let key = UnparsedPublicKey::new(&ED25519, &self.key);
        key.verify(message, signature).is_ok()
    }
}

/// Checks `content` against the text of its signature. Returns the trusted comment.
pub fn verify<'a>(keys: &[PublicKey], signature: &'a str, content: &[u8]) -> Result<&'a str, Bad> {
    let mut lines = signature.lines();
    let mut line = |number, what| lines.next().ok_or(Bad::Signature(number, what));
    let untrusted = line(1, "the file is empty")?;
    if !untrusted.starts_with(UNTRUSTED) {
        return Err(Bad::Signature(1, "no \"untrusted comment:\""));
    }
    let signed = decode(line(2, "the signature is missing")?, 2)?;
    let comment = line(3, "the trusted comment is missing")?;
    let comment = comment.strip_prefix(TRUSTED);
    let comment = comment.ok_or(Bad::Signature(3, "no \"trusted comment:\""))?;
    let vouched = decode(
        line(4, "the signature of the trusted comment is missing")?,
        4,
    )?;

    let parts = split(&signed, 64).ok_or(Bad::Signature(2, "not 74 bytes of base64"))?;
    let (algorithm, id, of_content) = parts;
    let key = keys.iter().find(|key| key.id == id);
    let key = key.ok_or_else(|| Bad::UnknownKey(shown(id)))?;
    let fits = match algorithm {
        HASHED => key.verifies(&Blake2b512::digest(content), of_content),
        PLAIN => key.verifies(content, of_content),
        _ => return Err(Bad::Signature(2, "an algorithm that is not known here")),
    };
    if !fits {
        return Err(Bad::Content);
    }
    let commented = [of_content, comment.as_bytes()].concat();
    match key.verifies(&commented, &vouched) {
        true => Ok(comment),
        false => Err(Bad::Comment),
    }
}

fn decode(line: &str, number: usize) -> Result<Vec<u8>, Bad> {
    let bytes = STANDARD.decode(line.trim());
    bytes.map_err(|_| Bad::Signature(number, "not base64"))
}

/// Algorithm, key id and the rest, which must have this many bytes.
fn split(bytes: &[u8], rest_bytes: usize) -> Option<(&[u8], [u8; ID], &[u8])> {
    let (algorithm, bytes) = bytes.split_at_checked(2)?;
    let (id, rest) = bytes.split_first_chunk::<ID>()?;
    (rest.len() == rest_bytes).then_some((algorithm, *id, rest))
}

/// As minisign shows ids: a number, lowest byte first in the file.
fn shown(id: [u8; ID]) -> String {
    format!("{:016X}", u64::from_le_bytes(id))
}

#[cfg(test)]
mod tests;
