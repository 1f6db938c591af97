//! Entity tags: by what a client asks whether a document is still the one that it has. Pure.
//!
//! Source: RFC 9110, sections 8.8.3 and 13.1.2.

use std::fmt::Write as _;

use http::header::{HeaderMap, HeaderValue, IF_NONE_MATCH};
use ring::digest;

/// SHA-256 of the bytes in upper-case hex, as upstream has it in tags and URLs.
pub fn of(bytes: &[u8]) -> String {
    let hash = digest::digest(&digest::SHA256, bytes);
    let mut text = String::with_capacity(64);
    for byte in hash.as_ref() {
        write!(text, "{byte:02X}").expect("a String takes it");
    }
    text
}

/// The header's value: the tag in quotes.
pub fn value(tag: &str) -> HeaderValue {
    HeaderValue::from_str(&format!("\"{tag}\"")).expect("hex")
}

/// Whether a client says that it has what the tag stands for.
pub fn is_known(headers: &HeaderMap, tag: &str) -> bool {
    let stated = headers.get_all(IF_NONE_MATCH).iter();
    let stated = stated.filter_map(|value| value.to_str().ok());
    let mut tags = stated.flat_map(|value| value.split(',')).map(str::trim);
    tags.any(|one| one == "*" || one.trim_start_matches("W/").trim_matches('"') == tag)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tag_is_known_in_every_spelling() {
        let tag = of(b"text");
        let table = [
            (format!("\"{tag}\""), true),
            (format!("W/\"{tag}\""), true),
            (format!("\"x\", \"{tag}\""), true),
            ("*".to_owned(), true),
            ("\"x\"".to_owned(), false),
        ];
        for (stated, known) in table {
            let value = HeaderValue::from_str(&stated).expect("a header");
            let headers = HeaderMap::from_iter([(IF_NONE_MATCH, value)]);
            assert_eq!(is_known(&headers, &tag), known, "{stated}");
        }
        assert!(!is_known(&HeaderMap::new(), &tag));
    }
}
