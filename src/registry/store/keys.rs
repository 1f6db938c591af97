//! Keys that somebody else makes: the file of `--encryption-key-file`.
//!
//! ```text
//!   # made by: head -c 32 /dev/urandom | base64
//!   q83v…=            the first key seals
//!   AAEC…=            every key opens
//! ```
//! A first line `identity` seals nothing: for the way back to no file. Keys are told apart by what
//! they seal, so they need no names and may change places.

use std::fs::File;
use std::io::Read as _;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;

use super::seal::{KEY_BYTES, Sealer};

/// Keys in one file. More would be a rotation that never ended.
const KEYS_MAX: usize = 16;
const FILE_BYTES_MAX: u64 = 16 << 10;

/// How Secrets lie in the store.
#[derive(Clone, Default)]
pub enum Encryption {
    /// Sealed with the node's own key: the credential or `store.key`, made at the first start.
    #[default]
    Own,
    /// As a file says. The node's own key still opens what it sealed.
    File(KeyFile),
    /// In clear. The node's own key still opens what it sealed.
    Off,
}

/// Whether what is written is sealed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Seals {
    WithFirst,
    Nothing,
}

/// The content of a key file.
#[derive(Clone)]
pub struct KeyFile {
    pub(super) seals: Seals,
    pub(super) sealers: Vec<Sealer>,
}

impl KeyFile {
    /// Reads a file that nobody but its owner may read. Errors: file, line, and what is wrong; never a
    /// part of a key.
    pub fn read(path: &Path) -> Result<KeyFile, String> {
        let failed = |error: &dyn std::fmt::Display| format!("{}: {error}", path.display());
        let file = File::open(path).map_err(|error| failed(&error))?;
        let about = file.metadata().map_err(|error| failed(&error))?;
        if !about.is_file() {
            return Err(failed(&"not a regular file"));
        }
        let mode = about.permissions().mode() & 0o777;
        if mode & 0o077 != 0 {
            let text = format!("mode is {mode:04o}, others may get at the keys; chmod 0600 it");
            return Err(failed(&text));
        }
        let mut text = String::new();
        let read = file.take(FILE_BYTES_MAX + 1).read_to_string(&mut text);
        read.map_err(|error| failed(&error))?;
        if text.len() as u64 > FILE_BYTES_MAX {
            return Err(failed(&format!("larger than {FILE_BYTES_MAX} bytes")));
        }
        KeyFile::parse(&text).map_err(|(line, why)| format!("{}:{line}: {why}", path.display()))
    }

    /// Errors: line, from 1, and what is wrong.
    fn parse(text: &str) -> Result<KeyFile, (usize, String)> {
        let mut seals = None;
        let mut sealers: Vec<Sealer> = Vec::new();
        for (line, entry) in text.lines().enumerate() {
            let wrong = |why: &str| (line + 1, why.to_owned());
            match entry.trim() {
                "" => {}
                comment if comment.starts_with('#') => {}
                "identity" if seals.is_none() => seals = Some(Seals::Nothing),
                "identity" => return Err(wrong("identity may only be the first entry")),
                _ if sealers.len() == KEYS_MAX => {
                    return Err(wrong(&format!("more than {KEYS_MAX} keys")));
                }
                key => {
                    let key = BASE64.decode(key).ok().filter(|key| key.len() == KEY_BYTES);
                    let sealer = key.and_then(|key| Sealer::new(&key));
                    let what = "neither a comment, nor identity, nor 32 bytes in base64";
                    let sealer = sealer.ok_or_else(|| wrong(what))?;
                    if sealers.iter().any(|known| known.id() == sealer.id()) {
                        return Err(wrong("a key that stands above already"));
                    }
                    sealers.push(sealer);
                    seals = seals.or(Some(Seals::WithFirst));
                }
            }
        }
        match seals {
            Some(seals) => Ok(KeyFile { seals, sealers }),
            None => Err((1, "holds no key".to_owned())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(byte: u8) -> String {
        BASE64.encode([byte; KEY_BYTES])
    }

    #[test]
    fn a_key_file_says_what_seals_and_what_opens() {
        let [a, b] = [key(1), key(2)];
        let parsed = |text: &str| {
            let file = KeyFile::parse(text).map_err(|(line, _)| line)?;
            Ok((file.seals, file.sealers.len()))
        };
        for (text, expected) in [
            (a.clone(), Ok((Seals::WithFirst, 1))),
            (
                format!("# old\n\n {a} \r\n{b}\n"),
                Ok((Seals::WithFirst, 2)),
            ),
            (format!("identity\n{a}\n"), Ok((Seals::Nothing, 1))),
            ("identity".to_owned(), Ok((Seals::Nothing, 0))),
            (format!("{a}\nidentity\n"), Err(2)),
            (format!("{a}\n{b}\n{a}\n"), Err(3)),
            (format!("{a}\n{}\n", BASE64.encode([3; 31])), Err(2)),
            ("# nothing\n".to_owned(), Err(1)),
            ("hunter2\n".to_owned(), Err(1)),
        ] {
            assert_eq!(parsed(&text), expected, "{text}");
        }
        let many: Vec<String> = (0..=16).map(key).collect();
        assert_eq!(parsed(&many.join("\n")), Err(17));
    }

    #[test]
    fn keys_that_others_may_read_are_refused_and_never_shown() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("keys");
        std::fs::write(&path, key(7)).expect("written");
        for (mode, good) in [(0o600, true), (0o400, true), (0o640, false), (0o604, false)] {
            let permissions = std::fs::Permissions::from_mode(mode);
            std::fs::set_permissions(&path, permissions).expect("chmod");
            assert_eq!(KeyFile::read(&path).is_ok(), good, "{mode:o}");
        }
        let permissions = std::fs::Permissions::from_mode(0o600);
        std::fs::set_permissions(&path, permissions).expect("chmod");
        std::fs::write(&path, format!("{}\nhunter2\n", key(7))).expect("written");
        let error = KeyFile::read(&path).err().expect("a bad line");
        assert!(error.ends_with(":2: neither a comment, nor identity, nor 32 bytes in base64"));
    }
}
