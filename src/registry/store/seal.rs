//! Sealing of secrets: ChaCha20-Poly1305, bound to the object's key.
//!
//! Protects a store file that is copied without its key (backups, a core of the page cache, a
//! store on another disk than a systemd credential). Who has card and key file has the secrets.
//!
//! ```text
//!  key id (4 bytes of SHA-256 of the key) · nonce (12, random) · ciphertext · tag (16)
//! ```
//! ChaCha20 rather than AES: ARMv7 boards have no AES instructions, and ring's ChaCha20 takes the
//! same time for all data there.

use ring::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use ring::digest::{SHA256, digest};

use crate::world::Random;

/// Bytes of a key that lowtide makes.
pub(super) const KEY_BYTES: usize = 32;
/// A credential shorter than this is a mistake.
const KEY_BYTES_MIN: usize = 16;
pub(super) const ID_BYTES: usize = 4;

#[derive(Clone)]
pub(super) struct Sealer {
    key: LessSafeKey,
    id: [u8; ID_BYTES],
}

/// Why a sealed value stays shut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Shut {
    /// Sealed with another key.
    OtherKey,
    /// Changed since it was sealed, or moved to another object.
    Damaged,
}

impl Sealer {
    /// From the bytes of a key file: 32 of them are the key, any other number is hashed to it.
    /// `None` if there are too few to be one.
    pub fn new(secret: &[u8]) -> Option<Sealer> {
        if secret.len() < KEY_BYTES_MIN {
            return None;
        }
        let hashed = digest(&SHA256, secret);
        let key = match secret.len() {
            KEY_BYTES => secret,
            _ => hashed.as_ref(),
        };
        let id = digest(&SHA256, key).as_ref()[..ID_BYTES]
            .try_into()
            .expect("a SHA-256 is longer");
        let key = UnboundKey::new(&CHACHA20_POLY1305, key).expect("32 bytes are a key");
        Some(Sealer {
            key: LessSafeKey::new(key),
            id,
        })
    }

    /// Begins everything that it seals.
    pub fn id(&self) -> [u8; ID_BYTES] {
        self.id
    }

    pub fn seal(&self, name: &str, clear: &[u8], random: &dyn Random) -> Vec<u8> {
        let mut nonce = [0u8; NONCE_LEN];
        random.fill(&mut nonce);
        let mut sealed = clear.to_vec();
        self.key
            .seal_in_place_append_tag(
                Nonce::assume_unique_for_key(nonce),
                Aad::from(name.as_bytes()),
                &mut sealed,
            )
            .expect("a record is far below ChaCha20's 256 GiB");
        [&self.id[..], &nonce[..], &sealed[..]].concat()
    }

    pub fn open(&self, name: &str, value: &[u8]) -> Result<Vec<u8>, Shut> {
        let (id, rest) = value.split_at_checked(ID_BYTES).ok_or(Shut::Damaged)?;
        if id != self.id {
            return Err(Shut::OtherKey);
        }
        let (nonce, sealed) = rest.split_at_checked(NONCE_LEN).ok_or(Shut::Damaged)?;
        let nonce = Nonce::try_assume_unique_for_key(nonce).map_err(|_| Shut::Damaged)?;
        let mut clear = sealed.to_vec();
        let aad = Aad::from(name.as_bytes());
        let opened = self.key.open_in_place(nonce, aad, &mut clear);
        Ok(opened.map_err(|_| Shut::Damaged)?.to_vec())
    }
}
