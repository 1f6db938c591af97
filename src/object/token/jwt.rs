//! JSON Web Tokens, ES256 only (RFC 7515, RFC 7518 section 3.4). Knows no claim but the issuer.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jiff::Timestamp;
use ring::rand::SystemRandom;
use ring::signature::{
    ECDSA_P256_SHA256_FIXED, ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair,
    UnparsedPublicKey,
};
use serde_json::{Value, json};

/// Longest token that is looked at; larger than any header limit lets through.
const TOKEN_BYTES_MAX: usize = 64 * 1024;

/// A signing key with its name.
pub struct Key {
    pair: EcdsaKeyPair,
    /// `kid`: hash of the public key.
    id: String,
    random: SystemRandom,
}

impl Key {
    /// A new key, PKCS #8.
    pub fn generate() -> Result<Vec<u8>, String> {
        let algorithm = &ECDSA_P256_SHA256_FIXED_SIGNING;
        let made = EcdsaKeyPair::generate_pkcs8(algorithm, &SystemRandom::new());
        let made = made.map_err(|_| "make a key: no randomness".to_owned())?;
        Ok(made.as_ref().to_vec())
    }

    /// Errors: not a P-256 key in PKCS #8.
    pub fn from_pkcs8(der: &[u8]) -> Result<Key, String> {
        let random = SystemRandom::new();
        let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, der, &random);
        let pair = pair.map_err(|error| format!("not a P-256 private key: {error}"))?;
        let hash = ring::digest::digest(&ring::digest::SHA256, pair.public_key().as_ref());
        Ok(Key {
            id: URL_SAFE_NO_PAD.encode(hash),
            pair,
            random,
        })
    }

    /// Errors: the kernel gives no randomness.
    pub fn sign(&self, claims: &Value) -> Result<String, String> {
        let header = json!({"alg": "ES256", "kid": self.id});
        let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let text = format!("{}.{}", part(&header), part(claims));
        let signature = self.pair.sign(&self.random, text.as_bytes());
        let signature = signature.map_err(|_| "sign a token: no randomness".to_owned())?;
        Ok(format!("{text}.{}", URL_SAFE_NO_PAD.encode(signature)))
    }

    /// The claims of a token that this key signed. Errors: why it does not count; never its text.
    pub fn verify(&self, token: &str) -> Result<Value, String> {
        let parts = Parts::of(token).ok_or("malformed token")?;
        // Whatever else the header says (`none`, HS256 with our public key) does not count.
        if parts.header["alg"] != "ES256" {
            return Err("signature algorithm is not ES256".to_owned());
        }
        let signature = URL_SAFE_NO_PAD.decode(parts.signature);
        let signature = signature.map_err(|_| "malformed token".to_owned())?;
        let public = UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, self.pair.public_key());
        public
            .verify(parts.signed.as_bytes(), &signature)
            .map_err(|_| "invalid signature".to_owned())?;
        Ok(parts.claims)
    }

    /// A random version 4 UUID (RFC 9562 section 5.4).
    pub fn random_id(&self) -> Result<String, String> {
        let mut bytes = [0u8; 16];
        ring::rand::SecureRandom::fill(&self.random, &mut bytes)
            .map_err(|_| "name a token: no randomness".to_owned())?;
        bytes[6] = bytes[6] & 0x0f | 0x40;
        bytes[8] = bytes[8] & 0x3f | 0x80;
        let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        let parts = [
            &hex[..8],
            &hex[8..12],
            &hex[12..16],
            &hex[16..20],
            &hex[20..],
        ];
        Ok(parts.join("-"))
    }
}

/// A token's pieces, none of them trusted.
struct Parts<'a> {
    header: Value,
    claims: Value,
    signed: &'a str,
    signature: &'a str,
}

impl<'a> Parts<'a> {
    fn of(token: &'a str) -> Option<Parts<'a>> {
        if token.len() > TOKEN_BYTES_MAX {
            return None;
        }
        let (signed, signature) = token.rsplit_once('.')?;
        let (header, claims) = signed.split_once('.')?;
        let read = |part: &str| {
            let bytes = URL_SAFE_NO_PAD.decode(part).ok()?;
            serde_json::from_slice::<Value>(&bytes).ok()
        };
        Some(Parts {
            header: read(header)?,
            claims: read(claims)?,
            signed,
            signature,
        })
    }
}

/// The `iss` that a token claims, unproven: whose token it would be. `None` for other texts.
pub fn claimed_issuer(token: &str) -> Option<String> {
    let parts = Parts::of(token)?;
    parts.claims["iss"].as_str().map(str::to_owned)
}

/// The `exp` that a token claims, unproven. `None` for other texts, and for tokens without an end.
pub fn claimed_expiry(token: &str) -> Option<Timestamp> {
    let seconds = Parts::of(token)?.claims["exp"].as_f64()?;
    Timestamp::from_second(seconds as i64).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key() -> Key {
        Key::from_pkcs8(&Key::generate().expect("key")).expect("own key")
    }

    #[test]
    fn what_was_signed_is_verified_by_the_same_key_only() {
        let (ours, theirs) = (key(), key());
        let claims = json!({"iss": "x", "n": 1});
        let token = ours.sign(&claims).expect("sign");
        assert_eq!(ours.verify(&token), Ok(claims));
        assert_eq!(claimed_issuer(&token).as_deref(), Some("x"));
        assert_eq!(claimed_expiry(&token), None);
        let token = ours.sign(&json!({"exp": 100})).expect("sign");
        assert_eq!(claimed_expiry(&token), Timestamp::from_second(100).ok());
        assert_eq!(theirs.verify(&token), Err("invalid signature".to_owned()));
    }

    #[test]
    fn changed_and_foreign_tokens_do_not_count() {
        let key = key();
        let token = key.sign(&json!({"sub": "a"})).expect("sign");
        let parts: Vec<&str> = token.split('.').collect();
        let other = URL_SAFE_NO_PAD.encode(r#"{"sub":"b"}"#);
        let none = URL_SAFE_NO_PAD.encode(r#"{"alg":"none"}"#);
        let hs = URL_SAFE_NO_PAD.encode(r#"{"alg":"HS256"}"#);
        let table = [
            (
                format!("{}.{other}.{}", parts[0], parts[2]),
                "invalid signature",
            ),
            (format!("{none}.{}.", parts[1]), "not ES256"),
            (format!("{hs}.{}.{}", parts[1], parts[2]), "not ES256"),
            (format!("{}.{}.", parts[0], parts[1]), "invalid signature"),
            (format!("{}.{}", parts[0], parts[1]), "malformed"),
            ("a.b.c".to_owned(), "malformed"),
            (String::new(), "malformed"),
            (".".repeat(100_000), "malformed"),
        ];
        for (token, why) in table {
            let refused = key.verify(&token).expect_err(&token);
            assert!(refused.contains(why), "{refused}");
        }
    }
}
